//! What one side does to values under keys, once.
//!
//! A [`Work`](super::keyed::Work) names one for each side.
//! What always holds: an operation exists for those sides only that can do it, so that no row can be
//! written down that is not measured.

use std::hint::black_box;

use super::keyed::{Changing, Keyed, stamp_of};

/// Done by a side, over and over.
pub trait Op<K> {
    /// Whether there is such a side at all.
    const IS_DONE: bool = true;
    /// Whether it changes values.
    const WRITES: bool;

    /// Once, to the value of a key; `turn` counts what this side has written.
    fn once(keyed: &mut K, key: u64, turn: &mut u64);
}

/// Nothing: there is no such side.
#[derive(Debug)]
pub struct Rest;
/// Reads a value.
#[derive(Debug)]
pub struct Get;
/// Asks whether a key is there.
#[derive(Debug)]
pub struct Contains;
/// Puts a value in the place of another.
#[derive(Debug)]
pub struct Set;
/// Reads a value and puts one that follows from it in its place.
#[derive(Debug)]
pub struct Update;
/// Removes a key, and puts it there again.
#[derive(Debug)]
pub struct Delete;
/// Adds one to a number: a value of 8 bytes.
#[derive(Debug)]
pub struct Add;

/// The stamp of the next value that is written.
#[inline(always)]
fn next_stamp(key: u64, turn: &mut u64) -> u64 {
    *turn += 1;
    stamp_of(key, *turn & 0xffff_ffff)
}

impl<K> Op<K> for Rest {
    const IS_DONE: bool = false;
    const WRITES: bool = false;

    fn once(_keyed: &mut K, _key: u64, _turn: &mut u64) {}
}

impl<K: Keyed> Op<K> for Get {
    const WRITES: bool = false;

    #[inline(always)]
    fn once(keyed: &mut K, key: u64, _turn: &mut u64) {
        assert_eq!(black_box(keyed.get(key)) as u32, key as u32, "another key's value");
    }
}

impl<K: Changing> Op<K> for Contains {
    const WRITES: bool = false;

    #[inline(always)]
    fn once(keyed: &mut K, key: u64, _turn: &mut u64) {
        assert!(black_box(keyed.contains(key)), "a key is missing");
    }
}

impl<K: Keyed> Op<K> for Set {
    const WRITES: bool = true;

    #[inline(always)]
    fn once(keyed: &mut K, key: u64, turn: &mut u64) {
        keyed.set(key, next_stamp(key, turn));
    }
}

impl<K: Changing> Op<K> for Update {
    const WRITES: bool = true;

    #[inline(always)]
    fn once(keyed: &mut K, key: u64, turn: &mut u64) {
        keyed.update(key, next_stamp(key, turn));
    }
}

impl<K: Changing> Op<K> for Delete {
    const WRITES: bool = true;

    #[inline(always)]
    fn once(keyed: &mut K, key: u64, turn: &mut u64) {
        assert!(keyed.delete(key), "a key is missing");
        keyed.set(key, next_stamp(key, turn));
    }
}

impl<K: Changing> Op<K> for Add {
    const WRITES: bool = true;

    #[inline(always)]
    fn once(keyed: &mut K, key: u64, _turn: &mut u64) {
        keyed.add(key);
    }
}
