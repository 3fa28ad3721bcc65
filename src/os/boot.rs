//! Which boot and which pid namespace, by what `/proc` says.
//!
//! Named segments record it. Invariant: 0 means that it could not be found out, and nothing follows from
//! it. It depends on the mounts and namespaces of who asks, and proves nothing about anybody else.

use std::fs;
use std::os::unix::fs::MetadataExt;

/// Number of this process's pid namespace.
pub(crate) fn pid_namespace() -> u64 {
    fs::metadata("/proc/self/ns/pid").map_or(0, |found| found.ino())
}

/// Hash of the boot id, FNV-1a; never 0 where there is one.
pub(crate) fn boot() -> u64 {
    fs::read("/proc/sys/kernel/random/boot_id").map_or(0, |id| {
        let hash = id.iter().fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| {
            (sum ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        hash | 1
    })
}
