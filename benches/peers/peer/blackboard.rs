//! iceoryx2's blackboard: values of a fixed type under keys that are fixed when it is created.
//!
//! Rows: through a handle that is kept for each key, and looked up by key each time. Values are copied
//! out: there is no other way.
//! What always holds: one writer, as it demands; all files lie under this measurement's own root and
//! prefix.

use std::fmt;
use std::os::fd::OwnedFd;

use ::iceoryx2::port::reader::{EntryHandle, Reader};
use ::iceoryx2::port::writer::{EntryHandleMut, Writer};
use ::iceoryx2::prelude::*;
use ::iceoryx2::service::port_factory::blackboard::PortFactory;

use super::iceoryx2::node;
use crate::common::case::{Case, Setting};
use crate::common::cli::ChildArgs;
use crate::common::isolated::{far_name, near_name};
use crate::common::keyed::{Keyed, Load, Work, measure_processes, serve_process, stamp_of};
use crate::common::link::Outcome;

/// Values up to this size; longer ones do not fit on the stack, through which they go.
pub const MOST_BYTES: usize = 64 << 10;
const NAME: &str = "values";

/// A value; its size is part of the blackboard's type.
#[derive(Debug, Clone, Copy, ZeroCopySend)]
#[repr(C)]
pub struct Value<const WORDS: usize>([u64; WORDS]);

impl<const WORDS: usize> Value<WORDS> {
    fn new(stamp: u64) -> Self {
        let mut words = [0xa5a5_a5a5_a5a5_a5a5; WORDS];
        words[0] = stamp;
        words[WORDS - 1] = stamp;
        Self(words)
    }

    #[inline(always)]
    fn stamp(&self) -> u64 {
        assert_eq!(self.0[0], self.0[WORDS - 1], "a torn value");
        self.0[0]
    }
}

type Handle<const WORDS: usize> = EntryHandle<ipc::Service, u64, Value<WORDS>>;
type HandleMut<const WORDS: usize> = EntryHandleMut<ipc::Service, u64, Value<WORDS>>;

/// One side of a blackboard. `KEPT`: a handle for each key, got in advance.
pub struct Blackboard<const WORDS: usize, const KEPT: bool> {
    handles: Vec<Handle<WORDS>>,
    handles_mut: Vec<HandleMut<WORDS>>,
    reader: Reader<ipc::Service, u64>,
    writer: Option<Writer<ipc::Service, u64>>,
    out: Value<WORDS>,
    // Dropped last.
    _service: PortFactory<ipc::Service, u64>,
    _node: Node<ipc::Service>,
}

impl<const WORDS: usize, const KEPT: bool> fmt::Debug for Blackboard<WORDS, KEPT> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Blackboard").field("words", &WORDS).finish_non_exhaustive()
    }
}

impl<const WORDS: usize, const KEPT: bool> Blackboard<WORDS, KEPT> {
    fn over(
        node: Node<ipc::Service>,
        service: PortFactory<ipc::Service, u64>,
        load: &Load,
    ) -> Self {
        let reader = service.reader_builder().create().expect("a reader");
        let writer =
            load.writes.then(|| service.writer_builder().create().expect("the only writer"));
        let keys = if KEPT { 0..load.keys as u64 } else { 0..0 };
        let handle = |key| reader.entry(&key).expect("a key that is there");
        let handles = keys.clone().map(handle).collect();
        let handle_mut = |key, writer: &Writer<_, _>| writer.entry(&key).expect("the only handle");
        let handles_mut = writer
            .iter()
            .flat_map(|writer| keys.clone().map(move |key| handle_mut(key, writer)))
            .collect();
        let out = Value::new(0);
        Self { handles, handles_mut, reader, writer, out, _service: service, _node: node }
    }
}

impl<const WORDS: usize, const KEPT: bool> Keyed for Blackboard<WORDS, KEPT> {
    fn create(load: &Load) -> (Self, Vec<OwnedFd>) {
        let node = node(&near_name());
        let name = NAME.try_into().expect("a service name");
        let mut creator = node.service_builder(&name).blackboard_creator::<u64>();
        for key in 0..load.keys as u64 {
            creator = creator.add(key, Value::<WORDS>::new(stamp_of(key, 1)));
        }
        let service = creator.create().expect("a blackboard");
        (Self::over(node, service, load), Vec::new())
    }

    fn attach(load: &Load, _fds: Vec<OwnedFd>) -> Self {
        let node = node(&far_name());
        let name = NAME.try_into().expect("a service name");
        let service = node.service_builder(&name).blackboard_opener::<u64>().open();
        Self::over(node, service.expect("the blackboard"), load)
    }

    #[inline]
    fn get(&mut self, key: u64) -> u64 {
        if KEPT {
            self.handles[key as usize].get().stamp()
        } else {
            self.reader.entry::<Value<WORDS>>(&key).expect("a key that is there").get().stamp()
        }
    }

    #[inline]
    fn set(&mut self, key: u64, stamp: u64) {
        self.out.0[0] = stamp;
        self.out.0[WORDS - 1] = stamp;
        if KEPT {
            self.handles_mut[key as usize].update_with_copy(self.out);
        } else {
            let writer = self.writer.as_ref().expect("the side that writes");
            let handle = writer.entry::<Value<WORDS>>(&key).expect("the only handle");
            handle.update_with_copy(self.out);
        }
    }
}

/// What can be done to values of all sizes.
pub trait WorkOfAll<const KEPT: bool>:
    Work<Blackboard<1, KEPT>>
    + Work<Blackboard<8, KEPT>>
    + Work<Blackboard<512, KEPT>>
    + Work<Blackboard<8192, KEPT>>
{
}

impl<const KEPT: bool, W> WorkOfAll<KEPT> for W where
    W: Work<Blackboard<1, KEPT>>
        + Work<Blackboard<8, KEPT>>
        + Work<Blackboard<512, KEPT>>
        + Work<Blackboard<8192, KEPT>>
{
}

/// A row; the size of the values decides about the type.
pub const fn case<W: WorkOfAll<KEPT>, const KEPT: bool>(name: &'static str) -> Case {
    Case::processes_by(name, measure::<W, KEPT>, serve::<W, KEPT>).up_to(MOST_BYTES)
}

fn measure<W: WorkOfAll<KEPT>, const KEPT: bool>(case: &Case, setting: &Setting) -> Outcome {
    match setting.spec.size {
        8 => measure_processes::<Blackboard<1, KEPT>, W>(case, setting),
        64 => measure_processes::<Blackboard<8, KEPT>, W>(case, setting),
        4096 => measure_processes::<Blackboard<512, KEPT>, W>(case, setting),
        65536 => measure_processes::<Blackboard<8192, KEPT>, W>(case, setting),
        other => panic!("no type for values of {other} bytes"),
    }
}

fn serve<W: WorkOfAll<KEPT>, const KEPT: bool>(args: &ChildArgs) {
    match args.spec.size {
        8 => serve_process::<Blackboard<1, KEPT>, W>(args),
        64 => serve_process::<Blackboard<8, KEPT>, W>(args),
        4096 => serve_process::<Blackboard<512, KEPT>, W>(args),
        65536 => serve_process::<Blackboard<8192, KEPT>, W>(args),
        other => panic!("no type for values of {other} bytes"),
    }
}
