//! Opening what has a name, or creating it where nothing has: what channels and stores do alike.
//!
//! `channel::open` and `store::named` say what they want of what was found.
//! What always holds: whoever waits for others does so for a bounded time, and starts over with what
//! the name means by then.

use std::thread;
use std::time::Duration;

use super::address::{Access, Address};
use super::named::Found;
use crate::error::{NameError, SegmentError};
use crate::memory::Deadline;
use crate::os::clock::monotonic_ns;

/// How long somebody may take to attach before others give up.
const PATIENCE_NS: u64 = 2_000_000_000;

/// Between two looks for a segment that is not there yet.
const FIRST_PAUSE: Duration = Duration::from_micros(100);
const LONGEST_PAUSE: Duration = Duration::from_millis(10);

/// What to do where there is a segment, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    Create,
    Open,
    OpenOrCreate,
}

/// What is wanted of a name. `None` means each time: what was found is not so any more, start over.
pub(crate) trait Wish {
    /// What comes of it.
    type Segment;

    /// Creates it where nothing has the name.
    fn create(&self) -> Result<Option<Self::Segment>, SegmentError>;
    /// Creates it in the place of what was found.
    fn replace(&self, found: &Found) -> Result<Option<Self::Segment>, SegmentError>;
    /// Opens what was found.
    fn take(&self, found: Found) -> Result<Option<Self::Segment>, SegmentError>;
}

/// Refuses a segment that has less of something than was asked for: `(what, asked, found)` each.
pub(crate) fn at_least<const N: usize>(
    address: &Address,
    measures: [(&'static str, u64, u64); N],
) -> Result<(), NameError> {
    match measures.into_iter().find(|(_, asked, found)| found < asked) {
        None => Ok(()),
        Some((what, asked, found)) => {
            Err(NameError::Differs { address: address.to_string(), what, asked, found })
        }
    }
}

/// The end of everybody's patience.
pub(crate) fn patience() -> Deadline {
    Deadline::at_ns(monotonic_ns().saturating_add(PATIENCE_NS))
}

/// Does what is wanted, as often as others are faster.
pub(crate) fn open<W: Wish>(
    address: &Address,
    access: &Access,
    how: How,
    deadline: Deadline,
    wish: &W,
) -> Result<W::Segment, SegmentError> {
    loop {
        let taken = match Found::open(address, access) {
            Ok(found) if how == How::Create => wish.replace(&found)?,
            // A blank file is what a power failure leaves of one: there is nothing to open.
            Ok(found) if how == How::OpenOrCreate && found.is_blank()? => wish.replace(&found)?,
            Ok(found) => wish.take(found)?,
            Err(SegmentError::Name(NameError::NotFound { .. })) if how != How::Open => {
                wish.create()?
            }
            Err(error) => return Err(error),
        };
        if let Some(segment) = taken {
            return Ok(segment);
        }
        // Somebody was faster. Each time somebody gets on, so this is no wait for anybody stopped.
        if monotonic_ns() >= deadline.as_ns() {
            return Err(NameError::Busy { address: address.to_string() }.into());
        }
    }
}

/// Tries to open something until it is there and free, or the time is over.
pub(crate) fn until<T, E>(
    timeout: Duration,
    mut open: impl FnMut() -> Result<T, E>,
    name_error: impl Fn(&E) -> Option<&NameError>,
) -> Result<T, E> {
    let timeout_ns = u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX);
    let deadline_ns = monotonic_ns().saturating_add(timeout_ns);
    let mut pause = FIRST_PAUSE;
    loop {
        let last = monotonic_ns() >= deadline_ns;
        match open() {
            Err(error)
                if !last
                    && matches!(
                        name_error(&error),
                        Some(
                            NameError::NotFound { .. }
                                | NameError::AlreadyClaimed { .. }
                                // Creators replace it.
                                | NameError::Stale { .. }
                                | NameError::Busy { .. }
                        )
                    ) => {}
            opened => return opened,
        }
        let left = Duration::from_nanos(deadline_ns.saturating_sub(monotonic_ns()));
        thread::sleep(pause.min(left));
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}
