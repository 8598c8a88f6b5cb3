//! What a driver can do, and has switched on, as the kernel tells it by generic
//! netlink.

use ethtool::{EthtoolAttr, EthtoolFeatureAttr};
use futures_util::{StreamExt as _, TryStreamExt as _};
use netlink_packet_core::{
    DecodeError, DefaultNla, Emitable, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload, NlaBuffer,
    NlasIterator, ParseableParametrized, parse_u64,
};
use netlink_packet_generic::{GenlFamily, GenlHeader, GenlMessage};

/// Of NETDEV_A_DEV_XDP_FEATURES: packets are passed, dropped and sent back.
pub(super) const XDP_BASIC: u64 = 1;
/// Of the same: a packet may be in several buffers.
pub(super) const XDP_FRAGS: u64 = 1 << 5;

const NETDEV_CMD_DEV_GET: u8 = 1;
const NETDEV_A_DEV_IFINDEX: u16 = 1;
const NETDEV_A_DEV_XDP_FEATURES: u16 = 3;

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

/// What the driver can do with XDP, as bits. None: the kernel does not tell, as
/// before Linux 6.3.
pub(super) async fn xdp_features(interface: u32) -> Option<u64> {
    let (connection, mut handle, _) = genetlink::new_connection().ok()?;
    tokio::spawn(connection);
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

/// The names of the features that are on, as `ethtool -k` calls them. None: the
/// kernel does not tell.
pub(super) async fn features_on(interface: &str) -> Option<Vec<String>> {
    let (connection, mut handle, _) = ethtool::new_connection().ok()?;
    tokio::spawn(connection);
    let replies = handle.feature().get(Some(interface)).execute().await.ok()?;
    let replies: Vec<_> = replies.try_collect().await.ok()?;
    let mut on = None;
    for attribute in replies.into_iter().flat_map(|reply| reply.payload.nlas) {
        if let EthtoolAttr::Feature(EthtoolFeatureAttr::Active(bits)) = attribute {
            let bits = bits.into_iter().filter(|bit| bit.value);
            on.get_or_insert_with(Vec::new)
                .extend(bits.map(|bit| bit.name));
        }
    }
    on
}
