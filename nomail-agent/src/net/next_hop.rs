//! Next hop objects (`ip nexthop`), which a route may name instead of an interface. The netlink
//! library does not support their messages.

use std::io;

use netlink_packet_core::{NLM_F_REQUEST, NlasIterator};
use rtnetlink::sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

const RTM_NEWNEXTHOP: u16 = 104;
const RTM_GETNEXTHOP: u16 = 106;
/// Bytes of `struct nlmsghdr` and of `struct nhmsg`.
const HEADER: usize = 16;
const NEXT_HOP_HEADER: usize = 8;
const NHA_ID: u16 = 1;
const NHA_GROUP: u16 = 2;
const NHA_OIF: u16 = 5;
/// A group has no groups in it.
const DEPTH_MAX: usize = 2;

/// The content of a next hop object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NextHop {
    /// The interface with this index.
    Interface(u32),
    /// A group, of which this is the first member.
    Group(u32),
}

/// A socket to ask for next hop objects.
///
/// # Errors
/// When it cannot be opened.
pub(super) fn socket() -> io::Result<Socket> {
    Socket::new(NETLINK_ROUTE)
}

/// The index of the interface of a next hop object, of a group that of its first member; none
/// for a black hole, or an object that is gone.
///
/// # Errors
/// When the kernel cannot be asked.
pub(super) fn interface_of(socket: &Socket, mut id: u32) -> io::Result<Option<u32>> {
    for _ in 0..DEPTH_MAX {
        socket.send_to(&request(id), &SocketAddr::new(0, 0), 0)?;
        let (answer, _) = socket.recv_from_full()?;
        match parse(&answer) {
            Some(NextHop::Interface(index)) => return Ok(Some(index)),
            Some(NextHop::Group(first)) => id = first,
            None => return Ok(None),
        }
    }
    Ok(None)
}

fn request(id: u32) -> Vec<u8> {
    let attribute = [8u16.to_ne_bytes(), NHA_ID.to_ne_bytes()];
    let length = (HEADER + NEXT_HOP_HEADER + 8) as u32;
    let mut message = length.to_ne_bytes().to_vec();
    message.extend(RTM_GETNEXTHOP.to_ne_bytes());
    message.extend(NLM_F_REQUEST.to_ne_bytes());
    // Sequence and port, then the header of a next hop.
    message.extend([0; 8 + NEXT_HOP_HEADER]);
    message.extend(attribute.as_flattened());
    message.extend(id.to_ne_bytes());
    message
}

/// None for an error of the kernel, and for an object without an interface.
fn parse(message: &[u8]) -> Option<NextHop> {
    let kind: [u8; 2] = message.get(4..6)?.try_into().ok()?;
    if u16::from_ne_bytes(kind) != RTM_NEWNEXTHOP {
        return None;
    }
    let length: [u8; 4] = message.get(..4)?.try_into().ok()?;
    let end = usize::try_from(u32::from_ne_bytes(length)).ok()?;
    let attributes = message.get(HEADER + NEXT_HOP_HEADER..end)?;
    NlasIterator::new(attributes).find_map(|attribute| {
        let attribute = attribute.ok()?;
        // The first word of a group's member is its id.
        let first: [u8; 4] = attribute.value().get(..4)?.try_into().ok()?;
        let number = u32::from_ne_bytes(first);
        match attribute.kind() {
            NHA_OIF => Some(NextHop::Interface(number)),
            NHA_GROUP => Some(NextHop::Group(number)),
            _ => None,
        }
    })
}

#[cfg(test)]
mod tests;
