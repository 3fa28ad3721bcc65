//! What can go wrong with what a plugin asks about others.
//!
//! [`Plugin`](crate::host::Plugin)'s calls return it. What always holds: where it is not
//! [`ControlError::Service`], the host has answered, and nothing was done.

use thiserror::Error;

use super::acting::ControlAction;
use crate::host::service::error::ServiceError;

/// Why a plugin cannot see another, or act on it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ControlError {
    /// The host has no plugin of that name, and had none lately.
    #[error("the host has no plugin named {name:?}; list its plugins to see their names")]
    Unknown {
        /// The name.
        name: String,
    },
    /// The host program does not allow it: [`PluginSpec::may_control`](crate::host::PluginSpec::may_control).
    #[error(
        "this plugin may not {action} the plugin {name:?}; the host must allow it with `may_control`"
    )]
    NotPermitted {
        /// What was to be done.
        action: ControlAction,
        /// To which plugin.
        name: String,
    },
    /// The plugin has ended, or was told to; or it has no process that this could be done to.
    #[error("the plugin {name:?} does not run; start or restart it first")]
    NotRunning {
        /// The name.
        name: String,
    },
    /// The system does not let the host signal the plugin's process.
    #[error(
        "the host may not signal the plugin {name:?}: it needs the plugin's user id, or CAP_KILL"
    )]
    Denied {
        /// The name.
        name: String,
    },
    /// The host is carrying out as many requests of this process as it does at a time, or has no thread for this one.
    #[error("the host is carrying out too many requests of this kind; try again later")]
    Busy,
    /// The host has answered what this version does not understand.
    #[error(
        "the host's answer to operation {op:#x} cannot be understood; build host and plugin from one version"
    )]
    Answer {
        /// The operation.
        op: u32,
    },
    /// The request has no answer.
    #[error(transparent)]
    Service(#[from] ServiceError),
}
