//! What the store benches do to values under keys.
//!
//! Each is a [`Work`] of a row; see [`keyed`](super::keyed).

use super::keyed::{Changing, Keyed, Work};
use super::op;

/// Implements [`Work`] for all that can do it.
macro_rules! works {
    ($($name:ident: $near:ident beside $far:ident, one: $one:literal, of: $able:ident;)*) => {$(
        #[derive(Debug)]
        pub struct $name;
        impl<K: $able> Work<K> for $name {
            type Near = op::$near;
            type Far = op::$far;
            const ONE: bool = $one;
        }
    )*};
}

works! {
    Get: Get beside Rest, one: false, of: Keyed;
    GetOne: Get beside Rest, one: true, of: Keyed;
    Contains: Contains beside Rest, one: false, of: Changing;
    Set: Set beside Rest, one: false, of: Keyed;
    Delete: Delete beside Rest, one: false, of: Changing;
    Update: Update beside Rest, one: false, of: Changing;
    Add: Add beside Rest, one: false, of: Changing;
    TwoOnOne: Get beside Get, one: true, of: Keyed;
    TwoOnMany: Get beside Get, one: false, of: Keyed;
    GetBesideSet: Get beside Set, one: false, of: Keyed;
    SetBesideGet: Set beside Get, one: false, of: Keyed;
}

/// [`Get`] with so many keys.
#[derive(Debug)]
pub struct GetOf<const KEYS: usize>;

impl<K: Keyed, const KEYS: usize> Work<K> for GetOf<KEYS> {
    type Near = op::Get;
    type Far = op::Rest;
    const KEYS: usize = KEYS;
}

/// [`Set`] with so many keys.
#[derive(Debug)]
pub struct SetOf<const KEYS: usize>;

impl<K: Keyed, const KEYS: usize> Work<K> for SetOf<KEYS> {
    type Near = op::Set;
    type Far = op::Rest;
    const KEYS: usize = KEYS;
}
