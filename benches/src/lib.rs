//! What the benchmarks share beside the fixture of the tests: peers to compare nomail
//! with, and the load on both.

#![allow(
    clippy::expect_used,
    reason = "a benchmark that cannot go on is to fail"
)]

pub mod crowd;
pub mod epoll_loop;
pub mod guards;
pub mod load;
pub mod peers;
pub mod program;
pub mod rivals;
