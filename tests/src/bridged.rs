//! A host and a client as containers have them: each behind a veth pair, whose other
//! ends are ports of a bridge. Those ends have neither an XDP program nor GRO, so they
//! take no frame that native XDP sends.

use crate::lab::{CLIENT_INTERFACE, HOST_INTERFACE, Namespace};

/// The two containers and what joins them, with the addresses of [`crate::lab::Lab`].
#[derive(Debug)]
pub struct Bridged {
    /// `host0`, 192.0.2.1/24 and 2001:db8::1/64.
    pub host: Namespace,
    /// `client0`, 192.0.2.100/24 and 2001:db8::100/64.
    pub client: Namespace,
    /// `br0` with the ports `to_host` and `to_client`.
    pub switch: Namespace,
}

impl Bridged {
    /// Lays it out.
    pub fn new() -> Self {
        let bridged = Self {
            host: Namespace::new("host"),
            client: Namespace::new("client"),
            switch: Namespace::new("switch"),
        };
        let switch = &bridged.switch;
        switch.ip("link add br0 type bridge");
        switch.ip("link set br0 up");
        let ends = [
            (&bridged.host, HOST_INTERFACE, "to_host", 2, 1),
            (&bridged.client, CLIENT_INTERFACE, "to_client", 1, 100),
        ];
        for (container, interface, port, hardware, last) in ends {
            switch.ip(&format!(
                "link add {port} type veth peer name {interface} netns {}",
                container.name()
            ));
            switch.ip(&format!("link set {port} master br0 up"));
            container.ip(&format!(
                "link set {interface} address 02:00:00:00:00:0{hardware}"
            ));
            container.ip(&format!("address add 192.0.2.{last}/24 dev {interface}"));
            container.ip(&format!(
                "address add 2001:db8::{last}/64 dev {interface} nodad"
            ));
            container.ip(&format!("link set {interface} up"));
        }
        bridged
    }
}

impl Default for Bridged {
    fn default() -> Self {
        Self::new()
    }
}
