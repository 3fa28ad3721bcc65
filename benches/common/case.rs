//! One row of a table: something that carries messages, and how to measure it once.
//!
//! Each bench lists its cases; [`plan`](super::plan) runs them; the child finds its own by name.
//! What always holds: both ends are pinned before anything is measured, and the far end is gone
//! when a measurement returns.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::thread;
use std::time::Duration;

use super::cli::{ChildArgs, Options};
use super::cpu;
use super::link::{Control, End, Job, Outcome, Spec, drive, serve};
use super::process::{Peer, arm_watchdog, inherit};
use super::shared::Shared;

/// Seconds after which a measurement is taken to hang.
const HANGS_AFTER_S: u32 = 30;

/// Two processes' ends of something.
pub trait Transport {
    /// Both ends.
    type End: End;
    /// The parent's end, and the descriptors from which the child makes its own.
    fn create(spec: &Spec) -> (Self::End, Vec<OwnedFd>);
    /// The child's end.
    fn attach(spec: &Spec, fds: Vec<OwnedFd>) -> Self::End;
}

/// Two threads' ends of something.
pub trait Threads {
    /// Both ends.
    type End: End + Send + 'static;
    /// Near and far end.
    fn pair(spec: &Spec) -> (Self::End, Self::End);
}

/// What one measurement is given.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    pub spec: Spec,
    pub job: Job,
    pub time: Duration,
    /// Where the far end runs.
    pub far_cpu: usize,
}

type Measure = fn(&Case, &Setting) -> Outcome;
type Serve = fn(&ChildArgs);

/// A row.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    pub name: &'static str,
    /// Messages up to this size; a larger one leaves its cell empty.
    pub max_size: usize,
    measure: Measure,
    /// Absent where the far end is a thread.
    serve: Option<Serve>,
}

impl Case {
    /// A row between two processes.
    pub const fn processes<T: Transport>(name: &'static str) -> Self {
        Self {
            name,
            max_size: usize::MAX,
            measure: measure_processes::<T>,
            serve: Some(serve_process::<T>),
        }
    }

    /// A row between two threads of one process.
    pub const fn threads(name: &'static str, measure: Measure) -> Self {
        Self { name, max_size: usize::MAX, measure, serve: None }
    }

    /// The same row for messages up to this size.
    pub const fn up_to(mut self, max_size: usize) -> Self {
        self.max_size = max_size;
        self
    }

    /// Measures once. The calling thread is pinned already.
    pub fn measure(&self, setting: &Setting) -> Outcome {
        arm_watchdog(HANGS_AFTER_S);
        let outcome = (self.measure)(self, setting);
        arm_watchdog(0);
        outcome
    }
}

/// In the child: serves its case and returns true. In the parent: false.
pub fn served_as_child(options: &Options, cases: &[Case]) -> bool {
    let Some(args) = options.child() else { return false };
    let case = cases.iter().find(|case| case.name == args.case).expect("a case of this bench");
    cpu::pin(args.cpu);
    case.serve.expect("a case between processes")(&args);
    true
}

fn measure_processes<T: Transport>(case: &Case, setting: &Setting) -> Outcome {
    let control = Control::new(Shared::create(Control::BYTES));
    let (mut end, fds) = T::create(&setting.spec);
    let args = ChildArgs {
        case: case.name.into(),
        spec: setting.spec,
        job: setting.job,
        cpu: setting.far_cpu,
        parent: 0,
        fds: Vec::new(),
    };
    let mut inherited: Vec<BorrowedFd<'_>> = vec![control.shared().fd()];
    inherited.extend(fds.iter().map(AsFd::as_fd));
    let mut peer = Peer::spawn(args, &inherited);
    drop(fds);
    peer.wait_until_ready(&control);
    let outcome = drive(&mut end, setting.job, &setting.spec, setting.time, &control);
    peer.finish();
    outcome
}

fn serve_process<T: Transport>(args: &ChildArgs) {
    let mut fds = inherit(args);
    let control = Control::new(Shared::attach(fds.remove(0)));
    let mut end = T::attach(&args.spec, fds);
    control.set_ready();
    serve(&mut end, args.job, &control);
}

/// Measures between this thread and a second one; for [`Case::threads`].
pub fn measure_threads<T: Threads>(_case: &Case, setting: &Setting) -> Outcome {
    let control = Control::new(Shared::create(Control::BYTES));
    let (mut near, mut far) = T::pair(&setting.spec);
    let (job, far_cpu, far_control) = (setting.job, setting.far_cpu, control.clone());
    let peer = thread::spawn(move || {
        cpu::pin(far_cpu);
        far_control.set_ready();
        serve(&mut far, job, &far_control);
    });
    while !control.is_ready() && !peer.is_finished() {
        thread::yield_now();
    }
    let outcome = drive(&mut near, job, &setting.spec, setting.time, &control);
    peer.join().expect("the far thread");
    outcome
}
