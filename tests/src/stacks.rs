//! TCP stacks that are not Linux's, behind a tap of a namespace that forwards.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::AsRawFd as _,
    sync::atomic::{AtomicU16, Ordering},
    time::{Duration, Instant},
};

use smoltcp::{
    iface::{Config, Interface, SocketSet},
    phy::{Medium, TunTapInterface, wait},
    socket::tcp,
    time::Instant as Timestamp,
    wire::{EthernetAddress, IpCidr},
};

use crate::{
    flood::sysctl,
    lab::{HOST_IPV6, Lab},
    poll::until,
    root::{Instance, Root},
};

/// The tap that a stack is behind.
pub const TAP: &str = "tap0";
/// The router on the tap.
pub const ROUTER_IPV4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
/// The stack on the tap.
pub const STACK_IPV4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 50);
/// The router on the tap.
pub const ROUTER_IPV6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 1);
/// The stack on the tap.
pub const STACK_IPV6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0x50);
/// The hardware of the stack.
const STACK_HARDWARE: EthernetAddress = EthernetAddress([2, 0, 0, 0, 0, 0x50]);

/// Makes the lab's client a router, to which its host needs a route. Packets to no host,
/// such as answers to forged sources, are dropped there silently.
pub fn forward(lab: &Lab) {
    for family in ["ipv4", "ipv6"] {
        sysctl(
            &lab.client,
            &format!("net/{family}/conf/all/forwarding"),
            "1",
        );
    }
    lab.client.ip("route add blackhole 10.0.0.0/8");
    lab.client.ip("route add blackhole 2001:db9::/32");
}

/// The same, with a tap for a stack.
pub fn forward_to_tap(lab: &Lab) {
    forward(lab);
    let client = &lab.client;
    client.ip(&format!("tuntap add dev {TAP} mode tap"));
    client.ip(&format!("address add {ROUTER_IPV4}/24 dev {TAP}"));
    client.ip(&format!("address add {ROUTER_IPV6}/64 dev {TAP} nodad"));
    client.ip(&format!("link set {TAP} up"));
}

/// A connection and its text.
#[derive(Debug)]
pub struct Spoken {
    /// From the connect call to the established connection.
    pub established: Option<Duration>,
    /// What was said then.
    pub heard: String,
}

/// Lets smoltcp, on the tap of the namespace of this thread, connect to port 25
/// and wait for a whole line.
///
/// # Panics
/// Without the tap.
pub fn smoltcp(to: IpAddr, patience: Duration) -> Spoken {
    static PORT: AtomicU16 = AtomicU16::new(50_000);
    // A process that another test starts has all descriptors, too, for a moment.
    let mut device = until("the tap is free", || {
        TunTapInterface::new(TAP, Medium::Ethernet).ok()
    });
    let begun = Instant::now();
    let mut config = Config::new(STACK_HARDWARE.into());
    let port = PORT.fetch_add(1, Ordering::Relaxed);
    config.random_seed = u64::from(port) << 32 | u64::from(std::process::id());
    let mut interface = Interface::new(config, &mut device, Timestamp::now());
    interface.update_ip_addrs(|addresses| {
        for cidr in [
            IpCidr::new(IpAddr::V4(STACK_IPV4).into(), 24),
            IpCidr::new(IpAddr::V6(STACK_IPV6).into(), 64),
        ] {
            addresses.push(cidr).expect("there is room for two");
        }
    });
    let routes = interface.routes_mut();
    routes
        .add_default_ipv4_route(ROUTER_IPV4)
        .expect("there is room for a route");
    routes
        .add_default_ipv6_route(ROUTER_IPV6)
        .expect("there is room for a route");

    let buffer = || tcp::SocketBuffer::new(vec![0; 2048]);
    let mut sockets = SocketSet::new(vec![]);
    let handle = sockets.add(tcp::Socket::new(buffer(), buffer()));
    sockets
        .get_mut::<tcp::Socket<'_>>(handle)
        .connect(interface.context(), (to, 25), port)
        .expect("it is closed");
    let mut spoken = Spoken {
        established: None,
        heard: String::new(),
    };
    while begun.elapsed() < patience {
        interface.poll(Timestamp::now(), &mut device, &mut sockets);
        let socket = sockets.get_mut::<tcp::Socket<'_>>(handle);
        if socket.state() == tcp::State::Established && spoken.established.is_none() {
            spoken.established = Some(begun.elapsed());
        }
        let mut octets = [0; 1024];
        if socket.can_recv()
            && let Ok(length) = socket.recv_slice(&mut octets)
        {
            spoken
                .heard
                .push_str(&String::from_utf8_lossy(&octets[..length]));
        }
        if spoken.heard.ends_with("\r\n") {
            // The host need not wait for what never comes.
            socket.abort();
            interface.poll(Timestamp::now(), &mut device, &mut sockets);
            break;
        }
        if !socket.is_open() {
            break;
        }
        let patience = smoltcp::time::Duration::from_millis(20);
        let delay = interface.poll_delay(Timestamp::now(), &sockets);
        let delay = delay.map_or(patience, |delay| delay.min(patience));
        wait(device.as_raw_fd(), Some(delay)).expect("the tap can be waited for");
    }
    spoken
}

/// The lwIP of [`start_lwip`]: its gateway is only for IPv4, so for IPv6 the router speaks
/// for the host, and the host finds the stack behind the router.
pub const LWIP_IPV6: &str = "2001:db8::50";

/// Builds a program that lets lwIP do the same, in /root/lwip, behind the lab's client; then
/// `more` runs there. See lwip.c.
///
/// # Panics
/// When it does not build.
pub fn start_lwip<'root>(root: &'root Root, lab: &Lab, more: &str) -> Instance<'root> {
    const PROGRAM: &str = include_str!("lwip.c");
    forward_to_tap(lab);
    let client = &lab.client;
    sysctl(client, "net/ipv6/conf/all/proxy_ndp", "1");
    client.ip(&format!("neighbour add proxy {HOST_IPV6} dev {TAP}"));
    client.ip(&format!("route add {LWIP_IPV6} dev {TAP}"));
    lab.host
        .ip(&format!("route add {LWIP_IPV6} via 2001:db8::100"));
    let script = format!(
        "mkdir -p /dev/net /root/lwip
        mknod /dev/net/tun c 10 200
        cd /root/lwip
        cat > lwip.c <<'END'
{PROGRAM}
END
        cc -O1 -D_GNU_SOURCE -I/usr/include/lwip lwip.c -llwip -o lwip
        echo built > built
        {more}"
    );
    let mut lwip = root.start(client, &script);
    lwip.line("/root/lwip/built", &["built"]);
    lwip
}
