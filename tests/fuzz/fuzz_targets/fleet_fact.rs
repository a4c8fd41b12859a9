//! Facts as peers send them: no panic, and what is understood is understood again of the bytes that say the same.
#![no_main]

use isobar::fleet::fact::Fact;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Ok(fact) = postcard::from_bytes::<Fact>(data) else {
        return;
    };
    let bytes = postcard::to_allocvec(&fact).expect("memory is enough");
    assert_eq!(postcard::from_bytes::<Fact>(&bytes), Ok(fact));
});
