//! System calls that the kernel refuses, as a sandbox does.

/// From here on these calls fail with these errors, in this thread and those that it starts, for good.
pub fn refuse(calls: &[(libc::c_long, i32)]) {
    const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let step = |code, jt, k| libc::sock_filter { code, jt, jf: u8::from(code == EQUAL), k };
    // The number of the call lies at the start of what the filter gets.
    let mut program = vec![step(LOAD, 0, 0)];
    for (call, error) in calls {
        program.push(step(EQUAL, 0, *call as u32));
        program.push(step(RETURN, 0, libc::SECCOMP_RET_ERRNO | *error as u32));
    }
    program.push(step(RETURN, 0, libc::SECCOMP_RET_ALLOW));
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: the call takes numbers.
    assert_eq!(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }, 0);
    let mode = libc::SECCOMP_MODE_FILTER;
    // SAFETY: a program that outlives the call, as long as it says.
    let result = unsafe { libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const filter) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}
