//! The plugin's side: from an environment variable to two channels.
//!
//! A plugin process calls [`Plugin::connect`] once, early in `main`.
//! Invariants: the descriptors that the host announced are taken, and closed on exec, before anything
//! else; when the host is gone, every channel says `Disconnected` once it is drained, and a process that
//! has not ended by itself some time after that is ended. The host is gone when its process has died,
//! when it has executed a program, and when it has let go of this process.

use std::env;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use super::control::{self, Announcement, StopNotice, VARIABLE};
use super::error::{ConnectError, RequestError, StoreError, TakeChannelsError};
use super::guard::{self, HostGone};
use super::links::{Desk, LinkError, PluginLinks};
use super::listener::Listener;
use super::service::Client;
use super::service::error::ServiceError;
use super::service::frame::OP_ECHO;
use super::store::StoreFiles;
use crate::channel::{Channel, ChannelOptions, Sender};
use crate::os::doorbell;
use crate::os::process::take_inherited;
use crate::store::Store;
use crate::sync::{AtomicU32, Ordering};
use crate::wakeup::WaitStrategy;

/// Exit code of a plugin that was ended because it outlived its host.
pub const EXIT_CODE_HOST_GONE: i32 = 113;

/// How long a plugin may outlive its host unless it says otherwise.
const HOST_GONE_GRACE: Duration = Duration::from_secs(2);

/// Whether this process has connected: 0, then 1 for ever; whoever swaps the 1 in connects.
static CONNECTED: AtomicU32 = AtomicU32::new(0);

/// A plugin's connection to the host that started it.
///
/// Dropping it closes the control channel; the two channels, and the watch over the host, stay.
#[derive(Debug)]
pub struct Plugin {
    name: String,
    state: Mutex<State>,
    listener: Listener,
    /// Where the host has something to serve.
    pub(super) service: Option<Arc<Client>>,
    /// Where the host links processes.
    pub(super) links: PluginLinks,
    /// The files of the host's store.
    store: Option<StoreFiles>,
    /// Those of the host's store for large publications.
    payloads: Option<StoreFiles>,
    grace: Arc<Mutex<Option<Duration>>>,
    /// The client that all who ask for one share.
    pub(crate) rpc: OnceLock<crate::rpc::Client>,
}

#[derive(Debug)]
struct State {
    control: Sender,
    /// Rung after a request.
    bell: OwnedFd,
    channels: Option<(Channel, Channel)>,
    ready: bool,
    /// Whether a request has been made.
    asked: bool,
}

impl Plugin {
    /// Connects to the host that started this process, with default choices of how to wait.
    ///
    /// # Errors
    /// [`ConnectError`] says what is missing.
    pub fn connect() -> Result<Self, ConnectError> {
        Self::connect_with(&ChannelOptions::default())
    }

    /// Connects to the host that started this process. Of the options only
    /// [`wait`](ChannelOptions::wait) matters: the host has decided about the others.
    ///
    /// # Errors
    /// [`ConnectError`] says what is missing.
    pub fn connect_with(options: &ChannelOptions) -> Result<Self, ConnectError> {
        let text = env::var_os(VARIABLE).ok_or(ConnectError::NoHost { variable: VARIABLE })?;
        let text = text.to_string_lossy();
        let announced = Announcement::parse(&text)?;
        if CONNECTED.swap(1, Ordering::Relaxed) != 0 {
            return Err(ConnectError::AlreadyConnected);
        }
        let taken = take_all(&announced)?;
        let Taken { host, session, pulse, control, bell, active, passive, service, .. } = taken;
        let Taken { store, payloads, post, .. } = taken;
        let os = |call| move |source| ConnectError::Os { call, source };
        let own_post = post.as_ref().map(OwnedFd::try_clone).transpose().map_err(os("dup"))?;
        let links = PluginLinks::new(post);
        let attach = |what, fd| {
            Channel::attach_unchecked_types(fd, options)
                .map_err(|source| ConnectError::Segment { what, source })
        };
        // A thread of this process sleeps on it, whatever the plugin's own waits are like.
        let parked = ChannelOptions { wait: WaitStrategy::Park, ..options.clone() };
        let mut control = Channel::attach_unchecked_types(control, &parked)
            .map_err(|source| ConnectError::Segment { what: "control", source })?;
        let active = attach("active", active)?;
        let passive = attach("passive", passive)?;
        let service = service.map(|fd| attach("service", fd)).transpose()?;
        let grace = Arc::new(Mutex::new(Some(HOST_GONE_GRACE)));
        let channels = [&control, &active, &passive].into_iter().chain(&service);
        let gone = HostGone::new(channels, own_post, Arc::clone(&grace));
        guard::watch(host, session, pulse, gone)?;
        let client = |channel| Client::new(channel).map(Arc::new);
        let service = service
            .map(client)
            .transpose()
            .map_err(|source| ConnectError::Os { call: "mmap", source })?;
        control
            .sender()
            .send_tagged(control::TAG_ATTACHED, bytemuck::bytes_of(&control::attached()))
            .map_err(|_| ConnectError::HostGone)?;
        let channels = Some((active, passive));
        let (control, receiver) = control.split();
        let state = Mutex::new(State { control, bell, channels, ready: false, asked: false });
        let listener = Listener::new(receiver).map_err(os("starting a thread"))?;
        let rpc = OnceLock::new();
        let name = announced.name;
        Ok(Self { name, state, listener, service, links, store, payloads, grace, rpc })
    }

    /// The name that the host gave this plugin.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Takes the channels, `{name}-active` and `{name}-passive`, and tells the host that this plugin
    /// is [`ready`](Self::ready). Whatever it must do before it can take messages, it does before.
    ///
    /// # Errors
    /// [`TakeChannelsError`].
    pub fn take_channels(&self) -> Result<(Channel, Channel), TakeChannelsError> {
        let mut state = self.state();
        let channels = state.channels.take().ok_or(TakeChannelsError::Taken)?;
        tell_ready(&mut state)?;
        Ok(channels)
    }

    /// Tells the host that this plugin is ready. For a plugin that takes its channels later, or
    /// never: taking them says it too, and it is said only once.
    ///
    /// # Errors
    /// [`TakeChannelsError::HostGone`].
    pub fn ready(&self) -> Result<(), TakeChannelsError> {
        tell_ready(&mut self.state())
    }

    /// Asks the host to end this process and to start a successor, which gets what this one leaves
    /// unread; the host does so whatever this plugin's restart policy is. `reason` appears among the
    /// host's events: at most [`MAX_REASON_BYTES`](control::MAX_REASON_BYTES) of it.
    ///
    /// Returns at once. The host then tells this process to [stop](Self::wait_for_stop), and sends
    /// SIGTERM and SIGKILL when it does not: until then it goes on, with its channels open. A
    /// message that was received and not released ([`Receiver::release`](crate::channel::Receiver::release)) is
    /// delivered to the successor again: release the one that has led to the request first.
    ///
    /// # Errors
    /// [`RequestError`]; a process can make one request.
    pub fn request_restart(&self, reason: &str) -> Result<(), RequestError> {
        self.state().request(control::TAG_RESTART_ME, reason)
    }

    /// Asks the host to end this process, without a successor. Otherwise as
    /// [`request_restart`](Self::request_restart).
    ///
    /// # Errors
    /// [`RequestError`]; a process can make one request.
    pub fn request_stop(&self, reason: &str) -> Result<(), RequestError> {
        self.state().request(control::TAG_END_ME, reason)
    }

    /// Whether the host has told this process to stop, and why. Costs an atomic load: a thread of this
    /// library reads what the host says. Fit for a real-time thread, and for every round of a loop.
    #[inline]
    pub fn stop_requested(&self) -> Option<StopNotice> {
        self.listener.stop()
    }

    /// Waits until the host tells this process to stop, or is gone, for at most `timeout`; from then
    /// on returns at once. For a thread that sees to it that the others finish their work, in the
    /// time that the host gives ([`PluginSpec::notice`](super::PluginSpec::notice)).
    pub fn wait_for_stop(&self, timeout: Duration) -> Option<StopNotice> {
        self.listener.wait(timeout)
    }

    /// A handle of the host's store. Each call maps the store once more: take one, and
    /// [clone](Store::try_clone) it for other threads. A plugin that is
    /// [trusted](super::PluginSpec::trust_with_store) with the store reads in place and writes; any other
    /// reads by copying, and writes with the same calls, which ask the host to: as much as
    /// [it may](super::PluginSpec::store_quota). [`Store::access`] tells which it is.
    ///
    /// # Errors
    /// [`StoreError::None`] where the host has none, or this plugin is not to have it; otherwise as
    /// [`Store::attach`] and [`Store::attach_read_only`].
    pub fn store(&self) -> Result<Store, StoreError> {
        self.store.as_ref().ok_or(StoreError::None)?.attach(self.service.as_ref())
    }

    /// A handle of the host's store for large publications, where there is one for this plugin. One
    /// that may not write it reads by copying.
    pub(super) fn payloads(&self) -> Option<Store> {
        self.payloads.as_ref()?.attach(None).ok()
    }

    /// Asks the host for an answer, and tells how long it took: whether the thread that serves plugins
    /// is there, and how busy it is.
    ///
    /// # Errors
    /// [`ServiceError`]; [`NotServed`](ServiceError::NotServed) where the host has nothing to serve and
    /// does not [answer pings](super::HostBuilder::answer_pings).
    pub fn ping(&self, timeout: Duration) -> Result<Duration, ServiceError> {
        let begun = Instant::now();
        let service = self.service.as_ref().ok_or(ServiceError::NotServed)?;
        service.call(OP_ECHO, &[], timeout)?;
        Ok(begun.elapsed())
    }

    /// How long this process may outlive its host. When the host is gone, channels are disconnected at
    /// once; a process that is still there after the grace is ended with
    /// [`EXIT_CODE_HOST_GONE`]. 2 s unless changed; `None` lets it live.
    pub fn set_host_gone_grace(&self, grace: Option<Duration>) {
        *self.grace.lock().unwrap_or_else(PoisonError::into_inner) = grace;
    }

    /// This process's desk for links.
    ///
    /// # Errors
    /// [`LinkError::NotServed`], [`LinkError::Forked`].
    pub(crate) fn desk(&self) -> Result<Arc<Desk>, LinkError> {
        let service = self.service.as_ref().ok_or(LinkError::NotServed)?;
        self.links.desk(service)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn request(&mut self, tag: u16, reason: &str) -> Result<(), RequestError> {
        if !self.ready {
            return Err(RequestError::NotReady);
        }
        if reason.len() > control::MAX_REASON_BYTES {
            return Err(RequestError::TooLong {
                len: reason.len(),
                max: control::MAX_REASON_BYTES,
            });
        }
        if std::mem::replace(&mut self.asked, true) {
            return Err(RequestError::AlreadyMade);
        }
        let sent = self.control.try_send_tagged(tag, reason.as_bytes());
        sent.map_err(|_| RequestError::HostGone)?;
        // Behind the message: the host looks once.
        doorbell::ring(self.bell.as_fd()).map_err(|_| RequestError::HostGone)
    }
}

fn tell_ready(state: &mut State) -> Result<(), TakeChannelsError> {
    if !state.ready {
        state
            .control
            .send_tagged(control::TAG_READY, bytemuck::bytes_of(&control::ready()))
            .map_err(|_| TakeChannelsError::HostGone)?;
        state.ready = true;
    }
    Ok(())
}

/// What the host has handed over.
struct Taken {
    host: OwnedFd,
    session: OwnedFd,
    pulse: Option<OwnedFd>,
    control: OwnedFd,
    bell: OwnedFd,
    active: OwnedFd,
    passive: OwnedFd,
    service: Option<OwnedFd>,
    store: Option<StoreFiles>,
    payloads: Option<StoreFiles>,
    post: Option<OwnedFd>,
}

/// Takes all descriptors, or none is left open.
fn take_all(announced: &Announcement) -> Result<Taken, ConnectError> {
    let take = |what, fd| {
        take_inherited(fd).map_err(|source| ConnectError::Descriptor { what, fd, source })
    };
    let files = |public: Option<OwnedFd>, private| Some(StoreFiles { public: public?, private });
    let take_if_any = |what, fd| if fd < 0 { Ok(None) } else { take(what, fd).map(Some) };
    Ok(Taken {
        host: take("the host's pidfd", announced.host)?,
        session: take("the session", announced.session)?,
        pulse: take_if_any("the pulse", announced.pulse)?,
        control: take("the control channel", announced.control)?,
        bell: take("the control channel's bell", announced.bell)?,
        active: take("the active channel", announced.active)?,
        passive: take("the passive channel", announced.passive)?,
        service: take_if_any("the service channel", announced.service)?,
        store: files(
            take_if_any("the store", announced.store)?,
            take_if_any("the store's private part", announced.store_private)?,
        ),
        payloads: files(
            take_if_any("the store for publications", announced.payloads)?,
            take_if_any(
                "the private part of the store for publications",
                announced.payloads_private,
            )?,
        ),
        post: take_if_any("the post", announced.post)?,
    })
}
