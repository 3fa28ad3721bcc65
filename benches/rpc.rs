//! Remote calls beside plain messages: what a function in another process costs.
//!
//! Run by `cargo bench --bench rpc`; see `--help` behind `--`. It prints, between two processes pinned to
//! two CPUs, the median round trip of a call whose function returns its arguments, with the ratio to a
//! message there and one back over a plain channel, and beside them `Channel::call`.
//! What always holds: both sides check the number of every message.
#![allow(unsafe_code)]

mod common;

use common::case::{Case, served_as_child};
use common::cli::Options;
use common::goals::Goals;
use common::link::{Job, Spec};
use common::plan::{Plan, Row, skipped, two_cpus};
use common::ringway_calls::Calls;
use common::ringway_channel::{Copying, SpinsThenParks};
use common::ringway_rpc::{BY_HANDLE, BY_NAME, BY_START, measure, serve};
use common::table;

const SIZES: [usize; 3] = [8, 64, 1 << 10];
const QUICK_SIZES: [usize; 1] = [8];
const CAPACITY: usize = 256 << 10;

const PLAIN: Case = Case::processes::<Copying<SpinsThenParks>>("a message each way");
const HANDLE: &str = "a function, by handle";
const NAME: &str = "a function, by name";
const START: &str = "a function, begun and waited for";

fn rows() -> Vec<Case> {
    vec![
        Case::processes::<Calls<SpinsThenParks, false>>("Channel::call"),
        Case::processes_by(HANDLE, measure::<BY_HANDLE>, serve),
        Case::processes_by(NAME, measure::<BY_NAME>, serve),
        Case::processes_by(START, measure::<BY_START>, serve),
    ]
}

fn main() {
    let options = Options::from_command_line();
    if served_as_child(&options, &[vec![PLAIN], rows()].concat()) {
        return;
    }
    let (near_cpu, Some(far_cpu)) = two_cpus() else {
        skipped("all of remote calls", "this process may run on one CPU only");
        return;
    };
    println!("# Remote calls\n");
    println!(
        "Median of {} runs; in brackets the ratio to a message each way, measured beside it. Capacity {}, \
         CPU {near_cpu} and CPU {far_cpu}, spin then park, all bytes copied in and out.\n",
        options.runs,
        table::bytes(CAPACITY)
    );
    let specs = options.sizes(&SIZES, &QUICK_SIZES);
    let specs = specs.into_iter().map(|size| Spec { size, capacity: CAPACITY }).collect();
    let plan = Plan {
        title: "round trip".into(),
        job: Job::RoundTrip,
        yardsticks: vec![PLAIN],
        rows: rows().into_iter().map(|case| Row { case, against: 0 }).collect(),
        specs,
        near_cpu,
        far_cpu,
    };
    let results = plan.run(&options);
    table::print("ns (ratio: lower is better)", &results, |series, _| {
        table::round_trip_cell(series)
    });
    table::print_yardsticks(&results);
    let mut goals = Goals::default();
    goals.yardstick_at_most(&results, HANDLE, &SIZES, 1.5);
    goals.print();
}
