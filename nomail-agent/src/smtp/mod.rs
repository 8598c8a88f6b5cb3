//! The 521 responder: a host that says "no mail here" (RFC 7504, RFC 1846).
//!
//! Without sockets and clocks: [`dialog`] is a state machine that takes bytes and returns
//! replies, [`line`](mod@line) and [`command`] read what a client sends, [`protocol`] recognises what
//! is not SMTP, [`replies`] has the texts, [`relay`] those for other domains. [`senders`] is
//! the memory of `refuse_at = "auto"`, [`foreign`] that of other domains that mail
//! arrives for, `eviction` says which connection makes room for another.
//!
//! With them: [`socket`] listens, `server` is the thread that serves all connections,
//! `session` one of them, [`responder`] the handle of the thread, [`settings`] its
//! limits, [`stats`] its statistics, [`arrivals`] the interfaces that connections come over,
//! `notices` its log lines.
//!
//! Nothing here ever accepts a message, and nothing grows without a named
//! bound.

pub mod arrivals;
pub mod command;
pub mod dialog;
pub mod epoch;
mod eviction;
pub mod foreign;
pub mod line;
mod network;
mod notices;
pub mod protocol;
pub mod relay;
pub mod replies;
pub mod responder;
pub mod senders;
mod server;
mod session;
pub mod settings;
pub mod socket;
pub mod stats;

pub use arrivals::Arrival;
pub use dialog::{Dialog, Outcome};
pub use epoch::unix_now;
pub use foreign::{ForeignDomain, ForeignDomains};
pub use relay::RefusedDomains;
pub use replies::{InvalidHostname, Replies};
pub use responder::SmtpThread;
pub use senders::Senders;
pub use server::ListenerId;
pub use settings::Settings;
pub use socket::{LISTEN_BACKLOG, adopt, bind};
pub use stats::{Activity, Connections, Counter, Durations, SourceHistory, Tally};
