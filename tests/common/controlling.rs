//! Plugins that see and control others, as messages tell them to.

use std::collections::HashMap;
use std::fmt::Debug;
use std::time::Duration;

use ringway::channel::Channel;
use ringway::error::{RecvError, RecvTimeoutError};
use ringway::host::{Host, Plugin, PluginHandle, PluginSpec, PluginWatch};

use super::plugin::{NEVER, hang, ignore_sigterm};

/// Does what each message says, and answers with what came of it.
pub fn control_others() {
    let plugin = Plugin::connect().unwrap();
    let (mut active, _passive) = plugin.take_channels().unwrap();
    let mut watches = HashMap::new();
    loop {
        let order = match active.recv_owned() {
            Ok(message) => String::from_utf8(message.to_vec()).unwrap(),
            Err(RecvError::Disconnected) => return,
            Err(error) => panic!("{error}"),
        };
        if let Some(name) = order.strip_prefix("flood-restarts ") {
            // Over a message that it has not finished with.
            ignore_sigterm();
            let answers: Vec<_> = (0..20).map(|_| told(plugin.restart_plugin(name))).collect();
            active.send(answers.concat().as_bytes()).unwrap();
            hang();
        }
        active.receiver().release();
        if order.starts_with("wait") && order.ends_with("aloud") {
            active.send(b"waits").unwrap();
        }
        let answer = obey(&plugin, &mut watches, &order);
        active.send(answer.as_bytes()).unwrap();
    }
}

fn told<E: Debug>(result: Result<impl Debug, E>) -> String {
    result.map_or_else(|error| format!("{error:?}"), |value| format!("{value:?}"))
}

/// One order: a word for what to do, a plugin's name, a number of milliseconds.
fn obey(plugin: &Plugin, watches: &mut HashMap<String, PluginWatch>, order: &str) -> String {
    let mut words = order.splitn(3, ' ');
    let mut word = || words.next().unwrap_or_default();
    let (what, name, number) = (word(), word(), word());
    match what {
        "list" => {
            let listed = plugin.plugins().map(|all| {
                let each = all
                    .iter()
                    .map(|one| format!("{} {:?} {}", one.name, one.state, one.incarnation));
                each.collect::<Vec<_>>().join(", ")
            });
            listed.unwrap_or_else(|error| format!("{error:?}"))
        }
        "restart" => told(plugin.restart_plugin(name)),
        "stop" => told(plugin.stop_plugin(name)),
        "kill" => told(plugin.kill_plugin(name)),
        "watch" => match plugin.watch_plugin(name) {
            Ok(watch) => {
                let last = watch.last();
                watches.insert(name.into(), watch);
                format!("{:?} {}", last.state, last.incarnation)
            }
            Err(error) => format!("{error:?}"),
        },
        "wait" => {
            let timeout = number.parse().map_or(NEVER, Duration::from_millis);
            match watches.get_mut(name).expect("a watch").wait(timeout) {
                Ok(None) => "nothing".into(),
                Ok(Some(change)) => {
                    let missed = if change.missed { " and others before" } else { "" };
                    format!("{:?} {}{missed}", change.state, change.incarnation)
                }
                Err(error) => format!("{error:?}"),
            }
        }
        other => other.into(),
    }
}

/// A plugin that does what it is told.
pub struct Hand {
    pub handle: PluginHandle,
    pub active: Channel,
}

impl Hand {
    pub fn start(host: &Host, spec: PluginSpec) -> Self {
        let handle = host.spawn(spec).unwrap();
        let (active, _passive) = handle.take_channels().unwrap();
        Self { handle, active }
    }

    /// Gives an order, however often the plugin is restarted meanwhile.
    pub fn order(&mut self, order: &str) {
        while self.active.send(order.as_bytes()).is_err() {}
    }

    pub fn answer(&mut self) -> String {
        loop {
            match self.active.recv_timeout(NEVER) {
                Ok(message) => return String::from_utf8(message.to_vec()).unwrap(),
                Err(RecvTimeoutError::Restarted { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Gives an order until this answer comes: either may die with the plugin.
    pub fn insist(&mut self, order: &str, answer: &str) {
        loop {
            self.order(order);
            let patience = Duration::from_millis(20);
            while let Ok(message) = self.active.recv_timeout(patience) {
                if &*message == answer.as_bytes() {
                    return;
                }
            }
        }
    }

    pub fn tell(&mut self, order: &str) -> String {
        self.order(order);
        self.answer()
    }
}

/// A host that serves what plugins ask about others.
pub fn controlling_host() -> Host {
    Host::builder().process_control().build().unwrap()
}

/// A host that is to be killed, of a plugin that waits.
pub fn host_of_a_watcher() {
    let host = controlling_host();
    let _plugin = host.spawn(super::plugin::spec("watcher", "watch-until-gone")).unwrap();
    hang();
}

/// Waits for something that does not happen, until that fails, and says why.
pub fn watch_until_gone() {
    let plugin = Plugin::connect().unwrap();
    plugin.set_host_gone_grace(None);
    let _channels = plugin.take_channels().unwrap();
    let mut watch = plugin.watch_plugin("watcher").unwrap();
    // Its own start, perhaps.
    let error = loop {
        eprintln!("waits");
        if let Err(error) = watch.wait(NEVER) {
            break error;
        }
    };
    eprintln!("{error:?}");
}
