//! Plugins that publish and subscribe as they are told.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ringway::channel::Sender;
use ringway::error::RecvError;
use ringway::host::Plugin;
use ringway::topic::{
    BackpressurePolicy, Publication, PublishOptions, Publisher, PublisherId, SubscribeOptions,
    Subscriber, TopicRecvError,
};

use super::plugin::{self, NEVER};

/// What a subscriber in a test chooses, by its name.
pub fn backpressure(name: &str) -> BackpressurePolicy {
    match name {
        "block" => BackpressurePolicy::Block(NEVER),
        "newest" => BackpressurePolicy::DropNewest,
        "oldest" => BackpressurePolicy::DropOldest { queue_bytes: 4096 },
        "disconnect" => BackpressurePolicy::Disconnect,
        other => panic!("unknown policy {other}"),
    }
}

/// As slow as its name says, with a ring of so many bytes.
pub fn subscribe_options(policy: &str, capacity_bytes: u64) -> SubscribeOptions {
    SubscribeOptions {
        backpressure: backpressure(policy),
        capacity_bytes,
        join_timeout: NEVER,
        ..SubscribeOptions::default()
    }
}

/// Waits so long for the slow, and puts what is so long into the store.
pub fn publish_options(max_block: Duration, store_from_bytes: Option<u64>) -> PublishOptions {
    PublishOptions { max_block, store_from_bytes, join_timeout: NEVER, ..PublishOptions::default() }
}

/// Publishes these numbers; how many were missed by anybody.
pub fn publish(publisher: &mut Publisher, numbers: std::ops::Range<u64>) -> usize {
    numbers.map(|number| publisher.publish(&number.to_ne_bytes()).unwrap().missed).sum()
}

/// What has come of each publisher: every publication says the number that it has, and says where it is
/// missing.
#[derive(Debug, Default)]
pub struct Ledger {
    /// By publisher: the number that comes next.
    pub next: HashMap<PublisherId, u64>,
    pub received: u64,
    pub lost: u64,
}

impl Ledger {
    pub fn enter(&mut self, publication: &Publication<'_>) {
        let number = u64::from_ne_bytes(publication[..8].try_into().unwrap());
        assert_eq!(publication.number(), number);
        let next = self.next.entry(publication.publisher()).or_insert(number);
        assert_eq!(number - *next, publication.lost_before(), "a gap that is not told");
        *next = number + 1;
        self.received += 1;
        self.lost += publication.lost_before();
    }

    /// Receives until so many have come.
    pub fn receive(&mut self, subscriber: &mut Subscriber, count: u64) {
        while self.received < count {
            let publication = subscriber.recv_timeout(NEVER);
            self.enter(&publication.unwrap_or_else(|error| panic!("{error}: {self:?}")));
        }
    }
}

#[derive(Default)]
struct Hands {
    publishers: HashMap<String, Publisher>,
    subscribers: HashMap<String, Subscriber>,
}

/// Does what each message says, and answers with what came of it.
pub fn use_topics() {
    let plugin = Plugin::connect().unwrap();
    let (active, _passive) = plugin.take_channels().unwrap();
    let (sender, mut receiver) = active.split();
    let sender = Arc::new(Mutex::new(sender));
    let mut hands = Hands::default();
    loop {
        let order = match receiver.recv_owned() {
            Ok(message) => String::from_utf8(message.to_vec()).unwrap(),
            Err(RecvError::Disconnected) => return,
            Err(error) => panic!("{error}"),
        };
        receiver.release();
        let words: Vec<_> = order.split(' ').collect();
        let answer = obey(&plugin, &mut hands, &words, &sender);
        sender.lock().unwrap().send(answer.as_bytes()).unwrap();
    }
}

fn obey(plugin: &Plugin, hands: &mut Hands, words: &[&str], sender: &Arc<Mutex<Sender>>) -> String {
    let number = |at: usize| words[at].parse::<u64>().unwrap();
    let key = words[1];
    let say = |text: &str| sender.lock().unwrap().send(text.as_bytes()).unwrap();
    match words[0] {
        // A key, a topic, milliseconds, length from which on the store is used.
        "publisher" => {
            let options = publish_options(Duration::from_millis(number(3)), Some(number(4)));
            let publisher = plugin.publisher_with(words[2], &options).unwrap();
            hands.publishers.insert(key.into(), publisher);
            "ok".into()
        }
        "publish" => {
            let publisher = hands.publishers.get_mut(key).unwrap();
            publish(publisher, number(2)..number(3)).to_string()
        }
        // A publication of so many bytes.
        "publish-long" => {
            let mut bytes = vec![7; number(3) as usize];
            bytes[..8].copy_from_slice(&number(2).to_ne_bytes());
            let publisher = hands.publishers.get_mut(key).unwrap();
            let missed = publisher.publish(&bytes).unwrap().missed;
            format!("{missed} {}", publisher.stats().stored)
        }
        "flood" => {
            say("ok");
            let publisher = hands.publishers.get_mut(key).unwrap();
            publish(publisher, number(2)..u64::MAX).to_string()
        }
        "drop" => {
            hands.publishers.remove(key);
            hands.subscribers.remove(key);
            "ok".into()
        }
        // A key, a topic, a policy, bytes.
        "subscriber" => {
            let options = subscribe_options(words[3], number(4));
            hands.subscribers.insert(key.into(), plugin.subscriber(words[2], &options).unwrap());
            "ok".into()
        }
        "receive" => {
            let mut ledger = Ledger::default();
            ledger.receive(hands.subscribers.get_mut(key).unwrap(), number(2));
            ledger.lost.to_string()
        }
        // Whether it lies in the store, and how long it is.
        "receive-long" => match hands.subscribers.get_mut(key).unwrap().recv_timeout(NEVER) {
            Ok(publication) => {
                let rest = &publication[8..];
                assert!(rest.iter().all(|byte| *byte == 7));
                format!("{} {}", publication.is_in_store(), publication.len())
            }
            Err(TopicRecvError::Expired { len_bytes, .. }) => format!("expired {len_bytes}"),
            Err(error) => panic!("{error}"),
        },
        "recv-for-ever" => {
            say("ok");
            let subscriber = hands.subscribers.get_mut(key).unwrap();
            loop {
                let _ = subscriber.recv();
            }
        }
        "hang-in-callback" => {
            let subscriber = hands.subscribers.remove(key).unwrap();
            let sender = Arc::clone(sender);
            let callback = move |_: &Publication<'_>| -> () {
                sender.lock().unwrap().send(b"in callback").unwrap();
                plugin::hang()
            };
            let listening = subscriber.on_publication(|_| true, callback).unwrap();
            std::mem::forget(listening);
            "ok".into()
        }
        other => panic!("unknown order {other}"),
    }
}
