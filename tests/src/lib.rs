//! What the tests that need root share.
//!
//! Test binaries named `bpf_*` run the XDP program by BPF_PROG_TEST_RUN; all
//! others lay out network namespaces and run the real agent in them, `senders`
//! with every program that sends mail.

#![allow(clippy::expect_used, reason = "a test that cannot go on is to fail")]

pub mod agent;
pub mod bpf_objects;
pub mod bpffs;
pub mod bridged;
pub mod capture;
pub mod cgroup;
pub mod client;
pub mod files;
pub mod firewall;
pub mod flood;
pub mod foreign;
pub mod frames;
pub mod generator;
pub mod honest;
pub mod http;
pub mod inject;
pub mod internet;
pub mod lab;
pub mod links;
pub mod matrix;
pub mod poll;
pub mod processes;
pub mod program;
pub mod random;
pub mod record;
pub mod repository;
pub mod rig;
pub mod root;
pub mod senders;
pub mod stacks;
pub mod tap;
pub mod vm;
