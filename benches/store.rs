//! The store: reads, writes, contention, growth, deaths of writers.
//!
//! Run by `cargo bench --bench store`; see `--help` behind `--`. It prints what an operation takes, with
//! the ratio to a `Mutex<HashMap>` used by threads of one process and measured beside it, how that grows
//! with the number of keys, and how long recovery and attaching take.
//! What always holds: readers check that a value is whole and its key's.
#![allow(unsafe_code)]

mod common;
mod store_parts;

use common::case::{Case, served_as_child};
use common::cli::Options;
use common::goals::Goals;
use common::keyed::{KEYS, processes, threads};
use common::link::{Job, Spec};
use common::maps::{Dashed, Locked};
use common::plan::{Plan, Results, Row, skipped, two_cpus};
use common::ringway_store::Handle;
use common::table;
use common::works::{
    Add, Contains, Delete, Get, GetBesideSet, GetOf, GetOne, Set, SetBesideGet, SetOf, TwoOnMany,
    TwoOnOne, Update,
};

const SIZES: [usize; 5] = [8, 64, 4 << 10, 64 << 10, 1 << 20];
const CAPACITY: usize = 64 << 20;
/// Room for a million keys.
const LARGE: usize = 512 << 20;
const LARGE_SIZES: [usize; 2] = [8, 64];

/// One table: its title, its yardstick, its rows.
struct Table {
    title: &'static str,
    yardstick: Case,
    rows: Vec<Case>,
    sizes: &'static [usize],
}

macro_rules! table {
    ($short:literal, $title:literal, $work:ty, reads) => {
        Table {
            title: $title,
            yardstick: threads::<Locked, $work>(concat!($short, ": Mutex<HashMap> (threads)")),
            rows: vec![
                processes::<Handle<true>, $work>(concat!($short, ": in place")),
                processes::<Handle<false>, $work>(concat!($short, ": copied out")),
                threads::<Handle<true>, $work>(concat!($short, ": in place (threads)")),
                threads::<Dashed, $work>(concat!($short, ": dashmap (threads)")),
            ],
            sizes: &SIZES,
        }
    };
    ($short:literal, $title:literal, $work:ty, changes) => {
        Table {
            title: $title,
            yardstick: threads::<Locked, $work>(concat!($short, ": Mutex<HashMap> (threads)")),
            rows: vec![
                processes::<Handle<true>, $work>(concat!($short, ": ringway")),
                threads::<Dashed, $work>(concat!($short, ": dashmap (threads)")),
            ],
            sizes: &SIZES,
        }
    };
    ($short:literal, $title:literal, $work:ty, numbers) => {
        Table { sizes: &SIZES[..1], ..table!($short, $title, $work, changes) }
    };
}

/// What nine tenths of the speed take.
const LOSS: f64 = 1.11;

const ONE_ALONE: &str = "one key: in place, one reader";
const ALL_ALONE: &str = "all keys: in place, one reader";
const UNDISTURBED: &str = "beside writer: in place, no writer";

fn tables() -> Vec<Table> {
    let mut tables = vec![
        table!("get", "get", Get, reads),
        table!("one key", "two readers of one key", TwoOnOne, reads),
        table!("all keys", "two readers of all keys", TwoOnMany, reads),
        table!("beside writer", "a reader beside a writer", GetBesideSet, reads),
        table!("contains", "contains", Contains, changes),
        table!("set", "set", Set, changes),
        table!("beside reader", "a writer beside a reader", SetBesideGet, changes),
        table!("delete", "delete, and set again", Delete, changes),
        table!("update", "update: get, and set what follows from it", Update, changes),
        table!("add", "add one to a number", Add, numbers),
    ];
    // What their goals are measured by.
    tables[1].rows.push(processes::<Handle<true>, GetOne>(ONE_ALONE));
    tables[2].rows.push(processes::<Handle<true>, Get>(ALL_ALONE));
    tables[3].rows.push(processes::<Handle<true>, Get>(UNDISTURBED));
    tables
}

const MANY: &str = "get: 10^6 keys";

/// The number of keys grows.
fn growth() -> Table {
    let rows = vec![
        processes::<Handle<true>, GetOf<10_000>>("get: 10^4 keys"),
        processes::<Handle<true>, GetOf<100_000>>("get: 10^5 keys"),
        processes::<Handle<true>, GetOf<1_000_000>>(MANY),
        processes::<Handle<true>, SetOf<1_000>>("set: 10^3 keys"),
        processes::<Handle<true>, SetOf<10_000>>("set: 10^4 keys"),
        processes::<Handle<true>, SetOf<100_000>>("set: 10^5 keys"),
        processes::<Handle<true>, SetOf<1_000_000>>("set: 10^6 keys"),
    ];
    let yardstick = processes::<Handle<true>, GetOf<1_000>>("get: 10^3 keys");
    Table { title: "more keys", yardstick, rows, sizes: &LARGE_SIZES }
}

fn all_cases() -> Vec<Case> {
    let of = |table: Table| [vec![table.yardstick], table.rows].concat();
    tables().into_iter().chain([growth()]).flat_map(of).collect()
}

fn main() {
    let options = Options::from_command_line();
    if served_as_child(&options, &all_cases()) {
        return;
    }
    let (near_cpu, Some(far_cpu)) = two_cpus() else {
        skipped("all of the store", "this process may run on one CPU only");
        return;
    };
    println!("# Store\n");
    println!(
        "Median of {} runs; in brackets the ratio to the yardstick measured beside it. Keys of 16 \
         bytes, {KEYS} of them, or as many as fill half of the capacity of {}, visited in an order that \
         is no sequence. CPU {near_cpu} and CPU {far_cpu}. In place: the first and last 8 bytes are \
         read; all else copies whole values, but that updates of maps change them where they lie.\n",
        options.runs,
        table::bytes(CAPACITY)
    );
    let mut goals = Goals::default();
    for Table { title, yardstick, rows, sizes } in tables() {
        let sizes = options.sizes(sizes, &sizes[..sizes.len().min(2)]);
        let cpus = [near_cpu, far_cpu];
        let results = measure(title, yardstick, rows, sizes, CAPACITY, &options, cpus);
        check(&mut goals, &results);
    }
    let growth = growth();
    let sizes = options.sizes(growth.sizes, &LARGE_SIZES[..1]);
    let title = format!("{}, capacity {}", growth.title, table::bytes(LARGE));
    let cpus = [near_cpu, far_cpu];
    let results = measure(&title, growth.yardstick, growth.rows, sizes, LARGE, &options, cpus);
    goals.yardstick_at_most(&results, MANY, &LARGE_SIZES, 3.0);
    store_parts::run(&options, &mut goals, far_cpu);
    goals.print();
}

fn measure(
    title: &str,
    yardstick: Case,
    rows: Vec<Case>,
    sizes: Vec<usize>,
    capacity: usize,
    options: &Options,
    [near_cpu, far_cpu]: [usize; 2],
) -> Results {
    let plan = Plan {
        title: title.to_owned(),
        job: Job::RoundTrip,
        yardsticks: vec![yardstick],
        rows: rows.into_iter().map(|case| Row { case, against: 0 }).collect(),
        specs: sizes.into_iter().map(|size| Spec { size, capacity }).collect(),
        near_cpu,
        far_cpu,
    };
    let results = plan.run(options);
    println!("## {title}\n");
    table::print("ns (ratio: lower is better)", &results, |series, _| {
        table::round_trip_cell(series)
    });
    results
}

fn check(goals: &mut Goals, results: &Results) {
    for size in SIZES {
        if let Some((get, _)) = results.row("get: in place", size) {
            let what = format!("get: in place, {}, ns", table::bytes(size));
            goals.at_most_of(what, get.value(), 20.0);
        }
    }
    if let Some((set, _)) = results.row("set: ringway", 64) {
        goals.at_most_of("set: 64 B, ns".into(), set.value(), 60.0);
    }
    // Each at 0.9 of the speed that one alone has.
    let one = ["one key: in place", ONE_ALONE];
    goals.at_most(results, one, &SIZES, LOSS);
    let all = ["all keys: in place", ALL_ALONE];
    goals.at_most(results, all, &SIZES, LOSS);
    goals.at_most(results, ["beside writer: in place", UNDISTURBED], &SIZES, 2.0);
}
