//! What this process has open and mapped.

use std::fs;
use std::thread;
use std::time::Instant;

use super::plugin::NEVER;

/// The shared mappings of this process.
fn mappings() -> Vec<String> {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    maps.lines().filter(|line| line.contains("rw-s")).map(String::from).collect()
}

/// How many descriptors and shared mappings this process has.
pub fn held() -> (usize, usize) {
    (fs::read_dir("/proc/self/fd").unwrap().count(), mappings().len())
}

/// Waits until this process has no more than that. The supervisor unmaps what is retired, and keeps a descriptor
/// of what it has called until the call is over.
pub fn wait_until_held(before: (usize, usize)) {
    let begun = Instant::now();
    loop {
        let now = held();
        if now.0 <= before.0 && now.1 <= before.1 {
            return;
        }
        let links = fs::read_dir("/proc/self/fd").unwrap().flatten();
        let links: Vec<_> = links.filter_map(|entry| fs::read_link(entry.path()).ok()).collect();
        let in_time = begun.elapsed() < NEVER;
        assert!(in_time, "{before:?} before, {now:?} now: {links:?}, {:?}", mappings());
        thread::yield_now();
    }
}
