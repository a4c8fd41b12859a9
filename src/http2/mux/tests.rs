//! Two machines that speak with each other, over bytes that are cut anywhere.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Poll, Wake};

use http::HeaderMap;
use proptest::prelude::*;

use super::super::frame::{HEADER, Header, flag, kind};
use super::super::head::kit;
use super::*;
use crate::base::buffer::Buffer;

const WINDOW: u32 = 100_000;

fn limits() -> Limits {
    Limits {
        stream_window: WINDOW,
        connection_window: 3 * WINDOW,
        max_streams: 10,
        max_head: 16 * 1024,
    }
}

/// Counts how often it was woken.
#[derive(Debug, Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Stands in line once it is woken.
struct InLine(usize, Arc<Mutex<VecDeque<usize>>>);

impl Wake for InLine {
    fn wake(self: Arc<Self>) {
        self.1.lock().unwrap().push_back(self.0);
    }
}

impl Woken {
    fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

fn with_cx<T>(woken: &Arc<Woken>, work: impl FnOnce(&mut Context<'_>) -> T) -> T {
    let waker = woken.clone().into();
    work(&mut Context::from_waker(&waker))
}

fn cx<T>(work: impl FnOnce(&mut Context<'_>) -> T) -> T {
    work(&mut Context::from_waker(Waker::noop()))
}

/// A client and a server.
struct Pair {
    client: Mux,
    server: Mux,
    /// Bytes that pass at once.
    piece: usize,
}

impl Pair {
    fn new(piece: usize) -> Self {
        let mut pair = Self {
            client: Mux::new(Role::Client, limits(), 0),
            server: Mux::new(Role::Server, limits(), 7),
            piece,
        };
        pair.pass();
        pair
    }

    /// All that either has to say.
    fn pass(&mut self) {
        while pass(&mut self.client, &mut self.server, self.piece)
            | pass(&mut self.server, &mut self.client, self.piece)
        {
            self.check();
        }
        self.check();
    }

    /// What was received is either free again, or waits to be read.
    fn check(&self) {
        for mux in [&self.client, &self.server] {
            check_windows(mux);
        }
    }

    fn ask(&mut self, text: &str) -> Key {
        let asked = cx(|cx| self.client.poll_ask(cx, text.as_bytes(), "t", false));
        let Poll::Ready(Ok((key, end))) = asked else {
            panic!("{asked:?}")
        };
        assert_eq!(end, text.len());
        key
    }

    /// A request that came, with its text.
    fn accept(&mut self) -> (Key, String) {
        let key = self.server.accept().expect("a request");
        let text = read(&mut self.server, key);
        (key, String::from_utf8(text).unwrap())
    }
}

fn pass(from: &mut Mux, to: &mut Mux, piece: usize) -> bool {
    let mut has_passed = false;
    while !from.unsent().is_empty() && !to.is_stuffed() {
        let n = piece.min(from.unsent().len());
        to.receive(&from.unsent()[..n]);
        from.sent(n);
        has_passed = true;
    }
    has_passed
}

fn check_windows(mux: &Mux) {
    if mux.end.is_some() {
        return;
    }
    let mut input = mux.input;
    let waiting: usize = mux.streams.all().map(|s| s.inbox.len()).sum();
    let passing: u32 = mux
        .streams
        .keys()
        .into_iter()
        .map(|k| input.disown(k))
        .sum();
    let sum = mux.window_in + i64::from(mux.freed) + waiting as i64 + i64::from(passing);
    assert_eq!(sum, i64::from(mux.limits.connection_window));
    assert_eq!(mux.streams.len(), mux.held as usize);
}

/// What is there to be read.
fn read(mux: &mut Mux, key: Key) -> Vec<u8> {
    let mut all = Vec::new();
    let mut buffer = Buffer::with_capacity(5000);
    while let Poll::Ready(Ok(1..)) = cx(|cx| mux.poll_read(key, cx, &mut buffer)) {
        all.extend_from_slice(buffer.filled());
        buffer.clear();
    }
    all
}

/// How much of `bytes` is taken.
fn write(mux: &mut Mux, key: Key, bytes: &[u8]) -> usize {
    let mut taken = 0;
    while taken < bytes.len() {
        match cx(|cx| mux.poll_write(key, cx, &bytes[taken..])) {
            Poll::Ready(Ok(n)) => taken += n,
            Poll::Ready(Err(error)) => panic!("{error}"),
            Poll::Pending => break,
        }
    }
    taken
}

fn pattern(n: usize, seed: usize) -> Vec<u8> {
    (0..n).map(|i| ((i * 7 + seed * 31) % 251) as u8).collect()
}

fn map(name: &'static str, value: &'static str) -> HeaderMap {
    let mut map = HeaderMap::new();
    map.insert(name, value.parse().unwrap());
    map
}

const POST: &str = "POST /p HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n";
const GET: &str = "GET /g HTTP/1.1\r\nHost: t\r\n\r\n";
const OK: &[u8] = b"HTTP/1.1 200 \r\nTransfer-Encoding: chunked\r\n\r\n";

#[test]
fn messages_pass_whatever_the_pieces_are() {
    for piece in [1, 2, 8, 9, 10, 100, 1000, 100_000] {
        let mut pair = Pair::new(piece);
        for round in 0..3 {
            let asked = pair.ask(POST);
            assert_eq!(write(&mut pair.client, asked, b"hello"), 5);
            pair.client.finish(asked, Some(&map("x-sum", "1"))).unwrap();
            pair.pass();
            let (answered, text) = pair.accept();
            assert_eq!(
                text, "POST /p HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\nhello",
                "{piece}, {round}"
            );
            assert_eq!(pair.server.take_end(answered).unwrap()["x-sum"], "1");
            let early = b"HTTP/1.1 103 \r\nlink: x\r\n\r\n";
            assert_eq!(
                pair.server.reply(answered, early, false).unwrap(),
                early.len()
            );
            assert_eq!(pair.server.reply(answered, OK, false).unwrap(), OK.len());
            let body = pattern(3000, round);
            assert_eq!(write(&mut pair.server, answered, &body), 3000);
            pair.server.finish(answered, None).unwrap();
            pair.server.release(answered);
            pair.pass();
            let text = read(&mut pair.client, asked);
            let heads = b"HTTP/1.1 103 \r\nlink: x\r\n\r\nHTTP/1.1 200 \r\nTransfer-Encoding: chunked\r\n\r\n";
            assert_eq!(text, [&heads[..], &body].concat());
            assert_eq!(pair.client.take_end(asked), Some(HeaderMap::new()));
            assert!(pair.client.take_end(asked).is_none());
            pair.client.release(asked);
            pair.pass();
            assert_eq!((pair.client.held, pair.server.held), (0, 0));
        }
    }
}

/// Whoever does not read is sent as much as its windows let pass, and the rest when it reads.
#[test]
fn windows_bound_what_waits_to_be_read() {
    let mut pair = Pair::new(4096);
    let keys: Vec<Key> = (0..5).map(|_| pair.ask(POST)).collect();
    pair.pass();
    let body = pattern(4 * WINDOW as usize, 1);
    let mut sent = [0; 5];
    for _ in 0..100 {
        for (key, sent) in keys.iter().zip(&mut sent) {
            *sent += write(&mut pair.client, *key, &body[*sent..]);
        }
        pair.pass();
    }
    let total: usize = sent.iter().sum();
    assert!(sent.iter().all(|sent| *sent <= WINDOW as usize), "{sent:?}");
    assert_eq!(total, 3 * WINDOW as usize, "that of the connection");
    let mut received = vec![Vec::new(); 5];
    let theirs: Vec<Key> = (0..5).map(|_| pair.server.accept().unwrap()).collect();
    while sent.iter().any(|sent| *sent < body.len()) {
        for i in 0..5 {
            received[i].extend(read(&mut pair.server, theirs[i]));
            sent[i] += write(&mut pair.client, keys[i], &body[sent[i]..]);
            pair.pass();
        }
    }
    for i in 0..5 {
        received[i].extend(read(&mut pair.server, theirs[i]));
        assert!(received[i].ends_with(&body), "{i}");
    }
}

/// Whoever waits for room is told of it, each of them.
#[test]
fn all_that_wait_are_woken() {
    let mut pair = Pair::new(100_000);
    let keys: Vec<Key> = (0..5).map(|_| pair.ask(POST)).collect();
    let body = pattern(90_000, 1);
    let woken: Vec<Arc<Woken>> = (0..5).map(|_| Arc::default()).collect();
    for (key, woken) in keys.iter().zip(&woken) {
        let mut at = 0;
        while at < body.len() {
            let wrote = with_cx(woken, |cx| pair.client.poll_write(*key, cx, &body[at..]));
            match wrote {
                Poll::Ready(n) => at += n.unwrap(),
                Poll::Pending => break,
            }
        }
        assert!(at < body.len(), "room for all");
    }
    assert!(woken.iter().all(|woken| woken.count() == 0));
    pair.pass();
    for woken in &woken {
        assert_eq!(woken.count(), 1, "once, though asked about once");
    }
    // A reader is told of a head, of bytes and of the end.
    let reader = Arc::new(Woken::default());
    let theirs = pair.server.accept().unwrap();
    let mut buffer = Buffer::with_capacity(200_000);
    for _ in 0..2 {
        let _ = with_cx(&reader, |cx| pair.server.poll_read(theirs, cx, &mut buffer));
    }
    assert!(with_cx(&reader, |cx| pair.server.poll_read(theirs, cx, &mut buffer)).is_pending());
    pair.client.give_up(keys[0], Code::CANCEL);
    pair.pass();
    assert_eq!(reader.count(), 1);
    let gone = with_cx(&reader, |cx| pair.server.poll_read(theirs, cx, &mut buffer));
    assert!(matches!(gone, Poll::Ready(Err(_))), "{gone:?}");
}

/// A client that takes a little at a time, and an endpoint that always has more: what waits stays small, and the
/// others have their turns.
#[test]
fn stream_that_always_has_more_takes_neither_memory_nor_the_turns_of_others() {
    let wide = Limits {
        stream_window: 1 << 30,
        connection_window: 1 << 30,
        ..limits()
    };
    let mut client = Mux::new(Role::Client, wide, 0);
    let mut server = Mux::new(Role::Server, limits(), 0);
    let mut keys = Vec::new();
    for _ in 0..4 {
        let asked = cx(|cx| client.poll_ask(cx, GET.as_bytes(), "t", false));
        assert!(asked.is_ready());
    }
    pass(&mut client, &mut server, 100_000);
    pass(&mut server, &mut client, 100_000);
    pass(&mut client, &mut server, 100_000);
    while let Some(key) = server.accept() {
        read(&mut server, key);
        server.reply(key, OK, false).unwrap();
        keys.push((key, 0_usize));
    }
    // Whoever is woken is polled in that order, as a runtime does.
    let line = Arc::new(Mutex::new((0..keys.len()).collect::<VecDeque<usize>>()));
    let next = || line.lock().unwrap().pop_front();
    let piece = pattern(16 * 1024, 1);
    // The first is polled first, and writes for as long as it may.
    for _ in 0..1000 {
        while let Some(at) = next() {
            let waker = Waker::from(Arc::new(InLine(at, line.clone())));
            let cx = Context::from_waker(&waker);
            let (key, written) = &mut keys[at];
            while let Poll::Ready(n) = server.poll_write(*key, &cx, &piece) {
                *written += n.unwrap();
            }
        }
        let some = server.unsent().len().min(20_000);
        assert!(some > 0, "all wait, and nothing is to be sent");
        server.sent(some);
        assert!(server.out.len() < 4 * OUT_FULL, "{}", server.out.len());
    }
    let written: Vec<usize> = keys.iter().map(|(_, written)| *written).collect();
    let (least, most) = (written.iter().min().unwrap(), written.iter().max().unwrap());
    assert!(2 * least > *most, "{written:?}");
}

/// A stream that is let go in the middle of a frame leaves its place to another, which must not get the
/// rest of that frame.
#[test]
fn rest_of_a_frame_is_nobody_elses() {
    let mut pair = Pair::new(100_000);
    let first = pair.ask(POST);
    pair.pass();
    let (theirs, _) = pair.accept();
    write(&mut pair.client, first, &pattern(5000, 1));
    let bytes = pair.client.unsent().to_vec();
    pair.client.sent(bytes.len());
    let (half, rest) = bytes.split_at(2000);
    pair.server.receive(half);
    pair.server.release(theirs);
    let second = pair.ask(GET);
    let head = pair.client.unsent().to_vec();
    pair.client.sent(head.len());
    pair.server.receive(&rest[..100]);
    check_windows(&pair.server);
    pair.server.receive(&[&rest[100..], &head].concat());
    check_windows(&pair.server);
    let (_, text) = pair.accept();
    assert_eq!(text, "GET /g HTTP/1.1\r\nHost: t\r\n\r\n");
    pair.pass();
    assert_eq!(
        pair.client.error(first),
        Some(StreamError::Reset(Code::CANCEL))
    );
    assert_eq!(pair.client.error(second), None);
}

#[test]
fn leaving_takes_what_crosses_it_and_ends_well() {
    let mut pair = Pair::new(100_000);
    let early = pair.ask(GET);
    pair.server.leave();
    // The client has not heard of it.
    let crossing = pair.ask(GET);
    pair.pass();
    assert!(pair.client.takes_no_more());
    let late = cx(|cx| pair.client.poll_ask(cx, GET.as_bytes(), "t", false));
    assert!(matches!(late, Poll::Ready(Err(AskError::Refused))));
    for _ in 0..2 {
        assert_eq!(pair.server.end(), None);
        let (key, _) = pair.accept();
        let whole = b"HTTP/1.1 204 \r\n\r\n";
        pair.server.reply(key, whole, false).unwrap();
        pair.server.release(key);
    }
    pair.pass();
    assert_eq!(
        (pair.server.end(), pair.client.end()),
        (Some(End::Well), Some(End::Well))
    );
    for key in [early, crossing] {
        assert_eq!(read(&mut pair.client, key), b"HTTP/1.1 204 \r\n\r\n");
        assert!(pair.client.has_only_head(key));
    }
}

/// What a connection without streams keeps.
#[test]
fn idle_connection_holds_little() {
    let mut pair = Pair::new(100_000);
    let keys: Vec<Key> = (0..10).map(|_| pair.ask(POST)).collect();
    pair.pass();
    for key in keys {
        let (theirs, _) = pair.accept();
        write(&mut pair.client, key, &pattern(20_000, 3));
        pair.pass();
        pair.server.release(theirs);
        pair.client.release(key);
        pair.pass();
    }
    for mux in [&pair.client, &pair.server] {
        assert_eq!((mux.out.capacity(), mux.lines.capacity()), (0, 0));
        assert_eq!((mux.partial.capacity(), mux.blocked.capacity()), (0, 0));
        assert_eq!((mux.streams.len(), mux.accepted.capacity()), (0, 0));
    }
}

#[test]
fn streams_beyond_the_limit_are_refused_and_hpack_stays_in_step() {
    let mut server = Mux::new(Role::Server, limits(), 0);
    let mut client = Mux::new(Role::Client, limits(), 0);
    // As if it had not heard of the limit.
    client.theirs.max_streams = 100;
    let mut keys = Vec::new();
    for i in 0..13 {
        let text = format!("GET /{i} HTTP/1.1\r\nHost: t\r\nx-{i}: y\r\n\r\n");
        let asked = cx(|cx| client.poll_ask(cx, text.as_bytes(), "t", false));
        let Poll::Ready(Ok((key, _))) = asked else {
            panic!("{asked:?}")
        };
        keys.push(key);
    }
    pass(&mut client, &mut server, 100);
    pass(&mut server, &mut client, 100);
    for (i, key) in keys.iter().enumerate() {
        let refused = Some(StreamError::Reset(Code::REFUSED_STREAM));
        assert_eq!(client.error(*key), refused.filter(|_| i >= 10), "{i}");
    }
    let first = server.accept().unwrap();
    client.release(keys[0]);
    pass(&mut client, &mut server, 100);
    server.release(first);
    let asked = cx(|cx| {
        let text = b"GET /again HTTP/1.1\r\nHost: t\r\nx-12: y\r\n\r\n";
        client.poll_ask(cx, text, "t", false)
    });
    assert!(asked.is_ready());
    pass(&mut client, &mut server, 100);
    let last = std::iter::from_fn(|| server.accept()).last().unwrap();
    let text = read(&mut server, last);
    assert_eq!(text, b"GET /again HTTP/1.1\r\nHost: t\r\nx-12: y\r\n\r\n");
}

/// A head that was never begun cannot be ended, and one that has ended takes no more.
#[test]
fn writers_are_held_to_what_they_said() {
    let mut pair = Pair::new(100_000);
    let text = "POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 5\r\n\r\n";
    let asked = pair.ask(text);
    assert!(pair.client.finish(asked, None).is_err(), "five are missing");
    let too_much = cx(|cx| pair.client.poll_write(asked, cx, b"123456"));
    assert!(matches!(too_much, Poll::Ready(Err(_))));
    assert_eq!(write(&mut pair.client, asked, b"12345"), 5);
    assert!(pair.client.has_ended(asked));
    let more = cx(|cx| pair.client.poll_write(asked, cx, b"6"));
    assert!(matches!(more, Poll::Ready(Err(_))));
    pair.pass();
    let (theirs, _) = pair.accept();
    assert!(pair.server.finish(theirs, None).is_err(), "no head");
    assert!(pair.server.reply(theirs, b"no head at all", false).is_err());
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    frame::begin(&mut out, payload.len(), kind, flags, stream);
    out.extend_from_slice(payload);
    out
}

fn greeted() -> (Mux, Vec<u8>) {
    let mut bytes = frame::PREFACE.to_vec();
    frame::settings(&mut bytes, &[]);
    (Mux::new(Role::Server, limits(), 0), bytes)
}

fn request_block(more: &[(&str, &[u8])]) -> Vec<u8> {
    let mut fields: Vec<(&str, &[u8])> = vec![
        (":method", b"POST"),
        (":scheme", b"http"),
        (":authority", b"t"),
        (":path", b"/"),
    ];
    fields.extend_from_slice(more);
    kit::encode(&kit::owned(&fields))
}

/// Codes of the GOAWAY and of resets that wait to be sent.
fn told(mux: &Mux) -> (Option<u32>, Vec<(u32, u32)>) {
    let (mut goaway, mut resets) = (None, Vec::new());
    let mut rest = mux.unsent();
    while let Some((header, behind)) = rest.split_first_chunk::<HEADER>() {
        let header = Header::parse(header);
        let (payload, behind) = behind.split_at(header.length as usize);
        let word = |at: usize| u32::from_be_bytes(payload[at..at + 4].try_into().unwrap());
        match header.kind {
            kind::GOAWAY => goaway = Some(word(4)),
            kind::RST_STREAM => resets.push((header.stream, word(0))),
            _ => {}
        }
        rest = behind;
    }
    (goaway, resets)
}

/// Who has sent all the bytes of its request is not reset though the end comes in a frame of its own, which crosses
/// the answer; who has not need not send the rest (section 8.1).
#[test]
fn end_that_comes_after_the_answer_is_waited_for_by_nobody() {
    let (mut mux, mut bytes) = greeted();
    let open = |id: u32| {
        let block = request_block(&[("content-length", b"5")]);
        frame(kind::HEADERS, flag::END_HEADERS, id, &block)
    };
    for (id, body) in [(1, &b"hello"[..]), (3, b"hel"), (5, b"hello")] {
        bytes.extend(open(id));
        bytes.extend(frame(kind::DATA, 0, id, body));
    }
    mux.receive(&bytes);
    while let Some(key) = mux.accept() {
        assert!(!read(&mut mux, key).is_empty());
        mux.reply(key, b"HTTP/1.1 204 \r\n\r\n", false).unwrap();
        mux.release(key);
    }
    let answered = vec![(3, Code::NO_ERROR.0)];
    assert_eq!(told(&mux), (None, answered.clone()));
    // An empty frame that ends it, and trailers that do; and what there is to be said against neither.
    mux.receive(&frame(kind::DATA, flag::END_STREAM, 1, b""));
    mux.receive(&frame(kind::DATA, 0, 3, b"lo"));
    let ends = flag::END_HEADERS | flag::END_STREAM;
    let trailers = kit::encode(&kit::owned(&[("x-sum", b"1")]));
    mux.receive(&frame(kind::HEADERS, ends, 5, &trailers));
    assert_eq!((told(&mux), mux.end()), ((None, answered), None));
    check_windows(&mux);
}

/// RFC 9113, section by section; each cut at every place.
#[test]
fn faults_end_the_stream_or_the_connection_with_their_codes() {
    let open = |flags| {
        frame(
            kind::HEADERS,
            flag::END_HEADERS | flags,
            1,
            &request_block(&[]),
        )
    };
    let five = frame(
        kind::HEADERS,
        flag::END_HEADERS,
        1,
        &request_block(&[("content-length", b"5")]),
    );
    let (end, padded) = (flag::END_STREAM, flag::PADDED);
    let update = |stream, n: u32| frame(kind::WINDOW_UPDATE, 0, stream, &n.to_be_bytes());
    let setting = |id: u16, value: u32| {
        let payload = [&id.to_be_bytes()[..], &value.to_be_bytes()].concat();
        frame(kind::SETTINGS, 0, 0, &payload)
    };
    let of_connection: Vec<(&str, Vec<u8>, Code)> = vec![
        (
            "6.1: DATA of no stream",
            frame(kind::DATA, 0, 0, b"x"),
            Code::PROTOCOL_ERROR,
        ),
        (
            "5.1: DATA of an idle stream",
            frame(kind::DATA, 0, 3, b"x"),
            Code::PROTOCOL_ERROR,
        ),
        (
            "5.1: DATA behind the end",
            [open(end), frame(kind::DATA, 0, 1, b"x")].concat(),
            Code::STREAM_CLOSED,
        ),
        (
            "6.1: padding alone",
            [open(0), frame(kind::DATA, padded, 1, &[1])].concat(),
            Code::PROTOCOL_ERROR,
        ),
        (
            "6.1: no length of padding",
            [open(0), frame(kind::DATA, padded, 1, &[])].concat(),
            Code::FRAME_SIZE_ERROR,
        ),
        (
            "6.2: even stream",
            frame(kind::HEADERS, 4, 2, &request_block(&[])),
            Code::PROTOCOL_ERROR,
        ),
        (
            "6.2: stream 0",
            frame(kind::HEADERS, 4, 0, &request_block(&[])),
            Code::PROTOCOL_ERROR,
        ),
        (
            "6.2: padding",
            frame(kind::HEADERS, 4 | padded, 1, &[9, 0]),
            Code::PROTOCOL_ERROR,
        ),
        (
            "6.2: no priority",
            frame(kind::HEADERS, 4 | flag::PRIORITY, 1, &[9, 0]),
            Code::FRAME_SIZE_ERROR,
        ),
        (
            "5.1: HEADERS behind the end",
            [open(end), open(end)].concat(),
            Code::STREAM_CLOSED,
        ),
        (
            "6.3: PRIORITY of no stream",
            frame(kind::PRIORITY, 0, 0, &[0; 5]),
            Code::PROTOCOL_ERROR,
        ),
        (
            "6.4: RST of an idle stream",
            frame(kind::RST_STREAM, 0, 5, &[0; 4]),
            Code::PROTOCOL_ERROR,
        ),
        (
            "6.4: short RST",
            [open(0), frame(kind::RST_STREAM, 0, 1, &[0; 3])].concat(),
            Code::FRAME_SIZE_ERROR,
        ),
        (
            "6.5: SETTINGS of a stream",
            frame(kind::SETTINGS, 0, 1, &[]),
            Code::PROTOCOL_ERROR,
        ),
        (
            "6.5: SETTINGS of five bytes",
            frame(kind::SETTINGS, 0, 0, &[0; 5]),
            Code::FRAME_SIZE_ERROR,
        ),
        (
            "6.5: ACK with something",
            frame(kind::SETTINGS, flag::ACK, 0, &[0; 6]),
            Code::FRAME_SIZE_ERROR,
        ),
        ("6.5.2: push", setting(2, 2), Code::PROTOCOL_ERROR),
        (
            "6.5.2: window",
            setting(4, 1 << 31),
            Code::FLOW_CONTROL_ERROR,
        ),
        ("6.5.2: frame", setting(5, 16_383), Code::PROTOCOL_ERROR),
        ("6.5.2: frame", setting(5, 1 << 24), Code::PROTOCOL_ERROR),
        ("RFC 8441", setting(8, 2), Code::PROTOCOL_ERROR),
        (
            "6.9.2: windows",
            [
                update(0, 1),
                open(0),
                update(1, (1 << 31) - 65_536),
                setting(4, 65_536),
            ]
            .concat(),
            Code::FLOW_CONTROL_ERROR,
        ),
        (
            "6.6: push",
            frame(kind::PUSH_PROMISE, 4, 1, &[0; 8]),
            Code::PROTOCOL_ERROR,
        ),
        (
            "6.7: PING of seven",
            frame(kind::PING, 0, 0, &[0; 7]),
            Code::FRAME_SIZE_ERROR,
        ),
        (
            "6.7: PING of a stream",
            frame(kind::PING, 0, 1, &[0; 8]),
            Code::PROTOCOL_ERROR,
        ),
        (
            "6.8: short GOAWAY",
            frame(kind::GOAWAY, 0, 0, &[0; 7]),
            Code::FRAME_SIZE_ERROR,
        ),
        (
            "6.8: GOAWAY of a stream",
            frame(kind::GOAWAY, 0, 1, &[0; 8]),
            Code::PROTOCOL_ERROR,
        ),
        ("6.9: nothing", update(0, 0), Code::PROTOCOL_ERROR),
        (
            "6.9.1: too much",
            update(0, (1 << 31) - 1),
            Code::FLOW_CONTROL_ERROR,
        ),
        (
            "6.9: short",
            frame(kind::WINDOW_UPDATE, 0, 0, &[0; 3]),
            Code::FRAME_SIZE_ERROR,
        ),
        (
            "5.1: update of an idle stream",
            update(7, 1),
            Code::PROTOCOL_ERROR,
        ),
        (
            "6.10: of nothing",
            frame(kind::CONTINUATION, 4, 1, &[]),
            Code::PROTOCOL_ERROR,
        ),
        (
            "6.10: PING between",
            [
                frame(kind::HEADERS, 0, 1, &[0x82]),
                frame(kind::PING, 0, 0, &[0; 8]),
            ]
            .concat(),
            Code::PROTOCOL_ERROR,
        ),
        (
            "6.10: of another",
            [
                frame(kind::HEADERS, 0, 1, &[0x82]),
                frame(kind::CONTINUATION, 4, 3, &[0x84]),
            ]
            .concat(),
            Code::PROTOCOL_ERROR,
        ),
        (
            "RFC 7541",
            frame(kind::HEADERS, 4, 1, &[0xff, 0xff, 0xff]),
            Code::COMPRESSION_ERROR,
        ),
    ];
    let of_stream: Vec<(&str, Vec<u8>, Code)> = vec![
        (
            "6.9: nothing",
            [open(0), update(1, 0)].concat(),
            Code::PROTOCOL_ERROR,
        ),
        (
            "6.9.1: too much",
            [open(0), update(1, (1 << 31) - 1)].concat(),
            Code::FLOW_CONTROL_ERROR,
        ),
        (
            "6.3: PRIORITY of four",
            [open(0), frame(kind::PRIORITY, 0, 1, &[0; 4])].concat(),
            Code::FRAME_SIZE_ERROR,
        ),
        (
            "8.1.1: no method",
            frame(kind::HEADERS, 4, 1, &[0x84]),
            Code::PROTOCOL_ERROR,
        ),
        (
            "8.1.1: too little",
            [five.clone(), frame(kind::DATA, end, 1, b"1234")].concat(),
            Code::PROTOCOL_ERROR,
        ),
        (
            "8.1.1: too much",
            [five.clone(), frame(kind::DATA, 0, 1, b"123456")].concat(),
            Code::PROTOCOL_ERROR,
        ),
        (
            "8.1: no end",
            [
                open(0),
                frame(
                    kind::HEADERS,
                    4,
                    1,
                    &kit::encode(&kit::owned(&[("x", b"y")])),
                ),
            ]
            .concat(),
            Code::PROTOCOL_ERROR,
        ),
        (
            "8.1: pseudo-field",
            [open(0), frame(kind::HEADERS, 4 | end, 1, &[0x84])].concat(),
            Code::PROTOCOL_ERROR,
        ),
    ];
    let run = |bytes: &[u8], at: usize| {
        let (mut server, greeting) = greeted();
        server.receive(&greeting);
        // Somebody has the stream, as soon as it is there.
        let (a, b) = bytes.split_at(at);
        server.receive(a);
        let _ = server.accept();
        server.receive(b);
        let _ = server.accept();
        server
    };
    for (what, bytes, code) in of_connection {
        for at in 0..=bytes.len() {
            let server = run(&bytes, at);
            assert_eq!(server.end(), Some(End::Fault(code)), "{what}, cut at {at}");
            assert_eq!(told(&server).0, Some(code.0), "{what}, cut at {at}");
        }
    }
    for (what, bytes, code) in of_stream {
        for at in 0..=bytes.len() {
            let mut server = run(&bytes, at);
            assert_eq!(server.end(), None, "{what}, cut at {at}");
            assert_eq!(
                told(&server),
                (None, vec![(1, code.0)]),
                "{what}, cut at {at}"
            );
            check_windows(&server);
            // What was on its way is no fault.
            server.receive(&frame(kind::DATA, 0, 1, b"late"));
            server.receive(&frame(kind::RST_STREAM, 0, 1, &[0, 0, 0, 8]));
            server.receive(&frame(kind::WINDOW_UPDATE, 0, 1, &[0, 0, 0, 8]));
            assert_eq!(server.end(), None, "{what}, cut at {at}");
            check_windows(&server);
        }
    }
}

/// More than the windows let pass, whoever reads.
#[test]
fn more_than_a_window_is_a_fault() {
    let (mut server, mut bytes) = greeted();
    frame::settings_ack(&mut bytes);
    bytes.extend(frame(
        kind::HEADERS,
        flag::END_HEADERS,
        1,
        &request_block(&[]),
    ));
    server.receive(&bytes);
    server.accept().unwrap();
    let data = frame(kind::DATA, 0, 1, &[0; 10_000]);
    for _ in 0..10 {
        server.receive(&data);
    }
    assert_eq!(told(&server).1, []);
    server.receive(&frame(kind::DATA, 0, 1, b"x"));
    assert_eq!(told(&server).1, [(1, Code::FLOW_CONTROL_ERROR.0)]);
    check_windows(&server);
}

/// Interim heads without end, and a response that is too long.
#[test]
fn endpoint_cannot_fill_the_memory_with_heads() {
    let answer = |fields: &[(&str, &[u8])]| {
        frame(
            kind::HEADERS,
            flag::END_HEADERS,
            1,
            &kit::encode(&kit::owned(fields)),
        )
    };
    let long = vec![b'x'; 1000];
    let many: Vec<(&str, &[u8])> = std::iter::once((":status", &b"200"[..]))
        .chain(vec![("x", &long[..]); 15])
        .collect();
    let interim = [(":status", &b"103"[..]), ("link", &long[..])];
    for (what, bytes) in [
        ("interim", answer(&interim).repeat(100)),
        ("long", answer(&[many.clone(), many[1..].to_vec()].concat())),
    ] {
        let mut client = Mux::new(Role::Client, limits(), 0);
        let Poll::Ready(Ok((key, _))) = cx(|cx| client.poll_ask(cx, GET.as_bytes(), "t", false))
        else {
            panic!("not sent")
        };
        let mut settings = Vec::new();
        frame::settings(&mut settings, &[]);
        client.receive(&[settings, bytes].concat());
        assert!(
            matches!(client.error(key), Some(StreamError::Given(_))),
            "{what}"
        );
        assert!(
            client.streams[key].text.len() < 3 * limits().max_head,
            "{what}"
        );
        assert_eq!(client.end(), None);
    }
}

/// Bytes that come one by one, each in a frame, cost no more than they are.
#[test]
fn small_frames_that_nobody_reads_cost_what_they_bring() {
    let (mut server, mut bytes) = greeted();
    bytes.extend(frame(
        kind::HEADERS,
        flag::END_HEADERS,
        1,
        &request_block(&[]),
    ));
    bytes.extend(frame(kind::DATA, 0, 1, b"x").repeat(60_000));
    server.receive(&bytes);
    let key = server.accept().unwrap();
    assert_eq!(server.end(), None);
    assert_eq!(server.streams[key].inbox.len(), 60_000);
    assert!(read(&mut server, key).ends_with(&vec![b'x'; 60_000]));
}

proptest! {
    /// Any frames, cut anywhere: no panic, nothing of the windows lost, memory within its bounds, and the
    /// same whatever the pieces are.
    #[test]
    fn any_frames_are_taken_or_refused(
        frames in prop::collection::vec(
            (0_u8..11, any::<u8>(), 0_u32..10, prop::collection::vec(any::<u8>(), 0..30), any::<bool>()),
            0..60,
        ),
        piece in 1_usize..60,
        held: bool,
    ) {
        let (mut whole, greeting) = greeted();
        let (mut pieces, _) = greeted();
        whole.receive(&greeting);
        pieces.receive(&greeting);
        let mut keys = Vec::new();
        for (kind, flags, stream, payload, is_request) in frames {
            let bytes = if is_request {
                frame(kind::HEADERS, flags | flag::END_HEADERS & !(flag::PADDED | flag::PRIORITY), stream, &request_block(&[]))
            } else {
                frame(kind, flags, stream, &payload)
            };
            whole.receive(&bytes);
            for piece in bytes.chunks(piece) {
                pieces.receive(piece);
                check_windows(&pieces);
            }
            check_windows(&whole);
            prop_assert_eq!(whole.end(), pieces.end());
            prop_assert_eq!(whole.unsent(), pieces.unsent());
            while let Some(key) = whole.accept() {
                prop_assert_eq!(pieces.accept(), Some(key));
                if held {
                    keys.push(key);
                } else {
                    whole.release(key);
                    pieces.release(key);
                }
            }
        }
        for key in keys {
            prop_assert_eq!(read(&mut whole, key), read(&mut pieces, key));
            whole.release(key);
            pieces.release(key);
        }
        check_windows(&whole);
        prop_assert_eq!(whole.held, 0);
    }

    /// Streams of any lengths, both ways at once, some given up: what arrives is what was sent.
    #[test]
    fn bodies_arrive_as_they_were_sent(
        lengths in prop::collection::vec((0_usize..200_000, 0_usize..200_000, any::<bool>()), 1..8),
        piece in 1_usize..40_000,
    ) {
        let mut pair = Pair::new(piece.max(500));
        let mut flows = Vec::new();
        for (i, (up, down, gives_up)) in lengths.into_iter().enumerate() {
            let key = pair.ask(POST);
            flows.push((key, pattern(up, i), pattern(down, i + 1), gives_up && i % 3 == 2));
        }
        pair.pass();
        let theirs: Vec<Key> = flows.iter().map(|_| pair.accept().0).collect();
        let mut done: Vec<(usize, usize, Vec<u8>, Vec<u8>)> = vec![Default::default(); flows.len()];
        for key in &theirs {
            pair.server.reply(*key, OK, false).unwrap();
        }
        for round in 0..2000 {
            let mut is_over = true;
            for (i, (key, up, down, gives_up)) in flows.iter().enumerate() {
                let (sent_up, sent_down, got_up, got_down) = &mut done[i];
                if *gives_up && round > 2 {
                    pair.client.give_up(*key, Code::CANCEL);
                    continue;
                }
                *sent_up += write(&mut pair.client, *key, &up[*sent_up..]);
                *sent_down += write(&mut pair.server, theirs[i], &down[*sent_down..]);
                got_up.extend(read(&mut pair.server, theirs[i]));
                got_down.extend(read(&mut pair.client, *key));
                is_over &= got_up.len() == up.len() && got_down.len() == down.len() + OK.len();
            }
            pair.pass();
            if is_over {
                break;
            }
        }
        for (i, (key, up, down, gives_up)) in flows.iter().enumerate() {
            let (_, _, got_up, got_down) = &done[i];
            if !*gives_up {
                prop_assert!(got_up == up, "{i}: {} of {}", got_up.len(), up.len());
                prop_assert!(got_down[OK.len()..] == *down, "{i}");
            }
            pair.client.release(*key);
            pair.server.release(theirs[i]);
        }
        pair.pass();
        prop_assert_eq!((pair.client.held, pair.server.held), (0, 0));
        prop_assert_eq!(pair.server.end(), None);
    }
}
