//! What a child does to itself between fork and exec, so that the program it becomes can do less
//! than the process it was forked from.
//!
//! The host's launcher installs it in the command of a plugin that is to be isolated.
//! What always holds: either every step has succeeded or the program is not executed, and the
//! parent can tell which step failed.
//!
//! # Order
//!
//! 1. *Limits.* Raising one takes a privilege that step 3 gives away. None of them can make a later
//!    step fail: no step opens, allocates or writes anything.
//! 2. *Supplementary groups, then the group id.* Both take privileges that go with the user id, and
//!    a process that kept its parent's groups could open what they may open.
//! 3. *The user id*: real, effective and saved, so that there is no way back. From nonzero to nonzero
//!    the kernel leaves capabilities as they are, so they are dropped as well.
//! 4. *No new privileges.* From here on no set-user-id program gives any back. After the switch,
//!    because some security modules refuse changes of identity under it.
//! 5. *The caller's hook*, last: a filter of system calls installed there need not allow what the
//!    steps before it call, and without privileges it can only be installed after step 4.
//!
//! What the child inherits was decided before step 1 (`process`), and stays so: descriptors carry
//! the rights with which they were opened, whoever uses them later. So the memory files, which
//! belong to the host's user and are open to nobody else, can be mapped by the plugin, and not
//! opened anew.

use std::fmt;
use std::io;
use std::ptr::{NonNull, null_mut};

use crate::sync::{AtomicU32, Ordering};

/// Runs last in the child. See `PluginSpec::pre_exec` for what it may do.
pub(crate) type Hook = Box<dyn FnMut() -> io::Result<()> + Send + Sync>;

/// What is to be done to a child.
#[derive(Default)]
pub(crate) struct Isolation {
    /// Resource number and limit, soft and hard.
    pub(crate) limits: Vec<(u32, u64)>,
    /// User id and group id.
    pub(crate) user: Option<(u32, u32)>,
    pub(crate) no_new_privs: bool,
    pub(crate) hook: Option<Hook>,
}

impl fmt::Debug for Isolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Isolation")
            .field("limits", &self.limits)
            .field("user", &self.user)
            .field("no_new_privs", &self.no_new_privs)
            .field("hook", &self.hook.is_some())
            .finish()
    }
}

/// A step of [`Isolation::apply`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// The limit with this index.
    Limit(usize),
    Groups,
    Group,
    User,
    Capabilities,
    NoNewPrivs,
    Hook,
}

/// Where a child is, in a word that its parent can read.
///
/// | value | meaning | who writes it |
/// |---|---|---|
/// | `NOT_BEGUN` | the first step has not begun | parent, before it starts a child |
/// | `GROUPS` to `HOOK`, `LIMIT` and more | this step is being taken, or has failed | child |
/// | `DONE` | every step has succeeded; what fails now is the execution | child |
mod at {
    pub(super) const NOT_BEGUN: u32 = 0;
    pub(super) const GROUPS: u32 = 1;
    pub(super) const GROUP: u32 = 2;
    pub(super) const USER: u32 = 3;
    pub(super) const CAPABILITIES: u32 = 4;
    pub(super) const NO_NEW_PRIVS: u32 = 5;
    pub(super) const HOOK: u32 = 6;
    pub(super) const DONE: u32 = 7;
    /// Plus the limit's index.
    pub(super) const LIMIT: u32 = 256;
}

impl Isolation {
    /// Whether there is nothing to do.
    pub(crate) fn is_empty(&self) -> bool {
        self.limits.is_empty() && self.user.is_none() && !self.no_new_privs && self.hook.is_none()
    }

    /// Takes all steps, in the child. Makes system calls and nothing else, but for the hook.
    pub(crate) fn apply(&mut self, progress: &Progress) -> io::Result<()> {
        for (index, &(resource, limit)) in self.limits.iter().enumerate() {
            progress.set(at::LIMIT.saturating_add(index as u32));
            set_limit(resource, limit)?;
        }
        if let Some((uid, gid)) = self.user {
            progress.set(at::GROUPS);
            drop_groups()?;
            progress.set(at::GROUP);
            set_group(gid)?;
            progress.set(at::USER);
            set_user(uid)?;
            if uid != 0 {
                progress.set(at::CAPABILITIES);
                drop_capabilities()?;
            }
        }
        if self.no_new_privs {
            progress.set(at::NO_NEW_PRIVS);
            forbid_new_privileges()?;
        }
        if let Some(hook) = &mut self.hook {
            progress.set(at::HOOK);
            hook()?;
        }
        progress.set(at::DONE);
        Ok(())
    }
}

/// One word that parent and child share until the child executes a program, in a page of its own.
/// The error that a child hands its parent is a number from the system; this tells what it was
/// doing when it got it.
#[derive(Debug)]
pub(crate) struct Progress(NonNull<AtomicU32>);

// SAFETY: the page belongs to this value and to no thread; its word is an atomic.
unsafe impl Send for Progress {}
// SAFETY: as above.
unsafe impl Sync for Progress {}

/// The kernel rounds it up to a page.
const PAGE_BYTES: usize = size_of::<AtomicU32>();

impl Progress {
    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: a new mapping at an address of the kernel's choice replaces nothing.
        let page = unsafe {
            libc::mmap(
                null_mut(),
                PAGE_BYTES,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if page == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        NonNull::new(page.cast()).map(Self).ok_or_else(io::Error::last_os_error)
    }

    fn word(&self) -> &AtomicU32 {
        // SAFETY: the page is zeros, which an atomic may be, and mapped until this value is dropped.
        unsafe { self.0.as_ref() }
    }

    fn set(&self, at: u32) {
        // Relaxed: the parent looks only after it has read the child's error from a pipe, or the
        // pipe's end.
        self.word().store(at, Ordering::Relaxed);
    }

    /// Call it before a child is started.
    pub(crate) fn reset(&self) {
        self.set(at::NOT_BEGUN);
    }

    /// The step that a child which could not be started has failed at; `None` where it failed
    /// before the first or after the last.
    pub(crate) fn failed_step(&self) -> Option<Step> {
        // Relaxed: see `set`.
        match self.word().load(Ordering::Relaxed) {
            at::GROUPS => Some(Step::Groups),
            at::GROUP => Some(Step::Group),
            at::USER => Some(Step::User),
            at::CAPABILITIES => Some(Step::Capabilities),
            at::NO_NEW_PRIVS => Some(Step::NoNewPrivs),
            at::HOOK => Some(Step::Hook),
            limit => limit.checked_sub(at::LIMIT).map(|index| Step::Limit(index as usize)),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        // SAFETY: mapped by `new`, with this length, and nobody else's.
        unsafe { libc::munmap(self.0.as_ptr().cast(), PAGE_BYTES) };
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::tests::child_says;

    #[test]
    fn the_parent_learns_which_step_failed() {
        let progress = Progress::new().unwrap();
        assert_eq!(progress.failed_step(), None);
        let fails_at = |mut isolation: Isolation| {
            progress.reset();
            assert!(child_says(|| isolation.apply(&progress).is_err()));
            progress.failed_step()
        };
        // The first is a limit on core dumps, the second on nothing.
        let limits = vec![(4, 0), (u32::MAX, 1)];
        assert_eq!(fails_at(Isolation { limits, ..Default::default() }), Some(Step::Limit(1)));
        let hook: Hook = Box::new(|| Err(io::Error::from_raw_os_error(libc::EPERM)));
        let isolation = Isolation { hook: Some(hook), no_new_privs: true, ..Default::default() };
        assert_eq!(fails_at(isolation), Some(Step::Hook));
    }

    #[test]
    fn nothing_to_do_is_done() {
        let progress = Progress::new().unwrap();
        let mut isolation = Isolation::default();
        assert!(isolation.is_empty());
        assert!(child_says(|| isolation.apply(&progress).is_ok()));
        assert_eq!(progress.failed_step(), None, "what fails now is the execution");
    }
}
