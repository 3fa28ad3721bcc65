//! A lock for stores in the memory of one process: tests, fuzzing, models of crashes.
//!
//! Over [`HeapMemory`](crate::memory::HeapMemory) and [`CrashMemory`](crate::memory::CrashMemory) it is what the robust
//! mutex is over mapped memory.
//! What always holds: one thread has it at a time; a death is told to whoever gets it next.

use std::sync::Arc;
#[cfg(not(loom))]
use std::thread::{self, ThreadId};

#[cfg(loom)]
use loom::thread::{self, ThreadId};

use super::lock::{Acquired, Lock, LockRefusal};
use crate::memory::Deadline;
use crate::sync::{Condvar, Mutex, MutexGuard};

/// See the module. Clones are the same lock. It has no clock: a deadline that can come has come.
#[derive(Debug, Clone, Default)]
pub struct LocalLock {
    inner: Arc<(Mutex<Holder>, Condvar)>,
}

#[derive(Debug, Default)]
struct Holder {
    thread: Option<ThreadId>,
    died: bool,
}

impl LocalLock {
    /// A lock that nobody has.
    pub fn new() -> Self {
        Self::default()
    }

    /// Its holder dies: whoever gets it next hears of it.
    pub fn die(&self) {
        *self.holder() = Holder { thread: None, died: true };
        self.inner.1.notify_one();
    }

    fn holder(&self) -> MutexGuard<'_, Holder> {
        self.inner.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Lock for LocalLock {
    fn acquire(&self, deadline: Deadline) -> Result<Acquired, LockRefusal> {
        let this = thread::current().id();
        let mut holder = self.holder();
        loop {
            match holder.thread {
                None => break,
                Some(thread) if thread == this => return Err(LockRefusal::Nested),
                Some(_) if deadline != Deadline::NEVER => return Err(LockRefusal::Deadline),
                Some(_) => {
                    let woken = self.inner.1.wait(holder);
                    holder = woken.unwrap_or_else(|poisoned| poisoned.into_inner());
                }
            }
        }
        holder.thread = Some(this);
        let died = std::mem::take(&mut holder.died);
        Ok(if died { Acquired::OwnerDied } else { Acquired::Clean })
    }

    fn release(&self) {
        let mut holder = self.holder();
        if holder.thread == Some(thread::current().id()) {
            holder.thread = None;
            self.inner.1.notify_one();
        }
    }
}
