//! What drivers can do with XDP, by generic netlink.

use std::io;

use futures_util::StreamExt as _;
use genetlink::GenetlinkHandle;
use netlink_packet_core::{
    DecodeError, DefaultNla, Emitable, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload, NlaBuffer,
    NlasIterator, ParseableParametrized, parse_u64,
};
use netlink_packet_generic::{GenlFamily, GenlHeader, GenlMessage};

/// Bit of [`Drivers::xdp_features`]: XDP can pass packets, drop them and send them back.
pub const XDP_BASIC: u64 = 1;
/// Bit of [`Drivers::xdp_features`]: the interface sends frames that XDP hands to it. On one
/// end of a veth pair it says whether the other end accepts them.
pub const XDP_SENDS: u64 = 1 << 2;
/// Bit of [`Drivers::xdp_features`]: a packet may be in several buffers.
pub const XDP_FRAGS: u64 = 1 << 5;

const NETDEV_CMD_DEV_GET: u8 = 1;
const NETDEV_A_DEV_IFINDEX: u16 = 1;
const NETDEV_A_DEV_XDP_FEATURES: u16 = 3;

/// A connection to the kernel to ask for the features of drivers.
#[derive(Clone, Debug)]
pub struct Drivers(GenetlinkHandle);

impl Drivers {
    /// Connects. Needs a tokio runtime, which keeps the connection going.
    ///
    /// # Errors
    /// When the socket cannot be opened.
    pub fn connect() -> io::Result<Self> {
        let (connection, handle, _) = genetlink::new_connection()?;
        tokio::spawn(connection);
        Ok(Self(handle))
    }

    /// The XDP features of the interface's driver, as bits. None on kernels that do not report
    /// them, before Linux 6.3.
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

/// A message of the family `netdev`: a request has the interface, a reply the features.
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
    fn parse_with_param(bytes: &[u8], _: GenlHeader) -> Result<Self, DecodeError> {
        let mut found = Self::default();
        for attribute in NlasIterator::new(bytes) {
            let attribute: NlaBuffer<&[u8]> = attribute?;
            if attribute.kind() == NETDEV_A_DEV_XDP_FEATURES {
                found.xdp_features = Some(parse_u64(attribute.value())?);
            }
        }
        Ok(found)
    }
}
