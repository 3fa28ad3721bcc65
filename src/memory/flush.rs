//! Running once on each of some processors, so that the kernel notes a peer's registration there.
//!
//! `memory::fences` asks for it. One short-lived thread serves all who have asked.
//! Invariants: at most one such thread runs in a process; a request is reported only after the thread
//! has run on each processor of the request that is switched on, within [`PATIENCE_NS`].

use std::sync::MutexGuard;
use std::thread;

use crate::os::affinity::{self, CpuSet};
use crate::os::clock::monotonic_ns;
use crate::os::fork;
use crate::os::per_process::PerProcess;

/// How long a flush may take. A processor whose own thread leaves no time to others is not waited for.
const PATIENCE_NS: u64 = 1_000_000_000;

/// Somebody who wants processors visited.
struct Request {
    cpus: CpuSet,
    asked_ns: u64,
    report: Box<dyn FnOnce() + Send>,
}

#[derive(Default)]
struct Queue {
    requests: Vec<Request>,
    /// The fork generation in which a thread serves the queue; 0 = none.
    served_in: u64,
}

static QUEUE: PerProcess<Queue> = PerProcess::new();

fn queue() -> MutexGuard<'static, Queue> {
    QUEUE.lock()
}

/// Has a thread run on each of these processors, and then calls `report` on it. Does not wait. Nothing
/// is reported where a processor refuses, time is over, or there is no thread to be had.
pub(super) fn ask(cpus: CpuSet, report: Box<dyn FnOnce() + Send>) {
    let Ok(generation) = fork::generation() else { return };
    let mut queue = queue();
    if queue.served_in != generation {
        let thread = thread::Builder::new().name("ringway-flush".into());
        if thread.spawn(move || serve(generation)).is_err() {
            return;
        }
        queue.served_in = generation;
    }
    queue.requests.push(Request { cpus, asked_ns: monotonic_ns(), report });
}

fn serve(generation: u64) {
    loop {
        let requests = {
            let mut queue = queue();
            let requests = std::mem::take(&mut queue.requests);
            if requests.is_empty() {
                if queue.served_in == generation {
                    queue.served_in = 0;
                }
                return;
            }
            requests
        };
        let wanted = requests.iter().fold(CpuSet::default(), |all, one| all.union(&one.cpus));
        let visited = visit(&wanted);
        let now_ns = monotonic_ns();
        for Request { cpus, asked_ns, report } in requests {
            if visited.contains_all(&cpus) && now_ns.saturating_sub(asked_ns) <= PATIENCE_NS {
                report();
            }
        }
    }
}

/// Runs on each of these processors. Returns those that need no visit any more: visited or switched
/// off.
fn visit(wanted: &CpuSet) -> CpuSet {
    let online = CpuSet::online();
    let mut done = CpuSet::default();
    for cpu in wanted.iter() {
        let mut only = CpuSet::default();
        only.insert(cpu);
        // Where the system does not say what is switched on, a refusal counts.
        let off = online.as_ref().is_ok_and(|online| !online.contains_all(&only));
        if off || affinity::run_on(cpu).is_ok() {
            done.insert(cpu);
        }
    }
    done
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use std::time::Duration;

    /// Reached only when the test has failed.
    const NEVER: Duration = Duration::from_secs(60);

    #[test]
    fn f46_a_flush_visits_every_processor_of_this_process() {
        let cpus = CpuSet::of_process().unwrap();
        assert!(visit(&cpus).contains_all(&cpus));
    }

    #[test]
    fn f46_a_processor_that_refuses_is_not_reported() {
        // The calling thread is to keep its processors.
        let refused = thread::spawn(|| {
            let mut cpus = CpuSet::default();
            cpus.insert(affinity::MAX_CPUS - 1);
            let is_off = CpuSet::online().is_ok_and(|online| !online.contains_all(&cpus));
            (affinity::run_on(affinity::MAX_CPUS - 1).is_err(), is_off, visit(&cpus) == cpus)
        });
        let (refused, is_off, done) = refused.join().unwrap();
        assert!(!refused || done == is_off);
    }

    #[test]
    fn f46_a_report_comes_from_another_thread() {
        let (told, reports) = mpsc::channel();
        for _ in 0..2 {
            let told = told.clone();
            let report = move || told.send(thread::current().id()).unwrap();
            ask(CpuSet::of_process().unwrap(), Box::new(report));
        }
        for _ in 0..2 {
            assert_ne!(reports.recv_timeout(NEVER).unwrap(), thread::current().id());
        }
    }
}
