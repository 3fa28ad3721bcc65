//! One start of a plugin's process: descriptors, environment, handshake.
//!
//! [`Supervised`](super::supervised::Supervised) calls it for the first start and for each restart.
//! What always holds: the host keeps no descriptor that it passed on, so nothing of a plugin's
//! channels is left when both processes are gone; a process that fails the handshake is killed.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use super::control::{self, Announcement, CONTROL_CAPACITY_BYTES, Grant, VARIABLE};
use super::error::SpawnError;
use super::isolation::{StepNames, Wanted};
use super::service::frame;
use crate::channel::{Channel, ChannelOptions, ChannelTypes, Connection};
use crate::error::{Corruption, ExitReason, RecvTimeoutError};
use crate::memory::Deadline;
use crate::os::clock::monotonic_ns;
use crate::os::isolation::Progress;
use crate::os::pidfd::PidFd;
use crate::os::process::Inheritance;
use crate::segment::AnonymousSegment;

/// What a plugin's process inherits.
#[derive(Debug)]
pub(super) struct Handed<'a> {
    /// The host's pidfd.
    pub(super) host: &'a OwnedFd,
    pub(super) control: &'a OwnedFd,
    /// The control channel's bell.
    pub(super) bell: &'a OwnedFd,
    pub(super) active: &'a OwnedFd,
    pub(super) passive: &'a OwnedFd,
    pub(super) service: Option<&'a OwnedFd>,
    pub(super) store: Option<&'a OwnedFd>,
    /// The store for large publications.
    pub(super) payloads: Option<&'a OwnedFd>,
    pub(super) post: Option<&'a OwnedFd>,
    /// What it may do with the store.
    pub(super) access: Grant,
}

/// A command that can be started again and again.
#[derive(Debug)]
pub(super) struct Launcher {
    command: Command,
    inheritance: Inheritance,
    /// How far an isolated child has come, and what its steps are called.
    isolated: Option<(Arc<Progress>, StepNames)>,
}

impl Launcher {
    pub(super) fn new(mut command: Command, wanted: Wanted) -> Result<Self, SpawnError> {
        let inheritance = Inheritance::default();
        let (isolation, names) = wanted.into_parts();
        let isolated = if isolation.is_empty() {
            inheritance.install(&mut command);
            None
        } else {
            let progress = inheritance
                .install_isolated(&mut command, isolation)
                .map_err(|source| SpawnError::Os { call: "mmap", source })?;
            Some((progress, names))
        };
        Ok(Self { command, inheritance, isolated })
    }

    /// Says what went wrong in the child.
    fn failed(&self, source: io::Error) -> SpawnError {
        let step = self
            .isolated
            .as_ref()
            .and_then(|(progress, names)| names.name(progress.failed_step()?));
        match step {
            Some(step) => SpawnError::Isolation { step, source },
            None => SpawnError::Exec {
                program: self.command.get_program().to_string_lossy().into_owned(),
                source,
            },
        }
    }

    /// Executes the command with these descriptors.
    pub(super) fn start(
        &mut self,
        name: &str,
        handed: &Handed<'_>,
    ) -> Result<(u32, PidFd), SpawnError> {
        let &Handed { host, control, bell, active, passive, service, .. } = handed;
        let &Handed { store, payloads, post, access, .. } = handed;
        let number = |fd: Option<&OwnedFd>| fd.map_or(-1, AsRawFd::as_raw_fd);
        let announced = Announcement {
            host: host.as_raw_fd(),
            control: control.as_raw_fd(),
            bell: bell.as_raw_fd(),
            active: active.as_raw_fd(),
            passive: passive.as_raw_fd(),
            service: number(service),
            store: number(store),
            payloads: number(payloads),
            post: number(post),
            access,
            name: name.into(),
        };
        self.command.env(VARIABLE, announced.to_text());
        let always = [host, control, bell, active, passive].map(Some);
        let [host, control, bell, active, passive] = always;
        self.inheritance
            .set([host, control, bell, active, passive, service, store, payloads, post]);
        if let Some((progress, _)) = &self.isolated {
            progress.reset();
        }
        let mut child = self.command.spawn().map_err(|source| self.failed(source))?;
        // The number still means our child: nobody but us may reap it.
        match PidFd::open(child.id()) {
            Ok(pidfd) => Ok((child.id(), pidfd)),
            Err(source) => {
                let _ = child.kill();
                let _ = child.wait();
                Err(SpawnError::Os { call: "pidfd_open", source })
            }
        }
    }
}

/// The channels of one incarnation, before the ends go to whom they belong.
#[derive(Debug)]
pub(super) struct Channels {
    pub(super) control: Channel,
    pub(super) active: Channel,
    pub(super) passive: Channel,
    /// Where the host has something to serve.
    pub(super) service: Option<Channel>,
}

/// One incarnation's channels as the host sees them, to tell them of a death.
#[derive(Debug)]
pub(super) struct Connections {
    pub(super) control: Arc<Connection>,
    pub(super) active: Arc<Connection>,
    pub(super) passive: Arc<Connection>,
    pub(super) service: Option<Arc<Connection>>,
}

impl Channels {
    /// `longest_request` says how long a request on the service channel can be, where there is one.
    pub(super) fn create(
        options: &ChannelOptions,
        longest_request: Option<u64>,
    ) -> Result<Self, SpawnError> {
        let control = ChannelOptions {
            capacity_bytes: CONTROL_CAPACITY_BYTES,
            reply_capacity_bytes: None,
            // The handshake's messages are as long as they are.
            max_message_bytes: CONTROL_CAPACITY_BYTES / 2,
            types: ChannelTypes::UNTYPED,
            ..options.clone()
        };
        let service = longest_request.map(|max_message_bytes| {
            let capacity_bytes = frame::CAPACITY_BYTES;
            Channel::anonymous(&ChannelOptions {
                capacity_bytes,
                max_message_bytes,
                ..control.clone()
            })
        });
        Ok(Self {
            control: Channel::anonymous(&control)?,
            active: Channel::anonymous(options)?,
            passive: Channel::anonymous(options)?,
            service: service.transpose()?,
        })
    }

    /// New descriptions of the three that there always are, for the plugin: control, active, passive.
    pub(super) fn descriptors(&self) -> Result<[OwnedFd; 3], SpawnError> {
        Ok([self.control.descriptor()?, self.active.descriptor()?, self.passive.descriptor()?])
    }

    /// And of the fourth.
    pub(super) fn service_descriptor(&self) -> Result<Option<OwnedFd>, SpawnError> {
        Ok(self.service.as_ref().map(Channel::descriptor).transpose()?)
    }

    pub(super) fn connections(&self) -> Connections {
        let connection = |channel: &Channel| Arc::clone(channel.connection());
        Connections {
            control: connection(&self.control),
            active: connection(&self.active),
            passive: connection(&self.passive),
            service: self.service.as_ref().map(connection),
        }
    }

    pub(super) fn segments(&self) -> Result<Vec<Arc<AnonymousSegment>>, SpawnError> {
        let Self { control, active, passive, service } = self;
        let channels = [control, active, passive].into_iter().chain(service);
        Ok(channels.map(|channel| channel.segment().map(Arc::clone)).collect::<Result<_, _>>()?)
    }
}

/// Goes through the handshake as `control` describes it, and calls `attached` when the plugin has got
/// so far. Does not kill: the caller does, whatever the error.
pub(super) fn handshake(
    control: &mut Channel,
    segments: &[Arc<AnonymousSegment>],
    timeout: Duration,
    attached: impl FnOnce(),
) -> Result<(), SpawnError> {
    let timeout_ns = u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX);
    let deadline = Deadline::at_ns(monotonic_ns().saturating_add(timeout_ns));
    let message = expect(control, control::TAG_ATTACHED, deadline, timeout)?;
    let version = control::version_of_attached(&message);
    if version != Some(control::HANDSHAKE_VERSION) {
        let (found, expected) = (version.unwrap_or(0), control::HANDSHAKE_VERSION);
        return Err(SpawnError::Version { found, expected });
    }
    for segment in segments {
        segment.seal_writes().map_err(|_| Corruption::Seal)?;
    }
    attached();
    expect(control, control::TAG_READY, deadline, timeout).map(drop)
}

/// Receives one message of the handshake.
fn expect(
    control: &mut Channel,
    expected: u16,
    deadline: Deadline,
    timeout: Duration,
) -> Result<Vec<u8>, SpawnError> {
    match control.receiver().recv_deadline(deadline) {
        Ok(message) if message.tag() == expected && message.len() == 16 => Ok(message.to_vec()),
        Ok(message) => {
            Err(SpawnError::Handshake { found: message.tag(), len: message.len(), expected })
        }
        Err(RecvTimeoutError::Timeout) => Err(SpawnError::NotReady { timeout }),
        Err(RecvTimeoutError::Corrupt(corruption)) => Err(corruption.into()),
        // It closed the control channel, or died; the caller finds out how it ended.
        Err(_) => Err(SpawnError::Exited { reason: ExitReason::Unknown }),
    }
}
