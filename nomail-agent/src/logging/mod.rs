//! The log: its format, the report on connections, and the lines for SYNs over a limit.

pub mod format;
pub mod limited;
pub mod report;

pub use format::start;
