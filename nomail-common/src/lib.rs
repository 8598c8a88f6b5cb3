//! What the XDP program and the agent share.
//!
//! Everything here is pure and `no_std`: the kernel half runs it behind
//! [`wire::frame::Frame`], [`guard::sources::SourceSet`] and [`guard::tickets::TicketSet`],
//! the tests run it on the host.

#![cfg_attr(not(test), no_std)]

pub mod abi;
pub mod counted;
pub mod guard;
pub mod mechanisms;
pub mod siphash;
pub mod stateless;
pub mod verdict;
pub mod wire;

pub use mechanisms::Mechanism;
