//! Paths walked component by component, as root does it where other accounts could
//! put something in the way: no link is followed that another account has made, and a
//! directory can be required to be safe from others.
//!
//! Each step is taken by descriptor, so that nothing can be swapped between a check
//! and what follows it.

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

/// Most links that a path may lead over, as in the kernel.
const LINKS_MAX: usize = 40;

/// Why a path is not walked to its end. Displayed as one line with the remedy.
#[derive(Debug, Error)]
pub enum WalkError {
    /// The kernel refuses.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// A link that somebody else than root or the process has made.
    #[error(
        "{} is a link that {owner} has made and could have lead anywhere: name the file that it \
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
    /// As an error of reading the file, of the kernel's kind if it is the kernel's.
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

/// Opens a file to be read, which may be in a directory of another account: no link is
/// followed but root's and the process' own, and no second name of a file is taken
/// there. What is opened may be something else than a file; that does not block.
///
/// # Errors
/// When it is not there, or is not to be followed.
pub fn open_file(path: &Path) -> Result<File, WalkError> {
    let mut walk = Walk::begin(path)?;
    let trusted = [0, Uid::effective().as_raw()];
    let name = loop {
        match walk.step(&trusted)? {
            Step::Directory => {}
            Step::Last(name) => break name,
            Step::End => return Err(Errno::EISDIR.into()),
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

/// Whether nobody but root, the process and `account` can replace what is in a
/// directory, nor the directory itself. In one with the sticky bit others cannot.
///
/// # Errors
/// When others can, or it is not there.
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
            Step::Directory => {}
            Step::End => return Ok(()),
            Step::Last(name) => {
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

/// Whether others than the trusted may make and remove names in a directory. Root's
/// group is root.
fn is_changed_by_others(directory: &FileStat, trusted: &[u32]) -> bool {
    let by_group = directory.st_mode & 0o020 != 0 && directory.st_gid != 0;
    let by_all = directory.st_mode & 0o002 != 0;
    !trusted.contains(&directory.st_uid) || by_group || by_all
}

fn is(found: &FileStat, kind: SFlag) -> bool {
    SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT == kind
}

enum Step {
    /// Another directory was entered.
    Directory,
    /// What is left is one name, of something that is no link.
    Last(OsString),
    /// The path ends in the directory that was entered last.
    End,
}

struct Walk {
    /// The directory that it is in, and its path, for messages.
    at: OwnedFd,
    so_far: PathBuf,
    left: VecDeque<OsString>,
    links: usize,
    /// What is left is a descriptor's name in /proc, as `/dev/stdin` leads to: no path says
    /// what it is.
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

    /// Takes one component. A link of one of the `trusted` is replaced by what it says.
    fn step(&mut self, trusted: &[u32]) -> Result<Step, WalkError> {
        let Some(name) = self.left.pop_front() else {
            return Ok(Step::End);
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
                return Ok(Step::Last(name));
            }
            // Of the very link that was looked at.
            let target = PathBuf::from(readlinkat(&next, "")?);
            if target.is_absolute() {
                self.at = directory(AT_FDCWD, OsStr::new("/"))?;
                self.so_far = "/".into();
            }
            for name in names(&target).into_iter().rev() {
                self.left.push_front(name);
            }
            return Ok(Step::Directory);
        }
        if self.left.is_empty() && name != ".." {
            return Ok(Step::Last(name));
        }
        if !is(&found, SFlag::S_IFDIR) {
            return Err(Errno::ENOTDIR.into());
        }
        self.enter(next, &name);
        Ok(Step::Directory)
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

/// The components but `/` and `.`.
fn names(path: &Path) -> VecDeque<OsString> {
    let names = path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::CurDir | Component::RootDir | Component::Prefix(_) => None,
    });
    names.collect()
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        io::Read as _,
        os::unix::fs::{PermissionsExt as _, chown, lchown, symlink},
    };

    use super::*;

    const OTHER: u32 = 23_456;

    fn mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn read(path: &Path) -> Result<String, String> {
        let mut text = String::new();
        let mut file = open_file(path).map_err(|error| error.to_string())?;
        file.read_to_string(&mut text)
            .map_err(|error| error.to_string())?;
        Ok(text)
    }

    /// A directory beneath one that only its owner may change.
    fn tree() -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let real = fs::canonicalize(directory.path()).unwrap();
        for name in ["etc", "data"] {
            fs::create_dir(real.join(name)).unwrap();
        }
        fs::write(real.join("data/deny"), "listed").unwrap();
        (directory, real)
    }

    #[test]
    fn a_descriptor_is_read_by_its_name() {
        let (_kept, top) = tree();
        let file = File::open(top.join("data/deny")).unwrap();
        let number = std::os::fd::AsRawFd::as_raw_fd(&file);
        for path in [
            format!("/proc/self/fd/{number}"),
            format!("/dev/fd/{number}"),
        ] {
            assert_eq!(read(Path::new(&path)), Ok("listed".to_owned()), "{path}");
        }
    }

    #[test]
    fn a_file_is_read_over_ones_own_links_as_of_alternatives_and_volumes() {
        let (_kept, top) = tree();
        symlink("../data/./../data/deny", top.join("etc/relative")).unwrap();
        symlink(top.join("etc/relative"), top.join("etc/absolute")).unwrap();
        symlink("data", top.join("volume")).unwrap();
        for path in [
            "data/deny",
            "etc/relative",
            "etc/absolute",
            "volume/deny",
            "etc/../volume/deny",
        ] {
            assert_eq!(read(&top.join(path)), Ok("listed".to_owned()), "{path}");
        }
        // As a volume of Kubernetes is, whose mode lets everybody write.
        mode(&top.join("etc"), 0o777);
        assert_eq!(read(&top.join("etc/absolute")), Ok("listed".to_owned()));
    }

    #[test]
    fn what_is_not_there_and_circles_end_as_in_the_kernel() {
        let (_kept, top) = tree();
        symlink("round", top.join("round")).unwrap();
        let kind = |path: &str| open_file(&top.join(path)).unwrap_err().into_io();
        assert_eq!(kind("nothing").kind(), io::ErrorKind::NotFound);
        assert_eq!(kind("data/deny/deny").kind(), io::ErrorKind::NotADirectory);
        assert_eq!(kind("round").raw_os_error(), Some(libc::ELOOP));
        assert_eq!(kind("data/..").kind(), io::ErrorKind::IsADirectory);
    }

    #[test]
    fn a_link_of_another_account_is_not_followed() {
        if !Uid::effective().is_root() {
            return;
        }
        let (_kept, top) = tree();
        let secret = top.join("secret");
        fs::write(&secret, "secret").unwrap();
        mode(&secret, 0o600);
        chown(top.join("data"), Some(OTHER), None).unwrap();
        assert_eq!(read(&top.join("data/deny")), Ok("listed".to_owned()));
        for (link, target) in [("data/link", "../secret"), ("data/up", "..")] {
            symlink(target, top.join(link)).unwrap();
            lchown(top.join(link), Some(OTHER), None).unwrap();
        }
        for path in ["data/link", "data/up/secret"] {
            let error = read(&top.join(path)).unwrap_err();
            assert!(
                error.contains("uid 23456") && error.contains("make the link as root"),
                "{error}"
            );
            let link = path.split("/secret").next().unwrap();
            assert!(
                error.starts_with(top.join(link).to_str().unwrap()),
                "{error}"
            );
        }
        fs::hard_link(&secret, top.join("data/name")).unwrap();
        let error = read(&top.join("data/name")).unwrap_err();
        assert!(error.contains("has other names"), "{error}");
        fs::hard_link(&secret, top.join("etc/name")).unwrap();
        assert_eq!(read(&top.join("etc/name")), Ok("secret".to_owned()));
    }

    #[test]
    fn a_directory_is_safe_or_the_error_names_the_one_that_is_not() {
        if !Uid::effective().is_root() {
            return;
        }
        let (_kept, top) = tree();
        let sockets = top.join("data/run");
        fs::create_dir(&sockets).unwrap();
        let checked =
            |path: &Path| check_directory(path, 12_345).map_err(|error| error.to_string());
        assert_eq!(checked(&sockets), Ok(()));
        chown(&sockets, Some(12_345), Some(12_345)).unwrap();
        assert_eq!(checked(&sockets), Ok(()), "the account's");
        symlink("data/run", top.join("link")).unwrap();
        assert_eq!(checked(&top.join("link")), Ok(()), "root's link");
        lchown(top.join("link"), Some(OTHER), None).unwrap();
        assert!(
            checked(&top.join("link"))
                .unwrap_err()
                .contains("make the link as root")
        );
        for unsafe_mode in [0o777, 0o757, 0o775] {
            chown(&sockets, Some(0), Some(OTHER)).unwrap();
            mode(&sockets, unsafe_mode);
            let error = checked(&sockets).unwrap_err();
            assert!(error.contains("chmod go-w"), "{unsafe_mode:o}: {error}");
            mode(&sockets, unsafe_mode | 0o1000);
            assert_eq!(checked(&sockets), Ok(()), "sticky");
        }
        // Above it, as well.
        chown(top.join("data"), Some(OTHER), None).unwrap();
        let error = checked(&sockets).unwrap_err();
        let data = top.join("data");
        assert!(
            error.starts_with(&format!("{} belongs to uid 23456", data.display())),
            "{error}"
        );
    }
}
