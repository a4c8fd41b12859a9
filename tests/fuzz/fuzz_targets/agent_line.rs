//! A line in which an endpoint speaks of itself: no panic, within bounds, and what is understood of it
//! is understood again of the words that say the same.
#![no_main]

use isobar::health::agent::line::{first, parse};
use isobar::upstream::said::Said;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let line = parse(data);
    let said = Said::default().with(&line.words);
    assert!(said.weight_percent <= Said::MAX_PERCENT);
    let again = said.to_string();
    assert_eq!(Said::default().with(&parse(again.as_bytes()).words), said);
    if let Some(first) = first(data) {
        assert_eq!(
            parse(first),
            line,
            "what follows the first line changes nothing"
        );
    }
});
