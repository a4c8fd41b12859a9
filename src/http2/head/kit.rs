//! Fields as tests write them.

use crate::http2::hpack::{Decoder, Encoder, Indexing, statics};

/// Names and values.
pub(in crate::http2) type Fields = Vec<(String, Vec<u8>)>;

pub(in crate::http2) fn owned(fields: &[(&str, &[u8])]) -> Fields {
    let fields = fields.iter();
    fields.map(|(n, v)| ((*n).to_owned(), v.to_vec())).collect()
}

/// A block of its own.
pub(in crate::http2) fn encode(fields: &Fields) -> Vec<u8> {
    let mut out = Vec::new();
    let mut encoder = Encoder::new();
    encoder.begin(&mut out);
    for (name, value) in fields {
        let name = name.as_bytes();
        encoder.field(&mut out, statics::id_of(name), name, value, Indexing::Add);
    }
    out
}

pub(in crate::http2) fn decode(block: &[u8]) -> Fields {
    let mut fields = Vec::new();
    let mut add = |name: &[u8], value: &[u8]| {
        fields.push((String::from_utf8_lossy(name).into_owned(), value.to_vec()));
    };
    Decoder::new(4096)
        .decode(block, |field| add(field.name, field.value))
        .unwrap();
    fields
}
