//! Features of drivers, by generic netlink.

use ethtool::{EthtoolAttr, EthtoolFeatureAttr};
use futures_util::TryStreamExt as _;

use crate::net::Drivers;

/// The XDP features of the driver, as bits; none if the kernel does not say, as before Linux
/// 6.3.
pub(super) async fn xdp_features(interface: u32) -> Option<u64> {
    Drivers::connect().ok()?.xdp_features(interface).await
}

/// The features that are on, as `ethtool -k` names them; none if the kernel does not say.
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
