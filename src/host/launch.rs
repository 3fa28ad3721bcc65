//! One start of a plugin's process: descriptors, environment, handshake.
//!
//! [`Supervised`](super::supervised::Supervised) calls it for the first start and for each restart.
//! Invariants: the host keeps no descriptor that it passed on, so nothing of a plugin's channels is
//! left when both processes are gone; no lock of the host is held while a process is started.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::control::{self, Announcement, CONTROL_CAPACITY_BYTES, Grant, VARIABLE};
use super::error::SpawnError;
use super::isolation::StepNames;
use super::program::{Pipes, Program, c_environment};
use super::service::frame;
use super::spec::PluginSpec;
use super::store::StoreFiles;
use crate::channel::{Channel, ChannelOptions, ChannelTypes, Connection};
use crate::error::{Corruption, ExitReason, RecvTimeoutError};
use crate::memory::Deadline;
use crate::os::child::{FIRST_INHERITED, Hook, Image, Setup};
use crate::os::keeper::Keeper;
use crate::os::spawn::above_standard;
use crate::os::start::{NotStarted, Start};
use crate::segment::AnonymousSegment;

/// What a plugin's process inherits: descriptors of its own, which the host does not keep.
#[derive(Debug)]
pub(super) struct Handed {
    /// The host's pidfd.
    pub(super) host: OwnedFd,
    /// Ends when the host ends, executes a program, or lets go of this process.
    pub(super) session: OwnedFd,
    /// Answers the host's questions whether the process runs, where it asks.
    pub(super) pulse: Option<OwnedFd>,
    pub(super) control: OwnedFd,
    /// The control channel's doorbell.
    pub(super) bell: OwnedFd,
    pub(super) active: OwnedFd,
    pub(super) passive: OwnedFd,
    pub(super) service: Option<OwnedFd>,
    pub(super) store: Option<StoreFiles>,
    /// The store for large publications.
    pub(super) payloads: Option<StoreFiles>,
    pub(super) post: Option<OwnedFd>,
    /// What it may do with the store.
    pub(super) access: Grant,
}

/// What is started, again and again.
#[derive(Debug)]
pub(super) struct Launcher {
    program: Program,
    setup: Arc<Setup<'static>>,
    hook: Option<SharedHook>,
    names: StepNames,
    cgroup: Option<PathBuf>,
}

/// A hook that one start at a time uses.
#[derive(Clone)]
struct SharedHook(Arc<Mutex<Hook>>);

impl std::fmt::Debug for SharedHook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SharedHook")
    }
}

impl Launcher {
    /// Takes what concerns the process out of a specification.
    ///
    /// # Errors
    /// There is no such directory name.
    pub(super) fn new(spec: &mut PluginSpec) -> Result<Self, SpawnError> {
        let program = std::mem::replace(&mut spec.program, Program::new("".into()));
        let names = std::mem::take(&mut spec.names);
        let mut setup = std::mem::take(&mut spec.setup);
        setup.isolation = names.isolation(spec.no_new_privs);
        setup.directory = program
            .directory()
            .map_err(|source| SpawnError::Exec { program: program.name(), source })?
            .map(Into::into);
        let hook = spec.pre_exec.take().map(|hook| SharedHook(Arc::new(Mutex::new(hook))));
        Ok(Self { program, setup: Arc::new(setup), hook, names, cgroup: spec.cgroup.take() })
    }

    /// Begins to execute the program with these descriptors, by the keeper where that can do it. Returns
    /// the host's ends of its streams.
    pub(super) fn begin(
        &self,
        name: &str,
        handed: Handed,
        keeper: Option<&Arc<Keeper>>,
        deadline: Deadline,
        timeout: Duration,
    ) -> Result<(Start, Pipes), SpawnError> {
        let os = |call| move |source| SpawnError::Os { call, source };
        // A hook is the host's memory, which the keeper does not share.
        let keeper = keeper.filter(|keeper| self.hook.is_none() && keeper.can_start());
        let numbers = if keeper.is_some() { Numbers::Counted } else { Numbers::Own };
        let (announced, inherited) = announce(name, handed, numbers).map_err(os("dup"))?;
        let exec = |source| SpawnError::Exec { program: self.program.name(), source };
        let environment = self.program.environment(VARIABLE, announced.to_text());
        let programs = self.program.paths(&environment).map_err(exec)?;
        let (streams, pipes) = self
            .program
            .streams(self.names.switches_user())
            .map_err(os("opening the standard streams"))?;
        let image = Image {
            programs,
            arguments: self.program.argv().map_err(exec)?,
            environment: c_environment(environment).map_err(exec)?,
            streams,
            inherited,
            cgroup: self.open_cgroup().map_err(os("opening cgroup.procs"))?,
        };
        let start = match keeper {
            Some(keeper) => keeper
                .begin(&self.setup, &image, deadline)
                .map_err(|error| self.failed(error, timeout))?,
            None => {
                let hook = self.hook.as_ref().map(|hook| Arc::clone(&hook.0));
                Start::begin(Arc::clone(&self.setup), image, hook)
                    .map_err(os("starting a thread that starts the plugin"))?
            }
        };
        Ok((start, pipes))
    }

    fn open_cgroup(&self) -> io::Result<Option<OwnedFd>> {
        let Some(directory) = &self.cgroup else { return Ok(None) };
        let procs = OpenOptions::new().write(true).open(directory.join("cgroup.procs"))?;
        above_standard(procs.into()).map(Some)
    }

    /// Kills all that is left in the plugin's control group, where it has one.
    pub(super) fn kill_cgroup(&self) {
        if let Some(directory) = &self.cgroup {
            // Before Linux 5.14 there is no such file.
            let _ = fs::write(directory.join("cgroup.kill"), "1");
        }
    }

    /// Says why the program was not executed within `timeout`.
    pub(super) fn failed(&self, error: NotStarted, timeout: Duration) -> SpawnError {
        let program = || self.program.name();
        match error {
            NotStarted::Call(call, source) => SpawnError::Os { call, source },
            NotStarted::Step(step, source) => match self.names.name(step) {
                Some(step) => SpawnError::Isolation { step, source },
                None => SpawnError::Exec { program: program(), source },
            },
            NotStarted::Ended(reason) => SpawnError::Exited { reason },
            NotStarted::HookInUse | NotStarted::TimedOut => {
                SpawnError::NotExecuted { program: program(), timeout }
            }
            NotStarted::KeeperEnded => SpawnError::KeeperEnded,
            NotStarted::KeeperSilent => SpawnError::KeeperSilent { timeout },
        }
    }
}

/// Which numbers the plugin's descriptors have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Numbers {
    /// The host's.
    Own,
    /// From [`FIRST_INHERITED`] on.
    Counted,
}

/// What the plugin is told of its descriptors, and the descriptors.
fn announce(
    name: &str,
    handed: Handed,
    numbers: Numbers,
) -> io::Result<(Announcement, Vec<OwnedFd>)> {
    let Handed { host, session, pulse, control, bell, active, passive, service, .. } = handed;
    let both = |files: Option<StoreFiles>| {
        files.map_or((None, None), |files| (Some(files.public), files.private))
    };
    let ((store, store_private), (payloads, payloads_private)) =
        (both(handed.store), both(handed.payloads));
    let mut inherited = Vec::new();
    let mut number = |fd: Option<OwnedFd>| -> io::Result<i32> {
        let Some(fd) = fd else { return Ok(-1) };
        let fd = above_standard(fd)?;
        let number = match numbers {
            Numbers::Own => fd.as_raw_fd(),
            Numbers::Counted => FIRST_INHERITED + inherited.len() as i32,
        };
        inherited.push(fd);
        Ok(number)
    };
    let announced = Announcement {
        host: number(Some(host))?,
        session: number(Some(session))?,
        pulse: number(pulse)?,
        control: number(Some(control))?,
        bell: number(Some(bell))?,
        active: number(Some(active))?,
        passive: number(Some(passive))?,
        service: number(service)?,
        store: number(store)?,
        store_private: number(store_private)?,
        payloads: number(payloads)?,
        payloads_private: number(payloads_private)?,
        post: number(handed.post)?,
        access: handed.access,
        name: name.into(),
    };
    Ok((announced, inherited))
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

    /// Descriptors of the three that there always are, for the plugin: control, active, passive.
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
    deadline: Deadline,
    timeout: Duration,
    attached: impl FnOnce(),
) -> Result<(), SpawnError> {
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
