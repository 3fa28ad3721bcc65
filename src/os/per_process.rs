//! A process-wide value that a forked child does not share with its parent.
//!
//! The statics of the library lie in one. A thread of the parent may hold a lock when another one forks, and
//! the child has no thread that would release its copy. So a child gets a new lock, and a new value.
//! Invariants:
//! - An entry that was published is never freed, and its generation never changes.
//! - `lock` returns the entry of the calling process's fork generation.

use std::ptr::null_mut;
use std::sync::PoisonError;

use super::fork;
use crate::sync::{AtomicPtr, Mutex, MutexGuard, Ordering};

/// See the module.
#[derive(Debug)]
pub(crate) struct PerProcess<T: 'static> {
    /// Null until the first use, then the entry that was made last. A fork copies the pointer and the entry.
    current: AtomicPtr<Entry<T>>,
}

#[derive(Debug)]
struct Entry<T> {
    generation: u64,
    value: Mutex<T>,
}

impl<T: Default + Send> PerProcess<T> {
    pub(crate) const fn new() -> Self {
        Self { current: AtomicPtr::new(null_mut()) }
    }

    /// This process's value, made by the first call. A panic of another thread that held it counts for nothing: no code
    /// under these locks leaves a value half changed.
    pub(crate) fn lock(&self) -> MutexGuard<'static, T> {
        // Without a generation there is no memory for one page; then forks are not told apart.
        let generation = fork::generation().unwrap_or(0);
        // Pairs with the Release below: the entry is initialised.
        let mut found = self.current.load(Ordering::Acquire);
        loop {
            // SAFETY: null, or an entry that this function leaked and published; none is ever freed.
            let entry: Option<&'static Entry<T>> = unsafe { found.as_ref() };
            if let Some(entry) = entry.filter(|entry| entry.generation == generation) {
                return entry.value.lock().unwrap_or_else(PoisonError::into_inner);
            }
            let entry = Entry { generation, value: Mutex::new(T::default()) };
            let made = Box::into_raw(Box::new(entry));
            let published = (Ordering::AcqRel, Ordering::Acquire);
            found = match self.current.compare_exchange(found, made, published.0, published.1) {
                Ok(_) => made,
                Err(other) => {
                    // SAFETY: made by `into_raw` above, and not published.
                    drop(unsafe { Box::from_raw(made) });
                    other
                }
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::tests::child_says;

    #[test]
    fn f30_a_forked_child_waits_for_no_lock_of_its_parent() {
        static VALUE: PerProcess<u32> = PerProcess::new();
        *VALUE.lock() = 7;
        let held = VALUE.lock();
        assert!(child_says(|| *VALUE.lock() == 0));
        drop(held);
        assert_eq!(*VALUE.lock(), 7);
    }
}
