//! Which boot, which pid namespace, which process: what names a process to strangers.
//!
//! `segment` writes it into the line of a side that it takes, and watches peers by it.
//! What always holds: 0 means that it could not be found out, and nothing follows from it.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process;

use super::pidfd;

/// What a process says about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) pid: u32,
    /// In clock ticks since boot.
    pub(crate) start_time: u64,
    pub(crate) pid_namespace: u64,
    /// Hash of the boot id.
    pub(crate) boot: u64,
}

impl Identity {
    /// Of this process. Asks the system, because a process may have been forked meanwhile.
    pub(crate) fn own() -> Self {
        let pid = process::id();
        Self {
            pid,
            start_time: pidfd::start_time(pid).unwrap_or(0),
            pid_namespace: pid_namespace(),
            boot: boot(),
        }
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::tests::child_says;

    #[test]
    fn f12_a_child_is_somebody_else_in_the_same_boot() {
        let ours = Identity::own();
        assert!(ours.start_time > 0 && ours.pid_namespace > 0 && ours.boot != 0);
        assert_eq!(ours, Identity::own());
        assert!(child_says(|| {
            let theirs = Identity::own();
            theirs.pid != ours.pid
                && (theirs.pid_namespace, theirs.boot) == (ours.pid_namespace, ours.boot)
        }));
    }
}
