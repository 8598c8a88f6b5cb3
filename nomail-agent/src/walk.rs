//! Opens paths component by component, where other accounts could replace a part of them:
//! follows no link that another account has made, and checks whether a directory is safe from
//! others.
//!
//! Each step goes by descriptor, so that nothing can be swapped between a check and its use.

#[cfg(test)]
mod tests;

use std::{
    collections::VecDeque,
    ffi::{OsStr, OsString},
    fs::File,
    io,
    os::fd::{AsFd, OwnedFd},
    path::{Component, Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{AT_FDCWD, OFlag, openat, readlinkat},
    sys::{
        stat::{FileStat, Mode, SFlag, fstat},
        statfs::{PROC_SUPER_MAGIC, fstatfs},
    },
    unistd::{Uid, User},
};
use thiserror::Error;

/// Most links of a path, as in the kernel.
const LINKS_MAX: usize = 40;

/// Why a path is not opened. Displayed as one line with the remedy.
#[derive(Debug, Error)]
pub enum WalkError {
    /// An error of the kernel.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// A link that another account than root or the process's has made.
    #[error(
        "{} is a link that {owner} has made and could lead anywhere: name the file that it \
         leads to, or make the link as root",
        .link.display()
    )]
    Link {
        /// The link.
        link: PathBuf,
        /// Whose it is.
        owner: Owner,
    },
    /// A second name of a file, in a directory that others can change.
    #[error(
        "{} has other names (hard links), and others can change {}: copy the file there, or \
         `chmod go-w` the directory and give it to root",
        .file.display(), .directory.display()
    )]
    Names {
        /// The file.
        file: PathBuf,
        /// Its directory.
        directory: PathBuf,
    },
    /// A directory of another account.
    #[error(
        "{} belongs to {owner}, who could replace what is in it: `chown root {}`, or name a \
         directory of root's",
        .directory.display(), .directory.display()
    )]
    Foreign {
        /// The directory.
        directory: PathBuf,
        /// Whose it is.
        owner: Owner,
    },
    /// A directory that others can write to.
    #[error(
        "others can replace what is in {} (mode {mode:04o}): `chmod go-w {}`, or name another \
         directory",
        .directory.display(), .directory.display()
    )]
    Writable {
        /// The directory.
        directory: PathBuf,
        /// Its mode.
        mode: u32,
    },
}

impl From<Errno> for WalkError {
    fn from(errno: Errno) -> Self {
        Self::Io(errno.into())
    }
}

impl WalkError {
    /// The same as an error of I/O, with the kernel's kind if it has one.
    pub fn into_io(self) -> io::Error {
        match self {
            Self::Io(error) => error,
            other => io::Error::other(other),
        }
    }
}

/// An account, displayed by number and name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner(u32);

impl std::fmt::Display for Owner {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "uid {}", self.0)?;
        match User::from_uid(self.0.into()) {
            Ok(Some(user)) => write!(out, " ({})", user.name.escape_default()),
            _ => Ok(()),
        }
    }
}

/// Opens a file for reading, which may be in a directory of another account: follows only
/// links of root and of the process's account, and refuses hard links there. It may open
/// something else than a file, and does not block then.
///
/// # Errors
/// There is no such file, or it must not be followed.
pub fn open_file(path: &Path) -> Result<File, WalkError> {
    let mut walk = Walk::begin(path)?;
    let trusted = [0, Uid::effective().as_raw()];
    let name = loop {
        match walk.step(&trusted)? {
            PathStep::Directory => {}
            PathStep::Last(name) => break name,
            PathStep::End => return Err(Errno::EISDIR.into()),
        }
    };
    let follow = if walk.is_descriptor {
        OFlag::empty()
    } else {
        OFlag::O_NOFOLLOW
    };
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC | follow;
    let file = openat(&walk.at, name.as_os_str(), flags, Mode::empty())?;
    let found = fstat(&file)?;
    if is(&found, SFlag::S_IFREG) && found.st_nlink > 1 {
        let directory = fstat(&walk.at)?;
        if is_changed_by_others(&directory, &trusted) {
            return Err(WalkError::Names {
                file: walk.so_far.join(name),
                directory: walk.so_far,
            });
        }
    }
    Ok(file.into())
}

/// Checks that only root, the process and `account` can replace the contents of a directory,
/// and the directory itself. Where the sticky bit is set, others cannot.
///
/// # Errors
/// Others can, or there is no such directory.
pub fn check_directory(path: &Path, account: u32) -> Result<(), WalkError> {
    let trusted = [0, Uid::effective().as_raw(), account];
    let mut walk = Walk::begin(path)?;
    loop {
        let found = fstat(&walk.at)?;
        let directory = || walk.so_far.clone();
        if !trusted.contains(&found.st_uid) {
            return Err(WalkError::Foreign {
                directory: directory(),
                owner: Owner(found.st_uid),
            });
        }
        let sticky = found.st_mode & libc::S_ISVTX != 0;
        if !sticky && is_changed_by_others(&found, &trusted) {
            return Err(WalkError::Writable {
                directory: directory(),
                mode: found.st_mode & 0o7777,
            });
        }
        match walk.step(&trusted)? {
            PathStep::Directory => {}
            PathStep::End => return Ok(()),
            PathStep::Last(name) => {
                let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW;
                let last = openat(
                    &walk.at,
                    name.as_os_str(),
                    flags | OFlag::O_CLOEXEC,
                    Mode::empty(),
                )?;
                walk.enter(last, &name);
            }
        }
    }
}

/// Whether accounts that are not trusted can change the names in a directory. The group
/// root is trusted.
fn is_changed_by_others(directory: &FileStat, trusted: &[u32]) -> bool {
    let by_group = directory.st_mode & 0o020 != 0 && directory.st_gid != 0;
    let by_all = directory.st_mode & 0o002 != 0;
    !trusted.contains(&directory.st_uid) || by_group || by_all
}

fn is(found: &FileStat, kind: SFlag) -> bool {
    SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT == kind
}

enum PathStep {
    /// Another directory was entered.
    Directory,
    /// The last name, which is no link.
    Last(OsString),
    /// The path ends in the directory that was entered last.
    End,
}

struct Walk {
    /// The current directory, and its path for messages.
    at: OwnedFd,
    so_far: PathBuf,
    left: VecDeque<OsString>,
    links: usize,
    /// The last name is a descriptor's in /proc, as of `/dev/stdin`, which has no path.
    is_descriptor: bool,
}

impl Walk {
    fn begin(path: &Path) -> Result<Self, WalkError> {
        let (start, so_far) = match path.is_absolute() {
            true => (Path::new("/"), "/"),
            false => (Path::new("."), ""),
        };
        Ok(Self {
            at: directory(AT_FDCWD, start.as_os_str())?,
            so_far: so_far.into(),
            left: names(path),
            links: 0,
            is_descriptor: false,
        })
    }

    /// Takes one component. Replaces a link of a `trusted` account by its target.
    fn step(&mut self, trusted: &[u32]) -> Result<PathStep, WalkError> {
        let Some(name) = self.left.pop_front() else {
            return Ok(PathStep::End);
        };
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let next = openat(&self.at, name.as_os_str(), flags, Mode::empty())?;
        let found = fstat(&next)?;
        if is(&found, SFlag::S_IFLNK) {
            if !trusted.contains(&found.st_uid) && nomail_common::Mechanism::ForeignLinks.is_on() {
                return Err(WalkError::Link {
                    link: self.so_far.join(name),
                    owner: Owner(found.st_uid),
                });
            }
            self.links += 1;
            if self.links > LINKS_MAX {
                return Err(Errno::ELOOP.into());
            }
            if self.left.is_empty() && fstatfs(&next)?.filesystem_type() == PROC_SUPER_MAGIC {
                self.is_descriptor = true;
                return Ok(PathStep::Last(name));
            }
            // By the descriptor of the link that was checked.
            let target = PathBuf::from(readlinkat(&next, "")?);
            if target.is_absolute() {
                self.at = directory(AT_FDCWD, OsStr::new("/"))?;
                self.so_far = "/".into();
            }
            for name in names(&target).into_iter().rev() {
                self.left.push_front(name);
            }
            return Ok(PathStep::Directory);
        }
        if self.left.is_empty() && name != ".." {
            return Ok(PathStep::Last(name));
        }
        if !is(&found, SFlag::S_IFDIR) {
            return Err(Errno::ENOTDIR.into());
        }
        self.enter(next, &name);
        Ok(PathStep::Directory)
    }

    fn enter(&mut self, directory: OwnedFd, name: &OsStr) {
        self.at = directory;
        if name != ".." || !self.so_far.pop() {
            self.so_far.push(name);
        }
    }
}

fn directory(at: impl AsFd, name: &OsStr) -> Result<OwnedFd, WalkError> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    Ok(openat(at, name, flags, Mode::empty())?)
}

/// The components except `/` and `.`.
fn names(path: &Path) -> VecDeque<OsString> {
    let names = path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::CurDir | Component::RootDir | Component::Prefix(_) => None,
    });
    names.collect()
}
