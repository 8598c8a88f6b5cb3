//! A reader that goes away: the terminal of `top`, and the pipe behind a command that
//! prints. Neither is a fault of the agent's, and nothing is left running.

#![allow(clippy::unwrap_used, reason = "helpers of tests, too")]

use std::{
    fs::File,
    io::{PipeWriter, Read as _, Write as _, pipe},
    os::unix::fs::OpenOptionsExt as _,
    process::{Child, Command, ExitStatus, Stdio},
};

use nix::{
    fcntl::OFlag,
    pty::{PtyMaster, grantpt, posix_openpt, ptsname_r, unlockpt},
};
use nomail_tests::{
    agent::{Agent, binary},
    lab::{HOST_INTERFACE, Lab, succeeded},
    poll::until,
};

/// A terminal, and the program in it.
struct Terminal {
    main: PtyMaster,
    program: Program,
}

/// Killed on drop: what outlives its terminal would go on without end.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Terminal {
    /// Starts the program by a command that ends in becoming it.
    fn start(through: &[&str], arguments: &[&str]) -> Self {
        // Neither end is for the children of other tests, which would keep it open.
        let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
        let main = posix_openpt(flags).unwrap();
        grantpt(&main).unwrap();
        unlockpt(&main).unwrap();
        let slave = File::options()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NOCTTY)
            .open(ptsname_r(&main).unwrap())
            .unwrap();
        let end = || Stdio::from(slave.try_clone().unwrap());
        let size = ["rows", "30", "cols", "110"];
        let sized = Command::new("stty").args(size).stdin(end()).output();
        succeeded("stty", &sized.unwrap());
        let program = Command::new(through[0])
            .args(&through[1..])
            .arg(binary())
            .args(arguments)
            .env("TERM", "xterm")
            .env_remove("RUST_BACKTRACE")
            .stdin(end())
            .stdout(end())
            .stderr(end())
            .spawn()
            .unwrap();
        Self {
            main,
            program: Program(program),
        }
    }

    /// Takes the terminal away once the program draws into it.
    fn lose(mut self) -> Program {
        let (mut shown, mut buffer) = (Vec::new(), [0; 4096]);
        until("it is drawn", || {
            while let Ok(read @ 1..) = self.main.read(&mut buffer) {
                shown.extend(&buffer[..read]);
            }
            let shown = String::from_utf8_lossy(&shown);
            shown.contains("mailless.example.org").then_some(())
        });
        self.program
    }
}

fn start(lab: &Lab) -> Agent {
    let arguments = [
        "--iface",
        HOST_INTERFACE,
        "--hostname",
        "mailless.example.org",
    ];
    Agent::start(&lab.host, &arguments)
}

#[test]
fn top_ends_with_its_terminal() {
    // As the leader of a session, to which the kernel sends SIGHUP. And without that
    // signal, as in a session of another terminal: errors of this one are all there is.
    const WAYS: [&[&str]; 2] = [&["setsid", "--ctty"], &["setsid"]];
    let lab = Lab::new();
    let agent = start(&lab);
    let control = agent.control();
    for way in WAYS {
        let arguments = ["top", "--interval", "0.3", "--control"];
        let arguments = [&arguments[..], &[control.to_str().unwrap()]].concat();
        let mut top = Terminal::start(way, &arguments).lose();
        let ended = until(&format!("top ends, by {way:?}"), || {
            top.0.try_wait().unwrap()
        });
        assert_eq!(ended.code(), Some(0), "{way:?}: {ended}");
    }
    agent.stop();
}

/// Runs a command whose output nobody reads.
fn unread(arguments: &[&str], stderr: Option<PipeWriter>) -> (ExitStatus, String) {
    let (reader, writer) = pipe().unwrap();
    drop(reader);
    let with_stderr = stderr.is_none();
    let mut command = Command::new(binary());
    command
        .args(arguments)
        .env_remove("RUST_BACKTRACE")
        .stdin(Stdio::null())
        .stdout(writer)
        .stderr(stderr.map_or_else(Stdio::piped, Stdio::from));
    let output = command.spawn().unwrap().wait_with_output().unwrap();
    assert!(with_stderr || output.stderr.is_empty());
    let error = String::from_utf8(output.stderr).unwrap();
    (output.status, error)
}

#[test]
fn a_closed_pipe_ends_a_command_quietly() {
    let lab = Lab::new();
    let agent = start(&lab);
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("nomail.toml");
    let mut written = File::create(&file).unwrap();
    writeln!(written, "control = {:?}", agent.control()).unwrap();
    let pins = directory.path().join("pins");
    writeln!(written, "pin_dir = {pins:?}").unwrap();
    let file = file.to_str().unwrap();
    let commands: &[&[&str]] = &[
        &["status", "--config", file],
        &["status", "--json", "--config", file],
        &["top", "--batch", "--interval", "0.1", "--config", file],
        &["check-config", "--config", file],
        &["check-config", "--show", "--config", file],
        &["detach", "--config", file],
        &["--help"],
        &["--version"],
    ];
    for command in commands {
        let (status, error) = unread(command, None);
        assert_eq!(
            (status.code(), error.as_str()),
            (Some(0), ""),
            "{command:?}"
        );
    }
    // The verdict of doctor is its exit code, read or not.
    let arguments = ["doctor", "--iface", "lo", "--config", file];
    for more in [&[][..], &["--json"]] {
        let (status, error) = unread(&[&arguments[..], more].concat(), None);
        assert!(matches!(status.code(), Some(0 | 1)), "{status}: {error}");
        assert_eq!(error, "");
    }
    // What cannot be written for another reason is an error.
    let full = File::options().write(true).open("/dev/full").unwrap();
    for command in commands.iter().filter(|command| command.len() > 1) {
        let output = Command::new(binary())
            .args(*command)
            .stdout(full.try_clone().unwrap())
            .output()
            .unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        // Without pins there is nothing to say.
        if command[0] != "detach" {
            assert_eq!(output.status.code(), Some(1), "{command:?}: {error}");
            assert!(error.contains("No space left"), "{command:?}: {error}");
        }
    }
    agent.stop();
}

#[test]
fn errors_that_nobody_reads_are_no_panic() {
    let (reader, writer) = pipe().unwrap();
    drop(reader);
    let broken: &[(&[&str], i32)] = &[
        (&["status", "--control", "/nonexistent/control.sock"], 1),
        (
            &["check-config", "--config", "/nonexistent/nomail.toml"],
            78,
        ),
        (&["run", "--nonsense"], 64),
    ];
    for (command, code) in broken {
        let (status, _) = unread(command, Some(writer.try_clone().unwrap()));
        assert_eq!(status.code(), Some(*code), "{command:?}: {status}");
    }
}
