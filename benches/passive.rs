//! Passive mode beside active mode: what handing a message to a callback costs.
//!
//! Run by `cargo bench --bench passive`; see `--help` behind `--`. It prints, between two processes pinned
//! to two CPUs, messages a second one way and the median round trip: received by calls, and by a callback
//! behind a filter.
//! What always holds: both sides check the number of every message.
#![allow(unsafe_code)]

mod common;

use common::case::{Case, served_as_child};
use common::cli::Options;
use common::goals::Goals;
use common::link::{Job, Spec};
use common::plan::{Plan, Row, skipped, two_cpus};
use common::ringway_channel::{Copying, SpinsThenParks};
use common::ringway_passive::{Called, measure, serve};
use common::table;

const SIZES: [usize; 3] = [8, 64, 1 << 10];
const QUICK_SIZES: [usize; 1] = [8];
const CAPACITY: usize = 256 << 10;

const ACTIVE: Case = Case::processes::<Copying<SpinsThenParks>>("received by calls");
const ONE: &str = "a filter and a callback";
const FOUR: &str = "four filters, one of which matches";

fn rows() -> Vec<Case> {
    vec![
        Case::processes_by(ONE, measure, serve::<Called<1>>),
        Case::processes_by(FOUR, measure, serve::<Called<4>>),
    ]
}

fn main() {
    let options = Options::from_command_line();
    if served_as_child(&options, &[vec![ACTIVE], rows()].concat()) {
        return;
    }
    let (near_cpu, Some(far_cpu)) = two_cpus() else {
        skipped("all of passive mode", "this process may run on one CPU only");
        return;
    };
    println!("# Passive mode\n");
    println!(
        "Median of {} runs; in brackets the ratio to the yardstick measured beside it. Capacity {}, CPU \
         {near_cpu} and CPU {far_cpu}, spin then park, all bytes copied. The far side is the one that \
         is active or passive; a round trip's answer is sent by the callback.\n",
        options.runs,
        table::bytes(CAPACITY)
    );
    let mut goals = Goals::default();
    for job in [Job::RoundTrip, Job::OneWay] {
        let spec = |size| Spec { size, capacity: CAPACITY };
        let (title, heading) = match job {
            Job::RoundTrip => ("round trip", "ns (ratio: lower is better)"),
            Job::OneWay => ("one way", "M/s; GB/s (ratio: higher is better)"),
        };
        let plan = Plan {
            title: title.into(),
            job,
            yardsticks: vec![ACTIVE],
            rows: rows().into_iter().map(|case| Row { case, against: 0 }).collect(),
            specs: options.sizes(&SIZES, &QUICK_SIZES).into_iter().map(spec).collect(),
            near_cpu,
            far_cpu,
        };
        let results = plan.run(&options);
        println!("## {title}\n");
        table::print(heading, &results, |series, size| match job {
            Job::RoundTrip => table::round_trip_cell(series),
            Job::OneWay => table::one_way_cell(series, size),
        });
        for name in [ONE, FOUR] {
            for (size, active) in SIZES.iter().zip(&results.yardsticks[0]) {
                let Some((series, _)) = results.row(name, *size) else { continue };
                let more_ns = match job {
                    Job::RoundTrip => series.value() - active.value(),
                    Job::OneWay => 1e9 / series.value() - 1e9 / active.value(),
                };
                let what = format!("{title}: {name}, {}, ns above calls", table::bytes(*size));
                goals.at_most_of(what, more_ns, 200.0);
            }
        }
    }
    goals.print();
}
