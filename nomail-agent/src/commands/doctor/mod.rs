//! `nomail-agent doctor`: what an experienced administrator would check, before and while an
//! agent runs.
//!
//! Each file has a group of checks: first it asks the host, then pure functions make findings
//! of the answers. No setting of the host is changed. Text from name servers and other
//! processes is escaped.

mod agent;
mod device;
mod dns;
mod domain;
mod examine;
mod finding;
mod firewall;
mod host;
mod interface;
mod kernel;
mod listen_pair;
mod lists;
mod name;
mod netdev;
mod own_mail;
mod port;
mod reach;
mod syn;

pub use self::{
    examine::examine,
    finding::{Check, CheckResult, Finding, json, summary, text},
};
