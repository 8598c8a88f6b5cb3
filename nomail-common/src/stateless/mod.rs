//! The refusal without a socket.

pub mod dialog;
pub mod retransmit;
