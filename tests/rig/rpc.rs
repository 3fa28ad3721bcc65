//! Frames of any content: to a server that others call too, and to a caller.

use std::sync::OnceLock;
use std::time::Duration;

use ringway::channel::{Channel, ChannelOptions};
use ringway::rpc::{Client, Request, Server};

const NEVER: Duration = Duration::from_secs(60);

/// The first byte says to whom; then a tag, a length and that many bytes for each frame.
pub fn rpc_frames(data: &[u8]) {
    match data.split_first() {
        Some((0, frames)) => to_server(frames),
        Some((_, frames)) => to_caller(frames),
        None => {}
    }
}

fn send_all(channel: &mut Channel, mut frames: &[u8]) {
    while let [tag, len, rest @ ..] = frames {
        let (frame, rest) = rest.split_at(rest.len().min(usize::from(*len)));
        let _ = channel.sender().try_send_tagged(u16::from(*tag), frame);
        frames = rest;
    }
}

fn pair() -> (Channel, Channel) {
    let options = ChannelOptions { capacity_bytes: 4096, ..ChannelOptions::default() };
    Channel::pair(&options).expect("a channel")
}

/// Whatever one caller writes, the others are answered, and it gets answers or nothing.
fn to_server(frames: &[u8]) {
    static SERVER: OnceLock<(Server, Client)> = OnceLock::new();
    let (server, neighbour) = SERVER.get_or_init(|| {
        let echo = |request: &Request<'_>| Ok(request.to_vec());
        let server = Server::builder().function("echo", echo).start().expect("a thread");
        let (near, far) = pair();
        server.serve(far, "neighbour");
        (server, Client::over(near))
    });
    let (mut near, far) = pair();
    server.serve(far, "hostile");
    send_all(&mut near, frames);
    assert_eq!(neighbour.call("echo", b"neighbour", NEVER).expect("an answer"), b"neighbour");
    while let Ok(answer) = near.receiver().try_recv() {
        assert!(answer.len() >= 8 && (16..=25).contains(&answer.tag()));
    }
}

/// Whatever a server writes, the caller gets a result or an error.
fn to_caller(frames: &[u8]) {
    let (near, mut far) = pair();
    send_all(&mut far, frames);
    drop(far);
    let client = Client::over(near);
    for _ in 0..3 {
        if let Ok(result) = client.call("echo", b"arguments", NEVER) {
            assert!(result.len() <= frames.len());
        }
    }
}
