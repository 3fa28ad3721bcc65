//! Carrying out what one plugin wants of another.
//!
//! The service thread starts a short thread for each request. What always holds: the host program decides, about every
//! request; nothing here waits for a process to end; two plugins that restart each other, or themselves, each have
//! their own threads, and none waits for the other.

use std::fmt;
use std::sync::{Arc, Weak};
use std::thread;

use super::roster::Roster;
use super::wire::{STATUS_DENIED, STATUS_NOT_PERMITTED, STATUS_NOT_RUNNING, STATUS_UNKNOWN_NAME};
use crate::callback::quietly;
use crate::host::HandleError;
use crate::host::event::HostEventKind;
use crate::host::service::frame::{self, OP_PLUGIN_KILL, OP_PLUGIN_RESTART, OP_PLUGIN_STOP};
use crate::host::supervised::{Asked, Phase, Supervised};

/// What a plugin can want of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ControlAction {
    /// [`Plugin::restart_plugin`](crate::host::Plugin::restart_plugin).
    Restart,
    /// [`Plugin::stop_plugin`](crate::host::Plugin::stop_plugin).
    Stop,
    /// [`Plugin::kill_plugin`](crate::host::Plugin::kill_plugin).
    Kill,
}

impl fmt::Display for ControlAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Restart => "restart",
            Self::Stop => "stop",
            Self::Kill => "kill",
        })
    }
}

impl ControlAction {
    pub(super) const ALL: [(u32, Self); 3] = [
        (OP_PLUGIN_RESTART, Self::Restart),
        (OP_PLUGIN_STOP, Self::Stop),
        (OP_PLUGIN_KILL, Self::Kill),
    ];

    pub(super) fn of(op: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|(other, _)| *other == op).map(|(_, action)| action)
    }

    pub(super) fn op(self) -> u32 {
        Self::ALL[self as usize].0
    }
}

/// What a host program is asked to [allow](crate::host::PluginSpec::may_control).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ControlRequest<'a> {
    /// Name of the plugin that asks.
    pub by: &'a str,
    /// What it wants to do.
    pub action: ControlAction,
    /// Name of the plugin that it wants to do it to.
    pub plugin: &'a str,
}

type Decide = dyn Fn(&ControlRequest<'_>) -> bool + Send + Sync;

/// The host program's answer for one plugin; nothing where it has given none.
#[derive(Clone, Default)]
pub(in crate::host) struct Permission(Option<Arc<Decide>>);

impl fmt::Debug for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Permission").field(&self.0.is_some()).finish()
    }
}

impl Permission {
    pub(in crate::host) fn new(
        decide: impl Fn(&ControlRequest<'_>) -> bool + Send + Sync + 'static,
    ) -> Self {
        Self(Some(Arc::new(decide)))
    }

    /// A plugin may do everything to itself: it could without its host.
    fn allows(&self, request: &ControlRequest<'_>) -> bool {
        let decide = |decide: &Arc<Decide>| {
            let mut allowed = false;
            quietly(|| allowed = decide(request)) && allowed
        };
        request.by == request.plugin || self.0.as_ref().is_some_and(decide)
    }
}

/// A request, and who is to be answered.
#[derive(Debug)]
pub(super) struct Order {
    pub(super) by: String,
    pub(super) action: ControlAction,
    pub(super) plugin: String,
    /// Serial number of the session, and what it calls the request.
    pub(super) session: u64,
    pub(super) id: u64,
}

/// What has come of an order.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) order: Order,
    pub(super) status: u32,
}

/// Carries an order out, on a thread of its own. False where there is none to be had.
pub(super) fn begin(roster: &Arc<Roster>, order: Order) -> bool {
    let roster = Arc::clone(roster);
    let act = move || {
        let status = carry_out(&roster, &order);
        roster.finish(Outcome { order, status });
    };
    thread::Builder::new().name("ringway-control".into()).spawn(act).is_ok()
}

fn carry_out(roster: &Roster, order: &Order) -> u32 {
    let Order { by, action, plugin: name, .. } = order;
    let Some(plugin) = roster.find(name) else { return STATUS_UNKNOWN_NAME };
    let request = ControlRequest { by, action: *action, plugin: name };
    if !roster.permission_of(by).allows(&request) {
        return STATUS_NOT_PERMITTED;
    }
    Weak::upgrade(&plugin).map_or(STATUS_NOT_RUNNING, |plugin| plugin.act(by, *action))
}

impl Supervised {
    /// Begins what another plugin wants. Returns the status for the answer.
    fn act(self: &Arc<Self>, by: &str, action: ControlAction) -> u32 {
        let mut life = self.life();
        let can = match (action, life.phase) {
            (_, Phase::Ended(_)) => false,
            (ControlAction::Restart, Phase::Starting) => false,
            (ControlAction::Kill, _) => life.process.is_some(),
            _ => !life.stopping,
        };
        if !can {
            return STATUS_NOT_RUNNING;
        }
        // The one that is going on is the one that was asked for.
        if action == ControlAction::Restart
            && (life.asked.is_some() || life.phase != Phase::Running)
        {
            return frame::STATUS_DONE;
        }
        // Before what comes of it is reported.
        self.report(HostEventKind::ControlledBy { plugin: by.into(), action });
        match action {
            ControlAction::Kill => match life.signal(libc::SIGKILL) {
                Ok(()) => {}
                Err(HandleError::Denied { .. }) => return STATUS_DENIED,
                Err(_) => return STATUS_NOT_RUNNING,
            },
            ControlAction::Restart => {
                // Who restarts itself has the pauses, and the blame, of who asks to be restarted.
                let asked = if by == self.name { Asked::Plugin } else { Asked::Host };
                self.replace_running(&mut life, asked);
            }
            ControlAction::Stop => {
                if let Some(decided) = self.decide_stop(&mut life) {
                    self.stop_in_background(&mut life, decided);
                }
            }
        }
        frame::STATUS_DONE
    }
}
