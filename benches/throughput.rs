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
use common::link::{Job, Spec};
use common::os_peers::{Pipe, StreamSocket};
use common::plan::{Plan, Row, skipped, two_cpus};
use common::ringway_ring::RingEnds;
use common::table;
use common::thread_peers::{Crossbeam, Rtrb, Std, elements};
use common::yardstick::Streaming;

const SIZES: [usize; 8] = [8, 48, 64, 256, 1 << 10, 4 << 10, 64 << 10, 1 << 20];
const QUICK_SIZES: [usize; 3] = [8, 256, 64 << 10];
const CAPACITIES: [usize; 2] = [256 << 10, 4 << 20];

const STREAMING: Case = Case::processes::<Streaming>("streaming limit");

fn rows() -> Vec<Case> {
    vec![
        Case::processes::<RingEnds>("ringway ring alone, spin"),
        Case::processes::<FixedSlots>("rigtorp's algorithm, spin"),
        Case::threads("rtrb bytes (threads), spin", measure_threads::<Rtrb>),
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
    }
}
