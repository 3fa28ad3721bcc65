//! What follows the end of a plugin's process: nothing, or a successor after a pause.
//!
//! Callers set it on a [`PluginSpec`](super::PluginSpec); `death` and `restart` ask it.
//! Invariants: pauses never get shorter within a row of failures; a row is bounded.

use std::time::Duration;

use crate::error::ExitReason;

/// What a host does when a plugin ends.
///
/// A restart waits for a while, at first `backoff_initial`, twice as long after each further
/// failure, at most `backoff_max`. After `max_restarts` failures in a row the host gives up. A
/// plugin that has been ready for [`Restart::STABLE`] (or `backoff_max`, if that is longer) before it
/// failed starts counting anew.
///
/// A restart that somebody has asked for ([`PluginHandle::restart`](super::PluginHandle::restart),
/// [`Plugin::request_restart`](super::Plugin::request_restart)) takes place whatever is said here, and
/// does not count as a failure. There is no pause before it, but where a plugin asks for its own: its
/// successor is started a second after it became ready at the earliest. Where the successor cannot be
/// started, what is said here decides about further attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Restart {
    /// Nothing.
    #[default]
    Never,
    /// Starts it again when it was killed or exited with a code other than 0. An
    /// [unknown](ExitReason::Unknown) reason is not a failure.
    OnFailure {
        /// How many failures in a row are one too many.
        max_restarts: u32,
        /// Pause before the first restart.
        backoff_initial: Duration,
        /// Longest pause.
        backoff_max: Duration,
    },
    /// Starts it again whatever it ended of, until it is told to end.
    Always {
        /// How many ends in a row are one too many.
        max_restarts: u32,
        /// Pause before the first restart.
        backoff_initial: Duration,
        /// Longest pause.
        backoff_max: Duration,
    },
}

impl Restart {
    /// How long a plugin must have been ready for its earlier failures to be forgotten.
    pub const STABLE: Duration = Duration::from_secs(10);

    const MAX_RESTARTS: u32 = 10;
    const BACKOFF_INITIAL: Duration = Duration::from_millis(1);
    const BACKOFF_MAX: Duration = Duration::from_secs(5);

    /// [`OnFailure`](Self::OnFailure) with at most 10 restarts in a row and pauses from 1 ms to 5 s.
    pub const fn on_failure() -> Self {
        Self::OnFailure {
            max_restarts: Self::MAX_RESTARTS,
            backoff_initial: Self::BACKOFF_INITIAL,
            backoff_max: Self::BACKOFF_MAX,
        }
    }

    /// [`Always`](Self::Always) with the same limits as [`on_failure`](Self::on_failure).
    pub const fn always() -> Self {
        Self::Always {
            max_restarts: Self::MAX_RESTARTS,
            backoff_initial: Self::BACKOFF_INITIAL,
            backoff_max: Self::BACKOFF_MAX,
        }
    }

    /// Whether there can be successors that nobody has asked for.
    pub(super) fn is_possible(&self) -> bool {
        *self != Self::Never
    }

    /// The pause before the next start, after a plugin that has failed `failures` times in a row
    /// ended for `reason`; `None` where it is not to be started again.
    pub(super) fn pause(&self, reason: ExitReason, failures: u32) -> Option<Duration> {
        let (max_restarts, initial, longest) = match *self {
            Self::Never => return None,
            Self::OnFailure { .. }
                if matches!(reason, ExitReason::Code(0) | ExitReason::Unknown) =>
            {
                return None;
            }
            Self::OnFailure { max_restarts, backoff_initial, backoff_max }
            | Self::Always { max_restarts, backoff_initial, backoff_max } => {
                (max_restarts, backoff_initial, backoff_max)
            }
        };
        let doublings = failures.min(31);
        (failures < max_restarts).then(|| initial.saturating_mul(1 << doublings).min(longest))
    }

    /// Whether a plugin that was ready for this long has earned that its failures are forgotten.
    pub(super) fn forgets_after(&self, ready: Duration) -> bool {
        match *self {
            Self::Never => false,
            Self::OnFailure { backoff_max, .. } | Self::Always { backoff_max, .. } => {
                ready >= backoff_max.max(Self::STABLE)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_forgotten_after_a_stable_time() {
        let restart = |backoff_max| Restart::Always {
            max_restarts: 1,
            backoff_initial: Duration::ZERO,
            backoff_max,
        };
        let just = Duration::from_nanos(1);
        let short = restart(Duration::from_secs(1));
        assert!(short.forgets_after(Restart::STABLE));
        assert!(!short.forgets_after(Restart::STABLE - just));
        let long = Duration::from_secs(60);
        assert!(restart(long).forgets_after(long));
        assert!(!restart(long).forgets_after(long - just));
        assert!(!Restart::Never.forgets_after(Duration::MAX));
    }

    #[test]
    fn pauses_double_up_to_the_longest() {
        let restart = Restart::OnFailure {
            max_restarts: 5,
            backoff_initial: Duration::from_millis(10),
            backoff_max: Duration::from_millis(50),
        };
        let killed = ExitReason::Signal(9);
        let pauses: Vec<_> = (0..6).map(|failures| restart.pause(killed, failures)).collect();
        let expected = [Some(10), Some(20), Some(40), Some(50), Some(50), None];
        assert_eq!(pauses, expected.map(|pause| pause.map(Duration::from_millis)));
        assert_eq!(restart.pause(ExitReason::Code(0), 0), None);
        assert_eq!(restart.pause(ExitReason::Unknown, 0), None);
        assert_eq!(restart.pause(ExitReason::Code(1), 0), Some(Duration::from_millis(10)));
        assert_eq!(Restart::Never.pause(killed, 0), None);
        assert!(Restart::always().pause(ExitReason::Code(0), 0).is_some());
        assert_eq!(
            Restart::OnFailure {
                max_restarts: u32::MAX,
                backoff_initial: Duration::from_secs(1),
                backoff_max: Duration::MAX,
            }
            .pause(killed, 4_000_000_000),
            Some(Duration::from_secs(1 << 31))
        );
    }
}
