//! What a host serves to its plugins, besides messages: requests and answers on a channel of their
//! own, many under way at a time.
//!
//! A plugin has a service channel where its host has something to serve; [`Client`] is the plugin's
//! end of it, [`Server`] the host's end of all of them. What always holds: a request has one answer,
//! or its caller a typed error by its deadline; the host waits for no plugin, and believes nothing of
//! a request that it has not checked; who breaks the rules is not served any more, which the host
//! program is told, and harms nobody else.
//!
//! | file | what it holds |
//! |---|---|
//! | `frame` | requests and replies as bytes |
//! | `client` | the plugin's side: from any thread to the ring, from the ring to who asked |
//! | `server` | the host's side: one thread for all plugins |
//! | `echo` | the service that is always there |
//! | `session` | one plugin's process, as the server knows it; what a service is |
//! | `error` | what can go wrong |

mod client;
mod echo;
pub mod error;
pub mod frame;
mod server;
mod session;
#[cfg(test)]
mod tests;

pub(super) use client::{Client, Reply};
pub(super) use error::ServiceProblem;
pub(super) use server::{Bell, Server, Sessions};
pub(super) use session::{Request, Service, Session, Visit};
