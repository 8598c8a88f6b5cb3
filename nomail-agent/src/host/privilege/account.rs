//! The account that the agent runs as.

use std::path::Path;

use anyhow::{Context as _, Result, bail};
use log::info;
use nix::unistd::{Gid, Group, Uid, User};

use super::{dynamic, lookup::found};

/// The user and group that the agent runs as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Account {
    /// The user.
    pub uid: Uid,
    /// The user's group.
    pub gid: Gid,
}

impl Account {
    /// Looks up a user name or a numeric uid. If `default` says that the configuration does not
    /// name it, and it does not exist, the account is one that nothing else uses, see
    /// [`dynamic`]. Without root it is that of the process.
    pub fn resolve(user: &str, default: bool, state_dir: &Path) -> Result<Self> {
        if !Uid::effective().is_root() {
            return Ok(Self {
                uid: Uid::effective(),
                gid: Gid::effective(),
            });
        }
        if let Ok(uid) = user.parse::<u32>() {
            if uid == 0 {
                bail!("user = 0 is root: name an account without privileges");
            }
            let known = found(User::from_uid(Uid::from_raw(uid)))
                .context("the user cannot be looked up")?;
            return Ok(Self {
                uid: Uid::from_raw(uid),
                gid: known.map_or(Gid::from_raw(uid), |user| user.gid),
            });
        }
        match found(User::from_name(user)).context("the user cannot be looked up")? {
            Some(found) if found.uid.is_root() => {
                bail!("user = {user:?} is root: name an account without privileges")
            }
            Some(found) => Ok(Self {
                uid: found.uid,
                gid: found.gid,
            }),
            None if default => {
                let uid = dynamic::free_uid(state_dir)?;
                info!(
                    "there is no user {user:?} on this host: running as uid {uid}, which nothing \
                     else uses"
                );
                dynamic::adopt(state_dir, uid);
                Ok(Self {
                    uid: Uid::from_raw(uid),
                    gid: Gid::from_raw(uid),
                })
            }
            None => bail!(
                "there is no user {user:?}: create it with `useradd --system {user}`, \
                 or set user to one that exists"
            ),
        }
    }

    /// The group whose members may read the status: `nomail`, if it exists.
    pub fn control_group() -> Option<Gid> {
        let group = Group::from_name("nomail").ok().flatten();
        group.map(|group| group.gid)
    }
}
