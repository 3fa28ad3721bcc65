//! Putting receivers to sleep, and waking them.
//!
//! The selector calls it before and after its rounds.
//! Invariants: a slot is asleep only after it was announced, fenced and looked at, in that order, with
//! nothing found; whatever wakes it takes the announcement back.
//!
//! Where the barrier may have missed a processor (`wakeup`), the slots that it was for are looked at
//! once more after a millisecond. By then their announcements and their news are visible everywhere.

use std::mem;

use super::Selector;
use super::slot::{Sleep, Slot, State};
use super::watch::{POLL_NS, Word};
use crate::memory::{Barriers, Deadline, MappedMemory, Memory};
use crate::os::clock::monotonic_ns;
use crate::wakeup::MAX_SLEEP_NS;

/// Sleepers that are glanced at in every slice of time; of more than eight times as many, an eighth
/// is. A glance costs several lines that are in no cache any more.
const GLANCES: usize = 128;
/// After how long slots are looked at again whose announcement may not have been seen.
const SECOND_LOOK_NS: u64 = 1_000_000;

impl Selector {
    /// Wakes the slots whose words were woken, those that are due, and those that have changed.
    pub(super) fn rouse(&mut self, now_ns: u64) {
        let mut woken = mem::take(&mut self.woken);
        self.watch.collect(&mut woken);
        for id in woken.drain(..) {
            let token = (id & u64::from(u32::MAX)) as usize;
            let sleep = self.slots.get(token).and_then(Option::as_ref).and_then(Slot::sleep);
            // Else it is of a wait that was given up.
            if sleep.is_some_and(|sleep| sleep.id == id) {
                self.wake(token);
            }
        }
        self.woken = woken;
        for index in (0..self.due.len()).rev() {
            let token = self.due[index];
            let sleep = self.slots[token].as_ref().and_then(Slot::sleep);
            if sleep.is_none_or(|sleep| sleep.due.as_ns() <= now_ns) {
                self.due.swap_remove(index);
                self.wake_early(token);
            }
        }
        if !self.unsure.is_empty() && now_ns >= self.unsure_at_ns {
            self.look_again();
        }
        if now_ns >= self.glance_at_ns {
            self.glance_at_ns = now_ns.saturating_add(MAX_SLEEP_NS);
            self.glance();
        }
    }

    /// The second look at slots whose announcement may not have been seen.
    fn look_again(&mut self) {
        while let Some(token) = self.unsure.pop() {
            let Some(slot) = &mut self.slots[token] else { continue };
            slot.is_unsure = false;
            if slot.sleep().is_some_and(|sleep| !slot.is_quiet(sleep.seen)) {
                slot.count_missed();
                self.wake_early(token);
            }
        }
    }

    /// A look at a part of the sleepers, whose peers may not keep to the protocol.
    fn glance(&mut self) {
        let len = self.slots.len();
        for _ in 0..len.min(GLANCES.max(len.div_ceil(8))) {
            let token = self.glance_from % len;
            self.glance_from = token + 1;
            if let Some(slot) = &self.slots[token]
                && slot.sleep().is_some_and(|sleep| !slot.is_quiet(sleep.seen))
            {
                self.wake_early(token);
            }
        }
    }

    /// Wakes a slot whose wait has not ended.
    pub(super) fn wake_early(&mut self, token: usize) {
        if let Some(sleep) = self.slots[token].as_ref().and_then(Slot::sleep) {
            self.watch.forget(sleep.id);
            self.wake(token);
        }
    }

    /// Wakes a slot whose wait has ended.
    fn wake(&mut self, token: usize) {
        let Some(slot) = &mut self.slots[token] else { return };
        slot.announce(false);
        slot.state = State::Awake;
        slot.idle_rounds = 0;
        self.awake.push_back(token);
    }

    /// Puts all slots to sleep, and sleeps with them if none has anything.
    pub(super) fn sleep(&mut self, deadline: Deadline, now_ns: u64) {
        self.choose_watch();
        self.put_to_sleep(0);
        if !self.awake.is_empty() {
            return;
        }
        let due = self.due.iter().filter_map(|token| self.slots[*token].as_ref()?.sleep());
        let slice = Deadline::at_ns(now_ns.saturating_add(MAX_SLEEP_NS));
        let mut until = due.map(|sleep| sleep.due).fold(deadline.min(slice), Deadline::min);
        if !self.unsure.is_empty() {
            until = until.min(Deadline::at_ns(self.unsure_at_ns));
        }
        self.watch.wait(until, &mut self.woken);
    }

    /// Announces all slots that have been idle for so many rounds, fences once for all, looks once
    /// more, and hands those that have nothing to the watch.
    pub(super) fn put_to_sleep(&mut self, idle_rounds: u32) {
        let mut drowsy = mem::take(&mut self.drowsy);
        for _ in 0..self.awake.len() {
            let Some(token) = self.awake.pop_front() else { break };
            let Some(slot) = &self.slots[token] else { continue };
            if slot.idle_rounds < idle_rounds {
                self.awake.push_back(token);
                continue;
            }
            // As in `Waiter::park`: announce, fence, look, sleep.
            slot.announce(true);
            drowsy.push(token);
        }
        let may_miss = self.fence_for(&drowsy);
        for token in drowsy.drain(..) {
            let Some(slot) = &mut self.slots[token] else { continue };
            let Some((seen, due)) = slot.look() else {
                slot.announce(false);
                slot.idle_rounds = 0;
                self.awake.push_back(token);
                continue;
            };
            // Nobody will wake the word of a channel with events.
            let due = match slot.word().0.is_polled() {
                true => due.min(Deadline::at_ns(monotonic_ns().saturating_add(POLL_NS))),
                false => due,
            };
            slot.count_sleep();
            if may_miss && !mem::replace(&mut slot.is_unsure, true) {
                self.unsure.push(token);
            }
            let id = u64::from(self.waits) << 32 | token as u64;
            self.waits = self.waits.wrapping_add(1);
            slot.state = State::Asleep(Sleep { id, seen, due });
            let (memory, offset) = slot.word();
            self.watch.add(Word { id, memory: memory.clone(), offset });
            if due != Deadline::NEVER && !self.due.contains(&token) {
                self.due.push(token);
            }
        }
        self.drowsy = drowsy;
    }

    /// Fences behind the announcements of these slots. Whether a barrier may have missed a processor.
    fn fence_for(&mut self, tokens: &[usize]) -> bool {
        let slots = &self.slots;
        let memories = || tokens.iter().filter_map(|token| Some(slots[*token].as_ref()?.word().0));
        let Some(first) = memories().next() else { return false };
        memories().for_each(MappedMemory::see_to_fences);
        // As in `heavy_fence`, once for all of them.
        first.full_fence();
        let barriers =
            memories().map(MappedMemory::barriers).fold(Barriers::default(), Barriers::and);
        barriers.issue();
        if barriers.may_miss() {
            self.unsure_at_ns = monotonic_ns().saturating_add(SECOND_LOOK_NS);
        }
        barriers.may_miss()
    }

    /// Before a call returns: has everything waited for that is asleep, and where somebody has the
    /// descriptor, all that has nothing put to sleep.
    pub(super) fn leave(&mut self) {
        if !self.watch.is_lasting() {
            return;
        }
        if self.has_descriptor {
            self.put_to_sleep(0);
        }
        self.watch.flush(&mut self.woken);
        if self.has_descriptor {
            self.watch.signal(false);
            if !self.unsure.is_empty() {
                self.watch.signal_after(SECOND_LOOK_NS);
            }
            if !self.awake.is_empty() || !self.woken.is_empty() {
                self.watch.signal(true);
            }
        }
    }
}
