//! What the tests that need root share.
//!
//! Test binaries named `bpf_*` run the XDP program by BPF_PROG_TEST_RUN; all
//! others lay out network namespaces and run the real agent in them.

pub mod frames;
