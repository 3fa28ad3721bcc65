//! What a process calls that wants links: one [`Desk`] for the host, one for each plugin's process.

use std::sync::Arc;
use std::time::Duration;

use super::{Inbox, Kind, Link, LinkError, LinkOptions, Listed};

/// See the module.
#[derive(Debug)]
pub(crate) struct Desk {}

/// A name that is listened to, or joined. Dropping it withdraws it; links that exist stay until their
/// ends are dropped.
#[derive(Debug)]
#[must_use = "dropping it withdraws the name"]
pub(crate) struct Registration {}

#[allow(dead_code)]
impl Desk {
    /// Listens under a name. For a topic it returns when all that have joined the name are linked, or
    /// have not answered within `timeout`; those are linked when they answer.
    pub(crate) fn listen(
        self: &Arc<Self>,
        _kind: Kind,
        _name: &str,
        _note: &[u8],
        _options: &LinkOptions,
        _inbox: Arc<dyn Inbox>,
        _timeout: Duration,
    ) -> Result<Registration, LinkError> {
        Err(LinkError::NotServed)
    }

    /// Makes a link with who listens under a name.
    pub(crate) fn connect(
        self: &Arc<Self>,
        _kind: Kind,
        _name: &str,
        _note: &[u8],
        _options: &LinkOptions,
        _timeout: Duration,
    ) -> Result<Link, LinkError> {
        Err(LinkError::NotServed)
    }

    /// Makes links with all who listen under a name, now and later. Returns when those who do so now
    /// are linked, or have not answered within `timeout`; those are linked when they answer.
    pub(crate) fn join(
        self: &Arc<Self>,
        _kind: Kind,
        _name: &str,
        _note: &[u8],
        _inbox: Arc<dyn Inbox>,
        _timeout: Duration,
    ) -> Result<Registration, LinkError> {
        Err(LinkError::NotServed)
    }

    /// Who listens to what.
    pub(crate) fn list(&self, _kind: Kind) -> Result<Vec<Listed>, LinkError> {
        Err(LinkError::NotServed)
    }
}
