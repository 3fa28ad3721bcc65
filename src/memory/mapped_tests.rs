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

/// The Dekker pattern, many times: stores the round in one word and looks for it in the other.
/// Returns the rounds in which the other side's store was missed.
fn store_and_look(
    memory: &MappedMemory,
    ours: u64,
    theirs: u64,
    fence: fn(&MappedMemory),
) -> Vec<u32> {
    const READY: u64 = 1024;
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
            memory.store_u32(2048 + line * 128, round, Ordering::Relaxed);
        }
        memory.store_u32(ours, round, Ordering::Relaxed);
        fence(memory);
        if memory.load_u32(theirs, Ordering::Relaxed) < round {
            missed.push(round);
        }
    }
    missed
}

#[test]
fn of_two_threads_that_store_and_look_at_least_one_sees_the_other() {
    for mode in [FenceMode::Real, FenceMode::detect()] {
        let memory = memory().with_fence_mode(mode);
        let (hot, rare) = std::thread::scope(|scope| {
            let hot = scope.spawn(|| store_and_look(&memory, 0, 128, Memory::light_fence));
            let rare = store_and_look(&memory, 128, 0, Memory::heavy_fence);
            (hot.join().unwrap(), rare)
        });
        let both = hot.iter().filter(|round| rare.binary_search(round).is_ok()).count();
        assert_eq!(both, 0, "{mode:?}: rounds in which both missed the other's store");
    }
}
