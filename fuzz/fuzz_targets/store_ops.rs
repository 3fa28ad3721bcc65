//! Operations on a store, with deaths at any of its stores.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ringway_fuzz::store_ops::run(data));
