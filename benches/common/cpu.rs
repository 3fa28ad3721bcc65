//! Which CPUs there are, and how to stay on one.
//!
//! The plans choose CPUs with it; every measured thread pins itself before it measures.
//! What always holds: a thread that could not be pinned stops the bench.

use std::mem;

/// The CPUs that this thread may run on, in ascending order.
pub fn allowed() -> Vec<usize> {
    let set = current_set();
    (0..libc::CPU_SETSIZE as usize)
        .filter(|cpu| {
            // SAFETY: `cpu` is below CPU_SETSIZE, the number of bits of the set.
            unsafe { libc::CPU_ISSET(*cpu, &set) }
        })
        .collect()
}

fn current_set() -> libc::cpu_set_t {
    // SAFETY: a cpu_set_t is an array of integers, for which zero is a value.
    let mut set: libc::cpu_set_t = unsafe { mem::zeroed() };
    // SAFETY: the kernel writes at most the given number of bytes into a set that large.
    let result = unsafe { libc::sched_getaffinity(0, mem::size_of_val(&set), &mut set) };
    assert_eq!(result, 0, "sched_getaffinity failed");
    set
}

fn set(set: &libc::cpu_set_t) {
    // SAFETY: the kernel reads the given number of bytes from a set that large.
    let result = unsafe { libc::sched_setaffinity(0, mem::size_of_val(set), set) };
    assert_eq!(result, 0, "sched_setaffinity: {}", std::io::Error::last_os_error());
}

/// Pins the calling thread to one CPU.
pub fn pin(cpu: usize) {
    assert!(cpu < libc::CPU_SETSIZE as usize, "no such CPU: {cpu}");
    // SAFETY: a cpu_set_t is an array of integers, for which zero is a value.
    let mut only: libc::cpu_set_t = unsafe { mem::zeroed() };
    // SAFETY: `cpu` is below CPU_SETSIZE, checked above.
    unsafe { libc::CPU_SET(cpu, &mut only) };
    set(&only);
}
