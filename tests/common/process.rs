//! What the tests of plugin processes share: roles, and questions about processes.

use std::fs;
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{self, Command};
use std::time::Duration;

use super::plugin::{self, NEVER};
use ringway::channel::Channel;
use ringway::error::{RecvTimeoutError, SendError};
use ringway::host::{Host, HostEventKind, Plugin, PluginHandle, PluginSpec, Stdio};

/// Answers every message, a path, with where the link there leads.
pub fn answer_links() {
    let plugin = Plugin::connect().unwrap();
    let (mut active, _passive) = plugin.take_channels().unwrap();
    while let Ok(path) = active.recv_owned() {
        let path = String::from_utf8_lossy(&path).into_owned();
        let target = fs::read_link(path).map(|path| path.to_string_lossy().into_owned());
        active.send(target.unwrap_or_else(|error| error.to_string()).as_bytes()).unwrap();
    }
    process::exit(0);
}

/// Has a child that runs no library and ignores SIGTERM, and tells its number.
pub fn has_a_child() {
    let plugin = Plugin::connect().unwrap();
    let (mut active, _passive) = plugin.take_channels().unwrap();
    // The shell tells that it ignores the signal, and then becomes what sleeps.
    let script = "trap '' TERM; echo; exec sleep 600";
    let mut child = Command::new("/bin/sh");
    let mut child = child.args(["-c", script]).stdout(process::Stdio::piped()).spawn().unwrap();
    let mut told = [0];
    child.stdout.as_mut().unwrap().read_exact(&mut told).unwrap();
    active.send(&child.id().to_ne_bytes()).unwrap();
    let _ = child.wait();
}

/// A host with a plugin that executes another program.
pub fn host_that_executes() {
    let host = plugin::host();
    let handle = host.spawn(plugin::spec("left", "echo")).unwrap();
    eprintln!("plugin {}", handle.pid().unwrap());
    let error = Command::new("sleep").arg("600").exec();
    panic!("{error}");
}

/// A host with a plugin that is ready, and then another program that knows nothing of hosts; waits to be
/// killed.
pub fn host_with_a_keeper() {
    let host = Host::builder().keeper().build().unwrap();
    let command = plugin::command("exit-when-ready");
    // The plugin proper ends; what waits for it goes on.
    let script = r#"trap '' TERM; "$0" "$@"; exec sleep 600"#;
    let spec = PluginSpec::new("wrapped", "/bin/sh").args(["-c", script]);
    let spec = spec.arg(command.get_program()).args(command.get_args());
    let handle = host.spawn(spec.env(plugin::ROLE, "exit-when-ready").stdout(Stdio::null()));
    eprintln!("plugin {}", handle.unwrap().pid().unwrap());
    plugin::hang();
}

pub fn ask(active: &mut Channel, path: &str) -> String {
    while let Err(SendError::Restarted { .. }) = active.send(path.as_bytes()) {}
    loop {
        match active.recv_timeout(NEVER) {
            Ok(message) => return String::from_utf8(message.to_vec()).unwrap(),
            Err(RecvTimeoutError::Restarted { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

pub fn active(handle: &PluginHandle) -> Channel {
    handle.take_channels().unwrap().0
}

pub fn kinds(host: &Host) -> Vec<HostEventKind> {
    std::iter::from_fn(|| host.next_event(Duration::ZERO)).map(|event| event.kind).collect()
}

/// The next event of this kind, whatever comes before it.
pub fn wait_for(host: &Host, mut is_it: impl FnMut(&HostEventKind) -> bool) -> HostEventKind {
    loop {
        let event = host.next_event(NEVER).expect("an event in time");
        if is_it(&event.kind) {
            return event.kind;
        }
    }
}

/// Waits until the process has ended.
pub fn has_ended(pidfd: &OwnedFd) -> bool {
    let mut poll = libc::pollfd { fd: pidfd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one entry, which outlives the call.
    unsafe { libc::poll(&mut poll, 1, NEVER.as_millis() as i32) == 1 }
}

pub fn is_root() -> bool {
    // SAFETY: the call takes nothing.
    let root = unsafe { libc::geteuid() } == 0;
    if !root {
        println!("skipped: this needs root");
    }
    root
}
