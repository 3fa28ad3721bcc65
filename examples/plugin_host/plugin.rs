//! The plugin: answers every line with what it found there.

use std::env;
use std::error::Error;

use ringway::error::{RecvError, SendError};
use ringway::host::{Plugin, control};

use crate::work::{Answer, look_at};

/// Whether a host has started this process.
pub fn is_plugin() -> bool {
    env::var_os(control::VARIABLE).is_some()
}

pub fn run() -> Result<(), Box<dyn Error>> {
    let plugin = Plugin::connect()?;
    let (active, _passive) = plugin.take_channels()?;
    let (mut sender, mut receiver) = active.split();
    loop {
        let message = match receiver.recv() {
            Ok(message) => message,
            // The host has closed its end: there is no more to do.
            Err(RecvError::Disconnected) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let (number, line) = message.split_first_chunk().ok_or("a message without a number")?;
        let answer = Answer { number: u64::from_ne_bytes(*number), findings: look_at(line) };
        match sender.send_pod(&answer) {
            Ok(()) => {}
            Err(SendError::Disconnected) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}
