//! A chat bot whose plugins live in processes of their own: everything that holds it together.
//!
//! ```text
//! cargo run --release --example bot
//! ```
//!
//! The main process starts two plugins, which are this very program, executed again. `nonebot` takes what
//! people write and knows what to do with it; it is not trusted: it has the bot's storage read-only, and
//! writes through the host. `weather` is asked by both of the others; it is trusted with the storage. They
//! talk over active and passive channels, a topic, functions, the storage, and channels that they find by
//! name. Then `nonebot` asks for a restart, with messages waiting for it; `weather` is killed in the middle
//! of a call; and `nonebot` has `weather` restarted. Every step says what it expects, and the program fails
//! where that is not what happens.

mod checks;
mod host;
mod nonebot;
mod scenes;
mod wares;
mod weather;

use std::env;
use std::error::Error;
use std::process::ExitCode;

use ringway::host::{Plugin, control};

fn main() -> ExitCode {
    let (who, result) = match env::var_os(control::VARIABLE) {
        None => ("bot".into(), host::run()),
        Some(_) => plugin(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{who}: {error}");
            ExitCode::FAILURE
        }
    }
}

/// What a process does that a host has started.
fn plugin() -> (String, Result<(), Box<dyn Error>>) {
    let plugin = match Plugin::connect() {
        Ok(plugin) => plugin,
        Err(error) => return ("a plugin".into(), Err(error.into())),
    };
    let result = match plugin.name() {
        nonebot::NAME => nonebot::run(&plugin),
        weather::NAME => weather::run(&plugin),
        _ => Err("no such plugin".into()),
    };
    (plugin.name().into(), result)
}
