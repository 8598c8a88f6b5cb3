//! The rights of root: what needs them takes a [`Root`], and there is none any more once
//! they are given up.

use caps::Capability;

use crate::{
    exit::{Exit, Failure},
    host::privilege::{self, Account, Paths},
};

/// The rights that the process was started with. Neither made again nor copied.
pub(super) struct Root(());

impl Root {
    /// Those of a process that has just started.
    pub(super) fn at_start() -> Self {
        Self(())
    }

    /// Becomes `account`, with `keep` and `paths` alone.
    pub(super) fn give_up(
        self,
        account: Account,
        keep: &[Capability],
        paths: &Paths,
    ) -> Result<(), Failure> {
        privilege::drop_privileges(account, keep, paths).map_err(not_confined)
    }
}

/// The failure of a process that cannot be confined.
pub(super) fn not_confined(error: anyhow::Error) -> Failure {
    let error = error.context("root privileges cannot be given up");
    Failure::new(Exit::Permission, error)
}
