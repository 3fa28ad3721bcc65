//! Making a host: what it serves, and what all its plugins have in common.
//!
//! [`Host::builder`] starts it. What always holds: a host that could not be made has left nothing.

use std::collections::HashMap;
use std::io;
use std::os::fd::AsFd;
use std::process;
use std::sync::{Arc, Mutex, OnceLock};

use super::event::{Events, HostEventKind};
use super::hooks::{HookList, Moment, Occasion};
use super::links::{HostLinks, Limits};
use super::others::{Others, Roster};
use super::payloads::PayloadService;
use super::service::frame::{SERVICE_LINKS, SERVICE_PAYLOADS, SERVICE_PLUGINS, SERVICE_STORE};
use super::service::{Server, Service};
use super::store::{HostStore, StoreService};
use super::{Host, HostError};
#[cfg(doc)]
use super::{LinkError, Plugin, PluginSpec};
use crate::channel::ChannelOptions;
use crate::os::fork;
use crate::os::keeper::Keeper;
use crate::os::memfd;
use crate::os::pidfd::{self, PidFd};
use crate::store::StoreOptions;
use crate::supervisor::{self, WatchToken};

/// Makes a [`Host`].
#[derive(Debug, Default)]
pub struct HostBuilder {
    options: ChannelOptions,
    hooks: HookList,
    /// Also where there is nothing else to ask for.
    serves: bool,
    links: bool,
    store: Option<StoreOptions>,
    payloads: Option<StoreOptions>,
    keeper: bool,
}

/// Reports the keeper's death.
fn watch_keeper(keeper: &Arc<Keeper>, events: &Arc<Events>) -> io::Result<WatchToken> {
    let pidfd = keeper.pidfd().try_clone_to_owned()?;
    let (keeper, events) = (Arc::clone(keeper), Arc::clone(events));
    let on_death = move || {
        let reason = keeper.reap();
        events.report("", HostEventKind::KeeperEnded { reason });
    };
    supervisor::watch(pidfd, Box::new(on_death))
}

impl HostBuilder {
    /// What the channels of plugins are like whose [`PluginSpec`] does not say.
    #[must_use]
    pub fn channel_options(mut self, options: ChannelOptions) -> Self {
        self.options = options;
        self
    }

    /// Calls `hook` at each such moment of every plugin's life, before the plugin's own hooks
    /// ([`PluginSpec::hook`], which says more).
    ///
    /// ```
    /// use ringway::host::{Host, Moment};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let host = Host::builder()
    ///     .hook(Moment::AfterRestart, |occasion| {
    ///         println!("{} is process number {}", occasion.plugin.name(), occasion.incarnation);
    ///     })
    ///     .build()?;
    /// # drop(host);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn hook(
        mut self,
        moment: Moment,
        hook: impl Fn(&Occasion) + Send + Sync + 'static,
    ) -> Self {
        self.hooks.add(moment, Arc::new(hook));
        self
    }

    /// Gives the host a store without a name. A plugin that is [trusted](PluginSpec::trust_with_store)
    /// with it reads and writes it as the host does: [`Host::store`] and [`Plugin::store`] are the same
    /// calls on both sides. Any other plugin gets it read-only, and reads by copying; with the same calls it
    /// asks the host to write, within [its quota](PluginSpec::store_quota). One that is
    /// [denied](PluginSpec::no_store) it does not get it.
    ///
    /// The store's memory is the host's, and gone with its last user; it stays as it is through
    /// restarts of plugins. Of [`StoreOptions::max_readers`] the host needs two, and one more for each
    /// handle of its own and of plugins that it trusts.
    ///
    /// ```
    /// use ringway::host::Host;
    /// use ringway::store::StoreOptions;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let options = StoreOptions { capacity_bytes: 1 << 20, ..StoreOptions::default() };
    /// let host = Host::builder().store(options).build()?;
    /// host.store()?.set("motd", b"hello")?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn store(mut self, options: StoreOptions) -> Self {
        self.store = Some(options);
        self
    }

    /// Gives the host a store for large publications of [topics](crate::topic): a publication of
    /// [`PublishOptions::store_from_bytes`](crate::topic::PublishOptions::store_from_bytes) or more lies
    /// there once for all subscribers. It is apart from [`store`](Self::store): publications are no keys
    /// of that store, and subscribers use none of its reader records.
    ///
    /// Plugins may do with it what they may do with the host's store. The memory is reserved by
    /// [`build`](Self::build). Choose `capacity_bytes` for the
    /// [budgets](crate::topic::PublishOptions::store_budget_bytes) of all publishers together, and
    /// `max_readers` for two handles of the host and one for each publisher and subscriber in the host
    /// and in trusted plugins. An end that gets no handle sends and receives in the rings.
    #[must_use]
    pub fn payload_store(mut self, options: StoreOptions) -> Self {
        self.payloads = Some(options);
        self
    }

    /// Gives every plugin a service channel, also where there is nothing else to ask for, so that it can see
    /// the others ([`Plugin::plugins`], [`Plugin::watch_plugin`]), and act on those that it
    /// [may](PluginSpec::may_control) act on. Where the host has something else to serve, plugins can do so in any case.
    #[must_use]
    pub fn process_control(mut self) -> Self {
        self.serves = true;
        self
    }

    /// Gives every plugin a service channel, also where there is nothing else to ask for, so that
    /// [`Plugin::ping`] has an answer.
    #[must_use]
    pub fn answer_pings(mut self) -> Self {
        self.serves = true;
        self
    }

    /// Lets the host and its plugins make channels with each other, whoever started whom: the registry,
    /// topics and calls stand on it. Without it these calls end with [`LinkError::NotServed`]. The
    /// host makes and seals the channels; no message passes through it.
    #[must_use]
    pub fn links(mut self) -> Self {
        self.links = true;
        self
    }

    /// Starts a small process beside the host, the keeper. It starts the plugins, is their parent, and
    /// reaps them. It ends their process groups when the host has died or has executed another program:
    /// SIGTERM, two seconds later SIGKILL. Plugins that run this library end by themselves then; a keeper
    /// also ends what does not: wrappers, and programs that they have started. What has left its group it
    /// cannot end.
    ///
    /// With a keeper the host learns how plugins end also where it ignores SIGCHLD, or something in it
    /// waits for all children. A start needs no thread in the host.
    ///
    /// [`build`](Self::build) forks the keeper, which copies the host's page tables: build the host early,
    /// while its process is small. A plugin inherits its limits, umask, processors, nice value, control
    /// group, keyrings and namespaces from the keeper: they are the host's at that time. Its working
    /// directory is the host's when it is started.
    ///
    /// The host starts a plugin itself, and the keeper only knows its group, where the plugin has a
    /// [hook before exec](PluginSpec::pre_exec), where the host has changed its user, groups, capabilities,
    /// root directory, no-new-privileges or seccomp filter since it was built, before Linux 6.9, and when
    /// the keeper has ended. [`HostEventKind::KeeperEnded`](super::HostEventKind::KeeperEnded) says that it
    /// has; the plugins that it has started go on and are watched.
    ///
    /// The keeper knows at most 4096 plugins, and needs two descriptors for each.
    #[must_use]
    pub fn keeper(mut self) -> Self {
        self.keeper = true;
        self
    }

    /// Makes the host.
    ///
    /// # Errors
    /// [`HostError::Kernel`] where the kernel lacks what a host needs; [`HostError::Os`] where descriptors
    /// have run out;
    /// [`HostError::Store`] where there can be no such store, or no room for it.
    pub fn build(self) -> Result<Host, HostError> {
        let os = |call| move |source| HostError::Os { call, source };
        let generation = fork::generation().map_err(os("mmap"))?;
        let pidfd = PidFd::open(process::id()).map_err(|source| match source.raw_os_error() {
            Some(libc::ENOSYS | libc::EPERM) => {
                HostError::Kernel { lacks: "pidfd_open", since: "5.3" }
            }
            _ => HostError::Os { call: "pidfd_open", source },
        })?;
        if !pidfd::can_be_waited_for(pidfd.as_fd()) {
            return Err(HostError::Kernel { lacks: "waitid(P_PIDFD)", since: "5.4" });
        }
        if !memfd::has_write_seal().map_err(os("memfd_create"))? {
            return Err(HostError::Kernel { lacks: "F_SEAL_FUTURE_WRITE", since: "5.1" });
        }
        let keeper = self.keeper.then(Keeper::start).transpose().map_err(os("fork"))?;
        let events = Arc::<Events>::default();
        let keeper_watch = keeper.as_ref().map(|keeper| watch_keeper(keeper, &events)).transpose();
        let keeper_watch = keeper_watch.map_err(os("watching the keeper"))?;
        let own_pidfd = pidfd.as_fd().try_clone_to_owned().map_err(os("dup"))?;
        let store = self.store.as_ref().map(HostStore::new).transpose()?.map(Arc::new);
        let payloads = self.payloads.as_ref().map(HostStore::new).transpose()?.map(Arc::new);
        let mut services: HashMap<u16, Box<dyn Service>> = HashMap::new();
        if let Some(store) = &store {
            services.insert(SERVICE_STORE, Box::new(StoreService::new(store.handle_of_host()?)));
        }
        if let Some(store) = &payloads {
            let service = PayloadService::new(store.handle_of_host()?);
            services.insert(SERVICE_PAYLOADS, Box::new(service));
        }
        let links = self.links.then(|| HostLinks::new(Limits::default()));
        if let Some(links) = &links {
            services.insert(SERVICE_LINKS, Box::new(links.service()));
        }
        let serves = self.serves || !services.is_empty();
        let roster = Arc::<Roster>::default();
        services.insert(SERVICE_PLUGINS, Box::new(Others::new(Arc::clone(&roster))));
        let server = serves.then(|| Server::start(services).map(Arc::new)).transpose()?;
        if let Some(server) = &server {
            roster.connect(server.bell());
        }
        Ok(Host {
            server,
            links,
            store,
            payloads,
            roster,
            keeper,
            keeper_watch: Mutex::new(keeper_watch),
            options: self.options,
            hooks: self.hooks,
            events,
            own_pidfd: Arc::new(own_pidfd),
            generation,
            plugins: Mutex::default(),
            rpc: OnceLock::new(),
        })
    }
}
