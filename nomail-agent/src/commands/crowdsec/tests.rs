//! The thread against an API on the loopback address.

use std::{
    io::{Read as _, Write as _},
    net::TcpListener,
};

use rstest::rstest;

use super::*;

/// An API that gives one answer to each of so many requests, and what it was asked.
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
            // Who has heard enough may be gone.
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
    std::fs::write(file.path(), "s3cret").unwrap();
    Subscription {
        url,
        key: ApiKey::read(file.path()).unwrap(),
        key_file: "/k".to_owned(),
        interval: Duration::from_millis(10),
    }
}

fn pull_once(answer: Vec<u8>) -> Result<Answer, PullError> {
    let (url, serving) = api(vec![answer]);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let (_orders, mut ordered) = watch::channel(());
    let answer = client::pull(&runtime, &mut ordered, &subscription(url), true);
    serving.join().unwrap();
    answer
}

#[test]
fn the_request_is_what_the_api_wants() {
    let (url, serving) = api(vec![list(&["192.0.2.7"], &[]), list(&[], &["192.0.2.7"])]);
    let mut crowdsec = Crowdsec::start(subscription(url), || ()).unwrap();
    let prefix: IpNet = "192.0.2.7/32".parse().unwrap();
    let change = crowdsec.changes.blocking_recv().unwrap();
    assert_eq!((change.ban, change.unban), (vec![prefix], vec![]));
    let change = crowdsec.changes.blocking_recv().unwrap();
    assert_eq!((change.ban, change.unban), (vec![], vec![prefix]));
    let asked = serving.join().unwrap();
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
}

/// After a failure the whole list is asked for, and what was in force stays until
/// it is there.
#[test]
fn a_failure_keeps_what_is_in_force() {
    let (url, serving) = api(vec![
        list(&["192.0.2.7", "192.0.2.8"], &[]),
        b"HTTP/1.1 500 Internal Server Error\r\n\r\n".to_vec(),
        list(&["192.0.2.8"], &[]),
    ]);
    let mut crowdsec = Crowdsec::start(subscription(url), || ()).unwrap();
    let change = crowdsec.changes.blocking_recv().unwrap();
    assert_eq!((change.ban.len(), change.unban.len()), (2, 0));
    let change = crowdsec.changes.blocking_recv().unwrap();
    assert_eq!(change.ban, []);
    assert_eq!(change.unban, ["192.0.2.7/32".parse().unwrap()]);
    let asked = serving.join().unwrap();
    let startup: Vec<_> = asked
        .iter()
        .map(|asked| asked.contains("startup=true"))
        .collect();
    assert_eq!(startup, [true, false, true]);
    let seen = crowdsec.watch().snapshot();
    // The API has ended since.
    assert!(
        seen.decisions == 1 && seen.pulls[Pull::Failed] >= 1,
        "{seen:?}"
    );
}

#[test]
fn nobody_has_no_decisions() {
    let (url, serving) = api(vec![list(&["192.0.2.7"], &[])]);
    let mut subscribed = subscription(url);
    subscribed.interval = Duration::from_secs(3600);
    let mut crowdsec = Crowdsec::start(subscribed.clone(), || ()).unwrap();
    assert_eq!(crowdsec.changes.blocking_recv().unwrap().ban.len(), 1);
    serving.join().unwrap();
    crowdsec.subscribe(Some(subscribed));
    crowdsec.subscribe(None);
    assert_eq!(crowdsec.changes.blocking_recv().unwrap().unban.len(), 1);
    assert_eq!(crowdsec.watch().snapshot().url, None);
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
fn what_is_no_answer_is_told(#[case] answer: Vec<u8>, #[case] expected: &str) {
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
fn changes_come_in_pieces() {
    let prefixes = |count: u32| {
        let addresses = (0..count).map(|number| std::net::Ipv4Addr::from(0xcb00_7100 + number));
        addresses.map(|address| IpNet::from(std::net::IpAddr::V4(address)))
    };
    let change = Change {
        ban: prefixes(600).collect(),
        unban: prefixes(1).collect(),
    };
    let sizes: Vec<_> = change
        .pieces()
        .map(|piece| (piece.unban.len(), piece.ban.len()))
        .collect();
    assert_eq!(sizes, [(1, 0), (0, 256), (0, 256), (0, 88)]);
    assert_eq!(Change::default().pieces().count(), 0);
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
