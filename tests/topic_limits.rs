//! What topics may take of the host program's store: nothing.
#![allow(missing_docs)]

use ringway::host::Host;
use ringway::store::{Store, StoreOptions};
use ringway::topic::{PublishOptions, SubscribeOptions};

/// Takes all handles of the store that are left.
fn free_handles(host: &Host) -> usize {
    let handles: Vec<Store> = std::iter::from_fn(|| host.store().ok()).collect();
    handles.len()
}

#[test]
fn f90_subscribers_use_no_reader_records_of_the_hosts_store() {
    const SUBSCRIBERS: usize = 70;
    let options = |max_readers| StoreOptions {
        capacity_bytes: 1 << 20,
        max_readers,
        ..StoreOptions::default()
    };
    let host =
        Host::builder().links().store(options(8)).payload_store(options(16)).build().unwrap();
    let before = free_handles(&host);
    assert!(before > 0);
    let large = PublishOptions { store_from_bytes: Some(1000), ..PublishOptions::default() };
    let mut publisher = host.publisher_with("news", &large).unwrap();
    let subscribe = |_| host.subscriber("news", &SubscribeOptions::default()).unwrap();
    let mut subscribers: Vec<_> = (0..SUBSCRIBERS).map(subscribe).collect();
    assert_eq!(free_handles(&host), before);
    // Those that find no reader record in the other store get it through their rings.
    let published = publisher.publish(&[7; 5000]).unwrap();
    assert_eq!((published.subscribers, published.missed), (SUBSCRIBERS, 0));
    let mut in_store = 0;
    for subscriber in &mut subscribers {
        let publication = subscriber.recv().unwrap();
        assert_eq!(*publication, [7; 5000]);
        in_store += usize::from(publication.is_in_store());
    }
    assert!(in_store > 0 && in_store < 16, "{in_store}");
    assert_eq!(free_handles(&host), before);
}
