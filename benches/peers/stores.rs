//! ringway's store beside other ways to share values under keys.
//!
//! [`peers.rs`](crate) runs it after the channels.
//! What always holds: a table is one situation, measured with all of its rows interleaved; a row's name
//! begins with the situation, since the processes that measure it find it by name.

use crate::Run;
use crate::common::case::Case;
use crate::common::goals::Goals;
use crate::common::keyed::{KEYS, Op, Work, processes};
use crate::common::link::{Job, Spec};
use crate::common::plan::Results;
use crate::common::table::bytes;
use crate::peer::{blackboard, lmdb, mmap_sync};
use crate::report::Figures;

const SIZES: [usize; 5] = [8, 64, 4 << 10, 64 << 10, 1 << 20];
const QUICK_SIZES: [usize; 1] = [64];
const CAPACITY: usize = 64 << 20;

/// Implements [`Work`].
macro_rules! works {
    ($($name:ident: $near:ident beside $far:ident, one: $one:literal;)*) => {$(
        #[derive(Debug)]
        struct $name;
        impl Work for $name {
            const NEAR: Op = Op::$near;
            const FAR: Op = Op::$far;
            const ONE: bool = $one;
        }
    )*};
}

works! {
    Get: Get beside Rest, one: false;
    GetOne: Get beside Rest, one: true;
    Set: Set beside Rest, one: false;
    TwoOnOne: Get beside Get, one: true;
    TwoOnMany: Get beside Get, one: false;
    GetBesideSet: Get beside Set, one: false;
    SetBesideGet: Set beside Get, one: false;
}

/// What reads: each in a process of its own.
macro_rules! readers {
    ($situation:literal, $work:ty) => {
        vec![
            processes::<lmdb::Thousand, $work>(concat!($situation, ": LMDB, 1000 a transaction")),
            processes::<lmdb::Each<true>, $work>(concat!($situation, ": LMDB in place")),
            blackboard::case::<$work, true>(concat!($situation, ": blackboard, kept handle")),
            blackboard::case::<$work, false>(concat!($situation, ": blackboard by key")),
            mmap_sync::case::<$work, false>(concat!($situation, ": mmap-sync in place, one value")),
            mmap_sync::case::<$work, true>(concat!($situation, ": mmap-sync copy, one value")),
        ]
    };
}

/// What writes.
macro_rules! writers {
    ($situation:literal, $work:ty) => {
        vec![
            processes::<lmdb::Thousand, $work>(concat!($situation, ": LMDB, 1000 a transaction")),
            blackboard::case::<$work, true>(concat!($situation, ": blackboard, kept handle")),
            blackboard::case::<$work, false>(concat!($situation, ": blackboard by key")),
            mmap_sync::case::<$work, false>(concat!($situation, ": mmap-sync, one value")),
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
    vec![
        situation!("Get", "get", Get, readers),
        situation!("Set", "set", Set, writers),
        situation!("Two readers of one key", "one key", TwoOnOne, readers),
        situation!("Two readers of all keys", "all keys", TwoOnMany, readers),
        situation!("A reader beside a writer", "beside writer", GetBesideSet, readers),
        situation!("A writer beside a reader", "beside reader", SetBesideGet, writers),
    ]
}

/// Every row there is, for the processes that measure one.
pub fn cases() -> Vec<Case> {
    situations().into_iter().flat_map(|each| [vec![each.yardstick], each.rows].concat()).collect()
}

/// Measures and reports everything.
pub fn run(run: &mut Run, cpus: [usize; 2]) {
    run.report.say(&format!(
        "# Values under keys\n\nCapacity {}, keys of 16 bytes (numbers for the blackboard), {KEYS} of \
         them, or as many as fill half of the capacity. They are visited in an order that is no \
         sequence. A read copies the value out, or reads its first and last 8 bytes in place. LMDB is \
         opened by heed with NOSYNC, NOMETASYNC and WRITEMAP, its fastest, in /dev/shm; where nothing else is said, a \
         transaction is one operation. The blackboard's values are of a type whose size is fixed, and \
         its keys are fixed when it is made. mmap-sync has one value, whatever the key, and sleeps \
         1 µs between two looks at its readers.",
        bytes(CAPACITY)
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
    name
}

fn goals(_goals: &mut Goals, _results: &Results) {}
