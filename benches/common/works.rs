//! What the store benches do to values under keys.
//!
//! Each is a [`Work`] of a row; see [`keyed`](super::keyed).

use super::keyed::{Op, Work};

/// Implements [`Work`].
macro_rules! works {
    ($($name:ident: $near:ident beside $far:ident, one: $one:literal;)*) => {$(
        #[derive(Debug)]
        pub struct $name;
        impl Work for $name {
            const NEAR: Op = Op::$near;
            const FAR: Op = Op::$far;
            const ONE: bool = $one;
        }
    )*};
}

works! {
    Get: Get beside Rest, one: false;
    GetOne: Get beside Rest, one: true;
    Contains: Contains beside Rest, one: false;
    Set: Set beside Rest, one: false;
    Delete: Delete beside Rest, one: false;
    Update: Update beside Rest, one: false;
    Add: Add beside Rest, one: false;
    TwoOnOne: Get beside Get, one: true;
    TwoOnMany: Get beside Get, one: false;
    GetBesideSet: Get beside Set, one: false;
    SetBesideGet: Set beside Get, one: false;
}

/// [`Get`] with so many keys.
#[derive(Debug)]
pub struct GetOf<const KEYS: usize>;

impl<const KEYS: usize> Work for GetOf<KEYS> {
    const NEAR: Op = Op::Get;
    const KEYS: usize = KEYS;
}

/// [`Set`] with so many keys.
#[derive(Debug)]
pub struct SetOf<const KEYS: usize>;

impl<const KEYS: usize> Work for SetOf<KEYS> {
    const NEAR: Op = Op::Set;
    const KEYS: usize = KEYS;
}
