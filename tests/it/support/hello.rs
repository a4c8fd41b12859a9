//! ClientHellos in pieces, and a way to know that a piece was looked at.

use super::tcp::{Came, End, Endpoint};
use super::tls::Offer;
use super::watched::Watched;

/// A connection through the proxy under test, at its only worker. Words that went over it came after all
/// that was sent to the worker before: it has seen that.
#[derive(Debug)]
pub struct Beat(End, End);

impl Beat {
    /// To `endpoint`, where `offer` for `name` goes.
    #[track_caller]
    pub fn new(proxy: &Watched, endpoint: &Endpoint, offer: &Offer, name: &str) -> Self {
        let hello = offer.hello(name);
        let mut client = End::connect(proxy.addr());
        client.send(&hello);
        let mut server = endpoint.accept();
        server.exactly(hello.len());
        let mut beat = Self(client, server);
        beat.pass();
        beat
    }

    #[track_caller]
    pub fn pass(&mut self) {
        self.0.talks_to(&mut self.1);
    }
}

/// The records of `hello` cut into records of at most `len` bytes.
pub fn in_records(mut hello: &[u8], len: usize) -> Vec<u8> {
    let mut message = Vec::new();
    while let Some((header, rest)) = hello.split_first_chunk::<5>() {
        let (fragment, after) = rest.split_at(u16::from_be_bytes([header[3], header[4]]).into());
        message.extend_from_slice(fragment);
        hello = after;
    }
    let record = |fragment: &[u8]| {
        let mut record = vec![22, 3, 1];
        record.extend_from_slice(&(fragment.len() as u16).to_be_bytes());
        record.extend_from_slice(fragment);
        record
    };
    message.chunks(len).flat_map(record).collect()
}

/// A ClientHello for `name` of so many bytes, its header of four included, in records as large as may be.
pub fn padded(name: &str, len: usize) -> Vec<u8> {
    let vector = |bytes: &[u8]| [&(bytes.len() as u16).to_be_bytes()[..], bytes].concat();
    let server_name = vector(&[&[0][..], &vector(name.as_bytes())].concat());
    let mut extensions = [&[0, 0][..], &vector(&server_name)].concat();
    let mut body = b"\x03\x03".to_vec();
    body.extend_from_slice(&[7; 32]);
    body.extend_from_slice(b"\0\0\x02\x13\x01\x01\0");
    // Two lengths of two bytes and the type of the padding (RFC 7685).
    let padding = len - 4 - body.len() - 2 - extensions.len() - 4;
    extensions.extend_from_slice(&[&[0, 21][..], &vector(&vec![0; padding])].concat());
    body.extend_from_slice(&vector(&extensions));
    let length = (body.len() as u32).to_be_bytes();
    let message = [&[1][..], &length[1..], &body].concat();
    assert_eq!(message.len(), len);
    let mut record = Vec::new();
    for fragment in message.chunks(1 << 14) {
        record.extend_from_slice(&[22, 3, 1]);
        record.extend_from_slice(&vector(fragment));
    }
    record
}

/// A fatal alert in clear text.
pub fn alert(description: u8) -> Came {
    Came::Bytes(vec![21, 3, 3, 0, 2, 2, description])
}
