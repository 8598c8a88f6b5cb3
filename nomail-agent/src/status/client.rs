//! Asks an agent for its status. Root asks, and what answers may have been taken over: an
//! answer is bounded in bytes and in time.

use std::{
    io::{self, Read as _, Write as _},
    os::{fd::OwnedFd, unix::net::UnixStream},
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, bail};
use serde::Deserialize;
use socket2::{Domain, SockAddr, Socket, Type};

use crate::{status::Status, text::ascii};

/// Most sources in one answer.
pub const SOURCES_MAX: usize = 65_536;
/// Longest time from the connection to the last byte of the answer.
const AGENT_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of the longest answer without sources.
const ANSWER_MAX: usize = 1 << 20;
/// Bytes that a source may add to an answer.
const SOURCE_MAX: usize = 512;
/// Characters of an error that are shown.
const ERROR_MAX: usize = 1024;

/// Connects to what listens on `path`; a full queue is waited for.
pub(super) fn connect(path: &Path, within: Duration) -> io::Result<UnixStream> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_write_timeout(Some(within))?;
    socket.connect(&SockAddr::unix(path)?)?;
    Ok(OwnedFd::from(socket).into())
}

/// Asks the agent that answers on `path`.
///
/// # Errors
/// When no agent answers, or not in time, or with something that is no status.
pub fn ask(path: &Path, sources: usize) -> Result<Status> {
    ask_within(path, sources, AGENT_TIMEOUT)
}

fn ask_within(path: &Path, sources: usize, within: Duration) -> Result<Status> {
    let deadline = Instant::now() + within;
    let sources = sources.min(SOURCES_MAX);
    let mut stream = connect(path, within).map_err(|error| {
        let remedy = match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                "no nomail-agent answers there: is it running, with another --control?"
            }
            io::ErrorKind::PermissionDenied => "ask as root or as a member of the group nomail",
            io::ErrorKind::WouldBlock => {
                "the agent takes no connections: is it stopped, or are others asking?"
            }
            _ => "the agent cannot be asked",
        };
        anyhow!(error).context(format!("{}: {remedy}", path.display()))
    })?;
    let late = || format!("the agent does not answer within {within:?}");
    writeln!(stream, "status {sources}").context("the agent does not listen")?;
    let max = ANSWER_MAX + sources * SOURCE_MAX;
    let answer = read_line(&mut stream, max, deadline).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => anyhow!(error).context(late()),
        io::ErrorKind::FileTooLarge => anyhow!(
            "the answer is longer than the {max} bytes of any status: what answers on {} is no \
             nomail-agent of this version, or has been taken over",
            path.display()
        ),
        _ => anyhow!(error).context("the agent's answer cannot be read"),
    })?;
    parse(&answer, sources)
}

/// Reads a line of at most `max` bytes.
fn read_line(stream: &mut UnixStream, max: usize, deadline: Instant) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    let mut piece = [0; 16 << 10];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        let read = match stream.read(&mut piece) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            read => read?,
        };
        let piece = &piece[..read];
        let end = piece.iter().position(|&byte| byte == b'\n');
        line.extend_from_slice(&piece[..end.unwrap_or(read)]);
        if line.len() > max {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        if end.is_some() || read == 0 {
            return Ok(line);
        }
    }
}

/// The only answer besides a status.
#[derive(Deserialize)]
struct Refusal {
    error: String,
}

/// Parses into these types alone: a tree of any JSON would be many times as large as its
/// text.
fn parse(answer: &[u8], sources: usize) -> Result<Status> {
    if let Ok(Refusal { error }) = serde_json::from_slice(answer) {
        let error: String = error.chars().take(ERROR_MAX).collect();
        bail!("the agent cannot tell: {}", ascii(&error));
    }
    let mut status: Status = serde_json::from_slice(answer).map_err(|error| {
        let what = if error.is_data() {
            "the agent is of another version than this command"
        } else {
            "the agent's answer is not complete"
        };
        // The text of the error may repeat what was received.
        anyhow!("{what} (column {} of its answer)", error.column())
    })?;
    status.sources.truncate(sources);
    Ok(status)
}

#[cfg(test)]
mod tests {
    use std::{os::unix::net::UnixListener, thread};

    use super::*;
    use crate::status::SourceStatus;

    const SHORT: Duration = Duration::from_millis(300);

    /// Asks an agent that does `answer` with the connection.
    fn ask_one_that(answer: impl FnOnce(UnixStream) + Send + 'static) -> Result<Status> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("control.sock");
        let listener = UnixListener::bind(&path).unwrap();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            assert_eq!(stream.read(&mut [0; 64]).unwrap(), "status 20\n".len());
            answer(stream);
        });
        let begun = Instant::now();
        let asked = ask_within(&path, 20, SHORT);
        assert!(begun.elapsed() < SHORT * 10, "{:?}", begun.elapsed());
        asked
    }

    fn error(asked: Result<Status>) -> String {
        format!("{:#}", asked.err().unwrap())
    }

    #[test]
    fn an_agent_that_never_stops_is_cut_off() {
        let endless = ask_one_that(|mut stream| while stream.write_all(&[b' '; 65536]).is_ok() {});
        let error = error(endless);
        let taken_over = error.contains("longer than the") && error.contains("control.sock");
        assert!(
            taken_over || error.contains("does not answer within"),
            "{error}"
        );
    }

    #[test]
    fn an_agent_that_never_answers_is_given_up() {
        let silent = ask_one_that(|mut stream| drop(stream.read_to_end(&mut Vec::new())));
        assert!(error(silent).contains("does not answer within 300ms"));
    }

    #[test]
    fn an_agent_that_drips_is_given_up() {
        let slow = ask_one_that(|mut stream| {
            while stream.write_all(b"{").is_ok() {
                thread::sleep(SHORT / 10);
            }
        });
        assert!(error(slow).contains("does not answer within 300ms"));
    }

    #[test]
    fn an_agent_that_accepts_nothing_is_given_up() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("control.sock");
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        socket.bind(&SockAddr::unix(&path).unwrap()).unwrap();
        socket.listen(0).unwrap();
        let _waiting = UnixStream::connect(&path).unwrap();
        let begun = Instant::now();
        let error = error(ask_within(&path, 20, SHORT));
        assert!(error.contains("takes no connections"), "{error}");
        assert!(begun.elapsed() < SHORT * 10);
    }

    #[test]
    fn an_error_of_the_agent_is_short_and_no_command_for_a_terminal() {
        let refused = ask_one_that(|mut stream| {
            let text = "\u{1b}[2J".repeat(10_000);
            let error = serde_json::json!({ "error": text });
            writeln!(stream, "{error}").unwrap();
        });
        let error = error(refused);
        assert!(
            error.contains("the agent cannot tell: \\u{1b}[2J"),
            "{error}"
        );
        assert!(!error.contains('\u{1b}') && error.len() < 16 * ERROR_MAX);
    }

    #[test]
    fn other_answers_are_told_apart() {
        let of = |text: &'static str| {
            error(ask_one_that(move |mut stream| {
                stream.write_all(text.as_bytes()).unwrap();
            }))
        };
        assert!(of("{\"version\":").contains("not complete"));
        assert!(of("").contains("not complete"));
        assert!(of("[[[[[[[[").contains("another version"));
    }

    #[test]
    fn the_largest_status_of_so_many_sources_is_taken() {
        let source = SourceStatus {
            source: "ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255/64".to_owned(),
            syn: u64::MAX,
            limited: u64::MAX,
            connections: u64::MAX,
            last_seen_secs: u64::MAX,
        };
        let text = serde_json::to_vec(&source).unwrap();
        assert!(text.len() < SOURCE_MAX, "{}", text.len());
        let status = Status {
            sources: vec![source; 30],
            ..Status::default()
        };
        let taken = ask_one_that(move |mut stream| {
            stream
                .write_all(&serde_json::to_vec(&status).unwrap())
                .unwrap();
        });
        assert_eq!(
            taken.unwrap().sources.len(),
            20,
            "as many as were asked for"
        );
    }
}
