//! `cargo xtask demo`: a host with the real agent, a sender that is refused, a bot
//! that comes too often, a flood that comes and goes, and `nomail-agent top` on it.
//! All of it lives in network namespaces, and is gone when `top` is left.

#![allow(clippy::expect_used, reason = "a demo that cannot go on is to fail")]

use std::{
    io::{self, BufReader, IsTerminal as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    process::{Child, Command, ExitCode},
    sync::atomic::{AtomicBool, Ordering},
    thread::sleep,
    time::{Duration, Instant},
};

use nix::{
    net::if_::if_nametoindex,
    sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, kill, sigaction},
    unistd::{Pid, Uid},
};
use nomail_tests::{
    agent::{self, Agent},
    flood::{FLOOD_MAX, route_to_everybody, socket_from},
    generator::{Generator, Syns, Then, client_filter},
    honest::Plan,
    lab::{CLIENT_INTERFACE, HOST_INTERFACE, HOST_IPV4, Lab},
};

/// Where the polite sender lives.
const SENDER: &str = "192.0.2.100";
/// Between two of its mails.
const SENDER_PAUSE: Duration = Duration::from_millis(400);
/// Where the bot lives.
const BOT: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 101);
/// Its connections a second: more than a source may open.
const BOT_RATE: u32 = 30;
/// SYNs of the flood at once, and the pause behind them: at most 10,000 a second,
/// which is more than the listener can take, and little work.
const FLOOD_AT_ONCE: u32 = 128;
const FLOOD_PAUSE: Duration = Duration::from_micros(12_800);
/// How long nothing and how long everything comes, for a person to look at.
const QUIET: Duration = Duration::from_secs(10);
const FLOODED: Duration = Duration::from_secs(9);
/// The same for `--batch`, and frames enough for it.
const BATCH_QUIET: Duration = Duration::from_secs(3);
const BATCH_FLOODED: Duration = Duration::from_secs(3);
const BATCH_FRAMES: &str = "8";
/// How often it is looked whether to end.
const POLL: Duration = Duration::from_millis(50);

const _: () = assert!(FLOODED.as_secs() < FLOOD_MAX.as_secs());

/// A signal has come, or `top` has ended.
static ENDING: AtomicBool = AtomicBool::new(false);

extern "C" fn end(_signal: libc::c_int) {
    ENDING.store(true, Ordering::Relaxed);
}

/// Ends the threads, also when the main one panics.
struct Ending;

impl Drop for Ending {
    fn drop(&mut self) {
        ENDING.store(true, Ordering::Relaxed);
    }
}

fn main() -> ExitCode {
    if !Uid::effective().is_root() {
        let _ = writeln!(
            io::stderr(),
            "the demo needs root for its network namespaces: `cargo xtask demo` asks sudo"
        );
        return ExitCode::FAILURE;
    }
    let action = SigAction::new(SigHandler::Handler(end), SaFlags::empty(), SigSet::empty());
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        // SAFETY: the handler only stores to an atomic.
        unsafe { sigaction(signal, &action) }.expect("a signal can be caught");
    }
    let asked = std::env::args().any(|word| word == "--batch");
    let batch = asked || !io::stdout().is_terminal();
    let well = run(batch);
    if well {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// False when `top` failed.
fn run(batch: bool) -> bool {
    let lab = Lab::new();
    route_to_everybody(&lab);
    // As the rest of the world does, the client drops answers to who it is not.
    let _filter = lab
        .client
        .within(|| client_filter(0).attach(CLIENT_INTERFACE));
    let agent = Agent::start(
        &lab.host,
        &[
            "--iface",
            HOST_INTERFACE,
            "--hostname",
            "mailless.example.org",
        ],
    );
    let (quiet, flooded) = match batch {
        true => (BATCH_QUIET, BATCH_FLOODED),
        false => (QUIET, FLOODED),
    };
    let well = std::thread::scope(|scope| {
        let _ending = Ending;
        scope.spawn(|| lab.client.within(send_mail));
        scope.spawn(|| lab.client.within(be_a_bot));
        scope.spawn(|| lab.client.within(|| come_and_go(quiet, flooded)));
        let mut top = Command::new(agent::binary());
        top.args(["top", "--control"]).arg(agent.control());
        if batch {
            top.args(["--batch", "-n", BATCH_FRAMES, "--sources", "5"]);
        }
        watch(top.spawn().expect("the agent runs"))
    });
    agent.stop();
    well
}

/// Waits for the end of `top`, or ends it when it is time.
fn watch(mut top: Child) -> bool {
    loop {
        if let Some(status) = top.try_wait().expect("a child can be waited for") {
            return status.success();
        }
        if ENDING.load(Ordering::Relaxed) {
            // It gives the terminal back; and Ctrl-C has told it already.
            let _ = kill(Pid::from_raw(top.id() as i32), Signal::SIGTERM);
            let _ = top.wait();
            return true;
        }
        sleep(POLL);
    }
}

/// Pauses, unless it is time to end. False when it is.
fn pause(length: Duration) -> bool {
    let begun = Instant::now();
    while begun.elapsed() < length {
        if ENDING.load(Ordering::Relaxed) {
            return false;
        }
        sleep(POLL.min(length));
    }
    true
}

/// A sender that does as it is told, again and again.
fn send_mail() {
    while pause(SENDER_PAUSE) {
        // A mail that is lost in the flood is not the end.
        let _ = one_mail();
    }
}

fn one_mail() -> io::Result<()> {
    let to = SocketAddr::new(HOST_IPV4.parse().expect("an address"), 25);
    let socket = socket_from(SENDER);
    socket.connect_timeout(&to.into(), Duration::from_secs(3))?;
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(Duration::from_secs(3)))?;
    let mut replies = BufReader::new(stream.try_clone()?);
    let mut accepted = is_accepted(&mut replies)?;
    for command in [
        "EHLO client.example.org\r\n",
        "MAIL FROM:<a@client.example.org>\r\n",
        "RCPT TO:<b@mailless.example.org>\r\n",
    ] {
        if !accepted {
            break;
        }
        stream.write_all(command.as_bytes())?;
        accepted = is_accepted(&mut replies)?;
    }
    stream.write_all(b"QUIT\r\n")?;
    is_accepted(&mut replies)?;
    Ok(())
}

/// Reads one reply.
fn is_accepted(replies: &mut impl io::BufRead) -> io::Result<bool> {
    let mut line = String::new();
    loop {
        line.clear();
        if replies.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if line.as_bytes().get(3) != Some(&b'-') {
            return Ok(line.starts_with('2'));
        }
    }
}

/// A client that comes more often than one may.
fn be_a_bot() {
    let plan = Plan {
        from: vec![BOT.into()],
        to: SocketAddr::new(HOST_IPV4.parse().expect("an address"), 25),
        count: BOT_RATE as usize,
        rate: BOT_RATE,
        timeout: Duration::from_secs(1),
    };
    while !ENDING.load(Ordering::Relaxed) {
        plan.run();
    }
}

/// A flood from all over the world that comes and goes.
fn come_and_go(quiet: Duration, flooded: Duration) {
    let interface = if_nametoindex(CLIENT_INTERFACE).expect("the lab has it");
    let syns = Syns {
        source: Ipv4Addr::new(10, 0, 0, 0).into(),
        source_mask: 0x00ff_ffff,
        port: 1024,
        port_mask: 0x3fff,
        repeated: false,
        destination: HOST_IPV4.parse().expect("an address"),
    };
    let send = Then::Send { interface, rate: 0 };
    let generator = Generator::load(&syns, &send);
    // To an interface that carries nothing: the kernel patches its XDP dispatcher
    // for each run of a program that is attached nowhere.
    let _attached = generator.program().attach("lo");
    while pause(quiet) {
        let begun = Instant::now();
        while begun.elapsed() < flooded && !ENDING.load(Ordering::Relaxed) {
            generator.send(FLOOD_AT_ONCE);
            sleep(FLOOD_PAUSE);
        }
    }
}
