//! What the tests of the ring and the fuzz targets share.
#![allow(dead_code, reason = "each test uses its part")]

pub mod header;
pub mod hostile;
pub mod lossy;
pub mod lossy_bytes;
pub mod op;
pub mod ops;
#[cfg(not(loom))]
pub mod rpc;
pub mod slots;
pub mod store;
pub mod store_ops;

/// The seed of a random run: from `RINGWAY_SEED`, which replays a run, or from the clock. Printed
/// where the test fails.
pub fn seed() -> u64 {
    let seed = std::env::var("RINGWAY_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        now.map_or(1, |now| now.as_nanos() as u64)
    });
    println!("RINGWAY_SEED={seed}");
    seed
}

/// Runs proptest on cases that `RINGWAY_SEED` alone decides.
pub fn runner(cases: u32) -> proptest::test_runner::TestRunner {
    use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed().to_le_bytes());
    TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes))
}
