//! Checks of an interface: what it is, and how XDP does on it.

use nomail_common::{abi, verdict::Answer};

use super::{
    device::{Device, DeviceMode, VETH},
    finding::{Check, Finding},
};
use crate::{
    config::{Config, XdpMode},
    net::XDP_FRAGS,
    status::{Status, Trouble},
    text::count,
};

/// Largest MTU with which a packet fits one buffer: a page without the headroom of XDP (256),
/// the kernel's data behind a packet (320) and an Ethernet header.
const SINGLE_BUFFER_MTU: u32 = 4096 - 256 - 320 - 14;
/// Features that are off while XDP is attached, and their names for `ethtool -K`.
const COSTS: [(&str, &str); 2] = [("rx-lro", "lro"), ("rx-gro-hw", "rx-gro-hw")];
/// Kinds of interfaces and drivers whose neighbours may be on the same machine, and leave
/// checksums to hardware that does not exist. In generic mode an answer to such a packet is
/// known to arrive with [`VETH`] only.
const LOCAL: [&str; 6] = ["bridge", "macvlan", "macvtap", "tun", VETH, "virtio_net"];
/// Challenges without one answer that are worth a warning.
const UNANSWERED: u64 = 1000;

pub(super) fn check(
    device: &Device,
    config: &Config,
    status: Option<&Status>,
    root: bool,
) -> Vec<Finding> {
    let runs = device.runs(config, status);
    let mut findings = vec![interface(device, runs), topology(device)];
    findings.push(xdp_program(device, runs, status, root));
    if runs == DeviceMode::Off {
        let off = |check| Finding::skip(check, format!("{}: xdp_mode is off", device.name));
        let checks = [
            Check::XdpNative,
            Check::Answers,
            Check::Sight,
            Check::Mtu,
            Check::Offloads,
            Check::Checksums,
        ];
        findings.extend(checks.map(off));
    } else {
        findings.push(xdp_native(device, runs, config.xdp_mode));
        findings.push(answers(device, runs, status));
        findings.push(sight(device, runs, status));
        findings.push(mtu(device, runs));
        findings.push(offloads(device, runs));
        findings.push(checksums(device, runs));
    }
    findings
}

fn interface(device: &Device, runs: DeviceMode) -> Finding {
    let check = Check::Interface;
    let name = &device.name;
    if !device.ethernet && runs != DeviceMode::Off {
        return Finding::fail(
            check,
            format!(
                "{name} is not Ethernet ({}): there is no XDP for it",
                device.shown_kind()
            ),
            "xdp_mode = \"off\", or name the interface below it",
        );
    }
    if !device.up {
        return Finding::warn(
            check,
            format!("{name} is down"),
            format!("ip link set dev {name} up"),
        );
    }
    if !device.carrier {
        return Finding::warn(
            check,
            format!("{name} is up, but has no carrier"),
            format!("plug it in, or bring its peer up: ethtool {name}"),
        );
    }
    Finding::ok(
        check,
        format!(
            "{name} is up, Ethernet, {}, MTU {}",
            device.shown_kind(),
            device.mtu
        ),
    )
}

fn topology(device: &Device) -> Finding {
    let check = Check::Topology;
    let name = &device.name;
    match &device.controller {
        Some((controller, kind)) if kind == "bond" => {
            return Finding::warn(
                check,
                format!("{name} is a port of {controller}, a bond, which has the addresses"),
                format!("interfaces = [\"{controller}\"]"),
            );
        }
        Some((controller, kind)) => {
            return Finding::warn(
                check,
                format!(
                    "{name} is a port of {controller} ({kind}), which has the addresses; there XDP \
                     limits, but does not challenge"
                ),
                format!("listen = [\"ADDRESS:25\"], with an address of {controller}"),
            );
        }
        None => {}
    }
    if !device.vlans.is_empty() {
        return Finding::ok(
            check,
            format!(
                "{name} has VLAN devices ({}): SYNs to their addresses are limited, but not \
                 challenged",
                device.vlans.join(", ")
            ),
        );
    }
    Finding::ok(check, format!("{name} is not a port of a bridge or bond"))
}

fn xdp_program(device: &Device, runs: DeviceMode, status: Option<&Status>, root: bool) -> Finding {
    let check = Check::XdpProgram;
    let name = &device.name;
    let on = device.status_of(status);
    if let Some(on) = on.filter(|on| on.trouble.is_some_and(Trouble::is_loss)) {
        let reason = &on.reason;
        return Finding::fail(
            check,
            format!("{name} is not guarded, although an agent runs: {reason}"),
            format!(
                "stop what removes the program (`bpftool link` and `bpftool net` show what is \
                 attached), or: ip link set dev {name} xdp off; the agent then attaches again"
            ),
        );
    }
    let Some(program) = &device.program else {
        return match on {
            Some(on) if on.is_guarded() => Finding::fail(
                check,
                format!("{name} has no XDP program, but the running agent reports it as guarded"),
                "run doctor again in a second: the agent attaches it again by itself; else restart it",
            ),
            _ => Finding::ok(check, format!("{name} has no XDP program")),
        };
    };
    let id = program.id;
    if on.is_some_and(|on| on.program_id == id) {
        return Finding::ok(
            check,
            format!("{name} has that of the running agent (id {id})"),
        );
    }
    match program.name.as_deref() {
        Some(abi::PROGRAM) => Finding::warn(
            check,
            format!("{name} has a nomail program (id {id}) whose agent does not answer"),
            "nomail-agent detach, or `control = \"PATH\"` of the agent that runs",
        ),
        None if !root => {
            Finding::needs_root(check, &format!("which XDP program {id} on {name} is"))
        }
        _ if runs == DeviceMode::Off => Finding::ok(
            check,
            format!("{name} has another program (id {id}), and xdp_mode is off"),
        ),
        found => Finding::fail(
            check,
            format!(
                "{name} has the XDP program {:?} (id {id}), which is not nomail's; nomail replaces \
                 no other program",
                found.unwrap_or("unknown")
            ),
            format!(
                "stop what attached it (`bpftool link` shows it), or: ip link set dev {name} xdp off"
            ),
        ),
    }
}

fn xdp_native(device: &Device, runs: DeviceMode, wanted: XdpMode) -> Finding {
    let check = Check::XdpNative;
    let name = &device.name;
    let kind = device.shown_kind();
    match (runs, device.can_native()) {
        (DeviceMode::Generic, Some(true)) if device.peer_takes() == Some(false) => Finding::ok(
            check,
            format!("{name}: {kind} has native XDP, but could not answer in that mode"),
        ),
        (_, Some(false)) if wanted == XdpMode::Native => Finding::fail(
            check,
            format!("{name}: {kind} has no native XDP"),
            "xdp_mode = \"auto\"",
        ),
        (DeviceMode::Generic, Some(true)) => Finding::warn(
            check,
            format!("{name}: {kind} has native XDP, but generic mode is used, which costs more"),
            "xdp_mode = \"native\", and restart the agent: it says so if that is refused, and why",
        ),
        (_, Some(true)) => Finding::ok(check, format!("{name}: {kind} has native XDP")),
        (_, Some(false)) => Finding::warn(
            check,
            format!("{name}: {kind} has no native XDP; in generic mode each packet costs more"),
            "a network card or driver with native XDP; or, to accept it: xdp_mode = \"generic\"",
        ),
        (DeviceMode::Native, None) if wanted != XdpMode::Native => {
            Finding::ok(check, format!("{name}: {kind} runs it in native mode"))
        }
        (_, None) => Finding::unseen(
            check,
            format!("{name}: the kernel does not say what {kind} can do, as before Linux 6.3"),
            "start nomail-agent: its log names the mode",
        ),
    }
}

/// Whether the XDP program sees the SYNs of what connects.
fn sight(device: &Device, runs: DeviceMode, status: Option<&Status>) -> Finding {
    let check = Check::Sight;
    let name = &device.name;
    let on = device.status_of(status);
    if let Some(on) = on.filter(|on| on.trouble == Some(Trouble::Blind)) {
        return Finding::fail(
            check,
            format!("{name}: {}: they are not limited", on.reason),
            match runs {
                DeviceMode::Native => {
                    "xdp_mode = \"generic\", and restart the agent; unless a tunnel, \
                                 IPsec or a rule that redirects explains it"
                }
                _ => "look for a tunnel, IPsec or a rule that redirects (`nft list ruleset`)",
            },
        );
    }
    match (runs, device.native_is_blind) {
        (DeviceMode::Native, true) => Finding::fail(
            check,
            format!("{name}: virtio_net without mergeable buffers never runs a native XDP program"),
            "xdp_mode = \"auto\"; or mrg_rxbuf=on for the device of the virtual machine",
        ),
        (_, true) => Finding::ok(
            check,
            format!("{name}: generic mode sees them; native XDP would not"),
        ),
        (_, false) => Finding::ok(
            check,
            format!("{name}: nothing says that SYNs are not seen"),
        ),
    }
}

/// Whether what XDP sends leaves the host.
fn answers(device: &Device, runs: DeviceMode, status: Option<&Status>) -> Finding {
    let check = Check::Answers;
    let name = &device.name;
    let on = device.status_of(status);
    if let Some(on) = on.filter(|on| on.trouble == Some(Trouble::AnswersLost)) {
        return Finding::fail(
            check,
            format!("{name}: {}: clients get no answer from XDP", on.reason),
            match runs {
                DeviceMode::Native => "xdp_mode = \"auto\", and restart the agent",
                _ => "`ip -s link` and `ethtool -S` show what the driver drops",
            },
        );
    }
    match (runs, device.peer_takes()) {
        (DeviceMode::Native, Some(false)) => {
            return Finding::fail(
                check,
                format!(
                    "{name}: in native mode the other end of the veth pair drops what XDP sends: \
                     it has neither GRO nor an XDP program"
                ),
                "xdp_mode = \"auto\"; or there: ethtool -K INTERFACE gro on",
            );
        }
        (DeviceMode::Generic, Some(false)) => {
            return Finding::ok(
                check,
                format!(
                    "{name}: generic mode sends them; the other end of the veth pair drops what \
                     native XDP sends"
                ),
            );
        }
        _ => {}
    }
    let counts = on.map(|on| on.counts.answers).unwrap_or_default();
    if counts[Answer::Challenge] >= UNANSWERED && counts[Answer::Proven] == 0 {
        return Finding::warn(
            check,
            format!(
                "{name}: none of {} challenges was answered: all sources are forged, or challenges \
                 get lost",
                count(counts[Answer::Challenge])
            ),
            "if honest clients are not served during a flood: xdp_mode = \"generic\"",
        );
    }
    if device.kind.as_deref() == Some(VETH)
        && runs == DeviceMode::Native
        && device.xdp_features.is_none()
    {
        return Finding::unseen(
            check,
            format!(
                "{name}: the kernel does not say whether the other end of the veth pair accepts \
                 them, as before Linux 6.3"
            ),
            "xdp_mode = \"auto\", which uses generic mode on such a kernel; or there: \
             ethtool -K INTERFACE gro on",
        );
    }
    Finding::ok(check, format!("{name}: no cause of lost answers is known"))
}

fn mtu(device: &Device, runs: DeviceMode) -> Finding {
    let check = Check::Mtu;
    let Device { name, mtu, .. } = device;
    if *mtu <= SINGLE_BUFFER_MTU || runs == DeviceMode::Generic {
        return Finding::ok(check, format!("{name}: {mtu}"));
    }
    let kind = device.shown_kind();
    match device.xdp_features {
        Some(bits) if bits & XDP_FRAGS != 0 => Finding::ok(
            check,
            format!("{name}: {mtu}, more than one buffer, which {kind} can hand to XDP"),
        ),
        Some(_) => Finding::warn(
            check,
            format!(
                "{name}: {mtu}, but {kind} gives XDP one buffer, {SINGLE_BUFFER_MTU} at most: \
                 native mode will be refused"
            ),
            format!("ip link set dev {name} mtu {SINGLE_BUFFER_MTU}, or xdp_mode = \"generic\""),
        ),
        None => Finding::unseen(
            check,
            format!("{name}: {mtu}; the kernel does not say whether {kind} can hand that to XDP"),
            "start nomail-agent: its log names the mode",
        ),
    }
}

fn offloads(device: &Device, runs: DeviceMode) -> Finding {
    let check = Check::Offloads;
    let name = &device.name;
    // So on Linux 6.18; the kernel shows it at the other end only.
    if device.kind.as_deref() == Some("veth") && runs == DeviceMode::Native {
        return Finding::warn(
            check,
            format!("{name}: in native mode the other end of the veth pair sends without TSO"),
            "to keep it, at a higher cost of each packet: xdp_mode = \"generic\"",
        );
    }
    let Some(on) = &device.features_on else {
        return Finding::skip(
            check,
            format!("{name}: the kernel does not show its features"),
        );
    };
    let lost: Vec<_> = COSTS
        .iter()
        .filter(|(feature, _)| on.iter().any(|on| on == feature))
        .collect();
    if lost.is_empty() {
        return Finding::ok(
            check,
            format!("{name}: no feature is on that XDP would switch off"),
        );
    }
    let names: Vec<_> = lost.iter().map(|(feature, _)| *feature).collect();
    let switches: Vec<_> = lost
        .iter()
        .map(|(_, short)| format!("{short} off"))
        .collect();
    Finding::warn(
        check,
        format!(
            "{name}: {} is off while XDP is attached: large incoming streams cost more",
            names.join(", ")
        ),
        format!(
            "to measure that first: ethtool -K {name} {}",
            switches.join(" ")
        ),
    )
}

fn checksums(device: &Device, runs: DeviceMode) -> Finding {
    let check = Check::Checksums;
    let name = &device.name;
    let local = device.kind.iter().chain(&device.driver);
    let local = local.map(String::as_str).find(|kind| LOCAL.contains(kind));
    match (runs, local) {
        (_, None) => Finding::ok(check, format!("{name}: its neighbours are other machines")),
        (DeviceMode::Native, Some(_)) => {
            Finding::ok(check, format!("{name}: complete in native mode"))
        }
        (DeviceMode::Unknown, Some(kind)) => Finding::unseen(
            check,
            format!("{name}: {kind} may need generic mode"),
            "start nomail-agent: its log names the mode",
        ),
        (_, Some(VETH)) => Finding::ok(
            check,
            format!("{name}: incomplete from the same machine; challenges arrive all the same"),
        ),
        (_, Some(kind)) => Finding::warn(
            check,
            format!(
                "{name}: {kind} in generic mode: neighbours on the same machine send incomplete \
                 checksums, and challenges may not reach them"
            ),
            "on the neighbour: ethtool -K INTERFACE tx off",
        ),
    }
}

#[cfg(test)]
mod tests;
