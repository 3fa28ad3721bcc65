//! Watches of a store's handles that sleep beside a writer.

use std::sync::mpsc;
use std::thread;

use super::*;
use crate::store::StoreOptions;

#[test]
fn an_interruption_ends_one_pause() {
    let interrupter = WatchInterrupter::default();
    interrupter.interrupt();
    interrupter.wait(u64::MAX);
    assert_eq!(interrupter.0.load(Ordering::Relaxed), 0, "the next one is slept");
}

/// Would never wake up by itself, and each change waits for the news of the one before it. Fails, and hangs, where a
/// doorbell is not announced at, or not slept on.
#[test]
fn f87_sleeping_watches_miss_no_change() {
    let options = StoreOptions { capacity_bytes: 1 << 20, ..StoreOptions::default() };
    let store = Store::anonymous(&options).unwrap();
    let writer = store.try_clone().unwrap();
    let (tell, told) = mpsc::channel();
    let watching = thread::spawn(move || {
        let mut watches = store.watches();
        for key in ["a", "b", "c"] {
            watches.add(key).unwrap();
        }
        watches.add_prefix("p/").unwrap();
        let Watching { store, watcher, by_host, .. } = &mut watches.0;
        watcher.slice_ns = u64::MAX;
        let (memory, geometry, announces) = store.watched();
        let memory = memory.clone();
        let mut place =
            Place { memory, geometry, announces, host: None, by_host, interrupted: None };
        tell.send(None).unwrap();
        loop {
            let news = watcher.wait(*store, Deadline::NEVER, &mut place, || false);
            let (_, change) = news.unwrap().unwrap();
            let is_last = change.key == b"p/end";
            tell.send(change.version).unwrap();
            if is_last {
                return;
            }
        }
    });
    assert_eq!(told.recv(), Ok(None));
    for round in 0..2_000_u32 {
        writer.set("elsewhere", &round.to_ne_bytes()).unwrap();
        let key = ["a", "b", "c", "p/1"][round as usize % 4];
        let version = writer.set(key, &round.to_ne_bytes()).unwrap();
        assert_eq!(told.recv(), Ok(Some(version)), "round {round}");
    }
    writer.set("p/end", b"").unwrap();
    assert!(told.recv().is_ok() && watching.join().is_ok());
}
