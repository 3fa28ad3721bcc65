//! Boost.Interprocess' `message_queue`: a priority queue under a mutex and condition variables.
//!
//! Rows: polled, and blocking; only where its headers were installed when this was built.
//! What always holds: all messages have the same priority, and a queue holds the row's capacity.
#![allow(unsafe_code)]

use crate::common::case::Case;

#[cfg(boost)]
pub use door::Queue;

/// Its row, or why there is none.
#[cfg(boost)]
pub const fn case<const SLEEPS: bool>(name: &'static str) -> Case {
    Case::processes::<Queue<SLEEPS>>(name)
}

/// Its row, or why there is none.
#[cfg(not(boost))]
pub const fn case<const SLEEPS: bool>(name: &'static str) -> Case {
    Case::absent(name, "not built: Boost's headers are not installed (libboost-dev)")
}

#[cfg(boost)]
mod door {
    use std::ffi::{CString, c_char, c_void};
    use std::os::fd::OwnedFd;
    use std::ptr::NonNull;

    use super::super::poll;
    use crate::common::case::Transport;
    use crate::common::isolated::{far_name, near_name};
    use crate::common::link::{Bytes, Copied, Spec};

    // `boost_queue.cpp`, compiled by the build script.
    unsafe extern "C" {
        fn ringway_boost_create(name: *const c_char, messages: usize, size: usize) -> *mut c_void;
        fn ringway_boost_open(name: *const c_char) -> *mut c_void;
        fn ringway_boost_send(queue: *mut c_void, message: *const u8, size: usize) -> bool;
        fn ringway_boost_try_send(queue: *mut c_void, message: *const u8, size: usize) -> bool;
        fn ringway_boost_receive(queue: *mut c_void, buffer: *mut u8, size: usize) -> bool;
        fn ringway_boost_try_receive(queue: *mut c_void, buffer: *mut u8, size: usize) -> bool;
    }

    /// One end; `SLEEPS`: blocks, otherwise polls. The process's end closes the queues.
    #[derive(Debug)]
    pub struct Queue<const SLEEPS: bool> {
        tx: NonNull<c_void>,
        rx: NonNull<c_void>,
    }

    fn names(name: &str) -> [CString; 2] {
        ["there", "back"].map(|way| CString::new(format!("{name}{way}")).expect("no zero in it"))
    }

    impl<const SLEEPS: bool> Bytes for Queue<SLEEPS> {
        fn write(&mut self, message: &[u8]) {
            let (bytes, len) = (message.as_ptr(), message.len());
            if SLEEPS {
                // SAFETY: a queue that was opened, and that many readable bytes.
                assert!(unsafe { ringway_boost_send(self.tx.as_ptr(), bytes, len) }, "sending");
                return;
            }
            poll(|| {
                // SAFETY: as above.
                unsafe { ringway_boost_try_send(self.tx.as_ptr(), bytes, len) }.then_some(())
            });
        }

        fn read(&mut self, buffer: &mut [u8]) {
            let (bytes, len) = (buffer.as_mut_ptr(), buffer.len());
            if SLEEPS {
                // SAFETY: a queue that was opened, and that many writable bytes.
                let received = unsafe { ringway_boost_receive(self.rx.as_ptr(), bytes, len) };
                assert!(received, "receiving");
                return;
            }
            poll(|| {
                // SAFETY: as above.
                unsafe { ringway_boost_try_receive(self.rx.as_ptr(), bytes, len) }.then_some(())
            });
        }
    }

    impl<const SLEEPS: bool> Transport for Queue<SLEEPS> {
        type End = Copied<Self>;

        fn create(spec: &Spec) -> (Self::End, Vec<OwnedFd>) {
            let [tx, rx] = names(&near_name()).map(|name| {
                let messages = spec.capacity / spec.size;
                // SAFETY: a C string.
                let queue = unsafe { ringway_boost_create(name.as_ptr(), messages, spec.size) };
                NonNull::new(queue).expect("a queue")
            });
            (Copied::new(Self { tx, rx }, spec), Vec::new())
        }

        fn attach(spec: &Spec, _fds: Vec<OwnedFd>) -> Self::End {
            let [rx, tx] = names(&far_name()).map(|name| {
                // SAFETY: a C string.
                let queue = unsafe { ringway_boost_open(name.as_ptr()) };
                NonNull::new(queue).expect("the near side's queue")
            });
            Copied::new(Self { tx, rx }, spec)
        }
    }
}
