//! Fingerprints of types, and channels that carry values of them.
#![cfg(not(loom))]
#![allow(unsafe_code)]

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use bytemuck::{AnyBitPattern, CheckedBitPattern, NoUninit};
use ringway::Schema;
use ringway::channel::{Channel, ChannelOptions, TypedChannel};
use ringway::error::{
    RecvError, RecvTimeoutError, SegmentError, SendTimeoutError, TryRecvError, TrySendError,
};
use ringway::typed::{Archived, Codec, Fingerprint, Pod};

/// One message, defined again and again, each time with one difference.
#[allow(dead_code, reason = "only their fingerprints are used")]
mod original {
    #[derive(ringway::Schema)]
    pub struct Order {
        pub id: u64,
        pub price: f64,
        pub tags: Vec<Option<super::Side>>,
    }
}

#[derive(Schema)]
#[allow(dead_code, reason = "only its fingerprint is used")]
enum Side {
    Bid,
    Ask(u8),
    Both { bid: u8, ask: u8 },
}

#[derive(Schema)]
#[allow(dead_code, reason = "only its fingerprint is used")]
struct Renamed {
    id: u64,
    price: f64,
    tags: Vec<Option<Side>>,
}

#[derive(Schema)]
#[allow(dead_code, reason = "only its fingerprint is used")]
struct Generic<T, const N: usize>
where
    T: Clone,
{
    values: [T; N],
    more: Vec<T>,
}

/// A type and its fingerprint.
macro_rules! fingerprints {
    ($($definition:item)*) => {
        vec![$({
            #[derive(Schema)]
            #[allow(dead_code)]
            $definition
            (stringify!($definition), Message::FINGERPRINT)
        }),*]
    };
}

fn all_differ(fingerprints: &[(&str, u64)]) {
    for (index, (text, fingerprint)) in fingerprints.iter().enumerate() {
        assert_ne!(*fingerprint, 0);
        for (other, same) in &fingerprints[..index] {
            assert_ne!(fingerprint, same, "{text} and {other}");
        }
    }
}

#[test]
fn a_type_may_be_renamed_and_moved_and_nothing_else() {
    assert_eq!(original::Order::FINGERPRINT, Renamed::FINGERPRINT);
    let changed = fingerprints! {
        struct Message { id: u64, price: f64, tags: Vec<Option<Side>> }
        struct Message { price: f64, id: u64, tags: Vec<Option<Side>> }
        struct Message { ident: u64, price: f64, tags: Vec<Option<Side>> }
        struct Message { id: i64, price: f64, tags: Vec<Option<Side>> }
        struct Message { id: u64, price: f64, tags: Vec<Side> }
        struct Message { id: u64, price: f64, tags: Vec<Option<u8>> }
        struct Message { id: u64, price: f64 }
        struct Message { id: u64, price: f64, tags: Vec<Option<Side>>, more: () }
        struct Message(u64, f64, Vec<Option<Side>>);
        struct Message;
        struct Message {}
        struct Message { #[schema(opaque = 1)] id: u64, price: f64, tags: Vec<Option<Side>> }
        struct Message { #[schema(opaque = 2)] id: u64, price: f64, tags: Vec<Option<Side>> }
    };
    assert_eq!(changed[0].1, original::Order::FINGERPRINT);
    // A struct without fields is one, however it is written.
    assert_eq!(changed[9].1, changed[10].1);
    all_differ(&[&changed[..9], &changed[10..]].concat());
}

#[test]
fn every_part_of_an_enum_counts() {
    all_differ(&fingerprints! {
        enum Message { A, B }
        enum Message { B, A }
        enum Message { A, B, C }
        enum Message { A, C }
        enum Message { A = 1, B }
        enum Message { A = 1, B = 3 }
        enum Message { A = -1, B }
        enum Message { A, B(u8) }
        enum Message { A, B(u8, u8) }
        enum Message { A, B { a: u8 } }
        enum Message { A(u8), B }
        #[repr(u8)] enum Message { A, B }
        #[repr(u16)] enum Message { A, B }
        #[repr(u16)] enum Message { A = 0xffff, B = 0xfffe }
    });
}

#[test]
fn a_fixed_layout_counts() {
    all_differ(
        &fingerprints! {
            struct Message { a: u32, b: u64 }
            #[repr(C)] struct Message { a: u32, b: u64 }
            #[repr(C, packed)] struct Message { a: u32, b: u64 }
            #[repr(C, packed(4))] struct Message { a: u32, b: u64 }
            #[repr(C, align(16))] struct Message { a: u32, b: u64 }
        }[..3],
    );
    let aligned = fingerprints! {
        #[repr(C)] struct Message { a: u64 }
        #[repr(C, align(16))] struct Message { a: u64 }
        #[repr(transparent)] struct Message { b: u64 }
    };
    all_differ(&aligned);
}

#[test]
fn generic_types_have_the_fingerprint_of_what_they_are_made_of() {
    #[derive(Schema)]
    #[allow(dead_code)]
    struct ByHand {
        values: [u16; 3],
        more: Vec<u16>,
    }
    assert_eq!(<Generic<u16, 3>>::FINGERPRINT, ByHand::FINGERPRINT);
    assert_ne!(<Generic<u16, 4>>::FINGERPRINT, ByHand::FINGERPRINT);
    assert_ne!(<Generic<i16, 3>>::FINGERPRINT, ByHand::FINGERPRINT);
}

#[test]
fn types_of_std_differ() {
    all_differ(&[
        ("u64", u64::FINGERPRINT),
        ("i64", i64::FINGERPRINT),
        ("usize", usize::FINGERPRINT),
        ("f64", f64::FINGERPRINT),
        ("String", String::FINGERPRINT),
        ("Box<str>", <Box<str>>::FINGERPRINT),
        ("Vec<u8>", <Vec<u8>>::FINGERPRINT),
        ("Box<[u8]>", <Box<[u8]>>::FINGERPRINT),
        ("[u8; 4]", <[u8; 4]>::FINGERPRINT),
        ("[u8; 5]", <[u8; 5]>::FINGERPRINT),
        ("(u8,)", <(u8,)>::FINGERPRINT),
        ("(u8, u8)", <(u8, u8)>::FINGERPRINT),
        ("Option<u8>", <Option<u8>>::FINGERPRINT),
        ("Option<Option<u8>>", <Option<Option<u8>>>::FINGERPRINT),
        ("Result<u8, u16>", <Result<u8, u16>>::FINGERPRINT),
        ("Result<u16, u8>", <Result<u16, u8>>::FINGERPRINT),
        ("HashMap<u8, u16>", <HashMap<u8, u16>>::FINGERPRINT),
        ("BTreeMap<u8, u16>", <BTreeMap<u8, u16>>::FINGERPRINT),
    ]);
}

/// What a program of another build will compare: where this fails, the layout version must change.
#[test]
#[cfg(target_pointer_width = "64")]
fn fingerprints_of_layout_version_2() {
    let found = [
        Fingerprint::new("").finish(),
        u64::FINGERPRINT,
        Renamed::FINGERPRINT,
        Pod::<Tick>::FINGERPRINT,
        Archived::<Report>::FINGERPRINT,
    ];
    let expected = [
        0x7bd3_144f_29c0_cc9e,
        0x417f_c7ec_2497_1182,
        0xbf5a_0f29_01a4_e0d4,
        0x0b2b_4603_84a6_6c66,
        0x02c0_b415_4bac_2ce9,
    ];
    assert_eq!(found, expected, "{found:#018x?}");
}

#[derive(Debug, Clone, Copy, PartialEq, Schema, NoUninit, AnyBitPattern)]
#[repr(C)]
struct Tick {
    price: u64,
    size: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Schema, NoUninit, CheckedBitPattern)]
#[repr(u8)]
enum Switch {
    #[allow(dead_code, reason = "a value that is received")]
    Off = 0,
    On = 1,
}

#[derive(Debug, PartialEq, Schema, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
struct Report {
    lines: Vec<String>,
    count: u64,
}

fn report(count: u64) -> Report {
    Report { lines: (0..count).map(|n| format!("line {n}")).collect(), count }
}

type Host = TypedChannel<Pod<Tick>, Archived<Report>>;
type Plugin = TypedChannel<Archived<Report>, Pod<Tick>>;

#[test]
fn values_go_both_ways() {
    let (mut host, mut plugin): (Host, Plugin) =
        Host::pair(&ChannelOptions::default()).expect("a channel");
    let tick = Tick { price: 7, size: 9 };
    assert_eq!(plugin.try_recv(), Err(TryRecvError::Empty));
    assert_eq!(plugin.recv_timeout(Duration::from_millis(1)), Err(RecvTimeoutError::Timeout));
    host.send(&tick).expect("room");
    host.try_send(&Tick { size: 10, ..tick }).expect("room");
    host.send_timeout(&Tick { size: 11, ..tick }, Duration::from_secs(5)).expect("room");
    assert_eq!(plugin.recv(), Ok(tick));
    assert_eq!(plugin.try_recv(), Ok(Tick { size: 10, ..tick }));
    assert_eq!(plugin.recv_timeout(Duration::from_secs(5)), Ok(Tick { size: 11, ..tick }));
    plugin.send(&report(3)).expect("room");
    let view = host.recv().expect("a report");
    assert_eq!((view.count.to_native(), view.lines[2].as_str()), (3, "line 2"));
    let (mut tx, rx) = plugin.split();
    let (_, mut host_rx) = host.split();
    drop(rx);
    assert_eq!(tx.send_batch((0..100).map(report)), Ok(100));
    assert_eq!(host_rx.recv_owned(), Ok(report(0)));
    let mut counts = Vec::new();
    let taken = host_rx.recv_batch(10, |view| counts.push(view.count.to_native()));
    assert_eq!((taken, counts), (Ok(10), (1..11).collect()));
    drop(tx);
    let rest: Vec<_> = host_rx.iter().map(|value| value.expect("a report").count).collect();
    assert_eq!(rest, (11..100).collect::<Vec<_>>());
    assert_eq!(host_rx.recv().map(|_| ()), Err(RecvError::Disconnected));
}

#[test]
fn a_full_ring_is_full_for_values_too() {
    let options = ChannelOptions { capacity_bytes: 256, ..ChannelOptions::default() };
    let (host, plugin): (Host, Plugin) = Host::pair(&options).expect("a channel");
    let ((mut tx, _), (_, mut rx)) = (host.split(), plugin.split());
    let tick = |price| Tick { price, size: 0 };
    let mut batch = tx.batch().expect("open");
    let pushed = (0..).take_while(|price| batch.push(&tick(*price)).is_ok()).count();
    assert_eq!((pushed, batch.len(), batch.commit()), (10, 10, 10));
    assert_eq!(tx.try_send(&tick(10)), Err(TrySendError::Full));
    let timeout = Duration::from_millis(1);
    assert_eq!(tx.send_timeout(&tick(10), timeout), Err(SendTimeoutError::Timeout));
    tx.batch().expect("open").abort();
    // More than fit: the sender waits in the middle.
    let sending = std::thread::spawn(move || tx.send_batch((10..1000).map(tick)));
    for price in 0..1000 {
        assert_eq!(rx.recv(), Ok(tick(price)));
    }
    assert_eq!(sending.join().expect("joined"), Ok(990));
}

#[test]
fn a_message_that_is_no_value_stays_until_it_is_skipped() {
    type Switches = TypedChannel<Pod<Switch>, Pod<Switch>>;
    let (host, plugin): (Switches, Switches) =
        Switches::pair(&ChannelOptions::default()).expect("a channel");
    let mut raw = host.into_inner();
    raw.send(&[2]).expect("room");
    raw.send(&[1, 1]).expect("room");
    raw.send(&[1]).expect("room");
    let (_tx, mut rx) = plugin.split();
    assert_eq!(rx.recv(), Err(RecvError::Invalid));
    assert_eq!(rx.recv_batch(9, drop), Err(RecvError::Invalid));
    assert_eq!(rx.iter().collect::<Vec<_>>(), [Err(RecvError::Invalid)]);
    rx.skip().expect("there");
    assert_eq!(rx.recv(), Err(RecvError::Mismatch { found: 2, expected: 1 }));
    rx.skip().expect("there");
    assert_eq!(rx.recv(), Ok(Switch::On));
}

#[test]
fn archives_that_are_none_are_refused() {
    let (host, plugin): (Host, Plugin) = Host::pair(&ChannelOptions::default()).expect("a channel");
    let mut raw = plugin.into_inner();
    raw.send(&[0xff; 64]).expect("room");
    raw.send(&[]).expect("room");
    let (_tx, mut rx) = host.split();
    for _ in 0..2 {
        assert_eq!(rx.recv().map(|_| ()), Err(RecvError::Invalid));
        rx.skip().expect("there");
    }
}

fn is_refused<T>(result: Result<T, SegmentError>) -> bool {
    matches!(result, Err(SegmentError::Types { .. }))
}

#[test]
fn f11_a_channel_of_other_types_is_refused() {
    let options = ChannelOptions::default();
    let host = Host::anonymous(&options).expect("a channel");
    let fd = || host.descriptor().expect("a descriptor");
    // The same types the wrong way round, another codec, another type, none.
    assert!(is_refused(Host::attach(fd(), &options)));
    assert!(is_refused(TypedChannel::<Pod<u64>, Pod<Tick>>::attach(fd(), &options)));
    assert!(is_refused(TypedChannel::<Archived<Report>, Pod<[u64; 2]>>::attach(fd(), &options)));
    assert!(is_refused(Channel::attach(fd(), &options)));
    // Refused before the side was taken: who is right still gets it.
    drop(Plugin::attach(fd(), &options).expect("the right types"));

    let untyped = Channel::anonymous(&options).expect("a channel");
    let fd = untyped.descriptor().expect("a descriptor");
    assert!(is_refused(Plugin::attach(fd, &options)));
    assert!(is_refused(untyped.typed::<Pod<Tick>, Pod<Tick>>()));
    let message = match Channel::attach(host.descriptor().expect("a descriptor"), &options) {
        Err(error) => error.to_string(),
        Ok(_) => unreachable!("refused above"),
    };
    assert!(message.contains("sends bytes and receives bytes"), "{message}");
    let refused = TypedChannel::<Pod<u64>, Archived<Report>>::attach(
        host.descriptor().expect("a descriptor"),
        &options,
    );
    let message = refused.expect_err("of other types").to_string();
    assert!(message.contains("u64") && message.contains("Report"), "{message}");
}

#[test]
fn named_channels_have_types_too() {
    let name = format!("ringway-test-typed-{}", std::process::id());
    struct Removed<'a>(&'a str);
    impl Drop for Removed<'_> {
        fn drop(&mut self) {
            let _ = ringway::channel::remove(self.0);
        }
    }
    let _removed = Removed(&name);
    let options = ChannelOptions::default();
    let mut host = Host::create(&*name, &options).expect("a channel");
    assert!(is_refused(Host::open(&*name, &options)));
    assert!(is_refused(Channel::open(&*name, &options)));
    assert!(is_refused(Host::open_timeout(&*name, &options, Duration::ZERO)));
    let mut plugin = Plugin::open_or_create(&*name, &options).expect("its types");
    plugin.send(&report(2)).expect("room");
    assert_eq!(host.recv().map(|view| view.count.to_native()), Ok(2));
}

#[test]
fn a_channel_that_was_created_for_types_becomes_typed() {
    let options = Host::options(&ChannelOptions::default());
    let channel = Channel::anonymous(&options).expect("a channel");
    let plugin = Channel::attach(
        channel.descriptor().expect("a descriptor"),
        &Plugin::options(&ChannelOptions::default()),
    );
    let mut host = channel.typed::<Pod<Tick>, Archived<Report>>().expect("its types");
    let mut plugin = plugin.expect("its types").typed().expect("its types");
    let _: &Plugin = &plugin;
    plugin.send(&report(1)).expect("room");
    assert_eq!(host.recv().map(|view| view.count.to_native()), Ok(1));
}

#[test]
fn trusted_ends_read_values_in_the_ring() {
    let (host, plugin): (Host, Plugin) = Host::pair(&ChannelOptions::default()).expect("a channel");
    let ((mut tick_tx, rx), (mut tx, tick_rx)) = (host.split(), plugin.split());
    tx.send_batch([report(2), report(5), report(7)]).expect("room");
    tick_tx.send(&Tick { price: 1, size: 2 }).expect("room");
    // SAFETY: both sides are this test.
    let mut rx = unsafe { rx.trust_peer() };
    // SAFETY: as above.
    let mut tick_rx = unsafe { tick_rx.trust_peer() };
    assert_eq!(rx.recv_in_place().expect("a report").lines[1].as_str(), "line 1");
    // SAFETY: the sender is the typed one of this build, archives of reports are aligned to 8.
    let unchecked = unsafe { rx.recv_in_place_unchecked() };
    assert_eq!(unchecked.expect("a report").count.to_native(), 5);
    assert_eq!(rx.try_recv_in_place().expect("a report").lines.len(), 7);
    assert_eq!(rx.try_recv_in_place().map(|_| ()), Err(TryRecvError::Empty));
    assert_eq!(tick_rx.recv_in_place(), Ok(Tick { price: 1, size: 2 }));
    let mut raw = tx.into_inner();
    raw.send(&[0xee; 40]).expect("room");
    assert_eq!(rx.recv_in_place().map(|_| ()), Err(RecvError::Invalid));
}
