//! Metrics for Prometheus at `/metrics`, the health at `/healthz` for load balancers, the
//! page for people at `/`, and `/status.json` for the page's script.
//!
//! It is read-only. There is no login, so by default it listens on the loopback address. There,
//! a request has to name an address or `localhost` as its host: else a web page whose name
//! resolves to 127.0.0.1 could read it through a visitor's browser.
//!
//! A client has one of [`CLIENTS_MAX`] places for [`CONNECTION_MAX`] at most, and loses it
//! earlier to others if it has not sent its request. All clients together cause one status in
//! [`VIEW_AGE`], and take no more than a tenth of a thread's time, because a status reads the
//! whole table of sources.

use std::{
    convert::Infallible,
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use futures_util::future::{BoxFuture, FutureExt as _};
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode, body::Bytes, header, http::request::Parts,
    server::conn::http1, service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use log::debug;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Mutex,
    time::{sleep, timeout},
};

use super::{
    exposition::families,
    family,
    page::{self, View},
    process::{Process, ProcessMetrics},
};
use crate::status::clients::{Asked, Clients};

/// Clients at a time.
const CLIENTS_MAX: usize = 32;
/// Longest time for a request.
const REQUEST_MAX: Duration = Duration::from_secs(2);
/// Longest time for a request and its answer.
const CONNECTION_MAX: Duration = Duration::from_secs(10);
/// Bytes of a request's head; hyper takes no smaller limit.
const HEAD_BYTES_MAX: usize = 8192;
/// Fields of a request's head.
const FIELDS_MAX: usize = 64;
/// How old a status may be that a client is shown.
const VIEW_AGE: Duration = Duration::from_secs(1);
/// And how many times as old as it took to assemble, if that is longer.
const ASSEMBLY_SHARE: u32 = 10;

/// Open files of /proc, which the sandbox does not let the agent open.
#[derive(Clone, Debug)]
pub struct ProcessFiles(Arc<Process>);

impl ProcessFiles {
    /// Opens them, with root's rights.
    ///
    /// # Errors
    /// There is no /proc.
    pub fn open() -> io::Result<Self> {
        Ok(Self(Arc::new(Process::open()?)))
    }
}

/// A bound socket.
#[derive(Debug)]
pub struct HttpServer {
    listener: TcpListener,
    process: Arc<Process>,
}

impl HttpServer {
    /// Binds `address`; within the runtime.
    ///
    /// # Errors
    /// When it is in use, or not this host's.
    pub fn bind(address: SocketAddr, files: &ProcessFiles) -> io::Result<Self> {
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        Ok(Self {
            listener: TcpListener::from_std(listener)?,
            process: Arc::clone(&files.0),
        })
    }

    /// Answers until dropped, with what `assemble` gives.
    pub async fn serve<F>(self, assemble: impl Fn() -> F + Send + Sync + 'static)
    where
        F: Future<Output = Result<View>> + Send + 'static,
    {
        let local = self.listener.local_addr();
        let state = Arc::new(HttpState {
            assemble: Box::new(move || assemble().boxed()),
            process: self.process,
            cached: Mutex::new(None),
            loopback: local.is_ok_and(|address| address.ip().to_canonical().is_loopback()),
        });
        let mut clients = Clients::new(CLIENTS_MAX);
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let state = Arc::clone(&state);
                    clients.admit(|asked| converse(stream, state, asked)).await;
                }
                Err(error) => {
                    debug!("metrics: {error}");
                    sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}

/// One request and its answer.
async fn converse(stream: TcpStream, state: Arc<HttpState>, asked: Asked) {
    let answer = service_fn(|request: Request<_>| {
        asked.set();
        let state = Arc::clone(&state);
        async move { Ok::<_, Infallible>(state.answer(request.into_parts().0).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST_MAX)
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(FIELDS_MAX)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), answer);
    match timeout(CONNECTION_MAX, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!("metrics client: {error}"),
        Err(_) => debug!("metrics client: more than {CONNECTION_MAX:?}"),
    }
}

/// What all clients share.
struct HttpState {
    assemble: Box<dyn Fn() -> BoxFuture<'static, Result<View>> + Send + Sync>,
    process: Arc<Process>,
    cached: Mutex<Option<Cached>>,
    loopback: bool,
}

/// What clients are shown for a while.
#[derive(Clone)]
struct Cached {
    fresh_until: Instant,
    view: Arc<View>,
    process: ProcessMetrics,
}

type HttpResponse = Response<Full<Bytes>>;

impl HttpState {
    async fn answer(&self, request: Parts) -> HttpResponse {
        let text = |name| {
            let value = request.headers.get(name);
            value.and_then(|value| value.to_str().ok())
        };
        if self.loopback && !names_this_host(text(header::HOST)) {
            let why = "On the loopback address, the Host field must name an address or localhost.";
            return plain(StatusCode::MISDIRECTED_REQUEST, why);
        }
        let path = request.uri.path();
        if !["/", "/metrics", "/healthz", "/status.json"].contains(&path) {
            return plain(
                StatusCode::NOT_FOUND,
                "There are /, /metrics, /healthz and /status.json.",
            );
        }
        if request.method != Method::GET && request.method != Method::HEAD {
            let mut answer = plain(StatusCode::METHOD_NOT_ALLOWED, "GET and HEAD only.");
            let allow = header::HeaderValue::from_static("GET, HEAD");
            answer.headers_mut().insert(header::ALLOW, allow);
            return answer;
        }
        let answered = match path {
            "/" => page(),
            "/metrics" => self.metrics().await,
            "/healthz" => self.health().await,
            _ => self.json().await,
        };
        answered.unwrap_or_else(|error| {
            debug!("metrics: {error:#}");
            plain(StatusCode::INTERNAL_SERVER_ERROR, &format!("{error:#}"))
        })
    }

    /// The status of now, or of not long ago.
    async fn cached(&self) -> Result<Cached> {
        // Held meanwhile, so that clients who ask at once share one status.
        let mut cached = self.cached.lock().await;
        match &*cached {
            Some(cached) if Instant::now() < cached.fresh_until => Ok(cached.clone()),
            _ => {
                let begun = Instant::now();
                let view = Arc::new((self.assemble)().await?);
                let process = self.process.metrics().context("/proc/self")?;
                let now = Instant::now();
                let fresh = Cached {
                    fresh_until: now + VIEW_AGE.max((now - begun) * ASSEMBLY_SHARE),
                    view,
                    process,
                };
                Ok(cached.insert(fresh).clone())
            }
        }
    }

    async fn metrics(&self) -> Result<HttpResponse> {
        let cached = self.cached().await?;
        let families = families(&cached.view.status, &cached.process);
        Ok(answer(
            StatusCode::OK,
            family::CONTENT_TYPE,
            family::text(&families),
        ))
    }

    /// An answer of itself shows that the agent's loop runs.
    async fn health(&self) -> Result<HttpResponse> {
        let cached = self.cached().await?;
        Ok(match cached.view.status.unhealthy() {
            Some(why) => plain(StatusCode::SERVICE_UNAVAILABLE, &why),
            None => plain(StatusCode::OK, "ok"),
        })
    }

    async fn json(&self) -> Result<HttpResponse> {
        let json = serde_json::to_string(&*self.cached().await?.view)?;
        Ok(answer(StatusCode::OK, "application/json", json))
    }
}

/// The page. Its script asks for everything that it shows.
fn page() -> Result<HttpResponse> {
    let nonce = format!("{:016x}{:016x}", getrandom::u64()?, getrandom::u64()?);
    let html = page::html(&nonce);
    let policy = format!(
        "default-src 'none'; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; \
         connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; \
         frame-ancestors 'none'"
    );
    let mut answer = answer(StatusCode::OK, "text/html; charset=utf-8", html);
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, policy.try_into()?);
    Ok(answer)
}

fn plain(status: StatusCode, text: &str) -> HttpResponse {
    let text = format!("{text}\n");
    answer(status, "text/plain; charset=utf-8", text)
}

fn answer(status: StatusCode, content_type: &'static str, body: String) -> HttpResponse {
    let mut answer = Response::new(Full::new(Bytes::from(body)));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    for (name, value) in [
        (header::CONTENT_TYPE, content_type),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
    ] {
        headers.insert(name, header::HeaderValue::from_static(value));
    }
    answer
}

/// Whether a `Host` field names an address or `localhost`. It may be missing: that is
/// HTTP/1.0, which browsers do not speak.
fn names_this_host(host: Option<&str>) -> bool {
    let Some(host) = host else {
        return true;
    };
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let literal = name
        .strip_prefix('[')
        .and_then(|name| name.strip_suffix(']'));
    name.eq_ignore_ascii_case("localhost") || literal.unwrap_or(name).parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests;
