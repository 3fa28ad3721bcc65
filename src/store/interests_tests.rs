//! Many interests over heap memory: what a change costs them, and where they sleep.

use super::between::Between;
use super::block::hash;
use super::doorbells;
use super::interest::{Interest, OneKey};
use super::interest_prefix::Prefix;
use super::interests::{Interests, One};
use super::owner;
use super::prefixes::{self, Entry, Kept};
use super::reader::Reader;
use super::watch::{self, Bed, Change, Watcher};
use super::{Core, Owner, StoreGeometry};
use crate::layout::store::private::bell::BUCKETS;
use crate::memory::{Deadline, HeapMemory, Memory, Ordering};

const WATCHER: Owner = Owner::new(1, 1);

fn store(keys: u32) -> (Core<HeapMemory>, Reader<HeapMemory>) {
    let geometry = StoreGeometry::new(64 << 20, 4, 0x5eed).unwrap();
    let memory = HeapMemory::new(geometry.len_bytes());
    let mut core = Core::new(memory.clone(), geometry);
    core.format().unwrap();
    for number in 0..keys {
        core.set(format!("other/{number}").as_bytes(), b"1").unwrap();
    }
    (core, Reader::claim(memory, geometry, WATCHER).unwrap())
}

fn register(core: &Core<HeapMemory>, prefix: &[u8]) -> Option<Entry> {
    prefixes::register(&core.memory, &core.geometry, WATCHER, prefix)
}

fn change(key: &[u8], version: Option<u64>) -> Change {
    Change { key: key.to_vec(), version, possibly: false }
}

fn watched(number: u32) -> Vec<u8> {
    format!("key/{number}").into_bytes()
}

/// A prefix, and so many keys.
fn interests(core: &Core<HeapMemory>, reader: &Reader<HeapMemory>, keys: u32) -> Interests {
    let mut all = Interests::default();
    let entry = register(core, b"watched/");
    assert!(entry.is_some(), "one is free");
    all.add(One::Prefix(Prefix::new(reader, &core.geometry, b"watched/", entry).unwrap()));
    for number in 0..keys {
        all.add(One::Key(OneKey::new(reader, &core.geometry, &watched(number)).unwrap()));
    }
    all
}

fn bells_of(interests: &Interests) -> Vec<u32> {
    let mut bells = Vec::new();
    interests.bells(&mut |bell| bells.push(bell));
    bells
}

/// A key that shares no doorbell with what is watched.
fn elsewhere(core: &Core<HeapMemory>, bells: &[u32]) -> Vec<u8> {
    let keys = (0..).map(|number: u32| format!("elsewhere/{number}").into_bytes());
    let mut keys = keys.filter(|key| {
        let bell = doorbells::of(hash(key, core.geometry.seed()));
        !bells.contains(&bell)
    });
    keys.next().expect("there are more doorbells")
}

/// Writes while the watcher sleeps: elsewhere, and then a key that is watched.
struct Writing {
    core: Core<HeapMemory>,
    elsewhere: Vec<u8>,
    key: Vec<u8>,
    sleeps: u32,
}

impl Bed for Writing {
    fn most_bells(&self) -> usize {
        127
    }

    fn announce(&mut self, bell: u32, _: Deadline) -> bool {
        watch::announce(&self.core.memory, &self.core.geometry, bell);
        true
    }

    fn sleep(&mut self, words: &[(u64, u32)], _: Deadline) -> bool {
        self.sleeps += 1;
        let memory = self.core.memory.clone();
        let is_awake =
            || words.iter().any(|(word, old)| memory.load_u32(*word, Ordering::Relaxed) != *old);
        for _ in 0..10 {
            self.core.set(&self.elsewhere, b"1").unwrap();
            self.core.wake_watchers();
        }
        assert!(!is_awake() && memory.wakes() == 0, "a write elsewhere wakes it");
        self.core.set(&self.key, b"1").unwrap();
        self.core.wake_watchers();
        assert!(is_awake() && memory.wakes() == 1, "{} wakes", memory.wakes());
        true
    }
}

/// Fails where many interests sleep at the doorbell of everything.
#[test]
fn f87_a_write_elsewhere_does_not_wake_many_watches() {
    for key in [&b"watched/key"[..], b"key/7"] {
        let (core, reader) = store(100);
        let interests = interests(&core, &reader, 40);
        let elsewhere = elsewhere(&core, &bells_of(&interests));
        let (memory, geometry) = (core.memory.clone(), core.geometry);
        let mut watch = Watcher::new(memory, &geometry, interests, 1_000_000);
        let mut bed = Writing { core, elsewhere, key: key.to_vec(), sleeps: 0 };
        let told = watch.wait(&reader, Deadline::NEVER, &mut bed, || false).unwrap().unwrap();
        assert_eq!((told.1.key, bed.sleeps), (key.to_vec(), 1));
    }
}

/// What a look costs in accesses of memory, after a write of this key.
fn look(keys_there: u32, keys_watched: u32, key: Option<&[u8]>) -> (u64, u64) {
    let (mut core, reader) = store(keys_there);
    let (memory, geometry) = (core.memory.clone(), core.geometry);
    let interests = interests(&core, &reader, keys_watched);
    let bells = bells_of(&interests);
    let counted = Between::writable(memory);
    let counting = Reader::claim(counted.clone(), geometry, WATCHER).unwrap();
    let mut watch = Watcher::new(counted.clone(), &geometry, interests, 1_000_000);
    assert_eq!(watch.look(&counting), Ok(None));
    let key = key.map_or_else(|| elsewhere(&core, &bells), <[u8]>::to_vec);
    core.set(&key, b"1").unwrap();
    let accesses = counted.accesses_of(|| while watch.look(&counting).unwrap().is_some() {});
    (accesses, bells.len() as u64)
}

/// Fails where each change is followed by a look at every watched key.
#[test]
fn f87_a_write_elsewhere_costs_many_watches_a_look_at_their_doorbells() {
    for keys in [100, 100_000] {
        let (accesses, bells) = look(keys, 50, None);
        // Whether an operation is in progress, and each doorbell.
        assert_eq!(accesses, 2 + bells, "{keys} keys");
    }
}

#[test]
fn f87_a_change_costs_many_watches_a_look_at_what_shares_its_doorbell() {
    for keys in [100, 100_000] {
        let (accesses, _) = look(keys, 1_000, Some(b"key/7"));
        // Two looks at 129 doorbells, and some ten keys.
        assert!(accesses < 700, "{keys} keys: {accesses}");
        let (accesses, bells) = look(keys, 50, Some(b"watched/key"));
        assert!(accesses < 2 * bells + 80, "{keys} keys: {accesses}");
    }
}

/// Fails where an interest that was removed, or came later, is looked for at the wrong doorbell.
#[test]
fn f87_interests_that_come_and_go_are_told_of_their_own_changes() {
    let (mut core, reader) = store(0);
    let (memory, geometry) = (core.memory.clone(), core.geometry);
    let mut watch = Watcher::new(memory, &geometry, Interests::default(), 1_000_000);
    let one = |key: &[u8]| One::Key(OneKey::new(&reader, &geometry, key).unwrap());
    let [a, b] = [b"a", b"b"].map(|key| watch.interest_mut().add(one(key)));
    let told = |watch: &mut Watcher<_, Interests>| {
        std::iter::from_fn(|| watch.look(&reader).unwrap()).map(|(id, _)| id).collect::<Vec<_>>()
    };
    assert_eq!(told(&mut watch), []);
    core.set(b"a", b"1").unwrap();
    core.set(b"b", b"1").unwrap();
    assert_eq!(told(&mut watch), [a, b]);
    assert!(watch.interest_mut().remove(a) && !watch.interest_mut().remove(a));
    let c = watch.interest_mut().add(one(b"c"));
    core.set(b"a", b"2").unwrap();
    core.set(b"b", b"2").unwrap();
    core.set(b"c", b"2").unwrap();
    assert_eq!(told(&mut watch), [b, c]);
    assert_eq!(bells_of(watch.interest()).len(), 2);
}

/// A process whose host registered its prefix, and then gave that up.
#[test]
fn f87_watcher_whose_entry_is_gone_goes_on_without_it() {
    let give_back = |_: &Core<HeapMemory>, entry: Entry| drop(entry);
    let die = |core: &Core<HeapMemory>, entry: Entry| {
        std::mem::forget(entry);
        owner::reclaim(&core.memory, &core.geometry, |_| true);
    };
    let end_and_register_another = |core: &Core<HeapMemory>, entry: Entry| {
        drop(entry);
        std::mem::forget(register(core, b"b/").unwrap());
    };
    for end in [give_back, die, end_and_register_another] {
        for is_told_first in [false, true] {
            let (mut core, reader) = store(0);
            let registered = register(&core, b"a/").unwrap();
            let elsewhere =
                Entry::new(registered.log(), registered.appended(), Box::new(Elsewhere));
            let prefix = Prefix::new(&reader, &core.geometry, b"a/", Some(elsewhere)).unwrap();
            let mut interests = Interests::default();
            let id = interests.add(One::Prefix(prefix));
            let mut watch = Watcher::new(core.memory.clone(), &core.geometry, interests, 1_000_000);
            assert_eq!(watch.look(&reader), Ok(None));
            if is_told_first {
                let version = core.set(b"a/1", b"1").unwrap();
                let told = watch.look(&reader).unwrap();
                assert_eq!(told, Some((id, change(b"a/1", Some(version)))));
            }
            end(&core, registered);
            for key in [b"a/1", b"a/2", b"a/1"] {
                let version = core.set(key, b"2").unwrap();
                let told = watch.look(&reader).unwrap();
                assert_eq!(told, Some((id, change(key, Some(version)))));
                assert_eq!(watch.look(&reader), Ok(None));
            }
        }
    }
}

/// A registration that somebody else has.
#[derive(Debug)]
struct Elsewhere;

impl Kept for Elsewhere {}

/// Whoever looks while an operation is in progress, or was when its writer died, looks at the keys that this one names.
#[test]
fn f87_look_at_an_open_operation_follows_its_keys() {
    let (mut core, reader) = store(0);
    let key = |bell| {
        let of = |key: &Vec<u8>| doorbells::of(hash(key, core.geometry.seed())) == bell;
        (0_u32..).map(|number| number.to_string().into_bytes()).find(of).unwrap()
    };
    let keys: Vec<_> = (0..BUCKETS as u32).map(key).collect();
    let mut interests = Interests::default();
    for key in &keys {
        interests.add(One::Key(OneKey::new(&reader, &core.geometry, key).unwrap()));
    }
    let counted = Between::writable(core.memory.clone());
    let counting = Reader::claim(counted.clone(), core.geometry, WATCHER).unwrap();
    let mut watch = Watcher::new(counted.clone(), &core.geometry, interests, 1_000_000);
    let mut look = || counted.accesses_of(|| assert_eq!(watch.look(&counting), Ok(None)));
    let (first, quiet) = (look(), look());
    let hash = hash(&keys[7], core.geometry.seed());
    core.rung.about_to_change(&core.memory, &keys[7], hash);
    let open = look();
    assert!(quiet < open && open < quiet + (first - quiet) / 10, "{quiet}, {open}, {first}");
    core.rung.all_about_to_change(&core.memory);
    assert!(look() > (first + quiet) / 2, "all of them");
    core.set(b"elsewhere", b"1").unwrap();
    look();
    assert_eq!(look(), quiet, "it is over");
}
