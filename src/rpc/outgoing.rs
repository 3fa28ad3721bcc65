//! What a caller sends, and until when it waits.
//!
//! `line` sends an [`Outgoing`] for each call. What always holds: short requests are one contiguous
//! message, so that they take the ring's shortest way; the clock is looked at only by who must wait.

use std::io::IoSlice;
use std::thread;
use std::time::Duration;

use crate::channel::Sender;
use crate::error::{SendTimeoutError, TrySendError};
use crate::memory::Deadline;
use crate::os::clock::monotonic_ns;

/// When a call must be over. Who is answered at once never looks at the clock.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    pub(super) timeout: Duration,
    deadline: Option<Deadline>,
}

impl Clock {
    pub(super) fn new(timeout: Duration) -> Self {
        Self { timeout, deadline: None }
    }

    pub(super) fn deadline(&mut self) -> Deadline {
        *self.deadline.get_or_insert_with(|| {
            let timeout_ns = u64::try_from(self.timeout.as_nanos()).unwrap_or(u64::MAX);
            Deadline::at_ns(monotonic_ns().saturating_add(timeout_ns))
        })
    }

    pub(super) fn left(&mut self) -> Duration {
        Duration::from_nanos(self.deadline().as_ns().saturating_sub(monotonic_ns()))
    }
}

/// Between attempts that may fail at once: none before the second one, then longer and longer ones.
#[derive(Debug, Default)]
pub(super) struct Pauses(Duration);

impl Pauses {
    const FIRST: Duration = Duration::from_millis(2);
    const LONGEST: Duration = Duration::from_millis(128);

    pub(super) fn pause(&mut self, clock: &mut Clock) {
        if !self.0.is_zero() {
            thread::sleep(self.0.min(clock.left()));
        }
        self.0 = (2 * self.0).clamp(Self::FIRST, Self::LONGEST);
    }
}

/// What is to be sent: a payload, words, the number of the request, and a last word where there is one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Outgoing<'a> {
    pub(super) tag: u16,
    pub(super) payload: &'a [u8],
    pub(super) words: &'a [u64],
    pub(super) last: Option<u64>,
}

impl<'a> Outgoing<'a> {
    /// The same, with the servers that wait for it where it is a call.
    #[inline]
    pub(super) fn with(self, servers: &'a [u64]) -> Self {
        match self.last {
            Some(target) => {
                Self { words: servers, last: Some(target | (servers.len() as u64) << 48), ..self }
            }
            None => self,
        }
    }
}

/// Requests up to these lengths are put together before they are sent.
const SHORTEST_BYTES: usize = 64;
const SHORT_BYTES: usize = 256;

impl Outgoing<'_> {
    #[inline]
    pub(super) fn try_send(&self, sender: &mut Sender, id: u64) -> Result<(), TrySendError> {
        let words: &[u8] = bytemuck::cast_slice(self.words);
        let len = self.payload.len() + words.len() + 8 + 8 * usize::from(self.last.is_some());
        if len <= SHORTEST_BYTES {
            return self.try_send_short(&mut [0; SHORTEST_BYTES][..len], words, sender, id);
        }
        if len <= SHORT_BYTES {
            return self.try_send_short(&mut [0; SHORT_BYTES][..len], words, sender, id);
        }
        let last = self.last.map(u64::to_ne_bytes);
        let last = last.as_ref().map_or(&[][..], |last| &last[..]);
        let id = id.to_ne_bytes();
        let parts = [self.payload, words, &id, last].map(IoSlice::new);
        sender.try_send_vectored(self.tag, &parts)
    }

    /// `frame` has the length of the whole.
    #[inline]
    fn try_send_short(
        &self,
        frame: &mut [u8],
        words: &[u8],
        sender: &mut Sender,
        id: u64,
    ) -> Result<(), TrySendError> {
        let (payload, rest) = frame.split_at_mut(self.payload.len());
        payload.copy_from_slice(self.payload);
        let (before, rest) = rest.split_at_mut(words.len());
        if !words.is_empty() {
            before.copy_from_slice(words);
        }
        if let Some((bytes, rest)) = rest.split_first_chunk_mut() {
            *bytes = id.to_ne_bytes();
            if let (Some(bytes), Some(last)) = (rest.first_chunk_mut(), self.last) {
                *bytes = last.to_ne_bytes();
            }
        }
        sender.try_send_tagged(self.tag, frame)
    }

    pub(super) fn send(
        &self,
        sender: &mut Sender,
        id: u64,
        deadline: Deadline,
        meanwhile: impl FnMut() -> bool,
    ) -> Result<(), SendTimeoutError> {
        let (words, last) = (bytemuck::cast_slice(self.words), self.last.map(u64::to_ne_bytes));
        let last = last.as_ref().map_or(&[][..], |last| &last[..]);
        let id = id.to_ne_bytes();
        let parts = [self.payload, words, &id, last].map(IoSlice::new);
        sender.send_meanwhile(self.tag, &parts, deadline, meanwhile)
    }
}
