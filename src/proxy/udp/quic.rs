//! The connection ids of QUIC packets, as far as every version shows them (RFC 8999).
//!
//! # The rule of `flow = "quic"`
//! - A packet belongs to the flow that knows its destination connection id, wherever it comes from:
//!   a client whose address changes keeps its endpoint. Answers go to the address that the client
//!   last sent from (endpoints validate it themselves, RFC 9000 section 8.2).
//! - A long header with an id that nobody knows begins a flow: the id is one that the client has chosen
//!   for its first flight.
//! - The ids that the endpoint chooses are learnt from its long headers (source connection id): of
//!   a Retry, and of its own first flight. They are further keys of the same flow.
//! - A short header with an id that nobody knows belongs to the newest flow of the address it comes
//!   from, and that flow knows the id from then on: ids that endpoints hand out later
//!   (NEW_CONNECTION_ID) are encrypted, and cannot be learnt otherwise.
//! - A client that moves and takes one of those into use at the same moment is unknown: it begins a flow,
//!   and only a hash policy over its address finds its endpoint again, as long as the port alone has
//!   changed (which is what a NAT that forgets does).
//! - What is no QUIC belongs together by its address.

/// What the header of a packet tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Header<'a> {
    /// A long header (RFC 8999 section 5.1).
    Long {
        /// The id that the receiver goes by.
        destination: &'a [u8],
        /// The id that the sender wants to be addressed by.
        source: &'a [u8],
    },
    /// A short header (section 5.2): the length of its id is known to who has handed it out.
    Short {
        /// The id that the receiver goes by.
        destination: &'a [u8],
    },
}

/// Longest id of versions 1 and 2 (RFC 9000 section 17.2). Later versions may allow 255; a packet with
/// such an id goes by its address.
pub(super) const MAX_ID: usize = 20;

/// The header form: 1 = long.
const LONG: u8 = 0x80;

/// The fixed bit of versions 1 and 2 (RFC 9000 section 17.2); clear in Version Negotiation at will, and
/// greased away only where both ends agreed (RFC 9287), on connections that are known by then.
const FIXED: u8 = 0x40;

/// The header of the packet at the front of `datagram`; ids in short headers have `length` bytes.
/// `None` = it is no QUIC that we know.
pub(super) fn header(datagram: &[u8], length: usize) -> Option<Header<'_>> {
    let (&first, rest) = datagram.split_first()?;
    if first & LONG == 0 {
        if first & FIXED == 0 || length == 0 {
            return None;
        }
        let destination = rest.get(..length)?;
        return Some(Header::Short { destination });
    }
    let (version, rest) = rest.split_at_checked(4)?;
    // Version Negotiation (version 0) has the other bits of its first byte at random.
    if first & FIXED == 0 && version != [0; 4] {
        return None;
    }
    let (destination, rest) = id(rest)?;
    let (source, _) = id(rest)?;
    Some(Header::Long {
        destination,
        source,
    })
}

/// An id with its length in front, and what follows it.
fn id(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&length, rest) = bytes.split_first()?;
    let length = usize::from(length);
    if length > MAX_ID {
        return None;
    }
    rest.split_at_checked(length)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A packet with a long header of version 1.
    pub(in crate::proxy::udp) fn long(destination: &[u8], source: &[u8]) -> Vec<u8> {
        let mut packet = vec![0xc3, 0, 0, 0, 1, destination.len() as u8];
        packet.extend(destination);
        packet.push(source.len() as u8);
        packet.extend(source);
        packet.extend([0; 30]);
        packet
    }

    /// A packet with a short header.
    fn short(destination: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x41];
        packet.extend(destination);
        packet.extend([9; 30]);
        packet
    }

    /// The first bytes of the client's Initial in RFC 9001, appendix A.2.
    #[test]
    fn the_initial_of_rfc_9001_has_the_id_that_is_told_there() {
        let packet = [
            0xc0, 0x00, 0x00, 0x00, 0x01, 0x08, 0x83, 0x94, 0xc8, 0xf0, 0x3e, 0x51, 0x57, 0x08,
            0x00, 0x00, 0x44, 0x9e,
        ];
        let destination = &[0x83, 0x94, 0xc8, 0xf0, 0x3e, 0x51, 0x57, 0x08][..];
        let source = &[][..];
        let long = Header::Long {
            destination,
            source,
        };
        assert_eq!(header(&packet, 8), Some(long));
    }

    #[test]
    fn long_headers_tell_both_ids() {
        let packet = long(b"destination", b"source");
        let expected = Header::Long {
            destination: b"destination",
            source: b"source",
        };
        assert_eq!(header(&packet, 8), Some(expected));
    }

    #[test]
    fn short_headers_have_ids_of_the_length_that_is_known() {
        let packet = short(b"12345678");
        for (length, id) in [(8, &b"12345678"[..]), (4, b"1234"), (1, b"1")] {
            let expected = Header::Short { destination: id };
            assert_eq!(header(&packet, length), Some(expected));
        }
        assert_eq!(header(&packet, 0), None);
    }

    #[test]
    fn version_negotiation_is_read_whatever_its_first_byte_says() {
        let mut packet = long(b"dd", b"ss");
        packet[0] = 0x80;
        assert_eq!(header(&packet, 8), None, "the fixed bit is clear");
        packet[1..5].fill(0);
        assert!(matches!(header(&packet, 8), Some(Header::Long { .. })));
    }

    #[test]
    fn what_is_cut_short_or_no_quic_is_none() {
        let packet = long(b"destination", b"source");
        let ids = 1 + 4 + 1 + 11 + 1 + 6;
        for length in 0..packet.len() {
            assert_eq!(
                header(&packet[..length], 8).is_some(),
                length >= ids,
                "{length}"
            );
        }
        let packet = short(b"12345678");
        for length in 0..packet.len() {
            assert_eq!(
                header(&packet[..length], 8).is_some(),
                length >= 9,
                "{length}"
            );
        }
        // A question for DNS: its first bytes are an id of 16 bits, which may look like anything.
        assert_eq!(header(b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00", 8), None);
        let mut huge = long(b"", b"");
        huge[5] = 21;
        assert_eq!(header(&huge, 8), None);
    }
}
