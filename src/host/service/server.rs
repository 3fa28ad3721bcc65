//! The host's end of all service channels: one thread.
//!
//! [`Host`](crate::host::Host) has one where it has something to serve. What always holds: requests
//! of one plugin are carried out in the order in which they were sent, and of all plugins in turn, a
//! budget each; what a process had asked for before it died is carried out before its successor is
//! started; a plugin that breaks a rule is not served any more, and the others do not notice; where a
//! service panics nobody is served any more, and the host program is told.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::echo::Echo;
use super::error::ServiceProblem;
use super::frame::{Header, SERVICE_HOST, STATUS_UNKNOWN, service_of};
use super::session::{Request, Service, Session, Visit};
use crate::callback::quietly;
use crate::channel::{Channel, ChannelOptions, Event, Message, Selector, Sender};
use crate::error::RecvError;
use crate::host::error::HostError;
use crate::os::fork;

/// Requests that one plugin has carried out in a row while others wait.
const BUDGET: usize = 32;

/// How long the thread sleeps where nothing happens at all.
const IDLE: Duration = Duration::from_secs(3600);

/// See the module.
#[derive(Debug)]
pub(in crate::host) struct Server {
    inbox: Arc<Inbox>,
    thread: Mutex<Option<JoinHandle<()>>>,
    /// The fork generation that its thread runs in.
    generation: u64,
}

/// What the host's other threads have to say to the server's.
#[derive(Debug)]
struct Inbox {
    letters: Mutex<Letters>,
}

#[derive(Debug)]
struct Letters {
    commands: VecDeque<Command>,
    /// Sent to after a command; `None` once the server has been stopped.
    bell: Option<Sender>,
    /// Nobody reads any more.
    closed: bool,
    /// A service has panicked.
    failed: bool,
}

#[derive(Debug)]
enum Command {
    Admit(Arc<Visit>, Box<Channel>),
    Died(u32),
    Stop,
}

impl Inbox {
    fn letters(&self) -> MutexGuard<'_, Letters> {
        self.letters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next(&self) -> Option<Command> {
        self.letters().commands.pop_front()
    }

    fn put(&self, command: Command) {
        let mut letters = self.letters();
        if letters.closed {
            if let Command::Admit(visit, _) = command {
                letters.turn_away(&visit);
            }
            return;
        }
        letters.commands.push_back(command);
        letters.ring();
    }
}

impl Letters {
    /// A plugin's process comes too late to be served.
    fn turn_away(&self, visit: &Visit) {
        if self.failed {
            visit.report(ServiceProblem::HostPanicked);
        }
        visit.is_over();
    }

    fn ring(&mut self) {
        if let Some(bell) = &mut self.bell {
            // One that has no room has been rung.
            let _ = bell.try_send(&[]);
        }
    }
}

/// Has the services [attend](Service::attend), from any thread.
#[derive(Debug)]
pub(in crate::host) struct Bell(Weak<Inbox>);

impl Bell {
    /// Does nothing once the server is gone.
    pub(in crate::host) fn ring(&self) {
        if let Some(inbox) = self.0.upgrade() {
            inbox.letters().ring();
        }
    }
}

/// The processes that are served, for answers to requests that came before.
pub(in crate::host) struct Sessions<'a>(&'a mut HashMap<usize, Client>);

impl Sessions<'_> {
    /// Answers a request of the session with this serial number, if it is still served.
    pub(in crate::host) fn reply(
        &mut self,
        serial: u64,
        op: u32,
        id: u64,
        status: u32,
        payload: &[u8],
    ) {
        let found = self.0.values_mut().find(|client| client.session.serial() == serial);
        let Some(client) = found.filter(|client| client.end.is_none()) else { return };
        let request = Request { op, id, payload: &[] };
        client.end = client.session.reply(&request, status, payload).err().map(End::Broken);
    }
}

impl Server {
    /// Starts the thread, which serves these, and pings.
    ///
    /// # Errors
    /// Memory, descriptors or threads have run out.
    pub(in crate::host) fn start(
        mut services: HashMap<u16, Box<dyn Service>>,
    ) -> Result<Self, HostError> {
        services.insert(SERVICE_HOST, Box::new(Echo));
        let os = |call| move |source| HostError::Os { call, source };
        let generation = fork::generation().map_err(os("mmap"))?;
        let options = ChannelOptions { capacity_bytes: 4096, ..ChannelOptions::default() };
        let (ours, theirs) = Channel::pair(&options).map_err(HostError::Bell)?;
        let (bell, _) = ours.split();
        let commands = VecDeque::new();
        let letters = Letters { commands, bell: Some(bell), closed: false, failed: false };
        let inbox = Arc::new(Inbox { letters: Mutex::new(letters) });
        let (_, heard) = theirs.split();
        let serving = {
            let inbox = Arc::clone(&inbox);
            move || {
                let mut selector = Selector::new();
                let bell = selector.add(heard);
                let clients = HashMap::new();
                let mut serving = Serving { inbox, selector, bell, clients, services, admitted: 0 };
                if !quietly(|| serving.run()) {
                    serving.fail();
                }
            }
        };
        let builder = thread::Builder::new().name("ringway-service".into());
        let thread = builder.spawn(serving).map_err(os("starting the service thread"))?;
        Ok(Self { inbox, thread: Mutex::new(Some(thread)), generation })
    }

    /// Serves a plugin's process from now on, until it dies or breaks a rule.
    pub(in crate::host) fn admit(&self, visit: Arc<Visit>, channel: Channel) {
        self.inbox.put(Command::Admit(visit, Box::new(channel)));
    }

    /// What has the services attend.
    pub(in crate::host) fn bell(&self) -> Bell {
        Bell(Arc::downgrade(&self.inbox))
    }

    /// Tells the services that a plugin's process has died, and been reaped. Does not wait.
    pub(in crate::host) fn died(&self, pid: u32) {
        self.inbox.put(Command::Died(pid));
    }

    /// Ends the thread, and with it all sessions.
    pub(in crate::host) fn stop(&self) {
        // A forked child has no such thread.
        if !fork::is_current(self.generation) {
            return;
        }
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            self.inbox.put(Command::Stop);
            let _ = thread.join();
            // Threads that are about to end may keep the server for a moment, and not its memory.
            self.inbox.letters().bell = None;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

/// What the thread has.
struct Serving {
    inbox: Arc<Inbox>,
    selector: Selector,
    /// The bell's token.
    bell: usize,
    /// By token.
    clients: HashMap<usize, Client>,
    services: HashMap<u16, Box<dyn Service>>,
    /// How many sessions there have been.
    admitted: u64,
}

/// A plugin's process, and whether it is still served.
struct Client {
    session: Session,
    end: Option<End>,
}

#[derive(Clone, Copy)]
enum End {
    /// It has closed the channel, or died.
    Left,
    Broken(ServiceProblem),
}

impl Serving {
    fn run(&mut self) {
        while self.obey() {
            let idle = self.attend();
            let Self { selector, bell, clients, services, .. } = &mut *self;
            selector.poll(BUDGET, idle, |token, event| {
                if token == *bell {
                    return;
                }
                let Some(client) = clients.get_mut(&token) else { return };
                if client.end.is_none() {
                    client.end = client.take(event, services);
                }
            });
            self.say_goodbye();
        }
    }

    /// A service has panicked, and what it has cannot be relied upon: nobody is served any more, and the host program
    /// is told so of everybody.
    fn fail(&mut self) {
        self.inbox.letters().failed = true;
        let mut visits = Vec::new();
        for client in self.clients.values_mut().filter(|client| client.end.is_none()) {
            client.end = Some(End::Left);
            visits.push(Arc::clone(&client.session.visit));
        }
        while !self.clients.is_empty() {
            // A service that panics again has one session less to end.
            quietly(|| self.say_goodbye());
        }
        for visit in visits {
            visit.report(ServiceProblem::HostPanicked);
            visit.is_over();
        }
    }

    /// Lets the services do what has come due. Returns how long the next of it can wait.
    fn attend(&mut self) -> Duration {
        let mut sessions = Sessions(&mut self.clients);
        let due = self.services.values_mut().filter_map(|service| service.attend(&mut sessions));
        let idle = due.min().map_or(IDLE, |due| due.min(IDLE));
        self.say_goodbye();
        idle
    }

    /// Does what the host's other threads have asked for. False where that is the end.
    fn obey(&mut self) -> bool {
        while let Some(command) = self.inbox.next() {
            match command {
                Command::Admit(visit, channel) => {
                    let (sender, receiver) = channel.split();
                    self.admitted += 1;
                    let session = Session::new(visit, sender, self.admitted);
                    let client = Client { session, end: None };
                    let client =
                        self.clients.entry(self.selector.add(receiver)).insert_entry(client);
                    let session = &client.get().session;
                    self.services.values_mut().for_each(|service| service.begin(session));
                }
                Command::Died(pid) => {
                    self.services.values_mut().for_each(|service| service.died(pid));
                }
                Command::Stop => return false,
            }
        }
        true
    }

    /// Lets go of those that are not served any more.
    fn say_goodbye(&mut self) {
        let ended = self.clients.extract_if(|_, client| client.end.is_some());
        for (token, Client { session, end }) in ended {
            drop(self.selector.remove(token));
            self.services.values_mut().for_each(|service| service.end(&session));
            let visit = Arc::clone(&session.visit);
            // Its ends are closed before anybody hears of it.
            drop(session);
            if let Some(End::Broken(problem)) = end {
                visit.report(problem);
            }
            visit.is_over();
        }
    }
}

impl Drop for Serving {
    /// Whoever waits for the thread, or would give it something to do, must not wait in vain, also
    /// where it has panicked.
    fn drop(&mut self) {
        let mut letters = self.inbox.letters();
        letters.closed = true;
        for command in std::mem::take(&mut letters.commands) {
            if let Command::Admit(visit, _) = command {
                letters.turn_away(&visit);
            }
        }
        self.clients.values().for_each(|client| client.session.visit.is_over());
    }
}

impl Client {
    /// What this event ends, if anything.
    fn take(
        &mut self,
        event: Event<'_>,
        services: &mut HashMap<u16, Box<dyn Service>>,
    ) -> Option<End> {
        match event {
            Event::Message(message) => {
                serve(&mut self.session, &message, services).err().map(End::Broken)
            }
            Event::Error(RecvError::Corrupt(corruption)) => Some(End::Broken(corruption.into())),
            Event::Error(_) => Some(End::Left),
        }
    }
}

/// Carries out one request.
fn serve(
    session: &mut Session,
    message: &Message<'_>,
    services: &mut HashMap<u16, Box<dyn Service>>,
) -> Result<(), ServiceProblem> {
    let no_request =
        |status| ServiceProblem::NoRequest { tag: message.tag(), len: message.len(), status };
    let (header, payload) = Header::of(message).ok_or_else(|| no_request(0))?;
    let Header { op, status, id } = header;
    if message.tag() != 0 || status != 0 {
        return Err(no_request(status));
    }
    let request = Request { op, id, payload };
    match services.get_mut(&service_of(op)) {
        Some(service) => service.serve(session, &request),
        None => session.reply(&request, STATUS_UNKNOWN, &[]),
    }
}
