use rstest::rstest;

use super::{
    page::{HTML, NONCE, VOCABULARY},
    *,
};
use crate::status::{Status, http::History};

fn state(guarded: &[&str]) -> HttpState {
    let status = Status {
        guarded: guarded.iter().map(|&pair| pair.to_owned()).collect(),
        ..Status::default()
    };
    HttpState {
        assemble: Box::new(move || {
            let view = View::new(status.clone(), History::default());
            async { Ok(view) }.boxed()
        }),
        process: Arc::new(Process::open().unwrap()),
        cached: Mutex::new(None),
        loopback: true,
    }
}

fn ask(state: &HttpState, method: &str, path: &str, host: &str) -> u16 {
    let request = Request::builder().method(method).uri(path);
    let request = request.header(header::HOST, host).body(()).unwrap();
    let answer = state.answer(request.into_parts().0).now_or_never();
    answer.unwrap().status().as_u16()
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
    let state = state(&["192.0.2.7:25"]);
    assert_eq!(ask(&state, method, path, "localhost:9521"), code);
}

#[test]
fn an_agent_that_listens_nowhere_is_unhealthy() {
    assert_eq!(ask(&state(&[]), "GET", "/healthz", "[::1]:9521"), 503);
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
    let mut state = state(&["192.0.2.7:25"]);
    assert_eq!(ask(&state, "GET", "/status.json", host), code);
    state.loopback = false;
    assert_eq!(ask(&state, "GET", "/status.json", host), 200);
}

#[test]
fn clients_share_a_status() {
    use std::sync::atomic::{AtomicU32, Ordering};
    static ASSEMBLED: AtomicU32 = AtomicU32::new(0);
    let mut state = state(&["192.0.2.7:25"]);
    let assemble = state.assemble;
    state.assemble = Box::new(move || {
        ASSEMBLED.fetch_add(1, Ordering::Relaxed);
        assemble()
    });
    for path in ["/metrics", "/status.json", "/healthz", "/metrics"] {
        assert_eq!(ask(&state, "GET", path, "localhost"), 200);
    }
    state.cached.get_mut().as_mut().unwrap().fresh_until = Instant::now();
    assert_eq!(ask(&state, "GET", "/metrics", "localhost"), 200);
    assert_eq!(ASSEMBLED.load(Ordering::Relaxed), 2);
}

#[test]
fn a_failure_is_a_500() {
    let mut state = state(&[]);
    state.assemble = Box::new(|| async { anyhow::bail!("the map is gone") }.boxed());
    assert_eq!(ask(&state, "GET", "/metrics", "localhost"), 500);
    assert_eq!(ask(&state, "GET", "/", "localhost"), 200);
}

#[test]
fn the_page_has_a_nonce_of_its_own_and_nothing_inline_without() {
    let nonce_of = |answer: &HttpResponse| {
        let policy = answer.headers()[header::CONTENT_SECURITY_POLICY].to_str();
        let (_, rest) = policy.unwrap().split_once("script-src 'nonce-").unwrap();
        rest.split_once('\'').unwrap().0.to_owned()
    };
    let (first, second) = (page().unwrap(), page().unwrap());
    assert_ne!(nonce_of(&first), nonce_of(&second));
    assert_eq!(nonce_of(&first).len(), 32);
    let of = |tag: &str| HTML.matches(tag).count();
    assert_eq!(HTML.matches(NONCE).count(), 2);
    assert_eq!(HTML.matches(VOCABULARY).count(), 1);
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
        let found = HTML.replace("http://www.w3.org/2000/svg", "");
        assert!(!found.contains(unsafe_way), "{unsafe_way}");
    }
}
