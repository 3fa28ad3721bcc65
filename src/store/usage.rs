//! Since when, where, and by whom a store is in use; what its first user finds and its last one leaves.
//!
//! The openers of named stores call it under the gate; a store without a name only says whose it is.
//! What always holds: a lock or a reader's record that is older than the usage line is never believed; a
//! store that is not marked clean is looked at by whoever has it next while nobody else does, and where
//! bytes may have been lost all of it, before anybody reads it.
//!
//! # What the first user finds
//!
//! | clean | same boot, same file | then |
//! |---|---|---|
//! | yes | either | nothing is unfinished: lock and readers are made anew |
//! | no | yes | processes died: the last operation is taken back or finished |
//! | no | no | the machine went down, or the file was copied: versions go on in a new epoch, the indexes are computed anew, every block's checksum is compared |

use super::header::StoreHeader;
use super::{Core, StoreGeometry, shared};
use crate::error::SegmentError;
use crate::layout::store::journal::HEAD;
use crate::layout::store::usage::{BOOT, CLEAN, FILE, PID, PID_NAMESPACE};
use crate::layout::store::{NEXT_VERSION, reader};
use crate::memory::{MappedMemory, Memory, Ordering};
use crate::os::boot::{self, Identity};
use crate::os::os;
use crate::segment::{Found, Whole, patience};

/// Bits of a version below its epoch.
const EPOCH_BITS: u32 = 40;

/// Says whose lock and readers these are from now on.
pub(super) fn claim(memory: &MappedMemory, file: [u64; 2]) {
    let Identity { pid, pid_namespace, boot, .. } = Identity::own();
    memory.store_u64(BOOT, boot, Ordering::Release);
    memory.store_u64(PID_NAMESPACE, pid_namespace, Ordering::Release);
    memory.store_u32(PID, pid, Ordering::Release);
    // Last: until the file is named, whoever comes next looks at everything again.
    for (offset, value) in FILE.into_iter().zip(file) {
        memory.store_u64(offset, value, Ordering::Release);
    }
}

/// Refuses a store whose lock belongs to processes of another pid namespace: there, other numbers name
/// other threads, and who died could not be told.
pub(super) fn check_namespace(memory: &MappedMemory) -> Result<(), SegmentError> {
    let found = memory.load_u64(PID_NAMESPACE, Ordering::Relaxed);
    let expected = boot::pid_namespace();
    if found == expected { Ok(()) } else { Err(SegmentError::PidNamespace { found, expected }) }
}

/// Whether it was last in use in another boot, so that whoever has a lock on it now is none of its users.
pub(super) fn is_of_another_boot(memory: &MappedMemory) -> bool {
    let (found, boot) = (memory.load_u64(BOOT, Ordering::Relaxed), boot::boot());
    found != 0 && boot != 0 && found != boot
}

/// Brings a store in order that this process has for itself, under the gate. `sync` gets what was stored to
/// where it outlives the machine's uptime. Can be killed, and done again by the next one.
pub(super) fn begin(
    memory: &MappedMemory,
    header: &StoreHeader,
    file: [u64; 2],
    mut sync: impl FnMut() -> Result<(), SegmentError>,
) -> Result<(), SegmentError> {
    let geometry = &header.geometry;
    let was_clean = memory.load_u32(CLEAN, Ordering::Relaxed) == 1;
    let kept = is_same(|offset| memory.load_u64(offset, Ordering::Relaxed), file);
    memory.store_u32(CLEAN, 0, Ordering::Release);
    if was_clean {
        // Before anything else is changed, lest the mark be believed when the machine goes down.
        sync()?;
    }
    shared::make_lock(memory, geometry).map_err(os("pthread_mutex_init"))?;
    forget_readers(memory, geometry);
    if !was_clean {
        recover(memory, geometry, kept)?;
        if !kept {
            // Before a version of the new epoch is given out, lest the machine go down again, and the next
            // one begin the same epoch.
            sync()?;
        }
    }
    claim(memory, file);
    Ok(())
}

/// Whether nothing that was stored in a file that nobody has can have been lost.
pub(super) fn is_all_there(found: &Found) -> bool {
    found.u32_at(CLEAN) == 1 || is_same(|offset| found.u64_at(offset), found.id().words())
}

/// Whether it was in use in this boot, in this file: then nothing that was stored has been lost.
fn is_same(word: impl Fn(u64) -> u64, file: [u64; 2]) -> bool {
    let boot = boot::boot();
    boot != 0 && word(BOOT) == boot && FILE.map(word) == file
}

/// Frees all readers' records: nobody is there who could have one.
fn forget_readers(memory: &MappedMemory, geometry: &StoreGeometry) {
    let words = reader::BYTES / 8 * geometry.readers();
    for word in 0..words {
        memory.store_u64(geometry.reader(0) + word * 8, 0, Ordering::Relaxed);
    }
}

fn recover(
    memory: &MappedMemory,
    geometry: &StoreGeometry,
    kept: bool,
) -> Result<(), SegmentError> {
    let mut core = Core::new(memory.clone(), *geometry);
    let damaged = |_| SegmentError::Damaged { what: "its table names what is no value" };
    if kept {
        core.recover().map_err(damaged)?;
        return Ok(());
    }
    // Versions that were given out may be lost, and must not be given out again.
    let next = memory.load_u64(NEXT_VERSION, Ordering::Relaxed);
    let epoch = (next >> EPOCH_BITS).saturating_add(1) << EPOCH_BITS;
    memory.store_u64(NEXT_VERSION, epoch, Ordering::Release);
    core.rebuild().map_err(damaged)?;
    core.check().map_err(|what| SegmentError::Damaged { what })
}

/// Gives a store back; the last one who does leaves it marked clean, if nothing is unfinished.
pub(super) fn close(segment: &Whole<StoreHeader>) {
    let claim = segment.claim();
    // Where somebody stopped keeps the gate, the next one to open it has more to look at.
    if claim.enter(patience()).unwrap_or(false) {
        let memory = segment.memory();
        let in_order = || memory.load_u64(HEAD, Ordering::Acquire) == 0;
        if claim.take_both().unwrap_or(false) && in_order() {
            // In this order, so that the mark is true of what is on the disk.
            if segment.sync().is_ok() {
                memory.store_u32(CLEAN, 1, Ordering::Release);
                // Lost, it costs a look.
                let _ = segment.sync();
            }
        }
    }
    segment.release();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::store::ROOT;
    use crate::store::{StoreOptions, StoreSegment};

    /// Begins with a store that was in use in another boot; what had the next version and the mark when it was
    /// given to the disk.
    fn begun(clean: u32) -> (Vec<(u64, u32)>, u64) {
        let options = StoreOptions { capacity_bytes: 1 << 20, ..StoreOptions::default() };
        let segment = StoreSegment::anonymous(&options).unwrap();
        let memory = segment.memory();
        let header =
            StoreHeader { geometry: *segment.geometry(), incarnation: segment.incarnation() };
        assert_ne!(memory.load_u64(ROOT, Ordering::Relaxed), 0);
        memory.store_u64(BOOT, 4711, Ordering::Relaxed);
        memory.store_u32(CLEAN, clean, Ordering::Relaxed);
        let next = || memory.load_u64(NEXT_VERSION, Ordering::Relaxed);
        let mut synced = Vec::new();
        let sync = || {
            synced.push((next(), memory.load_u32(CLEAN, Ordering::Relaxed)));
            Ok(())
        };
        begin(memory, &header, [1, 2], sync).unwrap();
        (synced, next())
    }

    #[test]
    fn f04_a_new_epoch_is_on_the_disk_before_a_version_of_it_is_given_out() {
        let (synced, next) = begun(0);
        assert_eq!((synced, next), (vec![(1 << EPOCH_BITS, 0)], 1 << EPOCH_BITS));
        // And where nothing was lost, that it is in use.
        assert_eq!(begun(1), (vec![(1, 0)], 1));
    }
}
