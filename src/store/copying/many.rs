//! Several keys at once, as they were at one moment.
//!
//! [`CopyingReader::read_many`] is it.
//! What always holds: there was a moment during the call at which every key had the value that is
//! returned for it, or was absent where `None` is.
//!
//! # Which moment
//!
//! All keys are searched for, and copied, one after the other; then those that are absent are searched for again, and
//! those that are present looked at again. One that names the same block, of the same version, has not changed in
//! between, because no version comes back. So all of these held at the moment between the two rounds at which the
//! absent one was found absent. Several absent keys need a moment at which all of them were: no operation may be in
//! progress when the search for them begins, and no version may be given out before it ends. Then nothing was set
//! meanwhile, and what was found absent still was so at the end.

use super::budget::Budget;
use super::{Copied, CopyRefusal, CopyingReader, Seen};
use crate::layout::store::{NEXT_VERSION, journal};
use crate::memory::{Memory, Ordering};

impl<M: Memory> CopyingReader<M> {
    /// The values of several keys at one moment; `None` for those that are absent.
    ///
    /// Where several keys are absent, this needs a moment at which no writer is at work: after a writer
    /// has died it is `Busy` until the next one comes.
    ///
    /// # Errors
    /// [`CopyRefusal`].
    pub fn read_many<K: AsRef<[u8]>>(
        &self,
        keys: &[K],
    ) -> Result<Vec<Option<Copied>>, CopyRefusal> {
        let mut budget = Budget::of_keys(&self.geometry, keys.len());
        loop {
            let mut copies = Vec::new();
            let (mut present, mut absent) = (Vec::new(), Vec::new());
            for key in keys {
                copies.push(match self.find_and_copy(key.as_ref(), &mut budget)? {
                    Some((seen, copied)) => {
                        present.push(seen);
                        Some(copied)
                    }
                    None => {
                        absent.push(key.as_ref());
                        None
                    }
                });
                budget.next_key(&self.geometry);
            }
            if self.are_absent(&absent, &mut budget)? && self.are_current(&present) {
                return Ok(copies);
            }
            budget.again(&self.memory)?;
        }
    }

    /// All keys and their values at one moment: one at which no writer is at work, and behind which none sets a
    /// key until all are copied.
    ///
    /// # Errors
    /// [`CopyRefusal`].
    pub fn get_all(&self) -> Result<Vec<(Vec<u8>, Copied)>, CopyRefusal> {
        let mut budget = Budget::of_keys(&self.geometry, 1);
        loop {
            // As in `are_absent`: nothing is set from here until the version is looked at again.
            let next_version = self.memory.load_u64(NEXT_VERSION, Ordering::Acquire);
            if self.memory.load_u64(journal::HEAD, Ordering::Acquire) == 0 {
                let all: Vec<_> = self.iter().collect::<Result<_, _>>()?;
                // What is still there was there when all had been copied; the rest was not.
                let mut same = true;
                let mut looked = Budget::of_keys(&self.geometry, 1);
                for (key, copied) in &all {
                    let seen = self.find(key, &mut looked)?;
                    same &= seen.is_some_and(|seen| seen.block.version == copied.version());
                    looked.next_of_all();
                }
                if same && self.memory.load_u64(NEXT_VERSION, Ordering::Acquire) == next_version {
                    return Ok(all);
                }
            }
            budget.again(&self.memory)?;
        }
    }

    /// Whether all of them are absent at one moment.
    fn are_absent(&self, keys: &[&[u8]], budget: &mut Budget) -> Result<bool, CopyRefusal> {
        let next_version = self.memory.load_u64(NEXT_VERSION, Ordering::Acquire);
        // Pairs with the Release in Journal::end: what was done is visible to the searches below. A
        // later operation gives out a version before it changes a slot.
        let head = self.memory.load_u64(journal::HEAD, Ordering::Acquire);
        if keys.len() > 1 && head != 0 {
            return Ok(false);
        }
        for key in keys {
            if self.find(key, budget)?.is_some() {
                return Ok(false);
            }
            budget.next_key(&self.geometry);
        }
        // The searches' looks are Acquire: this one comes behind them.
        let same = self.memory.load_u64(NEXT_VERSION, Ordering::Acquire) == next_version;
        Ok(same || keys.len() < 2)
    }

    /// Whether slots name what they named, and that is what it was.
    fn are_current(&self, seen: &[Seen]) -> bool {
        seen.iter().all(|seen| self.is_current(seen))
    }
}
