//! Answering a SYN with a challenge or a SYN cookie, where that is right.

use aya_ebpf::{
    bindings::xdp_action::{XDP_DROP, XDP_PASS, XDP_TX},
    programs::XdpContext,
};
use nomail_common::{
    abi::{Config, Guarded, UNANSWERED},
    guard::policy::{self, FloodAnswer},
    guard::tickets::Proof,
    reach::Reach,
    verdict::Answer,
    verifier::forget,
    wire::packet::Segment,
    wire::reply::{self, Numbers},
};

use crate::{frame, maps, syn_context::SynContext};

/// Sends the configured answer to a SYN where [`Reach`] allows it, and leaves the SYN to the
/// kernel where it does not.
#[inline(always)]
pub(crate) fn answer(syn: &mut SynContext<'_>, proof: Proof) -> u32 {
    syn.forget();
    let proof = Proof::from_value(forget(proof as u64, syn.jiffies) as u32);
    let flood_answer = syn.flood_answer();
    if flood_answer == FloodAnswer::Drop {
        return XDP_DROP;
    }
    let passes = match reach(
        syn.context,
        &syn.segment,
        syn.config,
        syn.guarded,
        syn.entry,
    ) {
        _ if nomail_common::Mechanism::ReachBeforeCookie.is_off()
            && flood_answer == FloodAnswer::Cookie
            && syn.cookie() == 0 =>
        {
            return XDP_DROP;
        }
        Reach::Yes => return send(syn, flood_answer, proof),
        Reach::NotThisWay => nomail_common::Mechanism::OtherWayPasses.is_on(),
        Reach::NotThisPacket => !syn.is_over_shared(UNANSWERED, policy::unanswered(syn.config.cap)),
    };
    let (answer, action) = if passes {
        (Answer::Unanswerable, XDP_PASS)
    } else {
        (Answer::UnanswerableDropped, XDP_DROP)
    };
    syn.counters.count_answer(answer);
    action
}

#[inline(always)]
fn send(syn: &mut SynContext<'_>, flood_answer: FloodAnswer, proof: Proof) -> u32 {
    let sequence = syn.segment.sequence;
    let (answer, numbers) = if flood_answer == FloodAnswer::Cookie {
        let cookie = syn.cookie() as u32;
        // The kernel would refuse the acknowledgment of any other number.
        if cookie == 0 {
            return XDP_DROP;
        }
        let numbers = Numbers {
            sequence: cookie,
            acknowledgment: sequence.wrapping_add(1),
        };
        (Answer::Cookie, numbers)
    } else {
        let slot = syn.slot();
        let numbers = Numbers {
            sequence: 0,
            acknowledgment: syn.hash().acknowledgment(sequence, slot, proof.round()),
        };
        (Answer::Challenge, numbers)
    };
    let (context, network) = (syn.context, syn.segment.network as usize);
    let action = if syn.segment.is_ipv6() {
        frame::answer(context, network, |headers| {
            reply::turn_ipv6(headers, numbers);
        })
    } else {
        frame::answer(context, network, |headers| {
            reply::turn_ipv4(headers, numbers);
        })
    };
    let is_sent = action == XDP_TX;
    let answer = if is_sent {
        answer
    } else {
        Answer::UnanswerableDropped
    };
    syn.counters.count_answer(answer);
    action
}

/// Whether XDP may answer a segment, see [`Reach::of`].
#[inline(always)]
pub(crate) fn reach(
    context: &XdpContext,
    segment: &Segment,
    config: &Config,
    guarded: &Guarded,
    entry: u32,
) -> Reach {
    let Some(hardware) = frame::hardware(context) else {
        return Reach::NotThisWay;
    };
    let index = entry.checked_sub(1).map(|index| index as usize);
    Reach::of(
        segment,
        guarded,
        config,
        index,
        hardware,
        &maps::PORTS.load(),
        |entry, [d0, d1, d2, d3, d4, d5]| {
            let destination = u64::from_be_bytes([0, 0, d0, d1, d2, d3, d4, d5]);
            is_further_hardware(entry, destination) != 0
        },
    )
}

/// Whether a hardware address, in the lower 48 bits, is a further one of the interface of this
/// entry. Global.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn is_further_hardware(entry: u32, destination: u64) -> u32 {
    let [_, _, destination @ ..] = destination.to_be_bytes();
    let is = maps::config().is_some_and(|config| config.is_further_hardware(entry, destination));
    u32::from(is)
}
