//! Models of sleeping and waking: waits have no timeout there, so a lost wakeup is a deadlock, which
//! loom reports. Run with `RUSTFLAGS="--cfg loom" cargo test --release --test loom_wakeup`;
//! `LOOM_MAX_PREEMPTIONS=2` bounds the work. What each model says that it fails with was tried on the
//! source, within that bound.
#![cfg(loom)]

mod model;

use loom::thread;
use model::{check, ends, payload, push, take};
use ringway::layout::ring::{
    CONSUMER_CLOSED, CONSUMER_WAITING, PRODUCER_CLOSED, PRODUCER_WAITING, SPACE_WANTED,
};
use ringway::memory::{Deadline, Memory, ModelMemory, Ordering};
use ringway::ring::{Consumer, Producer, PushError, Record};
use ringway::wakeup::{WaitStrategy, Waiter, wake_always, wake_if_waiting};

/// Sleeps until a record is there, or the producer has closed and none is left.
fn recv(consumer: &mut Consumer<ModelMemory>) -> Option<Record> {
    let memory = consumer.memory().clone();
    let peek = || {
        // The flag first: what was committed before it was set is then visible.
        let closed = memory.load_u32(PRODUCER_CLOSED, Ordering::Acquire) == 1;
        let record = consumer.peek().expect("no corruption");
        record.map(Some).or(closed.then_some(None))
    };
    Waiter::new(WaitStrategy::Park, false)
        .wait(&memory, CONSUMER_WAITING, Deadline::NEVER, peek, |_| ())
        .expect("there is no deadline")
}

/// Sleeps until there is room; whether the record was sent, or else the consumer has closed.
fn send(producer: &mut Producer<ModelMemory>, n: u16, len: usize) -> bool {
    let memory = producer.memory().clone();
    loop {
        let head_needed = match producer.try_push(n, &payload(n, len)) {
            Ok(()) => break,
            Err(PushError::Full { head_needed }) => head_needed,
            Err(error) => panic!("{error}"),
        };
        memory.store_u64(SPACE_WANTED, head_needed, Ordering::Relaxed);
        let ready = || {
            let closed = memory.load_u32(CONSUMER_CLOSED, Ordering::Acquire) == 1;
            let room = producer.has_room(head_needed).expect("no corruption");
            (closed || room).then_some(closed)
        };
        let closed = Waiter::new(WaitStrategy::Park, false)
            .wait(&memory, PRODUCER_WAITING, Deadline::NEVER, ready, |_| ())
            .expect("there is no deadline");
        if closed {
            return false;
        }
    }
    wake_if_waiting(&memory, CONSUMER_WAITING);
    true
}

fn consume(consumer: &mut Consumer<ModelMemory>, record: &Record, n: u16, len: usize) {
    check(consumer, record, n, len);
    consumer.advance(record);
    consumer.release();
    wake_if_waiting(consumer.memory(), PRODUCER_WAITING);
}

/// Fails when either side leaves out its fence, the waker does not wake, or the sleeper announces
/// itself once only.
#[test]
fn a_consumer_that_sleeps_is_woken() {
    loom::model(|| {
        let (mut producer, mut consumer) = ends(64, 0);
        let producing = thread::spawn(move || {
            send(&mut producer, 0, 8);
            send(&mut producer, 1, 8);
        });
        for n in 0..2 {
            let record = recv(&mut consumer).expect("nobody closes");
            check(&consumer, &record, n, 8);
            consumer.advance(&record);
            consumer.release();
        }
        producing.join().expect("joined");
    });
}

/// Fails when either side leaves out its fence, the sleeper looks before it announces itself and not
/// after, or the waker leaves the announcement standing: the sleeper then sleeps through the wakeup.
#[test]
fn a_producer_that_sleeps_for_space_is_woken() {
    loom::model(|| {
        let (mut producer, mut consumer) = ends(64, 32);
        push(&mut producer, 0, 24);
        let producing = thread::spawn(move || assert!(send(&mut producer, 1, 24)));
        let record = consumer.peek().expect("no corruption").expect("pushed before");
        consume(&mut consumer, &record, 0, 24);
        take(&mut consumer, 1, 24);
        producing.join().expect("joined");
    });
}

/// Fails when a sleeper announces itself once only, or a header is stored `Relaxed`.
#[test]
fn both_sleep_in_turn() {
    loom::model(|| {
        let (mut producer, mut consumer) = ends(64, 0);
        let producing = thread::spawn(move || {
            for n in 0..2 {
                assert!(send(&mut producer, n, 24));
            }
        });
        for n in 0..2 {
            let record = recv(&mut consumer).expect("nobody closes");
            consume(&mut consumer, &record, n, 24);
        }
        producing.join().expect("joined");
    });
}

/// Fails when the sleeper announces itself once only, or the closing side does not wake.
#[test]
fn a_sleeping_consumer_learns_of_the_close_after_the_last_record() {
    loom::model(|| {
        let (mut producer, mut consumer) = ends(64, 0);
        let producing = thread::spawn(move || {
            send(&mut producer, 0, 8);
            let memory = producer.memory();
            memory.store_u32(PRODUCER_CLOSED, 1, Ordering::Release);
            wake_always(memory, CONSUMER_WAITING);
        });
        let record = recv(&mut consumer).expect("sent before the close");
        consume(&mut consumer, &record, 0, 8);
        assert!(recv(&mut consumer).is_none());
        producing.join().expect("joined");
    });
}

/// Fails when the closing side does not fence, does not take the announcement back, or does not wake.
#[test]
fn a_producer_that_sleeps_for_space_learns_of_the_close() {
    loom::model(|| {
        let (mut producer, consumer) = ends(64, 0);
        push(&mut producer, 0, 24);
        let producing = thread::spawn(move || assert!(!send(&mut producer, 1, 24)));
        let memory = consumer.memory();
        memory.store_u32(CONSUMER_CLOSED, 1, Ordering::Release);
        wake_always(memory, PRODUCER_WAITING);
        producing.join().expect("joined");
    });
}
