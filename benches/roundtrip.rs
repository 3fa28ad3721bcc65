//! There and back: how long a message and its answer take.
//!
//! Run by `cargo bench --bench roundtrip`; see `--help` behind `--`. It prints, between two
//! processes pinned to two CPUs and then to one, the median round trip with its ratio to a yardstick
//! measured beside it, and the percentiles of round trips timed one by one.
//! What always holds: both sides check the number of every message.
#![allow(unsafe_code)]

mod common;

use common::case::{Case, measure_threads, served_as_child};
use common::cli::Options;
use common::fixed_slots::FixedSlots;
use common::goals::Goals;
use common::link::{Job, Spec};
use common::os_peers::{PacketSocket, Pipe, StreamSocket};
use common::plan::{Plan, Results, Row, skipped, two_cpus};
#[cfg(feature = "raw-sync-event")]
use common::ringway_channel::ParksOnEvents;
use common::ringway_channel::{Copying, InPlace, Parks, Spins, SpinsThenParks};
use common::ringway_ring::RingEnds;
use common::table;
use common::thread_peers::{Crossbeam, Rtrb, Std, elements};
use common::yardstick::{Futex, Line, Streaming};

const SIZES: [usize; 8] = [8, 48, 64, 256, 1 << 10, 4 << 10, 64 << 10, 1 << 20];
const QUICK_SIZES: [usize; 3] = [8, 256, 4 << 10];
/// Capacity of every ring and channel, but at least four messages.
const CAPACITY: usize = 256 << 10;
/// Larger packets do not fit a socket buffer everywhere.
const LARGEST_PACKET: usize = 64 << 10;

const LINE: Case = Case::processes::<Line>("line round trip");
const FUTEX: Case = Case::processes::<Futex<false>>("raw futex round trip");

const SPIN: &str = "ringway, spin";
const IN_PLACE: &str = "ringway in place, spin";
const ADAPTIVE: &str = "ringway, spin then park";
const PARK: &str = "ringway, park";

/// Rows that never sleep.
fn spinning() -> Vec<Case> {
    vec![
        Case::processes::<Copying<Spins>>(SPIN),
        Case::processes::<InPlace<Spins>>(IN_PLACE),
        Case::processes::<RingEnds>("ringway ring alone, spin"),
        Case::processes::<Streaming>("one flag a block, spin"),
        Case::processes::<FixedSlots>("rigtorp's algorithm, spin"),
        Case::threads("rtrb bytes (threads), spin", measure_threads::<Rtrb>),
        Case::threads("crossbeam (threads), spin", elements::<Crossbeam, true>),
        Case::threads("std mpsc (threads), spin", elements::<Std, true>),
    ]
}

/// Rows that spin for a while and then sleep.
fn adaptive() -> Vec<Case> {
    vec![
        Case::processes::<Copying<SpinsThenParks>>(ADAPTIVE),
        Case::threads("crossbeam (threads), its own wait", elements::<Crossbeam, false>),
        Case::threads("std mpsc (threads), its own wait", elements::<Std, false>),
    ]
}

/// Rows that sleep at once.
fn parking() -> Vec<Case> {
    vec![
        Case::processes::<Copying<Parks>>(PARK),
        #[cfg(feature = "raw-sync-event")]
        Case::processes::<Copying<ParksOnEvents>>("ringway on events, park"),
        Case::processes::<Futex<true>>("raw futex, timed sleeps"),
        Case::processes::<Pipe>("Unix pipe"),
        Case::processes::<StreamSocket>("Unix stream socket"),
        Case::processes::<PacketSocket>("Unix packet socket").up_to(LARGEST_PACKET),
    ]
}

fn main() {
    let options = Options::from_command_line();
    let all = [vec![LINE, FUTEX], spinning(), adaptive(), parking()].concat();
    if served_as_child(&options, &all) {
        return;
    }
    println!("# Round trip\n");
    println!(
        "Nanoseconds, median of {} runs, and in brackets the ratio to the yardstick measured beside \
         it. Capacity max({}, 4 messages). All bytes are copied in and out; \
         in place, the first and last 8 are written and read in the ring.",
        options.runs,
        table::bytes(CAPACITY)
    );
    println!(
        "Percentiles are of round trips timed one by one and include one reading of the clock, \
         {} ns here.\n",
        table::figure(table::clock_cost_ns())
    );

    let (first, second) = two_cpus();
    let mut goals = Goals::default();
    let row = |against| move |case| Row { case, against };
    if let Some(second) = second {
        let mut rows: Vec<Row> =
            [spinning(), adaptive()].concat().into_iter().map(row(0)).collect();
        rows.extend(parking().into_iter().map(row(1)));
        let two = measure("on two CPUs", vec![LINE, FUTEX], rows, first, second, &options);
        goals.yardstick_at_most(&two, SPIN, &[8, 48], 0.8);
        goals.yardstick_at_most(&two, SPIN, &[64], 1.0);
        goals.yardstick_at_most(&two, SPIN, &[256], 1.3);
        goals.yardstick_at_most(&two, IN_PLACE, &SIZES, 0.75);
        goals.at_most(&two, [ADAPTIVE, SPIN], &SIZES, 1.1);
        goals.yardstick_at_most(&two, PARK, &[8, 64, 1 << 10], 1.05);
    } else {
        skipped("round trips on two CPUs", "this process may run on one only");
    }
    let rows = [adaptive(), parking()].concat().into_iter().map(row(0)).collect();
    let one = measure("on one CPU", vec![FUTEX], rows, first, first, &options);
    goals.yardstick_at_most(&one, PARK, &[8, 64, 1 << 10], 1.05);
    goals.print();
}

fn measure(
    place: &str,
    yardsticks: Vec<Case>,
    rows: Vec<Row>,
    near_cpu: usize,
    far_cpu: usize,
    options: &Options,
) -> Results {
    let spec = |size| Spec { size, capacity: CAPACITY.max(4 * size) };
    let specs = options.sizes(&SIZES, &QUICK_SIZES).into_iter().map(spec).collect();
    let (title, job) = (format!("round trip {place}"), Job::RoundTrip);
    let plan = Plan { title, job, yardsticks, rows, specs, near_cpu, far_cpu };
    let results = plan.run(options);
    println!("## {place}: CPU {near_cpu} and CPU {far_cpu}\n");
    table::print("ns (ratio)", &results, |series, _| table::round_trip_cell(series));
    table::print("ns, p50 / p99 / p99.9", &results, |series, _| table::percentile_cell(series));
    table::print_yardsticks(&results);
    results
}
