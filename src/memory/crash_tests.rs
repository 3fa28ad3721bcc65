//! Unit tests of the crash memory.

use super::*;

const ORDERS: [Ordering; 2] = [Ordering::Relaxed, Ordering::Release];

fn images_after(run: impl FnOnce(&CrashMemory)) -> Vec<Vec<u64>> {
    let memory = CrashMemory::new(24);
    memory.record();
    run(&memory);
    memory.crash().images().iter().map(|image| image.words.clone()).collect()
}

#[test]
fn a_release_store_is_never_seen_without_the_stores_before_it() {
    let images = images_after(|memory| {
        memory.store_u64(0, 1, Ordering::Relaxed);
        memory.store_u64(8, 2, Ordering::Relaxed);
        memory.store_u64(16, 3, Ordering::Release);
    });
    assert_eq!(images, [[0, 0, 0], [1, 0, 0], [0, 2, 0], [1, 2, 0], [1, 2, 3]]);
}

#[test]
fn a_relaxed_store_overtakes_a_release_store_but_not_a_heavy_fence() {
    for fence in [false, true] {
        let images = images_after(|memory| {
            memory.store_u64(0, 1, Ordering::Release);
            memory.light_fence();
            if fence {
                memory.heavy_fence();
            }
            memory.store_u64(8, 2, Ordering::Relaxed);
        });
        assert_eq!(images.contains(&vec![0, 2, 0]), !fence);
        assert!(images.contains(&vec![1, 0, 0]) && images.contains(&vec![1, 2, 0]));
    }
}

/// The family against the definition: every image built is possible, every program-order prefix
/// and every single overtaking store is built.
#[test]
fn images_are_possible_and_cover_prefixes_and_overtaking() {
    for pattern in 0..1_usize << 9 {
        let memory = CrashMemory::new(72);
        memory.record();
        let releases: Vec<bool> = (0..9).map(|at| pattern >> at & 1 == 1).collect();
        for (at, release) in (0..).zip(&releases) {
            memory.store_u64(at * 8, at + 1, ORDERS[usize::from(*release)]);
        }
        let images: HashSet<Vec<bool>> =
            memory.crash().images().into_iter().map(|image| image.visible).collect();
        for visible in &images {
            let last = (0..9).rev().find(|at| visible[*at] && releases[*at]).unwrap_or(0);
            assert!(visible[..last].iter().all(|visible| *visible), "{visible:?}");
        }
        for n in 0..=9 {
            let prefix: Vec<bool> = (0..9).map(|at| at < n).collect();
            assert!(images.contains(&prefix));
            let base = (0..n).rev().find(|at| releases[*at]).map_or(0, |at| at + 1);
            for overtaking in (n..9).filter(|at| !releases[*at]) {
                let mut visible: Vec<bool> = (0..9).map(|at| at < base).collect();
                visible[overtaking] = true;
                assert!(images.contains(&visible), "{overtaking} over {base}: {releases:?}");
            }
        }
    }
}

/// Single images against all of them: those of program order, and, of few free stores, every subset.
#[test]
fn an_image_at_a_store_is_one_of_all_images() {
    for pattern in 0..1_usize << 7 {
        let memory = CrashMemory::new(64);
        memory.record();
        for at in 0..6 {
            let order = ORDERS[pattern >> at & 1];
            memory.store_u64(at * 8, at + 1, order);
            if at == 3 && pattern >> 6 & 1 == 1 {
                memory.release_fence();
            }
        }
        let crash = memory.crash();
        let all: HashSet<Vec<bool>> =
            crash.images().into_iter().map(|image| image.visible).collect();
        let single: HashSet<Vec<bool>> = (0..7 * 64)
            .map(|choice| crash.image_at(choice / 64, choice as u64 % 64).visible)
            .collect();
        assert_eq!(single, all, "{pattern:#b}");
    }
}

#[test]
fn halves_of_a_word_are_stores_of_their_own() {
    let images = images_after(|memory| {
        memory.store_u32(4, 7, Ordering::Relaxed);
        memory.swap_u32(0, 5, Ordering::AcqRel);
        assert_eq!(memory.fetch_add_u32(0, 1, Ordering::Relaxed), 5);
        assert_eq!(memory.compare_exchange_u32(0, 5, 9, Ordering::AcqRel), Err(6));
    });
    let both = |low: u32, high: u32| {
        let heap = HeapMemory::new(24);
        heap.store_u32(0, low, Ordering::Relaxed);
        heap.store_u32(4, high, Ordering::Relaxed);
        heap.to_words()
    };
    for (low, high, possible) in
        [(0, 0, true), (0, 7, true), (5, 7, true), (6, 7, true), (5, 0, false), (6, 0, true)]
    {
        assert_eq!(images.contains(&both(low, high)), possible, "{low} {high}");
    }
}

#[test]
fn an_image_can_be_recovered_on_and_crashed_in_again() {
    let memory = CrashMemory::new(24);
    memory.record();
    memory.copy_in(0, b"0123456789");
    let crash = memory.crash();
    assert_eq!(crash.stores().count(), 2);
    let images = crash.images();
    let last = images.last().expect("there is always one");
    assert_eq!(last.to_heap().to_words(), memory.to_words());
    let again = last.to_memory();
    again.record();
    again.store_u64(16, 1, Ordering::Release);
    assert_eq!(again.crash().images().len(), 2);
    let other = HeapMemory::new(32);
    last.write_to(&other);
    assert_eq!(other.to_words()[..3], memory.to_words());
    assert_eq!(last.to_string(), "crash image with stores xx");
}
