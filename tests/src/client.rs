//! Clients that speak SMTP to a host.

use std::{
    io::{self, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpStream},
};

use socket2::{Domain, Socket, Type};

use crate::{lab::Namespace, poll::DEADLINE};

/// Connects to port 25 from an address, or an unspecified one, in the namespace of this
/// thread.
///
/// # Errors
/// When it is not established in time.
///
/// # Panics
/// When `from` is not ours.
pub fn connect(from: &str, to: &str) -> io::Result<TcpStream> {
    let [from, to]: [IpAddr; 2] = [from, to].map(|address| address.parse().expect("an address"));
    let socket = Socket::new(Domain::for_address((to, 25).into()), Type::STREAM, None)?;
    let from = SocketAddr::new(from, 0);
    socket.bind(&from.into()).expect("the address is ours");
    socket.connect_timeout(&SocketAddr::new(to, 25).into(), DEADLINE)?;
    socket.set_read_timeout(Some(DEADLINE))?;
    Ok(socket.into())
}

/// Connects, sends `says` at once and returns all that the host sends until it closes.
///
/// # Errors
/// When the connection is not established, or breaks.
pub fn converse(from: &str, to: &str, says: &str) -> io::Result<String> {
    let mut stream = connect(from, to)?;
    stream.write_all(says.as_bytes())?;
    let mut heard = String::new();
    stream.read_to_string(&mut heard)?;
    Ok(heard)
}

/// Connects from this namespace, sends QUIT and returns all that the host sends.
///
/// # Errors
/// As [`converse`].
pub fn quit(client: &Namespace, to: &str) -> io::Result<String> {
    let from = if to.contains(':') { "::" } else { "0.0.0.0" };
    client.within(|| converse(from, to, "QUIT\r\n"))
}
