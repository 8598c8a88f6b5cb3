//! Fuzz targets: functions that take any bytes, and panic when one of
//! nomail's promises is broken.
//!
//! Each is the body of the libFuzzer program of its name in `fuzz_targets`
//! (`cargo xtask fuzz`), and is run on every file of `corpus` and `artifacts` by
//! `cargo test`.

mod command;
mod config;
mod control;
mod dialog;
mod packet;
mod senders;

pub use self::{
    command::command,
    config::{config, domains, lists},
    control::control,
    dialog::dialog,
    packet::packet,
    senders::senders,
};

/// A fuzz target.
pub type Target = fn(&[u8]);

/// Every target, by the name of its program and of its directory in `corpus`.
pub const TARGETS: [(&str, Target); 8] = [
    ("dialog", dialog),
    ("command", command),
    ("packet", packet),
    ("config", config),
    ("domains", domains),
    ("lists", lists),
    ("senders", senders),
    ("control", control),
];
