//! The program that answers where nobody listens: plumbing around
//! [`nomail_common::stateless::dialog`]. Reached by a tail call, because the other one has no
//! stack left for it.

use aya_ebpf::{
    bindings::{
        xdp_action::{XDP_DROP, XDP_PASS, XDP_TX},
        xdp_md,
    },
    helpers::generated::bpf_jiffies64,
    macros::xdp,
    programs::XdpContext,
};
use nomail_common::{
    abi::{Config, Texts},
    guard::challenge::TupleHash,
    guard::policy::Reach,
    guard::source::Source,
    guard::tickets::Proof,
    stateless::dialog::{
        self, Asker, Hearing, Host, Outcome, REFUSALS_MAX, Received, Reply, Standing, WINDOW,
    },
    verdict::Answer,
    wire::packet::{self, Kind, Segment},
    wire::reply::{self, IPV4_WORDS, IPV6_WORDS},
};

use crate::{
    entry_of,
    frame::{self, XdpFrame},
    maps::{self, CpuCounters},
    proof_of, reach,
};

/// What [`respond`] returns for a reply that is to be sent: no action of XDP. Above it
/// stand the generation of the texts and the entry of the counters.
const SAY: u32 = 16;
const GENERATION_SHIFT: u32 = 8;
const ENTRY_SHIFT: u32 = 16;

/// Answers the SYN of a proven tuple, and segments of its dialogs. What is not of one
/// passes: the stack resets it. In three parts, one after the other, which share no
/// stack.
#[xdp(frags)]
fn nomail_responder(context: XdpContext) -> u32 {
    let mut segment = Segment::NONE;
    if find(context.ctx, &raw mut segment) == 0 {
        return XDP_PASS;
    }
    let mut reply = Reply::NOTHING;
    let outcome = respond(context.ctx, &raw const segment, &raw mut reply);
    if outcome & SAY == 0 {
        return outcome;
    }
    let generation = outcome >> GENERATION_SHIFT & 0xff;
    let action = send(
        context.ctx,
        &raw const segment,
        &raw const reply,
        generation,
    );
    if let Some(counters) = maps::counters(outcome >> ENTRY_SHIFT) {
        count(&counters, &reply, action);
    }
    action
}

/// Finds a segment for one of our ports; 0 if there is none. A global function, for the
/// same reason as [`crate::judge`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn find(context: *mut xdp_md, segment: *mut Segment) -> u32 {
    let frame = XdpFrame::new(&XdpContext::new(context));
    let found = packet::parse(&frame, &maps::PORTS.load(), true);
    // SAFETY: the caller's own, or null, as far as the verifier knows.
    let room = unsafe { segment.as_mut() };
    if let (Some(room), Some(found)) = (room, found) {
        *room = found;
        return 1;
    }
    0
}

/// What is to be done with a segment. A global function, for the same reason as
/// [`crate::judge`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn respond(context: *mut xdp_md, segment: *const Segment, reply: *mut Reply) -> u32 {
    // SAFETY: as in `find`.
    let (Some(segment), Some(reply)) = (unsafe { (segment.as_ref(), reply.as_mut()) }) else {
        return XDP_PASS;
    };
    let context = XdpContext::new(context);
    responded(&context, segment, reply).unwrap_or(XDP_PASS)
}

#[inline(always)]
fn responded(context: &XdpContext, segment: &Segment, reply: &mut Reply) -> Option<u32> {
    let entry = answerable(context.ctx, segment);
    if entry == NOT_ANSWERABLE {
        return None;
    }
    let config = maps::config()?;
    // SAFETY: the helper takes nothing and returns a number.
    let jiffies = unsafe { bpf_jiffies64() };
    let asker = Asker {
        hash: TupleHash::of(segment, maps::key()),
        key: maps::key(),
        slot: (jiffies >> (config.cookie_shift & 63)) as u32,
    };
    let mut host = Kernel {
        context,
        config,
        jiffies,
        source: segment.source(),
        hash: asker.hash,
    };
    let outcome = match segment.kind {
        Kind::Syn => {
            let generation = config.generation;
            let reply = dialog::greet_syn(&mut host, segment, asker, generation);
            Outcome::Say(reply, generation)
        }
        Kind::Dialog => {
            let received = Received::of(&XdpFrame::new(context), segment)?;
            dialog::respond(&mut host, segment, &received, asker)
        }
        Kind::Reset => {
            let received = Received::of(&XdpFrame::new(context), segment)?;
            dialog::reset(&mut host, segment, &received, asker);
            // The network stack is to see it too.
            Outcome::Foreign
        }
        Kind::Malformed => Outcome::Foreign,
    };
    match outcome {
        Outcome::Foreign => None,
        Outcome::Silence => Some(XDP_DROP),
        Outcome::Say(said, generation) => {
            *reply = said;
            Some(SAY | generation << GENERATION_SHIFT | entry << ENTRY_SHIFT)
        }
    }
}

#[inline(always)]
fn count(counters: &CpuCounters, reply: &Reply, action: u32) {
    if action != XDP_TX {
        counters.count_answer(Answer::UnanswerableDropped);
        return;
    }
    counters.count_answer(Answer::Stateless);
    if reply.greeting != 0 {
        counters.count_answer(Answer::Greeting);
    }
    if reply.goodbye != 0 {
        counters.count_answer(Answer::Goodbye);
    }
}

/// Turns the frame into the reply, and sends it back; what became of it. A global
/// function, for the same reason as [`crate::judge`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn send(
    context: *mut xdp_md,
    segment: *const Segment,
    reply: *const Reply,
    generation: u32,
) -> u32 {
    // SAFETY: as in `respond`.
    let (Some(segment), Some(reply)) = (unsafe { (segment.as_ref(), reply.as_ref()) }) else {
        return XDP_DROP;
    };
    let context = XdpContext::new(context);
    let sent = maps::texts(generation).and_then(|texts| sent(&context, segment, reply, texts));
    match sent {
        Some(()) => XDP_TX,
        None => XDP_DROP,
    }
}

#[inline(always)]
fn sent(context: &XdpContext, segment: &Segment, reply: &Reply, texts: &Texts) -> Option<()> {
    let header = reply.header(texts);
    let (network, length) = (segment.network as usize, header.text_length);
    let (begun, words) = if segment.is_ipv6() {
        let packet = reply::ipv6(segment, &header);
        let begun = frame::begin_answer(context, network, packet, length);
        (begun, IPV6_WORDS)
    } else {
        let packet = reply::ipv4(segment, &header);
        let begun = frame::begin_answer(context, network, packet, length);
        (begun, IPV4_WORDS)
    };
    if !begun {
        return None;
    }
    let mut offset = segment.network + words as u32 * 4;
    if reply.greeting != 0 {
        offset = frame::write_text(context, offset, &texts.greeting)?;
    }
    for said in 0..REFUSALS_MAX {
        if said < reply.refusals {
            offset = frame::write_text(context, offset, &texts.refusal)?;
        }
    }
    if reply.goodbye != 0 {
        frame::write_text(context, offset, &texts.goodbye)?;
    }
    Some(())
}

/// What the responder asks of the maps and the frame.
struct Kernel<'a> {
    context: &'a XdpContext,
    config: &'a Config,
    jiffies: u64,
    source: Source,
    hash: TupleHash,
}

impl Host for Kernel<'_> {
    #[inline(always)]
    fn texts(&self, generation: u32) -> Option<&Texts> {
        maps::texts(generation)
    }

    #[inline(always)]
    fn is_proven(&mut self, sequence: u32) -> bool {
        let ticks = self.config.proof_ticks;
        let proof = proof_of(self.source.0, self.hash.0, sequence, self.jiffies, ticks);
        Proof::from_value(proof).is_proven()
    }

    #[inline(always)]
    fn standing(&self, index: u32) -> Standing {
        Standing(maps::dialog(index).map_or(0, |word| word.load()))
    }

    #[inline(always)]
    fn keep(&mut self, index: u32, standing: Standing) {
        if let Some(word) = maps::dialog(index) {
            word.store(standing.0);
        }
    }

    #[inline(always)]
    fn owe(&mut self, segment: &Segment, index: u32, standing: Standing, acknowledgment: u32) {
        owe(
            self.context.ctx,
            &raw const *segment,
            index,
            standing.0,
            acknowledgment,
        );
    }

    #[inline(always)]
    fn hear(&mut self, start: u32, until: u32, hearing: Hearing) -> Option<Hearing> {
        match hear(self.context.ctx, start, until, hearing.0) {
            NOT_THERE => None,
            heard => Some(Hearing(heard)),
        }
    }
}

/// Tells the agent of a greeting that is owed. A global function, for the same reason as
/// [`crate::judge`]. Returns nothing of interest.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn owe(
    context: *mut xdp_md,
    segment: *const Segment,
    index: u32,
    standing: u64,
    acknowledgment: u32,
) -> u32 {
    // SAFETY: as in `respond`.
    let Some(segment) = (unsafe { segment.as_ref() }) else {
        return 0;
    };
    let context = XdpContext::new(context);
    let Some(mut entry) = maps::room_for_owed() else {
        return 0;
    };
    let room = entry.as_mut_ptr();
    // SAFETY: room in the ring, of integers only, and aligned to 8.
    let frame = unsafe {
        (&raw mut (*room).standing).write(standing);
        (&raw mut (*room).index).write(index);
        (&raw mut (*room).interface).write(context.ingress_ifindex() as u32);
        (&raw mut (*room).acknowledgment).write(acknowledgment);
        (&raw mut (*room).network).write(segment.network);
        &raw mut (*room).frame
    };
    let written = frame::read_headers(&context, segment, frame);
    maps::tell_owed(entry, written);
    1
}

/// What [`hear`] returns when the octets are not there: no [`Hearing`].
const NOT_THERE: u64 = u64::MAX;

/// Has octets of the frame heard. A global function, for the same reason as
/// [`crate::judge`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn hear(context: *mut xdp_md, start: u32, until: u32, hearing: u64) -> u64 {
    let Some(payload) = maps::payload() else {
        return NOT_THERE;
    };
    let from = Hearing(hearing).seen();
    let count = until.wrapping_sub(from);
    if !frame::read_payload(&XdpContext::new(context), start + from, count, payload) {
        return NOT_THERE;
    }
    let mut hearing = hearing;
    for at in 0..WINDOW as u32 {
        if at >= count || Hearing(hearing).is_over() {
            break;
        }
        hearing = hear_octet(hearing, u32::from(payload[at as usize]));
    }
    hearing
}

/// One octet more. A global function: the verifier looks at it once, and not once for
/// each octet and what may have come before it.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn hear_octet(hearing: u64, octet: u32) -> u64 {
    Hearing(hearing).take(octet as u8).0
}

/// Whether it is right to answer a segment, as [`reach`] says, and the entry of the
/// counters of its interface; [`NOT_ANSWERABLE`] if it is not. A global function, for
/// the same reason as [`crate::judge`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn answerable(context: *mut xdp_md, segment: *const Segment) -> u32 {
    // SAFETY: as in `respond`.
    let Some(segment) = (unsafe { segment.as_ref() }) else {
        return NOT_ANSWERABLE;
    };
    let context = XdpContext::new(context);
    let find = || {
        let config = maps::config()?;
        let guarded = config.guarded(segment.local, segment.port)?;
        let entry = entry_of(config, context.ingress_ifindex() as u32);
        let answers = config.responder != 0
            && config.observe == 0
            && reach(&context, segment, config, guarded, entry) == Reach::Yes;
        answers.then_some(entry)
    };
    find().unwrap_or(NOT_ANSWERABLE)
}

/// See [`answerable`].
const NOT_ANSWERABLE: u32 = u32::MAX;
