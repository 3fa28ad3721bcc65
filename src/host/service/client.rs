//! The plugin's end of its service channel.
//!
//! Every thread of the plugin may call the host through it. What always holds: at any moment at most
//! one thread reads the ring, and it hands every reply to whoever waits for it; when it leaves, one of
//! those that wait goes on reading, so that no thread is needed for it; when the host is gone or
//! closes the channel, every wait ends with an error.
//!
//! The caller that reads is the one that waits: its own reply costs one wakeup of one thread, as a
//! reply on a channel of its own would.

use std::collections::HashMap;
use std::io::{self, IoSlice};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::error::ServiceError;
use super::frame::{Header, MAX_IN_FLIGHT, STATUS_TOO_LONG, STATUS_UNKNOWN};
use crate::channel::connection::peer;
use crate::channel::{Channel, Connection, Receiver, Sender};
use crate::error::{RecvTimeoutError, SendTimeoutError};
use crate::memory::Deadline;
use crate::os::clock::monotonic_ns;
use crate::os::fork;

/// See the module.
#[derive(Debug)]
pub(in crate::host) struct Client {
    connection: Arc<Connection>,
    /// The fork generation it was made in.
    generation: u64,
    /// `None` while a thread sends.
    outgoing: Mutex<Option<Sender>>,
    sent: Condvar,
    mail: Mutex<Mail>,
}

/// What the host has answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::host) struct Reply {
    pub(in crate::host) status: u32,
    pub(in crate::host) payload: Vec<u8>,
}

#[derive(Debug)]
struct Mail {
    /// `None` while a thread reads.
    receiver: Option<Receiver>,
    /// Why nothing will come any more.
    ended: Option<ServiceError>,
    last_id: u64,
    pending: HashMap<u64, Pending>,
    /// Threads that wait while another one reads, and for which reply; 0 where it is for a place
    /// among the pending.
    followers: Vec<(u64, Arc<Condvar>)>,
}

#[derive(Debug)]
enum Pending {
    Awaited,
    Replied(Reply),
    /// Nobody waits any more; its place is free when the reply has come.
    Abandoned,
}

impl Client {
    /// # Errors
    /// The page that tells forked children from this process could not be mapped.
    pub(in crate::host) fn new(channel: Channel) -> io::Result<Self> {
        let generation = fork::generation()?;
        let connection = Arc::clone(channel.connection());
        let (sender, receiver) = channel.split();
        Ok(Self {
            connection,
            generation,
            outgoing: Mutex::new(Some(sender)),
            sent: Condvar::new(),
            mail: Mutex::new(Mail {
                receiver: Some(receiver),
                ended: None,
                last_id: 0,
                pending: HashMap::new(),
                followers: Vec::new(),
            }),
        })
    }

    /// Whether this is the process that made it, and not one forked from that.
    pub(in crate::host) fn is_ours(&self) -> bool {
        fork::is_current(self.generation)
    }

    /// Asks the host to do something, and waits for the answer for at most `timeout`.
    ///
    /// # Errors
    /// [`ServiceError`] says what is known of the request.
    pub(in crate::host) fn call(
        &self,
        op: u32,
        payload: &[u8],
        timeout: Duration,
    ) -> Result<Reply, ServiceError> {
        if !self.is_ours() {
            return Err(ServiceError::Forked);
        }
        let timeout_ns = u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX);
        let deadline = Deadline::at_ns(monotonic_ns().saturating_add(timeout_ns));
        let full = ServiceError::Full { timeout };
        let id = self.read_until(0, deadline, Mail::begin)?.ok_or(full)?;
        if let Err(error) = self.send(Header { op, status: 0, id }, payload, deadline) {
            self.mail().forget(id);
            return Err(error.unwrap_or(full));
        }
        match self.read_until(id, deadline, |mail| mail.take_reply(id))? {
            Some(reply) if reply.status == STATUS_UNKNOWN => Err(ServiceError::Unknown { op }),
            Some(reply) if reply.status == STATUS_TOO_LONG => {
                Err(ServiceError::ResultTooLong { op })
            }
            Some(reply) => Ok(reply),
            None => Err(ServiceError::Timeout { timeout }),
        }
    }

    fn mail(&self) -> MutexGuard<'_, Mail> {
        self.mail.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a request; the error is `None` where there was no room by the deadline.
    fn send(
        &self,
        header: Header,
        payload: &[u8],
        deadline: Deadline,
    ) -> Result<(), Option<ServiceError>> {
        let outgoing = self.outgoing.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut outgoing, _) = self
            .sent
            .wait_timeout_while(outgoing, left(deadline), |sender| sender.is_none())
            .unwrap_or_else(PoisonError::into_inner);
        let mut sender = outgoing.take().ok_or(None)?;
        // Others that have less time must not wait for the lock.
        drop(outgoing);
        let header = header.to_bytes();
        let parts = [IoSlice::new(&header), IoSlice::new(payload)];
        let sent = sender.send_vectored_deadline(0, &parts, deadline);
        *self.outgoing.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender);
        self.sent.notify_one();
        sent.map_err(|error| match error {
            SendTimeoutError::Timeout => None,
            SendTimeoutError::TooLong { len, max } => Some(ServiceError::TooLong { len, max }),
            SendTimeoutError::Corrupt(corruption) => Some(corruption.into()),
            SendTimeoutError::Forked => Some(ServiceError::Forked),
            _ => Some(self.gone()),
        })
    }

    /// What it means that the channel is disconnected.
    fn gone(&self) -> ServiceError {
        match self.connection.peer() {
            peer::ALIVE => ServiceError::Closed,
            _ => ServiceError::HostGone,
        }
    }

    /// Reads what the host sends, or waits while another thread does, until `ready` finds what it
    /// looks for; `None` where that has not come by the deadline. `waits_for` is the reply whose
    /// coming may make it ready, or 0 for a place among the pending.
    fn read_until<T>(
        &self,
        waits_for: u64,
        deadline: Deadline,
        mut ready: impl FnMut(&mut Mail) -> Option<T>,
    ) -> Result<Option<T>, ServiceError> {
        let mut mail = self.mail();
        let mut last = false;
        let result = loop {
            if let Some(found) = ready(&mut mail) {
                break Ok(Some(found));
            }
            if let Some(error) = mail.ended {
                break Err(error);
            }
            if last {
                break Ok(None);
            }
            last = left(deadline).is_zero();
            if let Some(mut receiver) = mail.receiver.take() {
                drop(mail);
                let news = self.read(&mut receiver, deadline);
                mail = self.mail();
                mail.receiver = Some(receiver);
                mail.deliver(news);
            } else {
                let told = Arc::new(Condvar::new());
                mail.followers.push((waits_for, Arc::clone(&told)));
                let waited = told.wait_timeout(mail, left(deadline));
                mail = waited.unwrap_or_else(PoisonError::into_inner).0;
                mail.followers.retain(|(_, other)| !Arc::ptr_eq(other, &told));
            }
        };
        if !matches!(result, Ok(Some(_))) {
            mail.forget_unless_read(waits_for);
        }
        mail.pass_on();
        result
    }

    /// One frame, or the lack of one.
    fn read(&self, receiver: &mut Receiver, deadline: Deadline) -> News {
        match receiver.recv_deadline(deadline) {
            Ok(message) => match Header::of(&message) {
                Some((Header { status, id, .. }, payload)) => {
                    News::Reply(id, Reply { status, payload: payload.to_vec() })
                }
                // Of a later version, perhaps.
                None => News::Nothing,
            },
            Err(RecvTimeoutError::Timeout) => News::Nothing,
            Err(RecvTimeoutError::Corrupt(corruption)) => News::End(corruption.into()),
            Err(RecvTimeoutError::Forked) => News::End(ServiceError::Forked),
            Err(_) => News::End(self.gone()),
        }
    }
}

/// What reading has brought.
enum News {
    Reply(u64, Reply),
    Nothing,
    End(ServiceError),
}

impl Mail {
    /// Takes a place among the pending, if there is one.
    fn begin(&mut self) -> Option<u64> {
        if self.pending.len() >= MAX_IN_FLIGHT || self.ended.is_some() {
            return None;
        }
        self.last_id += 1;
        self.pending.insert(self.last_id, Pending::Awaited);
        Some(self.last_id)
    }

    fn take_reply(&mut self, id: u64) -> Option<Reply> {
        if let Some(Pending::Replied(_)) = self.pending.get(&id)
            && let Some(Pending::Replied(reply)) = self.pending.remove(&id)
        {
            self.tell(0);
            return Some(reply);
        }
        None
    }

    /// The request was not sent.
    fn forget(&mut self, id: u64) {
        self.pending.remove(&id);
        self.tell(0);
    }

    /// Whoever waited for this reply does not any more.
    fn forget_unless_read(&mut self, id: u64) {
        if let Some(pending) = self.pending.get_mut(&id) {
            *pending = Pending::Abandoned;
        }
    }

    fn deliver(&mut self, news: News) {
        match news {
            News::Nothing => {}
            News::End(error) => {
                self.ended = Some(error);
                self.followers.iter().for_each(|(_, told)| told.notify_one());
            }
            News::Reply(id, reply) => match self.pending.get_mut(&id) {
                Some(pending @ Pending::Awaited) => {
                    *pending = Pending::Replied(reply);
                    self.tell(id);
                }
                Some(Pending::Abandoned) => self.forget(id),
                Some(Pending::Replied(_)) | None => {}
            },
        }
    }

    /// Wakes one thread that waits for this.
    fn tell(&self, waits_for: u64) {
        if let Some((_, told)) = self.followers.iter().find(|(id, _)| *id == waits_for) {
            told.notify_one();
        }
    }

    /// Before a thread leaves: another one goes on reading.
    fn pass_on(&self) {
        if self.receiver.is_some()
            && let Some((_, told)) = self.followers.first()
        {
            told.notify_one();
        }
    }
}

/// The time until then.
fn left(deadline: Deadline) -> Duration {
    Duration::from_nanos(deadline.as_ns().saturating_sub(monotonic_ns()))
}
