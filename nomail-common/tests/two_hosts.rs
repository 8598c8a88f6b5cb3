//! Two hosts with nomail that face each other: whatever a third one forges between them, they
//! come to rest.
//!
//! Each is the whole answer logic (challenge, cookie, tickets, the stateless refusal,
//! retransmissions) over memory of its own, and a network stack that resets what it does not
//! know. Up to [`FORGED`] segments are let in, in every order, each after the hosts have come
//! to rest or all at once; then no more than [`REST_WITHIN`] packets may follow.

#![allow(clippy::unwrap_used, reason = "helpers of tests, too")]

use std::{
    cell::{Cell, RefCell},
    collections::{HashMap, VecDeque},
};

use nomail_common::{
    abi::{COMMANDS_MAX, Config, Guarded, MAX_PORTS, TICKETS_PER_LINE, Texts},
    guard::challenge::TupleHash,
    guard::limiter::Time,
    guard::policy::{self, Action, Facts, FloodAnswer, Server},
    guard::tickets::{self, Answered, Proof, Ticket, TicketSet},
    reach::Reach,
    siphash::{Key, siphash},
    source::Source,
    stateless::dialog::{self, Environment, PeerKey, Reaction, Received},
    stateless::dialog_state::DialogState,
    stateless::line_scan::LineScan,
    stateless::retransmit::{FRAME_LENGTH, Missing, Retransmission},
    wire::packet::{Address, IPV6, Kind, PLAIN, Segment},
};

/// Segments that are forged, at most.
const FORGED: usize = 6;
/// Packets that may follow, each an answer to one before: one or two of each host for each
/// that was forged, and the retransmissions.
const REST_WITHIN: usize = 8 * FORGED;

const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;
const HARDWARE: [u8; 6] = [2, 0, 0, 0, 0, 2];
const TICKS: u32 = 2500;
const JIFFIES: u64 = 1 << 34;
const TEXTS: [&str; 3] = [
    "521 mailless.example.org does not accept mail\r\n",
    "521 5.3.2 mailless.example.org does not accept mail\r\n",
    "221 2.0.0 mailless.example.org closing connection\r\n",
];

/// How a host answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// A listener, and a flood goes on: every SYN is challenged.
    Challenge,
    /// The same with SYN cookies.
    Cookie,
    /// A listener, and SYNs pass.
    Listener,
    /// The stateless refusal, also in a listener's place.
    Xdp,
}

const MODES: [Mode; 4] = [Mode::Challenge, Mode::Cookie, Mode::Listener, Mode::Xdp];

/// A packet to the host of this index; the other one is its sender.
#[derive(Clone, Debug)]
struct Packet {
    to: usize,
    sequence: u32,
    acknowledgment: u32,
    flags: u8,
    text: Vec<u8>,
}

#[derive(Clone, Default)]
struct Line([Cell<u64>; TICKETS_PER_LINE]);

impl TicketSet for Line {
    fn ticket(&self, place: usize) -> Ticket {
        Ticket(self.0[place].get())
    }
    fn write(&self, place: usize, ticket: Ticket) {
        self.0[place].set(ticket.0);
    }
}

/// A connection of the network stack's, by what the peer has yet to acknowledge.
#[derive(Clone, Copy)]
struct Socket {
    established: bool,
    sequence: u32,
    next: u32,
    commands: u32,
}

#[derive(Clone)]
struct Machine {
    index: usize,
    mode: Mode,
    key: Key,
    /// What both sides of the wire have in common, seen from here.
    base: Segment,
    hash: TupleHash,
    ports: [u16; MAX_PORTS],
    config: std::rc::Rc<Config>,
    texts: std::rc::Rc<Texts>,
    tickets: Line,
    dialogs: RefCell<HashMap<u32, DialogState>>,
    retransmissions: Vec<Retransmission>,
    socket: Option<Socket>,
    /// Of the segment that is being looked at.
    payload: Vec<u8>,
    segment: Segment,
    sent: usize,
}

fn address(host: usize, ipv6: bool) -> Address {
    if ipv6 {
        Address {
            high: 0x2001_0db8 << 32,
            low: host as u64 + 1,
        }
    } else {
        Address::from_ipv4(0xc633_6401 + host as u32)
    }
}

impl Machine {
    fn new(index: usize, mode: Mode, ipv6: bool, own: [u16; 2], ports: [u16; 2]) -> Self {
        let [port, peer_port] = own;
        let (local, peer) = (address(index, ipv6), address(1 - index, ipv6));
        let base = Segment {
            peer,
            local,
            peer_port,
            port,
            flags: PLAIN | if ipv6 { IPV6 } else { 0 },
            network: 14,
            ..Segment::NONE
        };
        let key = Key(index as u64 + 1, 0x5eed);
        let mut config = Config::EMPTY;
        config.hardware[0][..6].copy_from_slice(&HARDWARE);
        let pairs: Vec<_> = ports
            .into_iter()
            .filter(|&port| port != 0)
            .map(|port| Guarded {
                address: local,
                port,
                vlan: 0,
                number: 0,
            })
            .collect();
        assert!(config.set_guarded(&pairs, 1..1000));
        assert!(config.set_own(&[local], 1..1000));
        let [greeting, refusal, goodbye] = TEXTS.map(str::as_bytes);
        Self {
            index,
            mode,
            key,
            base,
            hash: TupleHash::of(&base, key),
            ports: [ports[0], ports[1], 0, 0],
            config: config.into(),
            texts: Texts::new(greeting, refusal, goodbye).unwrap().into(),
            tickets: Line::default(),
            dialogs: RefCell::default(),
            retransmissions: Vec::new(),
            socket: None,
            payload: Vec::new(),
            segment: base,
            sent: 0,
        }
    }

    fn packet(&self, flags: u8, sequence: u32, acknowledgment: u32, text: &[u8]) -> Packet {
        Packet {
            to: 1 - self.index,
            sequence,
            acknowledgment,
            flags,
            text: text.to_vec(),
        }
    }

    fn flood_answer(&self) -> FloodAnswer {
        match self.mode {
            Mode::Cookie => FloodAnswer::Cookie,
            _ => FloodAnswer::Challenge,
        }
    }

    fn peer(&self) -> PeerKey {
        PeerKey {
            hash: self.hash,
            key: self.key,
            slot: 7,
        }
    }

    fn reach(&self) -> Reach {
        let guarded = self
            .config
            .guarded(self.base.local, self.base.port)
            .unwrap();
        let hardware = [HARDWARE, [2, 0, 0, 0, 0, 1]];
        let (config, ports) = (&self.config, &self.ports);
        Reach::of(
            &self.segment,
            guarded,
            config,
            Some(0),
            hardware,
            ports,
            |entry, to| config.is_further_hardware(entry, to),
        )
    }

    /// What comes of a packet.
    fn take(&mut self, packet: &Packet) -> Vec<Packet> {
        let dialogs = self.mode == Mode::Xdp;
        let flags = packet.flags;
        let kind = if flags & (SYN | ACK) == SYN {
            Kind::Syn
        } else if flags & (SYN | RST) == RST && (dialogs || flags & ACK == 0) {
            Kind::Reset
        } else if dialogs && flags & (RST | ACK) == ACK {
            Kind::Dialog
        } else {
            return self.stack(packet);
        };
        self.segment = Segment {
            sequence: packet.sequence,
            kind,
            ..self.base
        };
        self.payload.clone_from(&packet.text);
        let answered = match kind {
            Kind::Syn => self.syn(),
            Kind::Reset => self.reset(packet),
            _ => self.dialog(packet),
        };
        match answered {
            Some(packets) => packets,
            None => self.stack(packet),
        }
    }

    /// None: it passes.
    fn syn(&mut self) -> Option<Vec<Packet>> {
        let server = match self.mode {
            Mode::Xdp => Server::Xdp,
            _ => Server::Listeners,
        };
        let decision = policy::decide(self);
        match policy::action(decision, server, false) {
            Action::Pass => None,
            Action::Drop => Some(Vec::new()),
            Action::Answer => self.challenge(decision.proof),
            Action::Respond if self.reach() == Reach::Yes => {
                let (segment, peer) = (self.segment, self.peer());
                let reply = dialog::greet_syn(self, &segment, peer, 0);
                Some(vec![self.said(&reply)])
            }
            Action::Respond => None,
        }
    }

    fn challenge(&mut self, proof: Proof) -> Option<Vec<Packet>> {
        if self.reach() != Reach::Yes {
            return None;
        }
        let sequence = self.segment.sequence;
        let (ours, acknowledgment) = match self.flood_answer() {
            FloodAnswer::Cookie => (siphash(self.key, [77]) as u32, sequence.wrapping_add(1)),
            _ => {
                let round = proof.round();
                (0, self.hash.acknowledgment(sequence, 7, round))
            }
        };
        Some(vec![self.packet(SYN | ACK, ours, acknowledgment, b"")])
    }

    fn reset(&mut self, packet: &Packet) -> Option<Vec<Packet>> {
        let answered = if self.flood_answer() == FloodAnswer::Challenge
            && !self.ports.contains(&self.base.peer_port)
        {
            let (line, hash, now) = (&self.tickets, self.hash, JIFFIES as u32);
            tickets::reset(line, false, hash, packet.sequence, 7, now, TICKS)
        } else {
            Answered::Not
        };
        if answered.is_right() {
            return Some(Vec::new());
        }
        if self.mode == Mode::Xdp && self.reach() == Reach::Yes {
            let (segment, peer) = (self.segment, self.peer());
            dialog::reset(self, &segment, &received(packet), peer);
        }
        None
    }

    fn dialog(&mut self, packet: &Packet) -> Option<Vec<Packet>> {
        if self.reach() != Reach::Yes {
            return None;
        }
        let (segment, peer) = (self.segment, self.peer());
        match dialog::respond(self, &segment, &received(packet), peer) {
            Reaction::Foreign => None,
            Reaction::Silence => Some(Vec::new()),
            Reaction::Say(reply, _) => Some(vec![self.said(&reply)]),
        }
    }

    fn said(&self, reply: &dialog::ReplySegment) -> Packet {
        let [greeting, refusal, goodbye] = TEXTS;
        let text = [
            greeting.repeat(reply.greeting as usize),
            refusal.repeat(reply.refusals as usize),
            goodbye.repeat(reply.goodbye as usize),
        ];
        let flags = reply.flags as u8;
        self.packet(
            flags,
            reply.sequence,
            reply.acknowledgment,
            text.concat().as_bytes(),
        )
    }

    /// The network stack, with a listener that greets with 521 and refuses line by line.
    fn stack(&mut self, packet: &Packet) -> Vec<Packet> {
        let Packet {
            flags,
            sequence,
            acknowledgment,
            ..
        } = *packet;
        let listens = self.mode != Mode::Xdp;
        let reset = |with: bool| {
            if with {
                self.packet(RST | ACK, 0, sequence.wrapping_add(1), b"")
            } else {
                self.packet(RST, acknowledgment, 0, b"")
            }
        };
        if flags & RST != 0 {
            self.socket = None;
            return Vec::new();
        }
        if flags & (SYN | ACK) == SYN {
            if !listens {
                return vec![reset(true)];
            }
            let isn = siphash(self.key, [u64::from(sequence)]) as u32;
            self.socket = Some(Socket {
                established: false,
                sequence: isn.wrapping_add(1),
                next: sequence.wrapping_add(1),
                commands: 0,
            });
            return vec![self.packet(SYN | ACK, isn, sequence.wrapping_add(1), b"")];
        }
        let Some(mut socket) = self.socket else {
            return vec![reset(false)];
        };
        if flags & SYN != 0 || acknowledgment != socket.sequence || sequence != socket.next {
            return vec![reset(false)];
        }
        let lines = packet.text.iter().filter(|&&octet| octet == b'\n').count();
        let [greeting, refusal, _] = TEXTS;
        let mut text = String::new();
        if !socket.established {
            socket.established = true;
            text.push_str(greeting);
        }
        for _ in 0..lines {
            socket.commands += 1;
            if socket.commands <= COMMANDS_MAX {
                text.push_str(refusal);
            }
        }
        socket.next = sequence.wrapping_add(packet.text.len() as u32);
        let said = self.packet(ACK, socket.sequence, socket.next, text.as_bytes());
        socket.sequence = socket.sequence.wrapping_add(text.len() as u32);
        self.socket = Some(socket);
        if text.is_empty() && packet.text.is_empty() {
            return Vec::new();
        }
        vec![said]
    }

    /// What the agent retransmits.
    fn tick(&mut self) -> Vec<Packet> {
        let mut packets = Vec::new();
        for dialog in &self.retransmissions {
            let found = self.dialog_state(dialog.index);
            let (flags, sequence, text) = match dialog.missing(found) {
                Missing::Nothing => continue,
                Missing::SynAck => (SYN | ACK, dialog.acknowledgment.wrapping_sub(1), ""),
                Missing::Greeting => (ACK, dialog.acknowledgment, TEXTS[0]),
            };
            let next = (dialog.state as u32).wrapping_add(1);
            packets.push(self.packet(flags, sequence, next, text.as_bytes()));
        }
        packets
    }
}

fn received(packet: &Packet) -> Received {
    Received {
        acknowledgment: packet.acknowledgment,
        payload: 0,
        length: packet.text.len() as u32,
        flags: u32::from(packet.flags),
    }
}

impl Facts for Machine {
    fn malformed(&mut self) -> bool {
        false
    }
    fn allowed(&mut self) -> bool {
        false
    }
    fn denied(&mut self) -> bool {
        false
    }
    fn proof(&mut self) -> Proof {
        if self.flood_answer() == FloodAnswer::Challenge {
            let sequence = self.segment.sequence;
            let (line, now) = (&self.tickets, JIFFIES as u32);
            tickets::proof_of(line, self.hash, sequence, now, TICKS)
        } else {
            Proof::None
        }
    }
    fn admit(&mut self) {
        tickets::admit(&self.tickets, self.hash, JIFFIES as u32, TICKS);
    }
    fn over_source(&mut self, _proven: bool) -> bool {
        false
    }
    fn over_prefix(&mut self, _proven: bool) -> bool {
        false
    }
    fn over_cap(&mut self) -> bool {
        matches!(self.mode, Mode::Challenge | Mode::Cookie)
    }
}

impl Environment for Machine {
    fn texts(&self, generation: u32) -> Option<&Texts> {
        (generation == 0).then_some(&*self.texts)
    }
    fn is_proven(&mut self, sequence: u32) -> bool {
        let (line, now) = (&self.tickets, JIFFIES as u32);
        tickets::proof_of(line, self.hash, sequence, now, TICKS).is_proven()
    }
    fn dialog_state(&self, index: u32) -> DialogState {
        self.dialogs
            .borrow()
            .get(&index)
            .copied()
            .unwrap_or_default()
    }
    fn set_dialog_state(&mut self, index: u32, state: DialogState) {
        self.dialogs.borrow_mut().insert(index, state);
    }
    fn request_retransmission(
        &mut self,
        segment: &Segment,
        index: u32,
        state: DialogState,
        acknowledgment: u32,
    ) {
        assert_eq!(segment.sequence, state.0 as u32);
        self.retransmissions.push(Retransmission {
            state: state.0,
            index,
            interface: 0,
            acknowledgment,
            network: 14,
            frame: [0; FRAME_LENGTH],
        });
    }
    fn scan(&mut self, _start: u32, until: u32, mut scan: LineScan) -> Option<LineScan> {
        while scan.scanned() < until && !scan.is_over() {
            scan = scan.take(self.payload[scan.scanned() as usize]);
        }
        Some(scan)
    }
}

/// Both, and what is on its way.
#[derive(Clone)]
struct Wire {
    hosts: [Machine; 2],
    flight: VecDeque<Packet>,
    delivered: usize,
}

impl Wire {
    fn new(modes: [Mode; 2], ipv6: bool, own: [u16; 2], ports: [[u16; 2]; 2]) -> Self {
        let [one, other] = own;
        Self {
            hosts: [
                Machine::new(0, modes[0], ipv6, [one, other], ports[0]),
                Machine::new(1, modes[1], ipv6, [other, one], ports[1]),
            ],
            flight: VecDeque::new(),
            delivered: 0,
        }
    }

    /// Delivers all; whether they come to rest within so many packets.
    fn rests(&mut self, within: usize) -> bool {
        for _ in 0..=within {
            let Some(packet) = self.flight.pop_front() else {
                return true;
            };
            self.delivered += 1;
            let to = packet.to;
            let answers = self.hosts[to].take(&packet);
            self.hosts[to].sent += answers.len();
            self.flight.extend(answers);
        }
        false
    }

    /// Comes to rest, also after all retransmissions.
    fn ends(&mut self) -> bool {
        let mut rests = self.rests(REST_WITHIN);
        for _ in 0..3 {
            for host in 0..2 {
                let retransmitted = self.hosts[host].tick();
                self.flight.extend(retransmitted);
            }
            rests &= self.rests(REST_WITHIN);
        }
        rests
    }
}

/// What can be forged without having seen anything: to either host, two SYNs and a
/// segment with a text.
fn forgeries() -> Vec<Packet> {
    let kinds = [
        (SYN, 0x1000_0000, ""),
        (SYN, 0x7654_3210, ""),
        (ACK, 0x1000_0001, "NOOP\r\n"),
    ];
    let both = [0, 1].into_iter().flat_map(|to| {
        kinds.map(|(flags, sequence, text)| Packet {
            to,
            sequence,
            acknowledgment: 0,
            flags,
            text: text.as_bytes().to_vec(),
        })
    });
    both.collect()
}

/// Every order of up to `left` forged segments after what `wire` has seen.
fn try_all(wire: &Wire, at_once: bool, left: usize, history: &mut Vec<usize>, most: &mut usize) {
    for (number, forged) in forgeries().into_iter().enumerate() {
        let mut next = wire.clone();
        next.flight.push_back(forged);
        history.push(number);
        if !at_once {
            assert!(next.rests(REST_WITHIN), "no rest after {history:?}");
        }
        let mut last = next.clone();
        let before = last.delivered;
        assert!(last.ends(), "no rest after {history:?}");
        *most = (*most).max(last.delivered - before);
        if left > 1 {
            try_all(&next, at_once, left - 1, history, most);
        }
        history.pop();
    }
}

/// Both have both ports, or each its own: then no port of the other is known to be one
/// where a machine answers.
const PORTS: [[[u16; 2]; 2]; 2] = [[[25, 2525], [25, 2525]], [[25, 0], [2525, 0]]];

fn all_orders(modes: [Mode; 2], depth: usize) {
    for ipv6 in [false, true] {
        for ports in PORTS {
            for at_once in [false, true] {
                let wire = Wire::new(modes, ipv6, [25, 2525], ports);
                let mut most = 0;
                try_all(&wire, at_once, depth, &mut Vec::new(), &mut most);
                println!("{modes:?} {ports:?}, IPv6 {ipv6}, at once {at_once}: {most}");
            }
        }
    }
}

#[test]
fn two_responders_come_to_rest() {
    all_orders([Mode::Xdp, Mode::Xdp], FORGED);
}

#[test]
fn every_mode_against_every_other_comes_to_rest() {
    for (index, one) in MODES.into_iter().enumerate() {
        for other in MODES.into_iter().skip(index) {
            all_orders([one, other], 4);
        }
    }
}

/// The third party's own source, and its RSTs: it never gets more packets than came.
#[test]
fn a_victim_gets_no_more_than_came() {
    for ipv6 in [false, true] {
        // The victim listens on nothing: its port is closed, and its stack resets.
        let wire = Wire::new(
            [Mode::Xdp, Mode::Xdp],
            ipv6,
            [25, 40_000],
            [[25, 0], [2525, 0]],
        );
        for forged in 1..=12 {
            let mut wire = wire.clone();
            for _ in 0..forged {
                wire.flight.push_back(forgeries().swap_remove(0));
                // Its stack alone, without any XDP.
                while let Some(packet) = wire.flight.pop_front() {
                    let to = packet.to;
                    let answers = if to == 0 {
                        wire.hosts[0].take(&packet)
                    } else {
                        wire.hosts[1].stack(&packet)
                    };
                    wire.hosts[to].sent += answers.len();
                    wire.flight.extend(answers);
                }
            }
            let sent: usize = (0..3).map(|_| wire.hosts[0].tick().len()).sum();
            assert_eq!(sent, 0, "after {forged}");
            assert!(
                wire.hosts[0].sent <= forged,
                "{} after {forged}",
                wire.hosts[0].sent
            );
        }
    }
}

/// A client's firewall may drop a bare SYN, or reject it with a RST: the SYN-ACK comes.
#[test]
fn a_client_that_takes_no_bare_syn_is_served() {
    let sequence = 0x1000_0000;
    let from_client = |flags, sequence, acknowledgment| Packet {
        to: 0,
        sequence,
        acknowledgment,
        flags,
        text: Vec::new(),
    };
    for rejects in [false, true] {
        let mut machine = Machine::new(0, Mode::Xdp, false, [25, 40_000], [25, 0]);
        let mut syns = 0;
        loop {
            syns += 1;
            assert!(syns <= 4, "rejects {rejects}");
            let answers = machine.take(&from_client(SYN, sequence, 0));
            let answer = answers.first().unwrap();
            let reply = match answer.flags {
                SYN if rejects => from_client(RST | ACK, 0, answer.sequence.wrapping_add(1)),
                SYN => continue,
                _ if answer.acknowledgment == sequence + 1 => break,
                _ => from_client(RST, answer.acknowledgment, 0),
            };
            machine.take(&reply);
        }
    }
}

#[test]
fn sources_are_of_hosts() {
    let wire = Wire::new([Mode::Xdp; 2], false, [25, 2525], PORTS[0]);
    assert_eq!(wire.hosts[0].base.source(), Source::from_ipv4(0xc633_6402));
    let time = Time::from_jiffies(JIFFIES);
    assert_eq!(time.since(time), 0);
}
