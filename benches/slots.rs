//! Rings of slots beside rings of records and the peers: small plain values of one length.
//!
//! Run by `cargo bench --bench slots`; see `--help` behind `--`. It prints, between two processes
//! pinned to two CPUs, messages a second at two capacities and the median round trip, with the ratio
//! to a yardstick measured beside them.
//! What always holds: both sides check the number of every message.
#![allow(unsafe_code)]

mod common;

use common::case::{Case, measure_threads, served_as_child};
use common::cli::Options;
use common::fixed_slots::FixedSlots;
use common::goals::Goals;
use common::link::{Job, Spec};
use common::plan::{Plan, Row, skipped, two_cpus};
use common::ringway_channel::{Batches, Copying, Spins, SpinsThenParks};
use common::ringway_slots::{SlotBatches, SlotEnds, Slots};
use common::table;
use common::thread_peers::Rtrb;
use common::yardstick::Line;

const SIZES: [usize; 6] = [8, 16, 24, 48, 64, 256];
const QUICK_SIZES: [usize; 2] = [8, 48];
const SMALL: usize = 256 << 10;
const LARGE: usize = 4 << 20;

const LINE: Case = Case::processes::<Line>("line round trip");
const RIGTORP: Case = Case::processes::<FixedSlots>("rigtorp's algorithm, spin");
const SLOTS: &str = "slots, spin";
const PARKING: &str = "slots, spin then park";
const BATCHES: &str = "slots in batches of 32, spin";
const RTRB: &str = "rtrb bytes (threads), spin";

fn rows() -> Vec<Case> {
    vec![
        Case::processes::<Slots<Spins>>(SLOTS),
        Case::processes::<Slots<SpinsThenParks>>(PARKING),
        Case::processes::<SlotBatches<Spins>>(BATCHES),
        Case::processes::<SlotEnds>("slot ring alone, spin"),
        Case::processes::<Copying<Spins>>("records, spin"),
        Case::processes::<Batches>("records in batches of 32, spin"),
        Case::threads(RTRB, measure_threads::<Rtrb>),
    ]
}

fn main() {
    let options = Options::from_command_line();
    if served_as_child(&options, &[vec![LINE, RIGTORP], rows()].concat()) {
        return;
    }
    let (near_cpu, Some(far_cpu)) = two_cpus() else {
        skipped("all of slots", "this process may run on one CPU only");
        return;
    };
    println!("# Slots\n");
    println!(
        "Median of {} runs; in brackets the ratio to the yardstick measured beside it. CPU {near_cpu} \
         and CPU {far_cpu}, all bytes copied in and out.\n",
        options.runs
    );
    let mut goals = Goals::default();
    let jobs = [(Job::OneWay, SMALL), (Job::OneWay, LARGE), (Job::RoundTrip, SMALL)];
    for (job, capacity) in jobs {
        let spec = |size| Spec { size, capacity };
        let (title, heading, yardstick) = match job {
            Job::RoundTrip => ("round trip", "ns (ratio: lower is better)", LINE),
            Job::OneWay => ("one way", "M/s; GB/s (ratio: higher is better)", RIGTORP),
        };
        let batched = |case: &Case| case.name.contains("batches");
        let cases = rows().into_iter().filter(|case| job == Job::OneWay || !batched(case));
        let plan = Plan {
            title: format!("{title}, capacity {}", table::bytes(capacity)),
            job,
            yardsticks: vec![yardstick],
            rows: cases.map(|case| Row { case, against: 0 }).collect(),
            specs: options.sizes(&SIZES, &QUICK_SIZES).into_iter().map(spec).collect(),
            near_cpu,
            far_cpu,
        };
        let results = plan.run(&options);
        println!("## {}\n", results.plan.title);
        table::print(heading, &results, |series, size| match job {
            Job::RoundTrip => table::round_trip_cell(series),
            Job::OneWay => table::one_way_cell(series, size),
        });
        table::print_yardsticks(&results);
        match job {
            Job::RoundTrip => goals.yardstick_at_most(&results, SLOTS, &[8], 0.8),
            Job::OneWay => {
                goals.yardstick_at_least(&results, SLOTS, &[8], 1.5);
                goals.at_least(&results, [SLOTS, RTRB], &[8], 1.2);
                goals.at_least(&results, [PARKING, SLOTS], &[8, 48], 0.9);
            }
        }
    }
    goals.print();
}
