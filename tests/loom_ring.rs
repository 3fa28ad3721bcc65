//! Models of the ring: its shipping source under every interleaving and every value that the
//! orderings allow. Run with `RUSTFLAGS="--cfg loom" cargo test --release --test loom_ring`;
//! `LOOM_MAX_PREEMPTIONS=2` bounds the work. What each model says that it fails with was tried on the
//! source, within that bound.
#![cfg(loom)]

mod model;

use loom::thread;
use model::{check, ends, payload, push, ring, take, try_take};
use ringway::memory::{Memory, ModelMemory};
use ringway::ring::{Assembly, Consumer, Fragments, Producer, PushError, RecordKind};

/// One thread produces `lens.len()` messages of these lengths, one consumes them.
fn stream(start: u64, lens: &'static [usize]) {
    loom::model(move || {
        let (mut producer, mut consumer) = ends(64, start);
        let producing = thread::spawn(move || {
            for (n, len) in (0..).zip(lens) {
                push(&mut producer, n, *len);
            }
        });
        for (n, len) in (0..).zip(lens) {
            take(&mut consumer, n, *len);
        }
        producing.join().expect("joined");
        assert_eq!(consumer.peek(), Ok(None));
    });
}

/// Fails when the header is stored or read `Relaxed`, or stored before the payload.
#[test]
fn one_record() {
    stream(0, &[16]);
}

/// Fails when the word behind a record is cleared after the record's header is stored, or not at all.
#[test]
fn exactly_full_over_the_wrap() {
    stream(48, &[8, 8, 8]);
}

/// Fails when the 8 bytes behind a record are not counted: clearing them erases an unread header.
#[test]
fn one_record_more_than_fits() {
    stream(48, &[8, 8, 8, 8]);
}

/// Fails when `head` is stored or read `Relaxed`: the payload is overwritten while it is copied.
#[test]
fn space_is_reused_for_records_of_half_the_ring() {
    stream(0, &[24, 24, 24]);
}

/// Fails as the one before, and when the word behind a record is not cleared: what was payload a lap
/// ago is taken for a header.
#[test]
fn headers_and_payloads_trade_places() {
    stream(40, &[16, 0, 8, 16]);
}

/// Fails when the padding's header is stored `Relaxed`, or before that of the record behind it.
#[test]
fn padding_at_the_end() {
    stream(48, &[24, 8]);
}

/// Fails when the 8 bytes are not counted behind padding, or `head` is read `Relaxed` there.
#[test]
fn padding_that_must_wait_for_space() {
    stream(24, &[16, 16, 16]);
}

/// Fails when the header is stored `Relaxed`; that the arithmetic wraps is what it shows beyond that.
#[test]
fn positions_wrap_at_2_64() {
    stream(u64::MAX - 15, &[8, 16]);
}

/// Fails when the first header is stored `Relaxed`, or as soon as it is known, or when the word behind
/// the last record is not cleared.
#[test]
fn a_batch_is_visible_whole_or_not_at_all() {
    for start in [0, 24, 48] {
        loom::model(move || {
            let (mut producer, mut consumer) = ends(64, start);
            let producing = thread::spawn(move || {
                let mut batch = producer.batch();
                batch.push(0, &payload(0, 16)).expect("room");
                batch.push(1, &payload(1, 8)).expect("room");
                assert_eq!(batch.commit(), 2);
            });
            take(&mut consumer, 0, 16);
            assert!(try_take(&mut consumer, 1, 8), "half a batch");
            assert_eq!(consumer.peek(), Ok(None));
            producing.join().expect("joined");
        });
    }
}

/// Fails when a reservation that was filled in part does not clear the word behind what it commits, or
/// a batch stores its first header early.
#[test]
fn what_a_reservation_or_batch_leaves_behind_is_never_seen() {
    loom::model(|| {
        let (mut producer, mut consumer) = ends(64, 0);
        let producing = thread::spawn(move || {
            let mut batch = producer.batch();
            batch.push(8, &payload(8, 8)).expect("room");
            batch.push(9, &payload(9, 8)).expect("room");
            batch.abort();
            let mut reservation = producer.try_reserve(0, 24).expect("room");
            reservation.write(&payload(0, 8));
            reservation.commit_filled();
            push(&mut producer, 1, 8);
        });
        take(&mut consumer, 0, 8);
        take(&mut consumer, 1, 8);
        producing.join().expect("joined");
        assert_eq!(consumer.peek(), Ok(None));
    });
}

/// The consumer takes both records before it gives either back. Fails when the 8 bytes behind a
/// record are not counted.
#[test]
fn space_of_taken_records_is_kept_until_released() {
    loom::model(|| {
        let (mut producer, mut consumer) = ends(64, 32);
        let producing = thread::spawn(move || {
            for n in 0..4 {
                push(&mut producer, n, 8);
            }
        });
        for pair in [0, 2] {
            let first = wait(&mut consumer);
            consumer.advance(&first);
            let second = wait(&mut consumer);
            consumer.advance(&second);
            check(&consumer, &first, pair, 8);
            check(&consumer, &second, pair + 1, 8);
            assert!(consumer.release());
        }
        producing.join().expect("joined");
    });
}

fn wait(consumer: &mut Consumer<ModelMemory>) -> ringway::ring::Record {
    loop {
        match consumer.peek().expect("no corruption") {
            Some(record) => return record,
            None => consumer.memory().pause(),
        }
    }
}

/// A producer's successor walks the committed headers while the consumer releases. Fails when it reads
/// `head` `Relaxed`.
#[test]
fn a_producer_is_succeeded_while_the_consumer_runs() {
    loom::model(|| {
        let (memory, geometry) = ring(64, 32);
        let mut consumer = Consumer::attach(memory.clone(), geometry).expect("attach");
        let producing = thread::spawn(move || {
            let mut first = Producer::attach(memory.clone(), geometry).expect("attach");
            push(&mut first, 0, 8);
            push(&mut first, 1, 16);
            drop(first);
            let mut second = Producer::attach(memory, geometry).expect("attach");
            push(&mut second, 2, 8);
        });
        take(&mut consumer, 0, 8);
        take(&mut consumer, 1, 16);
        take(&mut consumer, 2, 8);
        producing.join().expect("joined");
        assert_eq!(consumer.peek(), Ok(None));
    });
}

/// A consumer's successor is given again what was not released, while the producer runs. Fails when
/// the 8 bytes behind a record are not counted.
#[test]
fn a_consumer_is_succeeded_while_the_producer_runs() {
    loom::model(|| {
        let (memory, geometry) = ring(64, 48);
        let mut producer = Producer::attach(memory.clone(), geometry).expect("attach");
        let producing = thread::spawn(move || {
            for n in 0..4 {
                push(&mut producer, n, 8);
            }
        });
        let mut first = Consumer::attach(memory.clone(), geometry).expect("attach");
        take(&mut first, 0, 8);
        let unreleased = wait(&mut first);
        first.advance(&unreleased);
        drop(first);
        let mut second = Consumer::attach(memory, geometry).expect("attach");
        for n in 1..4 {
            take(&mut second, n, 8);
        }
        producing.join().expect("joined");
    });
}

/// Puts together what comes, until a message of this tag is whole; yields while nothing comes.
fn assemble(
    assembly: &mut Assembly,
    consumer: &mut Consumer<ModelMemory>,
    last: u16,
) -> Vec<(u16, Vec<u8>)> {
    let mut found = Vec::new();
    loop {
        let Some(record) = consumer.peek().expect("no corruption") else {
            consumer.memory().pause();
            continue;
        };
        assert_eq!(record.kind(), RecordKind::Fragment);
        if let Some(whole) = assembly.absorb(consumer, &record).expect("no corruption") {
            found.push((whole.tag, assembly.message(whole.len_bytes()).to_vec()));
        }
        consumer.release();
        if found.last().is_some_and(|(tag, _)| *tag == last) {
            return found;
        }
    }
}

/// Pushes pieces of a message until it is whole or so many have been pushed.
fn push_pieces(producer: &mut Producer<ModelMemory>, tag: u16, message: &[u8], pieces: usize) {
    let parts = [std::io::IoSlice::new(message)];
    let mut fragments = Fragments::new(RecordKind::Data, tag, &parts);
    for _ in 0..pieces {
        loop {
            match fragments.try_push_next(producer) {
                Ok(true) => return,
                Ok(false) => break,
                Err(PushError::Full { .. }) => producer.memory().pause(),
                Err(error) => panic!("{error}"),
            }
        }
    }
}

/// Two messages in fragments; the producer of the first dies after so many pieces, and its successor
/// sends the second.
fn fragments(pieces: usize) {
    loom::model(move || {
        let (memory, geometry) = ring(64, 48);
        let geometry = geometry.with_max_message_bytes(64);
        let attach = move |memory: &ModelMemory| Producer::attach(memory.clone(), geometry);
        let mut producer = attach(&memory).expect("attach");
        let mut consumer = Consumer::attach(memory.clone(), geometry).expect("attach");
        let producing = thread::spawn(move || {
            push_pieces(&mut producer, 1, &payload(1, 32), pieces);
            drop(producer);
            let mut successor = attach(&memory).expect("attach");
            push_pieces(&mut successor, 2, &payload(2, 32), usize::MAX);
        });
        let mut assembly = Assembly::default();
        let found = assemble(&mut assembly, &mut consumer, 2);
        producing.join().expect("joined");
        let mut expected = vec![(2, payload(2, 32))];
        if pieces >= 2 {
            expected.insert(0, (1, payload(1, 32)));
        }
        assert_eq!(found, expected);
        assert_eq!(consumer.stats().dropped_partial, u64::from(pieces == 1));
    });
}

/// Pieces are records: what orders those orders these.
#[test]
fn fragments_are_put_together() {
    fragments(2);
}

/// What was begun is dropped once, and counted.
#[test]
fn f43_a_producer_dies_between_two_pieces() {
    fragments(1);
}
