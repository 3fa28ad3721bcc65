//! Topics: whoever publishes under a name reaches everybody who has subscribed to it, in any process.
//!
//! The host and its plugins get a [`Publisher`] and a [`Subscriber`] of the same types, by the name of a
//! topic: [`Host::publisher`](crate::host::Host::publisher), [`Plugin::subscriber`](crate::host::Plugin::subscriber)
//! and so on. What always holds: every subscriber gets every publication that one publisher makes after
//! the subscriber was made, in order, or learns how many it has missed; each pair has a ring of its own,
//! so that nobody who is slow, dead or hostile holds back what others get.
//!
//! ```
//! use ringway::host::Host;
//! use ringway::topic::SubscribeOptions;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let host = Host::builder().links().build()?;
//! // In a plugin the same, on its `Plugin`.
//! let mut subscriber = host.subscriber("news", &SubscribeOptions::default())?;
//! let mut publisher = host.publisher("news")?;
//! publisher.publish(b"hello")?;
//! assert_eq!(&*subscriber.recv()?, b"hello");
//! # Ok(())
//! # }
//! ```
//!
//! | file | what it holds |
//! |---|---|
//! | `options` | what can be chosen; what is done about slow subscribers |
//! | `publisher`, `subscription`, `link_sender` | the publisher; one subscriber of it; the sending end of its link |
//! | `waiters` | who is waited for, and until when |
//! | `queue` | publications that wait in the publisher's memory for room in a ring |
//! | `payload_store` | large publications, in a store of their own |
//! | `subscriber`, `source`, `publication` | who subscribes; one publisher it hears; what it gets |
//! | `passive` | callbacks for publications, on a thread of their own |
//! | `typed` | publications that are values of a type |
//! | `arrivals` | links that were made, on their way to either |
//! | `wire` | records and notes as bytes |
//! | `error` | what a subscriber is told instead |

mod arrivals;
mod error;
mod link_sender;
mod options;
mod passive;
mod payload_store;
mod publication;
mod publisher;
mod queue;
mod source;
mod subscriber;
mod subscription;
#[cfg(test)]
mod tests;
mod typed;
mod waiters;
mod wire;

pub(crate) use arrivals::{Arrival, NewPublishers, NewSubscribers};
pub use error::{Departed, Departure, TopicRecvError};
pub use options::{BackpressurePolicy, PublishOptions, SubscribeOptions};
pub use passive::{
    ListenError, Listening, ListeningStats, PassiveSubscriber, StopListeningError, TopicReport,
};
#[cfg(test)]
pub(crate) use payload_store::keys_of;
pub(crate) use payload_store::remove_left_by;
pub use publication::{OwnedPublication, Publication, PublisherId};
pub use publisher::{PublishError, Published, Publisher, PublisherStats};
pub use subscriber::{Subscriber, SubscriberStats};
pub use subscription::{Missed, SubscriberInfo};
pub use typed::{TypedPublication, TypedPublisher, TypedSubscriber};

/// What is kept as long as a publisher or a subscriber is there: dropping it ends what it stands for.
pub(crate) trait KeepAlive: std::fmt::Debug + Send {}
impl<T: std::fmt::Debug + Send> KeepAlive for T {}
