//! The agent of nomail: loads the XDP guard and serves the 521 dialog.
//!
//! [`supervisor`] is the only module that knows all the others.

#![cfg_attr(not(test), deny(clippy::print_stdout))]

pub mod bpf;
pub mod cli;
pub mod clients;
pub mod config;
pub mod control;
pub mod counts;
pub mod crowdsec;
pub mod doctor;
pub mod exit;
pub mod iface;
pub mod limited;
pub mod logging;
pub mod memory;
pub mod metrics;
pub mod output;
pub mod privilege;
pub mod reload;
pub mod report;
pub mod sample;
pub mod service;
pub mod smtp;
pub mod state;
pub mod status;
pub mod supervisor;
pub mod top;
pub mod walk;
