//! Floods of forged SYNs, and an honest client beside them.

use std::{
    fs,
    io::{self, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpStream},
    ops::Range,
    os::fd::OwnedFd,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use socket2::{Domain, Socket, Type};

use crate::{
    agent::Agent,
    foreign::Program,
    frames::{ETHERNET_LENGTH, FrameSender, Segment},
    lab::{Lab, Namespace},
    poll::{DEADLINE, is_emulated, longest, until},
};

/// Longest flood, except in an emulated machine ([`longest`]).
pub const FLOOD_MAX: Duration = Duration::from_secs(10);
/// Different frames of a flood.
const FRAMES: u32 = 8192;

/// Source ports of the forged SYNs: below the ephemeral ports of Linux, so that none of
/// them is of a tuple that an honest client at the same address uses.
const PORTS: Range<u32> = 1024..32_768;

/// SYNs to `to`; `source` makes an address from a random number.
///
/// # Panics
/// When one is no address.
pub fn syns(to: &str, source: impl Fn(u32) -> String) -> Vec<Segment> {
    (0..FRAMES)
        .map(|n| {
            // Any order will do, as long as it repeats neither port nor number.
            let noise = n.wrapping_mul(0x9e37_79b9);
            let port = PORTS.start + ((u64::from(noise) * PORTS.len() as u64) >> 32) as u32;
            let from = source(noise).parse().expect("an address");
            let from = SocketAddr::new(from, port as u16);
            Segment {
                sequence: noise.rotate_left(13) ^ n,
                ..Segment::syn(&from.to_string(), to)
            }
        })
        .collect()
}

/// The frames of [`syns`].
pub fn frames(to: &str, source: impl Fn(u32) -> String) -> Vec<Vec<u8>> {
    syns(to, source).iter().map(Segment::frame).collect()
}

/// A flood from all over IPv4 (10.0.0.0/8), or IPv6 (2001:db9::/32).
pub fn strangers(to: &str) -> Vec<Vec<u8>> {
    frames(to, |n| stranger(to, n))
}

/// An address for [`strangers`].
pub fn stranger(to: &str, noise: u32) -> String {
    if to.starts_with('[') {
        format!("2001:db9:{:x}::1", noise >> 16)
    } else {
        let [_, a, b, c] = noise.to_be_bytes();
        format!("10.{a}.{b}.{c}")
    }
}

/// Runs `work` while the interface sends `frames` over and over, each time with other
/// sequence numbers, as a real flood does.
///
/// # Panics
/// When the work takes longer than a flood may.
pub fn flooded<T>(
    namespace: &Namespace,
    interface: &str,
    frames: &[Vec<u8>],
    work: impl FnOnce() -> T,
) -> T {
    while_sent(namespace, interface, frames, renumber, work)
}

/// Runs `work` while the interface sends `frames` over and over as they are, as hosts
/// do that receive the answers.
///
/// # Panics
/// As [`flooded`].
pub fn repeated<T>(
    namespace: &Namespace,
    interface: &str,
    frames: &[Vec<u8>],
    work: impl FnOnce() -> T,
) -> T {
    while_sent(namespace, interface, frames, |_, _| {}, work)
}

/// `change` gets each frame and the number of frames before it.
fn while_sent<T>(
    namespace: &Namespace,
    interface: &str,
    frames: &[Vec<u8>],
    change: fn(&mut [u8], u32),
    work: impl FnOnce() -> T,
) -> T {
    let flooding = AtomicBool::new(true);
    let longest = longest(FLOOD_MAX);
    let pause = if is_emulated() {
        EMULATED_FLOOD_PAUSE
    } else {
        FLOOD_PAUSE
    };
    std::thread::scope(|scope| {
        let flood = scope.spawn(|| {
            namespace.within(|| {
                let sender = FrameSender::open(interface);
                let begun = Instant::now();
                let mut fresh = Vec::new();
                for (sent, frame) in frames.iter().cycle().enumerate() {
                    if !flooding.load(Ordering::Relaxed) {
                        let seconds = begun.elapsed().as_secs_f64();
                        println!("flood: {sent} frames in {seconds:.1} s");
                        return true;
                    }
                    if begun.elapsed() > longest {
                        return false;
                    }
                    fresh.clear();
                    fresh.extend_from_slice(frame);
                    change(&mut fresh, sent as u32);
                    sender.send(&fresh);
                    // Fast enough for every cap, and not so fast that the ring of
                    // the wire loses the answers to the honest as well.
                    if sent % FRAMES_AT_ONCE == 0 {
                        std::thread::sleep(pause);
                    }
                }
                false
            })
        });
        let done = work();
        flooding.store(false, Ordering::Relaxed);
        let lasted = flood.join().expect("the flood can be sent");
        assert!(lasted, "not done within {longest:?} of flood");
        done
    })
}

/// Gives a SYN another sequence number: a flood that repeats its SYNs exactly
/// would be proven by the resets of the forged hosts. A frame with VLAN tags, IP
/// options, extension headers or fragmentation stays as it is.
fn renumber(frame: &mut [u8], salt: u32) {
    const TCP: u8 = 6;
    const DONT_FRAGMENT: u8 = 0x40;
    let ip = ETHERNET_LENGTH;
    let tcp = match (&frame[12..14], frame[ip]) {
        // Without options, and no fragment.
        ([0x08, 0x00], 0x45) if [frame[ip + 6] & !DONT_FRAGMENT, frame[ip + 7]] == [0, 0] => {
            ip + 20
        }
        ([0x86, 0xdd], _) if frame[ip + 6] == TCP => ip + 40,
        _ => return,
    };
    let word = |frame: &[u8], at: usize| u32::from(u16::from_be_bytes([frame[at], frame[at + 1]]));
    let number = salt.wrapping_mul(0x9e37_79b9).to_be_bytes();
    // RFC 1624: the checksum without the old words and with the new ones.
    let mut sum = u32::from(!(word(frame, tcp + 16) as u16));
    for half in [0, 2] {
        sum += u32::from(!(word(frame, tcp + 4 + half) as u16));
        sum += u32::from(u16::from_be_bytes([number[half], number[half + 1]]));
    }
    sum = (sum >> 16) + (sum & 0xffff);
    sum = (sum >> 16) + (sum & 0xffff);
    frame[tcp + 4..tcp + 8].copy_from_slice(&number);
    frame[tcp + 16..tcp + 18].copy_from_slice(&(!(sum as u16)).to_be_bytes());
}

/// Frames of a flood between two pauses, and the pause: at most 64,000 a second.
const FRAMES_AT_ONCE: usize = 64;
/// See [`FRAMES_AT_ONCE`].
const FLOOD_PAUSE: Duration = Duration::from_millis(1);
/// In an emulated machine, where 8,000 a second leave no processor to the honest.
const EMULATED_FLOOD_PAUSE: Duration = Duration::from_millis(20);

/// Waits until XDP answers the flood.
///
/// # Panics
/// When it is not.
pub fn until_answered(agent: &Agent) {
    let before = agent.count("/answers/challenge");
    until("the flood is answered", || {
        (agent.count("/answers/challenge") > before + 1000).then_some(())
    });
}

/// Waits until the agent reports the end of the flood, and a new client is served without
/// a challenge. It tries no more often than the cap has room: a client that kept trying
/// could use up that room.
///
/// # Panics
/// When that does not come.
pub fn until_over(agent: &Agent, client: &Namespace, from: &str, to: &str) {
    until("the flood is over, and the cap has room again", || {
        if agent.status()["flood"] == true {
            return None;
        }
        let challenges = agent.count("/answers/challenge");
        let served = client.within(|| is_served(from, to));
        (served && agent.count("/answers/challenge") == challenges).then_some(())
    });
}

/// XDP sends on a veth pair only when the peer has a program, too. The interface
/// has one until the result is dropped.
pub fn answerable(namespace: &Namespace, interface: &str) -> OwnedFd {
    namespace.within(|| Program::load("pass").attach(interface))
}

/// Lets the listeners of the namespace take few SYNs, so that during a flood
/// all but a few honest ones are challenged: the agent reads it when it starts,
/// and lets a sixteenth a second through.
pub fn limit_backlog(namespace: &Namespace, backlog: u64) {
    sysctl(namespace, "net/core/somaxconn", &backlog.to_string());
}

/// Gives the lab's host a default route: without one, its kernel forgets a
/// forged SYN at once, and a flood is harmless.
pub fn route_to_everybody(lab: &Lab) {
    lab.host.ip("route add default via 192.0.2.100");
    lab.host.ip("route add default via 2001:db8::100");
}

/// Sets a sysctl of a namespace.
///
/// # Panics
/// When there is no such sysctl.
pub fn sysctl(namespace: &Namespace, path: &str, value: &str) {
    let path = format!("/proc/sys/{path}");
    namespace.within(|| {
        fs::write(&path, value).unwrap_or_else(|error| panic!("{path}: {error}"));
    });
}

/// How a connection began.
#[derive(Debug)]
pub struct Served {
    /// From the first SYN to the established connection.
    pub established: Duration,
    /// All that the host sent.
    pub heard: String,
}

/// Opens a connection in the namespace of this thread, sends QUIT and reads to the end.
///
/// # Errors
/// When it is not established within `patience`, or breaks.
///
/// # Panics
/// Without sockets, or when `from` is not ours.
pub fn talk(from: &str, to: &str, patience: Duration) -> io::Result<Served> {
    let to = SocketAddr::new(to.parse().expect("an address"), 25);
    let socket = socket_from(from);
    let begun = Instant::now();
    socket.connect_timeout(&to.into(), patience)?;
    let established = begun.elapsed();
    Ok(Served {
        established,
        heard: quit(socket)?,
    })
}

/// Sends QUIT and returns all that the host sends.
///
/// # Errors
/// When the connection breaks.
pub fn quit(connection: Socket) -> io::Result<String> {
    let mut stream = TcpStream::from(connection);
    stream.set_read_timeout(Some(DEADLINE))?;
    stream.write_all(b"QUIT\r\n")?;
    let mut heard = String::new();
    stream.read_to_string(&mut heard)?;
    Ok(heard)
}

/// A TCP socket bound to an address.
///
/// # Panics
/// When it is not ours.
pub fn socket_from(from: &str) -> Socket {
    let from: IpAddr = from.parse().expect("an address");
    let from = SocketAddr::new(from, 0);
    let socket = Socket::new(Domain::for_address(from), Type::STREAM, None).expect("a socket");
    socket.bind(&from.into()).expect("the address is ours");
    socket
}

/// Whether a connection from `from` gets a whole dialog, with the reply to QUIT.
pub fn is_served(from: &str, to: &str) -> bool {
    talk(from, to, DEADLINE).is_ok_and(|served| served.heard.contains("\r\n221 "))
}

/// Whether a text begins with a greeting of nomail.
pub fn is_greeting(heard: &str) -> bool {
    heard.starts_with("521 ") || heard.starts_with("220 ")
}
