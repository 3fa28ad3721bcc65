//! Publications that are values of a type.
//!
//! [`Publisher::typed`] and [`Subscriber::typed`] make them of ends that were made for the type. What
//! always holds: a link comes about only between ends of one type, or with a subscriber of bytes; a
//! value is checked before it is handed out.

use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use rkyv::util::AlignedVec;

use super::error::TopicRecvError;
use super::publication::Publication;
use super::publisher::{PublishError, Published, Publisher};
use super::subscriber::Subscriber;
use crate::typed::{Decode, Encode};

/// A [`Publisher`] of values. What a value looks like on its way is the codec's affair:
/// [`Pod`](crate::typed::Pod) or [`Archived`](crate::typed::Archived).
pub struct TypedPublisher<C> {
    publisher: Publisher,
    scratch: AlignedVec,
    codec: PhantomData<fn() -> C>,
}

/// A [`Subscriber`] to values.
pub struct TypedSubscriber<C> {
    subscriber: Subscriber,
    invalid: u64,
    codec: PhantomData<fn() -> C>,
}

/// A publication that is a value. Derefs to the codec's view of it.
#[derive(Debug)]
pub struct TypedPublication<'a, C: Decode> {
    publication: Publication<'a>,
    codec: PhantomData<fn() -> C>,
}

impl<C> fmt::Debug for TypedPublisher<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TypedPublisher").field(&self.publisher).finish()
    }
}

impl<C> fmt::Debug for TypedSubscriber<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TypedSubscriber").field(&self.subscriber).finish()
    }
}

impl<C: Encode> TypedPublisher<C> {
    pub(crate) fn over(publisher: Publisher) -> Self {
        Self { publisher, scratch: AlignedVec::new(), codec: PhantomData }
    }

    /// As [`Publisher::publish`].
    ///
    /// # Errors
    /// As there, and [`PublishError::Serialise`].
    pub fn publish(&mut self, value: &C::Value) -> Result<Published, PublishError> {
        let bytes = C::encode(value, &mut self.scratch).map_err(|_| PublishError::Serialise)?;
        self.publisher.publish(bytes)
    }

    /// The publisher without its type.
    pub fn publisher(&mut self) -> &mut Publisher {
        &mut self.publisher
    }
}

impl<C: Decode> TypedSubscriber<C> {
    pub(crate) fn over(subscriber: Subscriber) -> Self {
        Self { subscriber, invalid: 0, codec: PhantomData }
    }

    /// As [`Subscriber::recv`].
    ///
    /// # Errors
    /// As there, and [`TopicRecvError::Invalid`] for a publication that is no value.
    pub fn recv(&mut self) -> Result<TypedPublication<'_, C>, TopicRecvError> {
        check(self.subscriber.recv()?, &mut self.invalid)
    }

    /// As [`Subscriber::try_recv`].
    ///
    /// # Errors
    /// As there, and [`TopicRecvError::Invalid`].
    pub fn try_recv(&mut self) -> Result<TypedPublication<'_, C>, TopicRecvError> {
        check(self.subscriber.try_recv()?, &mut self.invalid)
    }

    /// As [`Subscriber::recv_timeout`].
    ///
    /// # Errors
    /// As there, and [`TopicRecvError::Invalid`].
    pub fn recv_timeout(
        &mut self,
        timeout: Duration,
    ) -> Result<TypedPublication<'_, C>, TopicRecvError> {
        check(self.subscriber.recv_timeout(timeout)?, &mut self.invalid)
    }

    /// How many publications were no values.
    pub fn invalid(&self) -> u64 {
        self.invalid
    }

    /// The subscriber without its type.
    pub fn subscriber(&mut self) -> &mut Subscriber {
        &mut self.subscriber
    }

    /// As [`subscriber`](Self::subscriber), for good; for callbacks.
    pub fn into_inner(self) -> Subscriber {
        self.subscriber
    }
}

fn check<'a, C: Decode>(
    publication: Publication<'a>,
    invalid: &mut u64,
) -> Result<TypedPublication<'a, C>, TopicRecvError> {
    if C::decode(&publication).is_err() {
        *invalid += 1;
        let (publisher, number) = (publication.publisher(), publication.number());
        return Err(TopicRecvError::Invalid { publisher, number });
    }
    Ok(TypedPublication { publication, codec: PhantomData })
}

impl<C: Decode> TypedPublication<'_, C> {
    /// The value, or a look at it in the subscriber's own copy.
    ///
    /// # Panics
    /// Never: it was checked, and nobody can change it.
    pub fn value(&self) -> C::View<'_> {
        match C::decode(&self.publication) {
            Ok(value) => value,
            Err(_) => unreachable!("it was a value before"),
        }
    }
}

impl<'a, C: Decode> std::ops::Deref for TypedPublication<'a, C> {
    type Target = Publication<'a>;

    fn deref(&self) -> &Publication<'a> {
        &self.publication
    }
}
