//! Threads of a plugin's: to restart it, to end it, to call its hooks.
//!
//! `death`, `stop` and `others` start them. Invariants: a plugin never waits for a thread of another's;
//! what must run runs when a thread can be had again.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use std::{io, thread};

use super::event::HostEventKind;
use super::supervised::{Life, Phase, Supervised};
use crate::supervisor;

impl Supervised {
    /// Starts a thread of this plugin's, so that it never waits for another's: to restart it, to end
    /// it, to call its hooks. It is joined when the plugin has been ended.
    ///
    /// # Errors
    /// No thread can be had.
    pub(super) fn start_thread(
        self: &Arc<Self>,
        life: &mut Life,
        run: impl FnOnce(&Arc<Self>) + Send + 'static,
    ) -> io::Result<()> {
        let this = Arc::clone(self);
        let builder = thread::Builder::new().name(format!("ringway-{}", self.name));
        let work = move || {
            let this = AtWork(this);
            run(&this.0);
        };
        let thread = builder.spawn(work)?;
        life.busy.push(thread.thread().id());
        life.threads.retain(|thread| !thread.is_finished());
        life.threads.push(thread);
        Ok(())
    }

    /// The same; where no thread can be had, that is reported and tried again until it can, at first
    /// after 40 ms, with pauses that double up to 5 s.
    pub(super) fn start_thread_for_sure(
        self: &Arc<Self>,
        life: &mut Life,
        run: impl FnOnce(&Arc<Self>) + Send + 'static,
    ) {
        let run = Arc::new(Mutex::new(Some(run)));
        let first = take_and_run(&run);
        let Err(error) = self.start_thread(life, first) else { return };
        self.report(HostEventKind::NoThread { error: error.to_string() });
        life.delayed += 1;
        let this = Arc::clone(self);
        let next = Mutex::new((Instant::now() + FIRST_RETRY, FIRST_RETRY));
        let still_waits = move || {
            let mut life = this.life();
            let mut next = next.lock().unwrap_or_else(PoisonError::into_inner);
            let (at, pause) = *next;
            if let (true, Phase::Restarting(reason)) = (life.stopping, life.phase) {
                // There is nothing to wait for any more.
                life.delayed -= 1;
                this.end(&mut life, reason, false);
                return false;
            }
            if Instant::now() < at {
                return true;
            }
            if this.start_thread(&mut life, take_and_run(&run)).is_err() {
                let pause = (pause * 2).min(LONGEST_RETRY);
                *next = (Instant::now() + pause, pause);
                return true;
            }
            life.delayed -= 1;
            this.notify();
            false
        };
        // The supervisor runs already: it has watched the process.
        if let Ok(token) = supervisor::ask(Arc::new(still_waits), Box::new(|| ())) {
            life.retries.push(token);
        }
    }
}

const FIRST_RETRY: Duration = Duration::from_millis(40);
const LONGEST_RETRY: Duration = Duration::from_secs(5);

/// A thread's work, which is left where it is if there is no thread.
fn take_and_run<F: FnOnce(&Arc<Supervised>) + Send + 'static>(
    run: &Arc<Mutex<Option<F>>>,
) -> impl FnOnce(&Arc<Supervised>) + Send + use<F> {
    let run = Arc::clone(run);
    move |this| {
        let run = run.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(run) = run {
            run(this);
        }
    }
}

/// A thread of a plugin's that has something to do; dropped, it has not.
struct AtWork(Arc<Supervised>);

impl Drop for AtWork {
    fn drop(&mut self) {
        self.0.life().busy.retain(|&id| id != thread::current().id());
        self.0.notify();
    }
}
