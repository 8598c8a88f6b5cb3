//! What the binary does besides running the agent.

pub mod crowdsec;
pub mod detach;
pub mod doctor;
pub mod top;
