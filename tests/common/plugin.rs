//! This test binary as a plugin: which part it plays is said in an environment variable.

use std::env;
use std::process::{self, Command, Stdio};
use std::thread;
use std::time::Duration;

use ringway::error::RecvError;
use ringway::host::{Plugin, PluginSpec};

/// Longer than anything takes; reached only by a test that has failed.
pub const NEVER: Duration = Duration::from_secs(60);

const ROLE: &str = "RINGWAY_TEST_ROLE";

/// The command that executes this binary again, in a role.
pub fn command(role: &str) -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", "plugin_entry", "--nocapture", "--test-threads=1"]);
    command.env(ROLE, role).stdin(Stdio::null()).stdout(Stdio::null());
    command
}

pub fn spec(name: &str, role: &str) -> PluginSpec {
    spec_of(name, command(role))
}

pub fn spec_of(name: &str, command: Command) -> PluginSpec {
    PluginSpec::new(name, command).ready_timeout(NEVER)
}

/// Plays the role that this process was started for, if any, and ends the process.
pub fn run_role() {
    let Ok(role) = env::var(ROLE) else { return };
    match role.as_str() {
        "echo" => echo(),
        other => panic!("unknown role {other}"),
    }
    process::exit(0);
}

/// Answers every message on either channel with itself.
fn echo() {
    let plugin = Plugin::connect().unwrap();
    let (active, passive) = plugin.take_channels().unwrap();
    let threads = [active, passive].map(|channel| {
        thread::spawn(move || {
            let (mut sender, mut receiver) = channel.split();
            loop {
                match receiver.recv() {
                    Ok(message) => {
                        if sender.send_tagged(message.tag(), &message).is_err() {
                            return;
                        }
                    }
                    Err(RecvError::Disconnected) => return,
                    Err(error) => panic!("{error}"),
                }
            }
        })
    });
    for thread in threads {
        thread.join().unwrap();
    }
}
