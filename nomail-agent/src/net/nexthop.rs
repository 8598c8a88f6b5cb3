//! Next hop objects (`ip nexthop`), which a route may name in place of an interface.
//! The netlink library does not know their messages.

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
/// Groups of groups are not allowed; a circle cannot be.
const DEPTH_MAX: usize = 2;

/// What a next hop is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NextHop {
    /// By the interface of that number.
    Interface(u32),
    /// Several, of which this is the first.
    Group(u32),
}

/// A socket to ask for next hop objects.
///
/// # Errors
/// When none can be had.
pub(super) fn socket() -> io::Result<Socket> {
    Socket::new(NETLINK_ROUTE)
}

/// The number of the interface that the next hop object leads to, the first one of a
/// group; none where packets vanish, or it is gone.
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

/// None for an error of the kernel, and for what leads nowhere.
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
        // Of a group's member the first word is its number.
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
mod tests {
    use super::*;

    fn answer(kind: u16, attributes: &[(u16, &[u32])]) -> Vec<u8> {
        let mut body = Vec::new();
        for (kind, words) in attributes {
            body.extend((4 + 4 * words.len() as u16).to_ne_bytes());
            body.extend(kind.to_ne_bytes());
            body.extend(words.iter().flat_map(|word| word.to_ne_bytes()));
        }
        let length = (HEADER + NEXT_HOP_HEADER + body.len()) as u32;
        let mut message = length.to_ne_bytes().to_vec();
        message.extend(kind.to_ne_bytes());
        message.extend([0; 10 + NEXT_HOP_HEADER]);
        message.extend(body);
        message
    }

    #[test]
    fn a_next_hop_leads_to_an_interface_or_is_a_group() {
        let single = answer(RTM_NEWNEXTHOP, &[(NHA_ID, &[5]), (NHA_OIF, &[7])]);
        assert_eq!(parse(&single), Some(NextHop::Interface(7)));
        let group = answer(
            RTM_NEWNEXTHOP,
            &[(NHA_ID, &[9]), (NHA_GROUP, &[5, 0, 6, 0])],
        );
        assert_eq!(parse(&group), Some(NextHop::Group(5)));
    }

    #[test]
    fn errors_black_holes_and_scraps_lead_nowhere() {
        assert_eq!(parse(&answer(2, &[(NHA_OIF, &[7])])), None, "an error");
        assert_eq!(parse(&answer(RTM_NEWNEXTHOP, &[(NHA_ID, &[5])])), None);
        let whole = answer(RTM_NEWNEXTHOP, &[(NHA_OIF, &[7])]);
        for length in 0..whole.len() {
            assert_eq!(parse(&whole[..length]), None);
        }
        assert_eq!(request(5).len(), 32);
    }

    #[test]
    fn the_kernel_has_no_such_next_hop() {
        assert_eq!(interface_of(&socket().unwrap(), u32::MAX).unwrap(), None);
    }
}
