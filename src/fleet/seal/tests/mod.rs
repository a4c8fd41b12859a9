//! Who may speak, to the last corner.
