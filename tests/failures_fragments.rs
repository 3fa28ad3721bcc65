//! Pieces of long messages whose sender or receiver died midway, or lied.
#![allow(unsafe_code, missing_docs)]

mod common;

use std::io::IoSlice;

use common::pieces::{bare, bare_producer, payload};
use ringway::channel::ChannelOptions;
use ringway::error::{Corruption, TryRecvError};
use ringway::layout::{fragment, record};
use ringway::ring::{Fragments, PushError, RecordKind};

/// A sender died midway; its successor's first record is another one.
#[test]
fn f43_producer_dies_in_the_middle_of_a_fragmented_message() {
    let long = payload(3, 700);
    let parts = [IoSlice::new(&long)];
    for receiver_sees_the_beginning in [true, false] {
        for next_is_long in [true, false] {
            let (mut host, mut producer, segment) = bare(1024);
            let mut pieces = Fragments::new(RecordKind::Data, 1, &parts);
            for _ in 0..3 {
                assert_eq!(pieces.try_push_next(&mut producer), Ok(false));
            }
            if receiver_sees_the_beginning {
                assert!(matches!(host.try_recv(), Err(TryRecvError::Empty)));
            }
            let mut successor = bare_producer(&segment);
            let expected = if next_is_long { &long[..600] } else { b"next" };
            let parts = [IoSlice::new(expected)];
            let mut pieces = Fragments::new(RecordKind::Data, 2, &parts);
            match next_is_long {
                true => {
                    while !pieces.try_push_next(&mut successor).unwrap() {
                        let _ = host.try_recv().map(|message| panic!("{} bytes", message.len()));
                    }
                }
                false => successor.try_push(2, expected).unwrap(),
            }
            let message = host.recv().unwrap();
            assert_eq!((message.tag(), message.bytes()), (2, expected));
            assert_eq!(host.receiver().stats().dropped_partial, 1);
        }
    }
}

/// A receiver died midway; the pieces that are left have no beginning.
#[test]
fn f43_consumer_dies_in_the_middle_of_a_fragmented_message() {
    let (mut host, mut producer, segment) = bare(1024);
    let long = payload(3, 700);
    let parts = [IoSlice::new(&long)];
    let mut pieces = Fragments::new(RecordKind::Data, 1, &parts);
    for _ in 0..3 {
        assert_eq!(pieces.try_push_next(&mut producer), Ok(false));
    }
    // What was released is gone with the process that had it.
    let geometry = *producer.geometry();
    let memory = segment.memory();
    let mut former = ringway::ring::Consumer::attach(memory.clone(), geometry).unwrap();
    let first = former.peek().unwrap().unwrap();
    former.advance(&first);
    former.release();
    drop(former);
    let mut successor = ringway::ring::Consumer::attach(memory.clone(), geometry).unwrap();
    let mut assembly = ringway::ring::Assembly::default();
    while !pieces.try_push_next(&mut producer).unwrap() {}
    producer.try_push(2, b"next").unwrap();
    loop {
        let record = successor.peek().unwrap().unwrap();
        if record.kind() == RecordKind::Data {
            assert_eq!(record.tag(), 2);
            break;
        }
        assert_eq!(assembly.absorb(&mut successor, &record), Ok(None));
        assert_eq!(assembly.memory_bytes(), 0, "nothing is kept of pieces without a beginning");
    }
    assert_eq!(host.peer_state(), ringway::channel::PeerState::Absent);
    let _ = host.try_recv();
}

/// What no correct sender writes, after two good pieces and after none.
#[test]
fn f43_pieces_that_lie() {
    let first = |total| fragment::pack(total, record::DATA, fragment::FIRST);
    let next = |offset| fragment::pack(offset, 0, 0);
    let piece = [9; 40];
    let max = ChannelOptions::default().max_message_bytes;
    let lies = [
        // Announced: nothing, what fits the piece, too much, of no kind.
        (first(0), 40),
        (first(40), 40),
        (first(max + 1), 40),
        (first((1 << 48) - 1), 40),
        (first(100), 0),
        (fragment::pack(100, record::FRAGMENT, fragment::FIRST), 40),
        (fragment::pack(100, record::PADDING, fragment::FIRST), 40),
        (fragment::pack(100, 0, fragment::FIRST), 40),
        (fragment::pack(100, record::CALL, fragment::FIRST), 7),
        (fragment::pack(max + 9, record::REPLY, fragment::FIRST), 40),
        // Flags that do not exist or do not go together.
        (fragment::pack(100, record::DATA, 4), 40),
        (fragment::pack(100, record::DATA, 3), 40),
        (fragment::pack(1, 0, fragment::ABORT), 0),
        (fragment::pack(0, 0, fragment::ABORT), 8),
        // Going on: at the beginning, with a kind, with nothing.
        (next(0), 40),
        (fragment::pack(80, record::DATA, 0), 40),
        (next(80), 0),
    ];
    // Only after good ones: a gap, back, past the end.
    let continued = [(next(81), 8), (next(40), 40), (next(120), 8), (next(80), 21)];
    let cases = lies.iter().flat_map(|lie| [(false, lie), (true, lie)]);
    for (begun, (word, len)) in cases.chain(continued.iter().map(|lie| (true, lie))) {
        let (mut host, mut producer, _segment) = bare(1024);
        let mut push = |word, tag, len: usize| {
            let kind = RecordKind::Fragment;
            producer.try_push_kind(kind, word, tag, &piece[..len]).unwrap();
        };
        if begun {
            push(first(100), 3, 40);
            push(next(40), 3, 40);
        }
        push(*word, 3, *len);
        let found = host.try_recv().unwrap_err();
        assert!(
            matches!(found, TryRecvError::Corrupt(Corruption::Fragment { word: lie, .. }) if lie == *word),
            "{word:#x} of {len} bytes: {found:?}"
        );
        assert_eq!(host.try_recv().unwrap_err(), found, "it latches");
    }
    // The tag is in every piece.
    let (mut host, mut producer, _segment) = bare(1024);
    producer.try_push_kind(RecordKind::Fragment, first(100), 3, &piece).unwrap();
    producer.try_push_kind(RecordKind::Fragment, next(40), 4, &piece).unwrap();
    assert!(matches!(host.try_recv(), Err(TryRecvError::Corrupt(Corruption::Fragment { .. }))));
}

/// A length announced and never sent.
#[test]
fn f43_memory_grows_with_what_has_arrived() {
    let (_host, mut producer, segment) = bare(64 << 10);
    let geometry = *producer.geometry();
    let mut consumer = ringway::ring::Consumer::attach(segment.memory().clone(), geometry).unwrap();
    let mut assembly = ringway::ring::Assembly::default();
    let word = fragment::pack(16 << 20, record::DATA, fragment::FIRST);
    producer.try_push_kind(RecordKind::Fragment, word, 0, &[1; 100]).unwrap();
    let mut arrived = 100;
    loop {
        let record = consumer.peek().unwrap().unwrap();
        assert_eq!(assembly.absorb(&mut consumer, &record), Ok(None));
        consumer.release();
        assert!(assembly.memory_bytes() <= 256 + 2 * arrived, "{arrived}");
        if arrived > 1 << 20 {
            break;
        }
        let next = fragment::pack(arrived as u64, 0, 0);
        match producer.try_push_kind(RecordKind::Fragment, next, 0, &[1; 1000]) {
            Ok(()) => arrived += 1000,
            Err(PushError::Full { .. }) => panic!("it was released"),
            Err(error) => panic!("{error}"),
        }
    }
}
