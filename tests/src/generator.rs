//! Floods of SYNs, made in the kernel at millions a second: an XDP program writes a new
//! frame each time it runs. It is small, so it is assembled here.
//!
//! `BPF_PROG_TEST_RUN` with live frames puts what it redirects on the wire. The
//! same program can call another one instead, for a test run in which no two
//! frames are alike.

use std::{
    net::{IpAddr, Ipv6Addr},
    thread::sleep,
    time::{Duration, Instant},
};

use crate::foreign::{Hook, Map, Program};

const ETHERNET_LENGTH: usize = 14;
const IPV4_LENGTH: usize = 20;
const IPV6_LENGTH: usize = 40;
/// With MSS, SACK, timestamps and window scale, as Linux sends it.
const TCP_LENGTH: usize = 40;

/// Of the word of a source that is random: an IPv4 address, or the second word of
/// an IPv6 address.
const SOURCE_AT: i16 = 26;
const IPV4_SUM_AT: i16 = 24;
// In the TCP header.
const SEQUENCE_AT: i16 = 4;
const TCP_SUM_AT: i16 = 16;

/// At this rate and above, in frames a second, the program waits for each frame. A longer
/// wait would read the clock more often than the verifier allows and would occupy the CPU,
/// so the process paces slower floods.
const PACED_BY_PROGRAM_MIN: u32 = 200_000;
/// Most bursts a second of a flood that the process paces.
const BURSTS_MAX: u32 = 2000;

/// The SYNs of a flood.
#[derive(Clone, Copy, Debug)]
pub struct Syns {
    /// Sources: the bits of `source_mask` are random, the others those of `source`.
    /// The mask is of an IPv4 address, or of the second word of an IPv6 address: of
    /// which /64 it is.
    pub source: IpAddr,
    /// See `source`.
    pub source_mask: u32,
    /// Ports that they come from: this one and, at random, those above it that
    /// `port_mask` leaves.
    pub port: u16,
    /// See `port`.
    pub port_mask: u16,
    /// The sequence number is a function of the source, as if each source sent one
    /// SYN again and again. Otherwise it is random.
    pub repeated: bool,
    /// The destination, of the family of `source`; the port is 25.
    pub destination: IpAddr,
}

impl Syns {
    /// Bytes of each frame.
    pub const fn length(&self) -> usize {
        self.tcp_at() + TCP_LENGTH
    }

    const fn tcp_at(&self) -> usize {
        ETHERNET_LENGTH
            + if self.destination.is_ipv4() {
                IPV4_LENGTH
            } else {
                IPV6_LENGTH
            }
    }

    /// The word of the source that is random.
    fn source_word(&self) -> u32 {
        match self.source {
            IpAddr::V4(source) => source.to_bits(),
            IpAddr::V6(source) => (source.to_bits() >> 64) as u32,
        }
    }
}

/// Destination of each frame.
#[derive(Debug)]
pub enum Then<'a> {
    /// Sends it out of an interface, at a limited rate.
    Send {
        /// The interface's number.
        interface: u32,
        /// Frames a second at most; 0 for no limit.
        rate: u32,
    },
    /// Passes it to a program.
    Call(&'a Program),
}

/// A loaded program that makes SYNs.
#[derive(Debug)]
pub struct Generator {
    program: Program,
    length: usize,
    /// Frames a second, if the process paces them; or 0.
    rate: u32,
    // What the program uses lives as long as it does.
    _state: Map,
    _callee: Option<Map>,
}

impl Generator {
    /// Loads it.
    ///
    /// # Panics
    /// Without root.
    pub fn load(syns: &Syns, then: &Then<'_>) -> Self {
        // The state of the random numbers, and when the next frame is due.
        let state = Map::value(16);
        let callee = match then {
            Then::Call(program) => Some(Map::of_program(program)),
            Then::Send { .. } => None,
        };
        let mut code = make(syns, &state);
        let paced = match then {
            Then::Send { rate, .. } if *rate < PACED_BY_PROGRAM_MIN => *rate,
            _ => 0,
        };
        match (then, &callee) {
            (&Then::Send { interface, rate }, _) => send(&mut code, interface, rate - paced),
            (Then::Call(_), Some(callee)) => call(&mut code, callee),
            (Then::Call(_), None) => unreachable!("made above"),
        }
        Self {
            program: Program::assembled("generator", Hook::Xdp, &code.finish()),
            length: syns.length(),
            rate: paced,
            _state: state,
            _callee: callee,
        }
    }

    /// The program itself.
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// Sends `count` frames, in the time that they take at the rate of
    /// [`Then::Send`] or in more.
    pub fn send(&self, count: u32) {
        if self.rate == 0 {
            self.send_at_once(count);
            return;
        }
        let burst = (self.rate / BURSTS_MAX).max(1);
        let gap = Duration::from_secs_f64(f64::from(burst) / f64::from(self.rate));
        let mut due = Instant::now();
        let mut left = count;
        while left > 0 {
            self.send_at_once(burst.min(left));
            left = left.saturating_sub(burst);
            due += gap;
            match due.checked_duration_since(Instant::now()) {
                Some(early) => sleep(early),
                // As the program does: one that is late by more than a burst does not
                // catch up.
                None if due.elapsed() > gap => due = Instant::now(),
                None => {}
            }
        }
    }

    fn send_at_once(&self, count: u32) {
        // One byte more than is sent. A page that comes back from a receiver who
        // made the frame shorter keeps that length, unless the program changes it.
        self.program.run_live(&vec![0; self.length + 1], count);
    }

    /// Mean nanoseconds of `count` runs.
    pub fn test_run(&self, count: u32) -> f64 {
        f64::from(self.program.test_run(&vec![0; self.length], count))
    }
}

/// A program for the client's interface: of TCP only what goes to a port from
/// [`LISTENING_PORT`] on is received, so that the answers to forged SYNs end here as
/// they would elsewhere in the world; and of the rest, `loss` percent is lost.
///
/// # Panics
/// Without root.
pub fn client_filter(loss: u32) -> Program {
    let mut code = Code::default();
    code.op(MOV, 6, 1);
    code.load(WORD, 2, 6, 0);
    code.load(WORD, 3, 6, 4);
    let families = [
        (0x0800u16, 23, ETHERNET_LENGTH + IPV4_LENGTH, "not IPv4"),
        (0x86dd, 20, ETHERNET_LENGTH + IPV6_LENGTH, "keep"),
    ];
    for (ethertype, protocol_at, tcp_at, other) in families {
        let tcp_at = tcp_at as i16;
        code.op(MOV, 4, 2);
        code.op_number(ADD, 4, tcp_at + 4);
        code.jump(JUMP_GREATER, 4, 3, "keep");
        code.load(HALF, 4, 2, 12);
        code.jump_number(JUMP_UNEQUAL, 4, i32::from(ethertype.to_be()), other);
        code.load(OCTET, 4, 2, protocol_at);
        code.jump_number(JUMP_UNEQUAL, 4, 6, "keep");
        code.load(HALF, 4, 2, tcp_at + 2);
        code.big_endian(4, 16);
        code.jump_number(JUMP_LESS, 4, i32::from(LISTENING_PORT), "drop");
        lose(&mut code, loss, "drop");
        code.result(XDP_PASS);
        code.label(other);
    }
    code.result(XDP_PASS);
    code.label("drop");
    code.result(XDP_DROP);
    Program::assembled("client_filter", Hook::Xdp, &code.finish())
}

/// A program for what the client's interface sends: `loss` percent of it is lost.
///
/// # Panics
/// Without root.
pub fn client_loss(loss: u32) -> Program {
    let mut code = Code::default();
    lose(&mut code, loss, "drop");
    code.result(TCX_NEXT);
    code.label("drop");
    code.result(TC_ACT_SHOT);
    Program::assembled("client_loss", Hook::Egress, &code.finish())
}

/// An XDP program that drops everything.
///
/// # Panics
/// Without root.
pub fn dropper() -> Program {
    let mut code = Code::default();
    code.result(XDP_DROP);
    Program::assembled("drop", Hook::Xdp, &code.finish())
}

/// An XDP program that sends every frame back to where it came from.
///
/// # Panics
/// Without root.
pub fn returner() -> Program {
    let mut code = Code::default();
    code.op(MOV, 6, 1);
    code.load(WORD, 2, 6, 0);
    code.load(WORD, 3, 6, 4);
    code.op(MOV, 4, 2);
    code.op_number(ADD, 4, ETHERNET_LENGTH as i16);
    code.jump(JUMP_GREATER, 4, 3, "drop");
    for at in [0, 2, 4] {
        code.load(HALF, 4, 2, at);
        code.load(HALF, 5, 2, at + 6);
        code.store(HALF, 2, at, 5);
        code.store(HALF, 2, at + 6, 4);
    }
    code.result(XDP_TX);
    code.label("drop");
    code.result(XDP_DROP);
    Program::assembled("return", Hook::Xdp, &code.finish())
}

/// The first port that the client receives anything at.
pub const LISTENING_PORT: u16 = 32_768;

fn lose(code: &mut Code, percent: u32, label: &'static str) {
    if percent == 0 {
        return;
    }
    code.call(GET_PRANDOM_U32);
    code.op32_number(MODULO, 0, 100);
    code.jump_number(JUMP_LESS, 0, percent as i32, label);
}

/// Makes the frame. Leaves the context in register 6.
fn make(syns: &Syns, state: &Map) -> Code {
    let frame = template(syns);
    let tcp = &frame[syns.tcp_at()..];
    let tcp_at = syns.tcp_at() as i16;
    let mut code = Code::default();
    code.op(MOV, 6, 1);
    // The length of a SYN, whatever the page held before.
    code.load(WORD, 3, 6, 4);
    code.load(WORD, 4, 6, 0);
    code.op(SUBTRACT, 3, 4);
    code.number(2, frame.len() as u64);
    code.op(SUBTRACT, 2, 3);
    code.op(MOV, 1, 6);
    code.call(XDP_ADJUST_TAIL);
    code.jump_number(JUMP_UNEQUAL, 0, 0, "abort");
    code.load(WORD, 7, 6, 0);
    code.load(WORD, 3, 6, 4);
    code.op(MOV, 4, 7);
    code.op_number(ADD, 4, frame.len() as i16);
    code.jump(JUMP_GREATER, 4, 3, "abort");
    for (at, word) in frame.chunks(4).enumerate() {
        let at = at as i16 * 4;
        match *word {
            [a, b, c, d] => code.store_number(WORD, 7, at, i32::from_ne_bytes([a, b, c, d])),
            [a, b] => code.store_number(HALF, 7, at, i32::from(u16::from_ne_bytes([a, b]))),
            _ => unreachable!("a SYN is a whole number of words and a half"),
        }
    }
    // Random numbers: Knuth's, of which the upper bits are good.
    code.value_of(8, state);
    code.load(DOUBLE, 9, 8, 0);
    code.number(1, 6_364_136_223_846_793_005);
    code.op(MULTIPLY, 9, 1);
    code.number(1, 1_442_695_040_888_963_407);
    code.op(ADD, 9, 1);
    code.store(DOUBLE, 8, 0, 9);
    // Register 1: the source.
    code.op(MOV, 1, 9);
    code.op_number(SHIFT_RIGHT, 1, 32);
    code.op(MOV, 2, 1);
    code.op_number(SHIFT_RIGHT, 2, 15);
    code.op(XOR, 1, 2);
    let mask = syns.source_mask;
    code.op32_number(AND, 1, mask as i32);
    code.op32_number(OR, 1, (syns.source_word() & !mask) as i32);
    code.big_endian(1, 32);
    code.store(WORD, 7, SOURCE_AT, 1);
    // Register 2: its port.
    code.op(MOV, 2, 9);
    code.op_number(SHIFT_RIGHT, 2, 20);
    code.op32_number(AND, 2, i32::from(syns.port_mask));
    code.op32_number(ADD, 2, i32::from(syns.port));
    code.big_endian(2, 16);
    code.store(HALF, 7, tcp_at, 2);
    // Register 4: the sequence number.
    code.op(MOV, 4, 1);
    if !syns.repeated {
        code.op(XOR, 4, 9);
        code.op32(MOV, 4, 4);
    }
    code.store(WORD, 7, tcp_at + SEQUENCE_AT, 4);
    // The sums: of what is always the same, and of what is not.
    let addresses = if syns.destination.is_ipv4() {
        code.number(3, sum(&frame[ETHERNET_LENGTH..syns.tcp_at()]));
        code.op(ADD, 3, 1);
        code.fold(3);
        code.store(HALF, 7, IPV4_SUM_AT, 3);
        &frame[26..34]
    } else {
        &frame[22..54]
    };
    let pseudo = sum(addresses) + sum(&[0, 6, 0, TCP_LENGTH as u8]);
    code.number(3, sum(tcp) + pseudo);
    code.op(ADD, 3, 1);
    code.op(ADD, 3, 2);
    code.op(ADD, 3, 4);
    code.fold(3);
    code.store(HALF, 7, tcp_at + TCP_SUM_AT, 3);
    code
}

/// The frame without the word of its source that is random, source port, sequence
/// number and sums.
fn template(syns: &Syns) -> Vec<u8> {
    let mut frame = vec![0; syns.length()];
    let mut put = |at: usize, octets: &[u8]| frame[at..at + octets.len()].copy_from_slice(octets);
    put(0, &[2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1]);
    match (syns.source, syns.destination) {
        (IpAddr::V4(_), IpAddr::V4(destination)) => {
            // Without options, not to be fragmented, TTL 64, TCP.
            let length = (IPV4_LENGTH + TCP_LENGTH) as u8;
            put(12, &[0x08, 0x00, 0x45, 0, 0, length, 0, 0, 0x40, 0, 64, 6]);
            put(30, &destination.octets());
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            // No extension header, TCP, hop limit 64.
            put(12, &[0x86, 0xdd, 0x60, 0, 0, 0, 0, TCP_LENGTH as u8, 6, 64]);
            let random = 0xffff_ffffu128 << 64;
            put(
                22,
                &Ipv6Addr::from_bits(source.to_bits() & !random).octets(),
            );
            put(38, &destination.octets());
        }
        _ => panic!("{syns:?}: of one family"),
    }
    let tcp = syns.tcp_at();
    put(tcp + 2, &25u16.to_be_bytes());
    // A header of ten words, SYN, a window of 64,000.
    put(tcp + 12, &[0xa0, 0x02, 0xfa, 0x00]);
    // MSS 1460, SACK permitted, a timestamp, window scale 7.
    put(
        tcp + 20,
        &[2, 4, 0x05, 0xb4, 4, 2, 8, 10, 0x12, 0x34, 0x56, 0x78],
    );
    put(tcp + 36, &[1, 3, 3, 7]);
    frame
}

/// The sum of the 16-bit words in the order in which this machine reads them.
fn sum(octets: &[u8]) -> u64 {
    let words = octets.chunks(2);
    words
        .map(|word| u64::from(u16::from_ne_bytes([word[0], word[1]])))
        .sum()
}

/// Waits until the frame is due, and sends it.
fn send(code: &mut Code, interface: u32, rate: u32) {
    if let Some(gap) = 1_000_000_000u32.checked_div(rate) {
        // Registers 9 and 8: when it is due, and where that is kept.
        code.load(DOUBLE, 9, 8, 8);
        code.call(KTIME_GET_NS);
        // One that is late by more than this does not catch up: it would be a burst that
        // the ring between the two ends has no room for.
        code.op(MOV, 1, 9);
        code.op_number32(ADD, 1, 100_000);
        code.jump(JUMP_GREATER, 1, 0, "in time");
        code.op(MOV, 9, 0);
        code.label("in time");
        code.number(7, 400);
        code.label("wait");
        code.jump(JUMP_GREATER, 0, 9, "due");
        code.call(KTIME_GET_NS);
        code.op_number(SUBTRACT, 7, 1);
        code.jump_number(JUMP_UNEQUAL, 7, 0, "wait");
        code.label("due");
        code.op_number32(ADD, 9, gap as i32);
        code.store(DOUBLE, 8, 8, 9);
    }
    code.number(1, u64::from(interface));
    code.number(2, 0);
    code.call(REDIRECT);
    code.exit();
    code.label("abort");
    code.result(XDP_ABORTED);
}

fn call(code: &mut Code, callee: &Map) {
    code.op(MOV, 1, 6);
    code.map(2, callee);
    code.number(3, 0);
    code.call(TAIL_CALL);
    code.label("abort");
    code.result(XDP_ABORTED);
}

const XDP_ABORTED: i32 = 0;
const XDP_DROP: i32 = 1;
const XDP_PASS: i32 = 2;
const XDP_TX: i32 = 3;
const TCX_NEXT: i32 = -1;
const TC_ACT_SHOT: i32 = 2;

// Helpers (enum bpf_func_id).
const KTIME_GET_NS: i32 = 5;
const GET_PRANDOM_U32: i32 = 7;
const TAIL_CALL: i32 = 12;
const REDIRECT: i32 = 23;
const XDP_ADJUST_TAIL: i32 = 65;

// Operations and sizes (include/uapi/linux/bpf.h and bpf_common.h).
const ADD: u8 = 0x00;
const SUBTRACT: u8 = 0x10;
const MULTIPLY: u8 = 0x20;
const OR: u8 = 0x40;
const AND: u8 = 0x50;
const SHIFT_RIGHT: u8 = 0x70;
const MODULO: u8 = 0x90;
const XOR: u8 = 0xa0;
const MOV: u8 = 0xb0;
const JUMP_GREATER: u8 = 0x20;
const JUMP_UNEQUAL: u8 = 0x50;
const JUMP_LESS: u8 = 0xa0;
const WORD: u8 = 0x00;
const HALF: u8 = 0x08;
const OCTET: u8 = 0x10;
const DOUBLE: u8 = 0x18;

/// A program while it is written. Registers and offsets are in the order of the
/// kernel's own assembler: destination first.
#[derive(Default)]
struct Code {
    instructions: Vec<u64>,
    labels: Vec<(&'static str, usize)>,
    /// Jumps, and where they go.
    jumps: Vec<(usize, &'static str)>,
}

impl Code {
    fn put(&mut self, code: u8, to: u8, from: u8, offset: i16, number: i32) {
        let [octet, registers] = [u64::from(code), u64::from(from << 4 | to)];
        let [offset, number] = [u64::from(offset as u16), u64::from(number as u32)];
        self.instructions
            .push(octet | registers << 8 | offset << 16 | number << 32);
    }

    fn op(&mut self, operation: u8, to: u8, from: u8) {
        self.put(0x0f | operation, to, from, 0, 0);
    }

    fn op32(&mut self, operation: u8, to: u8, from: u8) {
        self.put(0x0c | operation, to, from, 0, 0);
    }

    fn op_number(&mut self, operation: u8, to: u8, number: i16) {
        self.op_number32(operation, to, i32::from(number));
    }

    fn op_number32(&mut self, operation: u8, to: u8, number: i32) {
        self.put(0x07 | operation, to, 0, 0, number);
    }

    fn op32_number(&mut self, operation: u8, to: u8, number: i32) {
        self.put(0x04 | operation, to, 0, 0, number);
    }

    fn big_endian(&mut self, register: u8, bits: i32) {
        self.put(0xdc, register, 0, 0, bits);
    }

    fn load(&mut self, size: u8, to: u8, from: u8, offset: i16) {
        self.put(0x61 | size, to, from, offset, 0);
    }

    fn store(&mut self, size: u8, to: u8, offset: i16, from: u8) {
        self.put(0x63 | size, to, from, offset, 0);
    }

    fn store_number(&mut self, size: u8, to: u8, offset: i16, number: i32) {
        self.put(0x62 | size, to, 0, offset, number);
    }

    fn number(&mut self, to: u8, number: u64) {
        self.wide(to, 0, number as u32, (number >> 32) as u32);
    }

    fn map(&mut self, to: u8, map: &Map) {
        self.wide(to, 1, map.descriptor() as u32, 0);
    }

    fn value_of(&mut self, to: u8, map: &Map) {
        self.wide(to, 2, map.descriptor() as u32, 0);
    }

    fn wide(&mut self, to: u8, kind: u8, low: u32, high: u32) {
        self.put(0x18, to, kind, 0, low as i32);
        self.put(0, 0, 0, 0, high as i32);
    }

    /// The complement of the one's complement sum, of a number below 2^34.
    fn fold(&mut self, register: u8) {
        for _ in 0..3 {
            self.op(MOV, 5, register);
            self.op_number(SHIFT_RIGHT, 5, 16);
            self.op_number32(AND, register, 0xffff);
            self.op(ADD, register, 5);
        }
        self.op_number32(XOR, register, 0xffff);
    }

    fn jump(&mut self, condition: u8, left: u8, right: u8, label: &'static str) {
        self.jumps.push((self.instructions.len(), label));
        self.put(0x0d | condition, left, right, 0, 0);
    }

    fn jump_number(&mut self, condition: u8, left: u8, right: i32, label: &'static str) {
        self.jumps.push((self.instructions.len(), label));
        self.put(0x05 | condition, left, 0, 0, right);
    }

    fn label(&mut self, label: &'static str) {
        self.labels.push((label, self.instructions.len()));
    }

    fn call(&mut self, helper: i32) {
        self.put(0x85, 0, 0, 0, helper);
    }

    fn exit(&mut self) {
        self.put(0x95, 0, 0, 0, 0);
    }

    fn result(&mut self, result: i32) {
        self.op_number32(MOV, 0, result);
        self.exit();
    }

    /// The instructions, with the jumps set.
    fn finish(mut self) -> Vec<u64> {
        for (at, label) in self.jumps {
            let found = self.labels.iter().find(|(name, _)| *name == label);
            let target = found.expect("the label is set").1;
            let distance = (target as i64 - at as i64 - 1) as i16;
            self.instructions[at] |= u64::from(distance as u16) << 16;
        }
        self.instructions
    }
}
