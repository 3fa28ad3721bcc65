//! Plugins that use their host's store.

use std::error::Error;
use std::fmt::Debug;
use std::process;
use std::str;
use std::sync::{Condvar, Mutex};
use std::thread;
use std::time::Duration;

use ringway::error::RecvError;
use ringway::host::Plugin;
use ringway::store::{Change, ReactionDispatcher, Store};

use super::plugin::{NEVER, hang, raise};

/// Does what each message says, and answers with what came of it.
pub fn use_store() {
    let plugin = Plugin::connect().unwrap();
    let store = plugin.store();
    let (mut active, _passive) = plugin.take_channels().unwrap();
    loop {
        let message = match active.recv_owned() {
            Ok(message) => String::from_utf8(message.to_vec()).unwrap(),
            Err(RecvError::Disconnected) => return,
            Err(error) => panic!("{error}"),
        };
        active.receiver().release();
        let answer = match &store {
            Ok(store) => obey(store, &message),
            Err(error) => error.to_string(),
        };
        active.send(answer.as_bytes()).unwrap();
    }
}

fn told<E: Debug>(result: Result<impl Debug, E>) -> String {
    result.map_or_else(|error| format!("{error:?}"), |value| format!("{value:?}"))
}

/// One order: a word for what to do, a key, a value.
fn obey(store: &Store, order: &str) -> String {
    let mut words = order.splitn(3, ' ');
    let mut word = || words.next().unwrap_or_default();
    let (what, key, value) = (word(), word(), word().as_bytes());
    match what {
        "access" => format!("{:?}", store.access()),
        "get" => match store.get(key) {
            Ok(Some(value)) => str::from_utf8(&value).unwrap().into(),
            Ok(None) => "absent".into(),
            Err(error) => format!("{error:?}"),
        },
        "set" => told(store.set(key, value).map(drop)),
        "set_if_absent" => told(store.set_if_absent(key, value).map(|version| version.is_some())),
        "swap" => told(store.swap(key, value).map(|old| old.map(|old| old.len()))),
        "delete" => told(store.delete(key)),
        "delete_existing" => told(store.delete_existing(key)),
        "append" => {
            let append = |old: Option<&[u8]>| Some([old.unwrap_or_default(), value].concat());
            told(store.update(key, append).map(drop))
        }
        "exchange" => {
            let version = store.get(key).unwrap().map(|value| value.version());
            told(store.compare_exchange(key, version, Some(value)).map(drop))
        }
        "exchange_wrongly" => told(store.compare_exchange(key, Some(u64::MAX), Some(value))),
        "add" => told(store.fetch_add(key, str::from_utf8(value).unwrap().parse().unwrap())),
        "len" => told(store.len()),
        "long" => {
            let len = str::from_utf8(value).unwrap().parse().unwrap();
            told(store.set(key, &vec![b'x'; len]).map(drop))
        }
        other => panic!("unknown order {other}"),
    }
}

/// What lies under key `number` after its change number `round`.
pub fn value(number: u64, round: u64) -> Vec<u8> {
    let len = 8 + round.wrapping_mul(number.wrapping_mul(2_654_435_761) | 1) % 3000;
    let mut value = vec![(number ^ round) as u8; len as usize];
    value[..8].copy_from_slice(&round.to_ne_bytes());
    value
}

/// Keys that a busy plugin changes.
pub const BUSY_KEYS: u64 = 32;

pub fn busy_key(name: &str, number: u64) -> String {
    format!("{name}/{number}")
}

/// The key under which it counts.
pub fn busy_count(name: &str) -> String {
    format!("{name}/count")
}

/// Changes keys of its own as fast as it can, and says now and then how far it has got.
pub fn be_busy() {
    let plugin = Plugin::connect().unwrap();
    let store = plugin.store().unwrap();
    let (mut active, _passive) = plugin.take_channels().unwrap();
    let count = busy_count(plugin.name());
    loop {
        let round = store.fetch_add(&count, 1).unwrap() as u64 + 1;
        let number = round % BUSY_KEYS;
        let key = busy_key(plugin.name(), number);
        if round.is_multiple_of(7) {
            store.delete(&key).unwrap();
        } else {
            store.set(&key, &value(number, round)).unwrap();
        }
        // The rings may be full while nobody listens.
        let _ = active.try_send(&round.to_ne_bytes());
    }
}

/// Stops in the middle of a change, with the lock.
pub fn stop_with_the_lock() {
    let plugin = Plugin::connect().unwrap();
    let store = plugin.store().unwrap();
    let (mut active, _passive) = plugin.take_channels().unwrap();
    let _ = store.update("held", |_| {
        active.send(b"held").unwrap();
        raise(libc::SIGSTOP);
        None
    });
}

/// Pins the value that it is told, and keeps it.
pub fn pin() {
    let plugin = Plugin::connect().unwrap();
    let store = plugin.store().unwrap();
    let (mut active, _passive) = plugin.take_channels().unwrap();
    let key = active.recv_owned().unwrap();
    let value = store.get(&*key).unwrap().unwrap();
    active.send(value.len().to_string().as_bytes()).unwrap();
    hang();
}

/// How often this thread has gone to sleep.
fn sleeps() -> i64 {
    // SAFETY: zeros are a usage, which the call overwrites.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: the call writes into a usage that outlives it.
    assert_eq!(unsafe { libc::getrusage(libc::RUSAGE_THREAD, &raw mut usage) }, 0);
    usage.ru_nvcsw
}

/// Watches the key that it is told first; then waits as it is told.
pub fn wait() {
    let plugin = Plugin::connect().unwrap();
    let store = plugin.store().unwrap();
    let (mut active, _passive) = plugin.take_channels().unwrap();
    let key = active.recv_owned().unwrap().to_vec();
    active.receiver().release();
    let mut watch = store.watch(key).unwrap();
    active.send(b"watching").unwrap();
    while let Ok(order) = active.recv_owned() {
        let order = order.to_vec();
        active.receiver().release();
        let answer = match &*order {
            // The answer is how often it went to sleep in a second in which nothing happened.
            b"a second" => {
                let before = sleeps();
                let told = watch.wait(Duration::from_secs(1)).unwrap();
                assert_eq!(told, None);
                (sleeps() - before).to_string()
            }
            b"a change" => {
                format!("{:?}", watch.wait(NEVER).unwrap().and_then(|told| told.version))
            }
            _ => panic!("unknown order"),
        };
        active.send(answer.as_bytes()).unwrap();
    }
}

/// Watches the key that it is told first, without a pause; says of every version that it is asked about when it
/// was told that one.
pub fn follow() {
    let plugin = Plugin::connect().unwrap();
    let store = plugin.store().unwrap();
    let (mut active, _passive) = plugin.take_channels().unwrap();
    let key = active.recv_owned().unwrap().to_vec();
    active.receiver().release();
    let (told, has_come) = (Mutex::new(0), Condvar::new());
    thread::scope(|scope| {
        let watching = store.try_clone().unwrap();
        let (told, has_come, sending) = (&told, &has_come, &mut active);
        scope.spawn(move || {
            let mut watch = watching.watch_since(key, None).unwrap();
            loop {
                let change = watch.wait_forever().unwrap();
                *told.lock().unwrap() = change.version.unwrap_or(0);
                has_come.notify_all();
            }
        });
        sending.send(b"watching").unwrap();
        while let Ok(version) = sending.recv_owned() {
            let version: u64 = str::from_utf8(&version).unwrap().parse().unwrap();
            sending.receiver().release();
            let told = told.lock().unwrap();
            let waited = has_come.wait_timeout_while(told, NEVER, |told| *told != version);
            let (told, timeout) = waited.unwrap();
            assert!(!timeout.timed_out(), "{version} is there, and {told} was told last");
            drop(told);
            sending.send(b"told").unwrap();
        }
        // The other thread has no end.
        process::exit(0);
    });
}

/// Sets "out" to what "in" has become, whenever it has, on a thread of its own and on one that is shared.
pub fn react() {
    let plugin = Plugin::connect().unwrap();
    let store = plugin.store().unwrap();
    let copy = |to: &'static str| {
        move |store: &Store, change: &Change| {
            let value = store.get(&change.key)?.map(|value| value.to_vec());
            store.set(to, &value.unwrap_or_default())?;
            Ok::<_, Box<dyn Error + Send + Sync>>(())
        }
    };
    let dispatcher = ReactionDispatcher::new(&store).unwrap();
    let _own = store.on_change("in", copy("out")).unwrap();
    let _shared = store.reaction_to_prefix("in", copy("out too")).start_on(&dispatcher).unwrap();
    let (mut active, _passive) = plugin.take_channels().unwrap();
    active.send(b"reacts").unwrap();
    hang();
}
