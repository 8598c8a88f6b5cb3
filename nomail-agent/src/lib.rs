//! The agent of nomail: loads the XDP guard and serves the 521 dialog.
//!
//! The nine subjects: [`config`] (what the operator wants), [`smtp`] (the dialog and the
//! thread that serves it), [`guard`] (the XDP programs), [`net`] (interfaces and
//! addresses), [`agent`] (the loop that owns them all), [`status`] (what it reports),
//! [`logging`] (what it logs), [`host`] (what it needs of the host), [`commands`] (what
//! else the binary does). [`agent`] and [`commands`] are the only ones that know all the
//! others.

#![cfg_attr(not(test), deny(clippy::print_stdout))]

pub mod agent;
pub mod cli;
pub mod commands;
pub mod config;
pub mod counts;
pub mod exit;
pub mod guard;
pub mod host;
pub mod line_limit;
pub mod logging;
pub mod mechanisms;
pub mod net;
pub mod refusal;
pub mod smtp;
pub mod status;
pub mod text;
pub mod walk;
