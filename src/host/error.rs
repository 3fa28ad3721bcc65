//! What can go wrong between a host and its plugins.
//!
//! Returned by [`Host`](super::Host), [`PluginHandle`](super::PluginHandle) and
//! [`Plugin`](super::Plugin). What always holds: after an error no process, descriptor or mapping
//! of the attempt is left.

use std::io;
use std::time::Duration;

use thiserror::Error;

use super::control::VARIABLE;
use super::isolation::IsolationStep;
use crate::error::{Corruption, ExitReason, SegmentError};
use crate::store::{HandleError as StoreHandleError, OpenError};

/// Why a host could not be made.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum HostError {
    /// The kernel is too old, or a filter of system calls takes something away.
    #[error(
        "the kernel lacks {lacks}, which a host needs: Linux {since} has it, unless a filter of system calls refuses it"
    )]
    Kernel {
        /// What it lacks.
        lacks: &'static str,
        /// The first version that has it.
        since: &'static str,
    },
    /// A system call failed.
    #[error("the host could not be made: {call} failed: {source}")]
    Os {
        /// Which call.
        call: &'static str,
        /// What it said.
        source: io::Error,
    },
    /// The channel over which the host's own threads talk could not be created.
    #[error("a channel that the host needs could not be made: {0}")]
    Bell(SegmentError),
    /// The store could not be made.
    #[error("the host's store could not be made: {0}")]
    Store(#[from] OpenError),
    /// There is no handle of the store for the host itself.
    #[error("the host has no handle of its own store: {0}")]
    Handle(#[from] StoreError),
}

/// Why there is no handle of a host's store.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The host has no store, or the plugin is not to have it.
    #[error(
        "there is no store for this process: build the host with one, and do not deny it to the plugin (`no_store`)"
    )]
    None,
    /// The store is good, and there is no handle to be had.
    #[error(transparent)]
    Handle(#[from] StoreHandleError),
    /// The plugin cannot attach the store.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A system call failed.
    #[error("no handle of the host's store: {call} failed: {source}")]
    Os {
        /// Which call.
        call: &'static str,
        /// What it said.
        source: io::Error,
    },
}

/// What is wrong with a plugin's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum NameError {
    /// No characters.
    #[error("is empty")]
    Empty,
    /// Too many bytes.
    #[error("has {len} bytes, at most {max} are allowed")]
    TooLong {
        /// Length of the name.
        len: usize,
        /// Longest possible.
        max: usize,
    },
    /// A slash, or a control character such as NUL or a line break.
    #[error("contains {0:?}; slashes and control characters are not allowed")]
    Character(char),
}

/// Why a plugin was not started.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SpawnError {
    /// A name that no plugin can have.
    #[error("plugin name {name:?} {problem}")]
    Name {
        /// The name.
        name: String,
        /// What is wrong with it.
        problem: NameError,
    },
    /// A plugin of this host has that name and has not ended.
    #[error("a plugin named {name:?} is running already: end it first, or choose another name")]
    Duplicate {
        /// The name.
        name: String,
    },
    /// A channel could not be created.
    #[error("the plugin's channels could not be made: {0}")]
    Segment(#[from] SegmentError),
    /// There is no descriptor of the store for the plugin.
    #[error("the plugin's descriptors of the host's store could not be made: {0}")]
    Store(SegmentError),
    /// The program could not be executed.
    #[error(
        "the plugin's program {program:?} could not be executed: {source}; check its path, its mode and its interpreter"
    )]
    Exec {
        /// The program.
        program: String,
        /// What the system said.
        source: io::Error,
    },
    /// The program was not executed in time: somebody has stopped the new process, or a file system does
    /// not answer. The process was killed.
    #[error(
        "the plugin's program {program:?} was not executed within {timeout:?}: the new process was stopped, or waits for a file system; it was killed, start the plugin again"
    )]
    NotExecuted {
        /// The program.
        program: String,
        /// How long it had.
        timeout: Duration,
    },
    /// The host's [keeper](super::HostBuilder::keeper) ended while it started the plugin.
    #[error(
        "the host's keeper process ended while it started the plugin; start the plugin again: the host \
         then starts it itself"
    )]
    KeeperEnded,
    /// The host's [keeper](super::HostBuilder::keeper) does not answer: somebody has stopped it.
    #[error(
        "the host's keeper process (ringway-keeper) did not answer within {timeout:?}: continue it (SIGCONT), \
         or kill it and the host starts plugins itself"
    )]
    KeeperSilent {
        /// How long it had.
        timeout: Duration,
    },
    /// The plugin's process could not be made what its [`PluginSpec`](super::PluginSpec) says, so its
    /// program was not executed.
    #[error("the plugin's process could not be prepared: {step}: {source}")]
    Isolation {
        /// What failed.
        step: IsolationStep,
        /// What the system said.
        source: io::Error,
    },
    /// The plugin ended before it was ready.
    #[error(
        "the plugin ended before it was ready: {reason}; it must call Plugin::connect and take its channels"
    )]
    Exited {
        /// How it ended.
        reason: ExitReason,
    },
    /// The plugin was not ready in time, and has been killed.
    #[error(
        "the plugin was not ready within {timeout:?}: it must call Plugin::connect and take its channels"
    )]
    NotReady {
        /// How long it had.
        timeout: Duration,
    },
    /// The plugin speaks another version of the handshake, and has been killed.
    #[error(
        "the plugin speaks version {found} of the handshake, this host speaks {expected}; build both from one version of ringway"
    )]
    Version {
        /// What the plugin speaks.
        found: u32,
        /// What it should speak.
        expected: u32,
    },
    /// The plugin broke the handshake, and has been killed.
    #[error(
        "the plugin broke the handshake: message {found:#x} of {len} bytes, expected {expected:#x}; build host and plugin from one version of ringway"
    )]
    Handshake {
        /// Tag of the message that came.
        found: u16,
        /// Its length.
        len: usize,
        /// Tag of the message that should have come.
        expected: u16,
    },
    /// The plugin damaged a channel, or kept the host from sealing it, and has been killed.
    #[error("the plugin's channels are corrupt: {0}; the plugin was killed")]
    Corrupt(#[from] Corruption),
    /// The process has forked since the host was made; the host belongs to the parent.
    #[error(
        "this host belongs to the process that this one was forked from; build one in this process"
    )]
    Forked,
    /// The plugin was told to end while it was being started.
    #[error(
        "the plugin was told to end while it was being started; start it again if it is to run"
    )]
    Stopped,
    /// A system call failed.
    #[error("the plugin could not be started: {call} failed: {source}")]
    Os {
        /// Which call.
        call: &'static str,
        /// What it said.
        source: io::Error,
    },
}

/// Why a process could not connect to its host.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// No host has started this process.
    #[error(
        "this process was not started by a host: the environment variable {variable} is not set; start it with Host::spawn"
    )]
    NoHost {
        /// The variable.
        variable: &'static str,
    },
    /// The host speaks another version of the handshake.
    #[error(
        "the host speaks version {found:?} of the handshake, this plugin speaks {expected}; build both from one version of ringway"
    )]
    Version {
        /// What the host speaks.
        found: String,
        /// What this build speaks.
        expected: u32,
    },
    /// The environment variable does not say what it should.
    #[error(
        "the environment variable {variable}={value:?}, with which a host announces itself, is malformed: {problem}; start this process with Host::spawn, and do not set the variable"
    )]
    Malformed {
        /// The variable.
        variable: &'static str,
        /// Its value.
        value: String,
        /// What is missing or wrong.
        problem: &'static str,
    },
    /// A descriptor that was announced is not there. So it is where a plugin starts this very
    /// program again: its child inherits the variable, and not the descriptors.
    #[error(
        "descriptor {fd} ({what}), which a host has announced to a plugin, was not inherited: {source}; \
         where a plugin has started this process, it should not hand on {VARIABLE}"
    )]
    Descriptor {
        /// What it should be.
        what: &'static str,
        /// Its number.
        fd: i32,
        /// What is wrong with it.
        source: io::Error,
    },
    /// A channel could not be attached.
    #[error("the {what} channel that the host made cannot be attached: {source}")]
    Segment {
        /// Which channel.
        what: &'static str,
        /// What is wrong with it.
        source: SegmentError,
    },
    /// This process has connected already.
    #[error("this process has connected to its host already; keep the first `Plugin`")]
    AlreadyConnected,
    /// The host is gone, or does not listen.
    #[error("this plugin cannot connect: its host has ended, or does not listen; end this process")]
    HostGone,
    /// A system call failed.
    #[error("this plugin cannot connect to its host: {call} failed: {source}")]
    Os {
        /// Which call.
        call: &'static str,
        /// What it said.
        source: io::Error,
    },
}

/// Why a plugin's request has not reached its host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RequestError {
    /// The host does not listen before the plugin is ready.
    #[error("the plugin is not ready: it must take its channels, or call Plugin::ready, first")]
    NotReady,
    /// This process has made a request already; the host listens to one.
    #[error("this process has asked the host for a stop or restart already; wait for it")]
    AlreadyMade,
    /// A reason that is too long.
    #[error("the reason of the request has {len} bytes, at most {max} are taken; shorten it")]
    TooLong {
        /// Its length.
        len: usize,
        /// Longest possible.
        max: usize,
    },
    /// The host is gone.
    #[error("the request was not made: the host has ended, so end this process")]
    HostGone,
}

/// What is wrong with what a plugin sent where a request should stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RequestProblem {
    /// No kind of request.
    #[error("the plugin sent message {found:#x}, which is no request")]
    Tag {
        /// Tag of the message.
        found: u16,
    },
    /// A reason that is too long.
    #[error("the plugin sent a reason of {len} bytes, at most {max} are allowed")]
    TooLong {
        /// Its length.
        len: usize,
        /// Longest possible.
        max: usize,
    },
    /// A reason that is not UTF-8.
    #[error("the plugin sent a reason that is not UTF-8 text")]
    NotText,
    /// The control ring is corrupt.
    #[error("the plugin's control channel is corrupt: {0}")]
    Corrupt(#[from] Corruption),
}

/// Why a plugin cannot be acted upon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum HandleError {
    /// The process has forked since the plugin was started; the plugin belongs to the parent.
    #[error("this plugin belongs to the process that this one was forked from; use its host there")]
    Forked,
    /// The plugin has no process, or one that has been told to end.
    #[error("the plugin does not run; start or restart it first")]
    NotRunning,
    /// The system does not let the host signal the plugin's process.
    #[error(
        "the plugin's process may not be signalled: {}; the host needs the plugin's user id, or CAP_KILL",
        std::io::Error::from_raw_os_error(*os_error)
    )]
    Denied {
        /// What the system said, as a number.
        os_error: i32,
    },
    /// It has not ended in time.
    #[error("the plugin has not ended in time; wait longer, or kill it")]
    Timeout,
    /// Called from one of the plugin's own hooks, which the plugin's end would wait for. What was
    /// asked for has been begun, and goes on when the hook returns.
    #[error(
        "a hook of this plugin cannot wait for the plugin's end; call this from another thread"
    )]
    InHook,
}

/// Why a plugin's channels cannot be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TakeChannelsError {
    /// They have been taken already.
    #[error("the plugin's channels have been taken already; take_channels gives them out once")]
    Taken,
    /// The host is gone.
    #[error("the host has ended, and its channels with it; end this process")]
    HostGone,
    /// The process has forked since the plugin was started; the channels belong to the parent.
    #[error(
        "the plugin's channels belong to the process that this one was forked from; take them there"
    )]
    Forked,
}
