//! What a plugin sees of its host's other plugins, and what it may do to them: by name, through the host.
//!
//! [`Plugin`](super::Plugin) has the calls, the host's service thread answers. What always holds: the service thread
//! waits for no plugin and for no decision of the host program; every request has one answer, at the change, the
//! outcome or the deadline; a plugin does to others what its [`PluginSpec`](super::PluginSpec) allows, and nothing else.
//!
//! | file | what it holds |
//! |---|---|
//! | `roster` | names, states and the last changes of all plugins |
//! | `wire` | requests and answers as bytes |
//! | `serving` | the host's side: listing, waiting, answering |
//! | `acting` | carrying out what one plugin wants of another, on a thread of its own |
//! | `asking` | the plugin's side |
//! | `error` | what can go wrong |

mod acting;
mod asking;
mod error;
mod roster;
mod serving;
#[cfg(test)]
mod tests;
mod wire;

pub use acting::{ControlAction, ControlRequest};
pub use asking::{PluginChange, PluginInfo, PluginWatch};
pub use error::ControlError;

pub(super) use acting::Permission;
pub(super) use roster::Roster;
pub(super) use serving::Others;
