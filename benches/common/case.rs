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
use super::isolated;
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
    /// Whether the near end is a process of its own as well, which may fail or hang.
    isolated: bool,
    /// Why it cannot be measured at all.
    absent: Option<&'static str>,
}

impl Case {
    /// A row between two processes.
    pub const fn processes<T: Transport>(name: &'static str) -> Self {
        Self::processes_by(name, measure_processes::<T>, serve_process::<T>)
    }

    /// A row between two processes whose transport depends on the size of the messages.
    pub const fn processes_by(name: &'static str, measure: Measure, serve: Serve) -> Self {
        let serve = Some(serve);
        Self { name, max_size: usize::MAX, measure, serve, isolated: false, absent: None }
    }

    /// A row that cannot be measured here, and why.
    pub const fn absent(name: &'static str, why: &'static str) -> Self {
        let mut case = Self::threads(name, |_, _| unreachable!("an absent case"));
        case.absent = Some(why);
        case
    }

    /// A row between two threads of one process.
    pub const fn threads(name: &'static str, measure: Measure) -> Self {
        let serve = None;
        Self { name, max_size: usize::MAX, measure, serve, isolated: false, absent: None }
    }

    /// The same row for messages up to this size.
    pub const fn up_to(mut self, max_size: usize) -> Self {
        self.max_size = max_size;
        self
    }

    /// The same row with its near end in a process of its own: what fails there is reported, not
    /// the end of the bench.
    pub const fn isolated(mut self) -> Self {
        self.isolated = true;
        self
    }

    /// Measures once, or says why not. The calling thread is pinned already.
    ///
    /// # Errors
    /// Only where the case is absent or isolated; the end of the bench otherwise.
    pub fn measure(&self, setting: &Setting) -> Result<Outcome, String> {
        match (self.absent, self.isolated) {
            (Some(why), _) => Err(why.to_owned()),
            (None, true) => isolated::measure(self.name, setting),
            (None, false) => Ok(self.measure_here(setting, HANGS_AFTER_S)),
        }
    }

    fn measure_here(&self, setting: &Setting, hangs_after_s: u32) -> Outcome {
        arm_watchdog(hangs_after_s);
        let outcome = (self.measure)(self, setting);
        arm_watchdog(0);
        outcome
    }
}

/// In a child: does what it was started for and returns true. In the parent: false.
pub fn served_as_child(options: &Options, cases: &[Case]) -> bool {
    let Some(args) = options.child() else { return false };
    let case = cases.iter().find(|case| case.name == args.case).expect("a case of this bench");
    if let Some(time) = args.near {
        let report = inherit(&args).remove(0);
        let setting = Setting { spec: args.spec, job: args.job, time, far_cpu: args.cpu };
        let outcome = case.measure_here(&setting, isolated::HANGS_AFTER_S);
        isolated::report(&outcome, report);
        return true;
    }
    cpu::pin(args.cpu);
    case.serve.expect("a case between processes")(&args);
    true
}

/// Measures between this process and a child; for [`Case::processes_by`].
pub fn measure_processes<T: Transport>(case: &Case, setting: &Setting) -> Outcome {
    let control = Control::new(Shared::create(Control::BYTES));
    let (mut end, fds) = T::create(&setting.spec);
    let args = ChildArgs {
        case: case.name.into(),
        spec: setting.spec,
        job: setting.job,
        cpu: setting.far_cpu,
        near: None,
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

/// The child's part; for [`Case::processes_by`].
pub fn serve_process<T: Transport>(args: &ChildArgs) {
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
