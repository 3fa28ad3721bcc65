//! The plain ways beside the three points that make the ring fast.
//!
//! Run by `cargo bench --bench alternatives`; see `--help` behind `--`. One small ring, built five
//! times: as designed, and with one point at a time done the plain way.
//! What always holds: the five share every line but the point that they differ in.
#![allow(unsafe_code)]

mod common;

use common::case::{Case, served_as_child};
use common::cli::Options;
use common::link::{Job, Spec};
use common::plain_ring::{
    Base, FlagBesideHead, HeadNotCached, IndexPublished, PlainRing, RealFence,
};
use common::plan::{Plan, Row, skipped, two_cpus};
use common::ringway_ring::RingEnds;
use common::table;

const SIZES: [usize; 4] = [8, 64, 256, 1 << 10];
const QUICK_SIZES: [usize; 2] = [8, 256];
const CAPACITY: usize = 256 << 10;

const BASE: Case = Case::processes::<PlainRing<Base>>("as designed");

fn rows() -> Vec<Case> {
    vec![
        Case::processes::<RingEnds>("ringway ring alone, spin"),
        Case::processes::<PlainRing<IndexPublished>>("index published"),
        Case::processes::<PlainRing<HeadNotCached>>("head read for every message"),
        Case::processes::<PlainRing<FlagBesideHead>>("wait flag on the line of head"),
        Case::processes::<PlainRing<RealFence>>("real fence before looking for sleepers"),
    ]
}

fn main() {
    let options = Options::from_command_line();
    if served_as_child(&options, &[vec![BASE], rows()].concat()) {
        return;
    }
    let (near_cpu, Some(far_cpu)) = two_cpus() else {
        skipped("all alternatives", "this process may run on one CPU only");
        return;
    };
    println!("# Alternatives\n");
    println!(
        "Median of {} runs; in brackets the ratio to the ring as designed, measured beside it. \
         Capacity {}, CPU {near_cpu} and CPU {far_cpu}, both spinning, all bytes copied.\n",
        options.runs,
        table::bytes(CAPACITY)
    );
    for job in [Job::RoundTrip, Job::OneWay] {
        let spec = |size| Spec { size, capacity: CAPACITY };
        let (title, heading) = match job {
            Job::RoundTrip => ("round trip", "ns (ratio: lower is better)"),
            Job::OneWay => ("one way", "M/s; GB/s (ratio: higher is better)"),
        };
        let plan = Plan {
            title: title.into(),
            job,
            yardsticks: vec![BASE],
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
    }
}
