//! The agent: binds, attaches the guard, gives up root, serves, follows changes, stops.
//!
//! [`boot`] starts it in stages, [`run`](mod@run) is its loop. The loop owns parts, each of which owns
//! a resource, waits for its events and handles them: [`keeper`] the guard, [`network`] what
//! the kernel says of interfaces and addresses, [`listeners`] the sockets and the thread that
//! serves them, [`observers`] control socket, HTTP and service manager, [`journal`] the report
//! and the state file, [`reload`] the configuration in effect.

mod addresses;
mod arrival;
mod assemble;
mod attach;
mod boot;
mod counters;
mod decisions;
mod descriptors;
mod failover;
mod files;
mod floods;
mod foreign;
mod guard_settings;
mod journal;
mod keeper;
mod links;
mod list_files;
mod listeners;
mod metrics_socket;
mod mode;
mod names;
mod network;
mod observers;
mod own_addresses;
mod pinned;
mod plan;
mod reload;
mod retransmit;
mod root;
mod run;
mod sight;
mod signals;
mod smtp_settings;
mod status_client;
mod survey;
mod watch;

pub(crate) use self::descriptors::DESCRIPTORS_SPARE;
pub use self::{run::run, status_client::StatusClient};
