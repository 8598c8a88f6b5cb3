//! Judging SYNs and RSTs: the truth table, and the facts that it asks for.

pub mod challenge;
pub mod events;
pub mod lease;
pub mod limiter;
pub mod lists;
pub mod policy;
pub mod probing;
pub mod sources;
pub mod tickets;
