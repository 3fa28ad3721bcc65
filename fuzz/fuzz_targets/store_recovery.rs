//! Recovery over arbitrary contents of a store.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ringway_fuzz::store::recovery(data));
