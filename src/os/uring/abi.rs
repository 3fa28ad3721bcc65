//! What the kernel calls `io_uring`: numbers and structs, under names of this crate.
//!
//! The ring next door fills them in and reads them.
//! What always holds: sizes and offsets are those of `linux/io_uring.h`.

pub(super) const SETUP_CQSIZE: u32 = 1 << 3;
pub(super) const SETUP_SUBMIT_ALL: u32 = 1 << 7;
pub(super) const SETUP_NO_SQARRAY: u32 = 1 << 16;
pub(super) const FEAT_SINGLE_MMAP: u32 = 1;
pub(super) const FEAT_NODROP: u32 = 1 << 1;
pub(super) const FEAT_EXT_ARG: u32 = 1 << 8;
pub(super) const FEATURES: u32 = FEAT_SINGLE_MMAP | FEAT_NODROP | FEAT_EXT_ARG;
pub(super) const OFF_SQES: u64 = 0x1000_0000;
pub(super) const ENTER_GETEVENTS: u32 = 1;
pub(super) const ENTER_EXT_ARG: u32 = 1 << 3;
/// Flag of the submission ring: completions wait in the kernel for room.
pub(super) const SQ_CQ_OVERFLOW: u32 = 1 << 1;
pub(super) const REGISTER_PROBE: u32 = 8;
pub(super) const REGISTER_SYNC_CANCEL: u32 = 24;
pub(super) const CANCEL_ALL: u32 = 1;
pub(super) const CANCEL_ANY: u32 = 1 << 2;
pub(super) const OP_NOP: u8 = 0;
pub(super) const OP_TIMEOUT: u8 = 11;
pub(super) const OP_FUTEX_WAIT: u8 = 51;
pub(super) const OP_SUPPORTED: u16 = 1;
/// `FUTEX2_SIZE_U32`, without the private flag.
pub(super) const FUTEX_U32: i32 = 2;
pub(super) const MATCH_ANY: u64 = u32::MAX as u64;

/// `struct io_uring_params` with both its offset tables.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(super) struct Params {
    pub(super) sq_entries: u32,
    pub(super) cq_entries: u32,
    pub(super) flags: u32,
    pub(super) sq_thread_cpu: u32,
    pub(super) sq_thread_idle: u32,
    pub(super) features: u32,
    pub(super) wq_fd: u32,
    pub(super) reserved: [u32; 3],
    pub(super) sq: Offsets,
    pub(super) cq: Offsets,
}

/// `struct io_sqring_offsets`; the completion ring's has `overflow` and `cqes` as its fifth and sixth
/// word.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Offsets {
    pub(super) head: u32,
    pub(super) tail: u32,
    pub(super) ring_mask: u32,
    pub(super) ring_entries: u32,
    pub(super) flags: u32,
    pub(super) cqes: u32,
    pub(super) more: [u32; 2],
    pub(super) user_address: u64,
}

/// `struct io_uring_sqe`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(super) struct Submission {
    pub(super) opcode: u8,
    pub(super) flags: u8,
    pub(super) priority: u16,
    pub(super) fd: i32,
    pub(super) offset: u64,
    pub(super) address: u64,
    pub(super) len: u32,
    pub(super) op_flags: u32,
    pub(super) user_data: u64,
    pub(super) unused: [u64; 1],
    pub(super) address3: u64,
    pub(super) pad: u64,
}

/// `struct io_uring_cqe`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct Completion {
    pub(super) user_data: u64,
    pub(super) result: i32,
    pub(super) flags: u32,
}

/// `struct __kernel_timespec`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct Timespec {
    pub(super) seconds: i64,
    pub(super) nanoseconds: i64,
}

/// `struct io_uring_getevents_arg`.
#[repr(C)]
pub(super) struct EnterArgument {
    pub(super) mask: u64,
    pub(super) mask_bytes: u32,
    pub(super) min_wait_us: u32,
    pub(super) timeout: u64,
}

/// `struct io_uring_sync_cancel_reg`.
#[repr(C)]
pub(super) struct Cancel {
    pub(super) user_data: u64,
    pub(super) fd: i32,
    pub(super) flags: u32,
    pub(super) timeout: Timespec,
    pub(super) opcode: u8,
    pub(super) pad: [u8; 7],
    pub(super) pad2: [u64; 3],
}

/// `struct io_uring_probe` with room for the operations known here.
#[repr(C)]
pub(super) struct Probe {
    pub(super) last: u8,
    pub(super) len: u8,
    pub(super) reserved: u16,
    pub(super) reserved2: [u32; 3],
    pub(super) operations: [ProbeOperation; 64],
}

#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct ProbeOperation {
    pub(super) operation: u8,
    pub(super) reserved: u8,
    pub(super) flags: u16,
    pub(super) reserved2: u32,
}

const _: () = {
    assert!(size_of::<Params>() == 120);
    assert!(size_of::<Submission>() == 64);
    assert!(size_of::<Completion>() == 16);
    assert!(size_of::<EnterArgument>() == 24);
    assert!(size_of::<Cancel>() == 64);
    assert!(size_of::<Probe>() == 16 + 64 * 8);
};
