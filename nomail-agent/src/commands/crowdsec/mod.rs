//! `nomail-agent crowdsec`: a process of its own pulls the decisions of CrowdSec's local
//! API, and writes what is banned as a list file, which the agent takes up.
//!
//! The process has one thread and no capability, and cannot reach the agent. A decision ends
//! at its time, also while the API is not there. The file ends with the process.

mod client;
mod decisions;
mod handover;
mod key;
mod process;
mod puller;
mod stream;
mod subscription;

pub use self::{
    key::{ApiKey, KeyError},
    process::run,
};
