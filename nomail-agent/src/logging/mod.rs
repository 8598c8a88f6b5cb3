//! The log: its format, the report on connections, and the sources over their limit.

pub mod format;
pub mod limited;
pub mod report;

pub use format::start;
