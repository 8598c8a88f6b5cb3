//! The XDP programs and their maps: load, attach, configure, read. Only this module knows aya.

mod attach;
mod clock;
mod error;
mod events;
mod features;
mod lease;
mod list_words;
mod lists;
mod mode;
mod object;
mod pinned;
mod pins;
mod policy;
mod program;
mod retransmit;
mod secrets;
mod sources;
mod table;
mod test_run;
#[cfg(feature = "trace")]
mod trace;

pub use self::{
    clock::Clock,
    error::{BpfError, OLDEST_KERNEL},
    events::Limited,
    features::missing_features,
    list_words::ListWords,
    mode::Mode,
    object::program_name,
    pinned::PinnedGuard,
    pins::Pins,
    policy::{GuardedInterface, Lists, Policy, Rate},
    program::Guard,
    retransmit::RetransmitFrame,
    sources::SourceCount,
};
