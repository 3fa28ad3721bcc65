//! Lossy rings: what sending costs with a receiver that keeps up, with a slow one, and with none.
//!
//! Run by `cargo bench --bench lossy`; see `--help` behind `--`. It prints messages and gigabytes a
//! second at two capacities, with the ratio to the streaming limit measured beside them; the ratio
//! of each lossy row to the ordinary ring, whose sender waits; and how much was lost.
//! What always holds: received and lost messages add up to those sent, and whoever keeps up loses
//! none.
#![allow(unsafe_code)]

mod common;

use comfy_table::{Table, presets};
use common::case::{Case, served_as_child};
use common::cli::Options;
use common::link::{Job, Spec};
use common::plan::{Plan, Results, Row, skipped, two_cpus};
use common::ringway_channel::{Copying, Spins};
use common::ringway_lossy::{KeepsUp, PAUSE, fate, measure_absent, measure_slow};
use common::table;
use common::yardstick::Streaming;

const SIZES: [usize; 5] = [8, 64, 256, 1 << 10, 4 << 10];
const QUICK_SIZES: [usize; 2] = [8, 256];
const CAPACITIES: [usize; 2] = [256 << 10, 4 << 20];

const STREAMING: Case = Case::processes::<Streaming>("streaming limit");
const ORDINARY: &str = "ordinary ring, spin";
const KEEPS_UP: &str = "lossy, the receiver keeps up";
const SLOW: &str = "lossy, a slow receiver (threads)";
const ABSENT: &str = "lossy, no receiver";

fn rows() -> Vec<Case> {
    vec![
        Case::processes::<Copying<Spins>>(ORDINARY),
        Case::processes::<KeepsUp>(KEEPS_UP),
        Case::threads(SLOW, measure_slow),
        Case::threads(ABSENT, measure_absent),
    ]
}

fn main() {
    let options = Options::from_command_line();
    if served_as_child(&options, &[vec![STREAMING], rows()].concat()) {
        return;
    }
    let (near_cpu, Some(far_cpu)) = two_cpus() else {
        skipped("all of lossy", "this process may run on one CPU only");
        return;
    };
    println!("# Lossy rings\n");
    println!(
        "Million messages sent a second; gigabytes a second; median of {} runs; in brackets the ratio \
         to the streaming limit measured beside it. CPU {near_cpu} to CPU {far_cpu}. A slow receiver \
         pauses for {PAUSE:?} after each message.\n",
        options.runs
    );
    for capacity in CAPACITIES {
        let sizes = options.sizes(&SIZES, &QUICK_SIZES).into_iter();
        let plan = Plan {
            title: format!("capacity {}", table::bytes(capacity)),
            job: Job::OneWay,
            yardsticks: vec![STREAMING],
            rows: rows().into_iter().map(|case| Row { case, against: 0 }).collect(),
            // A lossy ring takes messages of less than a quarter of it.
            specs: sizes
                .filter(|size| 8 * size <= capacity)
                .map(|size| Spec { size, capacity })
                .collect(),
            near_cpu,
            far_cpu,
        };
        let results = plan.run(&options);
        println!("## {}\n", results.plan.title);
        table::print("M/s; GB/s (ratio)", &results, table::one_way_cell);
        println!("{}\n", compared(&results));
        println!("{}\n", losses(&results));
    }
}

/// A table of the lossy rows, sizes across.
fn lossy_rows(
    heading: &str,
    results: &Results,
    cell: impl Fn(&'static str, &Spec) -> Option<String>,
) -> Table {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    let sizes = results.plan.specs.iter().map(|spec| table::bytes(spec.size));
    table.set_header(std::iter::once(heading.to_owned()).chain(sizes));
    for name in [KEEPS_UP, SLOW, ABSENT] {
        let cells = results.plan.specs.iter().map(|spec| cell(name, spec).unwrap_or_default());
        table.add_row(std::iter::once(name.to_owned()).chain(cells));
    }
    table
}

fn compared(results: &Results) -> Table {
    lossy_rows("messages a second, by the ordinary ring's", results, |name, spec| {
        let (mine, _) = results.row(name, spec.size)?;
        let (ordinary, _) = results.row(ORDINARY, spec.size)?;
        Some(table::figure(mine.ratio_to(ordinary)))
    })
}

fn losses(results: &Results) -> Table {
    lossy_rows("lost, in % of those sent", results, |name, spec| {
        if name == KEEPS_UP {
            // Its driver stops the bench where a message is missing.
            return results.row(name, spec.size).map(|_| "0".to_owned());
        }
        let fate = fate(name, spec)?;
        Some(format!("{:.2}", 100.0 * fate.lost as f64 / fate.sent as f64))
    })
}
