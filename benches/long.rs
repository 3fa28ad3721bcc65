//! Messages that are more than a record of plain data: longer ones, and ones that want a reply.
//!
//! Run by `cargo bench --bench long`; see `--help` behind `--`. It prints, between two processes
//! pinned to two CPUs, gigabytes a second of messages longer than the ring, with the ratio to a
//! streaming limit measured beside them, and what a call takes by a message there and one back.
//! What always holds: both sides check the number of every message.
#![allow(unsafe_code)]

mod common;

use common::case::{Case, served_as_child};
use common::cli::Options;
use common::goals::Goals;
use common::link::{Job, Spec};
use common::plan::{Plan, Results, Row, skipped, two_cpus};
use common::ringway_calls::Calls;
use common::ringway_channel::{Copying, Spins, SpinsThenParks};
use common::table;
use common::yardstick::{InBlocks, Line};

const MIB: usize = 1 << 20;
/// Capacities, and the sizes of the messages that go through them.
const LONG: [(usize, &[usize], &[usize]); 2] =
    [(64 << 10, &[MIB, 16 * MIB], &[MIB]), (4 * MIB, &[16 * MIB], &[16 * MIB])];
/// What a run of the longest messages takes at least, in milliseconds: a few of them.
const MIN_MILLIS: u64 = 100;
const CALLED: [usize; 2] = [8, 64];
const CALL_CAPACITY: usize = 256 << 10;

const IN_BLOCKS: Case = Case::processes::<InBlocks>("streaming limit, in blocks");
const PIECES: &str = "ringway in pieces, spin";
const LINE: Case = Case::processes::<Line>("line round trip");
const PLAIN: &str = "a message each way, spin";
const CALL: &str = "call and reply, spin";
const BEGUN: &str = "call begun and finished, spin";
const PARKING: &str = "call and reply, spin then park";

fn long_rows() -> Vec<Case> {
    vec![
        Case::processes::<Copying<Spins>>(PIECES),
        Case::processes::<Copying<SpinsThenParks>>("ringway in pieces, spin then park"),
    ]
}

fn call_rows() -> Vec<Case> {
    vec![
        Case::processes::<Copying<Spins>>(PLAIN),
        Case::processes::<Calls<Spins, false>>(CALL),
        Case::processes::<Calls<Spins, true>>(BEGUN),
        Case::processes::<Calls<SpinsThenParks, false>>(PARKING),
    ]
}

fn main() {
    let mut options = Options::from_command_line();
    if served_as_child(&options, &[vec![IN_BLOCKS, LINE], long_rows(), call_rows()].concat()) {
        return;
    }
    let (near_cpu, Some(far_cpu)) = two_cpus() else {
        skipped("all of long messages and calls", "this process may run on one CPU only");
        return;
    };
    let plan = |title, job, yardstick, rows: Vec<Case>, specs| Plan {
        title,
        job,
        yardsticks: vec![yardstick],
        rows: rows.into_iter().map(|case| Row { case, against: 0 }).collect(),
        specs,
        near_cpu,
        far_cpu,
    };
    println!("# Long messages and calls\n");
    println!(
        "Median of {} runs; in brackets the ratio to the yardstick measured beside it. CPU {near_cpu} \
         and CPU {far_cpu}, all bytes copied in and out.\n",
        options.runs
    );
    let mut goals = Goals::default();
    let specs = CALLED.iter().map(|&size| Spec { size, capacity: CALL_CAPACITY }).collect();
    let results = plan("calls".into(), Job::RoundTrip, LINE, call_rows(), specs).run(&options);
    println!("## Calls\n");
    table::print("ns (ratio: lower is better)", &results, |series, _| {
        table::round_trip_cell(series)
    });
    print_by_plain(&results);
    table::print_yardsticks(&results);
    goals.at_most(&results, [CALL, PLAIN], &CALLED, 1.5);

    options.millis = options.millis.max(MIN_MILLIS);
    for (capacity, sizes, quick) in LONG {
        let sizes = options.sizes(sizes, quick);
        let specs = sizes.iter().map(|&size| Spec { size, capacity }).collect();
        let title = format!("long messages, capacity {}", table::bytes(capacity));
        let results = plan(title, Job::OneWay, IN_BLOCKS, long_rows(), specs).run(&options);
        println!("## {}\n", results.plan.title);
        table::print("GB/s (ratio: higher is better)", &results, |series, size| {
            let gigabytes = series.value() * size as f64 / 1e9;
            format!("{} ({})", table::figure(gigabytes), table::figure(series.ratio()))
        });
        table::print_yardsticks(&results);
        goals.yardstick_at_least(&results, PIECES, &sizes, 0.9);
    }
    goals.print();
}

/// Each way of calling, by a message there and one back.
fn print_by_plain(results: &Results) {
    for size in CALLED {
        for name in [CALL, BEGUN, PARKING] {
            let (row, plain) = (results.row(name, size), results.row(PLAIN, size));
            if let (Some((row, _)), Some((plain, _))) = (row, plain) {
                let ratio = table::figure(row.ratio_to(plain));
                println!("- {name}, {}, by {PLAIN}: {ratio}", table::bytes(size));
            }
        }
    }
    println!();
}
