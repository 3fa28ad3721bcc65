//! The job that `tests/environment/run` runs in unusual environments: each part ends in success, or in an
//! error that says what is missing.
//!
//! Prints a line for each part. `cargo test` runs it in the environment that there is, where every part
//! must succeed. Arguments, from the script: `--refuse CALL=ERROR,...` (seccomp), `--ignore-sigchld`,
//! `--block-signals`, `--pin-late`, `--may-fail`.
#![allow(unsafe_code, missing_docs)]

#[path = "../common/seccomp.rs"]
mod seccomp;

use std::env;
use std::error::Error;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitCode, Stdio, exit};
use std::thread;
use std::time::Duration;

use ringway::channel::{self, Channel, ChannelOptions};
use ringway::error::RecvTimeoutError;
use ringway::host::{Host, Plugin, PluginSpec, Restart};
use ringway::store::{self, Store, StoreOptions};

type Outcome = Result<(), Box<dyn Error>>;
/// One part of the job; whether its threads move to another processor.
type Part = fn(bool) -> Outcome;

/// Longer than anything takes.
const LONG: Duration = Duration::from_secs(10);
const ROLE: &str = "RINGWAY_SMOKE_ROLE";

fn main() -> ExitCode {
    if let Ok(role) = env::var(ROLE) {
        return match play(&role) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                println!("  {role}: {error}");
                ExitCode::FAILURE
            }
        };
    }
    let arguments: Vec<String> = env::args().skip(1).collect();
    prepare(&arguments);
    let pin = arguments.iter().any(|argument| argument == "--pin-late");
    let parts: [(&str, Part); 4] = [
        ("named channel", named),
        ("anonymous channel", anonymous),
        ("store", store),
        ("host", host),
    ];
    let mut failed = 0;
    for (name, part) in parts {
        match part(pin) {
            Ok(()) => println!("{name}: ok"),
            Err(error) => {
                println!("{name}: {error}");
                failed += 1;
            }
        }
    }
    let may_fail = arguments.iter().any(|argument| argument == "--may-fail");
    println!("done, {failed} parts refused");
    if failed == 0 || may_fail { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Makes the environment that the arguments ask for; what `cargo test` may give is ignored.
fn prepare(arguments: &[String]) {
    for (at, argument) in arguments.iter().enumerate() {
        match argument.as_str() {
            "--refuse" => {
                let calls: Vec<_> = arguments[at + 1].split(',').map(call).collect();
                seccomp::refuse(&calls);
            }
            // SAFETY: sets a disposition; no handler is involved.
            "--ignore-sigchld" => unsafe {
                libc::signal(libc::SIGCHLD, libc::SIG_IGN);
            },
            "--block-signals" => block_signals(),
            _ => {}
        }
    }
}

fn block_signals() {
    // SAFETY: a set of zeros is one.
    let mut all: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: a set that outlives the call.
    unsafe { libc::sigfillset(&mut all) };
    // SAFETY: as above; the former mask is not asked for.
    unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &all, std::ptr::null_mut()) };
}

/// A system call and the error with which it is to fail, from `CALL=ERROR`.
fn call(text: &str) -> (libc::c_long, i32) {
    let (name, error) = text.split_once('=').expect("CALL=ERROR");
    let number = match name {
        "membarrier" => libc::SYS_membarrier,
        "pidfd_open" => libc::SYS_pidfd_open,
        "io_uring_setup" => libc::SYS_io_uring_setup,
        "memfd_create" => libc::SYS_memfd_create,
        "add_seals" => return (seccomp::ADD_SEALS, errno(error)),
        "close_range" => libc::SYS_close_range,
        "futex_waitv" => libc::SYS_futex_waitv,
        "linkat" => libc::SYS_linkat,
        other => panic!("no such call here: {other}"),
    };
    (number, errno(error))
}

fn errno(name: &str) -> i32 {
    match name {
        "EPERM" => libc::EPERM,
        "ENOSYS" => libc::ENOSYS,
        "EINVAL" => libc::EINVAL,
        other => panic!("no such error here: {other}"),
    }
}

/// This program again, in a role.
fn again(role: &str) -> Command {
    let mut command = Command::new(env::args_os().next().expect("its own name"));
    command.env(ROLE, role).stdin(Stdio::null());
    command
}

/// Ends a process, should it not have ended.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn name(what: &str) -> String {
    format!("smoke-{what}-{}", std::process::id())
}

/// Sends something, and gets it back.
fn round_trip(channel: &mut Channel, pin: bool) -> Outcome {
    for number in 0..200_u32 {
        if pin && number == 100 {
            pin_here()?;
        }
        channel.send_timeout(&number.to_ne_bytes(), LONG)?;
        let back = channel.recv_timeout(LONG)?;
        if *back != number.to_ne_bytes() {
            return Err("another message than was sent".into());
        }
    }
    Ok(())
}

/// Sends back what comes, until the peer has gone.
fn echo(mut channel: Channel) -> Outcome {
    loop {
        match channel.recv_timeout(LONG) {
            Ok(message) => {
                let message = message.to_vec();
                channel.send_timeout(&message, LONG)?;
            }
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Keeps this thread on the first CPU from here on.
fn pin_here() -> Outcome {
    // SAFETY: a set of zeros is an empty one.
    let mut cpus: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: as above.
    let mut allowed: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    let len = size_of::<libc::cpu_set_t>();
    // SAFETY: a set of this length that outlives the call.
    unsafe { libc::sched_getaffinity(0, len, &mut allowed) };
    // SAFETY: numbers within the set.
    let first = (0..1024).find(|cpu| unsafe { libc::CPU_ISSET(*cpu, &allowed) }).unwrap_or(0);
    // SAFETY: a number within the set.
    unsafe { libc::CPU_SET(first, &mut cpus) };
    // SAFETY: a set of this length that outlives the call.
    match unsafe { libc::sched_setaffinity(0, len, &cpus) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error().into()),
    }
}

fn named(pin: bool) -> Outcome {
    let name = name("channel");
    let mut first = Channel::create(&*name, &ChannelOptions::default())?;
    let mut run = || -> Outcome {
        let _peer = Ended(again("named").env("RINGWAY_SMOKE_NAME", &name).spawn()?);
        first.wait_for_peer(LONG)?;
        round_trip(&mut first, pin)
    };
    let outcome = run();
    drop(first);
    // The peer's process is dead; its lock is gone with it.
    let removed = channel::remove(&*name);
    outcome?;
    Ok(removed?)
}

fn anonymous(pin: bool) -> Outcome {
    let mut first = Channel::anonymous(&ChannelOptions::default())?;
    let descriptor = first.descriptor()?;
    let number = descriptor.as_raw_fd();
    let mut command = again("anonymous");
    command.env("RINGWAY_SMOKE_FD", number.to_string());
    let inherit = move || {
        // SAFETY: the call takes numbers.
        unsafe { libc::fcntl(number, libc::F_SETFD, 0) };
        Ok(())
    };
    // SAFETY: the hook makes one system call and allocates nothing.
    unsafe { command.pre_exec(inherit) };
    let _peer = Ended(command.spawn()?);
    drop(descriptor);
    round_trip(&mut first, pin)
}

fn store(_: bool) -> Outcome {
    let name = name("store");
    let options = StoreOptions { capacity_bytes: 1 << 18, ..StoreOptions::default() };
    let run = || -> Outcome {
        let store = Store::create(&*name, &options)?;
        store.set("key", b"first")?;
        let other = Store::open(&*name, &options)?;
        let mut watch = store.watch("key")?;
        let writer = thread::spawn(move || other.set("key", b"second"));
        let change = watch.wait(LONG)?.ok_or("no change was told")?;
        let version = writer.join().map_err(|_| "the writer has panicked")??;
        if change.version != Some(version) || *store.get("key")?.ok_or("no value")? != *b"second" {
            return Err("another value than was set".into());
        }
        Ok(())
    };
    let outcome = run();
    let removed = store::remove(&*name);
    outcome?;
    Ok(removed?)
}

fn host(_: bool) -> Outcome {
    let host = Host::builder().build()?;
    let restart = Restart::OnFailure {
        max_restarts: 3,
        backoff_initial: Duration::ZERO,
        backoff_max: Duration::ZERO,
    };
    let spec = PluginSpec::new("echo", env::args_os().next().expect("its own name"))
        .env(ROLE, "plugin")
        .ready_timeout(LONG)
        .restart(restart);
    let plugin = host.spawn(spec)?;
    let (mut active, _passive) = plugin.take_channels()?;
    active.send_timeout(b"before", LONG)?;
    active.recv_timeout(LONG)?;
    plugin.kill()?;
    match active.recv_timeout(LONG).map(|message| message.to_vec()) {
        Err(RecvTimeoutError::Restarted { .. }) => {}
        other => return Err(format!("instead of a restart: {other:?}").into()),
    }
    while let Err(error) = active.send_timeout(b"after", LONG) {
        if !matches!(error, ringway::error::SendTimeoutError::Restarted { .. }) {
            return Err(error.into());
        }
    }
    active.recv_timeout(LONG)?;
    plugin.terminate()?;
    Ok(())
}

fn play(role: &str) -> Outcome {
    match role {
        "named" => {
            let name = env::var("RINGWAY_SMOKE_NAME")?;
            echo(Channel::open_timeout(&*name, &ChannelOptions::default(), LONG)?)
        }
        "anonymous" => {
            let number = env::var("RINGWAY_SMOKE_FD")?.parse()?;
            // SAFETY: the parent says that this is open, and for this.
            let descriptor = unsafe { OwnedFd::from_raw_fd(number) };
            echo(Channel::attach(descriptor, &ChannelOptions::default())?)
        }
        "plugin" => {
            let plugin = Plugin::connect()?;
            let (active, _passive) = plugin.take_channels()?;
            echo(active)
        }
        _ => exit(2),
    }
}
