//! The plugin's side: from an environment variable to two channels.
//!
//! A plugin process calls [`Plugin::connect`] once, early in `main`.
//! What always holds: the descriptors that the host announced are taken, and closed on exec, before
//! anything else; when the host dies, every channel says `Disconnected` once it is drained, and a
//! process that has not ended by itself some time after that is ended.

use std::env;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use super::control::{self, Announcement, VARIABLE};
use super::error::{ConnectError, TakeChannelsError};
use crate::channel::{Channel, ChannelOptions};
use crate::error::ExitReason;
use crate::os::process::{exit_now, take_inherited};
use crate::supervisor::{self, WatchToken};
use crate::sync::{AtomicU32, Ordering};

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
    grace: Arc<Mutex<Option<Duration>>>,
}

#[derive(Debug)]
struct State {
    control: Channel,
    channels: Option<(Channel, Channel)>,
    ready: bool,
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
        let [host, control, active, passive] = take_all(&announced)?;
        let attach = |what, fd| {
            Channel::attach_unchecked_types(fd, options)
                .map_err(|source| ConnectError::Segment { what, source })
        };
        let mut control = attach("control", control)?;
        let active = attach("active", active)?;
        let passive = attach("passive", passive)?;
        let grace = Arc::new(Mutex::new(Some(HOST_GONE_GRACE)));
        watch_host(host, [&control, &active, &passive], Arc::clone(&grace))?;
        control
            .sender()
            .send_tagged(control::TAG_ATTACHED, bytemuck::bytes_of(&control::attached()))
            .map_err(|_| ConnectError::HostGone)?;
        let channels = Some((active, passive));
        let state = Mutex::new(State { control, channels, ready: false });
        Ok(Self { name: announced.name, state, grace })
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

    /// How long this process may outlive its host. When the host dies, channels are disconnected at
    /// once; a process that is still there after the grace is ended with
    /// [`EXIT_CODE_HOST_GONE`]. 2 s unless changed; `None` lets it live.
    pub fn set_host_gone_grace(&self, grace: Option<Duration>) {
        *self.grace.lock().unwrap_or_else(PoisonError::into_inner) = grace;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn tell_ready(state: &mut State) -> Result<(), TakeChannelsError> {
    if !state.ready {
        state
            .control
            .sender()
            .send_tagged(control::TAG_READY, bytemuck::bytes_of(&control::ready()))
            .map_err(|_| TakeChannelsError::HostGone)?;
        state.ready = true;
    }
    Ok(())
}

/// Takes all four descriptors, or none is left open.
fn take_all(announced: &Announcement) -> Result<[OwnedFd; 4], ConnectError> {
    let take = |what, fd| {
        take_inherited(fd).map_err(|source| ConnectError::Descriptor { what, fd, source })
    };
    Ok([
        take("the host's pidfd", announced.host)?,
        take("the control channel", announced.control)?,
        take("the active channel", announced.active)?,
        take("the passive channel", announced.passive)?,
    ])
}

/// Disconnects the channels when the host dies, and ends the process some time later. The watch
/// lasts as long as the process.
fn watch_host(
    host: OwnedFd,
    channels: [&Channel; 3],
    grace: Arc<Mutex<Option<Duration>>>,
) -> Result<(), ConnectError> {
    /// Keeps the watch for as long as the process lives.
    static WATCH: Mutex<Option<WatchToken>> = Mutex::new(None);
    let os = |call| move |source| ConnectError::Os { call, source };
    // Weak, so that a channel's memory goes with its ends.
    let connections = channels.map(|channel| Arc::downgrade(channel.connection()));
    let on_death = move || {
        for connection in connections.iter().filter_map(Weak::upgrade) {
            connection.peer_died(ExitReason::Unknown, false);
        }
        let grace = *grace.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(grace) = grace {
            end_after(grace);
        }
    };
    let token = supervisor::watch(host, Box::new(on_death)).map_err(os("watching the host"))?;
    *WATCH.lock().unwrap_or_else(PoisonError::into_inner) = Some(token);
    Ok(())
}

/// Ends the process after `grace`, from a thread of its own, so that other deaths are still noticed.
fn end_after(grace: Duration) {
    let end = move || {
        thread::sleep(grace);
        exit_now(EXIT_CODE_HOST_GONE)
    };
    if thread::Builder::new().name("ringway-host-gone".into()).spawn(end).is_err() {
        exit_now(EXIT_CODE_HOST_GONE);
    }
}
