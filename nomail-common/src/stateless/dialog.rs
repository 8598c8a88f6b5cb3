//! The 521 without a listener: what to send for a segment that came.
//!
//! **The client's acknowledgment number is the session.** Our initial sequence number
//! is a *cookie*, a keyed hash of the 4-tuple and a time slot. A number less the
//! cookie is how much the client has of what we say, and so which reply is due:
//!
//! ```text
//! 0 … L-1      the greeting, of L octets, (again)
//! L + k*R      k commands were refused with R octets each: the next one
//! beyond that  the FIN has arrived: all is over
//! ```
//!
//! Each reply carries the acknowledgment of what it answers, so that the client
//! has both or neither; until then it repeats what it said, and is answered again.
//! It owns every retransmission, also that of the handshake: its SYN is answered by
//! a bare SYN (simultaneous open, RFC 9293 section 3.5), so that it goes on sending
//! its SYN-ACK until it has the greeting, which acknowledges it. A client whose
//! firewall drops that SYN sends its own again, and then gets a SYN-ACK.
//!
//! A bare SYN goes to proven tuples only ([`crate::guard::challenge`]), and its answer has to
//! come from the proven sequence number: a third party that was made to prove
//! itself answers with one of its own, and is reset.
//!
//! What no acknowledgment number tells is how far the client is in what *it* says: a
//! command may be spread over segments, and the next one sent before the reply to the
//! last has arrived. A [`Standing`] remembers that, in a table of one size:
//! where it is lost to another, the segment is taken to begin where the client has
//! all our replies to, which is so for every client that waits for them.

use crate::{
    abi::{DIALOG_PLACES, GENERATIONS, Text, Texts},
    guard::challenge::TupleHash,
    siphash::{Key, siphash},
    wire::frame::Frame,
    wire::packet::{IPV6_LENGTH, Segment, TCP_ACK, TCP_FIN, TCP_LENGTH_MIN, TCP_RST, TCP_SYN},
    wire::reply::Header,
};

/// Most octets of text in one packet.
pub const TEXT_MAX: usize = 128;
/// The window that clients are told: so much of a segment is looked at, a longest
/// command line (RFC 5321 section 4.5.3.1.4).
pub const WINDOW: usize = 512;
/// The last command of a dialog; answered, and closed.
pub const COMMANDS_MAX: u32 = 1000;
/// Time slots of cookies are at least that long, and less than twice. A cookie is good
/// for one or two of them, so that a client may be idle for the 5 minutes of RFC
/// 5321 section 4.5.3.2.
pub const SLOT_SECS: u64 = 360;
/// So many SYNs of a client are answered by a bare SYN, later ones by a SYN-ACK. With
/// 5 % of packets lost, both bare ones are in 1 of 400 dialogs; of those that
/// the SYN-ACK begins, 1 in 10 loses its greeting.
pub const BARE_SYNS: u32 = 2;

/// Most octets that are said in a dialog, and so how far a number may be behind a
/// cookie.
const POSITION_MASK: u32 = 0x3fff_ffff;
/// Bits of a number that tell the generation of the texts.
const GENERATION_SHIFT: u32 = 30;
const PUSH: u8 = 0x08;
/// Cookies and challenges use one key, and never hash the same words.
const COOKIE_DOMAIN: u64 = 0x636f_6f6b_6965_0000;

/// How far to shift jiffies for slots of [`SLOT_SECS`].
pub const fn slot_shift(hz: u32) -> u32 {
    (hz as u64 * SLOT_SECS).next_power_of_two().ilog2()
}

/// The cookie of a tuple in a time slot: 30 bits, to which the generation of the texts
/// is added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cookie(u32);

impl Cookie {
    /// Of the tuple of a segment.
    #[inline(always)]
    pub fn of(segment: &Segment, key: Key, slot: u32) -> Self {
        let Segment { peer, local, .. } = segment;
        let ports = u64::from(segment.peer_port) << 16 | u64::from(segment.port);
        let slot = COOKIE_DOMAIN ^ u64::from(slot);
        let hash = if segment.is_ipv6() {
            siphash(
                key,
                [peer.high, peer.low, local.high, local.low, ports, slot],
            )
        } else {
            siphash(key, [peer.low << 32 | local.low & 0xffff_ffff, ports, slot])
        };
        Self(hash as u32 & POSITION_MASK)
    }

    /// Our initial sequence number.
    #[inline(always)]
    pub const fn sequence(self, generation: u32) -> u32 {
        self.0 | generation << GENERATION_SHIFT
    }

    /// The generation that an acknowledgment number is of, and how many octets of what we
    /// say it acknowledges, if it is of this cookie.
    #[inline(always)]
    pub const fn position(self, acknowledgment: u32) -> (u32, u32) {
        let behind = acknowledgment.wrapping_sub(1).wrapping_sub(self.0);
        (behind >> GENERATION_SHIFT, behind & POSITION_MASK)
    }
}

/// How far a dialog has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The client has yet to get the greeting.
    Greeting,
    /// It was refused so often.
    Open(u32),
    /// It has our FIN.
    Over,
}

impl Phase {
    /// What a position tells; none when it is no position of a dialog.
    #[inline(always)]
    pub const fn of(texts: &Texts, position: u32) -> Option<Self> {
        let (greeting, refusal) = (texts.greeting.length, texts.refusal.length);
        if greeting == 0 {
            return None;
        }
        if position < greeting {
            return Some(Self::Greeting);
        }
        let said = position - greeting;
        if refusal == 0 {
            return match said {
                1 => Some(Self::Over),
                _ => None,
            };
        }
        let (commands, beyond) = (said / refusal, said % refusal);
        if commands > COMMANDS_MAX + 1 {
            None
        } else if beyond == 0 {
            Some(Self::Open(commands))
        } else if beyond == 1 || beyond == (texts.goodbye.length + 1) % refusal {
            Some(Self::Over)
        } else {
            None
        }
    }
}

/// What there is of a segment beside its [`Segment`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// Its acknowledgment number.
    pub acknowledgment: u32,
    /// Where in the frame its payload begins.
    pub payload: u32,
    /// Octets of it.
    pub length: u32,
    /// Its TCP flags.
    pub flags: u32,
}

impl Received {
    /// Of a frame whose [`Segment`] is plain. None when its lengths do not fit.
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

/// The command line that is arriving.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Line {
    /// Octets so far, at most one more than [`WINDOW`].
    length: u32,
    /// How much of it is QUIT, or one of the following.
    word: u32,
    /// The last octet was a CR.
    after_cr: bool,
}

/// [`Line::word`]: all of QUIT.
const QUIT: u32 = 4;
/// [`Line::word`]: QUIT and white space.
const QUIT_AND_MORE: u32 = 5;
/// [`Line::word`]: something else.
const OTHER: u32 = 6;
/// [`Line::word`]: the first octet of a TLS handshake, and nothing more yet.
const HANDSHAKE: u32 = 7;
/// The record type of a TLS handshake (RFC 8446 section 5.1).
const TLS_HANDSHAKE: u8 = 0x16;
/// Bits of a [`Line`] in a word.
const LINE_BITS: u32 = 14;
const LENGTH_MAX: u32 = WINDOW as u32 + 1;

const _: () = assert!(LENGTH_MAX < 1 << (LINE_BITS - 4));

/// What an octet makes of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    /// It goes on.
    None,
    /// It is a command.
    Command,
    /// It is QUIT.
    Quit,
    /// It is no text: TLS, or garbage.
    Garbage,
}

impl Line {
    /// Nothing so far.
    const EMPTY: Self = Self {
        length: 0,
        word: 0,
        after_cr: false,
    };

    const fn to_bits(self) -> u32 {
        self.length << 4 | self.word << 1 | self.after_cr as u32
    }

    const fn from_bits(bits: u32) -> Self {
        Self {
            length: bits >> 4 & 0x3ff,
            word: bits >> 1 & 7,
            after_cr: bits & 1 != 0,
        }
    }

    /// Only CR and LF end a line (RFC 5321 section 2.3.8). A line that is too long is no
    /// QUIT.
    #[inline(always)]
    const fn take(&mut self, octet: u8) -> Event {
        let first = self.length == 0;
        if self.length < LENGTH_MAX {
            self.length += 1;
        }
        if octet == b'\n' && self.after_cr {
            let quit = self.word == QUIT || self.word == QUIT_AND_MORE;
            return if quit && self.length <= WINDOW as u32 {
                Event::Quit
            } else {
                Event::Command
            };
        }
        // A bare LF, which no client that waits for an answer to its line knows how to end.
        let bare = octet == b'\n';
        if bare || self.word == HANDSHAKE || first && octet >= 0x80 {
            return Event::Garbage;
        }
        if first && octet == TLS_HANDSHAKE {
            self.word = HANDSHAKE;
            return Event::None;
        }
        let space = octet == b' ' || octet == b'\t';
        if (octet < b' ' && !matches!(octet, b'\r' | b'\t')) || octet == 0x7f {
            return Event::Garbage;
        }
        if self.after_cr && self.word != QUIT_AND_MORE {
            // That CR was part of the first word.
            self.word = OTHER;
        }
        self.after_cr = octet == b'\r';
        if octet != b'\r' {
            let letter = octet | 0x20;
            self.word = match self.word {
                0 if letter == b'q' => 1,
                1 if letter == b'u' => 2,
                2 if letter == b'i' => 3,
                3 if letter == b't' => QUIT,
                QUIT if space => QUIT_AND_MORE,
                QUIT_AND_MORE => QUIT_AND_MORE,
                _ => OTHER,
            };
        }
        Event::None
    }
}

/// What was heard so far in a segment, in a word, as a BPF function takes it: from the
/// top [`Hearing::end`], the replies that may still be given, the refusals that are due,
/// the octets of it that are taken, those that were looked at, and the line that goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hearing(pub u64);

/// [`Hearing::end`]: QUIT.
const QUIT_HEARD: u64 = 1;
/// [`Hearing::end`]: no text; it was refused.
const GARBAGE_HEARD: u64 = 2;
/// [`Hearing::end`]: no room for another reply. What is not taken is said again.
const FULL: u64 = 3;
const END_SHIFT: u32 = 44;
const LEFT_SHIFT: u32 = 40;
const REFUSALS_SHIFT: u32 = 36;
const TAKEN_SHIFT: u32 = 25;
const SEEN_SHIFT: u32 = 14;
const REPLY_MASK: u64 = 0xf;
const OCTETS_MASK: u64 = 0x7ff;
const LINE_MASK: u64 = (1 << LINE_BITS) - 1;

const _: () = assert!(LINE_BITS == SEEN_SHIFT && WINDOW as u64 <= OCTETS_MASK);

impl Hearing {
    /// From an octet of the payload on, in a line, for at most so many replies.
    #[inline(always)]
    const fn new(from: u32, line: u32, replies_max: u32) -> Self {
        Self(
            (replies_max as u64) << LEFT_SHIFT
                | (from as u64) << TAKEN_SHIFT
                | (from as u64) << SEEN_SHIFT
                | line as u64,
        )
    }

    /// Octets that were looked at.
    #[inline(always)]
    pub const fn seen(self) -> u32 {
        (self.0 >> SEEN_SHIFT & OCTETS_MASK) as u32
    }

    /// Whether nothing more is to be heard.
    #[inline(always)]
    pub const fn is_over(self) -> bool {
        self.end() != 0
    }

    const fn end(self) -> u64 {
        self.0 >> END_SHIFT
    }

    const fn refusals(self) -> u32 {
        (self.0 >> REFUSALS_SHIFT & REPLY_MASK) as u32
    }

    /// With the next octet.
    #[inline(always)]
    pub const fn take(self, octet: u8) -> Self {
        let mut line = Line::from_bits((self.0 & LINE_MASK) as u32);
        let event = line.take(octet);
        let mut end = 0;
        let mut left = self.0 >> LEFT_SHIFT & REPLY_MASK;
        let mut refusals = self.0 >> REFUSALS_SHIFT & REPLY_MASK;
        let mut taken = self.0 >> TAKEN_SHIFT & OCTETS_MASK;
        let seen = (self.0 >> SEEN_SHIFT & OCTETS_MASK) + 1;
        if !matches!(event, Event::None) {
            line = Line::EMPTY;
            if left == 0 {
                end = FULL;
            } else {
                left -= 1;
                taken = seen;
                match event {
                    Event::Quit => end = QUIT_HEARD,
                    Event::Garbage => {
                        refusals += 1;
                        end = GARBAGE_HEARD;
                    }
                    Event::Command | Event::None => refusals += 1,
                }
            }
        }
        Self(
            end << END_SHIFT
                | left << LEFT_SHIFT
                | refusals << REFUSALS_SHIFT
                | taken << TAKEN_SHIFT
                | seen << SEEN_SHIFT
                | line.to_bits() as u64,
        )
    }

    /// Octets that are answered, or part of a line that goes on.
    const fn taken(self) -> u32 {
        if self.end() == 0 {
            self.seen()
        } else {
            (self.0 >> TAKEN_SHIFT & OCTETS_MASK) as u32
        }
    }

    const fn line(self) -> u32 {
        (self.0 & LINE_MASK) as u32
    }
}

/// Where the client is in what it says, once it has our replies up to some number: a
/// word of the table of dialogs. Kept by that number, so that what is said again is
/// judged as it was the first time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing(pub u64);

/// What a [`Standing`] remembers is believed for that many octets around it.
const STANDING_REACH: i32 = 1 << 20;
/// Bit of the line of a standing that is kept by our own initial sequence number: the
/// client has acknowledged that.
const ACKNOWLEDGED: u32 = 1 << (LINE_BITS - 1);
/// The bits below it: SYNs that were answered.
const SYNS_MASK: u32 = ACKNOWLEDGED - 1;

impl Standing {
    /// Index in the table, and how it is known there, of the standing of a tuple when it
    /// has `acknowledged` our replies.
    #[inline(always)]
    const fn place(hash: TupleHash, acknowledged: u32) -> (u32, u64) {
        let (index, tag) = hash.place(acknowledged);
        (index & (DIALOG_PLACES - 1), tag << (32 + LINE_BITS))
    }

    /// The next octet that is not answered is `next`, and what is known of the line that
    /// it is in.
    #[inline(always)]
    const fn new(tag: u64, next: u32, line: u32) -> Self {
        Self(tag | (line as u64) << 32 | next as u64)
    }

    /// What is known of a segment that begins at `sequence`.
    #[inline(always)]
    const fn of(self, tag: u64, sequence: u32) -> Option<(u32, u32)> {
        let next = self.0 as u32;
        let apart = next.wrapping_sub(sequence) as i32;
        if self.is_kept_by(tag) && apart < STANDING_REACH && apart > -STANDING_REACH {
            Some((next, (self.0 >> 32) as u32 & ((1 << LINE_BITS) - 1)))
        } else {
            None
        }
    }

    /// How many SYNs with this sequence number were answered, of a standing that is kept
    /// by our own initial sequence number.
    #[inline(always)]
    const fn syns(self, tag: u64, sequence: u32) -> u32 {
        match self.of(tag, sequence) {
            Some((next, syns)) if next == sequence => syns & SYNS_MASK,
            _ => 0,
        }
    }

    /// The same, with one more.
    #[inline(always)]
    const fn with_syns(tag: u64, sequence: u32, syns: u32) -> Self {
        Self::new(
            tag,
            sequence,
            if syns < SYNS_MASK { syns } else { SYNS_MASK },
        )
    }

    /// The same, of a client that has acknowledged our initial sequence number.
    #[inline(always)]
    const fn acknowledged(self) -> Self {
        Self(self.0 | (ACKNOWLEDGED as u64) << 32)
    }

    /// Whether the client has acknowledged our initial sequence number.
    pub(crate) const fn is_acknowledged(self) -> bool {
        self.0 & (ACKNOWLEDGED as u64) << 32 != 0
    }

    /// Whether it is kept by this tag.
    #[inline(always)]
    const fn is_kept_by(self, tag: u64) -> bool {
        self.0 >> (32 + LINE_BITS) == tag >> (32 + LINE_BITS)
    }

    /// Whether both are of one tuple and sequence number, whatever else they say.
    pub(crate) const fn is_of_same(self, other: Self) -> bool {
        let line = ((1 << LINE_BITS) - 1) << 32;
        (self.0 ^ other.0) & !line == 0
    }

    /// Of a client that has said nothing yet.
    #[inline(always)]
    const fn silent(tag: u64, syn_sequence: u32) -> Self {
        Self::new(tag, syn_sequence.wrapping_add(1), Line::EMPTY.to_bits())
    }
}

/// What to send.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Its sequence number.
    pub sequence: u32,
    /// Its acknowledgment number.
    pub acknowledgment: u32,
    /// Its TCP flags, as they stand above the window.
    pub flags: u32,
    /// Whether it is the greeting.
    pub greeting: u32,
    /// How many refusals it has.
    pub refusals: u32,
    /// Whether it has the reply to QUIT, behind those.
    pub goodbye: u32,
}

impl Reply {
    /// To be filled.
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

    /// The answer to the SYN of a proven tuple, of which `syns` were answered before.
    #[inline(always)]
    const fn to_syn(syn_sequence: u32, cookie: u32, syns: u32) -> Self {
        if syns < BARE_SYNS {
            Self::bare(TCP_SYN, cookie, 0)
        } else {
            Self::syn_ack(cookie, syn_sequence.wrapping_add(1))
        }
    }

    /// Ends what a third party was made to begin (RFC 9293 section 3.10.7.3).
    #[inline(always)]
    const fn reset(acknowledgment: u32) -> Self {
        Self::bare(TCP_RST, acknowledgment, 0)
    }

    /// The greeting, from `sequence` on; with a FIN where it is all.
    #[inline(always)]
    pub(crate) const fn greet(texts: &Texts, sequence: u32, acknowledgment: u32) -> Self {
        let closes = texts.refusal.length == 0;
        let flags = TCP_ACK | PUSH | if closes { TCP_FIN } else { 0 };
        Self {
            greeting: 1,
            ..Self::bare(flags, sequence, acknowledgment)
        }
    }

    /// The SYN-ACK of a dialog.
    pub(crate) const fn syn_ack(sequence: u32, acknowledgment: u32) -> Self {
        Self::bare(TCP_SYN | TCP_ACK, sequence, acknowledgment)
    }

    /// What stands in its TCP header.
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

    /// Octets of text.
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
        let mut said = 0;
        while said < REFUSALS_MAX {
            if said < self.refusals {
                sum += if odd == 0 { refusal } else { swapped(refusal) };
                odd ^= texts.refusal.length & 1;
            }
            said += 1;
        }
        if self.goodbye != 0 {
            let goodbye = folded(texts.goodbye.sum);
            sum += if odd == 0 { goodbye } else { swapped(goodbye) };
        }
        sum
    }
}

/// Most refusals in a packet: no refusal is shorter than a quarter of [`TEXT_MAX`].
pub const REFUSALS_MAX: u32 = 4;
/// The shortest refusal that there may be.
pub const REFUSAL_MIN: usize = TEXT_MAX / REFUSALS_MAX as usize;

/// A sum of 16-bit words in one such word.
const fn folded(sum: u32) -> u32 {
    let sum = (sum & 0xffff) + (sum >> 16);
    (sum & 0xffff) + (sum >> 16)
}

/// The sum of the same octets one place further on (RFC 1071 section 2 B).
const fn swapped(sum: u32) -> u32 {
    (sum & 0xff) << 8 | sum >> 8
}

impl Text {
    /// None when it is longer than [`TEXT_MAX`].
    pub fn new(text: &[u8]) -> Option<Self> {
        let mut octets = [0; TEXT_MAX];
        octets.get_mut(..text.len())?.copy_from_slice(text);
        let sum = octets
            .chunks_exact(2)
            .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]))
            .sum();
        Some(Self {
            octets,
            length: text.len() as u32,
            sum,
        })
    }
}

impl Texts {
    /// With a `refusal` and a `goodbye`, or with neither where the greeting is all. None
    /// when one of them is too long, too short, or their lengths are such that no
    /// acknowledgment number would tell them apart.
    pub fn new(greeting: &[u8], refusal: &[u8], goodbye: &[u8]) -> Option<Self> {
        let texts = Self {
            greeting: Text::new(greeting)?,
            refusal: Text::new(refusal)?,
            goodbye: Text::new(goodbye)?,
        };
        let closes = refusal.is_empty() && goodbye.is_empty();
        let tells = refusal.len() >= REFUSAL_MIN
            && (2..=refusal.len()).contains(&goodbye.len())
            && !(goodbye.len() + 1).is_multiple_of(refusal.len());
        (!greeting.is_empty() && (closes || tells)).then_some(texts)
    }

    /// Most replies to commands in one packet.
    #[inline(always)]
    const fn replies_max(&self) -> u32 {
        match self.refusal.length {
            0 => 0,
            length => TEXT_MAX as u32 / length,
        }
    }
}

/// What the responder has to ask and to keep.
pub trait Host {
    /// The texts of a generation.
    fn texts(&self, generation: u32) -> Option<&Texts>;
    /// Whether the tuple has proven itself a moment ago, with a SYN of this sequence
    /// number.
    fn is_proven(&mut self, sequence: u32) -> bool;
    /// An entry of the table of dialogs.
    fn standing(&self, index: u32) -> Standing;
    /// Writes one.
    fn keep(&mut self, index: u32, standing: Standing);
    /// A dialog begins with a SYN-ACK that this number acknowledges, see [`crate::stateless::retransmit`]. That
    /// its greeting is owed stands in the table of dialogs, until it is acknowledged.
    fn owe(&mut self, segment: &Segment, index: u32, standing: Standing, acknowledgment: u32);
    /// Has each octet of the frame from `start` on heard ([`Hearing::take`]), from the
    /// first that was not, up to `until`, or until [`Hearing::is_over`]. None when they
    /// are not there.
    fn hear(&mut self, start: u32, until: u32, hearing: Hearing) -> Option<Hearing>;
}

/// Who asks, and when.
#[derive(Clone, Copy, Debug)]
pub struct Asker {
    /// The hash of its tuple.
    pub hash: TupleHash,
    /// The secret of cookies.
    pub key: Key,
    /// The time slot.
    pub slot: u32,
}

/// What is to be done with a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is of no dialog of ours.
    Foreign,
    /// It is, and there is nothing to say.
    Silence,
    /// To send this, with the texts of that generation.
    Say(Reply, u32),
}

/// Answers the SYN of a proven tuple.
#[inline(always)]
pub fn greet_syn(host: &mut impl Host, segment: &Segment, asker: Asker, generation: u32) -> Reply {
    let sequence = segment.sequence;
    let cookie = Cookie::of(segment, asker.key, asker.slot).sequence(generation);
    let (index, tag) = Standing::place(asker.hash, cookie);
    let syns = host.standing(index).syns(tag, sequence);
    let standing = Standing::with_syns(tag, sequence, syns + 1);
    host.keep(index, standing);
    if syns == BARE_SYNS {
        host.owe(segment, index, standing, cookie.wrapping_add(1));
    }
    // From here on nothing has been said, whatever an earlier connection has left.
    let greeting = host
        .texts(generation)
        .map_or(0, |texts| texts.greeting.length);
    let greeted = cookie.wrapping_add(1).wrapping_add(greeting);
    let (index, tag) = Standing::place(asker.hash, greeted);
    host.keep(index, Standing::silent(tag, sequence));
    Reply::to_syn(sequence, cookie, syns)
}

/// Takes a RST of a tuple: nothing is owed to it any more. One that acknowledges
/// something has to acknowledge what we say; any other has to be near what the client
/// said.
#[inline(always)]
pub fn reset(host: &mut impl Host, segment: &Segment, received: &Received, asker: Asker) {
    for age in 0..2 {
        let slot = asker.slot.wrapping_sub(age);
        let cookie = Cookie::of(segment, asker.key, slot);
        let (of_reset, position) = cookie.position(received.acknowledgment);
        let acknowledges = received.has(TCP_ACK);
        for generation in 0..GENERATIONS {
            if acknowledges && (generation != of_reset || position > TEXT_MAX as u32) {
                continue;
            }
            let (index, tag) = Standing::place(asker.hash, cookie.sequence(generation));
            let standing = host.standing(index);
            let is_meant = if acknowledges {
                standing.is_kept_by(tag)
            } else {
                standing.of(tag, segment.sequence).is_some()
            };
            // Before the SYN-ACK nothing is owed, and a firewall that rejects a bare SYN is
            // to get that all the same.
            let syns = (standing.0 >> 32) as u32 & SYNS_MASK;
            if is_meant && syns > BARE_SYNS && crate::Mechanism::ResetEndsGreeting.is_on() {
                host.keep(index, Standing(0));
            }
        }
    }
}

/// Answers a segment of a dialog.
#[inline(always)]
pub fn respond(
    host: &mut impl Host,
    segment: &Segment,
    received: &Received,
    asker: Asker,
) -> Outcome {
    let acknowledgment = received.acknowledgment;
    let slot = asker.slot;
    let known = match phase_of(host, segment, asker.key, slot, acknowledgment) {
        None => {
            let before = slot.wrapping_sub(1);
            phase_of(host, segment, asker.key, before, acknowledgment)
        }
        known => known,
    };
    let Some((generation, position, phase)) = known else {
        return Outcome::Foreign;
    };
    let sequence = segment.sequence;
    let syn = received.has(TCP_SYN);
    let length = received.length;
    let fin = u32::from(received.has(TCP_FIN));
    if phase == Phase::Greeting {
        let first = acknowledgment.wrapping_sub(position);
        let (index, tag) = Standing::place(asker.hash, first.wrapping_sub(1));
        let standing = host.standing(index);
        // Of the SYN that it was kept for, to the last bit; a ticket knows but the upper half.
        let is_of_proven = if standing.is_kept_by(tag) {
            standing.0 as u32 == sequence
        } else {
            host.is_proven(sequence)
        };
        if syn && !is_of_proven {
            return Outcome::Say(Reply::reset(acknowledgment), generation);
        }
        // A client is greeted for its acknowledgment. What talks before it was greeted may
        // be another host that greets, and neither would ever have done.
        if length > 0 && crate::Mechanism::SilenceBeforeGreeting.is_on() {
            return Outcome::Silence;
        }
        if let Some((_, syns)) = standing.of(tag, sequence)
            && syns & SYNS_MASK > BARE_SYNS
        {
            host.keep(index, standing.acknowledged());
        }
        let Some(texts) = host.texts(generation) else {
            return Outcome::Foreign;
        };
        let next = sequence.wrapping_add(u32::from(syn));
        return Outcome::Say(Reply::greet(texts, first, next), generation);
    }
    if matches!(phase, Phase::Open(0) | Phase::Over) {
        let first = acknowledgment.wrapping_sub(1).wrapping_sub(position);
        let (index, tag) = Standing::place(asker.hash, first);
        if let Some((_, syns)) = host.standing(index).of(tag, sequence)
            && syns & SYNS_MASK > BARE_SYNS
        {
            host.keep(index, Standing(0));
        }
    }
    if syn || length + fin == 0 {
        return Outcome::Silence;
    }
    let Phase::Open(commands) = phase else {
        let next = sequence.wrapping_add(length + fin);
        return Outcome::Say(Reply::bare(TCP_ACK, acknowledgment, next), generation);
    };
    let (index, tag) = Standing::place(asker.hash, acknowledgment);
    let standing = host.standing(index).of(tag, sequence);
    let (next, line) = standing.unwrap_or((sequence, Line::EMPTY.to_bits()));
    let from = next.wrapping_sub(sequence);
    if from > length {
        // All of it is known, or something before it is missing.
        return Outcome::Say(Reply::bare(TCP_ACK, acknowledgment, next), generation);
    }
    let Some(texts) = host.texts(generation) else {
        return Outcome::Foreign;
    };
    let left = COMMANDS_MAX.saturating_sub(commands);
    let replies_max = texts.replies_max().min(left);
    let (refusal, goodbye) = (texts.refusal.length, texts.goodbye.length);
    let until = length.min(WINDOW as u32);
    let hearing = Hearing::new(from.min(until), line, replies_max);
    let Some(heard) = host.hear(received.payload, until, hearing) else {
        return Outcome::Foreign;
    };
    let refusals = heard.refusals();
    let over = heard.end() == QUIT_HEARD || heard.end() == GARBAGE_HEARD;
    // What comes after the end is swallowed.
    let taken = if over { length } else { heard.taken() };
    // The client has no more to say, and all of it was heard.
    let peer_ends = fin != 0 && taken == length;
    let closes = over || peer_ends || commands + refusals >= COMMANDS_MAX;
    let next = sequence.wrapping_add(taken);
    let quit = u32::from(heard.end() == QUIT_HEARD);
    let said = refusals * refusal + quit * goodbye;
    let flags = TCP_ACK | if said > 0 { PUSH } else { 0 } | if closes { TCP_FIN } else { 0 };
    let reply = Reply {
        refusals,
        goodbye: quit,
        ..Reply::bare(
            flags,
            acknowledgment,
            next.wrapping_add(u32::from(peer_ends)),
        )
    };
    // Without the FIN, which is answered again if it comes again. What comes late takes
    // nothing back: the client has forgotten what was acknowledged since.
    let (index, tag) = Standing::place(asker.hash, acknowledgment.wrapping_add(said));
    let later = match host.standing(index).of(tag, next) {
        Some((known, _)) => known.wrapping_sub(next) as i32 > 0,
        None => false,
    };
    if !later {
        host.keep(index, Standing::new(tag, next, heard.line()));
    }
    Outcome::Say(reply, generation)
}

/// The generation, position and phase of a dialog that began in this slot. A function and
/// no closure: those that the compiler does not inline have names that the kernel
/// does not take.
#[inline(always)]
fn phase_of(
    host: &impl Host,
    segment: &Segment,
    key: Key,
    slot: u32,
    acknowledgment: u32,
) -> Option<(u32, u32, Phase)> {
    let (generation, position) = Cookie::of(segment, key, slot).position(acknowledgment);
    let phase = Phase::of(host.texts(generation)?, position)?;
    Some((generation, position, phase))
}
