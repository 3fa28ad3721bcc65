//! Atomics, locks and spin hints, from `std` or, under `--cfg loom`, from loom.
//!
//! Everything in the crate that touches an atomic takes it from here, so that the shipping source
//! is what the models run; `tests/layers.rs` looks for others.
//! Memory that other processes map is not reached through these types directly but through
//! [`Memory`](crate::memory::Memory), whose implementations are built on them.

#[cfg(not(loom))]
pub(crate) use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, compiler_fence};

#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicU32, AtomicU64};
#[cfg(loom)]
pub(crate) use loom::sync::{Condvar, Mutex, MutexGuard};
#[cfg(not(loom))]
pub(crate) use std::sync::{Condvar, Mutex, MutexGuard};

pub use core::sync::atomic::Ordering;

/// A fence that orders everything, of the processor and not only of the compiler.
#[inline]
#[allow(clippy::disallowed_methods)]
pub(crate) fn full_fence() {
    #[cfg(not(loom))]
    core::sync::atomic::fence(Ordering::SeqCst);
    #[cfg(loom)]
    loom::sync::atomic::fence(Ordering::SeqCst);
}

/// Orders this thread's earlier accesses before its later stores. Pairs with [`acquire_fence`]
/// through any store behind it whose value a load before that one has seen.
#[inline]
#[allow(clippy::disallowed_methods)]
pub(crate) fn release_fence() {
    #[cfg(not(loom))]
    core::sync::atomic::fence(Ordering::Release);
    #[cfg(loom)]
    loom::sync::atomic::fence(Ordering::Release);
}

/// Orders this thread's earlier loads before its later accesses.
#[inline]
#[allow(clippy::disallowed_methods)]
pub(crate) fn acquire_fence() {
    #[cfg(not(loom))]
    core::sync::atomic::fence(Ordering::Acquire);
    #[cfg(loom)]
    loom::sync::atomic::fence(Ordering::Acquire);
}

/// Tells the processor that this thread is spinning.
#[cfg(not(loom))]
pub(crate) use core::hint::spin_loop;
