//! The schemas of what the language and `std` offer.
//!
//! Nobody calls it: the compiler finds the implementations. What always holds: two types here have
//! the same fingerprint only where they are the same type, or one is a container of as many of the
//! same in the same way (the hasher of a map does not matter).

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap, HashSet, VecDeque};
use std::marker::PhantomData;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::num::{
    NonZeroI8, NonZeroI16, NonZeroI32, NonZeroI64, NonZeroI128, NonZeroIsize, NonZeroU8,
    NonZeroU16, NonZeroU32, NonZeroU64, NonZeroU128, NonZeroUsize, Wrapping,
};
use std::ops::{Bound, Range, RangeFrom, RangeInclusive, RangeTo, RangeToInclusive};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::{Fingerprint, Schema};

/// Types without parameters, by name. Their size goes in because that of some depends on the
/// machine.
macro_rules! plain {
    ($($type:ty),* $(,)?) => {$(
        impl Schema for $type {
            const FINGERPRINT: u64 =
                Fingerprint::new(stringify!($type)).number(size_of::<$type>() as u64).finish();
        }
    )*};
}

plain! {
    bool, char, (),
    u8, u16, u32, u64, u128, usize,
    i8, i16, i32, i64, i128, isize,
    f32, f64,
    NonZeroU8, NonZeroU16, NonZeroU32, NonZeroU64, NonZeroU128, NonZeroUsize,
    NonZeroI8, NonZeroI16, NonZeroI32, NonZeroI64, NonZeroI128, NonZeroIsize,
    Duration,
    IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6,
}

/// Types whose size says nothing, by name.
macro_rules! named {
    ($($type:ty = $name:literal),* $(,)?) => {$(
        impl Schema for $type {
            const FINGERPRINT: u64 = Fingerprint::new($name).finish();
        }
    )*};
}

named! { str = "str", String = "String" }

/// Containers: a name and what they contain.
macro_rules! containers {
    ($($name:ident<$($parameter:ident),+ $(; $ignored:ident)?>),* $(,)?) => {$(
        impl<$($parameter: Schema,)+ $($ignored)?> Schema for $name<$($parameter,)+ $($ignored)?> {
            const FINGERPRINT: u64 =
                Fingerprint::new(stringify!($name))$(.number($parameter::FINGERPRINT))+.finish();
        }
    )*};
}

containers! {
    Option<T>, Result<T, E>, Wrapping<T>, Bound<T>,
    Range<T>, RangeInclusive<T>, RangeFrom<T>, RangeTo<T>, RangeToInclusive<T>,
    Vec<T>, VecDeque<T>, BinaryHeap<T>, BTreeSet<T>, BTreeMap<K, V>,
    HashSet<T; S>, HashMap<K, V; S>,
}

/// Pointers: a name and what they point to, which may have no size of its own.
macro_rules! pointers {
    ($($name:ident),*) => {$(
        impl<T: Schema + ?Sized> Schema for $name<T> {
            const FINGERPRINT: u64 =
                Fingerprint::new(stringify!($name)).number(T::FINGERPRINT).finish();
        }
    )*};
}

pointers! { Box, Rc, Arc, PhantomData }

impl<T: Schema + ToOwned + ?Sized> Schema for Cow<'_, T> {
    const FINGERPRINT: u64 = Fingerprint::new("Cow").number(T::FINGERPRINT).finish();
}

impl<T: Schema> Schema for [T] {
    const FINGERPRINT: u64 = Fingerprint::new("slice").number(T::FINGERPRINT).finish();
}

impl<T: Schema, const N: usize> Schema for [T; N] {
    const FINGERPRINT: u64 =
        Fingerprint::new("array").number(N as u64).number(T::FINGERPRINT).finish();
}

macro_rules! tuples {
    ($(($($parameter:ident)+))*) => {$(
        impl<$($parameter: Schema),+> Schema for ($($parameter,)+) {
            const FINGERPRINT: u64 =
                Fingerprint::new("tuple")$(.number($parameter::FINGERPRINT))+.finish();
        }
    )*};
}

tuples! {
    (A) (A B) (A B C) (A B C D) (A B C D E) (A B C D E F) (A B C D E F G) (A B C D E F G H)
    (A B C D E F G H I) (A B C D E F G H I J) (A B C D E F G H I J K) (A B C D E F G H I J K L)
}
