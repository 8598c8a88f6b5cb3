//! The interfaces: what they are, and how XDP runs on them.

use std::fs;

use futures_util::TryStreamExt as _;
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};

use super::{
    finding::{Check, Finding},
    netdev,
};
use crate::{
    config::{self, Config, XdpMode},
    exit::Failure,
    guard,
    net::{IfaceError, Interface, Interfaces, XDP_BASIC, XDP_SENDS, native_xdp_is_blind},
    status::{InterfaceStatus, Status},
};

/// The kind of a veth pair's interface.
pub(super) const VETH: &str = "veth";

/// An interface, and what checks need to know of it.
#[derive(Clone, Debug)]
pub(super) struct Device {
    pub(super) name: String,
    pub(super) index: u32,
    /// Its hardware address; zeros if it has none, so that it takes all frames.
    pub(super) hardware: [u8; 6],
    pub(super) up: bool,
    pub(super) carrier: bool,
    pub(super) ethernet: bool,
    pub(super) mtu: u32,
    /// `veth`, `vlan`, ...; none for hardware.
    pub(super) kind: Option<String>,
    pub(super) driver: Option<String>,
    /// The bridge or bond that it is a port of, with its kind.
    pub(super) controller: Option<(String, String)>,
    /// VLAN devices on top.
    pub(super) vlans: Vec<String>,
    pub(super) program: Option<XdpProgram>,
    pub(super) xdp_features: Option<u64>,
    pub(super) features_on: Option<Vec<String>>,
    /// Whether native XDP would see no packet.
    pub(super) native_is_blind: bool,
}

/// The XDP program on an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct XdpProgram {
    pub(super) id: u32,
    /// Root alone sees it.
    pub(super) name: Option<String>,
}

/// The mode in which XDP runs on an interface, or would.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DeviceMode {
    Off,
    Native,
    Generic,
    /// Native if the driver has that.
    Unknown,
}

/// The interfaces to check: those of `--iface`, else those of the running agent, else the
/// configured ones.
pub(super) fn names(asked: &[String], config: &Config, status: Option<&Status>) -> Vec<String> {
    if !asked.is_empty() {
        return asked.to_vec();
    }
    let running = status.into_iter().flat_map(|status| &status.interfaces);
    let running: Vec<_> = running.map(|interface| interface.name.clone()).collect();
    match running.is_empty() {
        true => config.interfaces.clone(),
        false => running,
    }
}

/// Finds them. One that does not exist is a finding.
pub(super) async fn find(
    kernel: &Interfaces,
    names: &[String],
) -> Result<(Vec<Device>, Vec<Finding>), Failure> {
    let all = messages().await.map_err(IfaceError::from)?;
    let links = kernel.links().await?;
    let mut devices: Vec<Device> = Vec::new();
    let mut findings = Vec::new();
    for name in names {
        let found = match name.as_str() {
            config::DEFAULT_ROUTE => kernel.of_default_route(&links).await,
            _ => links.named(name),
        };
        match found {
            Ok(found) if devices.iter().any(|device| device.index == found.index) => {}
            Ok(found) => devices.push(Device::of(found.clone(), &all).await),
            Err(error @ (IfaceError::Unknown { .. } | IfaceError::NoDefaultRoute)) => {
                let remedy = "interfaces = [\"NAME\"], one that `ip link` lists";
                findings.push(Finding::fail(Check::Interface, error.to_string(), remedy));
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok((devices, findings))
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

impl Device {
    async fn of(found: Interface, all: &[LinkMessage]) -> Self {
        let numbered = |index: u32| all.iter().find(|message| message.header.index == index);
        let mut device = Self {
            up: false,
            carrier: false,
            ethernet: found.ethernet,
            mtu: 0,
            kind: None,
            driver: driver_of(&found.name, found.index),
            controller: None,
            vlans: vlans_on(found.index, all),
            program: found.xdp_program.map(|id| XdpProgram {
                id,
                name: guard::program_name(id),
            }),
            xdp_features: netdev::xdp_features(found.index).await,
            features_on: netdev::features_on(&found.name).await,
            native_is_blind: native_xdp_is_blind(&found.name, found.index),
            name: found.name,
            index: found.index,
            hardware: found.hardware.unwrap_or_default(),
        };
        let Some(message) = numbered(found.index) else {
            return device;
        };
        device.up = message.header.flags.contains(LinkFlags::Up);
        device.carrier = message.header.flags.contains(LinkFlags::LowerUp);
        device.kind = kind_of(message).map(ToString::to_string);
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::Mtu(mtu) => device.mtu = *mtu,
                LinkAttribute::Controller(index) => {
                    let controller = numbered(*index);
                    let kind = controller.and_then(kind_of).map(ToString::to_string);
                    let name = controller.and_then(name_of).map(str::to_owned);
                    device.controller = name.zip(kind);
                }
                _ => {}
            }
        }
        device
    }

    /// Its kind or driver, for people.
    pub(super) fn shown_kind(&self) -> &str {
        let kind = self.kind.as_deref().or(self.driver.as_deref());
        kind.unwrap_or("unknown driver")
    }

    pub(super) fn can_native(&self) -> Option<bool> {
        self.xdp_features.map(|bits| bits & XDP_BASIC != 0)
    }

    /// Whether the other end of a veth pair accepts what native XDP sends; none if the kernel
    /// does not say, or it is no veth pair.
    pub(super) fn peer_takes(&self) -> Option<bool> {
        let bits = self.xdp_features.filter(|&bits| bits != 0)?;
        (self.kind.as_deref() == Some(VETH)).then_some(bits & XDP_SENDS != 0)
    }

    /// It in the status of the running agent.
    pub(super) fn status_of<'a>(&self, status: Option<&'a Status>) -> Option<&'a InterfaceStatus> {
        let mut interfaces = status?.interfaces.iter();
        interfaces.find(|interface| interface.name == self.name)
    }

    pub(super) fn runs(&self, config: &Config, status: Option<&Status>) -> DeviceMode {
        match self.status_of(status).map(|on| on.xdp_mode.as_str()) {
            Some("native") => return DeviceMode::Native,
            Some("generic") => return DeviceMode::Generic,
            _ => {}
        }
        match (config.xdp_mode, self.can_native()) {
            (XdpMode::Off, _) => DeviceMode::Off,
            (XdpMode::Auto, _) if self.native_is_blind || self.peer_takes() == Some(false) => {
                DeviceMode::Generic
            }
            (XdpMode::Auto, None) if self.kind.as_deref() == Some(VETH) => DeviceMode::Generic,
            (XdpMode::Native, _) | (XdpMode::Auto, Some(true)) => DeviceMode::Native,
            (XdpMode::Generic, _) | (XdpMode::Auto, Some(false)) => DeviceMode::Generic,
            (XdpMode::Auto, None) => DeviceMode::Unknown,
        }
    }
}

/// The name of its driver. /sys may be another network namespace's: the index must match.
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
