//! The real agent, as a process in a namespace.

use std::{
    env,
    fs::File,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use tempfile::TempDir;

use crate::{lab::Namespace, poll::until};

/// A running agent; killed on drop.
#[derive(Debug)]
pub struct Agent {
    child: Child,
    directory: TempDir,
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

impl Agent {
    /// Starts it and waits until it serves.
    ///
    /// # Panics
    /// When it ends instead, with its log.
    pub fn start(namespace: &Namespace, arguments: &[&str]) -> Self {
        let mut agent = Self::spawn(namespace, arguments);
        until("the agent serves", || {
            if let Some(status) = agent.child.try_wait().expect("a child can be waited for") {
                panic!("the agent ended with {status}:\n{}", agent.log());
            }
            agent
                .log()
                .contains("does not accept mail: listening on")
                .then_some(())
        });
        agent
    }

    /// Starts it without waiting.
    ///
    /// # Panics
    /// When there is no such binary.
    pub fn spawn(namespace: &Namespace, arguments: &[&str]) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        // The agent, no longer root by then, removes its socket in there.
        std::fs::set_permissions(
            directory.path(),
            std::os::unix::fs::PermissionsExt::from_mode(0o777),
        )
        .expect("the mode can be set");
        let log = File::create(directory.path().join("log")).expect("a log file");
        let control = directory.path().join("control.sock");
        let namespace = format!("/run/netns/{}", namespace.name());
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net={namespace}"))
            .arg("--")
            .arg(binary())
            .args(["run", "--control"])
            .arg(control)
            .args(arguments)
            .env_remove("RUST_BACKTRACE")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .process_group(0);
        let child = command.spawn().expect("nsenter of util-linux runs");
        Self { child, directory }
    }

    /// What it logged so far.
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

    /// What `nomail-agent status --json` prints.
    ///
    /// # Panics
    /// When it fails.
    pub fn status(&self) -> Value {
        let text = status(&self.control(), &["--json", "--sources", "1000"]);
        serde_json::from_str(&text).expect("status --json is JSON")
    }

    /// Sends a signal.
    ///
    /// # Panics
    /// When it is gone already.
    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).expect("the agent runs");
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When it does not end in time.
    pub fn wait(&mut self) -> ExitStatus {
        until("the agent ends", || {
            self.child.try_wait().expect("a child can be waited for")
        })
    }

    /// Ends it as a service manager does.
    ///
    /// # Panics
    /// When it does not end well.
    pub fn stop(mut self) {
        self.signal(Signal::SIGTERM);
        let status = self.wait();
        assert!(status.success(), "{status}:\n{}", self.log());
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = self.log();
            let _ = std::io::Write::write_all(&mut std::io::stderr(), log.as_bytes());
        }
    }
}

/// What `nomail-agent status` prints.
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
