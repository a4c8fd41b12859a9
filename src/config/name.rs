//! What names are made of, whoever gives them: they are metric labels, log fields and parts of URLs of the
//! admin server.

/// Longest name, in characters.
pub const MAX_NAME: usize = 128;

/// What is wrong with a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadName {
    /// It has a character that is neither a letter, nor a digit, nor one of `_.-`.
    Character(char),
    /// It has no character.
    Empty,
    /// It has more than [`MAX_NAME`].
    TooLong,
}

/// Whether `name` may be one.
///
/// # Errors
/// [`BadName`]; of several, one.
pub fn check(name: &str) -> Result<(), BadName> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    if name.is_empty() {
        return Err(BadName::Empty);
    }
    if name.len() > MAX_NAME {
        return Err(BadName::TooLong);
    }
    match name.chars().find(|&c| !allowed(c)) {
        Some(c) => Err(BadName::Character(c)),
        None => Ok(()),
    }
}
