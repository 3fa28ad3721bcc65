//! ringway's store beside other ways to share values under keys.
//!
//! [`peers.rs`](crate) runs it after the channels.
//! What always holds: a table is one situation, measured with all of its rows interleaved; a row's name
//! begins with the situation, since the processes that measure it find it by name.

use crate::Run;
use crate::common::case::Case;
use crate::common::goals::Goals;
use crate::common::keyed::{KEYS, processes, threads};
use crate::common::link::{Job, Spec};
use crate::common::maps::Dashed;
use crate::common::plan::Results;
use crate::common::ringway_store::Handle;
use crate::common::table::bytes;
use crate::common::works::{Get, GetBesideSet, GetOne, Set, SetBesideGet, TwoOnMany, TwoOnOne};
use crate::peer::{blackboard, lmdb, mmap_sync};
use crate::report::{Figures, versions};

const SIZES: [usize; 5] = [8, 64, 4 << 10, 64 << 10, 1 << 20];
const QUICK_SIZES: [usize; 1] = [64];
const CAPACITY: usize = 64 << 20;
/// Peers by the names of their crates.
const CRATES: [&str; 4] = ["dashmap", "heed", "iceoryx2", "mmap-sync"];

/// What nine tenths of the speed take.
const LOSS: f64 = 1.11;

const ONE_ALONE: &str = "one key: ringway in place, one reader";
const ALL_ALONE: &str = "all keys: ringway in place, one reader";
const UNDISTURBED: &str = "beside writer: ringway in place, no writer";

/// What reads: each in a process of its own.
macro_rules! readers {
    ($situation:literal, $work:ty) => {
        vec![
            processes::<Handle<false>, $work>(concat!($situation, ": ringway")),
            processes::<Handle<true>, $work>(concat!($situation, ": ringway in place")),
            processes::<lmdb::Thousand, $work>(concat!($situation, ": LMDB, 1000 a transaction")),
            processes::<lmdb::Each<true>, $work>(concat!($situation, ": LMDB in place")),
            blackboard::case::<$work, true>(concat!($situation, ": blackboard, kept handle")),
            blackboard::case::<$work, false>(concat!($situation, ": blackboard by key")),
            mmap_sync::case::<$work, false>(concat!($situation, ": mmap-sync in place, one value")),
            mmap_sync::case::<$work, true>(concat!($situation, ": mmap-sync copy, one value")),
            threads::<Dashed, $work>(concat!($situation, ": dashmap (threads)")),
        ]
    };
}

/// What writes.
macro_rules! writers {
    ($situation:literal, $work:ty) => {
        vec![
            processes::<Handle<false>, $work>(concat!($situation, ": ringway")),
            processes::<lmdb::Thousand, $work>(concat!($situation, ": LMDB, 1000 a transaction")),
            blackboard::case::<$work, true>(concat!($situation, ": blackboard, kept handle")),
            blackboard::case::<$work, false>(concat!($situation, ": blackboard by key")),
            mmap_sync::case::<$work, false>(concat!($situation, ": mmap-sync, one value")),
            threads::<Dashed, $work>(concat!($situation, ": dashmap (threads)")),
        ]
    };
}

/// One table: its title, its yardstick, its rows.
struct Situation {
    title: &'static str,
    yardstick: Case,
    rows: Vec<Case>,
}

macro_rules! situation {
    ($title:literal, $short:literal, $work:ty, $rows:ident) => {
        Situation {
            title: $title,
            yardstick: processes::<lmdb::Each<false>, $work>(concat!($short, ": LMDB")),
            rows: $rows!($short, $work),
        }
    };
}

fn situations() -> Vec<Situation> {
    let mut situations = vec![
        situation!("Get", "get", Get, readers),
        situation!("Set", "set", Set, writers),
        situation!("Two readers of one key", "one key", TwoOnOne, readers),
        situation!("Two readers of all keys", "all keys", TwoOnMany, readers),
        situation!("A reader beside a writer", "beside writer", GetBesideSet, readers),
        situation!("A writer beside a reader", "beside reader", SetBesideGet, writers),
    ];
    // What their goals are measured by.
    situations[2].rows.push(processes::<Handle<true>, GetOne>(ONE_ALONE));
    situations[3].rows.push(processes::<Handle<true>, Get>(ALL_ALONE));
    situations[4].rows.push(processes::<Handle<true>, Get>(UNDISTURBED));
    situations
}

/// Every row there is, for the processes that measure one.
pub fn cases() -> Vec<Case> {
    situations().into_iter().flat_map(|each| [vec![each.yardstick], each.rows].concat()).collect()
}

/// Measures and reports everything.
pub fn run(run: &mut Run, cpus: [usize; 2]) {
    run.introduce("Values under keys");
    run.report.say(&format!(
        "Capacity {}, keys of 16 bytes (numbers for the blackboard), {KEYS} of them, or as many as fill \
         half of the capacity. They are visited in an order that is no sequence. A read copies the value \
         out, or reads its first and last 8 bytes in place. LMDB is opened by heed with NOSYNC, NOMETASYNC \
         and WRITEMAP, its fastest, in /dev/shm; where nothing else is said, a transaction is one \
         operation. The blackboard's values are of a type whose size is fixed, and its keys are fixed when \
         it is made. mmap-sync has one value, whatever the key, and sleeps 1 µs between two looks at its \
         readers. Versions: {}.",
        bytes(CAPACITY),
        versions(&CRATES)
    ));
    for Situation { title, yardstick, rows } in situations() {
        let spec = |size| Spec { size, capacity: CAPACITY };
        let sizes = run.options.sizes(&SIZES, &QUICK_SIZES);
        let specs = sizes.into_iter().map(spec).collect();
        run.report.say(&format!("## {title}\n\nLess is better, of ringway ÷ row too."));
        let results = run.measure(title, Job::RoundTrip, yardstick, rows, specs, cpus);
        run.report.table(&results, Figures::Nanoseconds, beside);
        goals(&mut run.goals, &results);
    }
}

/// ringway's row of the same kind.
fn beside(name: &str) -> &str {
    match name.split_once(": ") {
        Some(("get", what)) => kind("get: ringway", "get: ringway in place", what, name),
        Some(("set", what)) => kind("set: ringway", "", what, name),
        Some(("one key", what)) => {
            kind("one key: ringway", "one key: ringway in place", what, name)
        }
        Some(("all keys", what)) => {
            kind("all keys: ringway", "all keys: ringway in place", what, name)
        }
        Some(("beside writer", what)) => {
            kind("beside writer: ringway", "beside writer: ringway in place", what, name)
        }
        Some(("beside reader", what)) => kind("beside reader: ringway", "", what, name),
        _ => name,
    }
}

fn kind<'a>(copied: &'a str, in_place: &'a str, what: &str, name: &'a str) -> &'a str {
    match what {
        own if own.starts_with("ringway") => name,
        other if other.contains("in place") => in_place,
        _ => copied,
    }
}

fn goals(goals: &mut Goals, results: &Results) {
    for size in SIZES {
        if let Some((get, _)) = results.row("get: ringway in place", size) {
            let what = format!("Get: ringway in place, {}, ns", bytes(size));
            goals.at_most_of(what, get.value(), 20.0);
        }
        if size == 64
            && let Some((set, _)) = results.row("set: ringway", size)
        {
            goals.at_most_of(format!("Set: ringway, {}, ns", bytes(size)), set.value(), 60.0);
        }
    }
    goals.yardstick_at_most(results, "get: ringway in place", &SIZES, 0.1);
    goals.yardstick_at_most(results, "set: ringway", &[64], 0.2);
    // Each at 0.9 of the speed that one alone has.
    goals.at_most(results, ["one key: ringway in place", ONE_ALONE], &SIZES, LOSS);
    goals.at_most(results, ["all keys: ringway in place", ALL_ALONE], &SIZES, LOSS);
    goals.at_most(results, ["beside writer: ringway in place", UNDISTURBED], &SIZES, 2.0);
}
