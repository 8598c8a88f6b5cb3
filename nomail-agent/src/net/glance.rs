//! One interface as the watch over its guard looks at it: what is attached, and what
//! its driver says of frames that it was to send.

use std::io;

use futures_util::{StreamExt as _, TryStreamExt as _};
use genetlink::GenetlinkHandle;
use netlink_packet_core::{
    DecodeError, DefaultNla, Emitable, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload, NlaBuffer,
    NlasIterator, ParseableParametrized, parse_u64,
};
use netlink_packet_generic::{GenlFamily, GenlHeader, GenlMessage};
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkInfo, LinkMessage};

use super::{IfaceError, Interfaces, xdp_of};

/// Of [`Drivers::xdp_features`]: packets are passed, dropped and sent back.
pub const XDP_BASIC: u64 = 1;
/// Of the same: the interface sends frames that XDP hands to it. For one end of a veth
/// pair this says whether the other end takes them.
pub const XDP_SENDS: u64 = 1 << 2;
/// Of the same: a packet may be in several buffers.
pub const XDP_FRAGS: u64 = 1 << 5;

const NETDEV_CMD_DEV_GET: u8 = 1;
const NETDEV_A_DEV_IFINDEX: u16 = 1;
const NETDEV_A_DEV_XDP_FEATURES: u16 = 3;

/// An interface at this moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Glance {
    /// Its name.
    pub name: String,
    /// The XDP program on it, by the kernel's number.
    pub xdp_program: Option<u32>,
    /// Whether that runs in the stack, not in the driver.
    pub xdp_generic: bool,
    /// Whether it is an end of a veth pair.
    pub veth: bool,
    /// Frames that its driver was to send and dropped, since it is there. Those of XDP
    /// are among them in veth and tun.
    pub unsent: u64,
}

impl Interfaces {
    /// The interface of that number; none if it is gone.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub async fn glance(&self, index: u32) -> Result<Option<Glance>, IfaceError> {
        let mut messages = self.handle.link().get().match_index(index).execute();
        match messages.try_next().await {
            Ok(message) => Ok(message.map(Glance::from)),
            Err(rtnetlink::Error::NetlinkError(error))
                if error.to_io().raw_os_error() == Some(libc::ENODEV) =>
            {
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }
}

impl From<LinkMessage> for Glance {
    fn from(message: LinkMessage) -> Self {
        let mut glance = Self::default();
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => glance.name = name,
                LinkAttribute::LinkInfo(infos) => {
                    glance.veth = infos.contains(&LinkInfo::Kind(InfoKind::Veth));
                }
                LinkAttribute::Stats64(stats) => {
                    glance.unsent = stats.tx_dropped + stats.tx_errors;
                }
                LinkAttribute::Xdp(xdp) => {
                    (glance.xdp_program, glance.xdp_generic) = xdp_of(&xdp);
                }
                _ => {}
            }
        }
        glance
    }
}

/// A connection to the kernel that tells what drivers can do.
#[derive(Clone, Debug)]
pub struct Drivers(GenetlinkHandle);

impl Drivers {
    /// Connects. Needs a tokio runtime, which keeps the connection going.
    ///
    /// # Errors
    /// When no socket can be had.
    pub fn connect() -> io::Result<Self> {
        let (connection, handle, _) = genetlink::new_connection()?;
        tokio::spawn(connection);
        Ok(Self(handle))
    }

    /// What the driver can do with XDP, as bits. None: the kernel does not tell, as
    /// before Linux 6.3.
    pub async fn xdp_features(&self, interface: u32) -> Option<u64> {
        let mut handle = self.0.clone();
        let mut request = NetlinkMessage::from(GenlMessage::from_payload(Netdev {
            interface: Some(interface),
            xdp_features: None,
        }));
        request.header.flags = NLM_F_REQUEST;
        let mut replies = handle.request(request).await.ok()?;
        while let Some(Ok(reply)) = replies.next().await {
            if let NetlinkPayload::InnerMessage(message) = reply.payload {
                return message.payload.xdp_features;
            }
        }
        None
    }
}

/// A message of the family `netdev`: which interface, or what it can do.
#[derive(Clone, Debug, Default)]
struct Netdev {
    interface: Option<u32>,
    xdp_features: Option<u64>,
}

impl GenlFamily for Netdev {
    fn family_name() -> &'static str {
        "netdev"
    }

    fn command(&self) -> u8 {
        NETDEV_CMD_DEV_GET
    }

    fn version(&self) -> u8 {
        1
    }
}

impl Netdev {
    fn request(&self) -> Option<DefaultNla> {
        let interface = self.interface?.to_ne_bytes().to_vec();
        Some(DefaultNla::new(NETDEV_A_DEV_IFINDEX, interface))
    }
}

impl Emitable for Netdev {
    fn buffer_len(&self) -> usize {
        self.request().map_or(0, |request| request.buffer_len())
    }

    fn emit(&self, buffer: &mut [u8]) {
        if let Some(request) = self.request() {
            request.emit(buffer);
        }
    }
}

impl ParseableParametrized<[u8], GenlHeader> for Netdev {
    fn parse_with_param(octets: &[u8], _: GenlHeader) -> Result<Self, DecodeError> {
        let mut found = Self::default();
        for attribute in NlasIterator::new(octets) {
            let attribute: NlaBuffer<&[u8]> = attribute?;
            if attribute.kind() == NETDEV_A_DEV_XDP_FEATURES {
                found.xdp_features = Some(parse_u64(attribute.value())?);
            }
        }
        Ok(found)
    }
}
