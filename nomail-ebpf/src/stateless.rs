//! The refusal without a socket: access to packets and maps for
//! [`nomail_common::stateless`]. A program of its own, reached by a tail call, because the
//! other one has no stack left for it.

use aya_ebpf::{
    bindings::{
        xdp_action::{XDP_DROP, XDP_PASS, XDP_TX},
        xdp_md,
    },
    helpers::generated::bpf_jiffies64,
    programs::XdpContext,
};
use nomail_common::{
    abi::{Config, REFUSALS_MAX, Texts, WINDOW},
    guard::challenge::TupleHash,
    guard::tickets::Proof,
    reach::Reach,
    source::Source,
    stateless::dialog::{self, Environment, PeerKey, Reaction, Received, ReplySegment},
    stateless::dialog_state::DialogState,
    stateless::line_scan::LineScan,
    verdict::Answer,
    wire::packet::{Kind, Segment},
    wire::reply::{self, IPV4_WORDS, IPV6_WORDS},
};

use crate::{
    answer::reach,
    find::find,
    frame::{self, XdpFrame},
    maps::{self, CpuCounters},
    syn_context::entry_of,
    tickets::proof_of,
};

/// Bit of the result of [`respond`]: a reply is to be sent. The bits above are the generation
/// of the texts and the entry of the counters. Without it, the result is an XDP action.
const SAY: u32 = 16;
const GENERATION_SHIFT: u32 = 8;
const ENTRY_SHIFT: u32 = 16;

/// Answers the SYN of a proven tuple, and segments of its dialogs. In three parts, one after
/// the other, whose stacks are not added up.
#[inline(always)]
pub(crate) fn refuse(context: &XdpContext) -> u32 {
    let mut segment = Segment::NONE;
    if find(context.ctx, &raw mut segment, 1) == 0 {
        return XDP_PASS;
    }
    let mut reply = ReplySegment::NOTHING;
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

/// Decides about a segment; returns an XDP action or [`SAY`]. Global.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn respond(
    context: *mut xdp_md,
    segment: *const Segment,
    reply: *mut ReplySegment,
) -> u32 {
    // SAFETY: the caller's own, or null, as far as the verifier knows.
    let (Some(segment), Some(reply)) = (unsafe { (segment.as_ref(), reply.as_mut()) }) else {
        return XDP_PASS;
    };
    let context = XdpContext::new(context);
    respond_inner(&context, segment, reply).unwrap_or(XDP_PASS)
}

#[inline(always)]
fn respond_inner(context: &XdpContext, segment: &Segment, reply: &mut ReplySegment) -> Option<u32> {
    let entry = answerable(context.ctx, segment);
    if entry == NOT_ANSWERABLE {
        return None;
    }
    let config = maps::config()?;
    // SAFETY: the helper takes nothing and returns a number.
    let jiffies = unsafe { bpf_jiffies64() };
    let peer = PeerKey {
        hash: TupleHash::of(segment, maps::key()),
        key: maps::key(),
        slot: (jiffies >> (config.cookie_shift & 63)) as u32,
    };
    let mut kernel = Kernel {
        context,
        config,
        jiffies,
        source: segment.source(),
        hash: peer.hash,
    };
    let outcome = match segment.kind {
        Kind::Syn => {
            let generation = config.generation;
            let reply = dialog::greet_syn(&mut kernel, segment, peer, generation);
            Reaction::Say(reply, generation)
        }
        Kind::Dialog => {
            let received = Received::of(&XdpFrame::new(context), segment)?;
            dialog::respond(&mut kernel, segment, &received, peer)
        }
        Kind::Reset => {
            let received = Received::of(&XdpFrame::new(context), segment)?;
            dialog::reset(&mut kernel, segment, &received, peer);
            // The network stack gets it too.
            Reaction::Foreign
        }
        Kind::Malformed => Reaction::Foreign,
    };
    match outcome {
        Reaction::Foreign => None,
        Reaction::Silence => Some(XDP_DROP),
        Reaction::Say(decided, generation) => {
            *reply = decided;
            Some(SAY | generation << GENERATION_SHIFT | entry << ENTRY_SHIFT)
        }
    }
}

#[inline(always)]
fn count(counters: &CpuCounters, reply: &ReplySegment, action: u32) {
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

/// Turns the frame into the reply, and returns the action that sends it back. Global.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn send(
    context: *mut xdp_md,
    segment: *const Segment,
    reply: *const ReplySegment,
    generation: u32,
) -> u32 {
    // SAFETY: as in `respond`.
    let (Some(segment), Some(reply)) = (unsafe { (segment.as_ref(), reply.as_ref()) }) else {
        return XDP_DROP;
    };
    let context = XdpContext::new(context);
    let sent =
        maps::texts(generation).and_then(|texts| send_inner(&context, segment, reply, texts));
    match sent {
        Some(()) => XDP_TX,
        None => XDP_DROP,
    }
}

#[inline(always)]
fn send_inner(
    context: &XdpContext,
    segment: &Segment,
    reply: &ReplySegment,
    texts: &Texts,
) -> Option<()> {
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
    for written in 0..REFUSALS_MAX {
        if written < reply.refusals {
            offset = frame::write_text(context, offset, &texts.refusal)?;
        }
    }
    if reply.goodbye != 0 {
        frame::write_text(context, offset, &texts.goodbye)?;
    }
    Some(())
}

/// The maps and the frame, as the environment of a dialog.
struct Kernel<'a> {
    context: &'a XdpContext,
    config: &'a Config,
    jiffies: u64,
    source: Source,
    hash: TupleHash,
}

impl Environment for Kernel<'_> {
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
    fn dialog_state(&self, index: u32) -> DialogState {
        DialogState(maps::dialog(index).map_or(0, |word| word.load()))
    }

    #[inline(always)]
    fn set_dialog_state(&mut self, index: u32, state: DialogState) {
        if let Some(word) = maps::dialog(index) {
            word.store(state.0);
        }
    }

    #[inline(always)]
    fn request_retransmission(
        &mut self,
        segment: &Segment,
        index: u32,
        state: DialogState,
        acknowledgment: u32,
    ) {
        request_retransmission(
            self.context.ctx,
            &raw const *segment,
            index,
            state.0,
            acknowledgment,
        );
    }

    #[inline(always)]
    fn scan(&mut self, start: u32, until: u32, scan: LineScan) -> Option<LineScan> {
        match scan_payload(self.context.ctx, start, until, scan.0) {
            TOO_SHORT => None,
            scanned => Some(LineScan(scanned)),
        }
    }
}

/// Hands a dialog to the agent, which retransmits its greeting. Global.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn request_retransmission(
    context: *mut xdp_md,
    segment: *const Segment,
    index: u32,
    state: u64,
    acknowledgment: u32,
) -> u32 {
    // SAFETY: as in `respond`.
    let Some(segment) = (unsafe { segment.as_ref() }) else {
        return 0;
    };
    let context = XdpContext::new(context);
    let Some(mut entry) = maps::reserve_retransmission() else {
        return 0;
    };
    let room = entry.as_mut_ptr();
    // SAFETY: room in the ring, of integers only, and aligned to 8.
    let frame = unsafe {
        (&raw mut (*room).state).write(state);
        (&raw mut (*room).index).write(index);
        (&raw mut (*room).interface).write(context.ingress_ifindex() as u32);
        (&raw mut (*room).acknowledgment).write(acknowledgment);
        (&raw mut (*room).network).write(segment.network);
        &raw mut (*room).frame
    };
    let written = frame::read_headers(&context, segment, frame);
    maps::send_retransmission(entry, written);
    1
}

/// Result of [`scan_payload`] when the frame ends before: not a [`LineScan`].
const TOO_SHORT: u64 = u64::MAX;

/// Scans bytes of the payload, see [`Environment::scan`]. Global.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn scan_payload(context: *mut xdp_md, start: u32, until: u32, scan: u64) -> u64 {
    let Some(payload) = maps::payload() else {
        return TOO_SHORT;
    };
    let from = LineScan(scan).scanned();
    let count = until.wrapping_sub(from);
    if !frame::read_payload(&XdpContext::new(context), start + from, count, payload) {
        return TOO_SHORT;
    }
    let mut scan = scan;
    for at in 0..WINDOW as u32 {
        if at >= count || LineScan(scan).is_over() {
            break;
        }
        scan = scan_byte(scan, u32::from(payload[at as usize]));
    }
    scan
}

/// Scans one byte. Global.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn scan_byte(scan: u64, byte: u32) -> u64 {
    LineScan(scan).take(byte as u8).0
}

/// The entry of the counters of a segment's interface if XDP may answer it, see [`reach`];
/// else [`NOT_ANSWERABLE`]. Global.
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

/// Result of [`answerable`] for a segment that is not answered.
const NOT_ANSWERABLE: u32 = u32::MAX;
