//! What the agent shows by HTTP: figures that are right, whoever asks, and a
//! page that a browser shows.

#![allow(clippy::unwrap_used, reason = "helpers of tests, too")]

use std::{
    collections::BTreeSet,
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use nomail_tests::{
    agent::{self, Agent},
    client::converse,
    flood::{answerable, flooded, frames, is_served, strangers, until_answered},
    frames::FrameSender,
    http::{families, get, samples, send},
    lab::{CLIENT_INTERFACE, HOST_INTERFACE, HOST_IPV4, Lab},
    poll::{DEADLINE, until},
    repository::repository,
    root::Root,
};
use serde_json::Value;
use tempfile::TempDir;

/// Where the agent is asked by default.
const METRICS: &str = "127.0.0.1:9521";
const ARGUMENTS: &[&str] = &["--iface", HOST_INTERFACE, "--refuse-at", "rcpt"];

/// What a client of SMTP hears that says all of this at once.
fn dialog(lab: &Lab, says: &str) -> String {
    let talk = || converse("192.0.2.100", HOST_IPV4, says).unwrap();
    lab.client.within(talk)
}

fn metrics(lab: &Lab) -> String {
    let answer = get(&lab.host, METRICS, "/metrics");
    assert_eq!(answer.code, 200, "{answer:?}");
    answer.body
}

fn sample(lab: &Lab, series: &str) -> f64 {
    let samples = samples(&metrics(lab));
    *samples
        .get(series)
        .unwrap_or_else(|| panic!("no {series} in {samples:#?}"))
}

fn number(status: &Value, pointer: &str) -> f64 {
    status.pointer(pointer).and_then(Value::as_f64).unwrap()
}

#[test]
fn figures_are_those_of_the_status_and_of_what_was_sent() {
    let lab = Lab::new();
    let _program = answerable(&lab.client, CLIENT_INTERFACE);
    let agent = Agent::start(&lab.host, ARGUMENTS);
    const DIALOGS: u32 = 5;
    for _ in 0..DIALOGS {
        let says = "EHLO client.example\r\nMAIL FROM:<a@client.example>\r\n\
                    RCPT TO:<user@elsewhere.example>\r\nbogus\r\nQUIT\r\n";
        let heard = dialog(&lab, says);
        assert!(heard.contains("\r\n521 5.3.2 "), "{heard}");
    }
    assert!(dialog(&lab, "GET / HTTP/1.1\r\n\r\n").contains("521 "));
    // A burst of 20, and no more.
    lab.client.within(|| {
        let sender = FrameSender::open(CLIENT_INTERFACE);
        let one = frames("192.0.2.1:25", |_| "192.0.2.111".to_owned());
        one.iter().take(50).for_each(|frame| sender.send(frame));
    });
    // The figures are not always those of now.
    let (text, status) = until("every connection and SYN is told", || {
        let (text, status) = (metrics(&lab), agent.status());
        let found = samples(&text);
        let count = found["nomail_dialog_duration_seconds_count"];
        let syn = found
            .iter()
            .filter(|(series, _)| series.starts_with("nomail_syn_total"));
        let syn: f64 = syn.map(|(_, count)| count).sum();
        let all = count == f64::from(DIALOGS + 1) && syn == number(&status, "/syn/total");
        all.then_some((text, status))
    });
    let found = samples(&text);
    let of = |series: &str| {
        let sample = found.get(series);
        *sample.unwrap_or_else(|| panic!("no {series} in\n{text}"))
    };
    for verdict in [
        "passed",
        "limited_source",
        "limited_prefix",
        "denied",
        "flood",
        "malformed",
    ] {
        let series = format!("nomail_syn_total{{iface=\"host0\",verdict=\"{verdict}\"}}");
        let told = number(&status, &format!("/syn/{verdict}"));
        assert_eq!(of(&series), told, "{verdict}");
        let on_interface = format!("/interfaces/0/syn/{verdict}");
        assert_eq!(number(&status, &on_interface), told, "{verdict}");
    }
    assert!(of("nomail_syn_total{iface=\"host0\",verdict=\"limited_source\"}") >= 29.0);
    for kind in ["challenge", "proven", "unanswerable", "cookie", "stateless"] {
        let series = format!("nomail_answers_total{{iface=\"host0\",kind=\"{kind}\"}}");
        assert_eq!(of(&series), number(&status, &format!("/answers/{kind}")));
    }
    for (outcome, count) in [
        ("quit", DIALOGS),
        ("closed", 1),
        ("timed_out", 0),
        ("closed_by_peer", 0),
        ("shed", 0),
    ] {
        let series = format!("nomail_connections_total{{outcome=\"{outcome}\"}}");
        assert_eq!(of(&series), f64::from(count), "{outcome}");
        assert_eq!(
            of(&series),
            number(&status, &format!("/connections/{outcome}"))
        );
    }
    for (verb, count) in [
        ("ehlo", DIALOGS),
        ("mail", DIALOGS),
        ("rcpt", DIALOGS),
        ("quit", DIALOGS),
        // What speaks HTTP gives no command.
        ("other", DIALOGS),
        ("helo", 0),
    ] {
        let series = format!("nomail_commands_total{{verb=\"{verb}\"}}");
        assert_eq!(of(&series), f64::from(count), "{verb}");
    }
    for (series, count) in [
        ("nomail_connections_accepted_total", DIALOGS + 1),
        ("nomail_connections_active", 0),
        ("nomail_refusals_total{at=\"rcpt\"}", DIALOGS),
        ("nomail_talkers_total{protocol=\"http\"}", 1),
        ("nomail_recipients_elsewhere_total", DIALOGS),
        (
            "nomail_dialog_duration_seconds_bucket{le=\"+Inf\"}",
            DIALOGS + 1,
        ),
        (
            "nomail_dialog_duration_seconds_bucket{le=\"1800.0\"}",
            DIALOGS + 1,
        ),
        ("nomail_flood_active", 0),
        ("nomail_observe", 0),
        ("nomail_serving{by=\"listener\"}", 1),
        ("nomail_serving{by=\"xdp\"}", 0),
        ("nomail_takeovers_total", 0),
        ("nomail_greetings_repeated_total", 0),
        ("nomail_config_last_reload_successful", 1),
        ("nomail_xdp_mode{iface=\"host0\",mode=\"native\"}", 1),
        ("nomail_xdp_mode{iface=\"host0\",mode=\"generic\"}", 0),
        ("nomail_xdp_mode{iface=\"host0\",mode=\"off\"}", 0),
        ("nomail_sources_max", 65_536),
    ] {
        assert_eq!(of(series), f64::from(count), "{series}");
    }
    assert_eq!(
        of("nomail_sources_tracked"),
        number(&status, "/sources_tracked")
    );
    let lasted = of("nomail_dialog_duration_seconds_sum");
    assert!(lasted > 0.0 && lasted < 60.0, "{lasted}");

    let pid = agent.pid();
    let open = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count() as f64;
    // One for who asks.
    let told = of("process_open_fds");
    assert!((open..=open + 1.0).contains(&told), "{told} of {open}");
    let resident: f64 = agent.process("VmRSS").parse().unwrap();
    let told = of("process_resident_memory_bytes") / 1024.0;
    assert!((told / resident - 1.0).abs() < 0.2, "{told} of {resident}");
    let now = std::time::SystemTime::now();
    let now = now.duration_since(std::time::UNIX_EPOCH).unwrap();
    let age = now.as_secs_f64() - of("process_start_time_seconds");
    assert!((0.0..120.0).contains(&age), "{age}");
    assert!(of("process_cpu_seconds_total") > 0.0);
    assert!(found.keys().any(|series| {
        let info = "nomail_build_info{version=\"0.1.0\",commit=\"";
        series.starts_with(info) && !series.contains("commit=\"\"")
    }));

    let json = get(&lab.host, METRICS, "/status.json");
    let json: Value = serde_json::from_str(&json.body).unwrap();
    for pointer in ["/syn/total", "/connections/quit", "/commands/ehlo"] {
        assert_eq!(json.pointer(pointer), status.pointer(pointer), "{pointer}");
    }
    until("the burst is in the history", || {
        let json = get(&lab.host, METRICS, "/status.json");
        let json: Value = serde_json::from_str(&json.body).unwrap();
        let syn = json["history"]["syn"].as_array().unwrap();
        assert!(syn.len() <= 300, "{json:#}");
        let most = syn.iter().filter_map(Value::as_u64).max();
        most.filter(|most| (5..=100).contains(most))
    });
    agent.stop();
}

/// The documents name what there is, and the reference all of it.
#[test]
fn documents_name_what_there_is() {
    let lab = Lab::new();
    // Some are only there with `[crowdsec]`, also when nobody answers there.
    let settings = Settings::new("");
    let key = Path::new(&settings.path()).with_file_name("key");
    fs::write(&key, "k3y").unwrap();
    let decisions = key.with_file_name("decisions");
    settings.write(&format!(
        "[crowdsec]\napi_key_file = {key:?}\nrun_dir = {decisions:?}\n"
    ));
    let agent = Agent::start(&lab.host, &["--config", &settings.path()]);
    let text = metrics(&lab);
    let there = families(&text);
    let repository = repository();
    let read = |path: &str| fs::read_to_string(repository.join(path)).unwrap();

    let reference = read("docs/metrics.md");
    let listed: Vec<_> = reference
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once("` |"))
        .filter_map(|(name, rest)| {
            let kind = rest.trim_start().split(' ').next()?;
            ["counter", "gauge", "histogram"]
                .contains(&kind)
                .then(|| (name.to_owned(), kind))
        })
        .collect();
    let names: BTreeSet<_> = listed.iter().map(|(name, _)| name.clone()).collect();
    assert_eq!(names, there);
    assert_eq!(names.len(), listed.len(), "each once");
    for (name, kind) in listed {
        let line = format!("# TYPE {name} {kind}");
        assert!(text.lines().any(|found| found == line), "{line}");
    }

    let series: BTreeSet<_> = samples(&text)
        .into_keys()
        .map(|series| series.split('{').next().unwrap().to_owned())
        .collect();
    for path in [
        "packaging/grafana/nomail.json",
        "packaging/prometheus/nomail.rules.yml",
    ] {
        let used = names_in(&read(path));
        assert!(used.len() >= 5, "{path}: {used:?}");
        let unknown: Vec<_> = used.difference(&series).collect();
        assert!(unknown.is_empty(), "{path}: {unknown:?} of {series:?}");
    }
    agent.stop();
}

/// What looks like one of the agent's series.
fn names_in(text: &str) -> BTreeSet<String> {
    let word = |character: char| !(character.is_ascii_alphanumeric() || character == '_');
    text.split(word)
        .filter(|word| word.starts_with("nomail_") || word.starts_with("process_"))
        .map(str::to_owned)
        .collect()
}

#[test]
fn each_alert_says_what_it_means_and_where_to_read_on() {
    let path = repository().join("packaging/prometheus");
    let rules = fs::read_to_string(path.join("nomail.rules.yml")).unwrap();
    let alerts: Vec<_> = rules.split("- alert: ").skip(1).collect();
    assert_eq!(alerts.len(), 12);
    for alert in alerts {
        let name = alert.lines().next().unwrap();
        let runbook = format!("runbook: docs/runbook.md#{}", name.to_ascii_lowercase());
        for part in [
            "expr: ",
            "severity: ",
            "summary: ",
            "description: ",
            &runbook,
        ] {
            assert!(alert.contains(part), "{name}: {part}");
        }
    }
}

#[test]
fn answers_what_was_asked_for_and_nothing_else() {
    let lab = Lab::new();
    let agent = Agent::start(&lab.host, ARGUMENTS);
    let with = |fields: &str| {
        let request = format!("GET /metrics HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n");
        send(&lab.host, METRICS, &request)
    };
    let plain = with("");
    assert!(
        plain
            .head
            .contains("content-type: text/plain; version=0.0.4; charset=utf-8"),
        "{}",
        plain.head
    );
    assert!(plain.head.contains("connection: close"), "{}", plain.head);
    let open = with("Accept: application/openmetrics-text;version=1.0.0,text/plain;q=0.5\r\n");
    assert_eq!(
        (open.code, families(&open.body)),
        (200, families(&plain.body))
    );
    assert!(
        open.head.contains("content-type: text/plain;"),
        "{}",
        open.head
    );

    let head = "HEAD /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let head = send(&lab.host, METRICS, head);
    assert_eq!((head.code, head.body.as_str()), (200, ""));
    let old = send(&lab.host, METRICS, "GET /healthz HTTP/1.0\r\n\r\n");
    assert_eq!((old.code, old.body.as_str()), (200, "ok\n"));
    for (request, code) in [
        ("GET /nothing HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
        (
            "POST /metrics HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\nab",
            405,
        ),
        ("DELETE / HTTP/1.1\r\nHost: localhost\r\n\r\n", 405),
        // A name that somebody else's server gives 127.0.0.1 to.
        (
            "GET /status.json HTTP/1.1\r\nHost: attacker.example\r\n\r\n",
            421,
        ),
        ("EHLO client.example\r\n\r\n", 400),
    ] {
        let answer = send(&lab.host, METRICS, request);
        assert_eq!(answer.code, code, "{request:?}: {answer:?}");
        assert_eq!(
            answer.head.contains("allow: get, head"),
            code == 405,
            "{answer:?}"
        );
    }
    let page = get(&lab.host, METRICS, "/");
    assert_eq!(page.code, 200);
    for field in [
        "content-type: text/html; charset=utf-8",
        "content-security-policy: default-src 'none'; style-src 'nonce-",
        "x-content-type-options: nosniff",
        "cache-control: no-store",
    ] {
        assert!(page.head.contains(field), "{field}: {}", page.head);
    }
    agent.stop();
}

#[test]
fn hostile_clients_take_no_more_than_their_places() {
    let lab = Lab::new();
    let agent = Agent::start(&lab.host, ARGUMENTS);
    let open = || sample(&lab, "process_open_fds");
    let before = open();
    let to: SocketAddr = METRICS.parse().unwrap();
    let connect = || {
        let stream = TcpStream::connect_timeout(&to, DEADLINE).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream
    };
    lab.host.within(|| {
        let mut silent: Vec<_> = (0..60).map(|_| connect()).collect();
        for (n, stream) in silent.iter_mut().enumerate() {
            let part = ["", "GET /metr", "GET / HTTP/1.1\r\nHost: localhost\r\nX-"][n % 3];
            stream.write_all(part.as_bytes()).unwrap();
        }
        // The dialog is not in their way.
        assert!(lab.client.within(|| is_served("192.0.2.100", HOST_IPV4)));
        // A client that asks properly does not wait until those before it are shown
        // out, which takes 2 seconds for each 32 of them.
        let begun = Instant::now();
        let answer = get(&lab.host, METRICS, "/healthz");
        assert_eq!(answer.code, 200);
        let waited = begun.elapsed();
        assert!(waited < Duration::from_millis(1500), "{waited:?}");
        for stream in &mut silent {
            let mut heard = Vec::new();
            // The kernel may say that it was reset: what matters is its end.
            let _ = stream.read_to_end(&mut heard);
        }
    });
    // Who sends an octet at a time has the same time as everybody.
    lab.host.within(|| {
        let mut slow = connect();
        let begun = Instant::now();
        let mut ended = false;
        while begun.elapsed() < Duration::from_secs(8) && !ended {
            ended = slow.write_all(b"G").is_err();
            std::thread::sleep(Duration::from_millis(100));
        }
        assert!(ended, "still served after {:?}", begun.elapsed());
    });
    let long = "x".repeat(20_000);
    for request in [
        format!("GET /{long} HTTP/1.1\r\nHost: localhost\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nHost: localhost\r\nX: {long}\r\n\r\n"),
        format!(
            "GET / HTTP/1.1\r\nHost: localhost\r\n{}\r\n",
            "X: y\r\n".repeat(100)
        ),
    ] {
        lab.host.within(|| {
            let mut stream = connect();
            // It is closed before all is read: perhaps even the answer is lost.
            let _ = stream.write_all(request.as_bytes());
            let mut heard = Vec::new();
            let _ = stream.read_to_end(&mut heard);
            let heard = String::from_utf8_lossy(&heard).into_owned();
            assert!(!heard.starts_with("HTTP/1.1 200"), "{heard}");
        });
    }
    // Who asks and never reads.
    lab.host.within(|| {
        let mut deaf = connect();
        deaf.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
            .unwrap();
        assert_eq!(get(&lab.host, METRICS, "/healthz").code, 200);
    });
    until("all descriptors are closed", || {
        (open() <= before).then_some(())
    });
    assert!(lab.client.within(|| is_served("192.0.2.100", HOST_IPV4)));
    agent.stop();
}

/// Any local user can do that.
#[test]
fn half_open_requests_do_not_blind_prometheus() {
    let lab = Lab::new();
    let agent = Agent::start(&lab.host, ARGUMENTS);
    let to: SocketAddr = METRICS.parse().unwrap();
    lab.host.within(|| {
        let mut held = Vec::new();
        for _ in 0..400 {
            // Those that find the queue full are made again by the kernel, later.
            if let Ok(mut stream) = TcpStream::connect_timeout(&to, Duration::from_millis(100)) {
                let _ = stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: ");
                held.push(stream);
            }
        }
        assert!(held.len() > 100, "{}", held.len());
        for _ in 0..5 {
            let begun = Instant::now();
            assert_eq!(get(&lab.host, METRICS, "/metrics").code, 200);
            let waited = begun.elapsed();
            assert!(waited < Duration::from_secs(3), "{waited:?}");
        }
    });
    agent.stop();
}

/// A port that a local user has taken costs the metrics, until it is free again.
#[test]
fn a_port_that_is_taken_is_tried_again() {
    let lab = Lab::new();
    let taken = lab.host.within(|| TcpListener::bind(METRICS).unwrap());
    let agent = Agent::start(&lab.host, ARGUMENTS);
    assert!(lab.client.within(|| is_served("192.0.2.100", HOST_IPV4)));
    let log = agent.log();
    assert!(
        log.contains("WARN  cannot show metrics on 127.0.0.1:9521: "),
        "{log}"
    );
    assert!(log.contains("trying again every 30 s"), "{log}");
    let status = agent.status();
    assert_eq!(status["metrics"]["listen"], METRICS);
    assert!(
        status["metrics"]["error"]
            .as_str()
            .unwrap()
            .contains("listens there"),
        "{status:#}"
    );
    let text = agent::status(&agent.control(), &[]);
    assert!(text.contains("NOT SHOWN on 127.0.0.1:9521: "), "{text}");
    drop(taken);
    let begun = Instant::now();
    while !agent
        .log()
        .contains("the metrics are now shown on 127.0.0.1:9521")
    {
        assert!(begun.elapsed() < Duration::from_secs(60), "{}", agent.log());
        std::thread::sleep(Duration::from_millis(200));
    }
    assert_eq!(get(&lab.host, METRICS, "/healthz").code, 200);
    assert_eq!(agent.status()["metrics"]["error"], "");
    assert_eq!(agent.log().matches("cannot show metrics").count(), 1);
    agent.stop();
}

struct Settings(TempDir);

impl Settings {
    fn new(text: &str) -> Self {
        let settings = Self(tempfile::tempdir().unwrap());
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(settings.0.path(), mode).unwrap();
        settings.write(text);
        settings
    }

    fn path(&self) -> String {
        self.0
            .path()
            .join("nomail.toml")
            .to_str()
            .unwrap()
            .to_owned()
    }

    fn write(&self, text: &str) {
        fs::write(self.path(), format!("interfaces = [\"host0\"]\n{text}")).unwrap();
    }
}

#[test]
fn reloads_are_told() {
    let lab = Lab::new();
    let settings = Settings::new("");
    let agent = Agent::start(&lab.host, &["--config", &settings.path()]);
    let reloaded = |what: &str, value: f64| {
        agent.signal(Signal::SIGHUP);
        until(what, || {
            let is = sample(&lab, "nomail_config_last_reload_successful");
            (is == value).then_some(())
        });
    };
    let hash = || sample(&lab, "nomail_config_hash");
    let taken_over = || sample(&lab, "nomail_config_last_reload_success_timestamp_seconds");
    let (before, at_start) = (hash(), taken_over());
    assert!(before > 0.0 && before == before.trunc() && before < 2f64.powi(53));
    settings.write("observe = 1");
    reloaded("a reload that failed is told", 0.0);
    assert_eq!((hash(), taken_over()), (before, at_start));
    settings.write("observe = true\n[metrics]\nlisten = \"off\"");
    reloaded("a reload that succeeded is told", 1.0);
    assert!(hash() != before && taken_over() >= at_start);
    assert_eq!(sample(&lab, "nomail_observe"), 1.0);
    let log = agent.log();
    assert!(
        log.contains("a change of metrics.listen needs a restart"),
        "{log}"
    );
    settings.write("");
    agent.signal(Signal::SIGHUP);
    until("the hash is that of the configuration", || {
        (hash() == before).then_some(())
    });
    agent.stop();
}

#[test]
fn listens_where_it_is_told_to_or_nowhere() {
    let lab = Lab::new();
    let connects = |to: &str| {
        let to: SocketAddr = to.parse().unwrap();
        lab.host
            .within(|| TcpStream::connect_timeout(&to, DEADLINE).is_ok())
    };
    let off = Agent::start(&lab.host, &[ARGUMENTS, &["--metrics", "off"]].concat());
    assert!(!connects(METRICS));
    off.stop();

    let settings = Settings::new("[metrics]\nlisten = \"[::1]:9100\"");
    let arguments = ["--config", &settings.path()];
    let other = Agent::start(&lab.host, &arguments);
    assert!(!connects(METRICS));
    assert_eq!(get(&lab.host, "[::1]:9100", "/healthz").code, 200);
    // The second agent finds the place taken, and serves without.
    let arguments = ["--iface", "lo", "--xdp-mode", "off", "--metrics"];
    let second = Agent::start(&lab.host, &[&arguments[..], &["[::1]:9100"]].concat());
    let log = second.log();
    let said = format!(
        "cannot show metrics on [::1]:9100: nomail-agent (pid {}) listens there: stop it, or use \
         --metrics with another address, or with off",
        other.pid()
    );
    assert!(log.contains(&said), "{log}");
    second.stop();
    // As it does where nobody has the address.
    let arguments = [&arguments[..], &["192.0.2.99:9521"]].concat();
    let nowhere = Agent::start(&lab.host, &arguments);
    let said = "cannot show metrics on 192.0.2.99:9521: no interface has that address: use \
                --metrics with one that `ip address` lists, or with off";
    assert!(nowhere.log().contains(said), "{}", nowhere.log());
    nowhere.stop();
    other.stop();

    // Who shows it to others is told so, and names need not be this host's.
    let arguments = [ARGUMENTS, &["--metrics", "192.0.2.1:9521"]].concat();
    let open = Agent::start(&lab.host, &arguments);
    let request = "GET /metrics HTTP/1.1\r\nHost: mailless.example.org:9521\r\n\r\n";
    assert_eq!(send(&lab.client, "192.0.2.1:9521", request).code, 200);
    let log = open.log();
    assert!(
        log.contains("anyone who can reach 192.0.2.1:9521 can read the metrics"),
        "{log}"
    );
    open.stop();

    let arguments = [ARGUMENTS, &["--xdp-mode", "off"]].concat();
    let unguarded = Agent::start(&lab.host, &arguments);
    assert_eq!(
        sample(&lab, "nomail_xdp_mode{iface=\"host0\",mode=\"off\"}"),
        1.0
    );
    unguarded.stop();
}

/// The page as a browser shows it: what it shows, and how, in target/page.png.
#[test]
fn a_browser_shows_the_right_numbers() {
    let root = Root::install("chromium", &["chromium", "fonts-dejavu-core"]);
    let lab = Lab::new();
    let _program = answerable(&lab.client, CLIENT_INTERFACE);
    let arguments = ["--hostname", "mailless.example.org"];
    let agent = Agent::start(&lab.host, &[ARGUMENTS, &arguments].concat());
    for _ in 0..3 {
        for from in ["192.0.2.100", "192.0.2.101", "2001:db8::100"] {
            let to = if from.contains(':') {
                "2001:db8::1"
            } else {
                HOST_IPV4
            };
            assert!(lab.client.within(|| is_served(from, to)));
        }
    }
    for _ in 0..4 {
        let says = "EHLO client.example\r\nMAIL FROM:<a@client.example>\r\n\
                    RCPT TO:<user@mailless.example.org>\r\nQUIT\r\n";
        assert!(dialog(&lab, says).contains("\r\n521 5.3.2 "));
    }
    // Two that are busier than any of the flood.
    lab.client.within(|| {
        let sender = FrameSender::open(CLIENT_INTERFACE);
        for (to, from, count) in [
            ("192.0.2.1:25", "192.0.2.111", 1200),
            ("[2001:db8::1]:25", "2001:db8::111", 1000),
        ] {
            let busy = frames(to, |_| from.to_owned());
            busy.iter().take(count).for_each(|frame| sender.send(frame));
        }
    });
    // Some seconds of a flood for the charts, and some without.
    let strangers = strangers("192.0.2.1:25");
    flooded(&lab.client, CLIENT_INTERFACE, &strangers, || {
        until_answered(&agent);
        std::thread::sleep(Duration::from_secs(3));
    });
    until("the flood is over", || {
        (agent.status()["flood"] == false).then_some(())
    });
    let mut browser = root.start(
        &lab.host,
        r#"
        browse() {
            chromium --headless --no-sandbox --disable-gpu --disable-dev-shm-usage \
                --disable-background-networking --disable-component-update --no-first-run \
                --hide-scrollbars --user-data-dir=/tmp/profile --window-size=900,1000 \
                --virtual-time-budget=1000 "$@" http://127.0.0.1:9521/
        }
        browse --dump-dom > /page.html 2> /page.log
        browse --screenshot=/page.png > /dev/null 2>> /page.log
        browse --window-size=390,844 --screenshot=/phone.png > /dev/null 2>> /page.log
        "#,
    );
    let begun = Instant::now();
    while browser.read("/phone.png").is_empty() && begun.elapsed() < Duration::from_secs(60) {
        std::thread::sleep(Duration::from_millis(100));
    }
    browser.ready();
    let page = browser.read("/page.html");
    let said = browser.read("/page.log");
    assert!(
        !said.contains("Content Security Policy") && !said.contains("Uncaught"),
        "{said}"
    );
    let status = agent.status();
    let grouped = |pointer: &str| {
        let digits = agent_number(&status, pointer).to_string();
        let mut grouped = String::new();
        for (place, digit) in digits.chars().enumerate() {
            if place > 0 && (digits.len() - place).is_multiple_of(3) {
                grouped.push(',');
            }
            grouped.push(digit);
        }
        grouped
    };
    for (term, pointer) in [
        ("Passed", "/syn/passed"),
        ("Flood", "/syn/flood"),
        ("Challenges answered", "/answers/proven"),
        ("Quit", "/connections/quit"),
    ] {
        let shown = format!("<dt>{term}</dt><dd>{}</dd>", grouped(pointer));
        assert!(page.contains(&shown), "{shown}\n{page}");
    }
    assert_eq!(agent_number(&status, "/connections/quit"), 13);
    assert!(agent_number(&status, "/syn/flood") > 1000);
    for shown in [
        "mailless.example.org does not accept mail</h1>",
        ">guarding</span>",
        "<td>192.0.2.111</td><td>1,200</td>",
        "<td>2001:db8::/64</td>",
        "host0 (native)",
        " d=\"M",
    ] {
        assert!(page.contains(shown), "{shown}\n{page}");
    }
    for name in ["page.png", "phone.png"] {
        let image = browser.file(name);
        let kept = repository().join("target");
        fs::copy(&image, kept.join(name)).unwrap();
        let octets = fs::read(image).unwrap();
        assert!(octets.starts_with(b"\x89PNG") && octets.len() < 200 * 1024);
    }
    agent.stop();
}

fn agent_number(status: &Value, pointer: &str) -> u64 {
    status.pointer(pointer).and_then(Value::as_u64).unwrap()
}
