//! A control group that bounds the memory of a process, under version 1 or 2.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use tempfile::TempDir;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A group for memory; removed on drop.
#[derive(Debug)]
pub struct MemoryGroup {
    directory: PathBuf,
    files: &'static Files,
    _mounted: Option<Mounted>,
}

/// The file names of a version.
#[derive(Debug)]
struct Files {
    limit: &'static str,
    usage: &'static str,
}

const VERSION_1: Files = Files {
    limit: "memory.limit_in_bytes",
    usage: "memory.usage_in_bytes",
};
const VERSION_2: Files = Files {
    limit: "memory.max",
    usage: "memory.current",
};

impl MemoryGroup {
    /// A new one, without a limit.
    ///
    /// # Panics
    /// Without root, or on a kernel without such groups.
    pub fn new() -> Self {
        let version_1 = Path::new("/sys/fs/cgroup/memory");
        let version_2 = Path::new("/sys/fs/cgroup");
        let (above, files, mounted) = if version_1.join(VERSION_1.limit).exists() {
            (version_1.to_owned(), &VERSION_1, None)
        } else if version_2.join("cgroup.controllers").exists() {
            (version_2.to_owned(), &VERSION_2, None)
        } else {
            let mounted = Mounted::new();
            (mounted.0.path().to_owned(), &VERSION_2, Some(mounted))
        };
        if files.limit == VERSION_2.limit {
            fs::write(above.join("cgroup.subtree_control"), "+memory")
                .expect("the kernel bounds memory");
        }
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let directory = above.join(format!("nomail-{}-{number}", std::process::id()));
        fs::create_dir(&directory).expect("root may make a group");
        Self {
            directory,
            files,
            _mounted: mounted,
        }
    }

    /// A command that runs its arguments in the group.
    pub fn command(&self) -> [String; 4] {
        let enter = format!(
            "echo $$ > {}/cgroup.procs && exec \"$@\"",
            self.directory.display()
        );
        ["sh".into(), "-c".into(), enter, "sh".into()]
    }

    /// Bytes in use.
    ///
    /// # Panics
    /// When the kernel does not show it.
    pub fn usage(&self) -> u64 {
        let text = fs::read_to_string(self.directory.join(self.files.usage));
        let number = text.ok().and_then(|text| text.trim().parse().ok());
        number.expect("the kernel shows it")
    }

    /// Limits it to so many bytes.
    ///
    /// # Errors
    /// When more are in use that cannot be taken back.
    pub fn limit(&self, octets: u64) -> io::Result<()> {
        fs::write(self.directory.join(self.files.limit), octets.to_string())
    }
}

impl Default for MemoryGroup {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        // The last process may be on its way out.
        for _ in 0..100 {
            if fs::remove_dir(&self.directory).is_ok() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        assert!(
            std::thread::panicking(),
            "{} cannot be removed",
            self.directory.display()
        );
    }
}

/// A hierarchy of version 2, where none is mounted.
#[derive(Debug)]
struct Mounted(TempDir);

impl Mounted {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let kind = Some("cgroup2");
        mount(kind, directory.path(), kind, MsFlags::empty(), None::<&str>)
            .expect("root may mount it");
        Self(directory)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // A leftover of a failed test belongs to no test any more.
        let _ = umount2(self.0.path(), MntFlags::MNT_DETACH);
    }
}
