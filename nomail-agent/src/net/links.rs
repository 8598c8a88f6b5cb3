//! The interfaces, by netlink.

use futures_util::TryStreamExt as _;
use netlink_packet_route::link::{
    InfoKind, InfoPortKind, LinkAttribute, LinkInfo, LinkLayerType, LinkXdp, Prop, XdpAttached,
};

use super::{error::IfaceError, netlink::Interfaces, stack};

/// The state of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its alternative names.
    pub alternatives: Vec<String>,
    /// Its index; 0 for one that does not exist yet.
    pub index: u32,
    /// Whether frames on it begin with an Ethernet header.
    pub ethernet: bool,
    /// Its hardware address, if it has one of six bytes.
    pub hardware: Option<[u8; 6]>,
    /// Further hardware addresses of frames on it: those of its ports, and of devices stacked
    /// on it.
    pub further_hardware: Vec<[u8; 6]>,
    /// The indexes of the devices stacked on it, which get its frames.
    pub stacked: Vec<u32>,
    /// Whether one of those is a VLAN.
    pub has_vlans: bool,
    /// The id of the XDP program on it.
    pub xdp_program: Option<u32>,
    /// Whether that runs in generic mode.
    pub xdp_generic: bool,
    /// The VRF that it is in, if any.
    pub vrf: Option<String>,
}

impl Interface {
    /// An interface that does not exist yet.
    pub fn absent(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            alternatives: Vec::new(),
            index: 0,
            ethernet: true,
            hardware: None,
            further_hardware: Vec::new(),
            stacked: Vec::new(),
            has_vlans: false,
            xdp_program: None,
            xdp_generic: false,
            vrf: None,
        }
    }

    /// Whether it does not exist yet.
    pub fn is_absent(&self) -> bool {
        self.index == 0
    }

    /// Whether this is its name, or an alternative name.
    pub fn is_called(&self, name: &str) -> bool {
        self.name == name || self.alternatives.iter().any(|other| other == name)
    }
}

fn alternatives(properties: Vec<Prop>) -> Vec<String> {
    let names = properties
        .into_iter()
        .filter_map(|property| match property {
            Prop::AltIfName(name) => Some(name),
            _ => None,
        });
    names.collect()
}

impl Interfaces {
    /// All interfaces.
    pub async fn all(&self) -> Result<Vec<Interface>, IfaceError> {
        let mut messages = self.handle.link().get().execute();
        let mut interfaces = Vec::new();
        // Positions in `interfaces`, and the indexes of their VRFs.
        let mut in_vrf = Vec::new();
        let mut links = Vec::new();
        while let Some(message) = messages.try_next().await? {
            let mut interface = Interface {
                index: message.header.index,
                // Loopback frames carry an Ethernet header too.
                ethernet: matches!(
                    message.header.link_layer_type,
                    LinkLayerType::Ether | LinkLayerType::Loopback
                ),
                ..Interface::absent("")
            };
            let (mut controller, mut port_of_vrf) = (None, false);
            let (mut lower, mut elsewhere, mut permanent) = (None, false, None);
            let (mut stacked, mut vlan) = (false, false);
            for attribute in message.attributes {
                match attribute {
                    LinkAttribute::IfName(name) => interface.name = name,
                    LinkAttribute::PropList(properties) => {
                        interface.alternatives = alternatives(properties);
                    }
                    LinkAttribute::Controller(index) => controller = Some(index),
                    LinkAttribute::LinkInfo(infos) => {
                        port_of_vrf = infos.contains(&LinkInfo::PortKind(InfoPortKind::Vrf));
                        let is = |kind| infos.contains(&LinkInfo::Kind(kind));
                        vlan = is(InfoKind::Vlan);
                        stacked = vlan || is(InfoKind::MacVlan) || is(InfoKind::MacVtap);
                    }
                    LinkAttribute::Address(bytes) => interface.hardware = bytes.try_into().ok(),
                    LinkAttribute::PermAddress(bytes) => permanent = bytes.try_into().ok(),
                    // In another namespace if there is a LinkNetNsId.
                    LinkAttribute::Link(index) => lower = Some(index),
                    LinkAttribute::LinkNetNsId(_) => elsewhere = true,
                    LinkAttribute::Xdp(xdp) => {
                        (interface.xdp_program, interface.xdp_generic) = xdp_of(&xdp);
                    }
                    _ => {}
                }
            }
            links.push(stack::StackedLink {
                index: interface.index,
                hardware: interface.hardware,
                permanent,
                upper: controller.filter(|_| !port_of_vrf),
                lower: lower.filter(|_| stacked && !elsewhere),
                vlan,
            });
            if port_of_vrf && let Some(controller) = controller {
                in_vrf.push((interfaces.len(), controller));
            }
            interfaces.push(interface);
        }
        for (position, controller) in in_vrf {
            let vrf = interfaces.iter().find(|found| found.index == controller);
            interfaces[position].vrf = vrf.map(|vrf| vrf.name.clone());
        }
        for interface in &mut interfaces {
            interface.further_hardware = stack::further(&links, interface.index);
            (interface.stacked, interface.has_vlans) = stack::stacked_on(&links, interface.index);
        }
        Ok(interfaces)
    }

    /// The interface with this name or alternative name.
    pub async fn named(&self, name: &str) -> Result<Interface, IfaceError> {
        let interfaces = self.all().await?;
        let names: Vec<_> = interfaces
            .iter()
            .map(|interface| interface.name.clone())
            .collect();
        interfaces
            .into_iter()
            .find(|interface| interface.is_called(name))
            .ok_or_else(|| IfaceError::Unknown {
                name: name.to_owned(),
                known: names.join(", "),
            })
    }
}

/// The id of the XDP program, and whether it runs in generic mode.
pub(super) fn xdp_of(xdp: &[LinkXdp]) -> (Option<u32>, bool) {
    let program = xdp.iter().find_map(|part| match part {
        LinkXdp::ProgId(id)
        | LinkXdp::DrvProgId(id)
        | LinkXdp::SkbProgId(id)
        | LinkXdp::HwProgId(id) => Some(*id),
        _ => None,
    });
    let generic = xdp.contains(&LinkXdp::Attached(XdpAttached::SocketBuffer));
    (program, generic)
}

#[cfg(test)]
mod tests;
