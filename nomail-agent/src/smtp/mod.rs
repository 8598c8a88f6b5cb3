//! The 521 responder: a host that says "no mail here" (RFC 7504, RFC 1846).
//!
//! [`dialog`] is what is said: a state machine that takes octets and gives
//! replies, and knows neither sockets nor clocks; [`command`] is what it hears,
//! [`replies`] the words, [`relay`] what is said of the domains of others.
//! [`senders`] is the memory of `refuse_at = "auto"`, [`foreign`] that of domains whose
//! mail should not come here. [`listener`] serves all
//! that: it accepts, writes, watches the deadlines, and closes so that the peer
//! can read what it was told. [`ledger`] is what can be told about it,
//! `prefixes` says which connection makes room for another.
//!
//! Nothing here ever accepts a message, and nothing grows without a named
//! bound.

pub mod command;
pub mod dialog;
pub mod foreign;
pub mod ledger;
pub mod listener;
mod notices;
mod prefixes;
pub mod relay;
pub mod replies;
pub mod senders;

pub use dialog::{AfterGreeting, Dialog, Outcome, RefuseAt};
pub use foreign::{ForeignDomain, ForeignDomains};
pub use ledger::{Activity, Commands, Connections, Counter, Durations, SourceHistory, Tally};
pub use listener::{
    LISTEN_BACKLOG, ListenerId, Refuse, Responder, Settings, adopt, bind, unix_now,
};
pub use relay::Relay;
pub use replies::{InvalidHostname, Replies};
pub use senders::Senders;
