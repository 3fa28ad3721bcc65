//! One way: how many messages a second, how many bytes.
//!
//! Run by `cargo bench --bench throughput`; see `--help` behind `--`. It prints, between two
//! processes pinned to two CPUs, messages and gigabytes a second at two capacities, with the ratio
//! to the streaming limit measured beside them.
//! What always holds: the receiver checks the number of every message, and the clock stops when it
//! has seen the last.
#![allow(unsafe_code)]

mod common;

use common::case::{Case, measure_threads, served_as_child};
use common::cli::Options;
use common::fixed_slots::FixedSlots;
use common::goals::Goals;
use common::link::{Job, Spec};
use common::os_peers::{Pipe, StreamSocket};
use common::plan::{Plan, Results, Row, skipped, two_cpus};
use common::ringway_channel::{Batches, Copying, InPlace, Spins, SpinsThenParks};
use common::ringway_ring::RingEnds;
use common::table;
use common::thread_peers::{Crossbeam, Rtrb, Std, elements};
use common::yardstick::Streaming;

const SIZES: [usize; 8] = [8, 48, 64, 256, 1 << 10, 4 << 10, 64 << 10, 1 << 20];
const QUICK_SIZES: [usize; 3] = [8, 256, 64 << 10];
const CAPACITIES: [usize; 2] = [256 << 10, 4 << 20];

const STREAMING: Case = Case::processes::<Streaming>("streaming limit");

const RINGWAY: &str = "ringway, spin";
const PARKING: &str = "ringway, spin then park";
const BATCHES: &str = "ringway batches of 32, spin";
const IN_PLACE: &str = "ringway in place, spin";
const RIGTORP: &str = "rigtorp's algorithm, spin";
const RTRB: &str = "rtrb bytes (threads), spin";
/// A batch of larger messages fills the caches before it is sent.
const LARGEST_BATCHED: usize = 4 << 10;

fn rows() -> Vec<Case> {
    vec![
        Case::processes::<Copying<Spins>>(RINGWAY),
        Case::processes::<Copying<SpinsThenParks>>(PARKING),
        Case::processes::<Batches>(BATCHES).up_to(LARGEST_BATCHED),
        Case::processes::<InPlace<Spins>>(IN_PLACE),
        Case::processes::<RingEnds>("ringway ring alone, spin"),
        Case::processes::<FixedSlots>(RIGTORP),
        Case::threads(RTRB, measure_threads::<Rtrb>),
        Case::threads("crossbeam (threads), spin", elements::<Crossbeam, true>),
        Case::threads("crossbeam (threads), its own wait", elements::<Crossbeam, false>),
        Case::threads("std mpsc (threads), spin", elements::<Std, true>),
        Case::threads("std mpsc (threads), its own wait", elements::<Std, false>),
        Case::processes::<Pipe>("Unix pipe"),
        Case::processes::<StreamSocket>("Unix stream socket"),
    ]
}

fn main() {
    let options = Options::from_command_line();
    if served_as_child(&options, &[vec![STREAMING], rows()].concat()) {
        return;
    }
    let (near_cpu, Some(far_cpu)) = two_cpus() else {
        skipped("everything one way", "this process may run on one CPU only");
        return;
    };
    println!("# One way\n");
    println!(
        "Million messages a second; gigabytes a second; median of {} runs; in brackets the ratio to \
         the streaming limit measured beside it (the same blocks, one flag a block, no protocol: a \
         limit for large blocks). \
         CPU {near_cpu} to CPU {far_cpu}. All bytes are copied in and out unless the row says \
         otherwise.\n",
        options.runs
    );
    let sizes = options.sizes(&SIZES, &QUICK_SIZES);
    let mut goals = Goals::default();
    let mut smaller = 0;
    for capacity in CAPACITIES {
        // A size whose four messages need more than the smaller capacity has been measured with it.
        let new = |size: &usize| smaller == 0 || 4 * size < capacity;
        let spec = |size: usize| Spec { size, capacity: capacity.max(4 * size) };
        let specs = sizes.iter().copied().filter(new).map(spec).collect();
        smaller = capacity;
        let title = format!("capacity {} (at least 4 messages)", table::bytes(capacity));
        println!("## {title}\n");
        let plan = Plan {
            title,
            job: Job::OneWay,
            yardsticks: vec![STREAMING],
            rows: rows().into_iter().map(|case| Row { case, against: 0 }).collect(),
            specs,
            near_cpu,
            far_cpu,
        };
        let results = plan.run(&options);
        table::print("M/s; GB/s (ratio)", &results, table::one_way_cell);
        check(&mut goals, &results);
    }
    goals.print();
}

/// The goals for this capacity.
fn check(goals: &mut Goals, results: &Results) {
    goals.at_least(results, [RINGWAY, RTRB], &[8], 1.2);
    goals.at_least(results, [RINGWAY, RIGTORP], &[8], 1.5);
    goals.at_least(results, [RINGWAY, RIGTORP], &[64], 1.0);
    goals.at_least(results, [BATCHES, RIGTORP], &[64], 2.0);
    goals.at_least(results, [IN_PLACE, RIGTORP], &[64], 2.0);
    goals.at_least(results, [RINGWAY, RTRB], &[1 << 10], 0.9);
    goals.at_least(results, [RINGWAY, RIGTORP], &[1 << 10], 1.0);
    goals.yardstick_at_least(results, RINGWAY, &[64 << 10, 1 << 20], 0.95);
    goals.at_least(results, [PARKING, RINGWAY], &SIZES, 0.9);
}
