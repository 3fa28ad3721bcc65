//! On how many processors, and on which, this thread runs.
//!
//! The choice of the fence and of how long to spin asks here.
//! What always holds: the answers are hints, true when they were given; an unknown answer is said to
//! be unknown.

/// Number of processors that this thread may run on; `None` where the kernel does not say.
pub(crate) fn available_cpus() -> Option<usize> {
    // Room for 65536 processors, more than any kernel is built for.
    let mut mask = [0_u64; 1024];
    let len_bytes = size_of_val(&mask);
    // SAFETY: the kernel writes at most `len_bytes` bytes, which is the size of `mask`; a
    // `cpu_set_t` is nothing but such words.
    let result = unsafe { libc::sched_getaffinity(0, len_bytes, mask.as_mut_ptr().cast()) };
    let cpus: u32 = mask.iter().map(|word| word.count_ones()).sum();
    (result == 0 && cpus > 0).then_some(cpus as usize)
}

/// The processor that this thread is on just now.
pub(crate) fn current_cpu() -> Option<u32> {
    // SAFETY: the call takes no arguments and touches no memory of ours.
    let cpu = unsafe { libc::sched_getcpu() };
    u32::try_from(cpu).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_thread_runs_on_one_of_at_least_one_processor() {
        assert!(available_cpus().unwrap() >= 1);
        assert!(current_cpu().is_some());
    }

    #[test]
    fn a_pinned_thread_has_one_processor_and_is_on_it() {
        std::thread::spawn(|| {
            let cpu = current_cpu().unwrap();
            let mut mask = [0_u64; 1024];
            mask[cpu as usize / 64] = 1 << (cpu % 64);
            // SAFETY: `mask` is as long as the length says; it is only read.
            let result =
                unsafe { libc::sched_setaffinity(0, size_of_val(&mask), mask.as_ptr().cast()) };
            assert_eq!(result, 0);
            assert_eq!(available_cpus(), Some(1));
            assert_eq!(current_cpu(), Some(cpu));
        })
        .join()
        .unwrap();
    }
}
