//! What the XDP program and the agent share.
//!
//! Everything here is pure and `no_std`: the kernel half runs it behind
//! [`frame::Frame`], [`sources::SourceSet`] and [`tickets::TicketSet`], the tests run it on the host.

#![cfg_attr(not(test), no_std)]

pub mod abi;
pub mod challenge;
pub mod counted;
pub mod events;
pub mod frame;
pub mod limiter;
pub mod owed;
pub mod packet;
pub mod policy;
pub mod probing;
pub mod reply;
pub mod responder;
pub mod siphash;
pub mod source;
pub mod sources;
pub mod tickets;
pub mod verdict;
