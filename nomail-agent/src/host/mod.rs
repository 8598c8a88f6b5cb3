//! What the agent needs from its host: an account without rights, the service manager, files
//! that outlive it, memory.

pub mod memory;
pub mod privilege;
pub mod service;
pub mod state;
