//! A line whose server does not answer.

use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use super::*;
use crate::channel::ChannelOptions;
use crate::error::RecvTimeoutError;
use crate::rpc::frame::{CALL, DONE};
use crate::rpc::mail::MAX_UNDER_WAY;

/// Longer than anything takes that is not stuck, and longer than that.
const NEVER: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

fn line(capacity_bytes: u64) -> (Arc<Line>, Channel) {
    let options = ChannelOptions { capacity_bytes, ..ChannelOptions::default() };
    let (near, far) = Channel::pair(&options).unwrap();
    (Arc::new(Line::new(near, 1).unwrap()), far)
}

fn begin(line: &Line, payload: &[u8]) -> Result<u64, Fault> {
    let request = Outgoing { tag: CALL, payload, words: &[], last: Some(0) };
    line.start(&request, &mut Clock::new(HOUR))
}

fn until(line: &Line, is_so: impl Fn(&State) -> bool) {
    while !is_so(&line.state()) {
        thread::yield_now();
    }
}

/// What this returns, in a thread of its own.
fn apart<T: Send + 'static>(
    line: &Arc<Line>,
    does: impl FnOnce(&Line) -> T + Send + 'static,
) -> mpsc::Receiver<T> {
    let (line, (done, result)) = (Arc::clone(line), mpsc::channel());
    thread::spawn(move || done.send(does(&line)));
    result
}

#[test]
fn who_is_out_with_an_end_when_the_line_is_closed_lets_go_of_it() {
    let (line, mut far) = line(4096);
    let id = begin(&line, b"").unwrap();
    let reader = apart(&line, move |line| line.wait(id, &mut Clock::new(HOUR)));
    until(&line, |state| state.receiver.is_none());
    // One has no room, and the next waits for the sender.
    let long = vec![0; 3000];
    begin(&line, &long).unwrap();
    let writer = apart(&line, move |line| begin(line, &long).map_err(|fault| format!("{fault:?}")));
    until(&line, |state| state.sender.is_none());
    let next = apart(&line, |line| begin(line, b"").map_err(|fault| format!("{fault:?}")));
    until(&line, |state| state.mail.under_way() == 4);
    line.close();
    assert_eq!(reader.recv_timeout(NEVER).unwrap(), Err(End::Died));
    for sent in [writer, next] {
        assert_eq!(sent.recv_timeout(NEVER).unwrap(), Err("NotSent(Died)".into()));
    }
    {
        let state = line.state();
        assert!(state.sender.is_none() && state.receiver.is_none());
    }
    // Both ends are let go of, though the line is there still.
    let mut taken = 0;
    let end = loop {
        match far.receiver().recv_timeout(NEVER) {
            Ok(_) => taken += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(end, RecvTimeoutError::Disconnected), "{end:?}");
    assert_eq!(taken, 2);
    assert!(matches!(begin(&line, b""), Err(Fault::NotSent(End::Died))));
}

#[test]
fn places_that_become_free_at_once_are_taken_by_all_who_wait_for_one() {
    let (line, _far) = line(1 << 20);
    let ids: Vec<_> = (0..MAX_UNDER_WAY).map(|_| begin(&line, b"").unwrap()).collect();
    // It reads, and is not told of places.
    let reader = apart(&line, {
        let id = ids[0];
        move |line| line.wait(id, &mut Clock::new(HOUR))
    });
    until(&line, |state| state.receiver.is_none());
    let waiting: Vec<_> = (0..3).map(|_| apart(&line, |line| begin(line, b"").is_ok())).collect();
    until(&line, |state| state.mail.waiting() == 3);
    {
        let mut state = line.state();
        ids[1..4].iter().for_each(|&id| state.mail.forget(id));
    }
    for entered in waiting {
        assert!(entered.recv_timeout(NEVER).unwrap());
    }
    line.close();
    assert_eq!(reader.recv_timeout(NEVER).unwrap(), Err(End::Died));
}

#[test]
fn who_reads_and_waits_for_a_place_finds_one_that_another_has_left() {
    let (line, _far) = line(1 << 20);
    let ids: Vec<_> = (0..MAX_UNDER_WAY).map(|_| begin(&line, b"").unwrap()).collect();
    let reader = apart(&line, |line| begin(line, b"").is_ok());
    until(&line, |state| state.receiver.is_none());
    // Nothing comes that would wake it.
    line.state().mail.forget(ids[0]);
    assert!(reader.recv_timeout(NEVER).unwrap());
}

#[test]
fn all_who_wait_are_told_that_the_line_is_closed() {
    let (line, far) = line(4096);
    let ids: Vec<_> = (0..3).map(|_| begin(&line, b"").unwrap()).collect();
    let readers: Vec<_> = ids
        .into_iter()
        .map(|id| apart(&line, move |line| line.wait(id, &mut Clock::new(HOUR))))
        .collect();
    until(&line, |state| state.receiver.is_none() && state.mail.waiting() == 2);
    // The first one has no room, the others wait for it.
    let writers: Vec<_> = (0..3)
        .map(|_| apart(&line, |line| begin(line, &[0; 5000]).map_err(|f| format!("{f:?}"))))
        .collect();
    until(&line, |state| state.sender.is_none() && state.mail.under_way() == 6);
    line.close();
    for reader in readers {
        assert_eq!(reader.recv_timeout(NEVER).unwrap(), Err(End::Died));
    }
    for writer in writers {
        assert_eq!(writer.recv_timeout(NEVER).unwrap(), Err("NotSent(Died)".into()));
    }
    drop(far);
}

#[test]
fn who_has_its_answer_leaves_reading_to_one_of_those_that_wait() {
    let (line, mut far) = line(4096);
    let ids = [(); 3].map(|()| begin(&line, b"").unwrap());
    let mut waiting = Vec::new();
    for (before, id) in ids.into_iter().enumerate() {
        waiting.push(apart(&line, move |line| line.wait(id, &mut Clock::new(HOUR))));
        until(&line, |state| state.receiver.is_none() && state.mail.waiting() == before);
    }
    for (id, answered) in ids.into_iter().zip(waiting) {
        far.sender().send_tagged(DONE, &id.to_ne_bytes()).unwrap();
        let answer = answered.recv_timeout(NEVER).expect("somebody reads").unwrap();
        assert_eq!(answer, Some(Answer { tag: DONE, payload: Vec::new() }));
    }
}
