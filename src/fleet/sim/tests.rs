//! The network itself: what it promises of datagrams and streams.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use super::{Heard, Link, Machine, Net, Now, Sent, Weather};
use crate::base::clock::Nanos;

/// Sends what the test tells it to, and notes what it hears.
#[derive(Default)]
struct Talker {
    to_send: VecDeque<Sent>,
    heard: Vec<String>,
    links: Vec<Link>,
    wakes: VecDeque<Nanos>,
}

impl Machine for Talker {
    fn datagram(&mut self, from: SocketAddr, bytes: &[u8], _clock: Now) {
        let text = String::from_utf8_lossy(bytes);
        self.heard.push(format!("{from} {text}"));
    }

    fn wake_at(&self) -> Option<Nanos> {
        self.wakes.front().copied()
    }

    fn wake(&mut self, clock: Now) {
        assert!(self.wakes.pop_front().is_some_and(|at| at <= clock.now));
        self.heard.push("woken".into());
    }

    fn poll(&mut self) -> Option<Sent> {
        self.to_send.pop_front()
    }

    fn stream(&mut self, heard: Heard<'_>, _clock: Now) {
        let text = match heard {
            Heard::Opened { link, token } => {
                self.links.push(link);
                format!("opened {token}")
            }
            Heard::Failed { token } => format!("failed {token}"),
            Heard::Accepted { link, from } => {
                self.links.push(link);
                format!("accepted {from}")
            }
            Heard::Message { link, bytes } => {
                assert!(self.links.contains(&link));
                String::from_utf8_lossy(bytes).into_owned()
            }
            Heard::Closed { link } => {
                assert!(self.links.contains(&link));
                "closed".into()
            }
        };
        self.heard.push(text);
    }
}

const SOON: Duration = Duration::from_millis(20);

fn addr(index: usize) -> SocketAddr {
    ([10, 0, 0, index as u8 + 1], 7946).into()
}

fn talkers(n: usize) -> Net<Talker> {
    let mut net = Net::new(1, 28);
    for index in 0..n {
        net.add(addr(index), |_| Talker::default());
    }
    net
}

fn say(net: &mut Net<Talker>, index: usize, sent: Sent) {
    net.with(index, |talker, _| talker.to_send.push_back(sent));
}

fn write(net: &mut Net<Talker>, index: usize, text: &str) {
    let link = net.get(index).unwrap().links[0];
    let bytes = text.into();
    say(net, index, Sent::Message { link, bytes });
}

fn heard(net: &mut Net<Talker>, index: usize) -> Vec<String> {
    net.with(index, |talker, _| std::mem::take(&mut talker.heard))
}

/// Machine 0 has dialled machine 1.
fn connected() -> Net<Talker> {
    let mut net = talkers(2);
    let (to, token) = (addr(1), 7);
    say(&mut net, 0, Sent::Dial { to, token });
    net.run(SOON);
    assert_eq!(heard(&mut net, 0), ["opened 7"]);
    assert_eq!(heard(&mut net, 1), ["accepted 10.0.0.1:7946"]);
    net
}

#[test]
fn datagrams_get_lost_come_twice_and_overtake() {
    let mut net = talkers(2);
    net.weather = Weather::foul(0.1);
    let numbers = 0..1000;
    for number in numbers.clone() {
        let bytes = format!("{number}").into();
        say(&mut net, 0, Sent::Datagram { to: addr(1), bytes });
        net.run(Duration::from_millis(1));
    }
    net.run(Duration::from_secs(1));
    let heard = heard(&mut net, 1);
    let text = |number| format!("10.0.0.1:7946 {number}");
    let times = |number| heard.iter().filter(|h| **h == text(number)).count();
    let lost = numbers.clone().filter(|n| times(*n) == 0).count();
    let twice = numbers.clone().filter(|n| times(*n) == 2).count();
    assert!(
        (50..200).contains(&lost) && (40..160).contains(&twice),
        "{lost} {twice}"
    );
    let in_order: Vec<String> = numbers.filter(|n| times(*n) == 1).map(text).collect();
    assert!(!heard.starts_with(&in_order[..100]));
    let traffic = net.traffic(0);
    assert_eq!(traffic.datagrams, 1000);
    assert_eq!(traffic.bytes, 1000 * 28 + 10 + 90 * 2 + 900 * 3);
}

#[test]
fn what_is_sent_on_a_stream_comes_whole_and_in_order() {
    let mut net = connected();
    let texts: Vec<String> = (0..100).map(|n| format!("message {n}")).collect();
    for text in &texts {
        write(&mut net, 0, text);
    }
    write(&mut net, 1, "and back");
    let link = net.get(0).unwrap().links[0];
    say(&mut net, 0, Sent::Close { link });
    net.run(SOON);
    let heard_there = heard(&mut net, 1);
    assert_eq!(heard_there[..100], texts);
    assert_eq!(heard_there[100..], ["closed"]);
    assert_eq!(heard(&mut net, 0), [""; 0], "who closes hears nothing more");
    assert_eq!(net.traffic(0).messages, 100);
    assert_eq!(net.traffic(1).message_bytes, 8);
    assert_eq!(net.traffic(0).dials, 1);
}

#[test]
fn a_cut_stream_breaks_for_both() {
    let mut net = connected();
    net.split(|index| index);
    write(&mut net, 0, "lost");
    net.run(Duration::from_secs(1));
    assert_eq!(heard(&mut net, 1), [""; 0]);
    net.heal();
    net.run(Duration::from_secs(5));
    assert_eq!(heard(&mut net, 0), ["closed"]);
    assert_eq!(heard(&mut net, 1), ["closed"]);
}

#[test]
fn who_crashes_breaks_its_streams_and_refuses_new_ones() {
    let mut net = connected();
    net.crash(1);
    net.run(SOON);
    assert_eq!(heard(&mut net, 0), ["closed"]);
    let (to, token) = (addr(1), 8);
    say(&mut net, 0, Sent::Dial { to, token });
    net.run(SOON);
    assert_eq!(heard(&mut net, 0), ["failed 8"]);
    net.start(1, |_| Talker::default());
    net.split(|index| index);
    let token = 9;
    say(&mut net, 0, Sent::Dial { to, token });
    net.run(SOON);
    assert_eq!(heard(&mut net, 0), [""; 0], "a cut cable says nothing");
    net.run(Duration::from_secs(5));
    assert_eq!(heard(&mut net, 0), ["failed 9"]);
    assert_eq!(heard(&mut net, 1), [""; 0]);
}

#[test]
fn who_stands_still_reads_then_what_fits_its_socket() {
    let mut net = connected();
    net.with(1, |talker, clock| {
        talker.wakes.push_back(clock.now + 1_000_000);
    });
    net.freeze(1, Duration::from_secs(1));
    for _ in 0..300 {
        let bytes = "hello".into();
        say(&mut net, 0, Sent::Datagram { to: addr(1), bytes });
    }
    write(&mut net, 0, "stream");
    net.run(Duration::from_millis(900));
    assert_eq!(heard(&mut net, 1), [""; 0]);
    net.run(Duration::from_secs(1));
    let heard = heard(&mut net, 1);
    assert_eq!(heard.len(), 256 + 2);
    assert_eq!(heard[256..], ["stream", "woken"]);
    assert_eq!(net.traffic(1).overflowed, 44);
}

#[test]
fn clocks_differ_and_only_wall_clocks_are_wrong() {
    let mut net = talkers(2);
    let before = [net.clock(0), net.clock(1)];
    assert_ne!(before[0].now, before[1].now);
    assert_eq!(before[0].unix_ms, before[1].unix_ms);
    net.skew(1, -3_600_000);
    net.run(Duration::from_secs(1));
    let after = net.clock(1);
    assert_eq!(after.now, before[1].now + 1_000_000_000);
    assert_eq!(after.unix_ms, before[1].unix_ms - 3_600_000 + 1000);
    assert_eq!(net.elapsed(), Duration::from_secs(1));
    assert_eq!(net.addr(1), addr(1));
}
