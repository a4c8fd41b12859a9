//! Trailers: those that came, as a map, and those that are to be sent.

use http::{HeaderMap, HeaderValue};

use crate::http2::hpack::{Encoder, Field};
use crate::http2::names::{self, Class};

use super::Malformed;
use super::send::write;

/// Makes a map of the fields of trailers, one after the other.
#[derive(Debug, Default)]
pub(in crate::http2) struct Trailers {
    map: HeaderMap,
    bytes: usize,
    max: usize,
    is_malformed: bool,
}

// === impl Trailers ===

impl Trailers {
    /// Of `max` bytes of names and values at most: more is as wrong as a field that is none.
    pub(in crate::http2) fn new(max: usize) -> Self {
        Self {
            max,
            ..Self::default()
        }
    }

    /// Adds a field.
    pub(in crate::http2) fn field(&mut self, field: &Field<'_>) {
        if self.is_malformed || self.add(field).is_none() {
            self.is_malformed = true;
        }
    }

    fn add(&mut self, field: &Field<'_>) -> Option<()> {
        // 32 as RFC 9113 section 6.5.2 counts: a map costs more than its bytes.
        self.bytes += field.name.len() + field.value.len() + 32;
        let is_well = field.is_sound && self.bytes <= self.max;
        // No pseudo-field is one of a trailer (section 8.1).
        if !is_well || field.name.first() == Some(&b':') {
            return None;
        }
        if matches!(
            names::known(field.name).class,
            Class::Chunked | Class::Hop | Class::Upgrade
        ) {
            return None;
        }
        let name = names::header_name(field.name).ok()?;
        let value = HeaderValue::from_bytes(field.value).ok()?;
        self.map.try_append(name, value).ok()?;
        Some(())
    }

    /// All of them.
    ///
    /// # Errors
    /// They are none.
    pub(in crate::http2) fn finish(self) -> Result<HeaderMap, Malformed> {
        if self.is_malformed {
            return Err(Malformed);
        }
        Ok(self.map)
    }
}

/// Writes them as a block.
pub(in crate::http2) fn write_trailers(
    out: &mut Vec<u8>,
    encoder: &mut Encoder,
    trailers: &HeaderMap,
) {
    encoder.begin(out);
    for (name, value) in trailers {
        let name = name.as_str().as_bytes();
        let known = names::known(name);
        if !matches!(known.class, Class::Chunked | Class::Hop | Class::Upgrade) {
            write(out, encoder, known, name, value.as_bytes());
        }
    }
}
