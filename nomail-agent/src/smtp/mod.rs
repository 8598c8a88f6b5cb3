//! The 521 responder: a host that says "no mail here" (RFC 7504, RFC 1846).
//!
//! [`dialog`] is what is said: a state machine that takes octets and gives
//! replies, and knows neither sockets nor clocks. [`listener`] is how: it
//! accepts, writes, watches the deadlines, and closes so that the peer can
//! read what it was told.
//!
//! Nothing here ever accepts a message, and nothing grows without a named
//! bound.

pub mod dialog;
pub mod listener;

pub use dialog::{Action, AfterGreeting, Dialog, InvalidHostname, Outcome, Replies, Reply};
pub use listener::{Connections, LISTEN_BACKLOG, Responder, Settings, SourceHistory, bind};
