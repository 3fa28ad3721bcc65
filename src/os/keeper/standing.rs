//! What a process passes on to its children and may lose: identity, privileges, root directory.
//!
//! The host compares its own now with its own when it made its keeper. Invariants: two that are equal give
//! a child the same rights; the calls are system calls that do not wait.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};

/// See the module. Of the calling thread, where the kernel keeps it for each thread.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Standing {
    users: [u32; 3],
    groups: [u32; 3],
    supplementary: Vec<libc::gid_t>,
    /// Effective, permitted and inheritable, low words first.
    capabilities: [u32; 6],
    no_new_privs: i32,
    seccomp: i32,
    /// Device and inode of the root directory.
    root: (u64, u64),
}

impl Standing {
    pub(super) fn now() -> io::Result<Self> {
        let (mut users, mut groups) = ([0; 3], [0; 3]);
        let [real, effective, saved] = &mut users;
        // SAFETY: the kernel writes three numbers, which outlive the call.
        super::super::check(unsafe { libc::getresuid(real, effective, saved) }.into())?;
        let [real, effective, saved] = &mut groups;
        // SAFETY: as above.
        super::super::check(unsafe { libc::getresgid(real, effective, saved) }.into())?;
        // SAFETY: no capabilities to be set, and none to be returned: the call takes numbers.
        let no_new_privs = unsafe { libc::prctl(libc::PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) };
        // SAFETY: as above. A thread in the strict mode would be killed; it could start nothing.
        let seccomp = unsafe { libc::prctl(libc::PR_GET_SECCOMP, 0, 0, 0, 0) };
        let root = fs::metadata("/")?;
        Ok(Self {
            users,
            groups,
            supplementary: supplementary_groups()?,
            capabilities: capabilities()?,
            no_new_privs,
            seccomp,
            root: (root.dev(), root.ino()),
        })
    }
}

fn supplementary_groups() -> io::Result<Vec<libc::gid_t>> {
    // SAFETY: asks for the number only.
    let count = unsafe { libc::getgroups(0, std::ptr::null_mut()) };
    super::super::check(count.into())?;
    let mut groups = vec![0; count as usize];
    // SAFETY: room for as many as the call is told. Where there are more by now, it fails.
    let count = unsafe { libc::getgroups(count, groups.as_mut_ptr()) };
    super::super::check(count.into())?;
    groups.truncate(count as usize);
    Ok(groups)
}

fn capabilities() -> io::Result<[u32; 6]> {
    const VERSION_3: u32 = 0x2008_0522;
    let header = [VERSION_3, 0];
    let mut found = [0_u32; 6];
    // SAFETY: a header that names this thread and the version with two sets of three words each, and
    // room for those words; both outlive the call.
    let result = unsafe { libc::syscall(libc::SYS_capget, header.as_ptr(), found.as_mut_ptr()) };
    super::super::check(result).map(|_| found)
}

/// The working directory, to enter it from another process.
pub(super) fn working_directory() -> io::Result<OwnedFd> {
    let flags = libc::O_PATH | libc::O_DIRECTORY;
    Ok(OpenOptions::new().read(true).custom_flags(flags).open(".")?.into())
}
