//! What a person sees: `status`, `top` in a terminal and as text, the guard that
//! was kept without its agent, and the demo.

#![allow(clippy::unwrap_used, reason = "helpers of tests, too")]

use std::{
    fs,
    io::{BufRead as _, BufReader},
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use nomail_tests::{
    agent::{self, Agent},
    files::copy_program,
    flood::answerable,
    frames::{FrameSender, Segment},
    lab::{CLIENT_INTERFACE, HOST_INTERFACE, Lab, run},
    poll::until,
};
use serde_json::Value;
use tempfile::TempDir;

const ARGUMENTS: &[&str] = &[
    "--iface",
    HOST_INTERFACE,
    "--hostname",
    "mailless.example.org",
];

/// Sends SYNs from `count` ports of a source.
fn send(lab: &Lab, source: &str, count: u16) {
    lab.client.within(|| {
        let sender = FrameSender::open(CLIENT_INTERFACE);
        for port in 0..count {
            let from = format!("{source}:{}", 1024 + port);
            sender.send(&Segment::syn(&from, "192.0.2.1:25").frame());
        }
    });
}

/// The agent as a command, with a socket and perhaps a configuration.
fn command(name: &str, control: &Path) -> Command {
    let mut command = Command::new(agent::binary());
    command.arg(name).arg("--control").arg(control);
    command.env_remove("RUST_BACKTRACE");
    command
}

fn printed(output: &Output) -> String {
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// The words of the line that begins with that one.
fn words(text: &str, first: &str) -> Vec<String> {
    let mut lines = text.lines().map(str::split_whitespace);
    let found = lines.find(|words| words.clone().next() == Some(first));
    let found = found.unwrap_or_else(|| panic!("no line {first} in:\n{text}"));
    found.map(str::to_owned).collect()
}

fn number(text: &str) -> f64 {
    text.parse()
        .unwrap_or_else(|_| panic!("{text:?} is no number"))
}

#[test]
fn status_tells_the_state_and_what_is_not_guarded() {
    let lab = Lab::new();
    let _program = answerable(&lab.client, CLIENT_INTERFACE);
    lab.host.ip("link add other0 type veth peer name other1");
    let agent = Agent::start(&lab.host, ARGUMENTS);
    send(&lab, "203.0.113.9", 1500);
    let status = || agent::status(&agent.control(), &[]);
    let text = until("all SYNs are counted", || {
        let text = status();
        (words(&text, "SYNS")[1] == "1,500").then_some(text)
    });
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some("state        guarding"));
    assert!(
        lines
            .next()
            .unwrap()
            .starts_with("host         mailless.example.org does not accept mail (nomail ")
    );
    assert_eq!(
        words(&text, "interfaces"),
        ["interfaces", "host0", "native"]
    );
    assert!(words(&text, "listening").contains(&"192.0.2.1:25,".to_owned()));
    let source = words(&text, "203.0.113.9");
    assert_eq!(source[1], "1,500");
    assert_eq!(words(&text, "over")[1..3], ["source's", "limit"]);
    assert!(
        !text.contains("not guarded") && !text.contains('\u{1b}'),
        "{text}"
    );

    // What is up is a way in.
    lab.host.ip("link set other0 up");
    until("it is told", || {
        status()
            .contains("not guarded  other0: traffic arriving there is answered but not filtered")
            .then_some(())
    });
    assert_eq!(agent.status()["unguarded"], serde_json::json!(["other0"]));
    lab.host.ip("link set other0 down");
    until("it is told", || {
        (!status().contains("not guarded")).then_some(())
    });
    agent.stop();

    let alone = [ARGUMENTS, &["--xdp-mode", "off"]].concat();
    let agent = Agent::start(&lab.host, &alone);
    let text = until("it is told", || {
        let text = agent::status(&agent.control(), &[]);
        text.contains("not guarded  host0: ").then_some(text)
    });
    assert!(text.starts_with("state        NOT GUARDING"), "{text}");
    assert_eq!(
        words(&text, "interfaces"),
        ["interfaces", "host0", "no", "guard"]
    );
    agent.stop();
}

#[test]
fn frames_of_top_agree_with_what_was_sent() {
    let lab = Lab::new();
    let _program = answerable(&lab.client, CLIENT_INTERFACE);
    let agent = Agent::start(&lab.host, ARGUMENTS);
    send(&lab, "203.0.113.9", 30);
    until("all SYNs are counted", || {
        (agent.count("/syn/total") == 30).then_some(())
    });
    let mut top = command("top", &agent.control())
        .args(["--batch", "-n", "2", "--interval", "3"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut frames = vec![String::new()];
    for line in BufReader::new(top.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        if line.starts_with("frame 2") {
            frames.push(String::new());
        }
        let frame = frames.last_mut().unwrap();
        *frame += &format!("{line}\n");
        // The first frame is out: the next interval has begun.
        if frames.len() == 1 && line.starts_with("203.0.113.9") {
            send(&lab, "203.0.113.9", 60);
        }
    }
    assert!(top.wait().unwrap().success());
    let rate_and_total = |frame: &str| {
        let verdicts = [
            "passed",
            "limited_source",
            "limited_prefix",
            "flood",
            "denied",
            "malformed",
            "replayed",
        ];
        verdicts.iter().fold((0.0, 0.0), |(rate, total), verdict| {
            let words = words(frame, verdict);
            (rate + number(&words[1]), total + number(&words[2]))
        })
    };
    // "frame N, rates of S s: STATE"; on a busy machine an interval is longer.
    let secs = |frame: &str| number(words(frame, "frame")[4].as_str());
    let first = &frames[0];
    assert!(first.contains(" s: guarding\nhost0 native\n"), "{first}");
    assert!((3.0..6.0).contains(&secs(first)), "{first}");
    assert_eq!(rate_and_total(&frames[0]), (0.0, 30.0), "{}", frames[0]);
    let (rate, total) = rate_and_total(&frames[1]);
    assert_eq!(total, 90.0, "{}", frames[1]);
    // The interval and each rate are rounded to a tenth.
    let sent = |rate: f64| (59.0 - 5.0..=61.0 + 5.0).contains(&(rate * secs(&frames[1])));
    assert!(sent(rate), "{rate}: {}", frames[1]);
    let source = words(&frames[1], "203.0.113.9");
    assert_eq!(source.len(), 8, "{source:?}");
    assert_eq!(source[5], "90");
    assert!(sent(number(&source[1])), "{source:?}");
    // Over its limit by what it has not passed.
    assert_eq!(
        number(&source[6]),
        number(&words(&frames[1], "limited_source")[2])
    );
    assert!(source[4].starts_with("limited"), "{source:?}");
    agent.stop();
}

#[test]
fn top_says_what_it_cannot_do() {
    let directory = tempfile::tempdir().unwrap();
    let control = directory.path().join("nothing.sock");
    let failed = |arguments: &[&str]| {
        let output = command("top", &control).args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8(output.stderr).unwrap()
    };
    let error = failed(&[]);
    assert!(
        error.contains("the output is no terminal: `top --batch`"),
        "{error}"
    );
    let error = failed(&["--batch", "-n", "1"]);
    assert!(error.contains("no nomail-agent answers there"), "{error}");
    let error = error.trim_end();
    assert!(
        error.contains("no guard is kept in /sys/fs/bpf/nomail"),
        "{error}"
    );
}

/// A BPF file system for one test, and a configuration that pins there.
struct Kept {
    directory: TempDir,
}

impl Kept {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let kept = Self { directory };
        fs::create_dir(kept.bpf()).unwrap();
        let none: Option<&str> = None;
        mount(
            Some("bpf"),
            &kept.bpf(),
            Some("bpf"),
            MsFlags::empty(),
            none,
        )
        .unwrap();
        let text = format!(
            "interfaces = [{HOST_INTERFACE:?}]\nhostname = \"mailless.example.org\"\n\
             on_exit = \"keep\"\npin_dir = {:?}\n",
            kept.bpf().join("nomail")
        );
        fs::write(kept.config(), text).unwrap();
        kept
    }

    fn bpf(&self) -> PathBuf {
        self.directory.path().join("bpf")
    }

    fn config(&self) -> String {
        let file = self.directory.path().join("nomail.toml");
        file.to_str().unwrap().to_owned()
    }

    fn start(&self, lab: &Lab) -> Agent {
        Agent::start(&lab.host, &["--config", &self.config()])
    }

    /// Runs the agent in the host's namespace, as it would be there.
    fn ask(&self, lab: &Lab, arguments: &[&str]) -> Output {
        let nobody = self.directory.path().join("nobody.sock");
        lab.host
            .command(agent::binary().to_str().unwrap())
            .args(arguments)
            .args(["--config", &self.config(), "--control"])
            .arg(nobody)
            .env_remove("RUST_BACKTRACE")
            .output()
            .unwrap()
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let unmounted = umount2(&self.bpf(), MntFlags::MNT_DETACH);
        assert!(unmounted.is_ok() || std::thread::panicking());
    }
}

#[test]
fn a_kept_guard_is_read_without_its_agent() {
    let (lab, kept) = (Lab::new(), Kept::new());
    let _program = answerable(&lab.client, CLIENT_INTERFACE);
    let agent = kept.start(&lab);
    send(&lab, "203.0.113.9", 30);
    until("all SYNs are counted", || {
        (agent.count("/syn/total") == 30).then_some(())
    });
    let before = agent.status();
    // Nobody is said to be gone who only answers elsewhere.
    let output = kept.ask(&lab, &["status"]);
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(
        error.contains("but one runs") && error.contains("name its --control"),
        "{error}"
    );
    agent.stop();

    let json = |arguments: &[&str]| -> Value {
        serde_json::from_str(&printed(&kept.ask(&lab, arguments))).unwrap()
    };
    let status = json(&["status", "--json"]);
    assert_eq!(status["agent_running"], false);
    assert_eq!(status["syn"], before["syn"]);
    assert_eq!(status["interfaces"][0]["name"], HOST_INTERFACE);
    assert_eq!(status["interfaces"][0]["xdp_mode"], "native");
    assert_eq!(status["interfaces"][0]["pinned"], true);
    let pair = serde_json::json!("192.0.2.1:25");
    assert!(status["guarded"].as_array().unwrap().contains(&pair));
    assert_eq!(status["sources"][0]["source"], "203.0.113.9");
    assert_eq!(status["sources"][0]["syn"], 30);
    assert!(status["sources"][0]["last_seen_secs"].as_u64().unwrap() < 20);

    // It counts on, and is read on.
    send(&lab, "203.0.113.9", 40);
    until("they are counted", || {
        (json(&["status", "--json"])["syn"]["total"] == 70).then_some(())
    });
    let text = printed(&kept.ask(&lab, &["status"]));
    assert!(
        text.starts_with("state        agent not running; the guard stays attached\n"),
        "{text}"
    );
    assert_eq!(
        words(&text, "interfaces")[1..],
        ["host0", "native,", "pinned"]
    );
    assert_eq!(words(&text, "SYNS")[1], "70");
    let text = printed(&kept.ask(&lab, &["top", "--batch", "-n", "1", "--interval", "0.2"]));
    assert!(
        text.contains(": agent not running; the guard stays attached\n"),
        "{text}"
    );
    assert_eq!(words(&text, "203.0.113.9")[5], "70");

    // Who is not root is told so. The binary may be where only root gets to.
    let binary = kept.directory.path().join("nomail-agent");
    copy_program(&agent::binary(), &binary);
    let output = Command::new(binary)
        .args([
            "status",
            "--config",
            &kept.config(),
            "--control",
            "/nobody.sock",
        ])
        .uid(65534)
        .gid(65534)
        .output()
        .unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains("no nomail-agent answers there"), "{error}");
    assert!(error.contains("root can read"), "{error}");

    // Reading held nothing back: an agent starts, and what is detached is gone.
    let agent = kept.start(&lab);
    assert_eq!(agent.count("/syn/total"), 70);
    agent.stop();
    let output = lab
        .host
        .command(agent::binary().to_str().unwrap())
        .args(["detach", "--config", &kept.config()])
        .output()
        .unwrap();
    assert!(output.status.success());
    let output = kept.ask(&lab, &["status"]);
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("and no guard is kept in "), "{error}");
    assert!(!lab.host.has_xdp(HOST_INTERFACE));
}

/// A terminal without a window, with a shell in it.
struct Terminal {
    server: String,
}

impl Terminal {
    fn new(width: u32, height: u32) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let terminal = Self {
            server: format!("nomail-{}-{number}", std::process::id()),
        };
        let (width, height) = (width.to_string(), height.to_string());
        terminal.tmux(&[
            "new-session",
            "-d",
            "-x",
            &width,
            "-y",
            &height,
            "env PS1='$ ' sh",
        ]);
        terminal
    }

    fn tmux(&self, arguments: &[&str]) -> String {
        let command = [
            "env",
            "LC_ALL=C.UTF-8",
            "tmux",
            "-u",
            "-f",
            "/dev/null",
            "-L",
        ];
        run(&[&command, &[self.server.as_str()][..], arguments].concat())
    }

    fn press(&self, keys: &str) {
        self.tmux(&["send-keys", "-l", keys]);
    }

    /// Types a command and Enter.
    fn enter(&self, line: &str) {
        self.press(line);
        self.tmux(&["send-keys", "Enter"]);
    }

    fn seen(&self) -> String {
        self.tmux(&["capture-pane", "-p"])
    }

    fn until_seen(&self, what: &str) -> String {
        until(what, || {
            let seen = self.seen();
            seen.contains(what).then_some(seen)
        })
    }

    /// Whether the terminal is as a shell wants it.
    fn is_given_back(&self) {
        self.enter("stty -a | grep -c -- ' icanon.* echo '");
        until("lines are edited and echoed", || {
            self.seen().lines().any(|line| line == "1").then_some(())
        });
        let flags = self.tmux(&["display-message", "-p", "#{alternate_on} #{cursor_flag}"]);
        assert_eq!(flags.trim(), "0 1", "no alternate screen, a cursor");
        self.enter("clear");
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // A test's harness keeps what it prints.
            println!("the terminal shows:\n{}", self.seen());
        }
        let killed = Command::new("tmux")
            .args(["-L", &self.server, "kill-server"])
            .output();
        assert!(killed.is_ok() || std::thread::panicking());
    }
}

#[test]
fn top_lives_in_a_terminal_and_gives_it_back() {
    let lab = Lab::new();
    let _program = answerable(&lab.client, CLIENT_INTERFACE);
    let agent = Agent::start(&lab.host, ARGUMENTS);
    let control = agent.control();
    let terminal = Terminal::new(110, 30);
    let top = format!(
        "{} top --interval 0.3 --control {}; echo ended $?",
        agent::binary().display(),
        control.display()
    );
    terminal.enter(&top);
    // A frame reaches the terminal in pieces.
    until("the state is shown", || {
        let seen = terminal.seen();
        ["guarding", "mailless.example.org", "host0 native"]
            .iter()
            .all(|part| seen.contains(part))
            .then_some(())
    });
    send(&lab, "203.0.113.9", 500);
    send(&lab, "203.0.113.10", 5);
    // A status that was asked for meanwhile has a part of them.
    until("the chart and the table have all of it", || {
        let seen = terminal.seen();
        let line = |first| seen.lines().find(|line| line.starts_with(first));
        let chart = line("limited_source")?;
        let source = line("203.0.113.9 ")?;
        (chart.contains('█')
            && source.split_whitespace().any(|word| word == "500")
            && seen.contains("203.0.113.10"))
        .then_some(())
    });

    // Keys: another order, a filter, help.
    terminal.press("s");
    terminal.until_seen("by limited/s");
    terminal.press("/203.0.113.10");
    terminal.until_seen("1 of 2 sources");
    terminal.tmux(&["send-keys", "Enter"]);
    terminal.press("?");
    terminal.until_seen("Ctrl-C  quit");
    terminal.press("?p");
    terminal.until_seen("PAUSED");
    terminal.press("p");

    // The smallest terminal, and a large one again.
    for (width, height) in [("1", "1"), ("30", "6"), ("110", "30")] {
        terminal.tmux(&["resize-window", "-x", width, "-y", height]);
        std::thread::sleep(Duration::from_millis(400));
    }
    terminal.until_seen("by limited/s");

    // Without its agent it waits, and goes on with the next.
    agent.stop();
    terminal.until_seen("no answer, asking again");
    let again = Agent::start(&lab.host, &[ARGUMENTS, &["--observe"]].concat());
    fs::create_dir_all(control.parent().unwrap()).unwrap();
    std::os::unix::fs::symlink(again.control(), &control).unwrap();
    terminal.until_seen("the agent has restarted 1 time");
    terminal.until_seen("observing");
    terminal.press("q");
    terminal.until_seen("ended 0");
    terminal.is_given_back();

    // However it ends.
    for way in ["C-c", "SIGTERM"] {
        terminal.enter(&top);
        terminal.until_seen("observing");
        if way == "SIGTERM" {
            let pid = terminal.tmux(&["display-message", "-p", "#{pane_pid}"]);
            let children = format!("/proc/{0}/task/{0}/children", pid.trim());
            let child = fs::read_to_string(children).unwrap();
            let child = child.trim().parse().expect("one child: top");
            kill(Pid::from_raw(child), Signal::SIGTERM).unwrap();
        } else {
            terminal.tmux(&["send-keys", way]);
        }
        terminal.until_seen("ended 0");
        terminal.is_given_back();
    }
    fs::remove_dir_all(control.parent().unwrap()).unwrap();
    again.stop();
}

/// The demo, built beside this test.
fn demo() -> Command {
    let program = std::env::current_exe().unwrap();
    let profile = program.parent().and_then(Path::parent).unwrap();
    Command::new(profile.join("examples/demo"))
}

/// Namespaces of a process that are there.
fn namespaces_of(demo: &Child) -> Vec<String> {
    let prefix = format!("nomail-{}-", demo.id());
    let all = fs::read_dir("/run/netns").unwrap();
    let names = all.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.starts_with(&prefix)).collect()
}

#[test]
fn the_demo_shows_a_flood_and_leaves_nothing() {
    let mut demo = demo().stdout(Stdio::piped()).spawn().unwrap();
    let mut text = String::new();
    let out = demo.stdout.take().unwrap();
    std::io::Read::read_to_string(&mut BufReader::new(out), &mut text).unwrap();
    let status = demo.wait().unwrap();
    assert!(status.success(), "{status}: {text}");
    assert_eq!(namespaces_of(&demo), [""; 0]);
    let frames: Vec<_> = text.split("frame ").skip(1).collect();
    assert_eq!(frames.len(), 8, "{text}");
    assert!(frames[0].contains(": guarding"), "{text}");
    let flooded = |frame: &&&str| frame.contains(": FLOOD");
    assert!(frames.iter().any(|frame| flooded(&frame)), "{text}");
    // The sender is served all the while, and the bot is limited.
    let last = frames[7];
    assert!(number(&words(last, "connections")[2]) > 10.0, "{last}");
    assert!(number(&words(last, "challenge")[2]) > 1000.0, "{last}");
    assert!(number(&words(last, "192.0.2.101")[6]) > 10.0, "{last}");
    let sender = frames.iter().find(|frame| frame.contains("\n192.0.2.100 "));
    assert_eq!(words(sender.unwrap(), "192.0.2.100")[6], "0", "{text}");
}

#[test]
fn the_demo_ends_by_ctrl_c_and_leaves_nothing() {
    let mut demo = demo().stdout(Stdio::piped()).spawn().unwrap();
    let mut out = BufReader::new(demo.stdout.take().unwrap());
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    assert!(line.starts_with("frame 1"), "{line}");
    assert_eq!(namespaces_of(&demo).len(), 2);
    kill(Pid::from_raw(demo.id() as i32), Signal::SIGINT).unwrap();
    let status = until("it ends", || demo.try_wait().unwrap());
    assert!(status.success(), "{status}");
    assert_eq!(namespaces_of(&demo), [""; 0]);
}
