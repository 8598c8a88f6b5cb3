//! Debian packages that the machine does not have, for one test: an overlay over
//! `/`, mounted where only its own processes see it. The machine stays as it is;
//! what is mounted and started goes with the test, also when it is killed.

use std::{
    env, fs,
    fs::File,
    io,
    io::Write as _,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use crate::{
    files::copy_program,
    lab::{Namespace, succeeded},
    poll::DEADLINE,
    repository::repository,
};

/// Longest that an installation may take. A debootstrap in it takes less than a
/// minute on an idle machine, and several beside builds.
const INSTALL_DEADLINE: Duration = Duration::from_secs(900);

/// What the names of copies begin with.
const COPY: &str = "run-";

/// Lays out the root and runs `$SCRIPT` in it, as process 1 of its namespace.
///
/// Process 1 then is a shell that reads its standard input: the pipe's other end
/// closes with the test, however that ends; and with process 1, the kernel ends
/// all the others.
const ENTER: &str = r#"
root=$DIRECTORY/root
# Without an index, which would notice that the upper layer is a copy.
mount -t overlay overlay \
    -o "index=off,lowerdir=/,upperdir=$DIRECTORY/upper,workdir=$DIRECTORY/work" "$root" || {
    echo "cannot lay an overlay over / ($(stat -f -c %T /)) in $DIRECTORY" \
        "($(stat -f -c %T "$DIRECTORY")): this needs root, and a target directory that is not" \
        "itself on an overlay: in a container, put it on a volume or a tmpfs"
    exit 1
}
mount -t proc proc "$root/proc"
mount -t tmpfs -o mode=1777 tmp "$root/tmp"
mount -t tmpfs -o mode=755 run "$root/run"
mkdir -m 1777 "$root/run/lock"
# A /dev of its own: a socket made in there must not appear on the machine.
mount -t tmpfs -o mode=755 dev "$root/dev"
for device in null zero full random urandom; do
    : > "$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
done
ln -s /proc/self/fd "$root/dev/fd"
mkdir -m 1777 "$root/dev/shm"
{
    code=0
    chroot "$root" /bin/sh -eu -c "$SCRIPT" || code=$?
    echo "$code" > "$DIRECTORY/status"
} &
exec chroot "$root" /bin/sh
"#;

/// Installs `$PACKAGES`. The package lists may be missing, or older than the
/// mirror: then the second attempt fetches them.
const INSTALL: &str = r#"
printf '#!/bin/sh\nexit 101\n' > /usr/sbin/policy-rc.d
chmod 755 /usr/sbin/policy-rc.d
# It may be a link into /run, which is empty in here.
rm -f /etc/resolv.conf
printf '%s\n' "$RESOLVER" > /etc/resolv.conf
export DEBIAN_FRONTEND=noninteractive
get() {
    apt-get install --yes --no-install-recommends "$@"
}
# Unquoted: a list.
[ -z "$PACKAGES" ] || get $PACKAGES || { apt-get update && get $PACKAGES; }
eval "$MORE"
apt-get clean
"#;

/// A Debian root with some packages, kept from run to run.
#[derive(Debug)]
pub struct Root {
    directory: PathBuf,
    /// Shared, so that no other test replaces the layer or removes its copies.
    _lock: File,
}

impl Root {
    /// Installs `packages` without what they recommend, or finds them installed
    /// by an earlier run. Services are not started.
    ///
    /// # Panics
    /// When that fails, with what apt said, or when it would have changed the
    /// machine itself.
    pub fn install(name: &str, packages: &[&str]) -> Self {
        Self::install_more(name, packages, "")
    }

    /// As [`Root::install`], and then runs a shell script in the root, with the
    /// machine's network, for what is no Debian package; `get` installs one.
    ///
    /// # Panics
    /// When that fails.
    pub fn install_more(name: &str, packages: &[&str], more: &str) -> Self {
        let directory = roots().join(name);
        fs::create_dir_all(roots()).expect("the target directory is writable");
        let lock = File::create(directory.with_extension("lock")).expect("a lock file");
        let stamp = stamp(packages, more);
        let installed = || fs::read_to_string(directory.join("stamp")).is_ok_and(|s| s == stamp);
        if lock.try_lock().is_ok() {
            // No other run is here: copies are of runs that were killed.
            remove_copies(&directory);
            lock.unlock().expect("a lock");
        }
        loop {
            lock.lock_shared().expect("a lock");
            if installed() {
                break;
            }
            // Another test may be faster in between: look again with the lock.
            lock.unlock().expect("a lock");
            lock.lock().expect("a lock");
            if !installed() {
                install(&directory, packages, more);
                fs::write(directory.join("stamp"), &stamp).expect("the stamp is writable");
            }
            lock.unlock().expect("a lock");
        }
        Self {
            directory,
            _lock: lock,
        }
    }

    /// Runs a shell script in a fresh copy of the root, in the network namespace.
    /// What it starts in the background runs until the instance is dropped.
    pub fn start(&self, namespace: &Namespace, script: &str) -> Instance<'_> {
        self.start_with(namespace, script, &[])
    }

    /// As [`Root::start`], with files of the machine copied into the root first:
    /// where each is, and where it goes.
    ///
    /// # Panics
    /// When one cannot be copied.
    pub fn start_with(
        &self,
        namespace: &Namespace,
        script: &str,
        files: &[(&Path, &str)],
    ) -> Instance<'_> {
        let directory = tempfile::Builder::new()
            .prefix(COPY)
            .tempdir_in(&self.directory)
            .expect("a temporary directory");
        lay_out(directory.path());
        // Not as a second lower layer: it lies in the first one, and an overlay
        // refuses layers that overlap.
        let layer = self.directory.join("upper").join(".");
        let copied = Command::new("cp")
            .arg("--archive")
            .args([layer, directory.path().join("upper")])
            .output()
            .expect("cp runs");
        succeeded("cp", &copied);
        for (from, to) in files {
            let to = directory.path().join("upper").join(relative(to));
            let parent = to.parent().expect("a file is in a directory");
            fs::create_dir_all(parent)
                .unwrap_or_else(|error| panic!("{}: {error}", parent.display()));
            copy_program(from, &to);
        }
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net=/run/netns/{}", namespace.name()))
            .arg("unshare")
            .env("SCRIPT", script);
        Instance {
            processes: Processes::start(command, directory.path()),
            directory,
            _root: self,
        }
    }
}

/// A fresh copy of a root, and the processes in it.
#[derive(Debug)]
pub struct Instance<'root> {
    // Before the directory: what writes into it ends first.
    processes: Processes,
    directory: TempDir,
    _root: &'root Root,
}

impl Instance<'_> {
    /// What an instance has written into a file so far; nothing if it has not.
    pub fn read(&self, path: &str) -> String {
        fs::read(self.file(path)).map_or_else(
            |_| String::new(),
            |octets| String::from_utf8_lossy(&octets).into_owned(),
        )
    }

    /// Where a file is that an instance has written; no longer than it runs.
    pub fn file(&self, path: &str) -> PathBuf {
        self.directory.path().join("upper").join(relative(path))
    }

    /// Runs a shell command in it, in the background.
    ///
    /// # Panics
    /// When process 1 is gone.
    pub fn run(&mut self, command: &str) {
        let shell = self.processes.child.stdin.as_mut().expect("it is piped");
        writeln!(shell, "{{ {command}\n}} < /dev/null &").expect("process 1 runs");
    }

    /// Waits until the script has done its work.
    ///
    /// # Panics
    /// When it fails or [`DEADLINE`] passes, with its output.
    pub fn ready(&mut self) {
        let start = Instant::now();
        loop {
            match self.processes.status() {
                Some(0) => return,
                None if start.elapsed() < DEADLINE => sleep(Duration::from_millis(20)),
                status => panic!("script: {status:?}\n{}", self.processes.output()),
            }
        }
    }

    /// What the script and the commands have printed.
    pub fn output(&self) -> String {
        self.processes.output()
    }

    /// Waits until a file has a line with all of `needles`, and gives the line.
    ///
    /// # Panics
    /// When the script fails or [`DEADLINE`] passes, with the file and the
    /// script's output.
    pub fn line(&mut self, path: &str, needles: &[&str]) -> String {
        let start = Instant::now();
        loop {
            // First: what the script wrote before it ended counts.
            let status = self.processes.status();
            let text = self.read(path);
            let line = text
                .lines()
                .find(|line| needles.iter().all(|needle| line.contains(needle)));
            if let Some(line) = line {
                return line.to_owned();
            }
            assert!(
                matches!(status, None | Some(0)) && start.elapsed() < DEADLINE,
                "no line with {needles:?} in {path} (script: {status:?}):\n{text}\n{}",
                self.processes.output()
            );
            sleep(Duration::from_millis(20));
        }
    }
}

/// The processes on one overlay.
#[derive(Debug)]
struct Processes {
    child: Child,
    directory: PathBuf,
}

impl Processes {
    /// Starts `command`, which ends in `unshare`, on the directory's overlay.
    fn start(mut command: Command, directory: &Path) -> Self {
        let output = File::create(directory.join("output")).expect("a file for the output");
        command
            .args(["--mount", "--uts", "--ipc", "--pid", "--fork"])
            .args(["--kill-child", "/bin/sh", "-eu", "-c", ENTER])
            .env("DIRECTORY", directory)
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("LC_ALL", "C")
            .env("HOME", "/root")
            // cargo's, and the machine's: they name nothing in the root.
            .env_remove("LD_LIBRARY_PATH")
            .env_remove("TMPDIR")
            .stdin(Stdio::piped())
            .stdout(output.try_clone().expect("a descriptor"))
            .stderr(output);
        Self {
            child: command.spawn().expect("util-linux is installed"),
            directory: directory.to_owned(),
        }
    }

    /// The script's exit status, once it has ended; -1 if it was never reached.
    fn status(&mut self) -> Option<i32> {
        if let Ok(text) = fs::read_to_string(self.directory.join("status"))
            && let Ok(code) = text.trim().parse()
        {
            return Some(code);
        }
        let ended = self.child.try_wait().expect("a child can be waited for");
        ended.map(|_| -1)
    }

    fn output(&self) -> String {
        fs::read_to_string(self.directory.join("output")).unwrap_or_default()
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        // Process 1 sees the end of its input; it is gone only when all the
        // others are, and with them their mounts.
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

fn install(directory: &Path, packages: &[&str], more: &str) {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            panic!("cannot remove {}: {error}", directory.display())
        }
        _ => lay_out(directory),
    }
    let before = on_the_machine(packages);
    let mut command = Command::new("unshare");
    command
        .env("SCRIPT", INSTALL)
        .env("PACKAGES", packages.join(" "))
        .env("MORE", more)
        .env(
            "RESOLVER",
            fs::read_to_string("/etc/resolv.conf").unwrap_or_default(),
        );
    let mut processes = Processes::start(command, directory);
    let start = Instant::now();
    let status = loop {
        match processes.status() {
            Some(status) => break status,
            None => assert!(
                start.elapsed() < INSTALL_DEADLINE,
                "more than {INSTALL_DEADLINE:?} to install {packages:?}:\n{}",
                processes.output()
            ),
        }
        sleep(Duration::from_millis(50));
    };
    assert!(
        status == 0,
        "cannot install {packages:?} ({status}):\n{}",
        processes.output()
    );
    assert_eq!(
        before,
        on_the_machine(packages),
        "the machine itself has changed"
    );
}

/// Removes the copies that runs have left behind.
fn remove_copies(directory: &Path) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry
            .file_name()
            .as_encoded_bytes()
            .starts_with(COPY.as_bytes())
        {
            // If its processes are still ending, it goes the next time.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// The directories that [`ENTER`] wants.
fn lay_out(directory: &Path) {
    let text = directory.to_str().unwrap_or_default();
    assert!(
        !text.is_empty() && !text.contains([',', ':', '\\']),
        "{} cannot be named in the options of a mount",
        directory.display()
    );
    for part in ["upper", "work", "root"] {
        fs::create_dir_all(directory.join(part)).expect("the target directory is writable");
    }
}

/// What a kept layer depends on. The machine's own packages are below it: when
/// they change, the layer's list of packages is no longer true.
fn stamp(packages: &[&str], more: &str) -> String {
    let below = fs::metadata("/var/lib/dpkg/status").map_or_else(
        |error| panic!("this test installs Debian packages: /var/lib/dpkg/status: {error}"),
        |status| {
            format!(
                "{} {}.{}",
                status.len(),
                status.mtime(),
                status.mtime_nsec()
            )
        },
    );
    format!("{}\n{more}on {below}\n", packages.join(" "))
}

/// What dpkg says of the packages outside of any root.
fn on_the_machine(packages: &[&str]) -> String {
    let output = Command::new("dpkg-query")
        .args(["--show", "--showformat=${Package} ${Version} ${Status}\n"])
        .args(packages)
        .output()
        .expect("dpkg-query runs");
    // It fails for packages that it does not know: that is an answer as well.
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A path of a root, to be joined to its layer.
fn relative(path: &str) -> &str {
    path.trim_start_matches('/')
}

/// Where the roots are.
fn roots() -> PathBuf {
    target().join("roots")
}

/// The target directory that this program is in.
///
/// # Panics
/// Without a path of this program.
pub fn target() -> PathBuf {
    let program = env::current_exe().expect("the test program has a path");
    program
        .ancestors()
        .find(|directory| directory.join("CACHEDIR.TAG").exists())
        .map_or_else(|| repository().join("target"), Path::to_owned)
}
