//! The lossy ring: when it is full, the oldest messages are overwritten, and counted.
//!
//! [`LossySender`](crate::channel::LossySender) and [`LossyReceiver`](crate::channel::LossyReceiver)
//! call it, and so do the fuzzers and the models. What always holds: the producer never waits, and
//! nothing that the consumer does decides where it writes; the consumer hands out only messages of
//! which it has checked, after copying them, that nothing of them was overwritten meanwhile; and
//! taken, lost and unread messages always add up to the sent ones.
//!
//! # Protocol
//!
//! Positions, records, padding and the zero word behind the last record are as in the
//! [ordinary ring](crate::ring): the header is the commit word. Each message carries a number between
//! its header and its payload. Numbers count from 0, go up by one, and are never used twice: a
//! producer's successor finds them in the records.
//!
//! What differs is how space is had. The consumer publishes no head that the producer waits for.
//! Instead the producer announces, before it overwrites anything, how far it may write: the *intent*.
//! A record at position `p` is whole as long as `intent <= p + capacity`. The producer, to
//! write a record that ends at `end`:
//!
//! 1. if `end + 8 > intent`: the next intent is `end + 8`, rounded up to a stride, and
//!    1. it walks from the oldest record to the first one that the next intent leaves whole, and
//!       stores that one's position (`oldest`), and now and then a *landmark*,
//!    2. stores the intent,
//!    3. fences, so that whoever sees anything written from here on can see the intent;
//! 2. stores zero at `end`, then number and payload, then the header: the record is committed.
//!
//! The consumer, for the record at its position: loads the header; copies number and payload;
//! fences, so that the next load is no older than what it has copied; loads the intent. If that is
//! beyond its position by more than the capacity, what it has copied may be anything, and is not
//! looked at: it has been overrun. Only then it believes header, number and bytes, and what is wrong
//! with them is [`Corruption`](crate::error::Corruption).
//!
//! This is the broadcast buffer of Agrona (`org.agrona.concurrent.broadcast`: tail intent, tail,
//! latest), with these changes:
//!
//! - **The intent moves in strides** of an eighth of the ring, at most 4 KiB, and not with each
//!   message: one fence and one transfer of its cache line for many messages. The walk over what is
//!   given up is bounded by stride and record, so that no send takes long. What it costs is that
//!   up to a stride is given up early.
//! - **The header is the commit word**, so a message and the news of it cross in one cache line, and
//!   there is no tail to poll.
//! - **The newest message always stays whole**, also while the next one is being written, and if
//!   the producer dies there: a record is at most a quarter of the ring, and record, padding, the
//!   next record and a stride together fit. A receiver that comes late finds something to read.
//! - **An overrun consumer goes to the oldest record** that is whole, not to the newest: it loses
//!   nothing that it need not. Only where it has been overrun again within one lap, and so does not
//!   keep pace, it leaves a distance of an eighth of the ring, then more, up to half of it: there
//!   the nearest landmark is. What it skips would have been overwritten before its turn; each
//!   overrun costs a copy in vain, and the distance makes them rare. A consumer that was only
//!   stopped for a while loses exactly what was overwritten.
//! - **Losses are counted exactly**, by the numbers.
//!
//! A consumer that is overrun at each of [`MAX_ATTEMPTS`] attempts of one call says
//! [`PullError::Overrun`]; it has taken and counted nothing. So every call is bounded, whatever a
//! producer does. With a producer of this crate the last attempts, at the newest landmark, fail only
//! if more than half the ring is written while one message is copied.
//!
//! # What is exact
//!
//! `next` is the number of the first message that the consumer has neither handed out nor counted as
//! lost. Each message that is handed out says how many were lost right before it; they are
//! counted then, and not when they are overwritten. So at every moment *received + lost = next*,
//! over all consumers of the ring: `next` is published (as `settled`) by one store when the following
//! message is asked for, and the count of losses stands in the one of two places that `settled`
//! makes valid. A consumer that dies leaves its last message unsettled: its successor gets it again,
//! or, where it has been overwritten, counts it as lost.
//!
//! The producer knows the number of the oldest record that it has not given up (`retired`), and reads
//! `settled` when it is asked: *lost* is what the consumer has counted, and whatever was given up
//! beyond `settled`. So *sent = taken + lost + unread* at every moment. A message that was given
//! up while the consumer had it in its hands counts as lost until the consumer settles it; once
//! the consumer has settled everything, both sides say the same.
//!
//! # Ordering pairs
//!
//! | store | load | what it carries |
//! |---|---|---|
//! | header, Release: [`LossyProducer::try_push`] | Acquire: [`LossyConsumer::try_take`], [`LossyProducer::attach`] | number, payload, the zero ahead, the intent that covers the record |
//! | intent, then a **release fence**, then whatever overwrites | what was copied, then an **acquire fence**, then the intent, Relaxed | whoever has copied anything new learns of the intent |
//! | intent, Release | Acquire: the consumer's jump | `oldest` and landmarks that belong to it |
//! | `oldest`, landmarks, Release | Acquire: the consumer's jump and attach | that a record is committed there |
//! | `settled`, Release | Acquire: [`LossyProducer::stats`], a consumer's successor | the losses that belong to it |
//! | `settled`, then a **release fence**, then the other pair of losses | the losses, then an **acquire fence**, then `settled` | a pair that changed while it was read is not believed |

mod consumer;
mod geometry;
mod producer;
mod record;
mod settled;
#[cfg(all(test, not(loom)))]
mod tests;

pub use consumer::{LossyConsumer, LossyConsumerStats, MAX_ATTEMPTS, PullError};
pub use geometry::LossyGeometry;
pub use producer::{LossyProducer, LossyProducerStats};
pub use record::LossyRecord;
