//! Channels whose sleepers wait on `raw_sync` events, for systems without a futex.
//!
//! Who asks for them declares in an `unsafe` call that everybody who can write the segment is trusted.
//! What always holds: no safe call makes or attaches such a channel; one that finds one refuses it.
#![allow(unsafe_code)]

use std::os::fd::OwnedFd;

use super::{Channel, ChannelOptions};
use crate::error::SegmentError;
use crate::segment::AnonymousSegment;

/// # Channels with events (feature `raw-sync-event`)
///
/// They work as others do, but that sleepers wait on a pthread mutex and condition variable in the
/// segment, by the `raw_sync` crate. Beside the trust that they need:
///
/// - A process that is killed while it sleeps or wakes may leave the event so that the other side's
///   calls hang, timeouts or not, and with them whoever tells of deaths in that process. Processes
///   that may be killed use futexes.
/// - Timeouts end by the monotonic clock, but single sleeps by the time of day: whoever sets that back
///   makes the one sleep during which it happens longer by as much.
/// - [`wait_for_peer`](Self::wait_for_peer) looks each millisecond, and so does a
///   [`Selector`](super::Selector) at their receivers; a [`Readiness`](super::Readiness) tells of
///   their messages within 250 ms.
impl Channel {
    /// As [`anonymous`](Self::anonymous), with events. The other side is taken by
    /// [`attach_with_event`](Self::attach_with_event); every other way to attach is refused as
    /// [`SegmentError::Incompatible`] with the field "wakeups".
    ///
    /// # Safety
    /// Every process that can write the channel's segment, now and as long as it exists, follows
    /// the protocol and uses the same C library. A process that was handed the descriptor and runs
    /// other code is not such a process: with the bytes of an event it can make this one write
    /// anywhere.
    ///
    /// # Errors
    /// As [`anonymous`](Self::anonymous), and [`SegmentError::Os`] where the events are refused.
    pub unsafe fn anonymous_with_event(options: &ChannelOptions) -> Result<Self, SegmentError> {
        // SAFETY: what the caller has promised.
        let segment = unsafe { AnonymousSegment::create_with_event(&options.geometry())? };
        Self::over(segment, 0, options)
    }

    /// As [`attach`](Self::attach), to a channel with events and no other.
    ///
    /// # Safety
    /// As [`anonymous_with_event`](Self::anonymous_with_event), and the descriptor is of a segment
    /// that this call made: a header proves nothing.
    ///
    /// # Errors
    /// As [`attach`](Self::attach); [`SegmentError::Incompatible`] with the field "wakeups" where
    /// the channel has none; [`SegmentError::Os`] where they are refused.
    pub unsafe fn attach_with_event(
        fd: OwnedFd,
        options: &ChannelOptions,
    ) -> Result<Self, SegmentError> {
        // SAFETY: what the caller has promised.
        let segment = unsafe { AnonymousSegment::attach_with_event(fd)? };
        options.types.check(segment.geometry(), 1)?;
        Self::over(segment, 1, options)
    }

    /// As [`pair`](Self::pair), with events.
    ///
    /// # Safety
    /// As [`anonymous_with_event`](Self::anonymous_with_event), of every process that is given a
    /// descriptor of it.
    ///
    /// # Errors
    /// As [`anonymous_with_event`](Self::anonymous_with_event).
    pub unsafe fn pair_with_event(options: &ChannelOptions) -> Result<(Self, Self), SegmentError> {
        // SAFETY: what the caller has promised.
        let first = unsafe { Self::anonymous_with_event(options)? };
        // SAFETY: as above, and made by that call.
        let second = unsafe { Self::attach_with_event(first.descriptor()?, options)? };
        Ok((first, second))
    }
}
