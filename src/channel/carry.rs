//! Records on their way from a dead incarnation's ring into its successor's.
//!
//! [`Connection`](super::connection::Connection) calls it when a channel is handed over. What always
//! holds: no more is copied than a ring holds, the old ring's `head` is not published, and nobody is
//! woken.

use crate::error::Corruption;
use crate::memory::Memory;
use crate::ring::{Consumer, Producer};

/// What a hand-over moved.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CarryReport {
    /// Messages carried over into the new segment; of those in fragments, each piece counts.
    pub carried: u64,
    /// Messages dropped because too many incarnations had died over them: tag and length.
    pub dropped: Option<(u16, usize)>,
    /// What stopped the hand-over early.
    pub corruption: Option<Corruption>,
}

/// Takes the first unread message away.
pub(super) fn drop_record<M: Memory>(from: &mut Consumer<M>) -> Option<(u16, usize)> {
    let record = from.peek().ok().flatten()?;
    from.advance(&record);
    Some((record.tag(), record.len_bytes()))
}

/// Copies all committed records of one ring, at most as many bytes as it holds, into another: of
/// whatever kind, so of a long message those pieces that were not released. The receiver there drops
/// what has no beginning or no end.
/// The reading end is private: `head` is not published. Wakes nobody.
pub(super) fn carry<M: Memory>(
    from: &mut Consumer<M>,
    to: &mut Producer<M>,
) -> Result<u64, Corruption> {
    let mut carried = 0;
    let mut left = from.geometry().capacity_bytes();
    let mut buffer = Vec::new();
    while let Some(record) = from.peek()? {
        let Some(rest) = left.checked_sub(record.len_bytes() as u64 + 8) else { break };
        left = rest;
        buffer.resize(record.len_bytes(), 0);
        from.copy_out(&record, &mut buffer);
        // A fresh ring of the same capacity holds what the old one held; only a peer that lies can
        // make it fail.
        let word = if record.is_data() { 0 } else { from.word(&record) };
        if to.try_push_kind(record.kind(), word, record.tag(), &buffer).is_err() {
            break;
        }
        from.advance(&record);
        carried += 1;
    }
    Ok(carried)
}
