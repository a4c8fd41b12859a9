//! Frames of HTTP/2, whole and in pieces: what a client is found to do does not depend on the cuts.
#![no_main]

use isobar::telemetry::abuse::Abuse;
use isobar::{base, config, telemetry};

#[allow(dead_code, reason = "the proxy asks it more than this does")]
#[path = "../../../src/proxy/h2/meter/mod.rs"]
mod meter;

use meter::FrameMeter;

const LIMITS: config::Http2 = config::Http2 {
    max_streams: std::num::NonZeroU32::MIN,
    stream_window: 0,
    connection_window: 0,
    max_resets: 2,
    max_pings: 2,
    max_settings: 2,
    max_idle_frames: 4,
};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let [first, bytes @ ..] = data else { return };
    let size = usize::from(*first) + 1;
    assert_eq!(received(bytes.chunks(size)), received([bytes]));
    assert_eq!(sent(bytes.chunks(size)), sent([bytes]));
});

fn received<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Result<FrameMeter, Abuse> {
    let mut meter = FrameMeter::new(&LIMITS, 0);
    for piece in pieces {
        meter.received(piece, 0)?;
    }
    Ok(meter)
}

fn sent<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> FrameMeter {
    let mut meter = FrameMeter::new(&LIMITS, 0);
    for piece in pieces {
        meter.sent(piece);
    }
    meter
}
