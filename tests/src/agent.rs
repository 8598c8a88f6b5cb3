//! The real agent, as a process in a namespace.

use std::{
    env,
    fs::File,
    io::{Read as _, Write as _},
    net::TcpListener,
    os::{
        fd::OwnedFd,
        unix::{net::UnixStream, process::CommandExt as _},
    },
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
};

use nix::{
    sys::{
        ptrace,
        signal::{Signal, kill},
        wait::{WaitPidFlag, waitpid},
    },
    unistd::Pid,
};
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    files::Files,
    lab::{HOST_INTERFACE, Lab, Namespace},
    poll::{DEADLINE, longest, until},
};

/// The host name of the tests.
pub const NAME: &str = "mailless.example.org";
/// Its greeting.
pub const GREETING: &str = "521 mailless.example.org does not accept mail\r\n";
/// What it answers to a command after that.
pub const REFUSAL: &str = "521 5.3.2 mailless.example.org does not accept mail\r\n";
/// What it answers to QUIT.
pub const GOODBYE: &str = "221 2.0.0 mailless.example.org closing connection\r\n";
/// Its greeting where it refuses later than that.
pub const WELCOME: &str = "220 mailless.example.org ESMTP nomail\r\n";

/// Limits that the clients of a test do not reach.
pub const UNLIMITED: &[&str] = &["--syn-rate", "10000", "--syn-burst", "10000"];

/// A running agent; killed on drop.
#[derive(Debug)]
pub struct Agent {
    child: Child,
    directory: TempDir,
    files: Option<Files>,
}

/// The binary under test: `NOMAIL_AGENT`, which `cargo xtask test` sets.
///
/// # Panics
/// When it is not set.
pub fn binary() -> PathBuf {
    env::var_os("NOMAIL_AGENT")
        .expect("NOMAIL_AGENT names the agent to test: run `cargo xtask test`")
        .into()
}

/// Arguments of an agent on the lab's host: its interface and name, and `more`, words
/// with spaces between.
pub fn on_host(more: &str) -> Vec<&str> {
    let named = ["--iface", HOST_INTERFACE, "--hostname", NAME];
    named.into_iter().chain(more.split_whitespace()).collect()
}

impl Agent {
    /// Starts it and waits until it serves.
    ///
    /// # Panics
    /// When it ends instead, with its log.
    pub fn start(namespace: &Namespace, arguments: &[&str]) -> Self {
        Self::spawn(namespace, arguments).serving()
    }

    /// Waits until it serves.
    ///
    /// # Panics
    /// When it ends instead, with its log.
    #[must_use]
    pub fn serving(self) -> Self {
        let mut agent = self;
        until("the agent serves", || {
            if let Some(status) = agent.child.try_wait().expect("a child can be waited for") {
                panic!("the agent ended with {status}:\n{}", agent.log());
            }
            agent
                .log()
                .contains(" does not accept mail: ")
                .then_some(())
        });
        agent
    }

    /// Starts it without waiting.
    ///
    /// # Panics
    /// When there is no such binary.
    pub fn spawn(namespace: &Namespace, arguments: &[&str]) -> Self {
        Self::spawn_through(namespace, &[], arguments)
    }

    /// Starts it with a configuration file of its own, and waits until it serves.
    ///
    /// # Panics
    /// When it ends instead, with its log.
    pub fn configured(namespace: &Namespace, toml: &str, arguments: &[&str]) -> Self {
        let files = Files::new();
        files.write("nomail.toml", toml);
        let file = files.path("nomail.toml");
        let file = ["--config", file.to_str().expect("a path in UTF-8")];
        let mut agent = Self::spawn(namespace, &[&file, arguments].concat());
        agent.files = Some(files);
        agent.serving()
    }

    /// Writes the file of [`Agent::configured`] again, for the next SIGHUP.
    ///
    /// # Panics
    /// When it has none.
    pub fn configure(&self, toml: &str) {
        let files = self.files.as_ref().expect("a configuration of its own");
        files.write("nomail.toml", toml);
    }

    /// Starts it without waiting, by a command that ends in becoming it, such as
    /// `prlimit --nofile=1024`.
    ///
    /// # Panics
    /// When there is no such command or binary.
    pub fn spawn_through(namespace: &Namespace, through: &[&str], arguments: &[&str]) -> Self {
        let nothing = [Stdio::null(), Stdio::null()];
        Self::spawn_with(namespace, through, arguments, nothing)
    }

    /// Starts it without waiting, with two listening sockets as systemd hands them
    /// over (sd_listen_fds(3)), by a command that ends in becoming it.
    ///
    /// # Panics
    /// When there is no such command or binary.
    pub fn spawn_handed(
        namespace: &Namespace,
        sockets: [TcpListener; 2],
        through: &[&str],
        arguments: &[&str],
    ) -> Self {
        const HAND_OVER: &str = "LISTEN_PID=$$ LISTEN_FDS=2 exec \"$@\" \
            3<&0 4<&1 < /dev/null > /dev/null";
        let through = [&["sh", "-c", HAND_OVER, "sh"], through].concat();
        let sockets = sockets.map(|socket| Stdio::from(OwnedFd::from(socket)));
        Self::spawn_with(namespace, &through, arguments, sockets)
    }

    fn spawn_with(
        namespace: &Namespace,
        through: &[&str],
        arguments: &[&str],
        [stdin, stdout]: [Stdio; 2],
    ) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        // The agent, no longer root by then, removes its socket in there.
        std::fs::set_permissions(
            directory.path(),
            std::os::unix::fs::PermissionsExt::from_mode(0o1777),
        )
        .expect("the mode can be set");
        let log = File::create(directory.path().join("log")).expect("a log file");
        let control = directory.path().join("control.sock");
        let namespace = format!("/run/netns/{}", namespace.name());
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net={namespace}"))
            .arg("--")
            .args(through)
            .arg(binary())
            .arg("run")
            .args(arguments)
            .env_remove("RUST_BACKTRACE")
            .stdin(stdin)
            .stdout(stdout)
            .stderr(log)
            .process_group(0);
        // A test that names another one asks that by itself.
        if !arguments.contains(&"--control") {
            command.arg("--control").arg(control);
        }
        let child = command.spawn().expect("nsenter of util-linux runs");
        Self {
            child,
            directory,
            files: None,
        }
    }

    /// The log so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    /// Its control socket.
    pub fn control(&self) -> PathBuf {
        self.directory.path().join("control.sock")
    }

    /// Its process, which nsenter has become.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id() as i32)
    }

    /// What the control socket answers, which `nomail-agent status --json` prints. That
    /// command waits for 5 s, which is not enough on a machine that is busy with other tests.
    ///
    /// # Panics
    /// When it does not answer in time, or not in JSON.
    pub fn status(&self) -> Value {
        let mut stream = UnixStream::connect(self.control()).expect("the agent listens");
        stream
            .set_read_timeout(Some(longest(DEADLINE)))
            .expect("a socket has a timeout");
        stream
            .write_all(b"status 1000\n")
            .expect("the agent reads the request");
        let mut text = String::new();
        stream
            .read_to_string(&mut text)
            .expect("the agent answers in time");
        serde_json::from_str(&text).expect("the status is JSON")
    }

    /// A number of the status, by its JSON pointer: `/connections/quit`.
    ///
    /// # Panics
    /// When there is none.
    pub fn count(&self, pointer: &str) -> u64 {
        let status = self.status();
        let number = status.pointer(pointer).and_then(Value::as_u64);
        number.unwrap_or_else(|| panic!("the status has no number {pointer}: {status:#}"))
    }

    /// A field of its `/proc/PID/status`, such as `VmRSS`: the first word.
    ///
    /// # Panics
    /// When it is gone, or the field is not there.
    pub fn process(&self, field: &str) -> String {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()))
            .expect("the agent runs");
        let rest = status.lines().find_map(|line| {
            let rest = line.strip_prefix(field)?.strip_prefix(':')?;
            rest.split_whitespace().next()
        });
        rest.expect("the kernel shows the field").to_owned()
    }

    /// One of its threads, once it waits.
    ///
    /// # Panics
    /// When there is no such thread.
    pub fn waiting_thread(&self, name: &str) -> Pid {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.pid())).expect("it runs");
        let named = tasks
            .map(|task| task.expect("it runs").path())
            .find(|task| {
                let of = std::fs::read_to_string(task.join("comm")).expect("it runs");
                of.trim_end() == name
            })
            .expect("there is such a thread");
        let id = named.file_name().and_then(|id| id.to_str()?.parse().ok());
        until("the thread waits", || {
            let of = std::fs::read_to_string(named.join("status")).expect("it runs");
            of.contains("\nState:\tS").then_some(())
        });
        Pid::from_raw(id.expect("a number"))
    }

    /// Stops one of its threads in the system call that it waits in, once it has
    /// nothing else to do.
    ///
    /// # Panics
    /// When there is no such thread, or it cannot be traced.
    pub fn hold_thread(&self, name: &str) -> HeldThread {
        let thread = self.waiting_thread(name);
        ptrace::attach(thread).expect("root may trace it");
        waitpid(thread, Some(WaitPidFlag::__WALL)).expect("it stops");
        HeldThread(thread)
    }

    /// Sends a signal.
    ///
    /// # Panics
    /// When it is gone already.
    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).expect("the agent runs");
    }

    /// Waits until it exits.
    ///
    /// # Panics
    /// When it does not end in time.
    pub fn wait(&mut self) -> ExitStatus {
        until("the agent ends", || {
            self.child.try_wait().expect("a child can be waited for")
        })
    }

    /// Stops it as a service manager does.
    ///
    /// # Panics
    /// When it does not end well.
    pub fn stop(mut self) {
        self.signal(Signal::SIGTERM);
        let status = self.wait();
        assert!(status.success(), "{status}:\n{}", self.log());
    }
}

/// A stopped thread of an agent; it continues on drop. The thread that stopped it has to
/// drop it.
#[derive(Debug)]
pub struct HeldThread(Pid);

impl HeldThread {
    /// Has its system call fail with EBADF.
    ///
    /// # Panics
    /// When it is gone.
    #[cfg(target_arch = "x86_64")]
    pub fn fail(self) {
        let mut registers = ptrace::getregs(self.0).expect("it stands still");
        registers.rax = -i64::from(libc::EBADF) as u64;
        // No system call to be started again.
        registers.orig_rax = u64::MAX;
        ptrace::setregs(self.0, registers).expect("it stands still");
    }
}

impl Drop for HeldThread {
    fn drop(&mut self) {
        // The agent may be gone, after a test that failed.
        let _ = ptrace::detach(self.0, None);
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = self.log();
            let _ = std::io::stderr().write_all(log.as_bytes());
        }
    }
}

/// The output of `nomail-agent status`.
///
/// # Panics
/// When it fails.
pub fn status(control: &Path, arguments: &[&str]) -> String {
    let output = Command::new(binary())
        .args(["status", "--control"])
        .arg(control)
        .args(arguments)
        .output()
        .expect("the agent runs");
    crate::lab::succeeded("nomail-agent status", &output)
}

impl Files {
    /// As [`Agent::spawn_through`].
    pub fn spawn(&self, lab: &Lab, through: &[&str], more: &[&str]) -> Agent {
        let file = self.path("nomail.toml");
        let file = file.to_str().expect("a path in UTF-8");
        let arguments = ["--iface", HOST_INTERFACE, "--config", file];
        Agent::spawn_through(&lab.host, through, &[&arguments, more].concat())
    }
}
