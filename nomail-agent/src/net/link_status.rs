//! The state of one interface, for the watch over its guard.

use futures_util::TryStreamExt as _;
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkInfo, LinkMessage};

use super::{error::IfaceError, links::xdp_of, netlink::Interfaces};

/// The state of an interface at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinkStatus {
    /// Its name.
    pub name: String,
    /// The id of the XDP program on it.
    pub xdp_program: Option<u32>,
    /// Whether that runs in generic mode.
    pub xdp_generic: bool,
    /// Whether it is an end of a veth pair.
    pub veth: bool,
    /// Frames that its driver should have sent and dropped. The drivers of veth and tun count
    /// XDP's frames among them.
    pub unsent: u64,
}

impl Interfaces {
    /// The state of the interface with this index; none if it is gone.
    ///
    /// # Errors
    /// When netlink fails.
    pub async fn link_status(&self, index: u32) -> Result<Option<LinkStatus>, IfaceError> {
        let mut messages = self.handle.link().get().match_index(index).execute();
        match messages.try_next().await {
            Ok(message) => Ok(message.map(LinkStatus::from)),
            Err(rtnetlink::Error::NetlinkError(error))
                if error.to_io().raw_os_error() == Some(libc::ENODEV) =>
            {
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }
}

impl From<LinkMessage> for LinkStatus {
    fn from(message: LinkMessage) -> Self {
        let mut status = Self::default();
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => status.name = name,
                LinkAttribute::LinkInfo(infos) => {
                    status.veth = infos.contains(&LinkInfo::Kind(InfoKind::Veth));
                }
                LinkAttribute::Stats64(stats) => {
                    status.unsent = stats.tx_dropped + stats.tx_errors;
                }
                LinkAttribute::Xdp(xdp) => {
                    (status.xdp_program, status.xdp_generic) = xdp_of(&xdp);
                }
                _ => {}
            }
        }
        status
    }
}
