//! A BPF file system for the pins of one agent.

use tempfile::TempDir;

use crate::lab::run;

/// A mounted BPF file system; unmounted on drop.
#[derive(Debug)]
pub struct Bpffs(TempDir);

impl Bpffs {
    /// Mounts it.
    ///
    /// # Panics
    /// Without root.
    pub fn mount() -> Self {
        let bpffs = Self(tempfile::tempdir().expect("a temporary directory"));
        run(&["mount", "-t", "bpf", "bpf", bpffs.path()]);
        bpffs
    }

    fn path(&self) -> &str {
        self.0.path().to_str().expect("a path in UTF-8")
    }

    /// A path for `pin_dir`.
    pub fn pins(&self) -> String {
        format!("{}/nomail", self.path())
    }
}

impl Drop for Bpffs {
    fn drop(&mut self) {
        let umount = std::process::Command::new("umount")
            .args(["--lazy", self.path()])
            .output();
        if !umount.is_ok_and(|output| output.status.success()) && !std::thread::panicking() {
            panic!("{} cannot be unmounted", self.path());
        }
    }
}
