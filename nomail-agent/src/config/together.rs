//! Keys that depend on each other. Only the values in effect count: what a drop-in or a flag
//! replaces may contradict them.

use super::{
    choices::{AfterGreeting, Fallback, FloodAnswer, RefuseAt, Responder, XdpMode},
    error::{Problem, quoted},
    keys::{Config, Crowdsec},
    kinds::Choice,
    layer::Layers,
};

/// Fills in the defaults that depend on other keys, and rejects values that contradict them.
pub(super) fn settle(config: &mut Config, layers: &mut Layers) {
    settle_prefix_burst(config, layers);
    if config.relay.is_some() {
        settle_refusal_of_a_relay(config, layers);
    }
    for (key, instead, is_chosen) in [
        ("responder", "listener", config.responder == Responder::Xdp),
        ("fallback", "none", config.fallback == Fallback::Xdp),
    ] {
        if is_chosen && let Some(what) = wrong_beside_xdp(config, key) {
            layers.reject(
                key,
                format!("\"xdp\" does not go with {what}; leave that out, or use \"{instead}\""),
            );
        }
    }
    config.crowdsec = config
        .crowdsec
        .take()
        .and_then(|crowdsec| crowdsec_of(crowdsec, layers));
}

fn settle_prefix_burst(config: &mut Config, layers: &mut Layers) {
    let limits = &mut config.limits;
    if layers.chosen("limits.prefix_burst").is_none() {
        limits.prefix_burst = 2 * limits.prefix_rate;
    } else if !layers.has("limits.prefix_rate") {
        layers.reject(
            "limits.prefix_burst",
            "is of no effect without prefix_rate: give that too, or leave this out".to_owned(),
        );
    }
}

fn settle_refusal_of_a_relay(config: &mut Config, layers: &mut Layers) {
    if config.refuse_at != RefuseAt::Rcpt {
        let shown = quoted(Choice(RefuseAt::CHOICES).name(config.refuse_at));
        layers.reject(
            "refuse_at",
            format!(
                "{shown} does not go with [relay], which refuses at RCPT and never greets with \
                 521; use \"rcpt\", or leave it out"
            ),
        );
        config.refuse_at = RefuseAt::Rcpt;
    }
    if config.after_greeting != AfterGreeting::Hold {
        layers.reject(
            "after_greeting",
            "\"close\" does not go with [relay], which never greets with 521; use \"hold\", or \
             leave it out"
                .to_owned(),
        );
    }
}

/// A value in effect that only a listener can serve.
fn wrong_beside_xdp(config: &Config, key: &str) -> Option<&'static str> {
    Some(if key == "fallback" && config.responder == Responder::Xdp {
        "responder = \"xdp\", which needs nobody in its place"
    } else if config.relay.is_some() {
        "[relay], which refuses at RCPT"
    } else if !matches!(config.refuse_at, RefuseAt::Auto | RefuseAt::Greeting) {
        "a refuse_at other than \"greeting\" (or \"auto\", which then means the same)"
    } else if key == "responder" && !config.monitors.is_empty() {
        "monitors, which are refused at RCPT"
    } else if config.xdp_mode == XdpMode::Off {
        "xdp_mode = \"off\""
    } else if config.limits.flood_answer != FloodAnswer::Challenge {
        "a limits.flood_answer other than \"challenge\""
    } else {
        return None;
    })
}

/// Without its table no API is asked; with it the API's key has to be named.
pub(super) fn crowdsec_of(crowdsec: Crowdsec, layers: &mut Layers) -> Option<Crowdsec> {
    let table = layers.table("crowdsec")?;
    if !layers.has("crowdsec.api_key_file") {
        layers.problems.push(Problem {
            origin: table,
            text: "crowdsec: names no key: give api_key_file = \"/etc/nomail/crowdsec.key\", a \
                   file with what `cscli bouncers add nomail -o raw` prints"
                .to_owned(),
        });
    }
    Some(crowdsec)
}
