//! One pull: a request over HTTP/1.1, and its answer, read as it arrives, with a bound on
//! time and length.

use std::{
    future::Future,
    io::{self, BufReader, Read},
    time::Duration,
};

use http_body_util::{BodyExt as _, Empty};
use hyper::{
    Request, StatusCode,
    body::{Bytes, Incoming},
    client::conn::http1,
    header::{ACCEPT, CONNECTION, HOST, USER_AGENT},
};
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::{
    net::TcpStream,
    runtime::Runtime,
    select,
    sync::watch,
    task::JoinSet,
    time::{Instant, timeout_at},
};

use super::{stream::StreamAnswer, subscription::Subscription};

/// Longest time of one pull, to its last byte: the real API sends 20,000 decisions in half
/// a second.
pub(super) const PULL_TIMEOUT: Duration = Duration::from_secs(15);
/// Longest answer: the decisions that there is room for take 34 MiB.
pub(super) const ANSWER_MAX: usize = if cfg!(test) { 1 << 20 } else { 64 << 20 };
/// Longest head of an answer.
const HEAD_MAX: usize = 16 << 10;

/// The stream of decisions of the API's first version.
const STREAM: &str = "/v1/decisions/stream";

/// Why there is no answer.
#[derive(Debug, Error)]
pub(super) enum PullError {
    #[error("cannot be reached: {0}")]
    Unreachable(io::Error),
    #[error("the key is refused ({0})")]
    KeyRefused(StatusCode),
    #[error("it answers {0}")]
    Status(StatusCode),
    #[error("the answer is no HTTP, or incomplete: {0}")]
    Http(hyper::Error),
    #[error("the answer is not a list of decisions (line {line}, column {column})")]
    NotDecisions { line: usize, column: usize },
    #[error("the answer is longer than {ANSWER_MAX} bytes")]
    TooLong,
    #[error("no complete answer within {} s", PULL_TIMEOUT.as_secs())]
    Slow,
    /// There is another order, so that the answer is of no use.
    #[error("abandoned")]
    Abandoned,
}

impl PullError {
    /// What the operator can do.
    pub(super) fn remedy(&self, key_file: &str) -> String {
        match self {
            Self::Unreachable(_) => ": is it running, and is that crowdsec.url?".to_owned(),
            Self::KeyRefused(_) => format!(
                ": write what `cscli bouncers add nomail -o raw` prints into {key_file}, and \
                 reload"
            ),
            Self::Status(_) | Self::Http(_) | Self::NotDecisions { .. } => {
                ": is crowdsec.url that of its local API?".to_owned()
            }
            Self::TooLong | Self::Slow | Self::Abandoned => String::new(),
        }
    }
}

/// Asks for what has changed since the last pull, or with `startup` for all there is, and
/// blocks until the answer or another order is there.
///
/// # Errors
/// There is no answer, or none that can be used.
pub(super) fn pull<T>(
    runtime: &Runtime,
    orders: &mut watch::Receiver<T>,
    subscription: &Subscription,
    startup: bool,
) -> Result<StreamAnswer, PullError> {
    let mut patience = Patience {
        runtime,
        orders,
        until: Instant::now() + PULL_TIMEOUT,
    };
    // Dropped, and so ended, with this function.
    let mut connections = JoinSet::new();
    let response = patience.wait(async {
        let stream = TcpStream::connect(subscription.url.address())
            .await
            .map_err(PullError::Unreachable)?;
        let (mut sender, connection) = http1::Builder::new()
            .max_buf_size(HEAD_MAX)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(PullError::Http)?;
        connections.spawn(connection);
        let request = Request::get(format!("{STREAM}?startup={startup}"))
            .header(HOST, subscription.url.address().to_string())
            .header(
                USER_AGENT,
                concat!("nomail-agent/", env!("CARGO_PKG_VERSION")),
            )
            .header(ACCEPT, "application/json")
            .header(CONNECTION, "close")
            .header("X-Api-Key", subscription.key.header())
            .body(Empty::<Bytes>::new());
        // Cannot fail: all of it is constant or was checked.
        let request = request.map_err(|error| PullError::Unreachable(io::Error::other(error)))?;
        sender.send_request(request).await.map_err(PullError::Http)
    })??;
    match response.status() {
        StatusCode::OK => {}
        status @ (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => {
            return Err(PullError::KeyRefused(status));
        }
        status => return Err(PullError::Status(status)),
    }
    let mut body = Body {
        patience,
        incoming: response.into_body(),
        piece: Bytes::new(),
        left: ANSWER_MAX,
        failed: None,
    };
    let answer = serde_json::from_reader(BufReader::new(&mut body));
    match (body.failed, answer) {
        (Some(error), _) => Err(error),
        (None, Ok(answer)) => Ok(answer),
        // The text of the error may repeat what was received.
        (None, Err(error)) => Err(PullError::NotDecisions {
            line: error.line(),
            column: error.column(),
        }),
    }
}

/// Bounds a wait: until a time, or another order.
struct Patience<'a, T> {
    runtime: &'a Runtime,
    orders: &'a mut watch::Receiver<T>,
    until: Instant,
}

impl<T> Patience<'_, T> {
    fn wait<R>(&mut self, work: impl Future<Output = R>) -> Result<R, PullError> {
        let Self {
            runtime,
            orders,
            until,
        } = self;
        runtime.block_on(async {
            select! {
                _ = orders.changed() => Err(PullError::Abandoned),
                done = timeout_at(*until, work) => done.map_err(|_| PullError::Slow),
            }
        })
    }
}

/// The body of an answer, as it arrives.
struct Body<'a, T> {
    patience: Patience<'a, T>,
    incoming: Incoming,
    piece: Bytes,
    left: usize,
    failed: Option<PullError>,
}

impl<T> Body<'_, T> {
    /// The next piece; empty at the end.
    fn next(&mut self) -> Result<Bytes, PullError> {
        loop {
            let frame = self.patience.wait(self.incoming.frame())?;
            let Some(frame) = frame else {
                return Ok(Bytes::new());
            };
            // Else it is a trailer.
            if let Ok(piece) = frame.map_err(PullError::Http)?.into_data()
                && !piece.is_empty()
            {
                self.left = self
                    .left
                    .checked_sub(piece.len())
                    .ok_or(PullError::TooLong)?;
                return Ok(piece);
            }
        }
    }
}

impl<T> Read for Body<'_, T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.piece.is_empty() {
            match self.next() {
                Ok(piece) => self.piece = piece,
                Err(error) => {
                    self.failed = Some(error);
                    return Err(io::Error::other("no more"));
                }
            }
        }
        let length = self.piece.len().min(buffer.len());
        buffer[..length].copy_from_slice(&self.piece.split_to(length));
        Ok(length)
    }
}
