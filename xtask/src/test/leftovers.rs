//! What tests leave behind when they are interrupted, and could not remove themselves.

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::shell;

/// Waits for the end of its input, which comes also when xtask is killed. Then kills every
/// process with `$MARK` in its environment, and removes what is named after processes that
/// are gone, and a directory for temporary files.
const SWEEP: &str = r#"
directory=$(mktemp -d "${TMPDIR:-/tmp}/nomail-tests.XXXXXX")
chmod 1777 "$directory"
echo "$directory"
cat > /dev/null
marked() {
    grep -lzsx "$1=$directory" /proc/[0-9]*/environ | cut -d / -f 3
}
for round in $(seq 100); do
    pids=$(marked "$1")
    [ "$pids" ] || break
    kill -9 $pids 2> /dev/null
    sleep 0.1
done
# A name is nomail-PID-NUMBER.
is_left() {
    pid=${1##*/nomail-}
    [ -e "$1" ] && [ ! -e "/proc/${pid%%-*}" ]
}
for namespace in /run/netns/nomail-*; do
    if is_left "$namespace" && [ ! "$(ip netns pids "${namespace##*/}")" ]; then
        ip netns del "${namespace##*/}"
    fi
done
for group in /sys/fs/cgroup/nomail-* /sys/fs/cgroup/memory/nomail-*; do
    if is_left "$group"; then rmdir "$group"; fi
done
grep -o " $directory/[^ ]*" /proc/mounts | sort -r | xargs -r umount --lazy
rm -rf --one-file-system "$directory"
"#;

/// The environment variable that all processes of a test run have.
const MARK: &str = "NOMAIL_TEST_RUN";

/// Removes what a test run leaves behind, at the latest when xtask ends.
#[derive(Debug)]
pub(super) struct Sweeper {
    child: Child,
    /// Closed when xtask ends.
    input: Option<ChildStdin>,
    directory: PathBuf,
}

impl Sweeper {
    /// Starts it, as root.
    ///
    /// # Errors
    /// When it does not start.
    pub(super) fn start() -> Result<Self> {
        // sudo asks for its password here, and not for each test program.
        shell::check(&mut shell::as_root(Path::new("true"), &[])?)?;
        Self::of(shell::as_root(Path::new("sh"), &[])?)
    }

    fn of(mut shell: Command) -> Result<Self> {
        let command = shell
            .args(["-c", SWEEP, "sh", MARK])
            // Not in the group that Ctrl-C interrupts.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = command
            .spawn()
            .with_context(|| format!("cannot start: {}", shell::shown(command)))?;
        let mut line = String::new();
        if let Some(output) = child.stdout.take() {
            BufReader::new(output)
                .read_line(&mut line)
                .context("no directory for temporary files")?;
        }
        let directory = PathBuf::from(line.trim_end());
        if !directory.is_dir() {
            bail!("no directory for temporary files: {}", directory.display());
        }
        let input = child.stdin.take();
        Ok(Self {
            child,
            input,
            directory,
        })
    }

    /// The environment of the test programs.
    pub(super) fn environment(&self) -> [(&'static str, &OsStr); 3] {
        [MARK, "TMPDIR", "TMUX_TMPDIR"].map(|name| (name, self.directory.as_os_str()))
    }
}

impl Drop for Sweeper {
    fn drop(&mut self) {
        drop(self.input.take());
        // It has nothing to say, and what it could not remove is no failure of a test.
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::thread::sleep;
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn processes_and_files_of_a_run_are_gone_after_it() {
        let sweeper = Sweeper::of(Command::new("sh")).unwrap();
        let directory = sweeper.directory.clone();
        fs::write(directory.join("file"), "left").unwrap();
        let sleeping = |environment: &[(&str, &OsStr)]| {
            let mut command = Command::new("sleep");
            command.arg("600").envs(environment.iter().copied());
            command.spawn().unwrap()
        };
        let (mut left, mut other) = (sleeping(&sweeper.environment()), sleeping(&[]));
        drop(sweeper);
        let begun = Instant::now();
        while left.try_wait().unwrap().is_none() {
            assert!(begun.elapsed() < Duration::from_secs(20), "it lives");
            sleep(Duration::from_millis(20));
        }
        assert!(!directory.exists());
        assert_eq!(other.try_wait().unwrap(), None, "it is not of the run");
        other.kill().unwrap();
        other.wait().unwrap();
    }
}
