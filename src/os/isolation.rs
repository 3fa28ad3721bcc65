//! What a child does to itself before it executes a program, so that the program can do less than the
//! process that started it.
//!
//! `os::child` calls it. Invariants: either every step has succeeded or the program is not executed;
//! the step that is being taken is reported before it is taken; only system calls are made.
//!
//! # Order
//!
//! 1. *Limits.* Raising one takes a privilege that step 3 gives away. No later step opens, allocates
//!    or writes anything, so no limit makes one fail.
//! 2. *Supplementary groups, then the group id.* Both take privileges that go with the user id. A
//!    process that kept its parent's groups could open what they may open.
//! 3. *The user id*: real, effective and saved, so that there is no way back. From nonzero to nonzero
//!    the kernel leaves capabilities as they are, so they are dropped as well.
//! 4. *No new privileges.* From here on no set-user-id program gives any back. After the switch,
//!    because some security modules refuse changes of identity under it.
//!
//! A child of the host itself shares the host's memory until it executes the program (`os::spawn`). The kernel makes
//! memory undumpable when a process that uses it changes its identity, *before* the new identity
//! counts. So no other process of the new user can trace the child while it shares the memory. Step 3
//! sets "undumpable" once more, because `fs.suid_dumpable` may have chosen a weaker value, under which
//! the child could dump core; before Linux 5.16 a core dump ends every process that shares the memory.
//!
//! Descriptors carry the rights with which they were opened, whoever uses them later. So the plugin can
//! map the memory files, which belong to the host's user, and cannot open them anew.

use std::borrow::Cow;
use std::io;
use std::ptr::null_mut;

use super::child::{Report, Step};

/// What the child gives up.
#[derive(Debug, Default)]
pub(crate) struct Isolation<'a> {
    /// Resource number and limit, soft and hard.
    pub(crate) limits: Cow<'a, [[u64; 2]]>,
    /// User id and group id.
    pub(crate) user: Option<(u32, u32)>,
    pub(crate) no_new_privs: bool,
}

impl Isolation<'_> {
    /// Takes all steps, in the child.
    pub(crate) fn apply(&self, report: &Report) -> io::Result<()> {
        for (index, &[resource, limit]) in self.limits.iter().enumerate() {
            report.at(Step::Limit(index as u32));
            set_limit(resource as u32, limit)?;
        }
        if let Some((uid, gid)) = self.user {
            report.at(Step::Groups);
            drop_groups()?;
            report.at(Step::Group);
            set_group(gid)?;
            report.at(Step::User);
            set_user(uid)?;
            forbid_dumps();
            if uid != 0 {
                report.at(Step::Capabilities);
                drop_capabilities()?;
            }
        }
        if self.no_new_privs {
            report.at(Step::NoNewPrivs);
            forbid_new_privileges()?;
        }
        Ok(())
    }
}

fn set_limit(resource: u32, limit: u64) -> io::Result<()> {
    let limit = libc::rlimit64 { rlim_cur: limit, rlim_max: limit };
    // SAFETY: of this process; the new limit outlives the call, the old one is not asked for.
    let result = unsafe {
        libc::syscall(
            libc::SYS_prlimit64,
            0,
            resource,
            &raw const limit,
            null_mut::<libc::rlimit64>(),
        )
    };
    super::check(result).map(drop)
}

// The switches are the system calls themselves. The library's functions of these names make every
// thread of the process switch; the child has one, and may not take the locks that this takes.

fn drop_groups() -> io::Result<()> {
    // SAFETY: no groups, so no pointer to any.
    super::check(unsafe { libc::syscall(libc::SYS_setgroups, 0, null_mut::<u32>()) }).map(drop)
}

fn set_group(gid: u32) -> io::Result<()> {
    // SAFETY: the call takes three numbers.
    super::check(unsafe { libc::syscall(libc::SYS_setresgid, gid, gid, gid) }).map(drop)
}

fn set_user(uid: u32) -> io::Result<()> {
    // SAFETY: the call takes three numbers.
    super::check(unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) }).map(drop)
}

/// Of the memory that the child shares with the host; see the module. `os::spawn` undoes it.
fn forbid_dumps() {
    // SAFETY: the call takes numbers.
    unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) };
}

/// Effective, permitted and inheritable ones, and with them the ambient ones.
fn drop_capabilities() -> io::Result<()> {
    const VERSION_3: u32 = 0x2008_0522;
    let header = [VERSION_3, 0];
    let none = [0_u32; 6];
    // SAFETY: a header that names this process and the version with two sets of three words each,
    // and those words; both outlive the call.
    let result = unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), none.as_ptr()) };
    super::check(result).map(drop)
}

fn forbid_new_privileges() -> io::Result<()> {
    // SAFETY: the call takes numbers.
    super::check(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }.into()).map(drop)
}
