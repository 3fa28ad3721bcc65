//! Sleeping on events of the `raw_sync` crate, where there is no futex.
//!
//! [`MappedMemory`](super::MappedMemory) of a channel that was made with events calls it when
//! somebody waits on a word or wakes.
//! What always holds: an event belongs to one waiting word, on which one thread sleeps; a wait ends
//! by itself, and a wakeup that is lost or spurious costs its sleeper time only.
//!
//! An event is a pthread mutex and a condition variable in shared memory. Whoever can write them can
//! make every process that uses them write anywhere: only `unsafe` calls lead here.

#![allow(unsafe_code)]

use std::error::Error;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use raw_sync::Timeout;
use raw_sync::events::{Event, EventImpl, EventInit, EventState};

use super::Deadline;
use crate::error::SegmentError;
use crate::layout::ring;
use crate::os::clock::monotonic_ns;
use crate::os::mapping::Mapping;
use crate::sync::{AtomicU32, Ordering};

/// The longest that one wait lasts, as for any sleeper (`wakeup::MAX_SLEEP_NS`).
const MAX_WAIT_NS: u64 = 250_000_000;
/// How long to sleep on a word that has no event: a side's state.
const POLL_NS: u64 = 1_000_000;
/// How far from the next full second of its clock a wait ends, where there is room.
const MARGIN_NS: u64 = 1_000_000;
const SECOND_NS: u64 = 1_000_000_000;

/// Words that have events, and where.
const PLACES: [(u64, u64); 4] = [
    (ring::CONTROL[0] + ring::CONSUMER_WAITING, ring::CONTROL[0] + ring::CONSUMER_EVENT),
    (ring::CONTROL[0] + ring::PRODUCER_WAITING, ring::CONTROL[0] + ring::PRODUCER_EVENT),
    (ring::CONTROL[1] + ring::CONSUMER_WAITING, ring::CONTROL[1] + ring::CONSUMER_EVENT),
    (ring::CONTROL[1] + ring::PRODUCER_WAITING, ring::CONTROL[1] + ring::PRODUCER_EVENT),
];

const _: () = assert!(
    size_of::<libc::pthread_mutex_t>() + size_of::<libc::pthread_cond_t>() + 8
        <= ring::EVENT_BYTES as usize
);

type Made = Result<(Box<dyn EventImpl>, usize), Box<dyn Error>>;

/// The events of a channel's segment.
pub(super) struct Events {
    objects: [Box<dyn EventImpl>; 4],
    /// What the objects point into.
    _mapping: Arc<Mapping>,
}

// SAFETY: the objects are pointers into the mapping that this keeps; the pthread objects that they
// point to may be used by any thread.
unsafe impl Send for Events {}
// SAFETY: as above; the crate reads and writes what lies beside them under their mutex only.
unsafe impl Sync for Events {}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").finish_non_exhaustive()
    }
}

impl Events {
    /// Initialises the events of a new segment.
    ///
    /// # Safety
    /// - The mapping is writable and that of a channel's segment, which nobody else has yet.
    /// - Every process that can write it, now and later, follows the protocol.
    pub(super) unsafe fn create(mapping: &Arc<Mapping>) -> Result<Self, SegmentError> {
        // SAFETY: `over` hands out places for events, which nobody else uses yet.
        Self::over(mapping, |place| unsafe { Event::new(place, true) })
    }

    /// Finds the events of a segment that somebody has created.
    ///
    /// # Safety
    /// - The mapping is writable and that of a channel's segment, whose creator called
    ///   [`create`](Self::create) with the same C library.
    /// - Every process that can write it, now and later, follows the protocol.
    pub(super) unsafe fn open(mapping: &Arc<Mapping>) -> Result<Self, SegmentError> {
        // SAFETY: `over` hands out the places at which `create` has initialised events.
        Self::over(mapping, |place| unsafe { Event::from_existing(place) })
    }

    fn over(mapping: &Arc<Mapping>, make: impl Fn(*mut u8) -> Made) -> Result<Self, SegmentError> {
        let mut objects = Vec::with_capacity(PLACES.len());
        for (_, place) in PLACES {
            assert!(place + ring::EVENT_BYTES <= mapping.len_bytes(), "not a channel's segment");
            // SAFETY: just checked to lie inside the mapping.
            let place = unsafe { mapping.base().add(place as usize) }.as_ptr();
            let needed = Event::size_of(Some(place));
            assert!(needed <= ring::EVENT_BYTES as usize, "an event takes {needed} bytes");
            let (object, used) = make(place).map_err(refused)?;
            assert!(used <= ring::EVENT_BYTES as usize, "an event has taken {used} bytes");
            objects.push(object);
        }
        let objects = objects.try_into().unwrap_or_else(|_| unreachable!("one for each place"));
        Ok(Self { objects, _mapping: Arc::clone(mapping) })
    }

    fn of(&self, word: u64) -> Option<&dyn EventImpl> {
        let index = PLACES.iter().position(|(waiting, _)| *waiting == word)?;
        Some(self.objects[index].as_ref())
    }

    /// Sleeps while the word at `offset` is `expected`, until it is woken or the deadline passes, and
    /// no longer than 250 ms.
    pub(super) fn wait(&self, word: &AtomicU32, offset: u64, expected: u32, deadline: Deadline) {
        let started_ns = monotonic_ns();
        let until = deadline.min(Deadline::at_ns(started_ns.saturating_add(MAX_WAIT_NS)));
        let event = self.of(offset);
        // Relaxed: a hint; whoever waits looks at what it waits for itself.
        while word.load(Ordering::Relaxed) == expected {
            let left_ns = until.as_ns().saturating_sub(monotonic_ns());
            if left_ns == 0 {
                return;
            }
            let Some(event) = event else {
                return thread::sleep(Duration::from_nanos(left_ns.min(POLL_NS)));
            };
            let slice = slice_ns(left_ns, subsecond_ns());
            // An error is the end of the slice, mostly; the loop finds out.
            if event.wait(Timeout::Val(Duration::from_nanos(slice))).is_ok() {
                return;
            }
        }
    }

    /// Wakes whoever sleeps on the word; where it has no event, he looks by himself.
    pub(super) fn wake(&self, offset: u64) {
        if let Some(event) = self.of(offset) {
            // What fails costs the sleeper the rest of its slice.
            let _ = event.set(EventState::Signaled);
        }
    }
}

/// How long to wait at once, of what is left: the crate adds it to the time of day without carrying
/// from nanoseconds to seconds, and what it then asks for is an error that returns at once.
fn slice_ns(left_ns: u64, subsecond_ns: u64) -> u64 {
    let room_ns = SECOND_NS - subsecond_ns.min(SECOND_NS - 1);
    // Time goes on between our look at the clock and the crate's.
    left_ns.min(room_ns - MARGIN_NS.min(room_ns / 2))
}

/// Nanoseconds since the last full second of the clock that the crate counts on.
fn subsecond_ns() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.subsec_nanos().into()
}

fn refused(error: Box<dyn Error>) -> SegmentError {
    SegmentError::Os { call: "raw_sync event", source: io::Error::other(error.to_string()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::{CHANNEL_DATA, side};
    use crate::os::memfd;

    fn mapping() -> Arc<Mapping> {
        let file = memfd::create(CHANNEL_DATA).unwrap();
        Arc::new(Mapping::read_write(&file, CHANNEL_DATA).unwrap())
    }

    #[test]
    fn a_slice_never_carries_and_always_gets_on() {
        assert_eq!(MAX_WAIT_NS, crate::wakeup::MAX_SLEEP_NS);
        let near = (0..2000).chain(SECOND_NS - 2_000_000..SECOND_NS).step_by(7);
        for subsecond in near.chain((0..SECOND_NS).step_by(999_983)) {
            for left in [1, 1000, 20_000_000, MAX_WAIT_NS, 400_000_000, u64::MAX] {
                let slice = slice_ns(left, subsecond);
                assert!(slice > 0 && slice <= left, "{left} at {subsecond}: {slice}");
                // In the last nanosecond nothing else is left, and waiting is over at once.
                assert!(subsecond + slice < SECOND_NS || subsecond == SECOND_NS - 1);
            }
        }
        assert_eq!(slice_ns(MAX_WAIT_NS, 0), MAX_WAIT_NS, "not cut where it need not be");
    }

    /// As long as was asked for, whenever in a second it begins.
    #[test]
    fn a_wait_lasts_until_its_deadline() {
        // SAFETY: a mapping of this test's own.
        let events = unsafe { Events::create(&mapping()) }.unwrap();
        let word = AtomicU32::new(1);
        for _ in 0..12 {
            let until = monotonic_ns() + 130_000_000;
            events.wait(&word, PLACES[0].0, 1, Deadline::at_ns(until));
            assert!(monotonic_ns() >= until);
        }
    }

    #[test]
    fn a_wakeup_is_kept_for_one_wait_and_only_on_its_word() {
        let mapping = mapping();
        // SAFETY: a mapping of this test's own.
        let ours = unsafe { Events::create(&mapping) }.unwrap();
        // SAFETY: as above, and just created.
        let theirs = unsafe { Events::open(&mapping) }.unwrap();
        let word = AtomicU32::new(1);
        let lasts = |place: usize| {
            let until = monotonic_ns() + 20_000_000;
            ours.wait(&word, PLACES[place].0, 1, Deadline::at_ns(until));
            monotonic_ns() >= until
        };
        theirs.wake(PLACES[2].0);
        theirs.wake(side::LINE[0]);
        assert!(lasts(0) && lasts(1) && lasts(3));
        let started = monotonic_ns();
        ours.wait(&word, PLACES[2].0, 1, Deadline::NEVER);
        let early = monotonic_ns() - started < MAX_WAIT_NS;
        assert!(lasts(2), "the wakeup was used up");
        assert!(early, "the wakeup was there");
        // Another value: no sleep at all, and no wakeup used up.
        theirs.wake(PLACES[1].0);
        ours.wait(&word, PLACES[1].0, 0, Deadline::NEVER);
        assert!(!lasts(1));
    }
}
