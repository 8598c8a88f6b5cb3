//! What a development object logs, by aya-log: each step of a SYN or RST for one of our ports.
//! Without the feature `trace`, [`trace!`] is nothing.
//!
//! Each line has a global function, so that it costs the programs no stack and the verifier
//! one walk. Nothing is logged of a frame that `glance` passes: a line for each frame of the
//! terminal that shows the lines would never end.

/// Logs a step: the name of its function below, and its arguments, which are not evaluated
/// without the feature.
macro_rules! trace {
    ($step:ident $(, $argument:expr)*) => {
        #[cfg(feature = "trace")]
        crate::trace::$step($($argument),*);
    };
}
pub(crate) use trace;

#[cfg(feature = "trace")]
pub(crate) use self::steps::*;

#[cfg(feature = "trace")]
mod steps {
    use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS, XDP_TX};
    use nomail_common::{
        counted::Counted as _,
        guard::tickets::{Answered, Proof},
        verdict::{Answer, Verdict},
        wire::packet::{IPV6, Kind},
    };

    /// Logs a line where the agent's log expects it. A line has a `&str` of known length:
    /// otherwise the verifier walks each.
    macro_rules! log {
        ($($line:tt)*) => {
            aya_log_ebpf::trace!((), target: "nomail_ebpf", $($line)*)
        };
    }

    /// Steps that log one of their words, by its number.
    macro_rules! steps {
        ($($name:ident $line:tt { $($number:expr => $word:expr,)+ })+) => {$(
            #[unsafe(no_mangle)]
            #[inline(never)]
            pub(crate) extern "C" fn $name(number: u32) -> u32 {
                $(if number == $number as u32 {
                    log!($line, $word);
                })+
                0
            }
        )+};
    }

    steps! {
        trace_kind "kind: {}" {
            Kind::Syn => "SYN",
            Kind::Malformed => "malformed",
            Kind::Reset => "RST",
            Kind::Dialog => "of a dialog",
        }
        trace_guarded "guarded: {}" {
            0 => "no",
        }
        trace_state "state: {}" {
            0 => "peace",
            1 => "cap exhausted",
            2 => "tickets alive",
            3 => "cap exhausted, tickets alive",
        }
        trace_list "{}" {
            0 => "not on the allow list",
            1 => "on the allow list",
            2 => "not on the deny list",
            3 => "on the deny list",
        }
        trace_ticket "ticket: {}" {
            Proof::None => "none",
            Proof::Half => "one answer of two",
            Proof::New => "new",
            Proof::Used => "used",
            Proof::Spent => "spent",
        }
        trace_source "bucket of the source: {}" {
            0 => "within its limit",
            1 => "over its limit",
        }
        trace_prefix "bucket of the prefix: {}" {
            0 => "within its limit",
            1 => "over its limit",
        }
        trace_cap "cap: {}" {
            0 => "within its limit",
            1 => "over its limit",
        }
        trace_verdict "verdict: {}" {
            Verdict::Passed => Verdict::Passed.name(),
            Verdict::Malformed => Verdict::Malformed.name(),
            Verdict::Denied => Verdict::Denied.name(),
            Verdict::LimitedSource => Verdict::LimitedSource.name(),
            Verdict::LimitedPrefix => Verdict::LimitedPrefix.name(),
            Verdict::Flood => Verdict::Flood.name(),
            Verdict::Replayed => Verdict::Replayed.name(),
        }
        trace_reset "RST answers: {}" {
            Answered::Not => "no challenge",
            Answered::Again => "a challenge, again or half",
            Answered::Proven => "a challenge",
            Answered::Opened => "a connection",
        }
        trace_answer "counted: {}" {
            Answer::Challenge => Answer::Challenge.name(),
            Answer::Proven => Answer::Proven.name(),
            Answer::Unanswerable => Answer::Unanswerable.name(),
            Answer::Cookie => Answer::Cookie.name(),
            Answer::Stateless => Answer::Stateless.name(),
            Answer::Greeting => Answer::Greeting.name(),
            Answer::Goodbye => Answer::Goodbye.name(),
            Answer::UnanswerableDropped => Answer::UnanswerableDropped.name(),
        }
        trace_action "action: {}" {
            XDP_DROP => "XDP_DROP",
            XDP_PASS => "XDP_PASS",
            XDP_TX => "XDP_TX",
        }
        trace_program "continues in {}" {
            0 => "nomail_responder",
        }
    }

    /// Logs who sent a segment, to whom, and its kind. `rest` has the kind and the flags above
    /// both ports.
    #[unsafe(no_mangle)]
    #[inline(never)]
    pub(crate) extern "C" fn trace_segment(
        peer_high: u64,
        peer_low: u64,
        local_high: u64,
        local_low: u64,
        rest: u64,
    ) -> u32 {
        let (peer_port, port) = ((rest >> 16) as u16, rest as u16);
        if (rest >> 32) as u8 & IPV6 != 0 {
            let [peer, local] = [(peer_high, peer_low), (local_high, local_low)]
                .map(|(high, low)| (u128::from(high) << 64 | u128::from(low)).to_be_bytes());
            log!("[{:i}]:{} to [{:i}]:{}", peer, peer_port, local, port);
        } else {
            let (peer, local) = (peer_low as u32, local_low as u32);
            log!("{:i}:{} to {:i}:{}", peer, peer_port, local, port);
        }
        trace_kind((rest >> 40) as u32)
    }
}
