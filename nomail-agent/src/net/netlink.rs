//! The connection to the kernel by netlink.

use std::{future::ready, pin::pin, sync::Arc};

use futures_util::{
    FutureExt as _, StreamExt as _, TryStream, TryStreamExt as _, stream::BoxStream,
};
use netlink_packet_core::NetlinkPayload;
use netlink_packet_route::{RouteNetlinkMessage, route::RouteType};
use rtnetlink::{Handle, MulticastGroup, sys::Socket};

use super::{error::IfaceError, next_hop};

/// So many messages of an answer are read before others on the event loop have a turn.
const TURN: usize = 256;

/// A connection to the kernel, to ask it.
#[derive(Clone)]
pub struct Interfaces {
    pub(super) handle: Handle,
    /// A connection with strict checking, on which the kernel answers with matching routes
    /// only.
    pub(super) routes: Handle,
    pub(super) next_hops: Arc<Socket>,
}

/// The kernel's notices of changes, on a socket of their own: a storm of them fills its
/// buffer, and what the kernel then drops must not be the answer to a request, which would be
/// awaited for ever.
pub struct Notices {
    notices: BoxStream<'static, ()>,
    /// The connection ends without it.
    _handle: Handle,
}

impl Interfaces {
    /// Connects. Needs a tokio runtime, which keeps the connection going.
    pub fn connect() -> Result<Self, IfaceError> {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        tokio::spawn(connection);
        // Kernels before 4.20 cannot: they answer with more routes, which are skipped here.
        let (connection, routes, _) = rtnetlink::new_connection_with_strict_check()
            .or_else(|_| rtnetlink::new_connection())?;
        tokio::spawn(connection);
        Ok(Self {
            handle,
            routes,
            // Now, because the sandbox forbids it later.
            next_hops: Arc::new(next_hop::socket()?),
        })
    }
}

impl Notices {
    /// Connects. Needs a tokio runtime, which keeps the connection going.
    ///
    /// # Errors
    /// When the socket cannot be opened.
    pub fn connect() -> Result<Self, IfaceError> {
        let (connection, handle, notices) = rtnetlink::new_multicast_connection(&[
            MulticastGroup::Link,
            MulticastGroup::Ipv4Ifaddr,
            MulticastGroup::Ipv6Ifaddr,
            MulticastGroup::Ipv4Route,
            MulticastGroup::Ipv6Route,
        ])?;
        tokio::spawn(connection);
        Ok(Self {
            _handle: handle,
            notices: notices
                .filter(|(notice, _)| {
                    ready(match &notice.payload {
                        NetlinkPayload::InnerMessage(notice) => matters(notice),
                        // Notices were lost.
                        _ => true,
                    })
                })
                .map(drop)
                .boxed(),
        })
    }

    /// Waits for the next change of a link, an address or a route. The caller asks for the
    /// current state: notices get lost when there are many. False when the connection is
    /// closed.
    pub async fn changed(&mut self) -> bool {
        self.notices.next().await.is_some()
    }

    /// Discards the notices that are pending.
    pub fn settle(&mut self) {
        while let Some(Some(())) = self.notices.next().now_or_never() {}
    }
}

/// Reads a long answer, and lets others have their turn meanwhile.
pub(super) async fn read_all<T>(
    answer: impl TryStream<Ok = T, Error = rtnetlink::Error>,
    mut take: impl FnMut(T),
) -> Result<(), IfaceError> {
    let mut answer = pin!(answer.into_stream());
    let mut read = 0usize;
    while let Some(message) = answer.try_next().await? {
        take(message);
        read += 1;
        if read.is_multiple_of(TURN) {
            tokio::task::yield_now().await;
        }
    }
    Ok(())
}

/// Whether the agent follows what a notice is about. It ignores routes to other networks, of
/// which a router has a million that come and go.
fn matters(notice: &RouteNetlinkMessage) -> bool {
    match notice {
        RouteNetlinkMessage::NewRoute(route) | RouteNetlinkMessage::DelRoute(route) => {
            let everything = route.header.destination_prefix_length == 0;
            match route.header.kind {
                RouteType::Local | RouteType::Broadcast | RouteType::Anycast => true,
                RouteType::Unicast => everything,
                _ => false,
            }
        }
        _ => true,
    }
}

#[cfg(test)]
mod tests;
