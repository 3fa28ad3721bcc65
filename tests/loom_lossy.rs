//! Models of the lossy ring: its shipping source under every interleaving and every value that the
//! orderings allow, payload words included: they are atomics that are read while they are
//! overwritten. Run with `RUSTFLAGS="--cfg loom" cargo test --release --test loom_lossy`;
//! `LOOM_MAX_PREEMPTIONS=2` bounds the work. What each model says that it fails with was tried on
//! the source, within that bound.
#![cfg(loom)]

use loom::thread;
use ringway::channel::model::{forget_lossy, lossy_pair};
use ringway::error::RecvError;
use ringway::layout::{RING_SLACK_BYTES, record, ring};
use ringway::memory::{Memory, ModelMemory, Ordering};
use ringway::ring::RingGeometry;
use ringway::ring::lossy::{LossyConsumer, LossyGeometry, LossyProducer, PullError};

const DATA: u64 = ring::CONTROL_BYTES;

type Producer = LossyProducer<ModelMemory>;
type Consumer = LossyConsumer<ModelMemory>;

/// A ring that has been used before: every word holds what could be an old header.
fn ring(capacity_bytes: u64) -> (ModelMemory, LossyGeometry) {
    let control = (ring::SETTLED..=ring::LOSSES[1] + 8)
        .chain(ring::TAIL..=ring::PRODUCER_MISSED)
        .chain(ring::INTENT..=ring::RETIRED)
        .chain(ring::LANDMARKS..ring::LANDMARKS + 8 * ring::LANDMARK_COUNT)
        .filter(|word| word.is_multiple_of(8));
    let data = (DATA..DATA + capacity_bytes).step_by(8);
    let len_bytes = DATA + capacity_bytes + RING_SLACK_BYTES;
    let memory = ModelMemory::racing(len_bytes, [ring::CONSUMER_WAITING], control.chain(data));
    for index in (8..capacity_bytes).step_by(8) {
        let old = record::pack(8, record::DATA, 0xbad);
        memory.store_u64(DATA + index, old, Ordering::Relaxed);
    }
    let ring = RingGeometry::new(&memory, 0, DATA, capacity_bytes, 8).expect("valid");
    (memory, LossyGeometry::new(ring).expect("valid"))
}

fn producer(memory: &ModelMemory, geometry: LossyGeometry) -> Producer {
    LossyProducer::attach(memory.clone(), geometry).expect("no corruption")
}

fn consumer(memory: &ModelMemory, geometry: LossyGeometry) -> Consumer {
    LossyConsumer::attach(memory.clone(), geometry).expect("no corruption")
}

/// The payload of each message: two words that belong to it alone.
fn payload(number: u64) -> [u8; 16] {
    let mut bytes = [number as u8 + 1; 16];
    bytes[8..].fill(number as u8 + 101);
    bytes
}

fn push(producer: &mut Producer) {
    let number = producer.stats().sent;
    producer.try_push(number as u16, &payload(number)[..len(number)]).expect("no corruption");
}

/// Most are as long as can be, some are shorter, so that headers and payloads trade places.
fn len(number: u64) -> usize {
    if number % 3 == 1 { 8 } else { 16 }
}

/// Takes what is there, once; what is taken must be whole, and what was lost counted.
fn take(consumer: &mut Consumer) -> bool {
    let before = consumer.stats();
    let mut buffer = Vec::new();
    let record = match consumer.try_take(&mut buffer) {
        Ok(Some(record)) => record,
        Ok(None) | Err(PullError::Overrun) => {
            assert_eq!((before.received, before.lost), (consumer.stats().received, before.lost));
            return false;
        }
        Err(error) => panic!("{error}"),
    };
    let number = record.number();
    assert_eq!(number, before.received + before.lost + record.lost_before(), "twice, or back");
    assert_eq!((record.tag(), record.len_bytes()), (number as u16, len(number)), "torn");
    assert_eq!(buffer[..len(number)], payload(number)[..len(number)], "torn");
    true
}

/// Everything that is left; then both sides say the same.
fn drain(producer: &Producer, consumer: &mut Consumer) {
    while take(consumer) {}
    consumer.settle();
    let (sent, taken) = (producer.stats(), consumer.stats());
    assert_eq!((sent.unread, sent.taken, sent.lost), (0, taken.received, taken.lost));
}

/// The producer overwrites the record that the consumer is copying. Fails without the release fence
/// behind the intent, or the acquire fence before the consumer's second look; when the intent is
/// stored after what overwrites; when the consumer looks before it copies only.
#[test]
fn what_is_overwritten_while_it_is_copied_is_not_believed() {
    loom::model(|| {
        let (memory, geometry) = ring(128);
        let mut producing = producer(&memory, geometry);
        (0..4).for_each(|_| push(&mut producing));
        let mut consuming = consumer(&memory, geometry);
        let thread = thread::spawn(move || {
            push(&mut producing);
            push(&mut producing);
            producing
        });
        take(&mut consuming);
        let producing = thread.join().expect("joined");
        drain(&producing, &mut consuming);
    });
}

/// A consumer that has been overrun jumps while the producer goes on. Fails when the intent is stored
/// Relaxed, or when what the jump looks at is read Relaxed.
#[test]
fn a_jump_leads_to_a_record() {
    loom::model(|| {
        let (memory, geometry) = ring(128);
        let mut consuming = consumer(&memory, geometry);
        let mut producing = producer(&memory, geometry);
        let thread = thread::spawn(move || {
            (0..6).for_each(|_| push(&mut producing));
            producing
        });
        take(&mut consuming);
        let producing = thread.join().expect("joined");
        drain(&producing, &mut consuming);
    });
}

/// Fails when the padding's header is stored Relaxed, or before that of the record behind it.
#[test]
fn padding_is_visible_with_the_record_behind_it() {
    loom::model(|| {
        let (memory, geometry) = ring(128);
        let mut producing = producer(&memory, geometry);
        let mut consuming = consumer(&memory, geometry);
        for _ in 0..4 {
            push(&mut producing);
            assert!(take(&mut consuming));
        }
        let thread = thread::spawn(move || {
            push(&mut producing);
            producing
        });
        take(&mut consuming);
        let producing = thread.join().expect("joined");
        drain(&producing, &mut consuming);
        assert_eq!(consuming.stats().lost, 0);
    });
}

/// Fails when the header is stored or read Relaxed, or the word behind a record is not cleared.
#[test]
fn a_message_is_visible_whole_or_not_at_all() {
    loom::model(|| {
        let (memory, geometry) = ring(128);
        let mut producing = producer(&memory, geometry);
        let mut consuming = consumer(&memory, geometry);
        let thread = thread::spawn(move || {
            push(&mut producing);
            push(&mut producing);
            producing
        });
        take(&mut consuming);
        take(&mut consuming);
        let producing = thread.join().expect("joined");
        drain(&producing, &mut consuming);
        assert_eq!(consuming.stats().lost, 0);
    });
}

/// A producer's successor writes into what its predecessor has announced; the two are ordered by the
/// predecessor's death.
#[test]
fn a_successor_writes_what_its_predecessor_announced() {
    loom::model(|| {
        let (memory, geometry) = ring(256);
        let push = |producer: &mut Producer| producer.try_push(0, &[]).expect("no corruption");
        let mut first = producer(&memory, geometry);
        (0..15).for_each(|_| push(&mut first));
        let mut consuming = consumer(&memory, geometry);
        let thread = thread::spawn(move || {
            push(&mut first);
            let successor = thread::spawn(move || {
                let mut second = producer(&memory, geometry);
                push(&mut second);
            });
            successor.join().expect("joined");
        });
        let mut buffer = Vec::new();
        let result = consuming.try_take(&mut buffer).expect("no corruption");
        let record = result.expect("there is always one");
        assert_eq!(record.number(), record.lost_before());
        thread.join().expect("joined");
    });
}

/// The sender asks what has become of its messages while the receiver counts losses. Fails when
/// `settled` is stored Relaxed.
#[test]
fn losses_are_read_as_they_were_at_some_time() {
    loom::model(|| {
        let (memory, geometry) = ring(128);
        let mut consuming = consumer(&memory, geometry);
        let mut producing = producer(&memory, geometry);
        // Lost: 0 and 1; then more; then more again.
        (0..6).for_each(|_| push(&mut producing));
        assert!(take(&mut consuming));
        consuming.settle();
        let mut states = vec![consuming.stats()];
        (0..6).for_each(|_| push(&mut producing));
        let thread = thread::spawn(move || {
            assert!(take(&mut consuming));
            consuming.settle();
            consuming
        });
        let found = producing.stats();
        let consuming = thread.join().expect("joined");
        states.push(consuming.stats());
        let overwritten = found.overwritten;
        let possible = states.iter().any(|state| {
            let settled = state.received + state.lost;
            found.lost == state.lost + overwritten.saturating_sub(settled)
        });
        assert!(possible, "{found:?} is none of {states:?}");
    });
}

/// Fails when the sender does not look for a sleeper after its commit, or closing wakes nobody.
#[test]
fn a_sleeping_receiver_gets_the_newest_message_and_then_the_end() {
    loom::model(|| {
        let (mut sender, mut receiver, _handle) = lossy_pair(128);
        let sending = thread::spawn(move || {
            sender.send(&[1; 8]).expect("open");
            drop(sender);
        });
        assert_eq!(receiver.recv().expect("sent before the end").bytes(), &[1; 8]);
        assert_eq!(receiver.recv().unwrap_err(), RecvError::Disconnected);
        sending.join().expect("joined");
    });
}

/// Fails when the receiver does not look at the intent between announcing itself and sleeping.
#[test]
fn a_receiver_does_not_sleep_through_being_overrun() {
    loom::model(|| {
        let (mut sender, mut receiver, _handle) = lossy_pair(128);
        sender.send(&[9; 16]).expect("open");
        receiver.recv().expect("sent");
        let sending = thread::spawn(move || {
            // Where the receiver looks lies, a lap later, the payload of the last one.
            for len in [16, 16, 16, 0, 16] {
                sender.send(&[0; 16][..len]).expect("open");
            }
            sender
        });
        receiver.recv().expect("something is left");
        drop(sending.join().expect("joined"));
    });
}

/// Fails when the receiver does not look at the peer's state between announcing itself and sleeping.
#[test]
fn a_death_wakes_a_sleeping_receiver() {
    loom::model(|| {
        let (mut sender, mut receiver, handle) = lossy_pair(128);
        let dying = thread::spawn(move || {
            sender.send(&[3; 8]).expect("open");
            forget_lossy(sender);
            handle.peer_died(false);
        });
        assert_eq!(receiver.recv().expect("committed before the death").bytes(), &[3; 8]);
        assert_eq!(receiver.recv().unwrap_err(), RecvError::Disconnected);
        dying.join().expect("joined");
    });
}
