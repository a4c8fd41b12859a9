//! The names in certificates as text (RFC 4514), such that they can stand in a log or a header field
//! whoever made them.

use x509_parser::asn1_rs::{Any, Tag};
use x509_parser::x509::{AttributeTypeAndValue, X509Name};

const HEX: &[u8; 16] = b"0123456789ABCDEF";

/// Attributes with words of their own: RFC 4514 section 3, and two that openssl has words for.
const WORDS: [(&str, &str); 11] = [
    ("2.5.4.3", "CN"),
    ("2.5.4.7", "L"),
    ("2.5.4.8", "ST"),
    ("2.5.4.10", "O"),
    ("2.5.4.11", "OU"),
    ("2.5.4.6", "C"),
    ("2.5.4.9", "STREET"),
    ("0.9.2342.19200300.100.1.25", "DC"),
    ("0.9.2342.19200300.100.1.1", "UID"),
    ("1.2.840.113549.1.9.1", "emailAddress"),
    ("2.5.4.5", "serialNumber"),
];

/// A name as RFC 4514 writes it: the most specific part first. Only printable ASCII comes out, what is
/// not is escaped byte for byte, as section 2.4 allows: two names that differ never look the same.
pub(super) fn rfc4514(name: &X509Name<'_>) -> String {
    let mut out = String::new();
    let parts: Vec<_> = name.iter().collect();
    for (i, part) in parts.iter().rev().enumerate() {
        if i > 0 {
            out.push(',');
        }
        for (j, attribute) in part.iter().enumerate() {
            if j > 0 {
                out.push('+');
            }
            push_attribute(attribute, &mut out);
        }
    }
    out
}

/// The value of an attribute, if it is a text.
pub(super) fn text(attribute: &AttributeTypeAndValue<'_>) -> Option<String> {
    let value = attribute.attr_value();
    let bytes = value.data;
    match value.tag() {
        Tag::Utf8String | Tag::PrintableString | Tag::Ia5String | Tag::NumericString => {
            Some(std::str::from_utf8(bytes).ok()?.to_owned())
        }
        // What everybody writes into it, whatever T.61 says.
        Tag::TeletexString => Some(bytes.iter().map(|b| char::from(*b)).collect()),
        Tag::BmpString => {
            let units = bytes.chunks_exact(2);
            if !units.remainder().is_empty() {
                return None;
            }
            let units = units.map(|unit| u16::from_be_bytes([unit[0], unit[1]]));
            char::decode_utf16(units).collect::<Result<_, _>>().ok()
        }
        Tag::UniversalString => {
            let units = bytes.chunks_exact(4);
            if !units.remainder().is_empty() {
                return None;
            }
            let units = units.map(|u| u32::from_be_bytes([u[0], u[1], u[2], u[3]]));
            units.map(char::from_u32).collect()
        }
        _ => None,
    }
}

fn push_attribute(attribute: &AttributeTypeAndValue<'_>, out: &mut String) {
    let kind = attribute.attr_type().to_id_string();
    let word = WORDS.iter().find(|(oid, _)| *oid == kind);
    if let Some((_, word)) = word
        && let Some(text) = text(attribute)
    {
        out.push_str(word);
        out.push('=');
        push_escaped(&text, out);
        return;
    }
    // Section 2.4: who does not know the type shows the bytes.
    out.push_str(word.map_or(&kind, |(_, word)| word));
    out.push_str("=#");
    push_encoded(attribute.attr_value(), out);
}

fn push_escaped(text: &str, out: &mut String) {
    let last = text.len().saturating_sub(1);
    for (i, byte) in text.bytes().enumerate() {
        match byte {
            b'"' | b'+' | b',' | b';' | b'<' | b'>' | b'\\' => {
                out.push('\\');
                out.push(char::from(byte));
            }
            b'#' if i == 0 => out.push_str("\\#"),
            b' ' if i == 0 || i == last => out.push_str("\\ "),
            b' '..=b'~' => out.push(char::from(byte)),
            _ => {
                out.push('\\');
                push_hex(byte, out);
            }
        }
    }
}

/// The value in DER, in hex. Tags above 30 and lengths above 64 KiB do not come out of a certificate
/// that a handshake can carry; the bytes without them would still be safe to show.
fn push_encoded(value: &Any<'_>, out: &mut String) {
    let constructed = u8::from(value.header.is_constructed()) << 5;
    let class = (value.header.class() as u8) << 6;
    push_hex(class | constructed | (value.tag().0 as u8 & 0x1f), out);
    let [.., high, low] = value.data.len().to_be_bytes();
    match (high, low) {
        (0, ..=0x7f) => {}
        (0, _) => push_hex(0x81, out),
        _ => {
            push_hex(0x82, out);
            push_hex(high, out);
        }
    }
    push_hex(low, out);
    for byte in value.data {
        push_hex(*byte, out);
    }
}

fn push_hex(byte: u8, out: &mut String) {
    for digit in [byte >> 4, byte & 0xf] {
        out.push(char::from(HEX[usize::from(digit)]));
    }
}
