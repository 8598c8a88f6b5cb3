//! What the XDP program and the agent share.
//!
//! Everything here is pure and `no_std`: the XDP program implements the traits over packets
//! and maps ([`wire::frame::Frame`], [`guard::sources::SourceSet`],
//! [`guard::tickets::TicketSet`], [`stateless::dialog::Environment`]), the tests over memory.

#![cfg_attr(not(test), no_std)]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]

pub mod abi;
mod bounds;
pub mod counted;
pub mod guard;
pub mod mechanisms;
pub mod reach;
pub mod siphash;
pub mod source;
pub mod stateless;
pub mod verdict;
pub mod verifier;
pub mod wire;

pub use mechanisms::Mechanism;
