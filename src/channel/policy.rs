//! What a sender does with a message for which there is no room.
//!
//! Callers choose with [`Sender::with_policy`] and send with [`Sender::offer`]; the other calls of a
//! sender say for themselves what they do. What always holds: an offered message is sent whole, or
//! the receiver never sees anything of it; what was dropped has been counted.

use std::time::Duration;

use super::Sender;
use crate::error::{OfferError, TrySendError};
use crate::memory::Memory;

/// What [`Sender::offer`] does where the ring has no room.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum SendPolicy {
    /// Waits as long as it takes, as [`Sender::send`].
    #[default]
    Block,
    /// Waits so long at most, as [`Sender::send_timeout`]; then [`OfferError::Timeout`].
    BlockFor(Duration),
    /// Does not wait, as [`Sender::try_send`]: [`OfferError::Full`].
    Fail,
    /// Does not wait: drops the message that was offered and counts it. For messages of which new
    /// ones can be missed; where the old ones can, there are
    /// [lossy channels](super::LossySender).
    DropNewest,
}

/// What has become of a message that was offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "the message may have been dropped"]
pub enum Offered {
    /// It is in the ring.
    Sent,
    /// There was no room, and the policy was [`SendPolicy::DropNewest`].
    Dropped,
}

impl Offered {
    /// Whether it is in the ring.
    pub fn is_sent(self) -> bool {
        self == Self::Sent
    }
}

impl<M: Memory> Sender<M> {
    /// With this policy for [`offer`](Self::offer). It stays with this end, also when the peer is
    /// followed by a successor.
    pub fn with_policy(mut self, policy: SendPolicy) -> Self {
        self.set_policy(policy);
        self
    }

    /// As [`with_policy`](Self::with_policy).
    pub fn set_policy(&mut self, policy: SendPolicy) {
        self.policy = policy;
    }

    /// What [`offer`](Self::offer) does; [`SendPolicy::Block`] unless it was set.
    pub fn policy(&self) -> SendPolicy {
        self.policy
    }

    /// Sends a message, or does what the policy says where there is no room.
    ///
    /// With [`SendPolicy::Fail`] and [`SendPolicy::DropNewest`] it never waits, and is fit for a
    /// real-time thread: it takes no lock and makes no system call but the wake of a receiver that
    /// sleeps. The exceptions are rare and bounded: the first call that notices that the peer's place
    /// has been taken by a successor takes locks, and asks the kernel about a stranger. A message longer
    /// than [`max_record_bytes`](Self::max_record_bytes) is refused then, and not dropped, whatever
    /// room there is: it would have to travel in fragments, whose sender waits between them.
    ///
    /// A full ring says nothing about the receiver, and a receiver that has gone is always an error:
    /// what it will never read is not counted as dropped.
    ///
    /// ```
    /// use ringway::channel::{Channel, ChannelOptions, Offered, SendPolicy};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let options = ChannelOptions { capacity_bytes: 256, ..ChannelOptions::default() };
    /// let (near, mut far) = Channel::pair(&options)?;
    /// let (sender, _receiver) = near.split();
    /// let mut meter = sender.with_policy(SendPolicy::DropNewest);
    /// let mut sent = 0;
    /// for level in 0..100_u64 {
    ///     match meter.offer(&level.to_ne_bytes())? {
    ///         Offered::Sent => sent += 1,
    ///         Offered::Dropped => {} // the next one comes soon
    ///     }
    /// }
    /// assert_eq!(meter.stats().dropped, 100 - sent);
    /// assert_eq!(far.recv_pod::<u64>()?, 0); // the oldest ones have stayed
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`OfferError::Timeout`] and [`OfferError::Full`] as the policy says;
    /// [`OfferError::WouldFragment`] as above; the others as [`send`](Self::send). The message has not
    /// been sent then.
    #[inline]
    pub fn offer(&mut self, payload: &[u8]) -> Result<Offered, OfferError> {
        self.offer_tagged(0, payload)
    }

    /// [`offer`](Self::offer) with a tag, which the receiver sees beside the message.
    ///
    /// # Errors
    /// As [`offer`](Self::offer).
    #[inline]
    pub fn offer_tagged(&mut self, tag: u16, payload: &[u8]) -> Result<Offered, OfferError> {
        if self.send_simple(tag, payload) {
            return Ok(Offered::Sent);
        }
        self.offer_other(tag, payload)
    }

    #[inline(never)]
    fn offer_other(&mut self, tag: u16, payload: &[u8]) -> Result<Offered, OfferError> {
        match self.policy {
            SendPolicy::Block => self.send_waiting(tag, payload)?,
            SendPolicy::BlockFor(timeout) => {
                let deadline = self.deadline(timeout);
                self.send_deadline(tag, payload, deadline)?;
            }
            SendPolicy::Fail => self.try_send_other(tag, payload)?,
            SendPolicy::DropNewest => match self.try_send_other(tag, payload) {
                Err(TrySendError::Full) => {
                    self.producer.count_dropped();
                    return Ok(Offered::Dropped);
                }
                result => result?,
            },
        }
        Ok(Offered::Sent)
    }
}
