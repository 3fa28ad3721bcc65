//! A bot's shared storage, used by plugins that are trusted with it and by plugins that are not: get with a default, delete of
//! what is missing, all keys at once; the same answers for both, and for the host.
//!
//! This test binary is executed again as the plugin. What always holds: a plugin is ended by its host at the end of each
//! test, also where the test fails.
#![allow(unsafe_code, missing_docs)]

mod common;

use std::collections::BTreeMap;
use std::fmt::Debug;

use common::controlling::Hand;
use common::plugin::{self, restarts};
use ringway::channel::Channel;
use ringway::error::RecvError;
use ringway::host::{Host, HostEventKind, Plugin, PluginSpec};
use ringway::store::{Store, StoreOptions};

/// The roles of this binary as a plugin.
#[test]
fn plugin_entry() {
    match std::env::var(plugin::ROLE).as_deref() {
        Ok("storage") => storage(),
        Ok("both") => both(),
        _ => return plugin::run_role(),
    }
    std::process::exit(0);
}

fn host() -> Host {
    let options = StoreOptions { capacity_bytes: 4 << 20, ..StoreOptions::default() };
    Host::builder().store(options).build().unwrap()
}

fn trusted(spec: PluginSpec) -> PluginSpec {
    // SAFETY: the plugin is this very program, which writes to the store by way of the library only.
    unsafe { spec.trust_with_store() }
}

/// Does what each message says, and answers.
fn storage() {
    let plugin = Plugin::connect().unwrap();
    let store = plugin.store().unwrap();
    let (mut active, _passive): (Channel, Channel) = plugin.take_channels().unwrap();
    loop {
        let order = match active.recv_owned() {
            Ok(message) => String::from_utf8(message.to_vec()).unwrap(),
            Err(RecvError::Disconnected) => return,
            Err(error) => panic!("{error}"),
        };
        active.receiver().release();
        active.send(obey(&store, &order).as_bytes()).unwrap();
    }
}

fn told<E: Debug>(result: Result<impl Debug, E>) -> String {
    result.map_or_else(|error| format!("{error:?}"), |value| format!("{value:?}"))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn obey(store: &Store, order: &str) -> String {
    let mut words = order.splitn(3, ' ');
    let mut word = || words.next().unwrap_or_default();
    let (what, key, value) = (word(), word(), word());
    match what {
        "get" => told(store.get(key).map(|found| found.map(|value| text(&value)))),
        "get_or" => told(store.get_or(key, value.as_bytes()).map(|value| text(&value))),
        "set" => told(store.set(key, value.as_bytes()).map(drop)),
        "delete" => told(store.delete(key)),
        "delete_existing" => told(store.delete_existing(key)),
        "contains" => told(store.contains(key)),
        "clear" => told(store.clear()),
        "get_all" => told(store.get_all().map(|all| {
            let texts = all.into_iter().map(|(key, value)| (text(&key), text(&value)));
            texts.collect::<BTreeMap<_, _>>()
        })),
        other => panic!("unknown order {other}"),
    }
}

const ORDERS: &[(&str, &str)] = &[
    ("get_all", "{}"),
    ("get a", "None"),
    ("get_or a fallback", "\"fallback\""),
    ("get_or a ", "\"\""),
    ("get a", "None"),
    ("contains a", "false"),
    ("delete a", "false"),
    ("delete_existing a", "Missing"),
    ("set a 1", "()"),
    ("set b ", "()"),
    ("get_or a fallback", "\"1\""),
    ("get_or b fallback", "\"\""),
    ("get b", "Some(\"\")"),
    ("get_all", "{\"a\": \"1\", \"b\": \"\"}"),
    ("delete_existing b", "()"),
    ("delete_existing b", "Missing"),
    ("get_or b fallback", "\"fallback\""),
    ("get_all", "{\"a\": \"1\"}"),
    ("delete a", "true"),
    ("delete a", "false"),
    ("get_all", "{}"),
    ("set a 2", "()"),
    ("clear", "1"),
    ("get_all", "{}"),
];

#[test]
fn storage_set_get_delete_and_get_all_are_the_same_for_all() {
    let (host, other) = (host(), plugin::spec("untrusted", "storage"));
    let store = host.store().unwrap();
    for (order, answer) in ORDERS {
        assert_eq!(obey(&store, order), *answer, "the host: {order}");
    }
    for spec in [trusted(plugin::spec("trusted", "storage")), other] {
        let mut hand = Hand::start(&host, spec.restart(restarts(100)));
        for (order, answer) in ORDERS {
            assert_eq!(hand.tell(order), *answer, "{}: {order}", hand.handle.name());
        }
        // The host sees what it does, and it what the host does, also after its death.
        hand.tell("set mine 1");
        store.set("yours", b"2").unwrap();
        let all = "{\"mine\": \"1\", \"yours\": \"2\"}";
        assert_eq!((obey(&store, "get_all"), hand.tell("get_all")), (all.into(), all.into()));
        hand.handle.kill().unwrap();
        assert_eq!((&*hand.tell("get_all"), &*hand.tell("delete_existing mine")), (all, "()"));
        assert_eq!(hand.tell("get_or mine gone"), "\"gone\"");
        assert_eq!(hand.tell("clear"), "1");
    }
}

/// Sets two keys together, again and again.
fn both() {
    let plugin = Plugin::connect().unwrap();
    let store = plugin.store().unwrap();
    let (mut active, _passive) = plugin.take_channels().unwrap();
    active.send(b"begins").unwrap();
    for round in 0_u64.. {
        let value = round.to_ne_bytes();
        store.batch().set("one", value).set("two", value).commit().unwrap();
    }
}

/// All keys are told as they were at one moment, while a plugin changes two of them together, and when it is killed in the middle.
#[test]
fn f04_get_all_is_one_moment_also_of_who_is_killed() {
    let (host, other) = (host(), plugin::spec("untrusted", "both"));
    let store = host.store().unwrap();
    let look = || {
        let all = store.get_all().unwrap();
        assert_eq!(all.get(&b"one"[..]), all.get(&b"two"[..]));
    };
    for spec in [trusted(plugin::spec("trusted", "both")), other] {
        let mut hand = Hand::start(&host, spec.restart(restarts(100)));
        for _ in 0..20 {
            assert_eq!(hand.answer(), "begins");
            for _ in 0..20 {
                look();
            }
            hand.handle.kill().unwrap();
            loop {
                match host.next_event(plugin::NEVER).expect("it dies").kind {
                    HostEventKind::Died { .. } => break,
                    _ => look(),
                }
            }
            look();
        }
        hand.handle.terminate().unwrap();
        store.check().unwrap();
    }
}
