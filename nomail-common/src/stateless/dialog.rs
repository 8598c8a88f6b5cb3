//! The decision for each segment: a reply, silence, or the network stack.

use super::{
    cookie::{Cookie, Phase},
    dialog_state::{DialogState, SYNS_MASK},
    line_scan::{EMPTY_LINE, GARBAGE_END, LineScan, QUIT_END},
    texts::Texts,
};
use crate::{
    bounds::{COMMANDS_MAX, GENERATIONS, REFUSALS_MAX, TEXT_MAX, WINDOW},
    guard::challenge::TupleHash,
    siphash::Key,
    wire::frame::Frame,
    wire::packet::{IPV6_LENGTH, Segment, TCP_ACK, TCP_FIN, TCP_LENGTH_MIN, TCP_RST, TCP_SYN},
    wire::reply::Header,
};

/// So many SYNs of a client are answered by a bare SYN, later ones by a SYN-ACK. With 5 % of
/// packets lost, both bare SYNs are lost in 1 of 400 dialogs; of those that then begin with
/// a SYN-ACK, 1 in 10 loses its greeting.
pub const BARE_SYNS: u32 = 2;

const PUSH: u8 = 0x08;

/// What a dialog needs of a segment beside its [`Segment`], in host byte order.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// Its acknowledgment number.
    pub acknowledgment: u32,
    /// Where in the frame its payload begins.
    pub payload: u32,
    /// Bytes of payload.
    pub length: u32,
    /// Its TCP flags.
    pub flags: u32,
}

impl Received {
    /// Reads a frame whose [`Segment`] is plain. None when its lengths do not fit.
    #[inline(always)]
    pub fn of<F: Frame + ?Sized>(frame: &F, segment: &Segment) -> Option<Self> {
        let network = segment.network as usize;
        let (transport, length) = if segment.is_ipv6() {
            let [high, low]: [u8; 2] = frame.read(network + 4)?;
            (network + IPV6_LENGTH, u16::from_be_bytes([high, low]))
        } else {
            let [high, low]: [u8; 2] = frame.read(network + 2)?;
            let length = u16::from_be_bytes([high, low]);
            (network + 20, length.checked_sub(20)?)
        };
        let header: [u8; TCP_LENGTH_MIN] = frame.read(transport)?;
        let header_length = u32::from(header[12] >> 4) * 4;
        if header_length < TCP_LENGTH_MIN as u32 {
            return None;
        }
        Some(Self {
            acknowledgment: u32::from_be_bytes([header[8], header[9], header[10], header[11]]),
            payload: transport as u32 + header_length,
            length: u32::from(length).checked_sub(header_length)?,
            flags: u32::from(header[13]),
        })
    }

    const fn has(&self, flag: u8) -> bool {
        self.flags & flag as u32 != 0
    }
}

/// A segment to send, in host byte order.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplySegment {
    /// Its sequence number.
    pub sequence: u32,
    /// Its acknowledgment number.
    pub acknowledgment: u32,
    /// Its TCP flags, in the low 8 bits.
    pub flags: u32,
    /// 1 if it carries the greeting, else 0.
    pub greeting: u32,
    /// How many refusals it carries.
    pub refusals: u32,
    /// 1 if it carries the reply to QUIT, behind the refusals, else 0.
    pub goodbye: u32,
}

impl ReplySegment {
    /// An empty reply to be filled.
    pub const NOTHING: Self = Self::bare(0, 0, 0);

    const fn bare(flags: u8, sequence: u32, acknowledgment: u32) -> Self {
        Self {
            sequence,
            acknowledgment,
            flags: flags as u32,
            greeting: 0,
            refusals: 0,
            goodbye: 0,
        }
    }

    /// The answer to the SYN of a proven tuple after `syns` that were answered.
    #[inline(always)]
    const fn to_syn(syn_sequence: u32, cookie: u32, syns: u32) -> Self {
        if syns < BARE_SYNS {
            Self::bare(TCP_SYN, cookie, 0)
        } else {
            Self::syn_ack(cookie, syn_sequence.wrapping_add(1))
        }
    }

    /// Ends the connection of a third party (RFC 9293 section 3.10.7.3).
    #[inline(always)]
    const fn reset(acknowledgment: u32) -> Self {
        Self::bare(TCP_RST, acknowledgment, 0)
    }

    /// The greeting from `sequence` on; with a FIN where it is the only text.
    #[inline(always)]
    pub(super) const fn greet(texts: &Texts, sequence: u32, acknowledgment: u32) -> Self {
        let closes = texts.refusal.length == 0;
        let flags = TCP_ACK | PUSH | if closes { TCP_FIN } else { 0 };
        Self {
            greeting: 1,
            ..Self::bare(flags, sequence, acknowledgment)
        }
    }

    /// The SYN-ACK of a dialog.
    pub(super) const fn syn_ack(sequence: u32, acknowledgment: u32) -> Self {
        Self::bare(TCP_SYN | TCP_ACK, sequence, acknowledgment)
    }

    /// The values of its TCP header.
    #[inline(always)]
    pub const fn header(&self, texts: &Texts) -> Header {
        Header {
            sequence: self.sequence,
            acknowledgment: self.acknowledgment,
            flags_and_window: self.flags << 16 | WINDOW as u32,
            text_length: self.text_length(texts),
            text_sum: self.text_sum(texts),
        }
    }

    /// Bytes of text.
    #[inline(always)]
    pub const fn text_length(&self, texts: &Texts) -> u32 {
        self.greeting * texts.greeting.length
            + self.refusals * texts.refusal.length
            + self.goodbye * texts.goodbye.length
    }

    /// The sum of the 16-bit words of its text.
    #[inline(always)]
    pub const fn text_sum(&self, texts: &Texts) -> u32 {
        if self.greeting != 0 {
            return folded(texts.greeting.sum);
        }
        let refusal = folded(texts.refusal.sum);
        let mut sum = 0;
        let mut odd = 0;
        let mut added = 0;
        while added < REFUSALS_MAX {
            if added < self.refusals {
                sum += if odd == 0 { refusal } else { swapped(refusal) };
                odd ^= texts.refusal.length & 1;
            }
            added += 1;
        }
        if self.goodbye != 0 {
            let goodbye = folded(texts.goodbye.sum);
            sum += if odd == 0 { goodbye } else { swapped(goodbye) };
        }
        sum
    }
}

/// A sum of 16-bit words, folded into one.
const fn folded(sum: u32) -> u32 {
    let sum = (sum & 0xffff) + (sum >> 16);
    (sum & 0xffff) + (sum >> 16)
}

/// The sum of the same bytes one byte further on (RFC 1071 section 2 B).
const fn swapped(sum: u32) -> u32 {
    (sum & 0xff) << 8 | sum >> 8
}

/// What a dialog asks of its surroundings, and has them keep.
pub trait Environment {
    /// The texts of a generation.
    fn texts(&self, generation: u32) -> Option<&Texts>;
    /// Whether the tuple holds a ticket for a SYN with this sequence number.
    fn is_proven(&mut self, sequence: u32) -> bool;
    /// An entry of the table of dialogs.
    fn dialog_state(&self, index: u32) -> DialogState;
    /// Writes an entry of the table of dialogs.
    fn set_dialog_state(&mut self, index: u32, state: DialogState);
    /// Asks for the greeting to be retransmitted, of a dialog that begins with a SYN-ACK
    /// that `acknowledgment` acknowledges, see [`super::retransmit`].
    fn request_retransmission(
        &mut self,
        segment: &Segment,
        index: u32,
        state: DialogState,
        acknowledgment: u32,
    );
    /// Scans the bytes of the payload, which begins at offset `start` of the frame, that
    /// `scan` has not scanned, up to byte `until` or until [`LineScan::is_over`]. None when
    /// the frame ends before.
    fn scan(&mut self, start: u32, until: u32, scan: LineScan) -> Option<LineScan>;
}

/// The keys under which a client is known at this time.
#[derive(Clone, Copy, Debug)]
pub struct PeerKey {
    /// The hash of its tuple.
    pub hash: TupleHash,
    /// The secret of cookies.
    pub key: Key,
    /// The time slot.
    pub slot: u32,
}

/// What to do with a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reaction {
    /// It belongs to no dialog: the network stack gets it.
    Foreign,
    /// It belongs to a dialog, and needs no reply.
    Silence,
    /// Send this reply, with the texts of this generation.
    Say(ReplySegment, u32),
}

/// Answers the SYN of a proven tuple.
#[inline(always)]
pub fn greet_syn(
    environment: &mut impl Environment,
    segment: &Segment,
    peer: PeerKey,
    generation: u32,
) -> ReplySegment {
    let sequence = segment.sequence;
    let cookie = Cookie::of(segment, peer.key, peer.slot).sequence(generation);
    let (index, tag) = DialogState::key(peer.hash, cookie);
    let syns = environment.dialog_state(index).syns_of(tag, sequence);
    let state = DialogState::with_syns(tag, sequence, syns + 1);
    environment.set_dialog_state(index, state);
    if syns == BARE_SYNS {
        environment.request_retransmission(segment, index, state, cookie.wrapping_add(1));
    }
    // The client starts from nothing, whatever an earlier connection has left.
    let greeting = environment
        .texts(generation)
        .map_or(0, |texts| texts.greeting.length);
    let greeted = cookie.wrapping_add(1).wrapping_add(greeting);
    let (index, tag) = DialogState::key(peer.hash, greeted);
    environment.set_dialog_state(index, DialogState::silent(tag, sequence));
    ReplySegment::to_syn(sequence, cookie, syns)
}

/// Takes a RST of a tuple: its greeting is no longer retransmitted. A RST that acknowledges
/// something must acknowledge our text; any other must be near what the client sent.
#[inline(always)]
pub fn reset(
    environment: &mut impl Environment,
    segment: &Segment,
    received: &Received,
    peer: PeerKey,
) {
    for age in 0..2 {
        let slot = peer.slot.wrapping_sub(age);
        let cookie = Cookie::of(segment, peer.key, slot);
        let (of_reset, position) = cookie.position(received.acknowledgment);
        let acknowledges = received.has(TCP_ACK);
        for generation in 0..GENERATIONS {
            if acknowledges && (generation != of_reset || position > TEXT_MAX as u32) {
                continue;
            }
            let (index, tag) = DialogState::key(peer.hash, cookie.sequence(generation));
            let state = environment.dialog_state(index);
            let is_meant = if acknowledges {
                state.has_tag(tag)
            } else {
                state.of(tag, segment.sequence).is_some()
            };
            // Before the SYN-ACK there is nothing to retransmit, and a client whose firewall
            // rejects a bare SYN is to get the SYN-ACK all the same.
            let syns = state.syns();
            if is_meant && syns > BARE_SYNS && crate::Mechanism::ResetEndsGreeting.is_on() {
                environment.set_dialog_state(index, DialogState(0));
            }
        }
    }
}

/// Answers a segment of a dialog.
#[inline(always)]
pub fn respond(
    environment: &mut impl Environment,
    segment: &Segment,
    received: &Received,
    peer: PeerKey,
) -> Reaction {
    let acknowledgment = received.acknowledgment;
    let slot = peer.slot;
    let known = match phase_of(environment, segment, peer.key, slot, acknowledgment) {
        None => {
            let before = slot.wrapping_sub(1);
            phase_of(environment, segment, peer.key, before, acknowledgment)
        }
        known => known,
    };
    let Some((generation, position, phase)) = known else {
        return Reaction::Foreign;
    };
    let sequence = segment.sequence;
    let syn = received.has(TCP_SYN);
    let length = received.length;
    let fin = u32::from(received.has(TCP_FIN));
    if phase == Phase::Greeting {
        let first = acknowledgment.wrapping_sub(position);
        let (index, tag) = DialogState::key(peer.hash, first.wrapping_sub(1));
        let state = environment.dialog_state(index);
        // The state has the SYN's whole number; a ticket only its upper half.
        let is_of_proven = if state.has_tag(tag) {
            state.syn_sequence() == sequence
        } else {
            environment.is_proven(sequence)
        };
        if syn && !is_of_proven {
            return Reaction::Say(ReplySegment::reset(acknowledgment), generation);
        }
        // A client is greeted for its acknowledgment. One that sends text before it is
        // greeted may be another host that greets, and neither would ever end.
        if length > 0 && crate::Mechanism::SilenceBeforeGreeting.is_on() {
            return Reaction::Silence;
        }
        if let Some((_, line)) = state.of(tag, sequence)
            && line & SYNS_MASK > BARE_SYNS
        {
            environment.set_dialog_state(index, state.acknowledged());
        }
        let Some(texts) = environment.texts(generation) else {
            return Reaction::Foreign;
        };
        let next = sequence.wrapping_add(u32::from(syn));
        return Reaction::Say(ReplySegment::greet(texts, first, next), generation);
    }
    if matches!(phase, Phase::Open(0) | Phase::Over) {
        let first = acknowledgment.wrapping_sub(1).wrapping_sub(position);
        let (index, tag) = DialogState::key(peer.hash, first);
        if let Some((_, line)) = environment.dialog_state(index).of(tag, sequence)
            && line & SYNS_MASK > BARE_SYNS
        {
            environment.set_dialog_state(index, DialogState(0));
        }
    }
    if syn || length + fin == 0 {
        return Reaction::Silence;
    }
    let Phase::Open(commands) = phase else {
        let next = sequence.wrapping_add(length + fin);
        return Reaction::Say(
            ReplySegment::bare(TCP_ACK, acknowledgment, next),
            generation,
        );
    };
    let (index, tag) = DialogState::key(peer.hash, acknowledgment);
    let state = environment.dialog_state(index).of(tag, sequence);
    let (next, line) = state.unwrap_or((sequence, EMPTY_LINE));
    let from = next.wrapping_sub(sequence);
    if from > length {
        // All of it is known, or something before it is missing.
        return Reaction::Say(
            ReplySegment::bare(TCP_ACK, acknowledgment, next),
            generation,
        );
    }
    let Some(texts) = environment.texts(generation) else {
        return Reaction::Foreign;
    };
    let left = COMMANDS_MAX.saturating_sub(commands);
    let replies_max = texts.replies_max().min(left);
    let (refusal, goodbye) = (texts.refusal.length, texts.goodbye.length);
    let until = length.min(WINDOW as u32);
    let scan = LineScan::new(from.min(until), line, replies_max);
    let Some(scan) = environment.scan(received.payload, until, scan) else {
        return Reaction::Foreign;
    };
    let refusals = scan.refusals();
    let over = scan.end() == QUIT_END || scan.end() == GARBAGE_END;
    // Bytes behind the end are acknowledged, and ignored.
    let taken = if over { length } else { scan.taken() };
    // The client sends nothing more, and all it sent was scanned.
    let peer_ends = fin != 0 && taken == length;
    let closes = over || peer_ends || commands + refusals >= COMMANDS_MAX;
    let next = sequence.wrapping_add(taken);
    let quit = u32::from(scan.end() == QUIT_END);
    let sent = refusals * refusal + quit * goodbye;
    let flags = TCP_ACK | if sent > 0 { PUSH } else { 0 } | if closes { TCP_FIN } else { 0 };
    let reply = ReplySegment {
        refusals,
        goodbye: quit,
        ..ReplySegment::bare(
            flags,
            acknowledgment,
            next.wrapping_add(u32::from(peer_ends)),
        )
    };
    // Without the FIN, which is answered again if it comes again. A late segment does not
    // move the state back: the client has forgotten what was acknowledged since.
    let (index, tag) = DialogState::key(peer.hash, acknowledgment.wrapping_add(sent));
    let later = match environment.dialog_state(index).of(tag, next) {
        Some((known, _)) => known.wrapping_sub(next) as i32 > 0,
        None => false,
    };
    if !later {
        environment.set_dialog_state(index, DialogState::new(tag, next, scan.line()));
    }
    Reaction::Say(reply, generation)
}

/// The generation, position and phase of a dialog that began in this slot. A function, not a
/// closure: closures that the compiler does not inline have names that the kernel rejects.
#[inline(always)]
fn phase_of(
    environment: &impl Environment,
    segment: &Segment,
    key: Key,
    slot: u32,
    acknowledgment: u32,
) -> Option<(u32, u32, Phase)> {
    let (generation, position) = Cookie::of(segment, key, slot).position(acknowledgment);
    let phase = Phase::of(environment.texts(generation)?, position)?;
    Some((generation, position, phase))
}
