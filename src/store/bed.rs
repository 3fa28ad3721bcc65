//! Where the watches of a handle sleep: at a bell where they have announced themselves, or their host has done it
//! for them, or nobody has.
//!
//! [`Watch`](super::Watch) and its kin sleep in one. What always holds: nothing is written to a segment that is mapped
//! read-only; the host is asked only where no announcement of its stands; a host that does not answer costs a watch a short wait,
//! and then less and less often.

use std::time::Duration;

use super::StoreGeometry;
use super::error::{RemoteError, WriteError};
use super::remote::Asking;
use super::watch::{self, Bed};
use crate::memory::{Deadline, MappedMemory, Memory, Ordering};
use crate::os::futex::{self, MAX_WAIT_MANY, Woken};
use crate::sync::AtomicU32;

/// How long the host's answer is waited for: what changes meanwhile is told no earlier.
const PATIENCE: Duration = Duration::from_millis(50);

/// How long a host that did not answer, or has announced enough, is not asked again; at first, and at most.
const PAUSE_NS: [u64; 2] = [100_000_000, 8_000_000_000];

/// What one watch knows of what its host has announced for it.
#[derive(Debug, Default)]
pub(super) struct ByHost {
    /// The bell's generation before the last announcement.
    announced_at: Option<u32>,
    /// The host is not asked before then.
    not_before_ns: u64,
    /// How long it will not be asked where it refuses again.
    pause_ns: u64,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Place<'a> {
    pub(super) memory: MappedMemory,
    pub(super) geometry: &'a StoreGeometry,
    /// Whether the memory can be written.
    pub(super) announces: bool,
    /// Who announces, where it cannot.
    pub(super) host: Option<&'a Asking>,
    pub(super) by_host: &'a mut ByHost,
    /// What ends a sleep, besides the bell.
    pub(super) interrupted: Option<&'a AtomicU32>,
}

impl Bed for Place<'_> {
    fn most_bells(&self) -> usize {
        // One word is the interrupter's. The host announces one bell at a time.
        if self.announces { MAX_WAIT_MANY - 1 } else { 1 }
    }

    fn announce(&mut self, bell: u32, deadline: Deadline) -> bool {
        if self.announces {
            watch::announce(&self.memory, self.geometry, bell);
            return true;
        }
        let Self { memory, geometry, .. } = self;
        self.host
            .is_some_and(|host| self.by_host.announce(host, (memory, geometry), bell, deadline))
    }

    fn sleep(&mut self, words: &[(u64, u32)], deadline: Deadline) -> bool {
        let bells = words.iter().map(|(word, expected)| (self.memory.futex_word(*word), *expected));
        let all: Vec<_> =
            bells.chain(self.interrupted.map(|interrupted| (interrupted, 0))).collect();
        if all.len() > 1 && futex::wait_many(&all, deadline) != Woken::Unsupported {
            return true;
        }
        let &[(word, expected)] = words else { return false };
        // An interruption is seen when this sleep ends.
        self.memory.wait_u32(word, expected, deadline);
        true
    }
}

impl ByHost {
    fn announce(
        &mut self,
        host: &Asking,
        (memory, geometry): (&MappedMemory, &StoreGeometry),
        bell: u32,
        deadline: Deadline,
    ) -> bool {
        // Before the announcement, so that a bell that is rung in between counts as rung since. Pairs with the
        // Release in `doorbells::ring`.
        let generation = memory.load_u32(geometry.generation(memory, bell), Ordering::Acquire);
        // Not rung since the host has announced it, which it has fenced before it has answered. A writer that
        // is about to ring it has taken the announcement, and wakes behind the new generation.
        if self.announced_at == Some(generation) {
            return true;
        }
        let now_ns = memory.now_ns();
        let left = Duration::from_nanos(deadline.as_ns().saturating_sub(now_ns));
        if left.is_zero() || now_ns < self.not_before_ns {
            return false;
        }
        let announced = host.announce(bell, left.min(PATIENCE));
        if announced == Ok(true) {
            *self = Self { announced_at: Some(generation), ..Self::default() };
            return true;
        }
        let is_final = matches!(
            announced,
            Err(WriteError::Forked | WriteError::Remote(RemoteError::NotServed | RemoteError::Gone))
        );
        let [first, most] = PAUSE_NS;
        let pause_ns = if is_final { u64::MAX } else { self.pause_ns.max(first) };
        self.not_before_ns = memory.now_ns().saturating_add(pause_ns);
        self.pause_ns = pause_ns.saturating_mul(2).min(most);
        false
    }
}
