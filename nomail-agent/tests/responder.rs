//! The stateless dialog against that of the listener: both say the same to random commands,
//! cut into random segments, lost, repeated and out of order.

#![allow(clippy::unwrap_used, reason = "helpers of tests, too")]

use nomail_agent::{
    refusal::{AfterGreeting, RefusalPoint},
    smtp::{Dialog, Replies, replies::Reply as Text},
};
use nomail_common::{
    abi::{DIALOG_ENTRIES, TEXT_MAX, Texts, WINDOW},
    guard::challenge::TupleHash,
    siphash::Key,
    stateless::dialog::{self, Environment, PeerKey, Reaction, Received, ReplySegment},
    stateless::dialog_state::DialogState,
    stateless::line_scan::LineScan,
    wire::packet::{Address, IPV6, Kind, PLAIN, Segment},
};
use proptest::{collection::vec, prelude::*};

const HOST: &str = "mailless.example.org";
const KEY: Key = Key(1, 2);
const ISN: u32 = 0xffff_ff80;
const SYN: u32 = 2;
const FIN: u32 = 1;
const ACK: u32 = 0x10;
/// Where the payload is said to be in the frame.
const PAYLOAD: u32 = 54;

/// What the kernel does for the stateless dialog.
struct Model {
    texts: Texts,
    table: Vec<DialogState>,
    /// The table keeps nothing.
    forgets: bool,
    proven: u32,
    payload: Vec<u8>,
}

impl Environment for Model {
    fn texts(&self, generation: u32) -> Option<&Texts> {
        (generation == 0).then_some(&self.texts)
    }

    fn is_proven(&mut self, sequence: u32) -> bool {
        sequence == self.proven
    }

    fn dialog_state(&self, index: u32) -> DialogState {
        self.table[index as usize]
    }

    fn set_dialog_state(&mut self, index: u32, state: DialogState) {
        if !self.forgets {
            self.table[index as usize] = state;
        }
    }

    fn request_retransmission(&mut self, _: &Segment, _: u32, _: DialogState, _: u32) {}

    fn scan(&mut self, start: u32, until: u32, scan: LineScan) -> Option<LineScan> {
        assert_eq!(start, PAYLOAD);
        assert!(until as usize <= WINDOW);
        let mut scan = scan;
        for &byte in self
            .payload
            .get(..until as usize)?
            .iter()
            .skip(scan.scanned() as usize)
        {
            if scan.is_over() {
                break;
            }
            scan = scan.take(byte);
        }
        Some(scan)
    }
}

/// A client as RFC 9293 has it, which has begun a dialog.
struct Client {
    model: Model,
    slot: u32,
    cookie: u32,
    stream: Vec<u8>,
    /// Bytes of the stream that are acknowledged, and that were sent.
    acknowledged: usize,
    sent: usize,
    heard: Vec<u8>,
    over: bool,
    /// Segments of the client that have not arrived: index in the stream, length, what they
    /// acknowledge.
    out: Vec<(usize, usize, u32)>,
    /// Answers that have not arrived.
    coming: Vec<(ReplySegment, Vec<u8>)>,
}

fn replies() -> Replies {
    Replies::new(HOST, None).unwrap()
}

fn texts(replies: &Replies) -> Texts {
    let [greeting, refusal, goodbye] =
        [Text::Greeting, Text::Refusal, Text::Goodbye].map(|text| replies.line(text));
    Texts::new(greeting, refusal, goodbye).unwrap()
}

fn segment(kind: Kind, sequence: u32) -> Segment {
    Segment {
        peer: Address { high: 1, low: 2 },
        local: Address { high: 3, low: 4 },
        sequence,
        network: 14,
        peer_port: 40_000,
        port: 25,
        vlan: 0,
        kind,
        flags: IPV6 | PLAIN,
    }
}

impl Client {
    fn begin(stream: Vec<u8>, forgets: bool) -> Self {
        let model = Model {
            texts: texts(&replies()),
            table: vec![DialogState::default(); DIALOG_ENTRIES as usize],
            forgets,
            proven: ISN,
            payload: Vec::new(),
        };
        let mut client = Self {
            model,
            slot: 7,
            cookie: 0,
            stream,
            acknowledged: 0,
            sent: 0,
            heard: Vec::new(),
            over: false,
            out: Vec::new(),
            coming: Vec::new(),
        };
        let syn = segment(Kind::Syn, ISN);
        let peer = client.peer(&syn);
        let answer = dialog::greet_syn(&mut client.model, &syn, peer, 0);
        assert_eq!((answer.flags, answer.acknowledgment), (SYN, 0));
        client.cookie = answer.sequence;
        // The SYN-ACK of the simultaneous open.
        let here = client.cookie.wrapping_add(1);
        client.arrive(SYN | ACK, ISN, here, &[]);
        let (greeting, text) = client.coming.pop().unwrap();
        assert_eq!(greeting.acknowledgment, ISN.wrapping_add(1));
        client.heard = text;
        client
    }

    fn peer(&self, segment: &Segment) -> PeerKey {
        PeerKey {
            hash: TupleHash::of(segment, KEY),
            key: KEY,
            slot: self.slot,
        }
    }

    fn acknowledgment(&self) -> u32 {
        let heard = self.heard.len() as u32 + u32::from(self.over);
        self.cookie.wrapping_add(1 + heard)
    }

    /// A segment reaches the host.
    fn arrive(&mut self, flags: u32, sequence: u32, acknowledgment: u32, payload: &[u8]) {
        let segment = segment(Kind::Dialog, sequence);
        let received = Received {
            acknowledgment,
            payload: PAYLOAD,
            length: payload.len() as u32,
            flags,
        };
        self.model.payload = payload.to_vec();
        let peer = self.peer(&segment);
        match dialog::respond(&mut self.model, &segment, &received, peer) {
            Reaction::Say(reply, generation) => {
                assert_eq!(generation, 0);
                let texts = &self.model.texts;
                let mut said = Vec::new();
                for (text, times) in [
                    (&texts.greeting, reply.greeting),
                    (&texts.refusal, reply.refusals),
                    (&texts.goodbye, reply.goodbye),
                ] {
                    let octets = &text.bytes[..text.length as usize];
                    said.extend(octets.repeat(times as usize));
                }
                assert!(said.len() <= TEXT_MAX);
                assert_eq!(said.len() as u32, reply.text_length(texts));
                assert_eq!(sum(&said), fold(reply.text_sum(texts)));
                self.coming.push((reply, said));
            }
            Reaction::Silence => {}
            Reaction::Foreign => panic!("it is of the dialog"),
        }
    }

    /// Sends bytes of the stream, again or for the first time.
    fn send(&mut self, from: usize, length: usize) {
        let window = self.acknowledged + WINDOW;
        let until = (from + length).min(self.stream.len()).min(window);
        if from < until {
            self.out.push((from, until - from, self.acknowledgment()));
            self.sent = self.sent.max(until);
        }
    }

    /// One of the segments on the way arrives.
    fn deliver(&mut self, index: usize, again: bool) {
        let (from, length, acknowledgment) = self.out[index];
        if !again {
            self.out.remove(index);
        }
        let payload = self.stream[from..from + length].to_vec();
        let sequence = ISN.wrapping_add(1 + from as u32);
        self.arrive(ACK, sequence, acknowledgment, &payload);
    }

    /// One of the answers on the way arrives.
    fn hear(&mut self, index: usize) {
        let (reply, text) = self.coming.remove(index);
        let fin = reply.flags & FIN != 0;
        let begins = reply.sequence.wrapping_sub(self.cookie.wrapping_add(1)) as usize;
        let now = self.heard.len() + usize::from(self.over);
        let ends = begins + text.len() + usize::from(fin);
        let acceptable = begins <= now && (ends > now || (ends == begins && begins == now));
        if !acceptable {
            return;
        }
        let known = self.heard.len() - begins;
        self.heard
            .extend_from_slice(text.get(known..).unwrap_or_default());
        self.over |= fin;
        let acknowledged = reply.acknowledgment.wrapping_sub(ISN.wrapping_add(1)) as usize;
        assert!(acknowledged <= self.sent, "an unsent byte is acknowledged");
        self.acknowledged = self.acknowledged.max(acknowledged);
    }

    /// From here on nothing is lost.
    fn finish(&mut self) {
        for _ in 0..10_000 {
            while !self.out.is_empty() {
                self.deliver(0, false);
            }
            while !self.coming.is_empty() {
                self.hear(0);
            }
            if self.over || self.acknowledged == self.stream.len() {
                return;
            }
            self.send(self.acknowledged, WINDOW);
        }
        panic!("{} of {} bytes", self.acknowledged, self.stream.len());
    }
}

fn sum(text: &[u8]) -> u32 {
    let pairs = text.chunks(2).map(|pair| {
        let low = pair.get(1).copied().unwrap_or_default();
        u32::from(u16::from_be_bytes([pair[0], low]))
    });
    fold(pairs.sum())
}

fn fold(sum: u32) -> u32 {
    let sum = (sum & 0xffff) + (sum >> 16);
    (sum & 0xffff) + (sum >> 16)
}

/// What the listener says to all of it, and whether it closes. To a line that ends with LF
/// alone XDP has no reply of its own: there it says the refusal.
fn listener(input: &[u8]) -> (Vec<u8>, bool) {
    let replies = replies();
    let (mut dialog, first) = Dialog::open(RefusalPoint::Greeting, AfterGreeting::Hold, &replies);
    let mut said = first.line.to_vec();
    let mut rest = input;
    while !rest.is_empty() {
        let (taken, action) = dialog.receive(&replies, rest);
        rest = &rest[taken..];
        if let Some(action) = action {
            said.extend_from_slice(match action.line {
                line if line == replies.line(Text::BareLf) => replies.line(Text::Refusal),
                line => line,
            });
            if action.end.is_some() {
                return (said, true);
            }
        }
    }
    (said, false)
}

fn lines() -> impl Strategy<Value = Vec<u8>> {
    let line = prop_oneof![
        4 => Just(b"EHLO client.example.org\r\n".to_vec()),
        2 => Just(b"MAIL FROM:<>\r\n".to_vec()),
        1 => Just(b"\r\n".to_vec()),
        1 => Just(b" QUIT\r\n".to_vec()),
        1 => Just(b"QUIT\r\r\n".to_vec()),
        1 => Just(b"QUI\r\n".to_vec()),
        1 => Just(b"QUITT\r\n".to_vec()),
        1 => Just(b"\rQUIT\r\n".to_vec()),
        1 => Just(b"QUIT\rx\r\n".to_vec()),
        1 => Just(b"a\xfc\r\n".to_vec()),
        1 => (500usize..520).prop_map(|length| [b"QUIT".to_vec(), vec![b' '; length], b"\r\n".to_vec()].concat()),
        1 => (0usize..1500).prop_map(|length| [vec![b'x'; length], b"\r\n".to_vec()].concat()),
        1 => Just(b"QUIT\n".to_vec()),
        1 => Just(b"qUiT\r\n".to_vec()),
        1 => Just(b"QUIT now\r or later \r\n".to_vec()),
        1 => Just(vec![0x16, 0x03, 0x01]),
        1 => Just(b"\x80".to_vec()),
        1 => Just(b"a\0".to_vec()),
        1 => vec(prop::sample::select(b"QUIT\r\n \tx".to_vec()), 0..12),
    ];
    let stream = vec(line, 0..12).prop_map(|lines| lines.concat());
    prop_oneof![
        3 => stream.clone().prop_map(with_crlf_only),
        1 => stream,
    ]
}

/// Without an LF alone, which ends the dialog.
fn with_crlf_only(mut stream: Vec<u8>) -> Vec<u8> {
    let mut after_cr = false;
    for octet in &mut stream {
        if *octet == b'\n' && !after_cr {
            *octet = b'x';
        }
        after_cr = *octet == b'\r';
    }
    stream
}

/// What happens to the segments of either side.
#[derive(Clone, Copy, Debug)]
enum Event {
    Send(usize),
    SendAgain(usize),
    Deliver(usize, bool),
    Lose(usize),
    Hear(usize),
    LoseAnswer(usize),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    vec(
        prop_oneof![
            6 => (1usize..40).prop_map(Event::Send),
            3 => (1usize..600).prop_map(Event::SendAgain),
            6 => (0usize..1000, any::<bool>())
                .prop_map(|(index, again)| Event::Deliver(index, again)),
            1 => (0usize..1000).prop_map(Event::Lose),
            6 => (0usize..1000).prop_map(Event::Hear),
            1 => (0usize..1000).prop_map(Event::LoseAnswer),
        ],
        0..120,
    )
}

proptest! {
    #[test]
    fn says_what_the_listener_says_in_pieces_of_any_size(
        stream in lines(),
        events in events(),
        slot_after in 0usize..200,
    ) {
        let (said, closes) = listener(&stream);
        let mut client = Client::begin(stream, false);
        for (number, event) in events.into_iter().enumerate() {
            if number == slot_after {
                client.slot += 1;
            }
            match event {
                _ if client.over => break,
                Event::Send(length) => client.send(client.sent, length),
                Event::SendAgain(length) => client.send(client.acknowledged, length),
                Event::Deliver(index, again) if !client.out.is_empty() => {
                    client.deliver(index % client.out.len(), again);
                }
                Event::Lose(index) if !client.out.is_empty() => {
                    client.out.remove(index % client.out.len());
                }
                Event::Hear(index) if !client.coming.is_empty() => {
                    client.hear(index % client.coming.len());
                }
                Event::LoseAnswer(index) if !client.coming.is_empty() => {
                    client.coming.remove(index % client.coming.len());
                }
                _ => {}
            }
        }
        client.finish();
        prop_assert_eq!(String::from_utf8_lossy(&client.heard), String::from_utf8_lossy(&said));
        prop_assert_eq!(client.over, closes);
    }

    /// Without a table: a client that waits for the reply to each command, as every
    /// client does that was not offered pipelining.
    #[test]
    fn a_client_that_waits_needs_no_memory(commands in vec("[A-Za-z ]{0,60}", 0..20)) {
        let lines: Vec<_> = commands.iter().map(|command| format!("{command}\r\n")).collect();
        let stream = lines.concat().into_bytes();
        let (said, closes) = listener(&stream);
        let mut client = Client::begin(stream, true);
        for line in &lines {
            if client.over {
                break;
            }
            client.send(client.acknowledged, line.len());
            // And again: the first one was late.
            client.deliver(0, true);
            client.deliver(0, false);
            while !client.coming.is_empty() {
                client.hear(0);
            }
        }
        prop_assert_eq!(String::from_utf8_lossy(&client.heard), String::from_utf8_lossy(&said));
        prop_assert_eq!(client.over, closes);
    }
}

#[test]
fn the_last_command_is_answered_and_closes() {
    let stream = "NOOP\r\n".repeat(1001).into_bytes();
    let (said, closes) = listener(&stream);
    assert!(closes);
    let mut client = Client::begin(stream, false);
    client.finish();
    assert_eq!(client.heard, said);
    assert!(client.over);
}
