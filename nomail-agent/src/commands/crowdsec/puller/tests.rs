//! The loop against an API on the loopback address.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpListener,
    thread,
};

use ipnet::IpNet;
use rstest::rstest;

use super::{
    super::{key::ApiKey, stream::StreamAnswer},
    *,
};
use crate::{
    config,
    status::{DENY_FILE, STATUS_FILE},
};

/// Longest wait of a test.
const WITHIN: Duration = Duration::from_secs(10);

/// An API that gives one answer to each request, and what it was asked.
fn api(answers: Vec<Vec<u8>>) -> (config::ApiUrl, thread::JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let serving = thread::spawn(move || {
        let serve = |answer: Vec<u8>| {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = Vec::new();
            let mut piece = [0; 1024];
            while !request.ends_with(b"\r\n\r\n") {
                let read = stream.read(&mut piece).unwrap();
                request.extend(&piece[..read]);
            }
            // The client may be gone.
            let _ = stream.write_all(&answer);
            String::from_utf8(request).unwrap()
        };
        answers.into_iter().map(serve).collect()
    });
    (url.parse().unwrap(), serving)
}

fn ok(body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}").into_bytes()
}

fn list(new: &[&str], deleted: &[&str]) -> Vec<u8> {
    let decisions = |values: &[&str]| {
        let decisions = values.iter().map(|value| {
            serde_json::json!({
                "duration": "1h", "id": 1, "origin": "cscli", "scenario": "x",
                "scope": "Ip", "type": "ban", "value": value,
            })
        });
        decisions.collect::<Vec<_>>()
    };
    ok(&serde_json::json!({"new": decisions(new), "deleted": decisions(deleted)}).to_string())
}

fn subscription(url: config::ApiUrl) -> Subscription {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), "s3cret").unwrap();
    Subscription {
        url,
        key: ApiKey::read(file.path()).unwrap(),
        key_file: "/k".to_owned(),
        interval: Duration::from_millis(10),
    }
}

fn runtime() -> Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().unwrap()
}

/// The loop on a thread, and the directory that it writes to.
struct Running {
    orders: watch::Sender<Option<Subscription>>,
    directory: tempfile::TempDir,
    thread: thread::JoinHandle<()>,
}

impl Running {
    fn start(subscription: Subscription) -> Self {
        let (orders, ordered) = watch::channel(Some(subscription));
        let directory = tempfile::tempdir().unwrap();
        let handover = Handover::new(directory.path());
        let thread = thread::spawn(move || Puller::new(runtime(), ordered, handover).run());
        Self {
            orders,
            directory,
            thread,
        }
    }

    fn file(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.directory.path().join(name)).ok()
    }

    /// What is banned; None before the first pull.
    fn banned(&self) -> Option<Vec<IpNet>> {
        let text = self.file(DENY_FILE)?;
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        Some(lines.map(|line| line.parse().unwrap()).collect())
    }

    #[track_caller]
    fn until(&self, expected: &[&str]) {
        let expected = expected.iter().map(|prefix| prefix.parse().unwrap());
        let expected: Vec<IpNet> = expected.collect();
        let begun = Instant::now();
        while self.banned().as_ref() != Some(&expected) {
            assert!(begun.elapsed() < WITHIN, "{:?}", self.banned());
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits for figures that are as `wanted`.
    #[track_caller]
    fn status(&self, wanted: impl Fn(&CrowdsecStatus) -> bool) {
        let begun = Instant::now();
        loop {
            let text = self.file(STATUS_FILE);
            let status = text.map(|text| serde_json::from_str(&text).unwrap());
            if status.as_ref().is_some_and(&wanted) {
                return;
            }
            assert!(begun.elapsed() < WITHIN, "{status:?}");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Has it end, and gives what is left in the directory.
    fn stop(self) -> usize {
        self.orders.send_replace(None);
        self.thread.join().unwrap();
        fs::read_dir(self.directory.path()).unwrap().count()
    }
}

fn pull_once(answer: Vec<u8>) -> Result<StreamAnswer, PullError> {
    let (url, serving) = api(vec![answer]);
    let (_orders, mut ordered) = watch::channel(());
    let answer = client::pull(&runtime(), &mut ordered, &subscription(url), true);
    serving.join().unwrap();
    answer
}

#[test]
fn the_request_is_what_the_api_wants() {
    let (url, serving) = api(vec![list(&["192.0.2.7"], &[]), list(&[], &["192.0.2.7"])]);
    let running = Running::start(subscription(url));
    let asked = serving.join().unwrap();
    running.until(&[]);
    assert!(asked[0].starts_with("GET /v1/decisions/stream?startup=true HTTP/1.1\r\n"));
    assert!(asked[1].starts_with("GET /v1/decisions/stream?startup=false HTTP/1.1\r\n"));
    for request in asked {
        let request = request.to_ascii_lowercase();
        assert!(request.contains("\r\nx-api-key: s3cret\r\n"), "{request}");
        assert!(
            request.contains(&format!("\r\nhost: {}\r\n", url.address())),
            "{request}"
        );
    }
    assert!(!running.file(STATUS_FILE).unwrap().contains("s3cret"));
    assert_eq!(running.stop(), 0);
}

/// After a failure the whole list is asked for, and what was in force stays until
/// it is there.
#[test]
fn a_failure_keeps_what_is_in_force() {
    let mut slow = subscription(config_of_nobody());
    slow.interval = Duration::from_secs(1);
    let (url, serving) = api(vec![
        list(&["192.0.2.7", "192.0.2.8"], &[]),
        b"HTTP/1.1 500 Internal Server Error\r\n\r\n".to_vec(),
        list(&["192.0.2.8"], &[]),
    ]);
    slow.url = url;
    let running = Running::start(slow);
    running.until(&["192.0.2.7/32", "192.0.2.8/32"]);
    running.status(|seen| seen.pulls[Pull::Failed] > 0);
    running.until(&["192.0.2.7/32", "192.0.2.8/32"]);
    running.until(&["192.0.2.8/32"]);
    let asked = serving.join().unwrap();
    let startup: Vec<_> = asked
        .iter()
        .map(|asked| asked.contains("startup=true"))
        .collect();
    assert_eq!(startup, [true, false, true]);
    // The API has ended since.
    running.status(|seen| seen.running && seen.decisions == 1 && seen.pulls[Pull::Failed] >= 2);
    assert_eq!(running.stop(), 0);
}

/// No API listens there.
fn config_of_nobody() -> config::ApiUrl {
    "http://127.0.0.1:1".parse().unwrap()
}

#[test]
fn without_an_api_there_is_no_list_and_an_order_is_followed_at_once() {
    let mut nobody = subscription(config_of_nobody());
    nobody.interval = Duration::from_secs(3600);
    let running = Running::start(nobody);
    running.status(|seen| !seen.ok && seen.error.contains("cannot be reached"));
    assert_eq!(running.banned(), None);

    let (url, serving) = api(vec![list(&["192.0.2.7"], &[])]);
    let mut other = subscription(url);
    other.interval = Duration::from_secs(3600);
    running.orders.send_replace(Some(other));
    running.until(&["192.0.2.7/32"]);
    serving.join().unwrap();
    running.status(|seen| seen.url == url.to_string() && seen.ok);
    // Another one that does not answer: what is banned stays.
    running
        .orders
        .send_replace(Some(subscription(config_of_nobody())));
    running.status(|seen| !seen.ok && !seen.error.is_empty());
    running.until(&["192.0.2.7/32"]);
    assert_eq!(running.stop(), 0);
}

#[rstest]
#[case::no_http(b"hello\r\n\r\n".to_vec(), "the answer is no HTTP")]
#[case::nothing(Vec::new(), "the answer is no HTTP, or incomplete")]
#[case::key(b"HTTP/1.1 403 Forbidden\r\n\r\n".to_vec(), "the key is refused (403")]
#[case::elsewhere(b"HTTP/1.1 302 Found\r\nLocation: http://192.0.2.1/\r\n\r\n".to_vec(), "302")]
#[case::no_json(ok("<html>"), "not a list of decisions (line 1, column 1)")]
#[case::other_json(ok("{\"message\": \"hello\"}"), "not a list of decisions")]
#[case::cut(ok("{\"new\": [{\"value\": \"\u{1b}[31m"), "not a list of decisions")]
#[case::short(
    b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"new\":null".to_vec(),
    "incomplete"
)]
#[case::long_head(
    [b"HTTP/1.1 200 OK\r\nX: ".to_vec(), vec![b'x'; 1 << 20]].concat(),
    "the answer is no HTTP"
)]
#[case::deep(ok(&format!("{{\"x\":{}", "[".repeat(1 << 19))), "not a list of decisions")]
fn what_is_no_answer_is_an_error(#[case] answer: Vec<u8>, #[case] expected: &str) {
    let error = pull_once(answer).err().unwrap();
    let text = format!("{error}{}", error.remedy("/k"));
    assert!(text.contains(expected), "{text}");
    assert!(
        !text.contains(['\n', '\u{1b}']) && !text.contains("s3cret"),
        "{text}"
    );
    assert!(text.len() < 200, "{text}");
}

#[test]
fn an_answer_has_a_bound() {
    let body = format!(
        "{{\"new\": null, \"more\": \"{}",
        "x".repeat(client::ANSWER_MAX)
    );
    let error = pull_once(ok(&body)).err().unwrap();
    assert!(matches!(error, PullError::TooLong), "{error}");
}

#[test]
fn tries_become_rare_and_are_not_at_once() {
    let secs = Duration::from_secs;
    assert_eq!(backoff(secs(5), 1, 1.0), secs(5));
    assert_eq!(backoff(secs(5), 1, 0.0), secs(5) / 2);
    assert_eq!(backoff(secs(5), 3, 1.0), secs(20));
    for failures in [5, 100, u32::MAX] {
        assert_eq!(backoff(secs(5), failures, 1.0), BACKOFF_MAX);
        assert_eq!(backoff(secs(3600), failures, 1.0), secs(3600));
    }
    let jitter = jitter();
    assert!((0.0..=1.0).contains(&jitter));
}
