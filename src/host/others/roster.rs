//! All plugins of a host: their names, where they are, and how they got there.
//!
//! Whoever changes a plugin's phase notes it here, under the lock that guards the phase; the service thread reads it. What
//! always holds: changes have numbers that grow, over all plugins; whoever says which one he saw last is told the next
//! one of a plugin, or that too many have come since; the lock is held for a moment, and no other is taken under it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use super::acting::{Outcome, Permission};
use crate::host::handle::PluginState;
use crate::host::service::Bell;
use crate::host::supervised::{Life, Phase, Supervised};

/// How many changes of each plugin can still be told.
pub(super) const KEPT_CHANGES: usize = 64;

/// How many plugins that have ended stay on the list.
const KEPT_ENDED: usize = 256;

/// See the module.
#[derive(Debug, Default)]
pub(in crate::host) struct Roster {
    state: Mutex<State>,
    /// Rung when the service thread has something to look at; not before there is one.
    bell: OnceLock<Bell>,
}

#[derive(Debug, Default)]
struct State {
    records: BTreeMap<String, Record>,
    /// Number of the last change of all.
    last: u64,
    /// What has come of actions, and was not answered yet.
    outcomes: Vec<Outcome>,
}

#[derive(Debug)]
struct Record {
    plugin: Weak<Supervised>,
    may: Permission,
    changes: VecDeque<Change>,
    /// No change up to this number can be told any more.
    forgotten: u64,
}

/// A plugin has got somewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) number: u64,
    pub(super) state: PluginState,
    pub(super) incarnation: u32,
    /// Whether there were others between this one and the one that was seen last.
    pub(super) missed: bool,
}

/// What there is to tell somebody who has seen some changes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum News {
    Next(Change),
    Nothing,
    Unknown,
}

impl Roster {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the service thread told of everything from now on.
    pub(in crate::host) fn connect(&self, bell: Bell) {
        let _ = self.bell.set(bell);
    }

    fn ring(&self) {
        if let Some(bell) = self.bell.get() {
            bell.ring();
        }
    }

    /// A plugin is about to be started for the first time.
    pub(in crate::host) fn enlist(&self, plugin: &Arc<Supervised>, may: Permission) {
        self.enlist_weak(&plugin.name, Arc::downgrade(plugin), may);
    }

    pub(super) fn enlist_weak(&self, name: &str, plugin: Weak<Supervised>, may: Permission) {
        self.state().enlist(name, plugin, may);
        self.ring();
    }

    /// A plugin has got to another phase. `life` is its own, and locked.
    pub(in crate::host) fn note(&self, name: &str, life: &Life) {
        let state = match life.phase {
            Phase::Starting => PluginState::Starting,
            Phase::Running => PluginState::Running,
            Phase::Restarting(reason) => PluginState::Restarting { reason },
            Phase::Ended(reason) => PluginState::Ended { reason },
        };
        self.state().note(name, state, life.incarnation);
        self.ring();
    }

    /// Something has come of an action.
    pub(super) fn finish(&self, outcome: Outcome) {
        self.state().outcomes.push(outcome);
        self.ring();
    }

    pub(super) fn take_outcomes(&self) -> Vec<Outcome> {
        std::mem::take(&mut self.state().outcomes)
    }

    /// Number of the last change of all.
    pub(super) fn last(&self) -> u64 {
        self.state().last
    }

    /// Where a plugin is now.
    pub(super) fn now(&self, name: &str) -> Option<Change> {
        self.state().records.get(name).map(Record::last)
    }

    /// The next change of a plugin behind the one with this number.
    pub(super) fn after(&self, name: &str, seen: u64) -> News {
        self.state().records.get(name).map_or(News::Unknown, |record| record.after(seen))
    }

    /// The names behind this one, in their order, and where the plugins are, as long as `take` wants more.
    pub(super) fn list(&self, behind: &str, mut take: impl FnMut(&str, Change) -> bool) {
        use std::ops::Bound::{Excluded, Unbounded};
        let state = self.state();
        for (name, record) in state.records.range::<str, _>((Excluded(behind), Unbounded)) {
            if !take(name, record.last()) {
                return;
            }
        }
    }

    /// A plugin: `None` where the name is unknown; nothing behind it where it is gone altogether.
    pub(super) fn find(&self, name: &str) -> Option<Weak<Supervised>> {
        self.state().records.get(name).map(|record| Weak::clone(&record.plugin))
    }

    /// What a plugin may do to others.
    pub(super) fn permission_of(&self, name: &str) -> Permission {
        self.state().records.get(name).map(|record| record.may.clone()).unwrap_or_default()
    }
}

impl State {
    fn enlist(&mut self, name: &str, plugin: Weak<Supervised>, may: Permission) {
        self.forget_some();
        let forgotten = self.last;
        match self.records.get_mut(name) {
            // The next one of this name: whoever watches the name goes on.
            Some(record) => (record.plugin, record.may) = (plugin, may),
            None => {
                let changes = VecDeque::new();
                self.records.insert(name.into(), Record { plugin, may, changes, forgotten });
            }
        }
        self.note(name, PluginState::Starting, 0);
    }

    fn note(&mut self, name: &str, state: PluginState, incarnation: u32) {
        let Some(record) = self.records.get_mut(name) else { return };
        self.last += 1;
        record.changes.push_back(Change { number: self.last, state, incarnation, missed: false });
        if record.changes.len() > KEPT_CHANGES
            && let Some(oldest) = record.changes.pop_front()
        {
            record.forgotten = oldest.number;
        }
    }

    /// Forgets who ended first, where too many have.
    fn forget_some(&mut self) {
        let ended = |record: &Record| matches!(record.last().state, PluginState::Ended { .. });
        let mut numbers: Vec<_> = self
            .records
            .values()
            .filter(|record| ended(record))
            .map(|record| record.last().number)
            .collect();
        if numbers.len() > KEPT_ENDED {
            numbers.sort_unstable();
            let last = numbers[numbers.len() - KEPT_ENDED - 1];
            self.records.retain(|_, record| !ended(record) || record.last().number > last);
        }
    }
}

impl Record {
    /// A record has at least the change that it was made with.
    fn last(&self) -> Change {
        let nowhere =
            Change { number: 0, state: PluginState::Starting, incarnation: 0, missed: false };
        self.changes.back().copied().unwrap_or(nowhere)
    }

    fn after(&self, seen: u64) -> News {
        let next = self.changes.partition_point(|change| change.number <= seen);
        match self.changes.get(next) {
            Some(change) => News::Next(Change { missed: seen < self.forgotten, ..*change }),
            None => News::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ExitReason;

    fn state_with(names: &[&str]) -> State {
        let mut state = State::default();
        for name in names {
            state.enlist(name, Weak::new(), Permission::default());
        }
        state
    }

    const ENDED: PluginState = PluginState::Ended { reason: ExitReason::Code(0) };

    #[test]
    fn changes_are_told_one_by_one_and_in_order() {
        let mut state = state_with(&["a", "b"]);
        state.note("a", PluginState::Running, 1);
        state.note("b", PluginState::Running, 1);
        state.note("a", ENDED, 1);
        state.note("nobody", ENDED, 1);
        let next = |seen| match state.records["a"].after(seen) {
            News::Next(change) => (change.number, change.state, change.missed),
            other => panic!("{other:?}"),
        };
        assert_eq!(next(0), (1, PluginState::Starting, false));
        assert_eq!(next(1), (3, PluginState::Running, false));
        assert_eq!(next(2), (3, PluginState::Running, false));
        assert_eq!(next(3), (5, ENDED, false));
        assert_eq!(state.records["a"].after(5), News::Nothing);
    }

    #[test]
    fn what_is_forgotten_is_said_to_be() {
        let mut state = state_with(&["a"]);
        for incarnation in 1..=KEPT_CHANGES as u32 {
            state.note("a", PluginState::Running, incarnation);
        }
        let missed = |state: &State, seen| match state.records["a"].after(seen) {
            News::Next(change) => (change.number, change.missed),
            other => panic!("{other:?}"),
        };
        // The first one of 65 is gone.
        assert_eq!(missed(&state, 0), (2, true));
        assert_eq!(missed(&state, 1), (2, false));
        // And all of them where the name was forgotten in between.
        state.records.clear();
        state.enlist("a", Weak::new(), Permission::default());
        assert_eq!(missed(&state, 60), (66, true));
        assert_eq!(missed(&state, 65), (66, false));
    }

    #[test]
    fn the_ended_are_forgotten_in_the_order_of_their_ends() {
        let mut state = state_with(&["runs"]);
        for number in 0..KEPT_ENDED + 10 {
            let name = format!("{number}");
            state.enlist(&name, Weak::new(), Permission::default());
            state.note(&name, ENDED, 1);
        }
        state.enlist("new", Weak::new(), Permission::default());
        assert_eq!(state.records.len(), KEPT_ENDED + 2);
        assert!(state.records.contains_key("runs") && state.records.contains_key("10"));
        assert!(!state.records.contains_key("9"));
    }
}
