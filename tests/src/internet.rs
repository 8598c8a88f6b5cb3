//! The Internet of a lab: a name server, and a mail server that accepts everything.

use std::{net::Ipv4Addr, sync::Arc, time::Duration};

use hickory_server::{
    Server,
    proto::{rr::Name, serialize::txt::Parser},
    store::in_memory::InMemoryZoneHandler,
    zone_handler::{AxfrPolicy, Catalog, ZoneType},
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream, UdpSocket},
    runtime::{Builder, Runtime},
};

use crate::lab::Namespace;

/// Records of every lab: the root of all names, so that what it does not know
/// does not exist.
const ROOT: &str = "\
. 60 IN SOA ns.example. hostmaster.example. 1 3600 600 86400 60
. 60 IN NS ns.example.
";

/// Longest that a TCP connection to the name server may be idle.
const DNS_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of answers that wait for a client of the name server.
const DNS_BUFFER: usize = 4096;

/// Servers in namespaces; they end on drop.
#[derive(Debug)]
pub struct Internet(Runtime);

impl Internet {
    /// One without servers.
    ///
    /// # Panics
    /// When no thread can be started.
    pub fn new() -> Self {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build();
        Self(runtime.expect("a thread can be started"))
    }

    /// Serves `records`, lines of a zone file with full names, on port 53.
    ///
    /// # Panics
    /// When they are malformed, or the address is not the namespace's.
    pub fn serve_names(&self, namespace: &Namespace, address: Ipv4Addr, records: &str) {
        let zone = format!("{ROOT}{records}");
        let (origin, records) = Parser::new(zone, None, Some(Name::root()))
            .parse()
            .expect("a zone file");
        let zone: InMemoryZoneHandler =
            InMemoryZoneHandler::new(origin.clone(), records, ZoneType::Primary, AxfrPolicy::Deny)
                .expect("a zone");
        let mut catalog = Catalog::new();
        catalog.upsert(origin.into(), vec![Arc::new(zone)]);

        // A socket belongs to the namespace that it was made in, whichever
        // thread uses it.
        let (udp, tcp) = namespace.within(|| {
            let udp = std::net::UdpSocket::bind((address, 53)).expect("port 53 is free");
            let tcp = std::net::TcpListener::bind((address, 53)).expect("port 53 is free");
            (udp, tcp)
        });
        udp.set_nonblocking(true).expect("a socket");
        tcp.set_nonblocking(true).expect("a socket");
        self.0.spawn(async move {
            let mut server = Server::new(catalog);
            server.register_socket(UdpSocket::from_std(udp).expect("a socket"));
            server.register_listener(
                TcpListener::from_std(tcp).expect("a socket"),
                DNS_TIMEOUT,
                DNS_BUFFER,
            );
            // It ends with the runtime.
            let _ = server.block_until_done().await;
        });
    }

    /// Accepts and discards all mail on port 25.
    ///
    /// # Panics
    /// When the address is not the namespace's.
    pub fn take_mail(&self, namespace: &Namespace, address: Ipv4Addr, hostname: &'static str) {
        let listener = namespace
            .within(|| std::net::TcpListener::bind((address, 25)).expect("port 25 is free"));
        listener.set_nonblocking(true).expect("a socket");
        self.0.spawn(async move {
            let listener = TcpListener::from_std(listener).expect("a socket");
            while let Ok((stream, _)) = listener.accept().await {
                // Failures show in the sender's log.
                tokio::spawn(take_one_session(stream, hostname));
            }
        });
    }
}

impl Default for Internet {
    fn default() -> Self {
        Self::new()
    }
}

async fn take_one_session(stream: TcpStream, hostname: &str) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    let greeting = format!("220 {hostname} ready\r\n");
    stream.write_all(greeting.as_bytes()).await?;
    let (mut line, mut in_data) = (String::new(), false);
    loop {
        line.clear();
        if stream.read_line(&mut line).await? == 0 {
            return Ok(());
        }
        let verb = line.trim_end().to_ascii_uppercase();
        let reply = match verb.as_str() {
            "." => "250 taken",
            _ if in_data => continue,
            "DATA" => "354 go on",
            "QUIT" => "221 bye",
            _ => "250 fine",
        };
        in_data = verb == "DATA";
        stream.write_all(format!("{reply}\r\n").as_bytes()).await?;
    }
}
