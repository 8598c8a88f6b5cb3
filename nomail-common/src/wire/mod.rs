//! Bytes of packets: reading them, parsing them, and building a reply.

pub mod frame;
pub mod glance;
pub mod packet;
pub mod reply;
