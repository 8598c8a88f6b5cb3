//! What the responder without a socket sends, as an independent decoder sees it: tshark,
//! with all checksums checked.

#![allow(clippy::unwrap_used, reason = "helpers of tests, too")]

use std::{
    collections::HashSet,
    fs,
    io::{Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    os::fd::OwnedFd,
};

use nomail_tests::{
    agent::{Agent, on_host},
    capture::{Capture, Captured, pcap},
    firewall::Nft,
    flood::{answerable, sysctl},
    frames::{FrameSender, Segment},
    lab::{CLIENT_INTERFACE, HOST_IPV4, HOST_IPV6, Lab, succeeded},
    poll::{DEADLINE, until},
    root::Root,
};

/// What is asked of each frame; the column of tshark's output in this order.
const FIELDS: [&str; 12] = [
    "frame.number",
    "tcp.flags.str",
    "ip.checksum.status",
    "tcp.checksum.status",
    "_ws.malformed",
    "_ws.expert.severity",
    "_ws.expert.message",
    "tcp.srcport",
    "tcp.dstport",
    "tcp.seq_raw",
    "tcp.len",
    "smtp.response.code",
];
/// A checksum's status: it was looked at, and is right.
const GOOD: &str = "1";
/// The severity of what Wireshark calls an error.
const ERROR: u32 = 0x0080_0000;
const IP: usize = 14;
const TCP: u8 = 6;

/// Connections of which some packets are lost.
const CONNECTIONS_WITH_LOSS: usize = 5;
/// What clients say, each piece in a segment of its own: in turns, all at once, in pieces,
/// no more than the start of a line, and what is no text.
const DIALOGS: [&[&str]; 5] = [
    &["EHLO client.example.org\r\n", "NOOP\r\n", "QUIT\r\n"],
    &["EHLO a\r\nMAIL FROM:<>\r\nRCPT TO:<a@b>\r\nDATA\r\nNOOP\r\nQUIT\r\n"],
    &["NO", "OP\r", "\nQU", "IT", "\r\n"],
    &["EHLO unfinished"],
    &["\u{80}\r\n"],
];

/// What tshark says of a frame, field by field.
struct Decoded(Vec<String>);

impl Decoded {
    fn field(&self, name: &str) -> &str {
        let at = FIELDS.iter().position(|field| *field == name).unwrap();
        &self.0[at]
    }

    fn is_from_host(&self) -> bool {
        self.field("tcp.srcport") == "25"
    }

    /// What is wrong with it, in the decoder's opinion.
    fn wrong(&self) -> Option<&'static str> {
        let severities = self.field("_ws.expert.severity").split(',');
        if self.field("tcp.checksum.status") != GOOD {
            Some("the checksum of TCP")
        } else if !["", GOOD].contains(&self.field("ip.checksum.status")) {
            Some("the checksum of IP")
        } else if !self.field("_ws.malformed").is_empty() {
            Some("malformed")
        } else if severities
            .filter_map(|severity| severity.parse().ok())
            .any(|severity: u32| severity >= ERROR)
        {
            Some("an error")
        } else {
            None
        }
    }
}

/// Has tshark decode frames of TCP.
fn decode(tshark: &Root, lab: &Lab, frames: &[Captured]) -> Vec<Decoded> {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("capture.pcap");
    fs::write(&file, pcap(frames)).unwrap();
    let fields: String = FIELDS.iter().map(|field| format!(" -e {field}")).collect();
    let script = format!(
        "tshark -n -r /root/capture.pcap -o tcp.check_checksum:TRUE -o ip.check_checksum:TRUE \
         -T fields -E separator=/t{fields} > /root/decoded
         echo done > /root/done"
    );
    let files = [(file.as_path(), "/root/capture.pcap")];
    let mut running = tshark.start_with(&lab.client, &script, &files);
    running.line("/root/done", &["done"]);
    let decoded: Vec<_> = running
        .read("/root/decoded")
        .lines()
        .map(|line| Decoded(line.split('\t').map(str::to_owned).collect()))
        .collect();
    assert!(
        decoded.len() == frames.len() && decoded.iter().all(|frame| frame.0.len() == FIELDS.len()),
        "{}",
        running.output()
    );
    decoded
}

/// The lab, with a client whose frames have their checksums.
fn lab() -> (Lab, OwnedFd) {
    let lab = Lab::new();
    // tshark takes what comes from a port that it knows for that port's protocol.
    sysctl(&lab.client, "net/ipv4/ip_local_port_range", "62000 62999");
    let mut ethtool = lab.client.command("ethtool");
    ethtool.args(["-K", CLIENT_INTERFACE, "tx", "off"]);
    succeeded("ethtool", &ethtool.output().unwrap());
    let program = answerable(&lab.client, CLIENT_INTERFACE);
    (lab, program)
}

fn agent(lab: &Lab, after_greeting: &str) -> Agent {
    let more = format!("--responder xdp --after-greeting {after_greeting}");
    Agent::start(&lab.host, &on_host(&more))
}

fn connect(lab: &Lab, to: &str) -> TcpStream {
    let to = SocketAddr::new(to.parse().unwrap(), 25);
    let stream = lab
        .client
        .within(|| TcpStream::connect_timeout(&to, DEADLINE).unwrap());
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// Reads the greeting, says something, and reads to the end.
fn speak(mut stream: TcpStream, pieces: &[&str]) -> String {
    let mut heard = vec![0; 1];
    stream.read_exact(&mut heard).unwrap();
    for piece in pieces {
        stream.write_all(piece.as_bytes()).unwrap();
    }
    let _ = stream.shutdown(Shutdown::Write);
    stream.read_to_end(&mut heard).unwrap();
    String::from_utf8(heard).unwrap()
}

/// A SYN in the name of a third party that listens there: it proves itself by its reset,
/// and answers a bare SYN with one of its own, which has to be reset.
fn third_party(lab: &Lab, agent: &Agent, from: &str, to: &str) {
    let from = SocketAddr::new(from.parse().unwrap(), 0);
    let listener = lab.client.within(|| TcpListener::bind(from).unwrap());
    let from = listener.local_addr().unwrap().to_string();
    let to = SocketAddr::new(to.parse().unwrap(), 25).to_string();
    let syn = Segment::syn(&from, &to).frame();
    let sender = lab.client.within(|| FrameSender::open(CLIENT_INTERFACE));
    let before = agent.count("/answers/stateless");
    until("the third party's connection is reset", || {
        sender.send(&syn);
        // A bare SYN, and the reset.
        (agent.count("/answers/stateless") >= before + 2).then_some(())
    });
}

/// Those of TCP; hosts also look for neighbours and tell which groups they are in.
fn of_tcp(mut frames: Vec<Captured>) -> Vec<Captured> {
    frames.retain(|frame| match frame.octets[12..IP] {
        [0x08, 0x00] => frame.octets[IP + 9] == TCP,
        [0x86, 0xdd] => frame.octets[IP + 6] == TCP,
        _ => false,
    });
    frames
}

/// None of the host's frames is wrong, and they have all that there is to be. A frame of
/// the client's own stack may be wrong in the decoder's opinion: one in 65,536 has a
/// checksum of 0xffff that could be 0.
fn judge(what: &str, decoded: &[Decoded], codes: &[&str]) {
    let from_host = || decoded.iter().filter(|frame| frame.is_from_host());
    for frame in from_host() {
        assert_eq!(frame.wrong(), None, "{what}: {:?}", frame.0);
    }
    for code in codes {
        let has = from_host().any(|frame| frame.field("smtp.response.code").contains(code));
        assert!(has, "{what}: no {code}");
    }
    println!(
        "{what}: {} frames, {} of the host, none malformed, no bad checksum",
        decoded.len(),
        from_host().count()
    );
}

/// How many of the host's frames with text were seen before.
fn repeated(decoded: &[Decoded]) -> usize {
    let mut seen = HashSet::new();
    let texts = decoded
        .iter()
        .filter(|frame| frame.is_from_host() && frame.field("tcp.len") != "0");
    texts
        .filter(|frame| !seen.insert(["tcp.dstport", "tcp.seq_raw"].map(|name| frame.field(name))))
        .count()
}

/// With one frame changed the decoder says so: else its silence would prove nothing.
fn the_decoder_sees_what_is_wrong(tshark: &Root, lab: &Lab, frame: &Captured) {
    let is_ipv4 = frame.octets[12..IP] == [0x08, 0x00];
    let tcp = IP + if is_ipv4 { 20 } else { 40 };
    let changed = |at: usize| {
        let mut changed = frame.clone();
        changed.octets[at] ^= 0x01;
        changed
    };
    // One octet less of the text than the header of IP says.
    let mut short = frame.clone();
    short.octets.pop();
    let mut frames = vec![frame.clone(), short, changed(tcp + 16)];
    if is_ipv4 {
        frames.push(changed(IP + 10));
    }
    let decoded = decode(tshark, lab, &frames);
    let wrong: Vec<_> = decoded.iter().map(Decoded::wrong).collect();
    assert_eq!(wrong[0], None, "{:?}", decoded[0].0);
    assert!(wrong[1].is_some(), "{:?}", decoded[1].0);
    assert_eq!(wrong[2], Some("the checksum of TCP"));
    if is_ipv4 {
        assert_eq!(wrong[3], Some("the checksum of IP"));
    }
}

/// Dialogs by one family and mode, first without loss and then with it.
fn nothing_is_wrong(from: &str, to: &str, after_greeting: &str) {
    let tshark = Root::install("tshark", &["tshark"]);
    let nft = Nft::install();
    let (lab, _program) = lab();
    let agent = agent(&lab, after_greeting);
    let holds = after_greeting == "hold";
    let capture = Capture::start(&lab.client, CLIENT_INTERFACE);
    let dialogs: &[&[&str]] = if holds { &DIALOGS } else { &[&[]] };
    for dialog in dialogs {
        let heard = speak(connect(&lab, to), dialog);
        assert!(heard.starts_with("521 "), "{heard}");
    }
    if holds {
        third_party(&lab, &agent, from, to);
    }
    let frames = of_tcp(capture.stop());
    let codes: &[&str] = if holds { &["521", "221"] } else { &["521"] };
    let decoded = decode(&tshark, &lab, &frames);
    judge(&format!("{to}, {after_greeting}"), &decoded, codes);
    let resets = decoded
        .iter()
        .filter(|frame| frame.is_from_host() && frame.field("tcp.flags.str").contains('R'));
    assert_eq!(resets.count() > 0, holds, "the third party is reset");
    let greeting = decoded
        .iter()
        .position(|frame| frame.field("smtp.response.code") == "521");
    the_decoder_sees_what_is_wrong(&tshark, &lab, &frames[greeting.unwrap()]);

    // Behind where frames are captured each third of the host is lost, so that it
    // has to say some again; never both bare SYNs of a client.
    nft.load(
        &lab.client,
        "table inet test {
            chain input { type filter hook input priority 0; policy accept;
                tcp sport 25 numgen inc mod 3 == 2 drop; } }",
    );
    let capture = Capture::start(&lab.client, CLIENT_INTERFACE);
    for _ in 0..CONNECTIONS_WITH_LOSS {
        let heard = speak(connect(&lab, to), dialogs[0]);
        assert!(heard.starts_with("521 "), "{heard}");
    }
    let frames = of_tcp(capture.stop());
    let decoded = decode(&tshark, &lab, &frames);
    judge(&format!("{to}, {after_greeting}, loss"), &decoded, codes);
    let repeated = repeated(&decoded);
    println!("{to}, {after_greeting}: {repeated} texts were said again");
    assert!(repeated > 0, "nothing was said again");
    agent.stop();
}

#[test]
fn nothing_is_wrong_with_dialogs_that_are_held_ipv4() {
    nothing_is_wrong("192.0.2.101", HOST_IPV4, "hold");
}

#[test]
fn nothing_is_wrong_with_dialogs_that_are_held_ipv6() {
    nothing_is_wrong("2001:db8::100", HOST_IPV6, "hold");
}

#[test]
fn nothing_is_wrong_with_a_greeting_alone_ipv4() {
    nothing_is_wrong("192.0.2.101", HOST_IPV4, "close");
}

#[test]
fn nothing_is_wrong_with_a_greeting_alone_ipv6() {
    nothing_is_wrong("2001:db8::100", HOST_IPV6, "close");
}
