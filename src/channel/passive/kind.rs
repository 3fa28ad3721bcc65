//! What callbacks are called with: messages as they are, or values.
//!
//! The dispatcher takes each message through it. What always holds: what a callback sees is a private
//! copy, and a message that is no value is left where it was.

use std::fmt;
use std::marker::PhantomData;

use crate::channel::{Message, Receiver, TypedReceiver};
use crate::error::RecvError;
use crate::ring::Record;
use crate::typed::Decode;

/// What a passive receiver hands to its callbacks: [`Bytes`] or [`Values`].
pub trait Kind: sealed::Take + 'static {}

pub(super) mod sealed {
    use super::*;

    pub trait Take {
        /// What a callback sees.
        type Item<'a>;
        /// What [`Running::stop`](crate::channel::Running::stop) gives back.
        type End: fmt::Debug;

        /// Takes a message that was found. Not one that is no value.
        fn take<'a>(
            receiver: &'a mut Receiver,
            record: &Record,
        ) -> Result<Self::Item<'a>, RecvError>;

        /// Looks at a message that was taken.
        fn look(message: Message<'_>) -> Result<Self::Item<'_>, RecvError>;

        fn end(receiver: Receiver) -> Self::End;
    }
}

/// Messages as they are.
#[derive(Debug)]
pub struct Bytes;

impl Kind for Bytes {}

impl sealed::Take for Bytes {
    type Item<'a> = Message<'a>;
    type End = Receiver;

    #[inline]
    fn take<'a>(receiver: &'a mut Receiver, record: &Record) -> Result<Message<'a>, RecvError> {
        Ok(receiver.lend(record))
    }

    fn look(message: Message<'_>) -> Result<Message<'_>, RecvError> {
        Ok(message)
    }

    fn end(receiver: Receiver) -> Receiver {
        receiver
    }
}

/// Values, as a codec looks at them.
pub struct Values<C>(PhantomData<fn() -> C>);

impl<C> fmt::Debug for Values<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Values")
    }
}

impl<C: Decode> Kind for Values<C> {}

impl<C: Decode> sealed::Take for Values<C> {
    type Item<'a> = C::View<'a>;
    type End = TypedReceiver<C>;

    #[inline]
    fn take<'a>(receiver: &'a mut Receiver, record: &Record) -> Result<C::View<'a>, RecvError> {
        receiver.take_decoded(record, |bytes| Ok(C::decode(bytes)?))
    }

    fn look(message: Message<'_>) -> Result<C::View<'_>, RecvError> {
        Ok(C::decode(message.bytes())?)
    }

    fn end(receiver: Receiver) -> TypedReceiver<C> {
        TypedReceiver::over(receiver)
    }
}
