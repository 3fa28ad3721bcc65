//! Unit tests of mapped memory.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::*;
use crate::os::memfd;

const LEN_BYTES: u64 = 8192;

fn memory() -> MappedMemory {
    let file = memfd::create(LEN_BYTES).unwrap();
    let mapping = Mapping::read_write(&file, LEN_BYTES).unwrap();
    let generation = fork::generation().unwrap();
    MappedMemory::from_mapping(Arc::new(mapping), FenceMode::Real, generation)
}

fn panics<T>(access: impl FnOnce() -> T) -> bool {
    catch_unwind(AssertUnwindSafe(access)).is_err()
}

#[test]
fn accesses_end_where_the_memory_does() {
    let memory = memory();
    let relaxed = Ordering::Relaxed;
    memory.store_u64(LEN_BYTES - 8, 1, relaxed);
    memory.store_u32(LEN_BYTES - 4, 2, relaxed);
    memory.copy_in(LEN_BYTES - 8, &[3; 7]);
    memory.copy_out(LEN_BYTES - 104, &mut [0; 104]);
    memory.copy_in(LEN_BYTES, &[]);
    for offset in [LEN_BYTES - 4, LEN_BYTES, 4, 1, u64::MAX - 7, u64::MAX, 1 << 63, 7 << 61] {
        assert!(panics(|| memory.load_u64(offset, relaxed)), "{offset}");
        assert!(panics(|| memory.store_u64(offset, 1, relaxed)), "{offset}");
        assert!(panics(|| memory.swap_u64(offset, 1, relaxed)), "{offset}");
        assert!(panics(|| memory.fetch_add_u64(offset, 1, relaxed)), "{offset}");
        assert!(panics(|| memory.compare_exchange_u64(offset, 0, 1, relaxed)), "{offset}");
        assert!(panics(|| memory.copy_in(offset, &[1; 8])), "{offset}");
        assert!(panics(|| memory.copy_out(offset, &mut [1; 8])), "{offset}");
    }
    for offset in [LEN_BYTES, 2, 5, u64::MAX - 3, u64::MAX, 1 << 63] {
        assert!(panics(|| memory.load_u32(offset, relaxed)), "{offset}");
        assert!(panics(|| memory.store_u32(offset, 1, relaxed)), "{offset}");
        assert!(panics(|| memory.swap_u32(offset, 1, relaxed)), "{offset}");
        assert!(panics(|| memory.fetch_add_u32(offset, 1, relaxed)), "{offset}");
        assert!(panics(|| memory.compare_exchange_u32(offset, 0, 1, relaxed)), "{offset}");
        assert!(panics(|| memory.wait_u32(offset, 9, Deadline::at_ns(0))), "{offset}");
        assert!(panics(|| memory.wake_u32(offset, 1)), "{offset}");
    }
    assert!(panics(|| memory.copy_in(LEN_BYTES - 96, &[1; 97])));
    assert!(panics(|| memory.copy_out(LEN_BYTES - 96, &mut [1; 97])));
    assert!(panics(|| memory.slice_mut(LEN_BYTES - 1, 2)));
    assert!(panics(|| memory.slice_mut(u64::MAX, usize::MAX)));
    assert_eq!(memory.slice_mut(LEN_BYTES - 1, 1).len(), 1);
}

#[test]
fn words_and_bytes_are_the_same_memory() {
    let memory = memory();
    let relaxed = Ordering::Relaxed;
    memory.store_u32(16, 0x0403_0201_u32.to_le(), relaxed);
    memory.store_u32(20, 0x0807_0605_u32.to_le(), relaxed);
    let mut bytes = [0; 7];
    memory.copy_out(16, &mut bytes);
    assert_eq!(bytes, [1, 2, 3, 4, 5, 6, 7]);
    // SAFETY: nobody writes while the slice lives.
    assert_eq!(unsafe { memory.slice(17, 3) }, [2, 3, 4]);
    memory.copy_in(24, &[9]);
    assert_eq!(memory.load_u64(24, relaxed), 9_u64.to_le());
    assert_eq!(memory.swap_u64(32, 5, relaxed), 0);
    assert_eq!(memory.fetch_add_u64(32, 2, relaxed), 5);
    assert_eq!(memory.compare_exchange_u64(32, 7, 8, relaxed), Ok(7));
    assert_eq!(memory.compare_exchange_u64(32, 7, 9, relaxed), Err(8));
    assert_eq!(memory.swap_u32(40, 5, relaxed), 0);
    assert_eq!(memory.fetch_add_u32(40, 2, relaxed), 5);
    assert_eq!(memory.compare_exchange_u32(40, 7, 8, relaxed), Ok(7));
    assert_eq!(memory.compare_exchange_u32(40, 7, 9, relaxed), Err(8));
}

/// Who stores and looks.
#[derive(Clone, Copy)]
pub(in crate::memory) enum Side {
    Waker = 0,
    Sleeper = 128,
}

/// The Dekker pattern, many times: stores the round in one word and looks for it in the other.
/// Returns the rounds in which the other side's store was missed. Uses what lies behind byte 1024.
pub(in crate::memory) fn store_and_look(
    memory: &MappedMemory,
    side: Side,
    fence: fn(&MappedMemory),
) -> Vec<u32> {
    const READY: u64 = 2048;
    const WORDS: u64 = 1024;
    let (ours, theirs) = (side as u64, 128 - side as u64);
    let mut missed = Vec::new();
    for round in 1..20_000 {
        memory.store_u32(READY + ours, round, Ordering::Release);
        let mut looks = 0_u32;
        while memory.load_u32(READY + theirs, Ordering::Acquire) < round {
            looks += 1;
            if looks.is_multiple_of(1024) {
                std::thread::yield_now();
            }
        }
        // Lines that both sides write keep the next store waiting in the processor's buffer,
        // for longer than one side may have started before the other.
        for line in 0..40 {
            memory.store_u32(3072 + line * 128, round, Ordering::Relaxed);
        }
        memory.store_u32(WORDS + ours, round, Ordering::Relaxed);
        fence(memory);
        if memory.load_u32(WORDS + theirs, Ordering::Relaxed) < round {
            missed.push(round);
        }
    }
    missed
}

/// Both sides in this process, of which neither fences once each has seen the other; and with fences.
#[test]
fn f46_of_two_threads_at_least_one_sees_the_other() {
    for permitted in [FenceMode::Real, FenceMode::detect()] {
        let file = memfd::create(LEN_BYTES).unwrap();
        let mapping = Arc::new(Mapping::read_write(&file, LEN_BYTES).unwrap());
        let generation = fork::generation().unwrap();
        let memory = MappedMemory::from_mapping(mapping, permitted, generation);
        let [waker, sleeper] = [0, 1].map(|side| memory.clone().of_side(side, true));
        waker.announce_fences();
        sleeper.announce_fences();
        assert_eq!(waker.current_fence_mode(), permitted);
        assert_eq!(sleeper.current_fence_mode(), permitted);
        assert!(sleeper.fence_is_certain());
        let (hot, rare) = std::thread::scope(|scope| {
            let hot = scope.spawn(|| store_and_look(&waker, Side::Waker, Memory::light_fence));
            let rare = store_and_look(&sleeper, Side::Sleeper, Memory::heavy_fence);
            (hot.join().unwrap(), rare)
        });
        let both = hot.iter().filter(|round| rare.binary_search(round).is_ok()).count();
        assert_eq!(both, 0, "{permitted:?}: rounds in which both missed the other's store");
    }
}
