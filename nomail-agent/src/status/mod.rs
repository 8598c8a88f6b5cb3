//! What the agent shows of itself: its shape as JSON, how people read it, and the sockets
//! that serve it.

mod addresses;
pub mod client;
mod clients;
pub mod control;
mod crowdsec;
mod domains;
pub mod http;
mod lists;
pub mod reload;
mod shape;
mod state;
mod text;

pub use self::{
    addresses::{AddressStatus, NAMES_MAX, Named},
    crowdsec::{CrowdsecStatus, DECISIONS_MAX, DENY_FILE, Pull, STATUS_FILE},
    domains::{ForeignDomainStatus, foreign_domains, suspects},
    lists::{ListFileStatus, ListsStatus},
    shape::{
        DurationStatus, GuardCounts, InterfaceStatus, MetricsStatus, ReloadStatus, ResponderStatus,
        SourceStatus, Speaker, StatelessCounter, Status, TableCounter, Trouble,
    },
    state::State,
    text::labelled,
};
