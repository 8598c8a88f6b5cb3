//! The interfaces, by netlink.

use netlink_packet_route::link::{
    InfoKind, InfoPortKind, LinkAttribute, LinkInfo, LinkLayerType, LinkMessage, LinkXdp, Prop,
    XdpAttached,
};

use super::{
    error::IfaceError,
    netlink::{Interfaces, read_all},
    stack, unguarded,
};

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

/// All links of this network namespace at one time.
#[derive(Clone, Debug, Default)]
pub struct Links {
    /// Their interfaces.
    pub interfaces: Vec<Interface>,
    /// Where packets on them come from and go.
    paths: Vec<unguarded::Link>,
}

impl Links {
    /// The interface with this name or alternative name.
    ///
    /// # Errors
    /// When there is none.
    pub fn named(&self, name: &str) -> Result<&Interface, IfaceError> {
        let mut interfaces = self.interfaces.iter();
        interfaces
            .find(|interface| interface.is_called(name))
            .ok_or_else(|| {
                let names = self.interfaces.iter().map(|known| known.name.as_str());
                IfaceError::Unknown {
                    name: name.to_owned(),
                    known: names.collect::<Vec<_>>().join(", "),
                }
            })
    }

    /// The interface with this index.
    pub fn with_index(&self, index: u32) -> Option<&Interface> {
        self.interfaces.iter().find(|found| found.index == index)
    }

    /// The interfaces, by index and name, on which packets reach the host without passing one
    /// of `guarded`. Not loopback, whose packets come from this host.
    pub fn unguarded(&self, guarded: &[u32]) -> Vec<(u32, String)> {
        unguarded::unguarded(&self.paths, guarded)
    }
}

impl Interfaces {
    /// All links.
    ///
    /// # Errors
    /// When netlink fails.
    pub async fn links(&self) -> Result<Links, IfaceError> {
        let (mut found, mut paths) = (Vec::new(), Vec::new());
        let answer = self.handle.link().get().execute();
        read_all(answer, |message| {
            paths.push(unguarded::Link::from(&message));
            found.push(FoundLink::from(message));
        })
        .await?;
        let stack: Vec<_> = found.iter().map(|found| found.stacked.clone()).collect();
        let of_vrf = |index| {
            let mut found = found.iter().map(|found| &found.interface);
            found
                .find(|found| found.index == index)
                .map(|vrf| vrf.name.clone())
        };
        let vrfs: Vec<_> = found
            .iter()
            .map(|found| found.vrf.and_then(of_vrf))
            .collect();
        let interfaces =
            found
                .into_iter()
                .zip(vrfs)
                .map(|(FoundLink { mut interface, .. }, vrf)| {
                    interface.vrf = vrf;
                    interface.further_hardware = stack::further(&stack, interface.index);
                    (interface.stacked, interface.has_vlans) =
                        stack::stacked_on(&stack, interface.index);
                    interface
                });
        Ok(Links {
            interfaces: interfaces.collect(),
            paths,
        })
    }

    /// All interfaces.
    ///
    /// # Errors
    /// When netlink fails.
    pub async fn all(&self) -> Result<Vec<Interface>, IfaceError> {
        Ok(self.links().await?.interfaces)
    }

    /// The interface with this name or alternative name.
    ///
    /// # Errors
    /// When netlink fails, or there is none.
    pub async fn named(&self, name: &str) -> Result<Interface, IfaceError> {
        self.links().await?.named(name).cloned()
    }
}

/// What a message says of one link.
struct FoundLink {
    interface: Interface,
    stacked: stack::StackedLink,
    /// The index of its VRF.
    vrf: Option<u32>,
}

impl From<LinkMessage> for FoundLink {
    fn from(message: LinkMessage) -> Self {
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
        Self {
            stacked: stack::StackedLink {
                index: interface.index,
                hardware: interface.hardware,
                permanent,
                upper: controller.filter(|_| !port_of_vrf),
                lower: lower.filter(|_| stacked && !elsewhere),
                vlan,
            },
            vrf: controller.filter(|_| port_of_vrf),
            interface,
        }
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
