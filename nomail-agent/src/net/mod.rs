//! Network interfaces, addresses and routes, asked and followed by netlink.

mod addresses;
mod drivers;
mod error;
mod frames;
mod link_status;
mod links;
mod listening_process;
mod local_routes;
mod netlink;
mod next_hop;
mod routes;
mod stack;
mod unguarded;
mod virtio;
mod vrf;

pub use self::{
    addresses::{ConfiguredAddress, LocalAddress},
    drivers::{Drivers, XDP_BASIC, XDP_FRAGS, XDP_SENDS},
    error::IfaceError,
    frames::{FrameSocket, link_address},
    link_status::LinkStatus,
    links::{Interface, Links},
    listening_process::{has_listener, listening_process},
    local_routes::{LocalRoute, LocalRoutes},
    netlink::{Interfaces, Notices},
    virtio::native_xdp_is_blind,
    vrf::{own_vrf, sockets_are_in},
};
