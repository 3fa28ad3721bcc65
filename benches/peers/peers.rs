//! ringway beside other ways to move messages between processes, in one run.
//!
//! Run by `cargo bench -p ringway-peers`; see `--help` behind `--`. It prints, between two pinned
//! processes, round trips, messages one way, round trips of sleeping sides, and reads and writes of
//! values under keys, each with its ratio to a yardstick and ringway's to it, and which goals were
//! reached.
//! What always holds: every row is measured in processes of its own, is given up after a time, and
//! leaves nothing behind; a row without a figure says why.

#[path = "../common/mod.rs"]
mod common;
mod peer;
mod report;
mod stores;

use std::time::Instant;

use clap::{Parser, ValueEnum};
use common::case::{Case, measure_threads, served_as_child};
use common::cli::Options;
use common::fixed_slots::FixedSlots;
use common::goals::Goals;
use common::isolated;
use common::link::{Job, Spec};
use common::os_peers::Pipe;
use common::plan::{Plan, Results, Row, skipped, two_cpus};
use common::ringway_channel::{Batches, Copying, InPlace, Parks, Spins};
use common::table::bytes;
use common::thread_peers::Rtrb;
use common::yardstick::{Futex, Line, Streaming};
use peer::{boost, iceoryx2, ipc_channel, ipmpsc, raw_sync, shm_ring, shmem_ipc, shmring};
use report::{Figures, Report};

const SIZES: [usize; 7] = [8, 64, 256, 1 << 10, 4 << 10, 64 << 10, 1 << 20];
const QUICK_SIZES: [usize; 2] = [8, 4 << 10];
const SLEEPING_SIZES: [usize; 2] = [8, 1 << 10];
const CAPACITIES: [usize; 2] = [256 << 10, 4 << 20];
/// A batch of larger messages fills the caches before it is sent.
const LARGEST_BATCHED: usize = 4 << 10;

const LINE: Case = Case::processes::<Line>("line round trip");
const STREAMING: Case = Case::processes::<Streaming>("streaming limit");
const FUTEX: Case = Case::processes::<Futex>("raw futex round trip");

/// Peers by the names of their crates.
const MESSAGES: [&str; 8] =
    ["iceoryx2", "ipc-channel", "ipmpsc", "raw_sync", "rtrb", "shm_ring", "shmem-ipc", "shmring"];

const SPIN: &str = "ringway";
const IN_PLACE: &str = "ringway in place";
const BATCHES: &str = "ringway batches of 32";
const PARK: &str = "ringway, park";
const ICEORYX: &str = "iceoryx2 copy";
const LOAN: &str = "iceoryx2 loan";
const RIGTORP: &str = "rigtorp's SPSCQueue, written anew";
const RTRB: &str = "rtrb bytes (two threads)";

#[derive(Debug, Parser)]
struct Args {
    #[command(flatten)]
    options: Options,
    /// Only one half of it.
    #[arg(long)]
    part: Option<Part>,
    /// Keep what is printed in `benches/RESULTS.md`.
    #[arg(long, conflicts_with = "quick")]
    write_results: bool,
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Messages.
    Channels,
    /// Values under keys.
    Stores,
}

/// What polls, and what can only block.
fn spinning() -> Vec<Case> {
    vec![
        Case::processes::<Copying<Spins>>(SPIN),
        Case::processes::<iceoryx2::Copied>(ICEORYX),
        Case::processes::<ipmpsc::Ipmpsc<false>>("ipmpsc"),
        Case::processes::<shm_ring::ShmRing>("shm_ring"),
        shmem_ipc::case::<false>("shmem-ipc (fixed size)"),
        Case::processes::<shmring::ShmRing<false>>("shmring (unframed)"),
        Case::processes::<ipc_channel::IpcChannel<false>>("ipc-channel"),
        boost::case::<false>("Boost message_queue"),
        Case::processes::<FixedSlots>(RIGTORP),
        Case::threads(RTRB, measure_threads::<Rtrb>),
        Case::processes::<InPlace<Spins>>(IN_PLACE),
        Case::processes::<iceoryx2::Loaned>(LOAN),
    ]
}

fn one_way() -> Vec<Case> {
    let batches = Case::processes::<Batches>(BATCHES).up_to(LARGEST_BATCHED);
    [vec![batches], spinning()].concat()
}

/// What sleeps until a message is there.
fn sleeping() -> Vec<Case> {
    vec![
        Case::processes::<Copying<Parks>>(PARK),
        Case::processes::<iceoryx2::Woken>("iceoryx2 copy and event"),
        Case::processes::<ipmpsc::Ipmpsc<true>>("ipmpsc, blocking"),
        shmem_ipc::case::<true>("shmem-ipc, eventfd"),
        Case::processes::<shmring::ShmRing<true>>("shmring, blocking"),
        Case::processes::<ipc_channel::IpcChannel<true>>("ipc-channel, blocking"),
        boost::case::<true>("Boost message_queue, blocking"),
        Case::processes::<raw_sync::RawSync>("raw_sync Event, a word beside it").up_to(8),
        Case::processes::<Pipe>("Unix pipe"),
    ]
}

fn main() {
    let args = Args::parse();
    let options = args.options.settled();
    let all = [vec![LINE, STREAMING, FUTEX], one_way(), sleeping(), stores::cases()].concat();
    if served_as_child(&options, &all) {
        return;
    }
    let (first, Some(second)) = two_cpus() else {
        skipped("all peers", "this process may run on one CPU only");
        return;
    };
    let started = Instant::now();
    isolated::sweep_dead();
    for part in [Part::Channels, Part::Stores] {
        if args.part.is_some_and(|only| only != part) {
            continue;
        }
        let options = options.clone();
        let mut run = Run { options, report: Report::default(), goals: Goals::default() };
        match part {
            Part::Channels => run.channels([first, second]),
            Part::Stores => stores::run(&mut run, [first, second]),
        }
        run.report.say(&format!("## Goals\n\n{}", run.goals.render()));
        if args.write_results && !run.options.quick {
            run.report.write();
        }
    }
    println!("It took {} s.", started.elapsed().as_secs());
}

/// One run of a part.
struct Run {
    options: Options,
    report: Report,
    goals: Goals,
}

impl Run {
    fn channels(&mut self, [first, second]: [usize; 2]) {
        self.introduce("ringway and its peers");
        self.report.say(&format!(
            "All bytes are copied in and out; in place and on loan, the first and last 8 are written \
             and read where they lie. iceoryx2 holds at most {} messages whatever the capacity. What \
             leaves polling to its user polls four times and then with the processor's pause. \
             rigtorp's SPSCQueue (C++) is its algorithm, written anew over shared memory. \
             Versions: {}.",
            iceoryx2::MOST_SAMPLES,
            report::versions(&MESSAGES)
        ));
        self.round_trips([first, second]);
        self.one_way([first, second]);
        self.asleep("two CPUs", [first, second]);
        self.asleep("one CPU", [first, first]);
    }

    fn introduce(&mut self, heading: &str) {
        self.report.say(&format!(
            "# {heading}\n\nWritten by `{}`.\n\n{}; two processes, pinned. Medians of {} \
             interleaved runs of {} ms a cell. In brackets: the ratio to the yardstick, which every \
             run measures before and after the rows of each size, then ringway's figure divided by \
             the row's, run by run.",
            report::command(),
            report::machine(),
            self.options.runs,
            self.options.millis
        ));
    }

    fn round_trips(&mut self, cpus: [usize; 2]) {
        let least = CAPACITIES[0];
        self.report.say(&format!(
            "## Round trip, both sides spinning\n\nCapacity max({}, 4 messages). Less is better, \
             of ringway ÷ row too.",
            bytes(least)
        ));
        let specs = self.specs(&SIZES, least);
        let results = self.measure("round trip", Job::RoundTrip, LINE, spinning(), specs, cpus);
        self.report.table(&results, Figures::Nanoseconds, beside);
        round_trip_goals(&mut self.goals, &results);
    }

    fn one_way(&mut self, cpus: [usize; 2]) {
        let mut smaller = 0;
        for least in CAPACITIES {
            let mut specs = self.specs(&SIZES, least);
            // A size whose four messages need more than the smaller capacity was measured with it.
            specs.retain(|spec| smaller == 0 || 4 * spec.size < least);
            smaller = least;
            let capacity = bytes(least);
            self.report.say(&format!(
                "## One way, capacity {capacity}\n\nAt least 4 messages. More is better, of \
                 ringway ÷ row too."
            ));
            let title = format!("one way, {capacity}");
            let results = self.measure(&title, Job::OneWay, STREAMING, one_way(), specs, cpus);
            self.report.table(&results, Figures::Rate, beside);
            one_way_goals(&mut self.goals, &results);
        }
    }

    fn asleep(&mut self, place: &str, cpus: [usize; 2]) {
        let least = CAPACITIES[0];
        self.report.say(&format!(
            "## Round trip, both sides asleep, on {place}\n\nCapacity {}. Less is better, of \
             ringway ÷ row too.",
            bytes(least)
        ));
        let specs = self.specs(&SLEEPING_SIZES, least);
        let title = format!("asleep, {place}");
        let results = self.measure(&title, Job::RoundTrip, FUTEX, sleeping(), specs, cpus);
        self.report.table(&results, Figures::Nanoseconds, beside_asleep);
        self.goals.yardstick_at_most(&results, PARK, &SLEEPING_SIZES, 1.05);
    }

    fn specs(&self, all: &[usize], least: usize) -> Vec<Spec> {
        let spec = |size| Spec { size, capacity: least.max(4 * size) };
        self.options.sizes(all, &QUICK_SIZES).into_iter().map(spec).collect()
    }

    fn measure(
        &self,
        title: &str,
        job: Job,
        yardstick: Case,
        rows: Vec<Case>,
        specs: Vec<Spec>,
        [near_cpu, far_cpu]: [usize; 2],
    ) -> Results {
        let rows = rows.into_iter().map(|case| Row { case: case.isolated(), against: 0 });
        let (title, yardsticks) = (title.to_owned(), vec![yardstick.isolated()]);
        let plan = Plan { title, job, yardsticks, rows: rows.collect(), specs, near_cpu, far_cpu };
        plan.run(&self.options)
    }
}

/// ringway's row of the same kind.
fn beside(name: &str) -> &str {
    match name {
        LOAN => IN_PLACE,
        own if own.starts_with("ringway") => name,
        yardstick if [LINE.name, STREAMING.name].contains(&yardstick) => name,
        _ => SPIN,
    }
}

fn beside_asleep(name: &str) -> &str {
    if name == FUTEX.name { name } else { PARK }
}

fn round_trip_goals(goals: &mut Goals, results: &Results) {
    goals.yardstick_at_most(results, SPIN, &[8], 0.8);
    goals.yardstick_at_most(results, SPIN, &[64], 1.0);
    goals.yardstick_at_most(results, SPIN, &[256], 1.3);
    goals.yardstick_at_most(results, IN_PLACE, &SIZES, 0.75);
}

fn one_way_goals(goals: &mut Goals, results: &Results) {
    goals.at_least(results, [SPIN, RTRB], &[8], 1.2);
    goals.at_least(results, [SPIN, RIGTORP], &[8], 1.5);
    goals.at_least(results, [SPIN, ICEORYX], &[8], 50.0);
    goals.at_least(results, [SPIN, ICEORYX], &[64], 10.0);
    goals.at_least(results, [SPIN, RIGTORP], &[64], 1.0);
    goals.at_least(results, [BATCHES, RIGTORP], &[64], 2.0);
    goals.at_least(results, [IN_PLACE, RIGTORP], &[64], 2.0);
    goals.at_least(results, [SPIN, RTRB], &[1 << 10], 0.9);
    goals.at_least(results, [SPIN, RIGTORP], &[1 << 10], 1.0);
    goals.yardstick_at_least(results, SPIN, &[64 << 10, 1 << 20], 0.95);
}
