//! Learning of deaths: one thread per process waits on the pidfds of all peers.
//!
//! The host watches its plugins with it, and a plugin its host; each says what is to be done when
//! the process has died (mark channels, wake sleepers, restart). The thread also unmaps segments that
//! were left behind at a restart (`os::unmap`).
//! Invariants: what was registered runs at most once, after the process has died, and not
//! any more once its [`WatchToken`] has been dropped before the death was noticed.
//!
//! A death is noticed when the kernel has torn the process down, which takes longer the more memory
//! it has. Where there is no pidfd to wait for, the thread asks every 40 ms instead, all such
//! questions together. The thread starts with the first watch and then stays. A forked child has no such
//! thread: it gets a new one with its own first watch, and tokens inherited from the parent do
//! nothing there, so that a child cannot take the parent's watches away.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use crate::os::clock::monotonic_ns;
use crate::os::epoll::Epoll;
use crate::os::eventfd::EventFd;
use crate::os::fork;
use crate::os::per_process::PerProcess;
use crate::os::timer::Timer;
use crate::os::unmap;

/// What to do when a process has died. Runs on the supervisor's thread, so it must be short.
pub(crate) type OnDeath = Box<dyn FnOnce() + Send>;

/// Tells whether somebody still lives. Runs on the supervisor's thread, so it must be short.
pub(crate) type Question = Arc<dyn Fn() -> bool + Send + Sync>;

/// How often a process without a pidfd is asked after.
const ASK_EVERY_NS: u64 = 40_000_000;
/// How often what [`ask_slowly`] is for is asked: 1000 such questions of 1 µs each cost less than 0.1 % of
/// one CPU.
const ASK_SLOWLY_EVERY_NS: u64 = 2_000_000_000;
/// The timer's token; watches begin with 1.
const TIMER: u64 = 0;
/// The token of mappings that wait to be unmapped.
const UNMAP: u64 = u64::MAX;

/// Keeps a watch alive: dropping it ends the watch and closes its descriptor.
///
/// Dropping does not wait: what was registered may be running at that moment on the supervisor's
/// thread.
#[derive(Debug)]
#[must_use = "a watch ends when its token is dropped"]
pub(crate) struct WatchToken {
    supervisor: Arc<Supervisor>,
    id: u64,
}

impl Drop for WatchToken {
    fn drop(&mut self) {
        // In a forked child the epoll instance still is the parent's.
        if fork::is_current(self.supervisor.generation) {
            drop(self.supervisor.take(self.id));
        }
    }
}

/// Calls `on_death` once the process behind `pidfd` has died; at once where it is dead already.
///
/// # Errors
/// The thread could not be started, or descriptors have run out. Nothing is kept.
pub(crate) fn watch(pidfd: OwnedFd, on_death: OnDeath) -> io::Result<WatchToken> {
    let supervisor = Supervisor::of_this_process()?;
    let id = supervisor.add(pidfd, on_death)?;
    Ok(WatchToken { supervisor, id })
}

/// Sees to it that this process has a supervisor, so that [`ask`] cannot fail.
///
/// # Errors
/// The thread could not be started, or descriptors have run out.
pub(crate) fn start() -> io::Result<()> {
    Supervisor::of_this_process().map(drop)
}

/// Calls `on_death` once `lives` says no.
///
/// # Errors
/// As [`start`].
pub(crate) fn ask(lives: Question, on_death: OnDeath) -> io::Result<WatchToken> {
    let supervisor = Supervisor::of_this_process()?;
    let id = supervisor.add_question(lives, ASK_EVERY_NS, on_death);
    Ok(WatchToken { supervisor, id })
}

/// Calls `on_no` once `question` says no. Asks every two seconds.
///
/// # Errors
/// As [`start`].
pub(crate) fn ask_slowly(question: Question, on_no: OnDeath) -> io::Result<WatchToken> {
    let supervisor = Supervisor::of_this_process()?;
    let id = supervisor.add_question(question, ASK_SLOWLY_EVERY_NS, on_no);
    Ok(WatchToken { supervisor, id })
}

/// The supervisor of this process, once there is one.
static CURRENT: PerProcess<Option<Arc<Supervisor>>> = PerProcess::new();

#[derive(Debug)]
struct Supervisor {
    epoll: Epoll,
    timer: Timer,
    /// Readable when mappings wait to be unmapped.
    unmap: EventFd,
    /// The fork generation that its thread runs in.
    generation: u64,
    watches: Mutex<Watches>,
}

#[derive(Debug, Default)]
struct Watches {
    last_id: u64,
    /// How many of them ask often, and how many slowly.
    questions: usize,
    slow_questions: usize,
    /// When the slow ones are due.
    slow_due_ns: u64,
    by_id: HashMap<u64, Watch>,
}

struct Watch {
    means: Means,
    on_death: OnDeath,
}

/// How a death is learnt of.
enum Means {
    PidFd(OwnedFd),
    Asking(Question),
    AskingSlowly(Question),
}

impl Watches {
    /// Until the timer is to ring; 0 where nobody asks.
    fn pause_ns(&self) -> u64 {
        match (self.questions, self.slow_questions) {
            (0, 0) => 0,
            (0, _) => ASK_SLOWLY_EVERY_NS,
            _ => ASK_EVERY_NS,
        }
    }

    /// How many questions there are of the kind of this one; `None` where it asks nothing.
    fn count_of(&mut self, means: &Means) -> Option<&mut usize> {
        match means {
            Means::PidFd(_) => None,
            Means::Asking(_) => Some(&mut self.questions),
            Means::AskingSlowly(_) => Some(&mut self.slow_questions),
        }
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").finish_non_exhaustive()
    }
}

/// No code under these locks leaves anything half done, so a panic elsewhere means nothing here.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Supervisor {
    fn of_this_process() -> io::Result<Arc<Self>> {
        let generation = fork::generation()?;
        let mut current = CURRENT.lock();
        if let Some(supervisor) = &*current {
            return Ok(Arc::clone(supervisor));
        }
        let (epoll, timer) = (Epoll::new()?, Timer::new()?);
        epoll.add(timer.as_fd(), TIMER)?;
        let unmap = EventFd::new()?;
        epoll.add(unmap.descriptor().as_fd(), UNMAP)?;
        let watches = Mutex::default();
        let supervisor = Arc::new(Self { epoll, timer, unmap, generation, watches });
        let running = Arc::clone(&supervisor);
        thread::Builder::new().name("ringway-supervisor".into()).spawn(move || running.run())?;
        unmap::serve(generation, supervisor.unmap.clone());
        Ok(Arc::clone(current.insert(supervisor)))
    }

    fn add(&self, pidfd: OwnedFd, on_death: OnDeath) -> io::Result<u64> {
        let mut watches = lock(&self.watches);
        watches.last_id += 1;
        let id = watches.last_id;
        // Under the lock, so that a process that is dead already is not looked up before it is in
        // the table.
        self.epoll.add(pidfd.as_fd(), id)?;
        watches.by_id.insert(id, Watch { means: Means::PidFd(pidfd), on_death });
        Ok(id)
    }

    fn add_question(&self, lives: Question, every_ns: u64, on_death: OnDeath) -> u64 {
        let mut watches = lock(&self.watches);
        watches.last_id += 1;
        let id = watches.last_id;
        let before_ns = watches.pause_ns();
        let means = match every_ns {
            ASK_EVERY_NS => Means::Asking(lives),
            _ => Means::AskingSlowly(lives),
        };
        if let Some(count) = watches.count_of(&means) {
            *count += 1;
        }
        watches.by_id.insert(id, Watch { means, on_death });
        let pause_ns = watches.pause_ns();
        if pause_ns != before_ns {
            // Setting a timer that is open cannot fail.
            let _ = self.timer.set(pause_ns);
        }
        id
    }

    /// Asks all questions. Returns the watches that are over.
    fn ask_all(&self) -> Vec<u64> {
        let questions: Vec<_> = {
            let mut watches = lock(&self.watches);
            let now_ns = monotonic_ns();
            let slow_too = now_ns >= watches.slow_due_ns;
            if slow_too {
                watches.slow_due_ns = now_ns.saturating_add(ASK_SLOWLY_EVERY_NS);
            }
            let asking = watches.by_id.iter().filter_map(|(id, watch)| match &watch.means {
                Means::Asking(lives) => Some((*id, Arc::clone(lives))),
                Means::AskingSlowly(lives) if slow_too => Some((*id, Arc::clone(lives))),
                Means::AskingSlowly(_) | Means::PidFd(_) => None,
            });
            asking.collect()
        };
        let over = questions.into_iter().filter(|(_, lives)| !lives()).map(|(id, _)| id).collect();
        let watches = lock(&self.watches);
        // Neither fails: both descriptors are open, and the timer was added.
        let _ = self.timer.set(watches.pause_ns());
        let _ = self.epoll.add_again(self.timer.as_fd(), TIMER);
        over
    }

    /// Ends a watch, if it has not ended.
    fn take(&self, id: u64) -> Option<Watch> {
        let watch = {
            let mut watches = lock(&self.watches);
            let watch = watches.by_id.remove(&id)?;
            if let Some(count) = watches.count_of(&watch.means) {
                *count -= 1;
            }
            watch
        };
        let Means::PidFd(pidfd) = &watch.means else { return Some(watch) };
        // A copy of the descriptor may be open in a child that is just being started, so closing
        // ours would not be enough. Failing is impossible: it was added and is open.
        let _ = self.epoll.remove(pidfd.as_fd());
        Some(watch)
    }

    fn run(&self) {
        let mut tokens = Vec::new();
        // Waiting on an epoll instance that is open cannot fail but by a signal.
        while self.epoll.wait(&mut tokens).is_ok() {
            if let Some(at) = tokens.iter().position(|token| *token == TIMER) {
                tokens.swap_remove(at);
                tokens.extend(self.ask_all());
            }
            let unmaps = tokens.iter().position(|token| *token == UNMAP);
            if let Some(at) = unmaps {
                tokens.swap_remove(at);
            }
            for &id in &tokens {
                if let Some(Watch { means, on_death }) = self.take(id) {
                    // First, so that nothing is held any more once the death has been told.
                    drop(means);
                    on_death();
                }
            }
            // Behind the deaths, which are urgent.
            if unmaps.is_some() {
                // Does not fail: the descriptor is open, and was added.
                let _ = self.epoll.add_again(self.unmap.descriptor().as_fd(), UNMAP);
                unmap::unmap_all(&self.unmap);
            }
        }
    }
}

#[cfg(test)]
#[allow(unsafe_code)]
mod tests {
    use super::*;
    use crate::os::pidfd::PidFd;
    use std::process::{Child, Command, Stdio};
    use std::sync::mpsc;
    use std::time::Duration;

    /// Long enough for any machine; reached only when the test has failed.
    const NEVER: Duration = Duration::from_secs(30);

    /// A process that lives until it is killed or dropped.
    struct Victim(Child);

    impl Victim {
        fn start() -> Self {
            Self(Command::new("cat").stdin(Stdio::piped()).spawn().unwrap())
        }

        fn pidfd(&self) -> OwnedFd {
            PidFd::open(self.0.id()).unwrap().as_fd().try_clone_to_owned().unwrap()
        }

        fn kill(&mut self) {
            self.0.kill().unwrap();
            self.0.wait().unwrap();
        }
    }

    impl Drop for Victim {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    #[test]
    fn a_death_is_told_once() {
        let mut victim = Victim::start();
        let (told, deaths) = mpsc::channel();
        let token = watch(victim.pidfd(), Box::new(move || told.send(()).unwrap())).unwrap();
        assert_eq!(deaths.try_recv(), Err(mpsc::TryRecvError::Empty));
        victim.kill();
        assert_eq!(deaths.recv_timeout(NEVER), Ok(()));
        assert_eq!(deaths.recv_timeout(NEVER), Err(mpsc::RecvTimeoutError::Disconnected));
        drop(token);
    }

    #[test]
    fn a_process_that_is_dead_already_is_told_too() {
        let mut victim = Victim::start();
        let pidfd = victim.pidfd();
        victim.kill();
        let (told, deaths) = mpsc::channel();
        let _token = watch(pidfd, Box::new(move || told.send(()).unwrap())).unwrap();
        assert_eq!(deaths.recv_timeout(NEVER), Ok(()));
    }

    #[test]
    fn a_dropped_token_ends_its_watch_alone() {
        let mut victim = Victim::start();
        let (told, deaths) = mpsc::channel();
        let told_too = told.clone();
        let first = watch(victim.pidfd(), Box::new(move || told.send(1).unwrap())).unwrap();
        let _second = watch(victim.pidfd(), Box::new(move || told_too.send(2).unwrap())).unwrap();
        let (supervisor, id) = (Arc::clone(&first.supervisor), first.id);
        assert!(lock(&supervisor.watches).by_id.contains_key(&id));
        drop(first);
        assert!(!lock(&supervisor.watches).by_id.contains_key(&id));
        victim.kill();
        assert_eq!(deaths.recv_timeout(NEVER), Ok(2));
        assert_eq!(deaths.recv_timeout(NEVER), Err(mpsc::RecvTimeoutError::Disconnected));
    }

    #[test]
    fn who_has_no_pidfd_is_asked_after() {
        let alive = Arc::new(std::sync::Mutex::new(true));
        let question = || {
            let alive = Arc::clone(&alive);
            Arc::new(move || *alive.lock().unwrap())
        };
        let (told, deaths) = mpsc::channel();
        let told_too = told.clone();
        let first = ask(question(), Box::new(move || told.send(1).unwrap())).unwrap();
        let second = ask(question(), Box::new(move || told_too.send(2).unwrap())).unwrap();
        drop(first);
        *alive.lock().unwrap() = false;
        assert_eq!(deaths.recv_timeout(NEVER), Ok(2));
        assert_eq!(deaths.recv_timeout(NEVER), Err(mpsc::RecvTimeoutError::Disconnected));
        drop(second);
        // Once more, after there was nobody to ask after.
        let (told, deaths) = mpsc::channel();
        let third = ask(question(), Box::new(move || told.send(3).unwrap())).unwrap();
        assert_eq!(deaths.recv_timeout(NEVER), Ok(3));
        drop(third);
    }

    #[test]
    fn a_forked_child_cannot_end_its_parents_watches() {
        let mut victim = Victim::start();
        let (told, deaths) = mpsc::channel();
        let token = watch(victim.pidfd(), Box::new(move || told.send(()).unwrap())).unwrap();
        // SAFETY: the child drops a token, which looks at one word, and exits.
        let child = unsafe { libc::fork() };
        if child == 0 {
            drop(token);
            // SAFETY: the call takes a number and does not return.
            unsafe { libc::_exit(0) };
        }
        // SAFETY: a child of ours; a null status is allowed.
        assert_eq!(unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) }, child);
        victim.kill();
        assert_eq!(deaths.recv_timeout(NEVER), Ok(()));
    }
}
