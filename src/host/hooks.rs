//! Calling the host program at the turning points of a plugin's life.
//!
//! [`HostBuilder::hook`](super::HostBuilder::hook) and [`PluginSpec::hook`](super::PluginSpec::hook)
//! set hooks; the threads that start, restart and end a plugin call them. What always holds: each
//! moment is told once, one at a time and in the order in which the plugin got there; no lock is
//! held meanwhile; a hook that panics stops nothing.
//!
//! # Turns
//!
//! Several threads have something to tell of one plugin: who spawned it, who restarts it, who ends
//! it. Each draws a number where it decides, under the lock that guards the plugin's state, and
//! calls the hooks when the number comes up, without any lock. A hook that itself acts on its plugin
//! is in the middle of its turn: what that leads to is told at once, inside it.

use std::collections::BTreeSet;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};

use super::event::HostEventKind;
use super::handle::PluginHandle;
use super::supervised::{Life, Supervised};
use crate::callback::text_of;
use crate::error::ExitReason;

/// A turning point in a plugin's life.
///
/// | moment | when | on which thread |
/// |---|---|---|
/// | `BeforeStart` | before the first start | that of `spawn` |
/// | `AfterStart` | it is ready; `spawn` is about to return | that of `spawn` |
/// | `BeforeRestart` | it has died and a successor is about to be started, or it is about to be told to make room for one | one of the plugin's |
/// | `AfterRestart` | the successor is ready | one of the plugin's |
/// | `BeforeShutdown` | it is about to be told to end for good; not where it ends by itself | that of `terminate`, `shutdown`, the host's `drop`, or one of the plugin's |
/// | `AfterShutdown` | it has ended for good, whatever the reason | one of the plugin's |
///
/// A first start that fails is an error of `spawn`, and has no `AfterStart` or `AfterShutdown`; a
/// restart may take several attempts, and is one. A restart that is called off, because the plugin is
/// told to end meanwhile or has failed too often, has no `AfterRestart`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Moment {
    /// Before the first start.
    BeforeStart,
    /// The first start has succeeded.
    AfterStart,
    /// Before it is told to end for good.
    BeforeShutdown,
    /// It has ended for good.
    AfterShutdown,
    /// Before a restart.
    BeforeRestart,
    /// The restart has succeeded.
    AfterRestart,
}

/// What a hook is told.
#[derive(Debug)]
#[non_exhaustive]
pub struct Occasion {
    /// Which moment it is.
    pub moment: Moment,
    /// The plugin. Its methods may be called; those that wait for this plugin's end return
    /// [`InHook`](super::HandleError::InHook), since the end would wait for the hook.
    pub plugin: PluginHandle,
    /// How many processes it has been: 0 before its first start.
    pub incarnation: u32,
    /// Its process, where it has one.
    pub pid: Option<u32>,
    /// Why its last process ended, where that has ended.
    pub reason: Option<ExitReason>,
}

/// A hook.
pub(super) type HookFn = Arc<dyn Fn(&Occasion) + Send + Sync>;

/// Hooks in the order in which they were set.
#[derive(Clone, Default)]
pub(super) struct HookList(Vec<(Moment, HookFn)>);

impl fmt::Debug for HookList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(moment, _)| moment)).finish()
    }
}

impl HookList {
    pub(super) fn add(&mut self, moment: Moment, hook: HookFn) {
        self.0.push((moment, hook));
    }

    /// The hooks of one plugin: the host's before its own.
    pub(super) fn with(&self, own: Self) -> Hooks {
        let list = Self(self.0.iter().cloned().chain(own.0).collect());
        Hooks { list, turns: Mutex::default(), changed: Condvar::new() }
    }
}

/// One plugin's hooks, and whose turn it is.
#[derive(Debug)]
pub(super) struct Hooks {
    list: HookList,
    turns: Mutex<Turns>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Turns {
    /// The number that is drawn next.
    next: u64,
    /// The number whose turn it is.
    current: u64,
    /// Numbers whose holders have given up their turns.
    given_up: BTreeSet<u64>,
    /// Who is calling hooks.
    caller: Option<ThreadId>,
}

impl Turns {
    fn pass_on(&mut self) {
        self.current += 1;
        while self.given_up.remove(&self.current) {
            self.current += 1;
        }
    }
}

impl Hooks {
    fn turns(&self) -> MutexGuard<'_, Turns> {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this thread is inside one of the hooks.
    pub(super) fn are_called_here(&self) -> bool {
        self.turns().caller == Some(thread::current().id())
    }
}

/// A number that was drawn: the right and the duty to tell of a moment once. Dropped without being
/// used, it lets the next ones pass.
#[derive(Debug)]
#[must_use = "the moment is told when the turn is taken"]
pub(super) struct Turn {
    plugin: Arc<Supervised>,
    occasion: Occasion,
    /// `None` inside a hook.
    number: Option<u64>,
}

impl Supervised {
    /// Draws a number for telling of a moment; `None` where nobody wants to know. `life` is this
    /// plugin's, and locked, so that numbers have the order of what they tell of.
    pub(super) fn turn(self: &Arc<Self>, moment: Moment, life: &Life) -> Option<Turn> {
        if !self.hooks.list.0.iter().any(|&(of, _)| of == moment) {
            return None;
        }
        let mut turns = self.hooks.turns();
        let inside = turns.caller == Some(thread::current().id());
        let number = (!inside).then(|| {
            turns.next += 1;
            turns.next - 1
        });
        let occasion = Occasion {
            moment,
            plugin: PluginHandle::new(Arc::clone(self)),
            incarnation: life.incarnation,
            pid: life.pid(),
            reason: life.last_exit(),
        };
        Some(Turn { plugin: Arc::clone(self), occasion, number })
    }
}

/// [Takes](Turn::take) a turn, where one was drawn.
pub(super) fn tell(turn: Option<Turn>) {
    if let Some(turn) = turn {
        turn.take();
    }
}

impl Turn {
    /// Waits for the turn and calls the hooks. Call it without a lock.
    fn take(mut self) {
        let hooks = &self.plugin.hooks;
        let Some(number) = self.number.take() else { return self.call() };
        let mut turns = hooks
            .changed
            .wait_while(hooks.turns(), |turns| turns.current != number)
            .unwrap_or_else(PoisonError::into_inner);
        turns.caller = Some(thread::current().id());
        drop(turns);
        self.call();
        let mut turns = hooks.turns();
        turns.caller = None;
        turns.pass_on();
        hooks.changed.notify_all();
    }

    fn call(&self) {
        let moment = self.occasion.moment;
        for (_, hook) in self.plugin.hooks.list.0.iter().filter(|&&(of, _)| of == moment) {
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| hook(&self.occasion))) {
                let message = text_of(panic);
                self.plugin.report(HostEventKind::HookPanicked { moment, message });
            }
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let Some(number) = self.number else { return };
        let hooks = &self.plugin.hooks;
        let mut turns = hooks.turns();
        if turns.current == number {
            turns.pass_on();
        } else {
            turns.given_up.insert(number);
        }
        hooks.changed.notify_all();
    }
}
