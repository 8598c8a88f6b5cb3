//! What matters most of a status, in one word.

use anstyle::AnsiColor;

use super::shape::{InterfaceStatus, Speaker, Status, Trouble};
use crate::text::ascii;

/// What matters most of a status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// SYNs are judged.
    Guarding,
    /// SYNs are judged, and none is dropped.
    Observing,
    /// More SYNs arrive than the listeners can accept.
    Flood,
    /// The guard was taken off an interface, or replaced.
    Lost,
    /// Connections arrive whose SYNs the guard did not see.
    Blind,
    /// What XDP sends does not leave the host.
    AnswersLost,
    /// The responder runs without a guard.
    Unguarded,
    /// The guard stayed after its agent: no client is answered.
    Alone,
}

impl State {
    /// What it means, as `status` and `top` show it.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Guarding => "guarding",
            Self::Observing => "observing: SYNs are judged, none is dropped",
            Self::Flood => "FLOOD: more SYNs than the listeners can accept",
            Self::Lost => "GUARD LOST: SYNs on an interface are not counted or limited",
            Self::Blind => "GUARD BLIND: connections arrive whose SYNs it did not see",
            Self::AnswersLost => "ANSWERS LOST: packets that XDP sends do not leave the host",
            Self::Unguarded => "NOT GUARDING: the responder runs without XDP",
            Self::Alone => "agent not running; the guard stays attached",
        }
    }

    /// Its colour on a terminal.
    pub const fn colour(self) -> AnsiColor {
        match self {
            Self::Guarding => AnsiColor::Green,
            Self::Observing | Self::Alone => AnsiColor::Yellow,
            Self::Lost | Self::Blind | Self::AnswersLost | Self::Flood | Self::Unguarded => {
                AnsiColor::Red
            }
        }
    }
}

impl Status {
    /// What matters most. Observing comes before a flood, because no client is
    /// challenged then.
    pub fn state(&self) -> State {
        let has = |trouble: fn(Trouble) -> bool| {
            let mut troubles = self.interfaces.iter().filter_map(|one| one.trouble);
            troubles.any(trouble)
        };
        if !self.agent_running {
            State::Alone
        } else if has(Trouble::is_loss) {
            State::Lost
        } else if has(|trouble| trouble == Trouble::Blind) {
            State::Blind
        } else if has(|trouble| trouble == Trouble::AnswersLost) {
            State::AnswersLost
        } else if !self.interfaces.iter().any(InterfaceStatus::is_guarded) {
            State::Unguarded
        } else if self.observe {
            State::Observing
        } else if self.flood {
            State::Flood
        } else {
            State::Guarding
        }
    }

    /// Why `/healthz` reports a failure, if it does: the agent listens nowhere, an
    /// interface lost its guard or has a blind one, or XDP is to serve and its packets are lost. An
    /// interface that is gone is no failure: nothing arrives there.
    pub fn unhealthy(&self) -> Option<String> {
        if self.guarded.is_empty() {
            return Some("It listens on no address.".to_owned());
        }
        let answers = self.responder.serving == Speaker::Xdp;
        let bad = self.interfaces.iter().find(|one| match one.trouble {
            Some(Trouble::AnswersLost) => answers,
            Some(trouble) => trouble.is_loss() || trouble == Trouble::Blind,
            None => false,
        })?;
        let name = ascii(&bad.name);
        let reason = ascii(&bad.reason);
        Some(match bad.trouble {
            Some(Trouble::AnswersLost) => {
                format!("Clients on {name} get no answer: {reason}.")
            }
            _ => format!("{name} is not guarded: {reason}."),
        })
    }
}
