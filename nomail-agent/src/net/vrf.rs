//! VRFs: routing domains, whose addresses are unknown to sockets outside.

use std::fs;

use socket2::{Domain, Socket, Type};

/// With 1, a listening socket accepts connections of all VRFs.
const ACCEPT_ALL: &str = "/proc/sys/net/ipv4/tcp_l3mdev_accept";

/// Whether connections of a VRF reach a listening socket of this process: it was started in the
/// VRF (`ip vrf exec`), or sockets accept those of all VRFs.
pub fn sockets_are_in(vrf: &str) -> bool {
    let accepts_all = fs::read_to_string(ACCEPT_ALL).is_ok_and(|value| value.trim() == "1");
    accepts_all || own_vrf().is_some_and(|own| own == vrf)
}

/// The VRF that this process was started in (`ip vrf exec`): the kernel binds its sockets to
/// it.
pub fn own_vrf() -> Option<String> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).ok()?;
    String::from_utf8(socket.device().ok()??).ok()
}
