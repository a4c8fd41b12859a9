use proptest::prelude::*;

use super::*;

const SECOND: Nanos = 1_000_000_000;
const MILLI: Nanos = 1_000_000;
/// Some uptime: a clock that does not begin at 0.
const START: Nanos = 1_000 * SECOND;
const PREFACE_BYTES: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const WINDOW_UPDATE: u8 = 8;
const PRIORITY_FRAME: u8 = 2;
const PRIORITY_UPDATE: u8 = 16;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

fn headers(stream: u32, flags: u8) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | flags, stream, &[0x82; 30])
}

fn reset(stream: u32, code: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &code.to_be_bytes())
}

fn ping() -> Vec<u8> {
    frame(PING, 0, 0, &[0; 8])
}

fn update(stream: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &[0, 0, 0x10, 0])
}

/// A connection whose preface has passed.
struct Connection {
    meter: FrameMeter,
    now: Nanos,
    stream: u32,
}

// === impl Connection ===

impl Connection {
    fn new() -> Self {
        Self::with(&Http2::default())
    }

    fn with(limits: &Http2) -> Self {
        let mut meter = FrameMeter::new(limits, START);
        assert_eq!(meter.received(PREFACE_BYTES, START), Ok(()));
        Self {
            meter,
            now: START,
            stream: 1,
        }
    }

    fn receive(&mut self, bytes: &[u8]) -> Result<(), Abuse> {
        self.meter.received(bytes, self.now)
    }

    #[track_caller]
    fn accept(&mut self, bytes: &[u8]) {
        assert_eq!(self.receive(bytes), Ok(()));
    }

    fn pass(&mut self, time: Nanos) {
        self.now += time;
    }

    /// Opens the next stream.
    #[track_caller]
    fn open(&mut self, flags: u8) -> u32 {
        let stream = self.stream;
        self.stream += 2;
        self.accept(&headers(stream, flags));
        stream
    }

    fn answer(&mut self, stream: u32, body: usize) {
        self.meter.sent(&headers(stream, 0));
        self.meter
            .sent(&frame(DATA, END_STREAM, stream, &vec![0; body]));
    }

    /// How many of these pass at once.
    fn burst(&mut self, mut bytes: impl FnMut(u32) -> Vec<u8>) -> (u32, Abuse) {
        for n in 0..100_000 {
            if let Err(abuse) = self.receive(&bytes(n)) {
                return (n, abuse);
            }
        }
        panic!("100,000 passed");
    }
}

// === abuse ===

#[test]
fn rapid_reset_passes_as_often_as_configured() {
    let mut connection = Connection::new();
    let attack = |n| [headers(2 * n + 1, END_STREAM), reset(2 * n + 1, 8)].concat();
    assert_eq!(connection.burst(attack), (1000, Abuse::Resets));
}

#[test]
fn provoked_resets_pass_as_often_as_configured() {
    for code in [0x1, 0x3, 0x5, 0x6, 0x7, 0xb] {
        let mut connection = Connection::new();
        for n in 0..1000 {
            connection.open(0);
            connection.meter.sent(&reset(2 * n + 1, code));
        }
        connection.accept(&headers(2001, 0));
        connection.meter.sent(&reset(2001, code));
        assert_eq!(
            connection.receive(&headers(2003, 0)),
            Err(Abuse::ProvokedResets)
        );
    }
}

#[test]
fn resets_that_are_not_the_clients_doing_are_free() {
    let mut connection = Connection::new();
    for n in 0..10_000 {
        connection.open(0);
        for code in [0x0, 0x2, 0x8, 0xa, 0xd] {
            connection.meter.sent(&reset(2 * n + 1, code));
        }
    }
}

#[test]
fn floods_pass_as_often_as_configured() {
    let one = |bytes: Vec<u8>| move |_| bytes.clone();
    let flood = |bytes| Connection::new().burst(one(bytes));
    assert_eq!(flood(ping()), (1000, Abuse::Pings));
    let settings = frame(SETTINGS, 0, 0, &[0, 4, 0, 1, 0, 0]);
    assert_eq!(flood(settings), (100, Abuse::Settings));
    let idle = [
        frame(DATA, 0, 1, &[]),
        frame(DATA, END_STREAM, 1, &[]),
        frame(DATA, PADDED, 1, &[0]),
        frame(DATA, PADDED, 1, &[200; 201]),
        frame(HEADERS, END_HEADERS, 0, &[]),
        frame(HEADERS, END_HEADERS | PADDED, 0, &[1, 0]),
        frame(HEADERS, END_HEADERS | PRIORITY, 0, &[0; 5]),
        frame(PRIORITY_FRAME, 0, 1, &[0; 5]),
        frame(PRIORITY_UPDATE, 0, 0, b"\0\0\0\x01u=1"),
        frame(SETTINGS, ACK, 0, &[]),
        frame(PING, ACK, 0, &[0; 8]),
        frame(0xfe, 0xff, u32::MAX, &[0; 100]),
        update(0),
        update(1),
    ];
    // Nor do such streams explain anything.
    let empty = |n| frame(HEADERS, END_HEADERS, 2 * n + 1, &[]);
    assert_eq!(Connection::new().burst(empty), (1000, Abuse::IdleFrames));
    for bytes in idle {
        assert_eq!(flood(bytes.clone()), (1000, Abuse::IdleFrames), "{bytes:?}");
    }
}

#[test]
fn header_block_has_sixteen_continuations_and_no_empty_one() {
    let begin = frame(HEADERS, 0, 1, &[0x82]);
    let more = frame(CONTINUATION, 0, 1, &[0x84]);
    let mut connection = Connection::new();
    connection.accept(&begin);
    assert_eq!(
        connection.burst(|_| more.clone()),
        (16, Abuse::Continuation)
    );

    // The next block has as many again.
    let mut connection = Connection::new();
    for n in 0..3 {
        connection.accept(&frame(HEADERS, 0, 2 * n + 1, &[0x82]));
        for _ in 0..15 {
            connection.accept(&more);
        }
        connection.accept(&frame(CONTINUATION, END_HEADERS, 2 * n + 1, &[0x84]));
    }

    let mut connection = Connection::new();
    connection.accept(&begin);
    let empty = frame(CONTINUATION, 0, 1, &[]);
    assert_eq!(connection.receive(&empty), Err(Abuse::Continuation));
}

#[test]
fn budget_comes_back_in_thirty_seconds() {
    let mut connection = Connection::new();
    for rest in [PERIOD, PERIOD, 100 * PERIOD] {
        for _ in 0..1000 {
            connection.accept(&ping());
        }
        connection.pass(rest);
    }
    // What has rested for longer is no fuller.
    assert_eq!(connection.burst(|_| ping()).0, 1000);

    let mut connection = Connection::new();
    for _ in 0..1000 {
        connection.accept(&ping());
    }
    // 1,000 / 30 s: one every 30 ms.
    for _ in 0..1000 {
        connection.pass(30 * MILLI);
        connection.accept(&ping());
    }
    connection.pass(30 * MILLI - 1);
    assert_eq!(connection.receive(&ping()), Err(Abuse::Pings));
}

#[test]
fn budget_of_none_lets_nothing_pass() {
    let limits = Http2 {
        max_resets: 0,
        max_pings: 0,
        max_settings: 1,
        max_idle_frames: u32::MAX,
        ..Http2::default()
    };
    let mut connection = Connection::with(&limits);
    assert_eq!(connection.receive(&ping()), Err(Abuse::Pings));
    let mut connection = Connection::with(&limits);
    connection.open(END_STREAM);
    assert_eq!(connection.receive(&reset(1, 8)), Err(Abuse::Resets));
    let mut connection = Connection::with(&limits);
    for _ in 0..10_000 {
        connection.accept(&update(0));
    }
    let settings = frame(SETTINGS, 0, 0, &[]);
    assert_eq!(connection.burst(|_| settings.clone()).0, 1);
}

#[test]
fn time_that_stands_still_or_goes_back_gives_nothing_back() {
    let mut connection = Connection::new();
    for _ in 0..1000 {
        connection.accept(&ping());
    }
    connection.now -= SECOND;
    assert_eq!(connection.receive(&ping()), Err(Abuse::Pings));
}

#[test]
fn what_is_given_back_is_never_above_the_burst() {
    let mut connection = Connection::new();
    for _ in 0..10_000 {
        let stream = connection.open(END_STREAM);
        connection.answer(stream, 100);
    }
    assert_eq!(connection.burst(|n| reset(n, 8)), (1000, Abuse::Resets));
    let mut connection = Connection::new();
    connection.open(END_STREAM);
    for _ in 0..10_000 {
        connection.meter.sent(&frame(DATA, 0, 1, &[0; 100]));
    }
    assert_eq!(connection.burst(|_| ping()), (1000, Abuse::Pings));
}

#[test]
fn header_block_is_unfinished_until_its_last_byte() {
    let mut connection = Connection::new();
    let since = |connection: &Connection| connection.meter.header_block_since();
    assert_eq!(since(&connection), None);
    let begin = frame(HEADERS, END_STREAM, 1, &[0x82; 5]);
    let (header, payload) = begin.split_at(HEADER);
    connection.accept(header);
    assert_eq!(since(&connection), Some(START));
    connection.pass(SECOND);
    connection.accept(payload);
    assert_eq!(since(&connection), Some(START));
    connection.pass(SECOND);
    let end = frame(CONTINUATION, END_HEADERS, 1, &[0x84; 5]);
    let (but_last, last) = end.split_at(end.len() - 1);
    connection.accept(but_last);
    assert_eq!(since(&connection), Some(START));
    // A part of the next frame changes nothing.
    connection.accept(&[last, &[0, 0]].concat());
    assert_eq!(since(&connection), None);
}

// === what must pass ===

/// A page is left five times a minute, and its hundred streams cancelled at once.
#[test]
fn browser_that_leaves_pages_passes() {
    let mut connection = Connection::new();
    connection.accept(&frame(SETTINGS, 0, 0, &[0; 18]));
    connection.accept(&update(0));
    connection.meter.sent(&frame(SETTINGS, 0, 0, &[0; 18]));
    connection.meter.sent(&frame(SETTINGS, ACK, 0, &[]));
    connection.accept(&frame(SETTINGS, ACK, 0, &[]));
    for _ in 0..5 * 60 {
        let streams: Vec<u32> = (0..100).map(|_| connection.open(END_STREAM)).collect();
        for stream in &streams {
            connection.accept(&update(*stream));
            connection.accept(&frame(PRIORITY_UPDATE, 0, 0, b"\0\0\0\x01u=1"));
            connection.accept(&frame(PRIORITY_FRAME, 0, *stream, &[0; 5]));
            connection.meter.sent(&headers(*stream, 0));
            connection.meter.sent(&frame(DATA, 0, *stream, &[0; 1000]));
        }
        for stream in streams {
            connection.accept(&reset(stream, 8));
        }
        connection.pass(12 * SECOND);
    }
}

/// grpc-go: whenever DATA comes and no PING of its own is under way; here a round trip takes 100 µs.
#[test]
fn grpc_that_probes_its_bandwidth_passes() {
    let mut connection = Connection::new();
    let stream = connection.open(0);
    for _ in 0..100_000 {
        connection.meter.sent(&frame(DATA, 0, stream, &[0; 100]));
        connection.accept(&ping());
        connection.meter.sent(&frame(PING, ACK, 0, &[0; 8]));
        connection.accept(&frame(DATA, 0, stream, &[0; 100]));
        connection.pass(100_000);
    }
    // Its keepalive while nothing moves.
    for _ in 0..1000 {
        connection.pass(10 * SECOND);
        connection.accept(&ping());
    }
}

/// nginx and h2load open the window once and then by halves; curl opens each stream's on its own; Go's
/// client opens both after each 4 KiB; others, both at each frame.
#[test]
fn clients_that_open_their_windows_in_their_ways_pass() {
    // Frames of the connection and the stream for a frame of 16 KiB.
    for updates in [1, 2, 4, 8] {
        let mut connection = Connection::new();
        connection.accept(&update(0));
        for _ in 0..100 {
            let stream = connection.open(END_STREAM);
            connection.accept(&update(stream));
            for _ in 0..640 {
                connection.meter.sent(&frame(DATA, 0, stream, &[0; 16384]));
                for n in 0..updates {
                    connection.accept(&update(stream * (n % 2)));
                }
            }
            connection.answer(stream, 0);
        }
    }
    // Small messages, both windows at each.
    let mut connection = Connection::new();
    let stream = connection.open(0);
    for _ in 0..100_000 {
        connection.meter.sent(&frame(DATA, 0, stream, &[0; 5]));
        connection.accept(&update(stream));
        connection.accept(&update(0));
    }
}

/// With a window of 1 GiB all is sent before the first of it is read.
#[test]
fn client_that_reads_late_passes() {
    let mut connection = Connection::new();
    let stream = connection.open(END_STREAM);
    for _ in 0..65_536 {
        connection.meter.sent(&frame(DATA, 0, stream, &[0; 16384]));
    }
    connection.pass(SECOND);
    for _ in 0..65_536 {
        connection.accept(&update(0));
        connection.accept(&update(stream));
    }
}

/// Each of a million requests a minute has a body that an empty frame ends, as nghttp2's and Go's have.
#[test]
fn bodies_that_end_with_an_empty_frame_pass() {
    let mut connection = Connection::new();
    for _ in 0..1_000_000 {
        let stream = connection.open(0);
        connection.accept(&frame(DATA, 0, stream, b"body"));
        connection.accept(&frame(DATA, END_STREAM, stream, &[]));
        connection.pass(60_000);
    }
}

/// A proxy that hedges: every second request of 20,000 a second is cancelled.
#[test]
fn proxy_that_cancels_half_of_its_requests_passes() {
    let mut connection = Connection::new();
    for _ in 0..100_000 {
        let kept = connection.open(END_STREAM);
        let cancelled = connection.open(END_STREAM);
        connection.answer(kept, 100);
        connection.accept(&reset(cancelled, 8));
        connection.pass(100_000);
    }
}

/// RFC 9113 section 6.5: each SETTINGS and PING of ours is acknowledged.
#[test]
fn acknowledgements_of_what_we_sent_pass() {
    let mut connection = Connection::new();
    for _ in 0..10_000 {
        connection.meter.sent(&ping());
        connection.accept(&frame(PING, ACK, 0, &[0; 8]));
        connection.meter.sent(&frame(SETTINGS, 0, 0, &[]));
        connection.accept(&frame(SETTINGS, ACK, 0, &[]));
    }
}

// === cuts ===

/// One of every frame and flag that is looked at.
fn mixture() -> Vec<u8> {
    let frames = [
        frame(SETTINGS, 0, 0, &[0; 12]),
        update(0),
        frame(HEADERS, 0, 1, &[0x82; 3]),
        frame(CONTINUATION, END_HEADERS, 1, &[0x84; 2]),
        frame(DATA, PADDED, 1, &[3, 1, 0, 0, 0]),
        frame(DATA, PADDED, 1, &[3, 0, 0, 0]),
        frame(DATA, END_STREAM, 1, &[]),
        frame(
            HEADERS,
            END_HEADERS | PADDED | PRIORITY,
            3,
            &[1, 0, 0, 0, 0, 9, 0x82, 0],
        ),
        frame(
            HEADERS,
            END_HEADERS | PADDED | PRIORITY,
            3,
            &[1, 0, 0, 0, 0, 9, 0],
        ),
        reset(3, 8),
        reset(5, 1),
        frame(RST_STREAM, 0, 3, &[0; 2]),
        ping(),
        frame(0x50, 0, 7, &[1; 20]),
        frame(HEADERS, 0, 5, &[0x82; 3]),
    ];
    frames.concat()
}

fn small() -> Http2 {
    Http2 {
        max_resets: 4,
        max_pings: 2,
        max_settings: 2,
        max_idle_frames: 5,
        ..Http2::default()
    }
}

fn read<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Result<FrameMeter, Abuse> {
    let mut meter = FrameMeter::new(&small(), START);
    for piece in pieces {
        meter.received(piece, START)?;
    }
    Ok(meter)
}

#[test]
fn cut_anywhere_it_counts_the_same() {
    let once = [PREFACE_BYTES, &mixture()].concat();
    let whole = read([once.as_slice()]);
    assert!(whole.is_ok());
    assert_eq!(whole, read(once.chunks(1)));
    for at in 0..=once.len() {
        let (a, b) = once.split_at(at);
        assert_eq!(whole, read([a, b]), "cut at {at}");
    }
    let twice = [once, mixture()].concat();
    let whole = read([twice.as_slice()]);
    assert_eq!(whole, Err(Abuse::Resets));
    for at in 0..=twice.len() {
        let (a, b) = twice.split_at(at);
        assert_eq!(whole, read([a, b]), "cut at {at}");
    }
}

#[test]
fn what_is_sent_counts_the_same_cut_anywhere() {
    let bytes = mixture();
    let sent = |pieces: &[&[u8]]| {
        let mut meter = FrameMeter::new(&small(), START);
        for piece in pieces {
            meter.sent(piece);
        }
        meter
    };
    let whole = sent(&[&bytes]);
    assert_ne!(whole, sent(&[]));
    for at in 0..=bytes.len() {
        let (a, b) = bytes.split_at(at);
        assert_eq!(whole, sent(&[a, b]), "cut at {at}");
    }
}

proptest! {
    #[test]
    fn random_bytes_count_the_same_in_any_pieces(
        frames in prop::collection::vec(
            (0_u8..12, any::<u8>(), 0_u32..8, prop::collection::vec(any::<u8>(), 0..20)),
            0..40,
        ),
        tail in prop::collection::vec(any::<u8>(), 0..40),
        piece in 1_usize..50,
    ) {
        let mut bytes = PREFACE_BYTES.to_vec();
        for (kind, flags, stream, payload) in frames {
            bytes.extend(frame(kind, flags, stream, &payload));
        }
        bytes.extend(tail);
        prop_assert_eq!(read([bytes.as_slice()]), read(bytes.chunks(piece)));
    }
}
