//! Who may serve and call: a host and its plugins.
//!
//! [`Host`] and [`Plugin`] offer both here, over the links that the host brokers. What always holds: a
//! process has one client of its host, so that all its threads share a link with each server.

use std::sync::Arc;
use std::time::Duration;

use super::client::Client;
use super::lookup::Connect;
use super::server::ServerBuilder;
use crate::host::links::{Desk, Kind, Link, LinkError, LinkOptions};
use crate::host::{Host, Plugin};

/// Links that the host brokers.
#[derive(Debug)]
struct Brokered(Arc<Desk>);

impl Connect for Brokered {
    fn connect(&self, function: &str, timeout: Duration) -> Result<Link, LinkError> {
        self.0.connect(Kind::Rpc, function, &[], &LinkOptions::default(), timeout)
    }
}

fn client(desk: Arc<Desk>) -> Client {
    Client::with(Box::new(Brokered(desk)))
}

impl Host {
    /// A server of functions that plugins call, and the host itself. Each has a thread of its own; no
    /// two in the family of the host have a function of the same name.
    ///
    /// # Errors
    /// [`LinkError::NotServed`] where the host does not broker [links](crate::host::HostBuilder::links);
    /// [`LinkError::Forked`].
    pub fn rpc_server(&self) -> Result<ServerBuilder, LinkError> {
        Ok(ServerBuilder::new(Some(self.desk()?)))
    }

    /// Calls functions that plugins serve, or the host itself.
    ///
    /// # Errors
    /// As [`rpc_server`](Self::rpc_server).
    pub fn rpc_client(&self) -> Result<Client, LinkError> {
        let desk = self.desk()?;
        Ok(self.rpc.get_or_init(|| client(desk)).clone())
    }
}

impl Plugin {
    /// A server of functions that the host calls, and its plugins, this one included. Each has a thread of
    /// its own; no two in the family of the host have a function of the same name.
    ///
    /// # Errors
    /// [`LinkError::NotServed`] where the host does not broker [links](crate::host::HostBuilder::links);
    /// [`LinkError::Forked`].
    pub fn rpc_server(&self) -> Result<ServerBuilder, LinkError> {
        Ok(ServerBuilder::new(Some(self.desk()?)))
    }

    /// Calls functions that the host serves, or its plugins.
    ///
    /// # Errors
    /// As [`rpc_server`](Self::rpc_server).
    pub fn rpc_client(&self) -> Result<Client, LinkError> {
        let desk = self.desk()?;
        Ok(self.rpc.get_or_init(|| client(desk)).clone())
    }
}
