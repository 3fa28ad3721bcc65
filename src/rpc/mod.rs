//! Functions by name, called from any other process of a host's family.
//!
//! A [`Server`] has functions, in the host or in a plugin; a [`Client`], in any other process or in the
//! same, calls them, with bytes or with values. What always holds: every call ends by its deadline, with a
//! result or with an error that says what is known of it; a caller harms no other caller, and a callee no
//! caller, whatever it writes.
//!
//! | file | what it holds |
//! |---|---|
//! | `frame` | what travels |
//! | `error` | what can go wrong |
//! | `family` | what a host and its plugins offer |
//! | `client`, `handle`, `pending` | calling: by name, by handle, later |
//! | `lookup` | what a client has looked up: functions, and links |
//! | `line`, `mail` | one link as its callers share it, and who reads it; calls that are under way |
//! | `outgoing`, `fault` | what is sent over it, and why there is no answer |
//! | `server`, `inbox` | serving: what others ask of the thread |
//! | `serving`, `visitor` | the thread; one caller as it knows it |
//! | `function`, `request` | what is called, and with what |
//! | `chain` | who waits for whom |

mod chain;
mod client;
mod error;
mod family;
mod fault;
mod frame;
mod function;
mod handle;
mod inbox;
mod line;
mod lookup;
mod mail;
mod outgoing;
mod pending;
mod request;
mod server;
mod serving;
#[cfg(test)]
mod tests;
mod visitor;

pub use client::Client;
pub use error::{Breach, CallError, Failure, ServeError};
pub use handle::{Function, TypedFunction};
pub use inbox::ServerStats;
pub use pending::{PendingCall, TypedPendingCall};
pub use request::Request;
pub use server::{Server, ServerBuilder};
