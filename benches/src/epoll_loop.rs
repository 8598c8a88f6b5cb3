//! The least that a correct server which greets with 521 can do: what others
//! are measured by.
//!
//! One thread; one level-triggered epoll set; libc and nothing else. For each
//! connection the system calls are accept4, send (the greeting), epoll_ctl (add),
//! recv, send (the 221) and close; epoll_wait is shared by all that is ready.
//! It keeps eight bytes for each descriptor: how far the current line is, and
//! its first five bytes, so that a line may come in any pieces. QUIT is answered
//! 221 and the connection closed; every other line is answered 521.
//!
//! It has no limits, no deadlines, no counts, no log, no IPv6, and does not drain
//! what a client sends after QUIT; a reply that does not fit the send buffer ends
//! the connection. That is, it refuses mail rightly, and withstands nothing.

use std::{
    io,
    net::SocketAddrV4,
    os::fd::{AsRawFd as _, IntoRawFd as _, RawFd},
};

use socket2::{Domain, Protocol, Socket, Type};

const GREETING: &[u8] = b"521 mailless.example.org does not accept mail\r\n";
const REFUSAL: &[u8] = b"521 5.3.2 mailless.example.org does not accept mail\r\n";
const GOODBYE: &[u8] = b"221 2.0.0 mailless.example.org closing connection\r\n";

/// As the agent's.
const BACKLOG: i32 = 4096;
/// Most events that one epoll_wait gives.
const EVENTS: usize = 256;
/// Most connections that are accepted before the others have their turn.
const ACCEPT_MAX: usize = 128;

/// The current line of a connection.
#[derive(Clone, Copy, Default)]
struct Line {
    length: u16,
    after_cr: bool,
    prefix: [u8; 5],
}

/// Serves until it is killed.
///
/// # Errors
/// What the kernel says about the listening socket or the epoll set.
pub fn serve(address: SocketAddrV4) -> io::Result<()> {
    let listener = Socket::new(
        Domain::IPV4,
        Type::STREAM.nonblocking(),
        Some(Protocol::TCP),
    )?;
    listener.set_reuse_address(true)?;
    listener.bind(&address.into())?;
    listener.listen(BACKLOG)?;
    // SAFETY: it takes no pointer.
    let set = checked(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
    watch(set, listener.as_raw_fd())?;
    // Lives as long as the process, as does the epoll set.
    let listener = listener.into_raw_fd();
    let mut lines: Vec<Line> = Vec::new();
    let mut events = [libc::epoll_event { events: 0, u64: 0 }; EVENTS];
    loop {
        // SAFETY: there is room for EVENTS events.
        let ready = unsafe { libc::epoll_wait(set, events.as_mut_ptr(), EVENTS as i32, -1) };
        for event in &events[..checked(ready)? as usize] {
            let descriptor = event.u64 as RawFd;
            if descriptor == listener {
                accept(listener, set, &mut lines)?;
            } else if !answer(descriptor, &mut lines[descriptor as usize]) {
                // SAFETY: accept made it, and it is not closed: it is in
                // the set.
                unsafe { libc::close(descriptor) };
            }
        }
    }
}

/// Greets all that wait, or [`ACCEPT_MAX`] of them.
fn accept(listener: RawFd, set: RawFd, lines: &mut Vec<Line>) -> io::Result<()> {
    for _ in 0..ACCEPT_MAX {
        let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        // SAFETY: null pointers mean that the peer's address is not wanted.
        let connection =
            unsafe { libc::accept4(listener, std::ptr::null_mut(), std::ptr::null_mut(), flags) };
        if connection < 0 {
            break;
        }
        let index = connection as usize;
        if lines.len() <= index {
            lines.resize(index + 1, Line::default());
        }
        lines[index] = Line::default();
        if send(connection, GREETING) {
            watch(set, connection)?;
        } else {
            // SAFETY: accept4 has just made it, and it is in no set.
            unsafe { libc::close(connection) };
        }
    }
    Ok(())
}

/// Reads, and answers each complete line. False: close.
fn answer(connection: RawFd, line: &mut Line) -> bool {
    let mut buffer = [0; 512];
    // SAFETY: the buffer has that length.
    let count = unsafe { libc::recv(connection, buffer.as_mut_ptr().cast(), buffer.len(), 0) };
    if count <= 0 {
        // The end, or an error; no other thread reads, so never EAGAIN.
        return false;
    }
    for &octet in &buffer[..count as usize] {
        if let Some(place) = line.prefix.get_mut(usize::from(line.length)) {
            *place = octet;
        }
        line.length = line.length.saturating_add(1);
        let complete = octet == b'\n' && line.after_cr;
        line.after_cr = octet == b'\r';
        if !complete {
            continue;
        }
        let quit = line.length == 6 && line.prefix.eq_ignore_ascii_case(b"QUIT\r");
        *line = Line::default();
        if !send(connection, if quit { GOODBYE } else { REFUSAL }) || quit {
            return false;
        }
    }
    true
}

fn send(connection: RawFd, text: &[u8]) -> bool {
    // SAFETY: the text has that length.
    let sent = unsafe {
        libc::send(
            connection,
            text.as_ptr().cast(),
            text.len(),
            libc::MSG_NOSIGNAL,
        )
    };
    sent == text.len() as isize
}

fn watch(set: RawFd, descriptor: RawFd) -> io::Result<()> {
    let mut event = libc::epoll_event {
        events: libc::EPOLLIN as u32,
        u64: descriptor as u64,
    };
    // SAFETY: the event lives as long as the call.
    checked(unsafe { libc::epoll_ctl(set, libc::EPOLL_CTL_ADD, descriptor, &raw mut event) })?;
    Ok(())
}

fn checked(result: i32) -> io::Result<i32> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result)
}
