//! The interfaces: what they are, and what XDP is to them.

use std::fs;

use futures_util::TryStreamExt as _;
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use nomail_common::{abi, verdict::Answer};

use super::{Check, Finding, netdev};
use crate::{
    config::{self, Config, XdpMode},
    exit::Failure,
    guard,
    net::{IfaceError, Interface, Interfaces, XDP_BASIC, XDP_FRAGS, XDP_SENDS},
    status::{InterfaceStatus, Status, Trouble, count},
};

/// Largest MTU with which a packet fits one buffer: a page, less the head room of
/// XDP (256), what the kernel keeps behind a packet (320) and an Ethernet header.
const SINGLE_BUFFER_MTU: u32 = 4096 - 256 - 320 - 14;
/// Features that the kernel or the driver switches off while XDP is attached, and
/// how `ethtool -K` calls them.
const COSTS: [(&str, &str); 2] = [("rx-lro", "lro"), ("rx-gro-hw", "rx-gro-hw")];
/// Interfaces and drivers whose neighbours may be on the same machine, and leave
/// the checksums to be completed by hardware that is not there. Whether the answer
/// to such a packet arrives in generic mode was tried with [`TRIED`] alone.
const LOCAL: [&str; 6] = ["bridge", "macvlan", "macvtap", "tun", TRIED, "virtio_net"];
const TRIED: &str = "veth";
/// Challenges without one answer that are worth a word.
const UNANSWERED: u64 = 1000;

/// An interface, and what is looked at of it.
#[derive(Clone, Debug)]
pub(super) struct Link {
    pub(super) name: String,
    pub(super) index: u32,
    /// Zeros where it has none: then all frames are its own.
    pub(super) hardware: [u8; 6],
    up: bool,
    carrier: bool,
    ethernet: bool,
    mtu: u32,
    /// `veth`, `vlan`, ...; none for hardware.
    kind: Option<String>,
    driver: Option<String>,
    /// The bridge or bond that it is a port of, with its kind.
    controller: Option<(String, String)>,
    /// VLAN devices on top.
    vlans: Vec<String>,
    program: Option<Program>,
    xdp_features: Option<u64>,
    features_on: Option<Vec<String>>,
}

/// The XDP program on an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Program {
    id: u32,
    /// None: it may not be seen.
    name: Option<String>,
}

/// How XDP runs there, or would.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Runs {
    Off,
    Native,
    Generic,
    /// Natively, if the driver can.
    Unknown,
}

/// The interfaces to look at: those asked for, else those of the running agent,
/// else the configured ones.
pub(super) fn names(asked: &[String], config: &Config, status: Option<&Status>) -> Vec<String> {
    if !asked.is_empty() {
        return asked.to_vec();
    }
    let told = status.into_iter().flat_map(|status| &status.interfaces);
    let told: Vec<_> = told.map(|interface| interface.name.clone()).collect();
    match told.is_empty() {
        true => config.interfaces.clone(),
        false => told,
    }
}

/// Finds them; what is not there is a finding.
pub(super) async fn find(
    kernel: &Interfaces,
    names: &[String],
) -> Result<(Vec<Link>, Vec<Finding>), Failure> {
    let all = messages().await.map_err(IfaceError::from)?;
    let mut links: Vec<Link> = Vec::new();
    let mut findings = Vec::new();
    for name in names {
        let found = match name.as_str() {
            config::DEFAULT_ROUTE => kernel.of_default_route().await,
            _ => kernel.named(name).await,
        };
        match found {
            Ok(found) if links.iter().any(|link| link.index == found.index) => {}
            Ok(found) => links.push(Link::of(found, &all).await),
            Err(error @ (IfaceError::Unknown { .. } | IfaceError::NoDefaultRoute)) => {
                let remedy = "interfaces = [\"NAME\"], one that `ip link` lists";
                findings.push(Finding::fail(Check::Interface, error.to_string(), remedy));
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok((links, findings))
}

async fn messages() -> Result<Vec<LinkMessage>, rtnetlink::Error> {
    let (connection, handle, _) =
        rtnetlink::new_connection().map_err(|_| rtnetlink::Error::RequestFailed)?;
    tokio::spawn(connection);
    handle.link().get().execute().try_collect().await
}

fn name_of(message: &LinkMessage) -> Option<&str> {
    message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            LinkAttribute::IfName(name) => Some(name.as_str()),
            _ => None,
        })
}

fn kind_of(message: &LinkMessage) -> Option<&InfoKind> {
    let mut attributes = message.attributes.iter();
    attributes.find_map(|attribute| match attribute {
        LinkAttribute::LinkInfo(parts) => parts.iter().find_map(|part| match part {
            LinkInfo::Kind(kind) => Some(kind),
            _ => None,
        }),
        _ => None,
    })
}

impl Link {
    async fn of(found: Interface, all: &[LinkMessage]) -> Self {
        let numbered = |index: u32| all.iter().find(|message| message.header.index == index);
        let mut link = Self {
            up: false,
            carrier: false,
            ethernet: found.ethernet,
            mtu: 0,
            kind: None,
            driver: driver_of(&found.name, found.index),
            controller: None,
            vlans: vlans_on(found.index, all),
            program: found.xdp_program.map(|id| Program {
                id,
                name: guard::program_name(id),
            }),
            xdp_features: netdev::xdp_features(found.index).await,
            features_on: netdev::features_on(&found.name).await,
            name: found.name,
            index: found.index,
            hardware: found.hardware.unwrap_or_default(),
        };
        let Some(message) = numbered(found.index) else {
            return link;
        };
        link.up = message.header.flags.contains(LinkFlags::Up);
        link.carrier = message.header.flags.contains(LinkFlags::LowerUp);
        link.kind = kind_of(message).map(ToString::to_string);
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
                LinkAttribute::Controller(index) => {
                    let controller = numbered(*index);
                    let kind = controller.and_then(kind_of).map(ToString::to_string);
                    let name = controller.and_then(name_of).map(str::to_owned);
                    link.controller = name.zip(kind);
                }
                _ => {}
            }
        }
        link
    }

    /// What it is, for people: its driver, or its kind.
    fn shown_kind(&self) -> &str {
        let kind = self.kind.as_deref().or(self.driver.as_deref());
        kind.unwrap_or("unknown driver")
    }

    fn can_native(&self) -> Option<bool> {
        self.xdp_features.map(|bits| bits & XDP_BASIC != 0)
    }

    /// Whether the other end of a veth pair takes what native XDP sends. None: the kernel
    /// does not tell, or it is no veth pair.
    fn peer_takes(&self) -> Option<bool> {
        let bits = self.xdp_features.filter(|&bits| bits != 0)?;
        (self.kind.as_deref() == Some(TRIED)).then_some(bits & XDP_SENDS != 0)
    }

    /// What the agent told of it.
    fn told<'a>(&self, status: Option<&'a Status>) -> Option<&'a InterfaceStatus> {
        let mut told = status?.interfaces.iter();
        told.find(|told| told.name == self.name)
    }

    fn runs(&self, config: &Config, status: Option<&Status>) -> Runs {
        match self.told(status).map(|told| told.xdp_mode.as_str()) {
            Some("native") => return Runs::Native,
            Some("generic") => return Runs::Generic,
            _ => {}
        }
        match (config.xdp_mode, self.can_native()) {
            (XdpMode::Off, _) => Runs::Off,
            (XdpMode::Auto, _) if self.peer_takes() == Some(false) => Runs::Generic,
            (XdpMode::Auto, None) if self.kind.as_deref() == Some(TRIED) => Runs::Generic,
            (XdpMode::Native, _) | (XdpMode::Auto, Some(true)) => Runs::Native,
            (XdpMode::Generic, _) | (XdpMode::Auto, Some(false)) => Runs::Generic,
            (XdpMode::Auto, None) => Runs::Unknown,
        }
    }
}

/// /sys may be another network namespace's: the number has to be the same.
fn driver_of(name: &str, index: u32) -> Option<String> {
    let directory = std::path::Path::new("/sys/class/net").join(name);
    let number = fs::read_to_string(directory.join("ifindex")).ok()?;
    if number.trim().parse() != Ok(index) {
        return None;
    }
    let driver = fs::read_link(directory.join("device/driver")).ok()?;
    Some(driver.file_name()?.to_str()?.to_owned())
}

fn vlans_on(index: u32, all: &[LinkMessage]) -> Vec<String> {
    let on_it = all.iter().filter(|message| {
        kind_of(message) == Some(&InfoKind::Vlan)
            && message.attributes.contains(&LinkAttribute::Link(index))
    });
    on_it.filter_map(name_of).map(str::to_owned).collect()
}

pub(super) fn check(
    link: &Link,
    config: &Config,
    status: Option<&Status>,
    root: bool,
) -> Vec<Finding> {
    let runs = link.runs(config, status);
    let mut findings = vec![interface(link, runs), topology(link)];
    findings.push(xdp_program(link, runs, status, root));
    if runs == Runs::Off {
        let off = |check| Finding::skip(check, format!("{}: xdp_mode is off", link.name));
        let checks = [
            Check::XdpNative,
            Check::Answers,
            Check::Mtu,
            Check::Offloads,
            Check::Checksums,
        ];
        findings.extend(checks.map(off));
    } else {
        findings.push(xdp_native(link, runs, config.xdp_mode));
        findings.push(answers(link, runs, status));
        findings.push(mtu(link, runs));
        findings.push(offloads(link, runs));
        findings.push(checksums(link, runs));
    }
    findings
}

fn interface(link: &Link, runs: Runs) -> Finding {
    let check = Check::Interface;
    let name = &link.name;
    if !link.ethernet && runs != Runs::Off {
        return Finding::fail(
            check,
            format!(
                "{name} is not Ethernet ({}): there is no XDP for it",
                link.shown_kind()
            ),
            "xdp_mode = \"off\", or name the interface below it",
        );
    }
    if !link.up {
        return Finding::warn(
            check,
            format!("{name} is down"),
            format!("ip link set dev {name} up"),
        );
    }
    if !link.carrier {
        return Finding::warn(
            check,
            format!("{name} is up, but nothing is at its other end"),
            format!("plug it in, or bring its peer up: ethtool {name}"),
        );
    }
    Finding::ok(
        check,
        format!(
            "{name} is up, Ethernet, {}, MTU {}",
            link.shown_kind(),
            link.mtu
        ),
    )
}

fn topology(link: &Link) -> Finding {
    let check = Check::Topology;
    let name = &link.name;
    match &link.controller {
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
                     limits, and challenges nobody"
                ),
                format!("listen = [\"ADDRESS:25\"], with an address of {controller}"),
            );
        }
        None => {}
    }
    if !link.vlans.is_empty() {
        return Finding::ok(
            check,
            format!(
                "{name} has VLAN devices ({}): what listens on their addresses is limited, and not \
                 challenged",
                link.vlans.join(", ")
            ),
        );
    }
    Finding::ok(check, format!("{name} is no part of a bridge or bond"))
}

fn xdp_program(link: &Link, runs: Runs, status: Option<&Status>, root: bool) -> Finding {
    let check = Check::XdpProgram;
    let name = &link.name;
    let told = link.told(status);
    if let Some(told) = told.filter(|told| told.trouble.is_some_and(Trouble::is_loss)) {
        let reason = &told.reason;
        return Finding::fail(
            check,
            format!("{name} is not guarded, though an agent runs: {reason}"),
            format!(
                "end what takes the program away (`bpftool link` and `bpftool net` name what is \
                 attached), or: ip link set dev {name} xdp off; the agent then attaches again"
            ),
        );
    }
    let Some(program) = &link.program else {
        return match told {
            Some(told) if told.xdp_mode != "off" => Finding::fail(
                check,
                format!("{name} has none, and the running agent takes it to be guarded"),
                "look again in a second: the agent attaches it again by itself; else restart it",
            ),
            _ => Finding::ok(check, format!("{name} has none")),
        };
    };
    let id = program.id;
    if told.is_some_and(|told| told.program_id == id) {
        return Finding::ok(check, format!("{name} has the running agent's (id {id})"));
    }
    match program.name.as_deref() {
        Some(abi::PROGRAM) => Finding::warn(
            check,
            format!("{name} has a nomail program (id {id}) of an agent that does not answer"),
            "nomail-agent detach, or `control = \"PATH\"` of the agent that runs",
        ),
        None if !root => {
            Finding::needs_root(check, &format!("whose XDP program {id} on {name} is"))
        }
        _ if runs == Runs::Off => Finding::ok(
            check,
            format!("{name} has somebody else's (id {id}), and xdp_mode is off"),
        ),
        found => Finding::fail(
            check,
            format!(
                "{name} has the XDP program {:?} (id {id}), which is not nomail's, and nomail \
                 replaces nobody's",
                found.unwrap_or("unknown")
            ),
            format!(
                "end what attached it (`bpftool link` names it), or: ip link set dev {name} xdp off"
            ),
        ),
    }
}

fn xdp_native(link: &Link, runs: Runs, wanted: XdpMode) -> Finding {
    let check = Check::XdpNative;
    let name = &link.name;
    let kind = link.shown_kind();
    match (runs, link.can_native()) {
        (Runs::Generic, Some(true)) if link.peer_takes() == Some(false) => Finding::ok(
            check,
            format!("{name}: {kind} has native XDP, but could not answer in that mode"),
        ),
        (_, Some(false)) if wanted == XdpMode::Native => Finding::fail(
            check,
            format!("{name}: {kind} has no native XDP"),
            "xdp_mode = \"auto\"",
        ),
        (Runs::Generic, Some(true)) => Finding::warn(
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
        (Runs::Native, None) if wanted != XdpMode::Native => {
            Finding::ok(check, format!("{name}: {kind} runs it in native mode"))
        }
        (_, None) => Finding::unseen(
            check,
            format!("{name}: the kernel does not tell what {kind} can do, as before Linux 6.3"),
            "start nomail-agent: its log says the mode",
        ),
    }
}

/// Whether what XDP sends arrives.
fn answers(link: &Link, runs: Runs, status: Option<&Status>) -> Finding {
    let check = Check::Answers;
    let name = &link.name;
    let told = link.told(status);
    if let Some(told) = told.filter(|told| told.trouble == Some(Trouble::AnswersLost)) {
        return Finding::fail(
            check,
            format!("{name}: {}: no answer of XDP arrives", told.reason),
            match runs {
                Runs::Native => "xdp_mode = \"auto\", and restart the agent",
                _ => "`ip -s link` and `ethtool -S` show what the driver drops",
            },
        );
    }
    match (runs, link.peer_takes()) {
        (Runs::Native, Some(false)) => {
            return Finding::fail(
                check,
                format!(
                    "{name}: in native mode the other end of the veth pair drops what XDP sends: \
                     it has neither GRO nor an XDP program"
                ),
                "xdp_mode = \"auto\"; or there: ethtool -K INTERFACE gro on",
            );
        }
        (Runs::Generic, Some(false)) => {
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
    let counts = told.map(|told| told.counts.answers).unwrap_or_default();
    if counts[Answer::Challenge] >= UNANSWERED && counts[Answer::Proven] == 0 {
        return Finding::warn(
            check,
            format!(
                "{name}: none of {} challenges was answered: all sources are forged, or challenges \
                 are lost on their way",
                count(counts[Answer::Challenge])
            ),
            "if honest clients are not served during a flood: xdp_mode = \"generic\"",
        );
    }
    if link.kind.as_deref() == Some(TRIED) && runs == Runs::Native && link.xdp_features.is_none() {
        return Finding::unseen(
            check,
            format!(
                "{name}: the kernel does not tell whether the other end of the veth pair takes \
                 them, as before Linux 6.3"
            ),
            "xdp_mode = \"auto\", which uses generic mode on such a kernel; or there: \
             ethtool -K INTERFACE gro on",
        );
    }
    Finding::ok(check, format!("{name}: nothing is known to lose them"))
}

fn mtu(link: &Link, runs: Runs) -> Finding {
    let check = Check::Mtu;
    let Link { name, mtu, .. } = link;
    if *mtu <= SINGLE_BUFFER_MTU || runs == Runs::Generic {
        return Finding::ok(check, format!("{name}: {mtu}"));
    }
    let kind = link.shown_kind();
    match link.xdp_features {
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
            format!("{name}: {mtu}; the kernel does not tell whether {kind} hands that to XDP"),
            "start nomail-agent: its log says the mode",
        ),
    }
}

fn offloads(link: &Link, runs: Runs) -> Finding {
    let check = Check::Offloads;
    let name = &link.name;
    // So on Linux 6.18; the kernel shows it at the other end only.
    if link.kind.as_deref() == Some("veth") && runs == Runs::Native {
        return Finding::warn(
            check,
            format!("{name}: in native mode the other end of the veth pair sends without TSO"),
            "to keep it, at a higher cost of each packet: xdp_mode = \"generic\"",
        );
    }
    let Some(on) = &link.features_on else {
        return Finding::skip(
            check,
            format!("{name}: the kernel does not tell its features"),
        );
    };
    let lost: Vec<_> = COSTS
        .iter()
        .filter(|(feature, _)| on.iter().any(|on| on == feature))
        .collect();
    if lost.is_empty() {
        return Finding::ok(
            check,
            format!("{name}: none is on that XDP would switch off"),
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
            "{name}: {} goes off while XDP is attached: what comes in as large streams costs more",
            names.join(", ")
        ),
        format!(
            "to see what that costs first: ethtool -K {name} {}",
            switches.join(" ")
        ),
    )
}

fn checksums(link: &Link, runs: Runs) -> Finding {
    let check = Check::Checksums;
    let name = &link.name;
    let local = link.kind.iter().chain(&link.driver);
    let local = local.map(String::as_str).find(|kind| LOCAL.contains(kind));
    match (runs, local) {
        (_, None) => Finding::ok(check, format!("{name}: its neighbours are on a wire")),
        (Runs::Native, Some(_)) => Finding::ok(check, format!("{name}: complete in native mode")),
        (Runs::Unknown, Some(kind)) => Finding::unseen(
            check,
            format!("{name}: {kind} may need generic mode"),
            "start nomail-agent: its log says the mode",
        ),
        (_, Some(TRIED)) => Finding::ok(
            check,
            format!("{name}: not complete from the same machine; challenges arrive all the same"),
        ),
        (_, Some(kind)) => Finding::warn(
            check,
            format!(
                "{name}: {kind} in generic mode: neighbours on the same machine send checksums \
                 that are not complete, and whether challenges reach them was not tried"
            ),
            "on the neighbour: ethtool -K INTERFACE tx off",
        ),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::{super::Outcome, *};
    use crate::status::InterfaceStatus;

    fn link(change: impl FnOnce(&mut Link)) -> Link {
        let mut link = Link {
            name: "eth0".to_owned(),
            hardware: [2, 0, 0, 0, 0, 2],
            index: 2,
            up: true,
            carrier: true,
            ethernet: true,
            mtu: 1500,
            kind: None,
            driver: Some("ixgbe".to_owned()),
            controller: None,
            vlans: Vec::new(),
            program: None,
            xdp_features: Some(XDP_BASIC | XDP_FRAGS),
            features_on: Some(vec!["rx-gro".to_owned()]),
        };
        change(&mut link);
        link
    }

    fn agent(mode: &str) -> Status {
        Status {
            interfaces: vec![InterfaceStatus {
                name: "eth0".to_owned(),
                xdp_mode: mode.to_owned(),
                program_id: 7,
                pinned: false,
                ..InterfaceStatus::default()
            }],
            ..Status::default()
        }
    }

    #[test]
    fn whose_interfaces() {
        let config = Config::default();
        let eth9 = ["eth9".to_owned()];
        assert_eq!(names(&eth9, &config, Some(&agent("native"))), ["eth9"]);
        assert_eq!(names(&[], &config, Some(&agent("native"))), ["eth0"]);
        assert_eq!(names(&[], &config, None), [config::DEFAULT_ROUTE]);
    }

    #[rstest]
    #[case(XdpMode::Auto, Some(XDP_BASIC), None, Runs::Native)]
    #[case(XdpMode::Auto, Some(0), None, Runs::Generic)]
    #[case(XdpMode::Auto, None, None, Runs::Unknown)]
    #[case(XdpMode::Auto, Some(XDP_BASIC), Some("generic"), Runs::Generic)]
    #[case(XdpMode::Off, Some(XDP_BASIC), None, Runs::Off)]
    #[case(XdpMode::Native, None, None, Runs::Native)]
    fn modes(
        #[case] wanted: XdpMode,
        #[case] features: Option<u64>,
        #[case] told: Option<&str>,
        #[case] runs: Runs,
    ) {
        let config = Config {
            xdp_mode: wanted,
            ..Config::default()
        };
        let link = link(|link| link.xdp_features = features);
        assert_eq!(link.runs(&config, told.map(agent).as_ref()), runs);
    }

    #[test]
    fn interfaces() {
        let result = |change: fn(&mut Link), runs| interface(&link(change), runs).result;
        assert_eq!(result(|_| (), Runs::Native), Outcome::Ok);
        assert_eq!(result(|link| link.up = false, Runs::Native), Outcome::Warn);
        assert_eq!(
            result(|link| link.carrier = false, Runs::Native),
            Outcome::Warn
        );
        assert_eq!(
            result(|link| link.ethernet = false, Runs::Native),
            Outcome::Fail
        );
        assert_eq!(result(|link| link.ethernet = false, Runs::Off), Outcome::Ok);
    }

    #[test]
    fn topologies() {
        assert_eq!(topology(&link(|_| ())).result, Outcome::Ok);
        for (controller, kind) in [("bond0", "bond"), ("br0", "bridge")] {
            let found = topology(&link(|link| {
                link.controller = Some((controller.to_owned(), kind.to_owned()));
            }));
            assert_eq!(found.result, Outcome::Warn);
            assert!(found.found.contains(controller) && found.found.contains(kind));
        }
        let found = topology(&link(|link| link.vlans = vec!["eth0.5".to_owned()]));
        assert!(found.found.contains("eth0.5"), "{found:?}");
    }

    #[test]
    fn programs() {
        let result = |id, name: Option<&str>, runs, status: Option<&Status>, root| {
            let program = Program {
                id,
                name: name.map(str::to_owned),
            };
            xdp_program(
                &link(|link| link.program = Some(program)),
                runs,
                status,
                root,
            )
            .result
        };
        let agent = agent("native");
        assert_eq!(
            xdp_program(&link(|_| ()), Runs::Native, None, true).result,
            Outcome::Ok
        );
        assert_eq!(
            result(7, Some("nomail"), Runs::Native, Some(&agent), true),
            Outcome::Ok
        );
        assert_eq!(
            result(7, None, Runs::Native, Some(&agent), false),
            Outcome::Ok
        );
        assert_eq!(
            result(8, Some("nomail"), Runs::Native, Some(&agent), true),
            Outcome::Warn
        );
        assert_eq!(
            result(8, Some("other"), Runs::Native, Some(&agent), true),
            Outcome::Fail
        );
        assert_eq!(result(8, None, Runs::Native, None, false), Outcome::Skip);
        assert_eq!(result(8, Some("other"), Runs::Off, None, true), Outcome::Ok);
    }

    #[rstest]
    #[case(Some(XDP_BASIC), Runs::Native, XdpMode::Auto, Outcome::Ok)]
    #[case(Some(XDP_BASIC), Runs::Generic, XdpMode::Generic, Outcome::Warn)]
    #[case(Some(0), Runs::Generic, XdpMode::Auto, Outcome::Warn)]
    #[case(Some(0), Runs::Native, XdpMode::Native, Outcome::Fail)]
    #[case(None, Runs::Native, XdpMode::Auto, Outcome::Ok)]
    #[case(None, Runs::Unknown, XdpMode::Auto, Outcome::Skip)]
    #[case(None, Runs::Native, XdpMode::Native, Outcome::Skip)]
    fn native(
        #[case] features: Option<u64>,
        #[case] runs: Runs,
        #[case] wanted: XdpMode,
        #[case] result: Outcome,
    ) {
        let link = link(|link| link.xdp_features = features);
        assert_eq!(xdp_native(&link, runs, wanted).result, result);
    }

    #[rstest]
    #[case(Some(XDP_BASIC), Runs::Native, Outcome::Fail)]
    #[case(Some(XDP_BASIC), Runs::Generic, Outcome::Ok)]
    #[case(Some(XDP_BASIC | XDP_SENDS), Runs::Native, Outcome::Ok)]
    #[case(None, Runs::Native, Outcome::Skip)]
    #[case(None, Runs::Generic, Outcome::Ok)]
    #[case(Some(0), Runs::Generic, Outcome::Ok)]
    fn answers_of_veth(#[case] features: Option<u64>, #[case] runs: Runs, #[case] result: Outcome) {
        let veth = |link: &mut Link| {
            (link.kind, link.xdp_features) = (Some(TRIED.to_owned()), features);
        };
        assert_eq!(answers(&link(veth), runs, None).result, result);
        let hardware = link(|link| link.xdp_features = features);
        assert_eq!(answers(&hardware, runs, None).result, Outcome::Ok);
    }

    #[test]
    fn where_auto_leads_on_veth() {
        let one_sided = link(|link| link.kind = Some(TRIED.to_owned()));
        let config = Config::default();
        assert_eq!(one_sided.runs(&config, None), Runs::Generic);
        let untold = link(|link| {
            (link.kind, link.xdp_features) = (Some(TRIED.to_owned()), None);
        });
        assert_eq!(untold.runs(&config, None), Runs::Generic);
        let hardware = link(|link| link.xdp_features = None);
        assert_eq!(hardware.runs(&config, None), Runs::Unknown);
        let found = xdp_native(&one_sided, Runs::Generic, XdpMode::Auto);
        assert_eq!(found.result, Outcome::Ok, "native mode is no better here");
    }

    #[test]
    fn what_the_agent_told_of_its_guard() {
        let plain = link(|_| ());
        let mut agent = agent("native");
        let result = |agent: &Status| {
            [
                xdp_program(&plain, Runs::Native, Some(agent), true).result,
                answers(&plain, Runs::Native, Some(agent)).result,
            ]
        };
        assert_eq!(result(&agent), [Outcome::Fail, Outcome::Ok], "no program");
        agent.interfaces[0].trouble = Some(Trouble::AnswersLost);
        assert_eq!(result(&agent)[1], Outcome::Fail);
        agent.interfaces[0].trouble = None;
        agent.interfaces[0].counts.answers[Answer::Challenge] = UNANSWERED;
        assert_eq!(result(&agent)[1], Outcome::Warn);
        agent.interfaces[0].counts.answers[Answer::Proven] = 1;
        assert_eq!(result(&agent)[1], Outcome::Ok);
        agent.interfaces[0].xdp_mode = "off".to_owned();
        assert_eq!(result(&agent)[0], Outcome::Ok);
        agent.interfaces[0].trouble = Some(Trouble::Detached);
        assert_eq!(result(&agent)[0], Outcome::Fail);
    }

    #[rstest]
    #[case(1500, Some(XDP_BASIC), Runs::Native, Outcome::Ok)]
    #[case(3506, Some(XDP_BASIC), Runs::Native, Outcome::Ok)]
    #[case(3507, Some(XDP_BASIC), Runs::Native, Outcome::Warn)]
    #[case(9000, Some(XDP_BASIC), Runs::Generic, Outcome::Ok)]
    #[case(9000, Some(XDP_BASIC | XDP_FRAGS), Runs::Native, Outcome::Ok)]
    #[case(9000, None, Runs::Unknown, Outcome::Skip)]
    fn mtus(
        #[case] size: u32,
        #[case] features: Option<u64>,
        #[case] runs: Runs,
        #[case] result: Outcome,
    ) {
        let link = link(|link| (link.mtu, link.xdp_features) = (size, features));
        assert_eq!(mtu(&link, runs).result, result);
    }

    #[test]
    fn offloads_that_are_lost() {
        assert_eq!(offloads(&link(|_| ()), Runs::Native).result, Outcome::Ok);
        let untold = link(|link| link.features_on = None);
        assert_eq!(offloads(&untold, Runs::Native).result, Outcome::Skip);
        let veth = link(|link| link.kind = Some("veth".to_owned()));
        assert_eq!(offloads(&veth, Runs::Native).result, Outcome::Warn);
        assert_eq!(offloads(&veth, Runs::Generic).result, Outcome::Ok);
        let on = ["rx-lro".to_owned(), "rx-gro-hw".to_owned()];
        let lost = link(|link| link.features_on = Some(on.to_vec()));
        let lost = offloads(&lost, Runs::Generic);
        assert_eq!(lost.result, Outcome::Warn);
        let remedy = lost.remedy.unwrap();
        assert!(
            remedy.ends_with("ethtool -K eth0 lro off rx-gro-hw off"),
            "{remedy}"
        );
    }

    #[test]
    fn checksums_of_local_neighbours() {
        let veth = link(|link| link.kind = Some("veth".to_owned()));
        let virtio = link(|link| link.driver = Some("virtio_net".to_owned()));
        assert_eq!(checksums(&link(|_| ()), Runs::Generic).result, Outcome::Ok);
        assert_eq!(checksums(&veth, Runs::Generic).result, Outcome::Ok);
        assert_eq!(checksums(&virtio, Runs::Generic).result, Outcome::Warn);
        for local in [veth, virtio] {
            assert_eq!(checksums(&local, Runs::Native).result, Outcome::Ok);
            assert_eq!(checksums(&local, Runs::Unknown).result, Outcome::Skip);
        }
    }
}
