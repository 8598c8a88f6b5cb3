//! From root to an account with few rights: once, when everything that needs root is done, and
//! while the process has a single thread.

mod account;
mod capabilities;
mod directories;
pub mod dynamic;
mod files;
mod lookup;
mod syscalls;

pub use self::{
    account::Account,
    capabilities::{Confinement, drop_privileges},
    directories::{create_above_run_dir, create_directory, give_in_shared, in_directory},
    files::{Paths, is_in_shared_directory},
    syscalls::{Thread, die_of_faults, restrict_syscalls},
};
