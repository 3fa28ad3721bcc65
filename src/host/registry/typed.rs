//! Registered channels of values of one type each way.
//!
//! More calls on [`Host`] and [`Plugin`]. What always holds: who opens such a channel sends what its
//! listener receives, and the reverse, or there is no channel.

use std::marker::PhantomData;
use std::time::Duration;

use super::{AcceptError, ChannelListener};
use crate::channel::{ChannelOptions, TypedChannel};
use crate::host::links::LinkError;
use crate::host::{Host, Plugin};
use crate::typed::Codec;

/// As [`ChannelListener`], of channels that send values of codec `S` and receive values of codec `R`.
#[derive(Debug)]
pub struct TypedListener<S, R> {
    listener: ChannelListener,
    codecs: PhantomData<fn() -> (S, R)>,
}

impl<S: Codec, R: Codec> TypedListener<S, R> {
    /// As [`ChannelListener::accept`].
    ///
    /// # Errors
    /// As there.
    pub fn accept(&self, timeout: Duration) -> Result<TypedChannel<S, R>, AcceptError> {
        // Its types have been checked before it came here.
        self.listener.accept(timeout)?.typed().map_err(|_| AcceptError::Closed)
    }
}

/// The same calls for both.
macro_rules! typed_registry {
    ($($of:ident),*) => {$(
        impl $of {
            /// As [`register_channel`](Self::register_channel), of channels on which this side sends values
            /// of codec `S` and receives values of codec `R`.
            ///
            /// # Errors
            /// As there.
            pub fn register_typed<S: Codec, R: Codec>(
                &self,
                name: &str,
                options: &ChannelOptions,
            ) -> Result<TypedListener<S, R>, LinkError> {
                let options = TypedChannel::<S, R>::options(options);
                let listener = self.register_channel(name, &options)?;
                Ok(TypedListener { listener, codecs: PhantomData })
            }

            /// As [`open_channel`](Self::open_channel), where this side sends values of codec `S` and
            /// receives values of codec `R`: its listener is a [`TypedListener<R, S>`].
            ///
            /// # Errors
            /// As there.
            pub fn open_typed<S: Codec, R: Codec>(
                &self,
                name: &str,
                options: &ChannelOptions,
                timeout: Duration,
            ) -> Result<TypedChannel<S, R>, LinkError> {
                let options = TypedChannel::<S, R>::options(options);
                Ok(self.open_channel(name, &options, timeout)?.typed()?)
            }
        }
    )*};
}

typed_registry! { Host, Plugin }
