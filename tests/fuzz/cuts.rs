//! Reading in pieces, as the unit tests do: later refused perhaps, but never understood otherwise.

use isobar::http1::corpus::Outcome;

/// The first byte of `data` places the cuts in the rest.
pub fn check(data: &[u8], read: impl Fn(&[&[u8]]) -> Outcome) {
    let [first, bytes @ ..] = data else { return };
    let whole = read(&[bytes]);
    let j = usize::from(*first) * 31 % (bytes.len() + 1);
    let i = usize::from(*first) * 17 % (j + 1);
    let cut = read(&[&bytes[..i], &bytes[i..j], &bytes[j..]]);
    if !(matches!(whole, Outcome::Refused(_)) && cut == Outcome::Partial) {
        assert_eq!(cut, whole);
    }
}
