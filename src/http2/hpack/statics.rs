//! The static table (RFC 7541 appendix A), and names by their place in it.

/// A field of the static table.
pub(super) struct Static {
    pub(super) name: &'static [u8],
    pub(super) value: &'static [u8],
}

pub(in crate::http2) const AUTHORITY: u8 = 1;
pub(in crate::http2) const METHOD: u8 = 2;
pub(in crate::http2) const PATH: u8 = 4;
pub(in crate::http2) const SCHEME: u8 = 6;
pub(in crate::http2) const STATUS: u8 = 8;
const ACCEPT_ENCODING: u8 = 16;
pub(in crate::http2) const CONTENT_LENGTH: u8 = 28;
pub(in crate::http2) const COOKIE: u8 = 32;
pub(in crate::http2) const HOST: u8 = 38;
pub(in crate::http2) const TRANSFER_ENCODING: u8 = 57;

/// The fields; that of index 1 is the first.
pub(super) static FIELDS: [Static; 61] = [
    row(":authority", ""),
    row(":method", "GET"),
    row(":method", "POST"),
    row(":path", "/"),
    row(":path", "/index.html"),
    row(":scheme", "http"),
    row(":scheme", "https"),
    row(":status", "200"),
    row(":status", "204"),
    row(":status", "206"),
    row(":status", "304"),
    row(":status", "400"),
    row(":status", "404"),
    row(":status", "500"),
    row("accept-charset", ""),
    row("accept-encoding", "gzip, deflate"),
    row("accept-language", ""),
    row("accept-ranges", ""),
    row("accept", ""),
    row("access-control-allow-origin", ""),
    row("age", ""),
    row("allow", ""),
    row("authorization", ""),
    row("cache-control", ""),
    row("content-disposition", ""),
    row("content-encoding", ""),
    row("content-language", ""),
    row("content-length", ""),
    row("content-location", ""),
    row("content-range", ""),
    row("content-type", ""),
    row("cookie", ""),
    row("date", ""),
    row("etag", ""),
    row("expect", ""),
    row("expires", ""),
    row("from", ""),
    row("host", ""),
    row("if-match", ""),
    row("if-modified-since", ""),
    row("if-none-match", ""),
    row("if-range", ""),
    row("if-unmodified-since", ""),
    row("last-modified", ""),
    row("link", ""),
    row("location", ""),
    row("max-forwards", ""),
    row("proxy-authenticate", ""),
    row("proxy-authorization", ""),
    row("range", ""),
    row("referer", ""),
    row("refresh", ""),
    row("retry-after", ""),
    row("server", ""),
    row("set-cookie", ""),
    row("strict-transport-security", ""),
    row("transfer-encoding", ""),
    row("user-agent", ""),
    row("vary", ""),
    row("via", ""),
    row("www-authenticate", ""),
];

const fn row(name: &'static str, value: &'static str) -> Static {
    Static {
        name: name.as_bytes(),
        value: value.as_bytes(),
    }
}

/// Id of the name (the lowest index with it) of each field of [`FIELDS`].
static IDS: [u8; 61] = ids();

/// Id of the name of the field of this index, which is one of the static table.
#[inline]
pub(super) fn id_at(index: usize) -> u8 {
    IDS.get(index.wrapping_sub(1)).copied().unwrap_or_default()
}

/// Id of `name`, which is lower-case: the lowest index of a field of that name, 0 if there is none.
#[inline]
pub(in crate::http2) fn id_of(name: &[u8]) -> u8 {
    let (Some(&first), Some(&last)) = (name.first(), name.last()) else {
        return 0;
    };
    let id = SLOTS[slot(name.len(), first, last)];
    match FIELDS.get((id as usize).wrapping_sub(1)) {
        Some(field) if field.name == name => id,
        _ => 0,
    }
}

/// Index of the field of the name of this id and of `value`, 0 if there is none.
#[inline]
pub(super) fn index_of(id: u8, value: &[u8]) -> u8 {
    /// Ids, as bits, of the names that have values; all others have the empty one.
    const WITH_VALUES: u64 =
        1 << METHOD | 1 << PATH | 1 << SCHEME | 1 << STATUS | 1 << ACCEPT_ENCODING;
    if WITH_VALUES >> (id % 64) & 1 == 0 {
        return if value.is_empty() { id } else { 0 };
    }
    match (id, value) {
        (METHOD, b"GET") => 2,
        (METHOD, b"POST") => 3,
        (PATH, b"/") => 4,
        (PATH, b"/index.html") => 5,
        (SCHEME, b"http") => 6,
        (SCHEME, b"https") => 7,
        (STATUS, b"200") => 8,
        (STATUS, b"204") => 9,
        (STATUS, b"206") => 10,
        (STATUS, b"304") => 11,
        (STATUS, b"400") => 12,
        (STATUS, b"404") => 13,
        (STATUS, b"500") => 14,
        (ACCEPT_ENCODING, b"gzip, deflate") => 16,
        _ => 0,
    }
}

/// Where a name is looked for: no two names of the table share length, first and last byte, and these
/// factors (found by trying) keep all 52 apart in 128 slots.
const fn slot(len: usize, first: u8, last: u8) -> usize {
    (len.wrapping_mul(3) + first as usize * 54 + last as usize * 59) % 128
}

/// Id of the one name of each slot.
static SLOTS: [u8; 128] = slots();

const fn slots() -> [u8; 128] {
    let ids = ids();
    let mut slots = [0; 128];
    let mut at = 0;
    while at < ids.len() {
        let name = FIELDS[at].name;
        let slot = slot(name.len(), name[0], name[name.len() - 1]);
        assert!(
            slots[slot] == 0 || slots[slot] == ids[at],
            "two names in a slot"
        );
        slots[slot] = ids[at];
        at += 1;
    }
    slots
}

/// Fields of one name stand together.
const fn ids() -> [u8; 61] {
    let mut ids = [1; 61];
    let mut at = 1;
    while at < ids.len() {
        let is_same = is_equal(FIELDS[at].name, FIELDS[at - 1].name);
        ids[at] = if is_same { ids[at - 1] } else { at as u8 + 1 };
        at += 1;
    }
    ids
}

const fn is_equal(left: &[u8], right: &[u8]) -> bool {
    let mut at = 0;
    while at < left.len() && at < right.len() && left[at] == right[at] {
        at += 1;
    }
    at == left.len() && at == right.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_has_the_lowest_index_with_it() {
        for (at, field) in FIELDS.iter().enumerate() {
            let lowest = FIELDS
                .iter()
                .position(|other| other.name == field.name)
                .unwrap()
                + 1;
            assert_eq!(usize::from(id_of(field.name)), lowest);
            assert_eq!(usize::from(id_at(at + 1)), lowest);
        }
        assert_eq!([id_at(0), id_at(62)], [0, 0]);
    }

    #[test]
    fn constants_are_the_ids_of_their_names() {
        for (id, name) in [
            (AUTHORITY, ":authority"),
            (METHOD, ":method"),
            (PATH, ":path"),
            (SCHEME, ":scheme"),
            (STATUS, ":status"),
            (ACCEPT_ENCODING, "accept-encoding"),
            (CONTENT_LENGTH, "content-length"),
            (COOKIE, "cookie"),
            (HOST, "host"),
            (TRANSFER_ENCODING, "transfer-encoding"),
        ] {
            assert_eq!(id_of(name.as_bytes()), id);
        }
    }

    #[test]
    fn names_near_those_of_the_table_have_no_id() {
        assert_eq!(id_of(b""), 0);
        for field in &FIELDS {
            let mut near = field.name.to_vec();
            near.push(b'x');
            assert_eq!(id_of(&near), 0);
            near.pop();
            let middle = near.len() / 2;
            near[middle] ^= 0x20;
            assert_eq!(id_of(&near), 0);
            assert_eq!(id_of(&field.name[1..]), 0);
        }
    }

    #[test]
    fn fields_are_found_by_name_and_value() {
        for (at, field) in FIELDS.iter().enumerate() {
            assert_eq!(
                usize::from(index_of(id_of(field.name), field.value)),
                at + 1
            );
            assert_eq!(index_of(id_of(field.name), b"GETS"), 0);
        }
        assert_eq!(
            [
                index_of(0, b""),
                index_of(METHOD, b""),
                index_of(STATUS, b"")
            ],
            [0; 3]
        );
    }
}
