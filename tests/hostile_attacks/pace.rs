//! How long calls take, against the deadlines that they were given.
//!
//! Invariants: a call that comes back long after its deadline fails the test; one that never comes back aborts the
//! process, and says which call was the last one to come back.

use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// No call comes back so long after its deadline, however busy the machine is.
const LATE: Duration = Duration::from_secs(10);
/// No thread is silent for so long.
const HANGS: Duration = Duration::from_secs(120);

/// The calls of one thread.
#[derive(Debug)]
pub struct Pace {
    last: Arc<Mutex<(Instant, &'static str)>>,
    pub calls: u64,
    pub worst: (Duration, &'static str),
}

impl Pace {
    /// Of the calling thread. It is watched until this is dropped.
    pub fn new() -> Self {
        let last = Arc::new(Mutex::new((Instant::now(), "nothing")));
        let watched = Arc::downgrade(&last);
        thread::spawn(move || {
            while let Some(last) = watched.upgrade() {
                let (at, what) = *last.lock().unwrap();
                drop(last);
                if at.elapsed() > HANGS {
                    eprintln!("{}: what comes after {what} hangs", std::process::id());
                    std::process::abort();
                }
                thread::park_timeout(Duration::from_millis(100));
            }
        });
        Self { last, calls: 0, worst: (Duration::ZERO, "nothing") }
    }

    /// A call has come back.
    pub fn took(&mut self, what: &'static str, deadline: Duration, took: Duration) {
        assert!(took < deadline + LATE, "{what} came back after {took:?}, and not by {deadline:?}");
        *self.last.lock().unwrap() = (Instant::now(), what);
        self.calls += 1;
        if took > self.worst.0 {
            self.worst = (took, what);
        }
    }

    /// Makes a call that has a deadline.
    pub fn call<T>(
        &mut self,
        what: &'static str,
        deadline: Duration,
        call: impl FnOnce() -> T,
    ) -> T {
        let begun = Instant::now();
        let result = call();
        self.took(what, deadline, begun.elapsed());
        result
    }
}
