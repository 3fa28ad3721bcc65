//! This test binary as a plugin: which part it plays is said in an environment variable.

use std::env;
use std::fs::{self, File};
use std::os::fd::{IntoRawFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::{self, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::process as process_roles;
use super::{
    asking, calling, controlling, hostile, linking, publishing, serving, spoiling, storing,
};
use ringway::channel::{Channel, TypedChannel};
use ringway::error::{ExitReason, RecvError, SendError};
use ringway::host::control::VARIABLE;
use ringway::host::{ConnectError, Host, Plugin, PluginSpec, Restart};
use ringway::typed::Pod;

/// Longer than anything takes; reached only by a test that has failed.
pub const NEVER: Duration = Duration::from_secs(60);

/// How a plugin ends that was killed.
pub const KILLED: ExitReason = ExitReason::Signal(libc::SIGKILL);

pub fn host() -> Host {
    Host::builder().build().unwrap()
}

/// Restarts at once, so many times in a row.
pub fn restarts(max_restarts: u32) -> Restart {
    Restart::OnFailure {
        max_restarts,
        backoff_initial: Duration::ZERO,
        backoff_max: Duration::from_millis(1),
    }
}

pub const ROLE: &str = "RINGWAY_TEST_ROLE";
const ALONE: &str = "RINGWAY_TEST_ALONE";

/// The command that executes this binary again, in a role.
pub fn command(role: &str) -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", "plugin_entry", "--nocapture", "--test-threads=1"]);
    command.env(ROLE, role).env_remove(ALONE).stdin(Stdio::null()).stdout(Stdio::null());
    command
}

pub fn spec(name: &str, role: &str) -> PluginSpec {
    spec_of(name, command(role))
}

/// A plugin with a command's program, arguments and environment, and a null standard output.
pub fn spec_of(name: impl Into<String>, command: Command) -> PluginSpec {
    let mut spec = PluginSpec::new(name, command.get_program());
    spec = spec.args(command.get_args()).stdout(ringway::host::Stdio::null());
    for (key, value) in command.get_envs() {
        spec = match value {
            Some(value) => spec.env(key, value),
            None => spec.env_remove(key),
        };
    }
    spec.ready_timeout(NEVER)
}

/// A user and a group that own nothing.
pub const NOBODY: u32 = 65534;

/// The command that executes this binary again, in a role, whatever directories a user may not
/// enter on the way to it.
pub fn command_for_others(role: &str) -> Command {
    let template = command(role);
    let mut command = Command::new("/proc/self/exe");
    command.args(template.get_args()).stdin(Stdio::null()).stdout(Stdio::null());
    for (key, value) in template.get_envs() {
        match value {
            Some(value) => command.env(key, value),
            None => command.env_remove(key),
        };
    }
    command
}

/// Whether this process may start others under another user id; says so where it may not.
pub fn may_switch_user() -> bool {
    let may = Command::new("/proc/self/exe")
        .args(["--exact", "plugin_entry", "--test-threads=1"])
        .env_remove(ROLE)
        .stdout(Stdio::null())
        .uid(NOBODY)
        .gid(NOBODY)
        .status();
    match may {
        Ok(status) if status.success() => true,
        other => {
            println!("skipped: no process can be started under another user id here: {other:?}");
            false
        }
    }
}

/// [`alone`], under another user id.
pub fn alone_as_nobody(test: &str) -> bool {
    if env::var_os(ALONE).is_some() {
        return true;
    }
    let status = Command::new("/proc/self/exe")
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(ALONE, test)
        .uid(NOBODY)
        .gid(NOBODY)
        .status()
        .unwrap();
    assert!(status.success(), "{test}: {status}");
    false
}

/// Runs a test in a process of its own, because it counts what its process has. Tells whether this
/// is that process.
pub fn alone(test: &str) -> bool {
    if env::var_os(ALONE).is_some() {
        return true;
    }
    let status = Command::new(env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(ALONE, test)
        .status()
        .unwrap();
    assert!(status.success(), "{test}: {status}");
    false
}

/// Plays the role that this process was started for, if any, and ends the process.
pub fn run_role() {
    let Ok(role) = env::var(ROLE) else { return };
    match role.as_str() {
        "echo" => echo(),
        "exit-7" => process::exit(7),
        "exit-when-ready" => drop(Plugin::connect().unwrap().take_channels().unwrap()),
        "fail-when-ready" => {
            let _channels = Plugin::connect().unwrap().take_channels().unwrap();
            process::exit(3);
        }
        "fail-when-used" => {
            let (mut active, _passive) = Plugin::connect().unwrap().take_channels().unwrap();
            let _ = active.recv_owned();
            process::exit(3);
        }
        "never-ready" => {
            let _plugin = Plugin::connect().unwrap();
            hang();
        }
        "killed-in-handshake" => {
            let _plugin = Plugin::connect().unwrap();
            raise(libc::SIGKILL);
        }
        "deaf" => {
            ignore_sigterm();
            let _channels = Plugin::connect().unwrap().take_channels().unwrap();
            hang();
        }
        "speak" => {
            eprintln!("something went wrong");
            echo();
        }
        "die-of-poison" => die_of_poison(),
        "seal-first" => spoiling::seal_first(),
        "silent-commit" => spoiling::silent_commit(),
        "fork" => spoiling::fork_on_demand(),
        "flood" => spoiling::flood(),
        "lie" => spoiling::lie_on_demand(),
        "connect-errors" => connect_errors(),
        "host-of-two" => host_of_two(),
        "read-files" => read_files(),
        "typed" => typed(),
        "burn" => burn(),
        "lock" => {
            spoiling::lock_everything();
            spoiling::fork_on_demand();
        }
        "obey" => asking::obey(),
        "close-first" => asking::close_first(),
        "flood-requests" => asking::flood_requests(),
        "request-errors" => asking::request_errors(),
        "start-a-child" => asking::start_a_child(),
        "child-of-plugin" => asking::child_of_plugin(),
        "attack" => hostile::attack(),
        "punch-first" => hostile::punch_first(),
        "scribble" => hostile::scribble(),
        "ping" => serving::ping(),
        "use-store" => storing::use_store(),
        "use-topics" => publishing::use_topics(),
        "be-busy" => storing::be_busy(),
        "pin" => storing::pin(),
        "wait" => storing::wait(),
        "follow" => storing::follow(),
        "write-anyway" => hostile::write_anyway(),
        "stop-with-the-lock" => storing::stop_with_the_lock(),
        "misuse-service" => serving::misuse_service(),
        "host-of-a-pinger" => serving::host_of_a_pinger(),
        "ping-until-gone" => serving::ping_until_gone(),
        "react" => storing::react(),
        "control-others" => controlling::control_others(),
        "use-registry" => linking::use_registry(),
        "host-of-a-watcher" => controlling::host_of_a_watcher(),
        "watch-until-gone" => controlling::watch_until_gone(),
        "serve-functions" => calling::serve_functions(),
        "call-functions" => calling::call_functions(),
        "has-a-child" => process_roles::has_a_child(),
        "links" => process_roles::answer_links(),
        "host-that-executes" => process_roles::host_that_executes(),
        "host-with-a-keeper" => process_roles::host_with_a_keeper(),
        other => panic!("unknown role {other}"),
    }
    process::exit(0);
}

/// Adds numbers; exits with code 9 where its channels are not for that.
fn typed() {
    let plugin = Plugin::connect().unwrap();
    let (active, passive) = plugin.take_channels().unwrap();
    let (mut add, _) = match (active.typed::<Pod<u64>, Pod<[u64; 2]>>(), passive.typed()) {
        (Ok(active), Ok::<TypedChannel<Pod<u64>, Pod<[u64; 2]>>, _>(passive)) => (active, passive),
        _ => process::exit(9),
    };
    while let Ok([a, b]) = add.recv() {
        add.send(&(a + b)).unwrap();
    }
}

pub fn raise(signal: i32) {
    // SAFETY: the call takes a number.
    unsafe { libc::raise(signal) };
}

pub fn hang() -> ! {
    loop {
        thread::park();
    }
}

pub fn ignore_sigterm() {
    // SAFETY: ignoring a signal installs no handler.
    unsafe { libc::signal(libc::SIGTERM, libc::SIG_IGN) };
}

/// Answers every message with itself, until the host hangs up.
pub fn answer(channel: Channel, mut before: impl FnMut(&[u8])) {
    let (mut sender, mut receiver) = channel.split();
    loop {
        match receiver.recv() {
            Ok(message) => {
                before(&message);
                match sender.send_tagged(message.tag(), &message) {
                    Ok(()) => {}
                    Err(SendError::Disconnected) => return,
                    Err(error) => panic!("{error}"),
                }
            }
            Err(RecvError::Disconnected) => return,
            Err(error) => panic!("{error}"),
        }
    }
}

/// Answers on both channels.
pub fn echo() {
    let plugin = Plugin::connect().unwrap();
    let (active, passive) = plugin.take_channels().unwrap();
    let threads = [active, passive].map(|channel| thread::spawn(move || answer(channel, |_| ())));
    for thread in threads {
        thread.join().unwrap();
    }
}

fn die_of_poison() {
    let plugin = Plugin::connect().unwrap();
    let (active, _passive) = plugin.take_channels().unwrap();
    answer(active, |message| {
        if message == b"poison" {
            process::exit(9);
        }
    });
}

/// In a process that no host has started: every way in which connecting can fail.
fn connect_errors() {
    let set = |text: &str| {
        // SAFETY: this process has one thread that looks at the environment.
        unsafe { env::set_var(VARIABLE, text) };
        Plugin::connect()
    };
    assert!(matches!(Plugin::connect(), Err(ConnectError::NoHost { .. })));
    assert!(matches!(set("2 old"), Err(ConnectError::Version { .. })));
    assert!(matches!(set("5 host=3"), Err(ConnectError::Malformed { .. })));
    // A file that is not memory, inheritable as the host's descriptors are.
    let numbers = [0; 6].map(|_| {
        let file = File::open("/proc/self/exe").unwrap();
        // SAFETY: the call takes numbers.
        unsafe { libc::fcntl(file.into_raw_fd(), libc::F_DUPFD, 50) }
    });
    let [host, session, control, bell, active, passive] = numbers;
    let text = format!(
        "5 host={host} session={session} pulse=-1 control={control} bell={bell} active={active} \
         passive={passive} service=-1 store=-1 store-private=-1 payloads=-1 payloads-private=-1 post=-1 access=none name=wrong"
    );
    assert!(matches!(set(&text), Err(ConnectError::Segment { what: "control", .. })));
    // They were taken, so they are closed: what was refused, on another thread.
    let is_open = |fd: &RawFd| fs::exists(format!("/proc/self/fd/{fd}")).unwrap();
    let begun = Instant::now();
    while numbers.iter().any(is_open) {
        assert!(begun.elapsed() < NEVER, "{numbers:?}");
        thread::yield_now();
    }
    assert!(matches!(set(&text), Err(ConnectError::AlreadyConnected)));
}

/// A host that tells its plugins' numbers, and then waits to be killed.
fn host_of_two() {
    let host = Host::builder().build().unwrap();
    let first = host.spawn(spec("first", "echo")).unwrap();
    let second = host.spawn(spec("second", "deaf")).unwrap();
    eprintln!("plugins {} {}", first.pid().unwrap(), second.pid().unwrap());
    hang();
}

/// Answers every message, a path, with what is in the file, or with the error.
fn read_files() {
    let plugin = Plugin::connect().unwrap();
    let (mut active, _passive) = plugin.take_channels().unwrap();
    while let Ok(path) = active.recv_owned() {
        let path = String::from_utf8_lossy(&path).into_owned();
        let text = fs::read_to_string(path).unwrap_or_else(|error| error.to_string());
        active.send(text.as_bytes()).unwrap();
    }
}

/// Uses up processor time.
fn burn() {
    let plugin = Plugin::connect().unwrap();
    let _channels = plugin.take_channels().unwrap();
    loop {
        std::hint::spin_loop();
    }
}
