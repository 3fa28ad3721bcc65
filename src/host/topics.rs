//! Publishers and subscribers of a host and of its plugins.
//!
//! [`Host`] and [`Plugin`] make them: the same calls on both sides, over their desks. What always holds:
//! a topic is whatever somebody has named; nobody needs to be there first.

use std::sync::Arc;

use super::links::{Desk, Inbox, Kind, Link, LinkError, LinkOptions};
use super::{Host, Plugin};
use crate::layout::MIN_CAPACITY_BYTES;
use crate::store::Store;
use crate::topic::{
    Arrival, NewPublishers, NewSubscribers, PublishOptions, Publisher, SubscribeOptions,
    Subscriber, TypedPublisher, TypedSubscriber,
};
use crate::typed::{Decode, Encode};

impl From<Link> for Arrival {
    fn from(link: Link) -> Self {
        let Link { id, channel, peer, note } = link;
        Self { link: id, channel, plugin: peer, note }
    }
}

impl Inbox for NewSubscribers {
    fn linked(&self, link: Link) {
        self.add(link.into());
    }
}

impl Inbox for NewPublishers {
    fn linked(&self, link: Link) {
        self.add(link.into());
    }
}

/// Who publishes and subscribes: a desk, and whose it is.
struct Party<'a> {
    desk: Arc<Desk>,
    /// Empty for the host.
    plugin: &'a str,
    /// A handle of the host's store for large publications, where there is one for this process.
    payloads: Option<Store>,
}

impl Party<'_> {
    fn publisher(
        self,
        topic: &str,
        options: &PublishOptions,
        fingerprint: u64,
    ) -> Result<Publisher, LinkError> {
        let os = |call| move |source| LinkError::Os { call, source };
        let mut publisher = Publisher::new(options, fingerprint).map_err(os("mmap"))?;
        if let Some(store) = self.payloads {
            publisher.use_store(store, self.plugin).map_err(os("getrandom"))?;
        }
        let inbox = Arc::clone(publisher.arrivals());
        let note = inbox.note().to_bytes();
        let timeout = options.join_timeout;
        let joined = self.desk.join(Kind::Topic, topic, &note, inbox, timeout)?;
        publisher.keep(Box::new(joined));
        Ok(publisher)
    }

    fn subscriber(
        self,
        topic: &str,
        options: &SubscribeOptions,
        fingerprint: u64,
    ) -> Result<Subscriber, LinkError> {
        let SubscribeOptions { capacity_bytes, max_message_bytes, wait, join_timeout, .. } =
            *options;
        let link = LinkOptions {
            capacity_bytes,
            // Nothing goes that way.
            reply_capacity_bytes: Some(MIN_CAPACITY_BYTES),
            max_message_bytes,
            wait,
            ..LinkOptions::default()
        };
        let mut subscriber = Subscriber::new(options, fingerprint, self.payloads)?;
        let inbox = Arc::clone(subscriber.arrivals());
        let note = inbox.note().to_bytes();
        let listens = self.desk.listen(Kind::Topic, topic, &note, &link, inbox, join_timeout)?;
        subscriber.keep(Box::new(listens));
        subscriber.settle(join_timeout);
        Ok(subscriber)
    }
}

macro_rules! topics {
    ($who:ident, $name:expr) => {
        /// # Topics
        ///
        /// They need a host that was built with [`links`](crate::host::HostBuilder::links).
        impl $who {
            fn party(&self, with_payloads: bool) -> Result<Party<'_>, LinkError> {
                // Without a handle, publications travel in the rings.
                let payloads = with_payloads.then(|| self.payloads()).flatten();
                Ok(Party { desk: self.desk()?, plugin: $name(self), payloads })
            }

            /// Publishes under a topic from now on, with default choices.
            ///
            /// # Errors
            /// [`LinkError`].
            pub fn publisher(&self, topic: &str) -> Result<Publisher, LinkError> {
                self.publisher_with(topic, &PublishOptions::default())
            }

            /// Publishes under a topic from now on. Returns when all that have subscribed are linked, or
            /// have not answered in time; those get what is published after they have answered.
            ///
            /// # Errors
            /// [`LinkError`].
            pub fn publisher_with(
                &self,
                topic: &str,
                options: &PublishOptions,
            ) -> Result<Publisher, LinkError> {
                self.party(options.store_from_bytes.is_some())?.publisher(topic, options, 0)
            }

            /// Publishes values of one type under a topic. Subscribers to other types are not linked.
            ///
            /// # Errors
            /// [`LinkError`].
            pub fn typed_publisher<C: Encode>(
                &self,
                topic: &str,
                options: &PublishOptions,
            ) -> Result<TypedPublisher<C>, LinkError> {
                let party = self.party(options.store_from_bytes.is_some())?;
                Ok(TypedPublisher::over(party.publisher(topic, options, C::FINGERPRINT)?))
            }

            /// Subscribes to a topic: to what is published under it by any process, from when this
            /// returns on.
            ///
            /// # Errors
            /// [`LinkError`].
            pub fn subscriber(
                &self,
                topic: &str,
                options: &SubscribeOptions,
            ) -> Result<Subscriber, LinkError> {
                self.party(options.use_store)?.subscriber(topic, options, 0)
            }

            /// Subscribes to a topic whose publications are values of one type. Publishers of other types
            /// are not linked.
            ///
            /// # Errors
            /// [`LinkError`].
            pub fn typed_subscriber<C: Decode>(
                &self,
                topic: &str,
                options: &SubscribeOptions,
            ) -> Result<TypedSubscriber<C>, LinkError> {
                let subscriber =
                    self.party(options.use_store)?.subscriber(topic, options, C::FINGERPRINT)?;
                Ok(TypedSubscriber::over(subscriber))
            }
        }
    };
}

topics!(Host, |_| "");
topics!(Plugin, Plugin::name);
