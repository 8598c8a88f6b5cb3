//! x
pub mod bpf;
pub mod iface;
