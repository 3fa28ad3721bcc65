//! ipc-channel: byte channels over Unix sockets.
//!
//! Rows: polled, and blocking.
//! What always holds: the channels are made by the far side and handed to the near one through a
//! one-shot server, as its documentation shows.

use std::os::fd::OwnedFd;
use std::{fmt, fs};

use ::ipc_channel::TryRecvError;
use ::ipc_channel::ipc::{self, IpcBytesReceiver, IpcBytesSender, IpcOneShotServer, IpcSender};

use super::poll;
use crate::common::case::Transport;
use crate::common::link::{Bytes, Copied, Spec};

/// Where the far side finds the server's name: in the directory that both have for temporary files.
const NAME_FILE: &str = "one-shot-server";

type Pair = (IpcBytesSender, IpcBytesReceiver);

/// One end; `SLEEPS`: blocks while empty, otherwise polls. A sender blocks while the socket is full.
pub enum IpcChannel<const SLEEPS: bool> {
    /// The near end until the far one has connected.
    Waiting(Option<IpcOneShotServer<Pair>>),
    Connected(Pair),
}

impl<const SLEEPS: bool> fmt::Debug for IpcChannel<SLEEPS> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IpcChannel").finish_non_exhaustive()
    }
}

impl<const SLEEPS: bool> IpcChannel<SLEEPS> {
    #[inline]
    fn pair(&mut self) -> &Pair {
        if let Self::Waiting(server) = self {
            let server = server.take().expect("a server until it has accepted");
            *self = Self::Connected(server.accept().expect("the far side's channels").1);
        }
        match self {
            Self::Connected(pair) => pair,
            Self::Waiting(_) => unreachable!("connected above"),
        }
    }
}

impl<const SLEEPS: bool> Bytes for IpcChannel<SLEEPS> {
    fn write(&mut self, message: &[u8]) {
        self.pair().0.send(message).expect("the other side");
    }

    fn read(&mut self, buffer: &mut [u8]) {
        let rx = &self.pair().1;
        let message = if SLEEPS {
            rx.recv().expect("the other side")
        } else {
            poll(|| match rx.try_recv() {
                Ok(message) => Some(message),
                Err(TryRecvError::Empty) => None,
                Err(error) => panic!("the other side: {error}"),
            })
        };
        buffer.copy_from_slice(&message);
    }
}

impl<const SLEEPS: bool> Transport for IpcChannel<SLEEPS> {
    type End = Copied<Self>;

    fn create(spec: &Spec) -> (Self::End, Vec<OwnedFd>) {
        let (server, name) = IpcOneShotServer::new().expect("a server");
        fs::write(std::env::temp_dir().join(NAME_FILE), name).expect("writing its name");
        (Copied::new(Self::Waiting(Some(server)), spec), Vec::new())
    }

    fn attach(spec: &Spec, _fds: Vec<OwnedFd>) -> Self::End {
        let name = fs::read_to_string(std::env::temp_dir().join(NAME_FILE)).expect("its name");
        let bootstrap: IpcSender<Pair> = IpcSender::connect(name).expect("the server");
        let (there, far_rx) = ipc::bytes_channel().expect("a channel");
        let (back, near_rx) = ipc::bytes_channel().expect("a channel");
        bootstrap.send((there, near_rx)).expect("the server");
        Copied::new(Self::Connected((back, far_rx)), spec)
    }
}
