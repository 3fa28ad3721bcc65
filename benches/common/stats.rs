//! Medians and percentiles.
//!
//! The drivers record, the plans merge, the tables print.
//! What always holds: nothing here rounds in anybody's favour; a median of an even number is the
//! mean of the middle two.

use std::time::Duration;

use hdrhistogram::Histogram;

/// The median; NaN for nothing.
pub fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        odd if odd % 2 == 1 => values[middle],
        _ => f64::midpoint(values[middle - 1], values[middle]),
    }
}

/// Latencies, each one recorded.
#[derive(Debug, Clone)]
pub struct Latencies(Histogram<u64>);

impl Latencies {
    /// None yet; from 1 ns to 10 s, three digits.
    pub fn new() -> Self {
        Self(Histogram::new_with_bounds(1, 10_000_000_000, 3).expect("valid bounds"))
    }

    /// Records one.
    #[inline]
    pub fn record(&mut self, latency: Duration) {
        self.0.saturating_record(latency.as_nanos() as u64);
    }

    /// Takes over all of another's.
    pub fn merge(&mut self, other: &Self) {
        self.0.add(&other.0).expect("the same bounds");
    }

    /// Nanoseconds that `percent` of them took at most.
    pub fn percentile(&self, percent: f64) -> u64 {
        self.0.value_at_percentile(percent)
    }
}
