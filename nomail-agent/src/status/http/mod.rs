//! Figures by HTTP: for Prometheus at `/metrics`, for a load balancer at
//! `/healthz`, for a person at `/`, which reads `/status.json`.
//!
//! It only tells. Whoever reaches the socket may ask, so that it is bound to the
//! loopback address unless the operator says otherwise. There, a request has to
//! name an address or `localhost` as its host: else a web page elsewhere, whose
//! name leads to 127.0.0.1, could read it with a visitor's browser.
//!
//! A client takes no more than a place among [`CLIENTS_MAX`] for
//! [`CONNECTION_MAX`], and has it no longer than others let it that have asked for
//! something, while it has not; and all together cause one look at the figures in
//! [`VIEW_AGE`], and not more than a tenth of a thread's time, however often they
//! ask: a look goes through the whole table of sources.

mod exposition;
#[cfg(test)]
mod golden;
mod history;
mod process;

use std::{
    convert::Infallible,
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode, body::Bytes, header, server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use log::debug;
use nomail_common::{
    counted::Counted,
    verdict::{Answer as Kind, Verdict},
};
use serde::Serialize;
use serde_json::json;
use tokio::{
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};

pub use self::history::{History, Totals};
use self::{
    exposition::{Format, render},
    process::{Figures, Process},
};
use crate::{
    smtp::{Counter, Outcome, command::Talker, dialog::Refusal},
    status::clients::{Asked, Clients},
    status::{Pull, Status},
};

/// Clients at a time.
const CLIENTS_MAX: usize = 32;
/// Longest that a client may take to ask.
const REQUEST_MAX: Duration = Duration::from_secs(2);
/// Longest that it may take in all.
const CONNECTION_MAX: Duration = Duration::from_secs(10);
/// Octets of a request's head; the least that hyper can be told.
const HEAD_OCTETS_MAX: usize = 8192;
/// Fields of a request's head.
const FIELDS_MAX: usize = 64;
/// How old the figures may be that a client is shown.
const VIEW_AGE: Duration = Duration::from_secs(1);
/// And how many times as old as a look at them takes, if that is longer.
const LOOK_SHARE: u32 = 10;
/// Sources on the page.
pub const SOURCES_SHOWN: usize = 20;

/// The page, but for the nonces of its style and script.
const PAGE: &str = include_str!("page.html");
/// In place of a nonce in [`PAGE`].
const NONCE: &str = "NONCE";
/// In place of [`vocabulary`] in [`PAGE`].
const VOCABULARY: &str = "VOCABULARY";

/// What is shown.
#[derive(Debug, Serialize)]
pub struct View {
    /// As `nomail-agent status --json` tells it.
    #[serde(flatten)]
    pub status: Status,
    /// The last minutes.
    pub history: History,
}

/// Descriptors that cannot be had in the sandbox. Open for as long as a socket may
/// be bound.
#[derive(Clone, Debug)]
pub struct Prepared(Arc<Process>);

impl Prepared {
    /// To be called with root's rights.
    ///
    /// # Errors
    /// There is no /proc.
    pub fn open() -> io::Result<Self> {
        Ok(Self(Arc::new(Process::open()?)))
    }
}

/// A bound socket.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    process: Arc<Process>,
}

impl Server {
    /// Binds `address`. To be called within the runtime.
    ///
    /// # Errors
    /// When it is taken, or not this host's.
    pub fn bind(address: SocketAddr, prepared: &Prepared) -> io::Result<Self> {
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        Ok(Self {
            listener: TcpListener::from_std(listener)?,
            process: Arc::clone(&prepared.0),
        })
    }

    /// Answers until dropped.
    pub async fn serve(self, look: impl Fn() -> Result<View> + Send + Sync + 'static) {
        let local = self.listener.local_addr();
        let desk = Arc::new(Desk {
            look: Box::new(look),
            process: self.process,
            seen: Mutex::new(None),
            loopback: local.is_ok_and(|address| address.ip().to_canonical().is_loopback()),
        });
        let mut clients = Clients::new(CLIENTS_MAX);
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let desk = Arc::clone(&desk);
                    clients.admit(|asked| converse(stream, desk, asked)).await;
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
async fn converse(stream: TcpStream, desk: Arc<Desk>, asked: Asked) {
    let answer = service_fn(|request: Request<_>| {
        asked.set();
        let answered = desk.answer(&request);
        async { Ok::<_, Infallible>(answered) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST_MAX)
        .max_buf_size(HEAD_OCTETS_MAX)
        .max_headers(FIELDS_MAX)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), answer);
    match timeout(CONNECTION_MAX, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!("metrics client: {error}"),
        Err(_) => debug!("metrics client: more than {CONNECTION_MAX:?}"),
    }
}

/// What all clients have in common.
struct Desk {
    look: Box<dyn Fn() -> Result<View> + Send + Sync>,
    process: Arc<Process>,
    seen: Mutex<Option<Seen>>,
    loopback: bool,
}

/// The figures of a moment.
#[derive(Clone)]
struct Seen {
    /// Until when they are good enough.
    fresh_until: Instant,
    view: Arc<View>,
    process: Figures,
}

type Answer = Response<Full<Bytes>>;

impl Desk {
    fn answer<T>(&self, request: &Request<T>) -> Answer {
        let text = |name| {
            let value = request.headers().get(name);
            value.and_then(|value| value.to_str().ok())
        };
        if self.loopback && !names_this_host(text(header::HOST)) {
            let why = "This answers on the loopback address, to who names an address or localhost.";
            return plain(StatusCode::MISDIRECTED_REQUEST, why);
        }
        let path = request.uri().path();
        if !["/", "/metrics", "/healthz", "/status.json"].contains(&path) {
            return plain(
                StatusCode::NOT_FOUND,
                "There are /, /metrics, /healthz and /status.json.",
            );
        }
        if request.method() != Method::GET && request.method() != Method::HEAD {
            let mut answer = plain(StatusCode::METHOD_NOT_ALLOWED, "GET and HEAD only.");
            let allow = header::HeaderValue::from_static("GET, HEAD");
            answer.headers_mut().insert(header::ALLOW, allow);
            return answer;
        }
        let answered = match path {
            "/" => page(),
            "/metrics" => self.metrics(text(header::ACCEPT).unwrap_or_default()),
            "/healthz" => self.health(),
            _ => self.json(),
        };
        answered.unwrap_or_else(|error| {
            debug!("metrics: {error:#}");
            plain(StatusCode::INTERNAL_SERVER_ERROR, &format!("{error:#}"))
        })
    }

    /// The figures of now, or of not long ago.
    fn seen(&self) -> Result<Seen> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        match &*seen {
            Some(seen) if Instant::now() < seen.fresh_until => Ok(seen.clone()),
            _ => {
                let begun = Instant::now();
                let view = Arc::new((self.look)()?);
                let process = self.process.figures().context("/proc/self")?;
                let now = Instant::now();
                let fresh = Seen {
                    fresh_until: now + VIEW_AGE.max((now - begun) * LOOK_SHARE),
                    view,
                    process,
                };
                Ok(seen.insert(fresh).clone())
            }
        }
    }

    fn metrics(&self, accept: &str) -> Result<Answer> {
        let seen = self.seen()?;
        let format = Format::negotiate(accept);
        let text = render(&seen.view.status, &seen.process, format);
        let mut answer = answer(StatusCode::OK, format.content_type(), text);
        let vary = header::HeaderValue::from_static("Accept");
        answer.headers_mut().insert(header::VARY, vary);
        Ok(answer)
    }

    /// That there is an answer says that the agent's loop runs.
    fn health(&self) -> Result<Answer> {
        let seen = self.seen()?;
        Ok(match seen.view.status.unhealthy() {
            Some(why) => plain(StatusCode::SERVICE_UNAVAILABLE, &why),
            None => plain(StatusCode::OK, "ok"),
        })
    }

    fn json(&self) -> Result<Answer> {
        let json = serde_json::to_string(&*self.seen()?.view)?;
        Ok(answer(StatusCode::OK, "application/json", json))
    }
}

/// The page. Its script asks for all that it shows.
fn page() -> Result<Answer> {
    let nonce = format!("{:016x}{:016x}", getrandom::u64()?, getrandom::u64()?);
    let html = PAGE.replace(NONCE, &nonce);
    let html = html.replace(VOCABULARY, &vocabulary());
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

/// The keys and labels of what is counted, as the page's script reads them.
fn vocabulary() -> String {
    fn words<T: Counted>() -> Vec<[&'static str; 2]> {
        T::ALL
            .iter()
            .map(|word| [word.key(), word.label()])
            .collect()
    }
    json!({
        "syn": words::<Verdict>(),
        "answers": words::<Kind>(),
        "ended": words::<Outcome>(),
        "refused": words::<Refusal>(),
        "talkers": words::<Talker>(),
        "counters": words::<Counter>(),
        "pulls": words::<Pull>(),
    })
    .to_string()
}

fn plain(status: StatusCode, text: &str) -> Answer {
    let text = format!("{text}\n");
    answer(status, "text/plain; charset=utf-8", text)
}

fn answer(status: StatusCode, content_type: &'static str, body: String) -> Answer {
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

/// Whether a `Host` field leads here from everywhere. One that is missing is
/// HTTP/1.0's, which browsers do not speak.
fn names_this_host(host: Option<&str>) -> bool {
    let Some(host) = host else {
        return true;
    };
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|octet| octet.is_ascii_digit()) => name,
        _ => host,
    };
    let literal = name
        .strip_prefix('[')
        .and_then(|name| name.strip_suffix(']'));
    name.eq_ignore_ascii_case("localhost") || literal.unwrap_or(name).parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn desk(guarded: &[&str]) -> Desk {
        let status = Status {
            guarded: guarded.iter().map(|&pair| pair.to_owned()).collect(),
            ..Status::default()
        };
        Desk {
            look: Box::new(move || {
                Ok(View {
                    status: status.clone(),
                    history: History::default(),
                })
            }),
            process: Arc::new(Process::open().unwrap()),
            seen: Mutex::new(None),
            loopback: true,
        }
    }

    fn ask(desk: &Desk, method: &str, path: &str, host: &str) -> u16 {
        let request = Request::builder().method(method).uri(path);
        let request = request.header(header::HOST, host).body(()).unwrap();
        desk.answer(&request).status().as_u16()
    }

    #[rstest]
    #[case("GET", "/", 200)]
    #[case("HEAD", "/metrics", 200)]
    #[case("GET", "/metrics?name=x", 200)]
    #[case("GET", "/healthz", 200)]
    #[case("GET", "/status.json", 200)]
    #[case("POST", "/metrics", 405)]
    #[case("OPTIONS", "/", 405)]
    #[case("GET", "/metrics/", 404)]
    #[case("DELETE", "/../etc/passwd", 404)]
    fn paths_and_methods(#[case] method: &str, #[case] path: &str, #[case] code: u16) {
        let desk = desk(&["192.0.2.7:25"]);
        assert_eq!(ask(&desk, method, path, "localhost:9521"), code);
    }

    #[test]
    fn who_listens_nowhere_is_not_well() {
        assert_eq!(ask(&desk(&[]), "GET", "/healthz", "[::1]:9521"), 503);
    }

    #[rstest]
    #[case("127.0.0.1:9521", 200)]
    #[case("127.0.0.1", 200)]
    #[case("[::1]:9521", 200)]
    #[case("[::1]", 200)]
    #[case("LOCALHOST", 200)]
    #[case("localhost:", 200)]
    #[case("attacker.example:9521", 421)]
    #[case("localhost.attacker.example", 421)]
    #[case("127.0.0.1.attacker.example:80", 421)]
    #[case("", 421)]
    fn hosts(#[case] host: &str, #[case] code: u16) {
        let mut desk = desk(&["192.0.2.7:25"]);
        assert_eq!(ask(&desk, "GET", "/status.json", host), code);
        desk.loopback = false;
        assert_eq!(ask(&desk, "GET", "/status.json", host), 200);
    }

    #[test]
    fn clients_share_a_look() {
        use std::sync::atomic::{AtomicU32, Ordering};
        static LOOKS: AtomicU32 = AtomicU32::new(0);
        let mut desk = desk(&["192.0.2.7:25"]);
        let look = desk.look;
        desk.look = Box::new(move || {
            LOOKS.fetch_add(1, Ordering::Relaxed);
            look()
        });
        for path in ["/metrics", "/status.json", "/healthz", "/metrics"] {
            assert_eq!(ask(&desk, "GET", path, "localhost"), 200);
        }
        desk.seen.lock().unwrap().as_mut().unwrap().fresh_until = Instant::now();
        assert_eq!(ask(&desk, "GET", "/metrics", "localhost"), 200);
        assert_eq!(LOOKS.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn a_failure_is_told() {
        let mut desk = desk(&[]);
        desk.look = Box::new(|| anyhow::bail!("the map is gone"));
        assert_eq!(ask(&desk, "GET", "/metrics", "localhost"), 500);
        assert_eq!(ask(&desk, "GET", "/", "localhost"), 200);
    }

    #[test]
    fn the_page_has_a_nonce_of_its_own_and_nothing_inline_without() {
        let nonce_of = |answer: &Answer| {
            let policy = answer.headers()[header::CONTENT_SECURITY_POLICY].to_str();
            let (_, rest) = policy.unwrap().split_once("script-src 'nonce-").unwrap();
            rest.split_once('\'').unwrap().0.to_owned()
        };
        let (first, second) = (page().unwrap(), page().unwrap());
        assert_ne!(nonce_of(&first), nonce_of(&second));
        assert_eq!(nonce_of(&first).len(), 32);
        let of = |tag: &str| PAGE.matches(tag).count();
        assert_eq!(PAGE.matches(NONCE).count(), 2);
        assert_eq!(PAGE.matches(VOCABULARY).count(), 1);
        assert_eq!(
            of("<script nonce=\"NONCE\">") + of("<style nonce=\"NONCE\">"),
            2
        );
        assert_eq!(of("<script") + of("<style"), 2);
        // Values go into the page as text, never as markup.
        for unsafe_way in [
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            " style=",
            " onclick=",
            "http:",
            "https:",
        ] {
            let found = PAGE.replace("http://www.w3.org/2000/svg", "");
            assert!(!found.contains(unsafe_way), "{unsafe_way}");
        }
    }
}
