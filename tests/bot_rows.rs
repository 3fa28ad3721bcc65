//! What a bot's host and its plugin processes need of channels, in real processes: each call that waits, with the death of
//! either side while it does.
//!
//! Where to find the proof of each capability; what is not named by a file is in this one:
//!
//! | capability | what it does | who dies while what waits |
//! |---|---|---|
//! | channel, full duplex | `channel_full_duplex` | `a_plugin_killed_…`, `a_host_killed_…`; at any instruction: `kills`, `kills_host` |
//! | a pair for each plugin process | `a_pair_for_each_plugin_process` | both are checked by the above |
//! | active mode | `active_mode_and_one_mode_per_channel` | as above, for each call that waits |
//! | passive mode | `passive`: `passive_mode_calls_…`, `…_takes_callbacks_…`, `f42_…` | `passive_plugins`: `passive_mode_killed_in_a_callback_…`, `…_killed_while_it_waits_…`, `…_is_told_of_the_peers_death_…` |
//! | one mode per channel | the example that does not compile in `src/channel/passive.rs`; `active_mode_and_one_mode_per_channel` | |
//! | typed channel | `typed_channel`; `typed`, `host`: `f11_a_plugin_notices_…` | as above, with values; `host`: `channels_that_a_host_creates_for_types_…` |
//! | process control | `host_requests`: a plugin about itself; `host_control`: about others | `host_control`: `f02_…`, `f03_…`, `plugins_that_restart_each_other_…` |
//! | restart | `host`: `killed_in_the_middle_…`; `host_control`: `a_plugin_restarted_by_another_…` | `host_requests`: `a_plugin_that_asks_and_ends_at_once_…`; `kills_host` |
//! | terminate | `host`: `a_plugin_that_ignores_sigterm_…`; `leftovers`: nothing is left | `leftovers`: `plugins_end_when_their_host_is_killed_…`, `f08_…` |
//! | lifecycle hooks | `host_hooks`: `each_moment_…` | `host_hooks`: every moment, with the plugin killed before it |
//! | storage set, get, delete, get_all | `bot_storage`; `host_store`: `…_uses_the_store_as_the_host_does` | `host_store`: `f04_…`, `f05_…`; `store_batch`: `f04_…` |
//!
//! This test binary is executed again as the plugin. What always holds: a plugin is ended by its host at the end of each
//! test, also where the test fails.
#![allow(unsafe_code, missing_docs)]

mod common;

use std::env;
use std::io::{BufRead, BufReader};
use std::process::{self, Stdio};
use std::thread;
use std::time::Duration;

use common::plugin::{self, KILLED, NEVER, host};
use ringway::channel::{Channel, ChannelOptions, ChannelTypes, Message, TypedChannel};
use ringway::error::{
    RecvError, RecvTimeoutError, SendError, SendTimeoutError, TryRecvError, TrySendError,
};
use ringway::host::{Plugin, PluginHandle, PluginSpec, TakeChannelsError};
use ringway::typed::Pod;

/// How often a side is killed while it waits in each way.
const KILLS: usize = 10;

/// Every call that waits for a message, and the one that waits for room.
const WAITS: [&str; 5] = ["recv", "recv_timeout", "recv_owned", "values", "send"];

fn options() -> ChannelOptions {
    let types = ChannelTypes::of::<Pod<u64>, Pod<u64>>();
    ChannelOptions { capacity_bytes: 4096, types, ..ChannelOptions::default() }
}

fn spec(name: &str, role: &str) -> PluginSpec {
    plugin::spec(name, role).channel_options(options())
}

fn take(plugin: &PluginHandle) -> (Channel, Channel) {
    plugin.take_channels().unwrap()
}

/// Waits in this way until the other side is gone, and says what that is.
fn wait(channel: Channel, how: &str) -> String {
    let mut channel = channel;
    match how {
        "recv" => format!("{:?}", channel.recv().map(drop).unwrap_err()),
        "recv_timeout" => format!("{:?}", channel.recv_timeout(NEVER).map(drop).unwrap_err()),
        "recv_owned" => format!("{:?}", channel.recv_owned().map(drop).unwrap_err()),
        "values" => {
            let values: TypedChannel<Pod<u64>, Pod<u64>> = channel.typed().unwrap();
            let (_sender, mut receiver) = values.split();
            assert_eq!(receiver.iter().count(), 0);
            format!("{:?}", receiver.recv().map(drop).unwrap_err())
        }
        "send" => loop {
            if let Err(error) = channel.send_pod(&1_u64) {
                break format!("{error:?}");
            }
        },
        other => panic!("{other}"),
    }
}

/// Fills the ring, so that the next message has to wait.
fn fill(channel: &mut Channel) -> u64 {
    for number in 0.. {
        match channel.sender().try_send(&u64::to_ne_bytes(number)) {
            Ok(()) => {}
            Err(TrySendError::Full) => return number,
            Err(error) => panic!("{error}"),
        }
    }
    unreachable!()
}

/// The roles of this binary as a plugin, or as a host.
#[test]
fn plugin_entry() {
    let Ok(role) = env::var(plugin::ROLE) else { return };
    match role.as_str() {
        "full-duplex" => full_duplex(),
        "modes" => modes(),
        _ if role.starts_with("waits-") => waits(&role["waits-".len()..]),
        _ if role.starts_with("host-") => {
            let how = &role["host-".len()..];
            let host = host();
            let _plugin = host.spawn(spec("waiting", &format!("waits-{how}"))).unwrap();
            plugin::hang();
        }
        _ => plugin::run_role(),
    }
    process::exit(0);
}

/// Says on the passive channel, and to whoever reads its errors, that it is about to wait on the active one; then what that
/// ended with.
fn waits(how: &str) {
    let plugin = Plugin::connect().unwrap();
    plugin.set_host_gone_grace(None);
    let (mut active, mut passive) = plugin.take_channels().unwrap();
    if how == "send" {
        fill(&mut active);
    }
    passive.send_pod(&0_u64).unwrap();
    eprintln!("waits");
    eprintln!("{}", wait(active, how));
}

const MANY: u64 = 20_000;

/// Sends as many as it receives, at the same time.
fn full_duplex() {
    let plugin = Plugin::connect().unwrap();
    let (active, passive) = plugin.take_channels().unwrap();
    exchange(active, MANY);
    drop(passive);
}

/// Sends numbers from `first` on, and checks that those of the other side come, whole and in order, and none of its own.
fn exchange(channel: Channel, first: u64) {
    let (mut sender, mut receiver) = channel.split();
    let sending = thread::spawn(move || {
        for number in first..first + MANY {
            sender.send_pod(&number).unwrap();
        }
        sender
    });
    let others = MANY - first;
    for number in others..others + MANY {
        assert_eq!(receiver.recv_pod::<u64>(), Ok(number));
    }
    drop(sending.join().unwrap());
}

#[test]
fn channel_full_duplex() {
    let host = host();
    let plugin = host.spawn(spec("duplex", "full-duplex")).unwrap();
    let (active, _passive) = take(&plugin);
    exchange(active, 0);
    assert_eq!(plugin.wait_exit(NEVER), Ok(ringway::error::ExitReason::Code(0)));
}

#[test]
fn a_pair_for_each_plugin_process() {
    let host = host();
    let names = ["nonebot", "melobot"];
    let mut plugins = names.map(|name| {
        let plugin = host.spawn(plugin::spec(name, "echo")).unwrap();
        assert_eq!(plugin.name(), name);
        let pair = take(&plugin);
        // They are there once, and ready.
        assert_eq!(plugin.take_channels().map(drop), Err(TakeChannelsError::Taken));
        (plugin, pair)
    });
    for (number, (_, (active, passive))) in plugins.iter_mut().enumerate() {
        active.send_pod(&(10 + number)).unwrap();
        passive.send_pod(&(20 + number)).unwrap();
    }
    for (number, (_, (active, passive))) in plugins.iter_mut().enumerate() {
        assert_eq!(passive.recv_pod(), Ok(20 + number), "each has its own");
        assert_eq!(active.recv_pod(), Ok(10 + number));
        assert_eq!(active.try_recv().map(drop), Err(TryRecvError::Empty));
    }
}

/// Answers by each call of active mode in turn, then goes over to passive mode.
fn modes() {
    let plugin = Plugin::connect().unwrap();
    let (active, _passive) = plugin.take_channels().unwrap();
    let (mut sender, mut receiver) = active.split();
    let mut answer = |message: &[u8]| sender.send(message).unwrap();
    let message = receiver.recv().unwrap().to_vec();
    answer(&message);
    let message = loop {
        match receiver.try_recv() {
            Ok(message) => break message.to_vec(),
            Err(TryRecvError::Empty) => thread::yield_now(),
            Err(error) => panic!("{error}"),
        }
    };
    answer(&message);
    let none = receiver.recv_timeout(Duration::from_millis(1)).map(drop);
    assert_eq!(none, Err(RecvTimeoutError::Timeout));
    answer(b"timeout");
    let message = receiver.recv_timeout(NEVER).unwrap().to_vec();
    answer(&message);
    let mut left = 3;
    while left > 0 {
        let message = receiver.recv_owned().unwrap();
        answer(&message);
        left -= 1;
    }
    // The receiver goes to the callbacks, and comes back: there is no other way to either mode.
    let (tell, told) = std::sync::mpsc::channel();
    let running = receiver
        .on_receive(|_: &Message<'_>| true, move |m: &Message<'_>| tell.send(m.to_vec()))
        .unwrap();
    let message = told.recv().unwrap();
    // Before the answer: what comes after that is not for the callback.
    let mut receiver = running.stop().unwrap();
    answer(&message);
    let message = receiver.recv().unwrap().to_vec();
    answer(&message);
}

/// And what becomes of it: that the modes cannot be mixed is a matter of types, see the example that does not compile in
/// `src/channel/passive.rs`.
#[test]
fn active_mode_and_one_mode_per_channel() {
    let host = host();
    let plugin = host.spawn(plugin::spec("modes", "modes")).unwrap();
    let (mut active, _passive) = take(&plugin);
    for step in 0..9_u64 {
        if step == 2 {
            // It has waited for something that did not come.
            assert_eq!(active.recv_timeout(NEVER).unwrap().bytes(), b"timeout");
            continue;
        }
        active.send_pod(&step).unwrap();
        assert_eq!(active.recv_pod::<u64>(), Ok(step));
    }
    assert_eq!(active.recv().map(drop), Err(RecvError::Disconnected));
}

#[test]
fn typed_channel() {
    let host = host();
    let adding = ChannelOptions {
        types: ChannelTypes::of::<Pod<[u64; 2]>, Pod<u64>>(),
        ..ChannelOptions::default()
    };
    let plugin = host.spawn(plugin::spec("adds", "typed").channel_options(adding)).unwrap();
    let (active, passive) = take(&plugin);
    assert!(passive.typed::<Pod<u64>, Pod<u64>>().is_err(), "only the declared types pass");
    let mut add: TypedChannel<Pod<[u64; 2]>, Pod<u64>> = active.typed().unwrap();
    for number in 0..1000 {
        add.send(&[number, 7]).unwrap();
        assert_eq!(add.recv(), Ok(number + 7));
    }
    plugin.kill().unwrap();
    assert_eq!(add.recv(), Err(RecvError::Disconnected));
}

/// Waits in each way while the plugin is killed that waits, or does nothing.
#[test]
fn a_plugin_killed_while_either_side_waits_ends_every_wait() {
    for how in WAITS {
        for kill in 0..KILLS {
            let host = host();
            // In every other round the plugin waits too, in the same way.
            let theirs = if kill % 2 == 0 { how } else { "recv" };
            let theirs = if how == "send" && theirs == "recv" { "send" } else { theirs };
            let plugin = host.spawn(spec("waiting", &format!("waits-{theirs}"))).unwrap();
            let (active, mut passive) = take(&plugin);
            assert_eq!(passive.recv_pod(), Ok(0_u64), "it is about to wait");
            let ended = thread::scope(|scope| {
                // Where it has filled the ring, the host that receives would find that first.
                let ours = if theirs == "send" { "send" } else { how };
                let waiting = scope.spawn(move || wait(active, ours));
                plugin.kill().unwrap();
                waiting.join().unwrap()
            });
            assert_eq!(ended, "Disconnected", "{how}");
            assert_eq!(plugin.wait_exit(NEVER), Ok(KILLED));
            assert_eq!(passive.recv().map(drop), Err(RecvError::Disconnected));
            let late = passive.sender().send_timeout(b"late", NEVER);
            assert_eq!(late, Err(SendTimeoutError::Disconnected));
        }
    }
}

/// What a plugin had sent when it was killed, waiting for room for more, is received.
#[test]
fn a_plugin_killed_while_it_waits_for_room_loses_nothing_that_it_has_sent() {
    for _ in 0..KILLS {
        let host = host();
        let plugin = host.spawn(spec("full", "waits-send")).unwrap();
        let (mut active, mut passive) = take(&plugin);
        assert_eq!(passive.recv_pod(), Ok(0_u64));
        plugin.kill().unwrap();
        assert_eq!(plugin.wait_exit(NEVER), Ok(KILLED));
        let mut expected = 0_u64;
        let ended = loop {
            match active.recv_pod::<u64>() {
                Ok(number) => assert_eq!(number, expected),
                Err(error) => break error,
            }
            expected += 1;
        };
        assert_eq!(ended, RecvError::Disconnected);
        assert!(expected > 100, "a ring full: {expected}");
        assert_eq!(active.send(b"late"), Err(SendError::Disconnected));
    }
}

#[test]
fn a_host_killed_while_its_plugin_waits_ends_every_wait() {
    for how in WAITS {
        for _ in 0..KILLS {
            let role = format!("host-{how}");
            let mut host = plugin::command(&role).stderr(Stdio::piped()).spawn().unwrap();
            let mut lines = BufReader::new(host.stderr.take().unwrap()).lines().map(Result::unwrap);
            assert_eq!(lines.next().as_deref(), Some("waits"));
            host.kill().unwrap();
            host.wait().unwrap();
            assert_eq!(lines.next().as_deref(), Some("Disconnected"), "{how}");
        }
    }
}
