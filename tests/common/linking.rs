//! Plugins that register channels and open others', as messages tell them to.

use std::collections::HashMap;
use std::env;
use std::fmt::Debug;
use std::process;
use std::time::Duration;

use ringway::channel::{Channel, ChannelOptions, TypedChannel};
use ringway::error::{RecvError, RecvTimeoutError};
use ringway::host::{ChannelListener, Host, Plugin, Ticket};
use ringway::typed::Pod;

use super::held::held;
use super::plugin::{self, NEVER};

/// A host that links processes.
pub fn linking_host() -> Host {
    Host::builder().links().build().unwrap()
}

/// Small, so that many fit.
pub fn small() -> ChannelOptions {
    ChannelOptions { capacity_bytes: 4096, ..ChannelOptions::default() }
}

#[derive(Default)]
struct Things {
    listeners: HashMap<String, ChannelListener>,
    /// By the name under which they were opened or accepted.
    channels: HashMap<String, Channel>,
}

/// Does what each message says, and answers with what came of it.
pub fn use_registry() {
    let plugin = Plugin::connect().unwrap();
    let (mut active, _passive) = plugin.take_channels().unwrap();
    let mut things = Things::default();
    loop {
        let order = match active.recv_owned() {
            Ok(message) => message.to_vec(),
            Err(RecvError::Disconnected) => return,
            Err(error) => panic!("{error}"),
        };
        active.receiver().release();
        if let Some(ticket) = order.strip_prefix(b"ticket ") {
            // A message of its own, as plain data.
            let ticket: Ticket = bytemuck::pod_read_unaligned(ticket);
            let opened = plugin.open_ticket(&ticket, &small(), NEVER);
            let answer =
                told(opened.map(|channel| drop(things.channels.insert("ticket".into(), channel))));
            active.send(answer.as_bytes()).unwrap();
            continue;
        }
        if order == b"draw" {
            let listener = plugin.unnamed_channel(&small()).unwrap();
            active.send_pod(&listener.ticket().unwrap()).unwrap();
            things.listeners.insert("drawn".into(), listener);
            continue;
        }
        let answer = obey(&plugin, &mut things, str::from_utf8(&order).unwrap());
        active.send(answer.as_bytes()).unwrap();
    }
}

fn told<E: Debug>(result: Result<(), E>) -> String {
    result.map_or_else(|error| format!("{error:?}"), |()| "done".into())
}

/// One order: a word for what to do, a name, and perhaps a text.
fn obey(plugin: &Plugin, things: &mut Things, order: &str) -> String {
    let mut words = order.splitn(3, ' ');
    let mut word = || words.next().unwrap_or_default();
    let (what, name, text) = (word(), word(), word());
    let Things { listeners, channels } = things;
    match what {
        "register" => told(plugin.register_channel(name, &small()).map(|listener| {
            listeners.insert(name.into(), listener);
        })),
        "register-numbers" => {
            let options = TypedChannel::<Pod<u64>, Pod<u32>>::options(&small());
            told(plugin.register_channel(name, &options).map(|listener| {
                listeners.insert(name.into(), listener);
            }))
        }
        "unregister" => format!("{}", listeners.remove(name).is_some()),
        "open" => told(plugin.open_channel(name, &small(), NEVER).map(|channel| {
            channels.insert(name.into(), channel);
        })),
        "open-soon" => {
            let soon = Duration::from_millis(10);
            told(plugin.open_channel(name, &small(), soon).map(drop))
        }
        "open-numbers" => {
            let opened = plugin.open_typed::<Pod<u32>, Pod<u64>>(name, &small(), NEVER);
            told(opened.map(|channel| drop(channels.insert(name.into(), channel.into_inner()))))
        }
        "accept" => match listeners[name].accept_from(NEVER) {
            Ok((channel, from)) => {
                channels.insert(name.into(), channel);
                format!("from {from:?}")
            }
            Err(error) => format!("{error:?}"),
        },
        "say" => told(channels.get_mut(name).expect("a channel").send(text.as_bytes())),
        "hear" => match channels.get_mut(name).expect("a channel").recv_timeout(NEVER) {
            Ok(message) => String::from_utf8(message.to_vec()).unwrap(),
            Err(RecvTimeoutError::Disconnected) => "Disconnected".into(),
            Err(error) => format!("{error:?}"),
        },
        "close" => format!("{}", channels.remove(name).is_some()),
        "list" => plugin.channels().map_or_else(
            |error| format!("{error:?}"),
            |all| {
                let each = all
                    .iter()
                    .map(|one| format!("{} {}", one.name, one.plugin.as_deref().unwrap_or("host")));
                each.collect::<Vec<_>>().join(", ")
            },
        ),
        "held" => format!("{:?}", held()),
        other => other.into(),
    }
}

/// Plays a role that only tests of links need, if this process was started for one, and ends the process.
pub fn run_role() {
    match env::var(plugin::ROLE).as_deref() {
        Ok("host-that-forks") => host_that_forks(),
        Ok("listen-until-gone") => listen_until_gone(),
        _ => return,
    }
    process::exit(0);
}

/// A host that is to be killed, and a child of it that keeps all its descriptors open.
fn host_that_forks() {
    let host = linking_host();
    let _plugin = host.spawn(plugin::spec("listener", "listen-until-gone")).unwrap();
    // SAFETY: the child of a process with threads makes no calls but this one, again and again.
    let child = unsafe { libc::fork() };
    if child == 0 {
        loop {
            // SAFETY: the call waits for a signal.
            unsafe { libc::pause() };
        }
    }
    eprintln!("child {child}");
    plugin::hang();
}

/// Waits for links and for messages of one until there cannot be any, and says so.
fn listen_until_gone() {
    let plugin = Plugin::connect().unwrap();
    plugin.set_host_gone_grace(None);
    let _channels = plugin.take_channels().unwrap();
    let listener = plugin.register_channel("name", &small()).unwrap();
    let mut ours = plugin.open_channel("name", &small(), NEVER).unwrap();
    let _theirs = listener.accept(NEVER).unwrap();
    eprintln!("waits");
    let told = (listener.accept(NEVER).map(drop), ours.recv_timeout(NEVER).map(drop));
    eprintln!("{told:?}");
}
