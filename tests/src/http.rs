//! An HTTP client that keeps every byte of the answer, and the figures
//! of an agent, as Prometheus' text format has them.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
};

use crate::{lab::Namespace, poll::DEADLINE};

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status code.
    pub code: u16,
    /// The status line and the fields, in lower case.
    pub head: String,
    /// The body.
    pub body: String,
}

/// Sends raw bytes as a request, from the namespace to an address in it.
///
/// # Panics
/// When there is no answer.
pub fn send(namespace: &Namespace, to: &str, request: &str) -> Answer {
    let to: SocketAddr = to.parse().expect("an address");
    let heard = namespace.within(|| {
        let mut stream = TcpStream::connect_timeout(&to, DEADLINE).expect("the port is open");
        stream.set_read_timeout(Some(DEADLINE)).expect("a time");
        stream.write_all(request.as_bytes()).expect("it is read");
        let mut heard = String::new();
        let read = stream.read_to_string(&mut heard);
        assert!(read.is_ok(), "{read:?} after {heard:?}");
        heard
    });
    let (head, body) = heard
        .split_once("\r\n\r\n")
        .unwrap_or_else(|| panic!("no answer: {heard:?}"));
    let code = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    Answer {
        code: code.unwrap_or_else(|| panic!("no status: {head}")),
        head: head.to_ascii_lowercase(),
        body: body.to_owned(),
    }
}

/// Sends GET and returns the answer.
///
/// # Panics
/// When there is no answer.
pub fn get(namespace: &Namespace, to: &str, path: &str) -> Answer {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {to}\r\nConnection: close\r\n\r\n");
    send(namespace, to, &request)
}

/// The samples of a text, by name and labels as they are written.
///
/// # Panics
/// When a line is neither a comment nor a sample.
pub fn samples(text: &str) -> BTreeMap<String, f64> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let (series, value) = line.rsplit_once(' ').expect("a sample");
            let value = value.parse().unwrap_or_else(|_| panic!("{line}"));
            (series.to_owned(), value)
        })
        .collect()
}

/// The names of the metrics of a text, as its comments have them.
pub fn families(text: &str) -> BTreeSet<String> {
    let types = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    types.map(str::to_owned).collect()
}
