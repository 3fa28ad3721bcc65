//! A process: how it names itself to others, and how others prove its death.
//!
//! Participants of stores and sides of named channels record it. Invariants: 0 means unknown, and nothing
//! follows from it; a process that lives is never called dead.
//!
//! # The inode of a pidfd
//! From Linux 6.9 on every process has an inode of its own in the file system of pidfds, which no other process
//! ever gets while the machine runs. So the number of a process, its pid, only says where to look:
//!
//! 1. The kernel opens no pidfd: no process has the number, or a thread has it. The recorded one is dead.
//! 2. The pidfd has another inode: another process has the number. The recorded one is dead.
//! 3. The inode is the recorded one. The process is dead where the pidfd says that it has ended.
//! 4. Anything else (no permission, no descriptor left, an older kernel) proves nothing.
//!
//! No start time is compared: it reads differently in another time namespace.

use crate::memory::Deadline;
use crate::os::boot;
use crate::os::pidfd::PidFd;

/// The largest process id that Linux gives out.
const MAX_PID: u32 = 1 << 22;

/// What a process says about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ProcessId {
    pub(crate) pid: u32,
    /// Number of its pid namespace; 0 = unknown.
    pub(crate) pid_namespace: u64,
    /// Inode of its pidfd; 0 = unknown.
    pub(crate) pidfd_inode: u64,
}

impl ProcessId {
    /// Of this process. Asks the system, because a process may have been forked meanwhile.
    pub(crate) fn own() -> Self {
        let pid = std::process::id();
        let pidfd_inode = PidFd::open(pid).ok().and_then(|own| own.inode()).unwrap_or(0);
        Self { pid, pid_namespace: boot::pid_namespace(), pidfd_inode }
    }
}

/// Whether two numbers name one pid namespace. Unknown equals nothing.
pub(crate) fn same_namespace(one: u64, other: u64) -> bool {
    one != 0 && one == other
}

/// What is known of a process that was recorded.
#[derive(Debug)]
pub(crate) enum Found {
    /// It lives, and this tells of its death.
    Alive(PidFd),
    /// It is proven dead.
    Dead,
    /// Neither can be proven.
    Unknown,
}

/// Looks for the process that had this pid, in this process's pid namespace, and this inode.
pub(crate) fn find(pid: u32, pidfd_inode: u64) -> Found {
    if pidfd_inode == 0 || pid == 0 || pid > MAX_PID {
        return Found::Unknown;
    }
    let now = match PidFd::open(pid) {
        Ok(now) => now,
        // The last two: a thread has the number now.
        Err(error) => match error.raw_os_error() {
            Some(libc::ESRCH | libc::EINVAL | libc::ENOENT) => return Found::Dead,
            _ => return Found::Unknown,
        },
    };
    match now.inode() {
        None => Found::Unknown,
        Some(inode) if inode != pidfd_inode => Found::Dead,
        Some(_) if now.wait(Deadline::at_ns(0)).unwrap_or(false) => Found::Dead,
        Some(_) => Found::Alive(now),
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::os::tests::child_says;

    fn inode_of(pid: u32) -> u64 {
        PidFd::open(pid).unwrap().inode().unwrap_or(0)
    }

    #[test]
    fn f50_a_pid_of_another_process_or_of_a_thread_is_a_proven_death() {
        let own = ProcessId::own();
        if own.pidfd_inode == 0 {
            return println!("skipped: this kernel has no file system of pidfds (Linux 6.9)");
        }
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        let (pid, inode) = (child.id(), inode_of(child.id()));
        assert!(inode != 0 && inode != own.pidfd_inode);
        assert!(matches!(find(pid, inode), Found::Alive(_)));
        assert!(matches!(find(own.pid, own.pidfd_inode), Found::Alive(_)));
        // The number is another process's: ours had it once, as far as the record says.
        assert!(matches!(find(pid, own.pidfd_inode), Found::Dead));
        // Or a thread's.
        let (sent, thread) = std::sync::mpsc::channel();
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let running = std::thread::spawn(move || {
            let own = std::fs::read_link("/proc/thread-self").unwrap();
            let number = own.file_name().unwrap().to_str().unwrap().parse().unwrap();
            sent.send(number).unwrap();
            let _ = ended.recv();
        });
        assert!(matches!(find(thread.recv().unwrap(), inode), Found::Dead));
        drop(end);
        running.join().unwrap();
        // Unknown equals nothing.
        assert!(matches!(find(pid, 0), Found::Unknown));
        assert!(matches!(find(0, inode), Found::Unknown));
        assert!(matches!(find(u32::MAX, inode), Found::Unknown));
        assert!(!same_namespace(0, 0) && same_namespace(7, 7) && !same_namespace(7, 8));
        child.kill().unwrap();
        while matches!(find(pid, inode), Found::Alive(_)) {
            std::thread::yield_now();
        }
        assert!(matches!(find(pid, inode), Found::Dead), "a zombie");
        child.wait().unwrap();
        assert!(matches!(find(pid, inode), Found::Dead), "gone");
    }

    #[test]
    fn f12_a_child_is_somebody_else() {
        let ours = ProcessId::own();
        assert_eq!(ours, ProcessId::own());
        assert!(child_says(|| {
            let theirs = ProcessId::own();
            theirs.pid != ours.pid
                && theirs.pid_namespace == ours.pid_namespace
                && (theirs.pidfd_inode != ours.pidfd_inode || ours.pidfd_inode == 0)
        }));
    }
}
