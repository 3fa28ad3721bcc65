//! All rows of a table at all sizes, interleaved, each against a yardstick measured beside it.
//!
//! The benches fill a [`Plan`] and print what [`Plan::run`] returns.
//! What always holds: a run measures, for each size, the yardsticks, then every row, then the
//! yardsticks again; a ratio divides by the mean of the two; the figure is the median of the runs.

use std::time::Duration;

use super::case::{Case, Setting};
use super::cli::Options;
use super::cpu;
use super::link::{Job, Outcome, Spec};
use super::stats::{Latencies, median};
use super::table::bytes;

/// A row, and which of the plan's yardsticks it is divided by.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    pub case: Case,
    pub against: usize,
}

/// What to measure.
#[derive(Debug)]
pub struct Plan {
    /// Heading of the table.
    pub title: String,
    pub job: Job,
    pub yardsticks: Vec<Case>,
    pub rows: Vec<Row>,
    pub specs: Vec<Spec>,
    pub near_cpu: usize,
    pub far_cpu: usize,
}

/// What was measured for one row at one size, one value a run.
#[derive(Debug, Clone)]
pub struct Series {
    /// Nanoseconds, or messages a second.
    pub values: Vec<f64>,
    /// Each value by its yardstick.
    pub ratios: Vec<f64>,
    /// Round trips only, of all runs together.
    pub each: Latencies,
    /// Why there is no figure, or not from every run; then it is not tried again.
    pub failure: Option<String>,
}

/// What was measured: yardsticks first, then rows; for each, the sizes.
#[derive(Debug)]
pub struct Results {
    pub plan: Plan,
    pub yardsticks: Vec<Vec<Series>>,
    pub rows: Vec<Vec<Series>>,
}

impl Results {
    /// A row's series at a size, where every run measured it, and the name of its yardstick.
    pub fn row(&self, name: &str, size: usize) -> Option<(&Series, &'static str)> {
        let row = self.plan.rows.iter().position(|row| row.case.name == name)?;
        let column = self.plan.specs.iter().position(|spec| spec.size == size)?;
        let series = &self.rows[row][column];
        let yardstick = self.plan.yardsticks[self.plan.rows[row].against].name;
        (!series.is_empty() && series.failure.is_none()).then_some((series, yardstick))
    }
}

impl Series {
    fn new() -> Self {
        let (values, ratios) = (Vec::new(), Vec::new());
        Self { values, ratios, each: Latencies::new(), failure: None }
    }

    fn push(&mut self, value: f64, ratio: f64, each: Latencies) {
        self.values.push(value);
        self.ratios.push(ratio);
        self.each.merge(&each);
    }

    /// Whether this cell was measured.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Median of the values.
    pub fn value(&self) -> f64 {
        median(&mut self.values.clone())
    }

    /// Median of the ratios to the yardstick.
    pub fn ratio(&self) -> f64 {
        median(&mut self.ratios.clone())
    }

    /// Median of the ratios, run by run, to another series of the same plan.
    pub fn ratio_to(&self, other: &Self) -> f64 {
        let mut ratios: Vec<f64> =
            self.values.iter().zip(&other.values).map(|(mine, theirs)| mine / theirs).collect();
        median(&mut ratios)
    }

    /// Smallest and largest value.
    pub fn range(&self) -> (f64, f64) {
        let fold = |f: fn(f64, f64) -> f64, start| self.values.iter().copied().fold(start, f);
        (fold(f64::min, f64::INFINITY), fold(f64::max, f64::NEG_INFINITY))
    }
}

impl Plan {
    /// Measures everything, `options.runs` times.
    pub fn run(mut self, options: &Options) -> Results {
        self.rows.retain(|row| options.wants(row.case.name));
        let table = |rows: usize| vec![vec![Series::new(); self.specs.len()]; rows];
        let (mut yardsticks, mut rows) = (table(self.yardsticks.len()), table(self.rows.len()));
        for case in self.rows.iter().map(|row| row.case) {
            if self.specs.iter().any(|spec| spec.size > case.max_size) {
                skipped(case.name, &format!("only up to {}", bytes(case.max_size)));
            }
        }
        cpu::pin(self.near_cpu);
        for run in 0..options.runs {
            eprintln!("{}: run {} of {}", self.title, run + 1, options.runs);
            for (column, spec) in self.specs.iter().enumerate() {
                let yardsticks =
                    yardsticks.iter_mut().map(|columns| &mut columns[column]).collect();
                let rows = rows.iter_mut().map(|columns| &mut columns[column]).collect();
                self.run_size(spec, options, yardsticks, rows);
            }
        }
        Results { plan: self, yardsticks, rows }
    }

    fn run_size(
        &self,
        spec: &Spec,
        options: &Options,
        yardsticks: Vec<&mut Series>,
        rows: Vec<&mut Series>,
    ) {
        let setting = Setting {
            spec: *spec,
            job: self.job,
            time: Duration::from_millis(options.millis),
            far_cpu: self.far_cpu,
        };
        let measure_yardsticks = || {
            let measure = |case: &Case| split(case.measure(&setting).expect("a yardstick"));
            self.yardsticks.iter().map(measure).collect::<Vec<_>>()
        };
        let before = measure_yardsticks();
        let measured: Vec<_> = self
            .rows
            .iter()
            .zip(&rows)
            .map(|(row, series)| {
                let wanted = row.case.max_size >= spec.size && series.failure.is_none();
                wanted.then(|| row.case.measure(&setting).map(split))
            })
            .collect();
        let after = measure_yardsticks();
        let mut beside = Vec::new();
        for (series, ((first, first_each), (second, second_each))) in
            yardsticks.into_iter().zip(before.into_iter().zip(after))
        {
            let mean = f64::midpoint(first, second);
            beside.push(mean);
            series.push(mean, 1.0, first_each);
            series.each.merge(&second_each);
        }
        for ((row, series), cell) in self.rows.iter().zip(rows).zip(measured) {
            match cell {
                Some(Ok((value, each))) => series.push(value, value / beside[row.against], each),
                Some(Err(failure)) => series.failure = Some(failure),
                None => (),
            }
        }
    }
}

fn split(outcome: Outcome) -> (f64, Latencies) {
    match outcome {
        Outcome::RoundTrip { ns, each } => (ns, each),
        Outcome::OneWay { per_second } => (per_second, Latencies::new()),
    }
}

/// The first two CPUs that this process may run on; the second is absent on a machine with one.
pub fn two_cpus() -> (usize, Option<usize>) {
    let cpus = cpu::allowed();
    (cpus[0], cpus.get(1).copied())
}

/// Says on stderr what is not measured, and why.
pub fn skipped(what: &str, why: &str) {
    eprintln!("skipped: {what}: {why}");
}
