//! Much data over connections of TCP: pipes that fill, readers that pause and die, both directions at once.

#![expect(
    clippy::unwrap_used,
    reason = "test code outside #[test] functions: a panic is the report"
)]

use std::cell::Cell;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::support::eventually::{eventually, stalled};
use crate::support::now;
use crate::support::origin::pattern;
use crate::support::running::Running;
use crate::support::tcp::{Came, End, Endpoint};

/// Somebody who sends, as far as others take it.
struct Sender {
    sent: Arc<AtomicUsize>,
    thread: JoinHandle<std::io::Result<End>>,
}

/// Sent again and again; no power of two, so that nothing is where it was a block before.
fn block() -> Vec<u8> {
    pattern(0, (1 << 20) + 7)
}

// === impl Sender ===

impl Sender {
    /// Sends so many blocks.
    fn start(end: End, blocks: usize) -> Self {
        Self::sending(end, block(), blocks)
    }

    /// Sends `bytes` so many times.
    fn sending(mut end: End, bytes: Vec<u8>, times: usize) -> Self {
        let sent = Arc::new(AtomicUsize::new(0));
        let count = sent.clone();
        let thread = std::thread::spawn(move || {
            for _ in 0..times {
                for piece in bytes.chunks(16 * 1024) {
                    end.0.write_all(piece)?;
                    count.fetch_add(piece.len(), Ordering::SeqCst);
                }
            }
            Ok(end)
        });
        Self { sent, thread }
    }

    fn sent(&self) -> usize {
        self.sent.load(Ordering::SeqCst)
    }

    /// Waits until nobody takes more of it.
    fn await_stall(&self) -> usize {
        stalled("a stall", || self.sent())
    }

    /// Its end, once it has sent all.
    fn join(self) -> End {
        self.thread.join().unwrap().unwrap()
    }
}

fn over(endpoint: &Endpoint) -> Running {
    Running::over(endpoint.addr(), "", "outlier = 'off'")
}

fn join(running: &Running, endpoint: &Endpoint) -> (End, End) {
    let client = End::connect(running.web);
    (client, endpoint.accept())
}

/// Blocks that the kernel does not hold, however large its buffers may grow.
const MANY: usize = 64;

/// Two of its two standard streams, and what two workers keep: 16 each, of two ends.
const PIPES: usize = 2 + 2 * 16 * 2;

#[test]
fn a_reader_that_pauses_costs_no_time_no_memory_and_no_byte() {
    const BLOCKS: usize = MANY;
    let endpoint = Endpoint::new();
    let running = over(&endpoint);
    let (mut client, server) = join(&running, &endpoint);
    client.send("go");
    let before = running.resident();
    let sender = Sender::start(server, BLOCKS);
    let block = block();
    for n in 0..BLOCKS {
        if n % 24 == 0 {
            let sent = sender.await_stall();
            assert!(n > 0 || sent < BLOCKS * block.len(), "it never stood still");
            let (cpu, end) = (running.cpu(), now() + Duration::from_secs(1));
            eventually("time passes", || now() >= end);
            let used = running.cpu() - cpu;
            assert!(used <= 20, "{used} hundredths of a second in vain");
        }
        assert!(client.exactly(block.len()) == block, "block {n}");
    }
    // 64 MiB have passed.
    let grown = running.resident() - before;
    assert!(grown < 8192.0, "{grown} KiB");
    let mut server = sender.join();
    server.end();
    assert_eq!(client.next(), Came::End);
    let spliced = running.metric("isobar_relayed_bytes_total{way=\"splice\"}");
    drop((client, server));
    eventually("its record", || running.flows("ok") == 1);
    let all = running.metric("isobar_relayed_bytes_total{way=\"splice\"}");
    assert!(spliced <= all && all > 60e6, "{all} spliced");
}

#[test]
fn a_reader_that_dies_before_a_full_pipe_leaves_nothing() {
    let endpoint = Endpoint::new();
    let running = over(&endpoint);
    for round in 1..=4 {
        let pairs: Vec<_> = (0..12).map(|_| join(&running, &endpoint)).collect();
        let (clients, servers): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
        let senders = servers
            .into_iter()
            .map(|server| Sender::start(server, MANY));
        let senders: Vec<Sender> = senders.collect();
        stalled("all of them", || senders.iter().map(Sender::sent).sum());
        clients.into_iter().for_each(End::reset);
        for sender in senders {
            let failed = sender.thread.join().unwrap();
            assert!(failed.is_err(), "all of it went somewhere");
        }
        eventually("their records", || running.flows("cancelled") == 12 * round);
        eventually("none", || running.connections() == 0);
        eventually("no pipe is left", || running.pipes() <= PIPES);
    }
}

/// For some of these lengths all but the end lies in the kernel, and the end in a pipe.
#[test]
fn a_sender_that_ends_before_a_full_pipe_is_heard_to_the_end() {
    let endpoint = Endpoint::new();
    let running = over(&endpoint);
    let all = pattern(0, 40 * 150_001);
    for is_upload in [false, true] {
        let mut flows = Vec::new();
        for n in 1..=40 {
            let (client, server) = join(&running, &endpoint);
            let (from, to) = if is_upload {
                (client, server)
            } else {
                (server, client)
            };
            let sender = Sender::sending(from, all[..n * 150_001].to_vec(), 1);
            flows.push((n * 150_001, sender, to));
        }
        stalled("all of them", || flows.iter().map(|f| f.1.sent()).sum());
        let mut threads = Vec::new();
        for (length, sender, mut to) in flows {
            // Those who are done end at once, with the pipe full, and the others when they can.
            threads.push(std::thread::spawn(move || {
                let mut from = sender.join();
                from.end();
                (length, from)
            }));
            let received = to.read_to_end();
            assert!(received == all[..length], "{length}: {}", received.len());
            to.end();
        }
        for thread in threads {
            let (length, mut from) = thread.join().unwrap();
            assert_eq!(from.next(), Came::End, "{length}");
        }
    }
    eventually("their records", || running.flows("ok") == 80);
}

#[test]
fn a_sender_that_dies_before_a_full_pipe_is_no_end() {
    let endpoint = Endpoint::new();
    let running = over(&endpoint);
    let all = block().repeat(MANY);
    for is_upload in [false, true] {
        let (client, server) = join(&running, &endpoint);
        let (from, mut to) = if is_upload {
            (client, server)
        } else {
            (server, client)
        };
        from.0.set_nonblocking(true).unwrap();
        let sent = Cell::new(0);
        stalled("a stall", || {
            while let Ok(n) = (&from.0).write(&all[sent.get()..]) {
                sent.set(sent.get() + n);
            }
            sent.get()
        });
        assert!(sent.get() < all.len(), "the kernel took all of it");
        from.reset();
        let mut received = Vec::new();
        loop {
            match to.next() {
                Came::Bytes(bytes) => received.extend(bytes),
                Came::Reset => break,
                Came::End => panic!("{} bytes were taken for all", received.len()),
            }
        }
        assert!(received == all[..received.len()], "other bytes");
    }
    eventually("the client's record", || running.flows("cancelled") == 1);
    eventually("the endpoint's record", || running.flows("failed") == 1);
    eventually("no pipe is left", || running.pipes() <= PIPES);
}

#[test]
fn one_direction_may_end_while_the_other_is_full() {
    let endpoint = Endpoint::new();
    let running = over(&endpoint);
    let (mut client, server) = join(&running, &endpoint);
    let mut reader = End(server.0.try_clone().unwrap());
    let sender = Sender::start(server, MANY);
    sender.await_stall();
    client.send("that is all");
    client.end();
    assert_eq!(reader.read_to_end(), b"that is all");
    let block = block();
    for n in 0..MANY {
        assert!(client.exactly(block.len()) == block, "block {n}");
    }
    sender.join().end();
    assert_eq!(client.next(), Came::End);
}

#[test]
fn both_directions_are_full_and_go_on() {
    let endpoint = Endpoint::new();
    let running = over(&endpoint);
    let (client, server) = join(&running, &endpoint);
    let readers = [&client, &server].map(|end| End(end.0.try_clone().unwrap()));
    let senders = [client, server].map(|end| Sender::start(end, MANY));
    stalled("both", || senders.iter().map(Sender::sent).sum());
    let threads = readers.map(|mut reader| {
        std::thread::spawn(move || {
            let block = block();
            for n in 0..MANY {
                assert!(reader.exactly(block.len()) == block, "block {n}");
            }
            reader
        })
    });
    let [mut client, mut server] = senders.map(Sender::join);
    let readers = threads.map(|thread| thread.join().unwrap());
    client.end();
    server.end();
    for mut reader in readers {
        assert_eq!(reader.next(), Came::End);
    }
}

#[test]
fn messages_and_bulk_take_turns() {
    let endpoint = Endpoint::new();
    let running = over(&endpoint);
    let (mut client, mut server) = join(&running, &endpoint);
    let sizes = [
        1, 400_000, 3, 70_000, 16_384, 2_000_000, 1, 16_896, 1, 300_001,
    ];
    let all = pattern(0, 2_000_000);
    let expected = all.clone();
    let answering = std::thread::spawn(move || {
        for _ in 0..3 {
            for size in sizes {
                assert!(server.exactly(size) == expected[..size], "up {size}");
                server.send(&expected[..size]);
            }
        }
        server
    });
    for _ in 0..3 {
        for size in sizes {
            client.send(&all[..size]);
            assert!(client.exactly(size) == all[..size], "down {size}");
        }
    }
    client.end();
    assert_eq!(answering.join().unwrap().next(), Came::End);
    eventually("its record", || running.flows("ok") == 1);
    for way in ["splice", "copy"] {
        let series = format!("isobar_relayed_bytes_total{{way=\"{way}\"}}");
        assert!(running.metric(&series) > 100_000.0, "{way}");
    }
}

/// Splicing never passes the mark, and took the bytes behind it for an end, or for nothing; a read stops at it once.
#[test]
fn bytes_behind_urgent_ones_pass() {
    let endpoint = Endpoint::new();
    let running = over(&endpoint);
    let urge = |end: &End| rustix::net::send(&end.0, b"!", rustix::net::SendFlags::OOB).unwrap();
    for is_up in [true, false] {
        let (client, server) = join(&running, &endpoint);
        let (mut from, mut to) = if is_up {
            (client, server)
        } else {
            (server, client)
        };
        from.send("before");
        urge(&from);
        from.send("after");
        assert_eq!(to.exactly(11), b"beforeafter");
        let (mut sender, expected) = (from, block());
        let sending = std::thread::spawn(move || {
            let block = block();
            sender.send(&block);
            urge(&sender);
            sender.send(&block);
            sender.end();
            sender
        });
        let came = to.read_to_end();
        assert!(came == expected.repeat(2), "{} bytes", came.len());
        drop(sending.join().unwrap());
    }
}

/// The one who reads what fills every buffer on the way is the one who speaks next.
#[test]
fn who_was_slow_to_hear_is_heard() {
    const ANSWER: usize = 8 << 20;
    let endpoint = Endpoint::new();
    let running = over(&endpoint);
    let (mut client, mut server) = join(&running, &endpoint);
    let answering = std::thread::spawn(move || {
        let all = pattern(0, ANSWER);
        for _ in 0..6 {
            assert_eq!(server.exactly(1), b"?");
            server.send(&all);
        }
        server
    });
    let expected = pattern(0, ANSWER);
    for n in 0..6 {
        client.send(b"?");
        assert!(client.exactly(ANSWER) == expected, "answer {n}");
    }
    client.end();
    assert_eq!(answering.join().unwrap().next(), Came::End);
}
