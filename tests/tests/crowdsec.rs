//! CrowdSec: its decisions are denied, and what it is told comes from sources that
//! are no forgeries. With the real engine of Debian, unpacked and not installed,
//! and with APIs that are broken on purpose. The agent never connects to an API:
//! `nomail-agent crowdsec` does, a process of its own.

#![allow(clippy::unwrap_used, reason = "helpers of tests, too")]

use std::{
    collections::BTreeMap,
    fs,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    os::unix::{
        fs::{MetadataExt as _, PermissionsExt as _, chown},
        process::CommandExt as _,
    },
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
    thread::{self, sleep},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use nomail_tests::{
    agent::{self, Agent},
    files::Files,
    flood::{is_served, talk},
    frames::{FrameSender, Segment},
    http,
    lab::{CLIENT_INTERFACE, HOST_INTERFACE, HOST_IPV4, HOST_IPV6, Lab},
    poll::until,
    repository::repository,
    root::{Instance, Root},
};
use serde_json::json;

/// What the contract promises.
const WITHIN: Duration = Duration::from_secs(10);
/// Longest that a client waits which is to be denied: a SYN on a veth that passes
/// is answered within milliseconds.
const PATIENCE: Duration = Duration::from_millis(500);
/// Longest that a test waits for what takes several time-outs of a pull.
const LONG: Duration = Duration::from_secs(90);
/// The account of both processes: `nobody` is there on every host.
const NOGROUP: u32 = 65_534;

/// A lab, and the agent's files.
struct Host {
    lab: Lab,
    files: Files,
}

impl Host {
    fn new() -> Self {
        Self {
            lab: Lab::new(),
            files: Files::new(),
        }
    }

    /// Writes the file with the key, which only that account can read.
    fn key(&self, key: &str) {
        let path = self.files.path("key");
        fs::write(&path, key).unwrap();
        chown(&path, Some(0), Some(NOGROUP)).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    }

    /// Writes the configuration with what `[crowdsec]` says besides the key; empty
    /// for no such table.
    fn configure(&self, crowdsec: &str, more: &str) {
        let table = match crowdsec {
            "" => String::new(),
            _ => format!(
                "[crowdsec]\napi_key_file = {:?}\nrun_dir = {:?}\n{crowdsec}\n",
                self.files.path("key"),
                self.files.path("decisions")
            ),
        };
        let text = format!(
            "interfaces = [{HOST_INTERFACE:?}]\nhostname = \"mailless.example.org\"\n\
             user = \"{NOGROUP}\"\n{more}\n\
             [limits]\nsyn_rate = 10000\nsyn_burst = 10000\n\
             unproven_rate = 50000\n{table}"
        );
        self.files.write("nomail.toml", text);
    }

    fn start(&self, arguments: &[&str]) -> Agent {
        let file = self.files.path("nomail.toml");
        let config = ["--config", file.to_str().unwrap()];
        Agent::start(&self.lab.host, &[&config, arguments].concat())
    }

    /// Starts the process that pulls.
    fn pull(&self) -> Puller {
        let log = self.files.path("puller.log");
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net=/run/netns/{}", self.lab.host.name()))
            .arg("--")
            .arg(agent::binary())
            .args(["crowdsec", "--config"])
            .arg(self.files.path("nomail.toml"))
            .env_remove("RUST_BACKTRACE")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(&log).unwrap())
            .process_group(0);
        let child = command.spawn().unwrap();
        Puller { child, log }
    }

    /// Whether a connection from there is established.
    fn passes(&self, from: &str) -> bool {
        let to = if from.contains(':') {
            HOST_IPV6
        } else {
            HOST_IPV4
        };
        self.lab.client.within(|| talk(from, to, PATIENCE)).is_ok()
    }

    /// Waits until all of them pass, or none does.
    fn until(&self, passes: bool, from: &[&str], longest: Duration) {
        let begun = Instant::now();
        while from.iter().any(|from| self.passes(from) != passes) {
            assert!(
                begun.elapsed() < longest,
                "{from:?}: not {} after {longest:?}",
                if passes { "served" } else { "denied" }
            );
            sleep(Duration::from_millis(100));
        }
    }
}

/// A running `nomail-agent crowdsec`; killed on drop.
struct Puller {
    child: Child,
    log: PathBuf,
}

impl Puller {
    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id() as i32)
    }

    fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap();
    }

    fn wait(&mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }

    /// A field of its `/proc/PID/status`: the first word.
    fn process(&self, field: &str) -> String {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(field));
        let words = line.unwrap().trim_start_matches(':').split_whitespace();
        words.take(1).collect()
    }

    /// Has it read the configuration again, and gives what it logs until it has.
    fn reload(&self) -> String {
        let before = self.log().len();
        self.signal(Signal::SIGHUP);
        reloaded(before, || self.log())
    }
}

impl Drop for Puller {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits for an effect that takes longer than [`until`] waits.
fn in_time(what: &str, mut is: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is() {
        assert!(begun.elapsed() < LONG, "waited {LONG:?} in vain: {what}");
        sleep(Duration::from_millis(50));
    }
}

fn reload(agent: &Agent) -> String {
    let before = agent.log().len();
    agent.signal(Signal::SIGHUP);
    reloaded(before, || agent.log())
}

/// What is in a log after so many bytes, once a reload is over.
fn reloaded(before: usize, log: impl Fn() -> String) -> String {
    until("the reload is over", || {
        let log = log().split_off(before);
        let over = ["the configuration was reloaded", "the configuration stays"];
        over.iter().any(|over| log.contains(over)).then_some(log)
    })
}

/// The process that asks others is not root, has one thread and no capability, and the
/// filter of system calls. The agent has two threads.
fn has_nothing(puller: &Puller, agent: &Agent) {
    for (field, value) in [
        ("Uid", "65534"),
        ("CapEff", "0000000000000000"),
        ("CapPrm", "0000000000000000"),
        ("CapBnd", "0000000000000000"),
        ("NoNewPrivs", "1"),
        ("Seccomp", "2"),
        ("Threads", "1"),
    ] {
        assert_eq!(puller.process(field), value, "{field}");
    }
    assert_eq!(agent.process("Threads"), "2");
}

fn count(log: &str, needle: &str) -> usize {
    log.matches(needle).count()
}

/// What the metrics say of the subscription, without `nomail_crowdsec_`.
fn metrics(host: &Host) -> BTreeMap<String, f64> {
    let text = http::get(&host.lab.host, "127.0.0.1:9521", "/metrics").body;
    let samples = http::samples(&text).into_iter();
    let of = |(series, value): (String, f64)| {
        let name = series.strip_prefix("nomail_crowdsec_")?;
        Some((name.to_owned(), value))
    };
    samples.filter_map(of).collect()
}

/// Seconds since 1970.
fn unix_now() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap().as_secs_f64()
}

/// Denied SYNs, which shows that a client that is not served meets the guard.
fn denied(agent: &Agent) -> u64 {
    agent.count("/syn/denied")
}

// ---- the real engine ----

/// The engine is laid out in /opt: an installation would call home.
const UNPACK: &str = r#"
cd /opt
apt-get download crowdsec || { apt-get update && apt-get download crowdsec; }
dpkg-deb -x crowdsec_*.deb crowdsec
rm crowdsec_*.deb
"#;

/// A configuration of its own, which knows no central API. `crowdsec` comes up
/// within a second.
const LAY_OUT: &str = r#"
engine=/opt/crowdsec
mkdir -p /cs/data /cs/hub /cs/notifications /cs/plugins /cs/scenarios \
    /cs/parsers/s00-raw /cs/parsers/s02-enrich /cs/postoverflows/s00-enrich
cat > /cs/config.yaml <<'END'
common: {daemonize: false, log_media: stdout, log_level: info, working_dir: .}
config_paths:
  config_dir: /cs
  data_dir: /cs/data
  simulation_path: /cs/simulation.yaml
  hub_dir: /cs/hub
  index_path: /cs/hub/.index.json
  notification_dir: /cs/notifications
  plugin_dir: /cs/plugins
crowdsec_service: {acquisition_path: /cs/acquis.yaml, parser_routines: 1}
cscli: {output: human}
db_config: {log_level: info, type: sqlite, db_path: /cs/data/crowdsec.db}
api:
  client: {credentials_path: /cs/credentials.yaml}
  server: {log_level: info, listen_uri: 127.0.0.1:8080, profiles_path: /cs/profiles.yaml}
prometheus: {enabled: false}
END
cp $engine/etc/crowdsec/profiles.yaml $engine/etc/crowdsec/simulation.yaml /cs
cp -r $engine/etc/crowdsec/patterns /cs
hub=$engine/usr/share/crowdsec/hub
cp $hub/parsers/s00-raw/crowdsecurity/syslog-logs.yaml /cs/parsers/s00-raw
cp $hub/parsers/s02-enrich/crowdsecurity/dateparse-enrich.yaml /cs/parsers/s02-enrich
cp $hub/postoverflows/s00-enrich/crowdsecurity/ipv6_to_range.yaml /cs/postoverflows/s00-enrich
echo '{"collections":{},"parsers":{},"postoverflows":{},"scenarios":{}}' > /cs/hub/.index.json
echo 'url: http://127.0.0.1:8080' > /cs/credentials.yaml
: > /cs/acquis.yaml
ln -s $engine/usr/bin/crowdsec $engine/usr/bin/cscli /usr/bin/
cscli -c /cs/config.yaml machines add m1 -p 0123456789 -f /cs/credentials.yaml \
    -u http://127.0.0.1:8080
"#;

/// Its local API alone.
const API: &str = "crowdsec -no-cs -c /cs/config.yaml >> /cs/log 2>&1 & echo $! > /cs/pid";

fn engine() -> Root {
    Root::install_more("crowdsec", &["ca-certificates", "libsqlite3-0"], UNPACK)
}

/// Runs `cscli ARGUMENTS` to its end, and gives what it printed.
fn cscli(engine: &mut Instance<'_>, arguments: &str) -> String {
    static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let file = format!("/cs/out-{number}");
    engine.run(&format!(
        "cscli -c /cs/config.yaml {arguments} > {file} 2>&1; echo \"exit $?\" >> {file}"
    ));
    let line = engine.line(&file, &["exit "]);
    let output = engine.read(&file);
    assert!(line.ends_with("exit 0"), "cscli {arguments}: {output}");
    output
}

#[test]
fn decisions_are_denied_within_ten_seconds_and_so_is_their_end() {
    let (root, host) = (engine(), Host::new());
    let script = format!("{LAY_OUT}\n{API}\n");
    let mut engine = root.start(&host.lab.host, &script);
    engine.ready();
    engine.line("/cs/log", &["Local API listening"]);
    engine.run("cscli -c /cs/config.yaml bouncers add nomail -o raw > /cs/key");
    until("there is a key", || {
        (engine.read("/cs/key").len() > 20).then_some(())
    });
    let key = engine.read("/cs/key");
    host.key(&key);
    let allow = "lists.allow = [\"192.0.2.102\"]\nlists.deny = [\"198.51.100.0/24\"]";
    // The defaults: the URL and the interval are those that are promised for.
    host.configure("# and the defaults", allow);
    cscli(&mut engine, "decisions add --ip 192.0.2.101 --type captcha");
    let agent = host.start(&[]);
    let puller = host.pull();
    until("it is subscribed", || {
        (agent.status()["crowdsec"]["ok"] == true).then_some(())
    });
    assert_eq!(agent.status()["crowdsec"]["url"], "http://127.0.0.1:8080");
    has_nothing(&puller, &agent);
    let (ipv4, other, ipv6) = ("192.0.2.100", "192.0.2.101", "2001:db8::100");
    host.until(true, &[ipv4, other, ipv6], Duration::ZERO);

    cscli(&mut engine, &format!("decisions add --ip {ipv4}"));
    host.until(false, &[ipv4], WITHIN);
    assert!(denied(&agent) > 0);
    host.until(true, &[other, ipv6], Duration::ZERO);
    cscli(&mut engine, &format!("decisions delete --ip {ipv4}"));
    host.until(true, &[ipv4], WITHIN);

    // As somebody types them: host bits, upper case, IPv4 in IPv6.
    cscli(&mut engine, "decisions add --range 192.0.2.99/29");
    cscli(&mut engine, "decisions add --range 2001:DB8::5/64");
    host.until(false, &[ipv4, other, ipv6], WITHIN);
    // The agent's own list wins.
    host.until(true, &["192.0.2.102"], Duration::ZERO);
    cscli(&mut engine, "decisions delete --range 192.0.2.99/29");
    cscli(&mut engine, "decisions delete --range 2001:DB8::5/64");
    host.until(true, &[ipv4, other, ipv6], WITHIN);
    cscli(
        &mut engine,
        "decisions add --ip ::ffff:192.0.2.101 --duration 1h",
    );
    // This one ends by itself.
    cscli(
        &mut engine,
        &format!("decisions add --ip {ipv6} --duration 12s"),
    );
    host.until(false, &[other, ipv6], WITHIN);
    host.until(true, &[ipv6], Duration::from_secs(12) + WITHIN);

    // Without the API the last list is kept, and that is told once.
    engine.run("kill $(cat /cs/pid)");
    until("it fails", || {
        (agent.status()["crowdsec"]["ok"] == false).then_some(())
    });
    // More than one try.
    sleep(Duration::from_secs(6));
    let log = puller.log();
    assert_eq!(count(&log, "cannot be reached"), 1, "{log}");
    assert_eq!(agent.status()["crowdsec"]["decisions"], 1);
    host.until(false, &[other], Duration::ZERO);
    host.until(true, &[ipv4], Duration::ZERO);
    engine.run(API);
    in_time("it answers again", || {
        agent.status()["crowdsec"]["ok"] == true
    });
    assert_eq!(count(&puller.log(), "CrowdSec answers again"), 1);

    // A wrong key, by a reload.
    host.key("0123456789abcdef0123456789abcdef");
    puller.reload();
    until("the key is refused", || {
        puller
            .log()
            .contains("the key is refused (403 Forbidden): write what")
            .then_some(())
    });
    host.until(false, &[other], Duration::ZERO);
    host.key(&key);
    puller.reload();
    until("the key is right again", || {
        (agent.status()["crowdsec"]["ok"] == true).then_some(())
    });

    // Without the table nothing of it is denied.
    host.configure("", allow);
    reload(&agent);
    host.until(true, &[ipv4, other, ipv6], WITHIN);
    let log = puller.log() + &agent.log();
    assert!(
        !log.contains(key.trim()) && !log.contains("0123456789abcdef"),
        "{log}"
    );
    assert!(!log.contains("can read the key"), "{log}");
    agent.stop();
}

/// Lines of a real agent, through the real engine: who had many connections is
/// banned, who had few is not, and whose SYNs alone came in is not even parsed.
#[test]
fn who_completed_a_handshake_is_reported() {
    let (root, host) = (engine(), Host::new());
    host.configure("", "log.interval_secs = 2\nlog.format = \"json\"");
    let agent = host.start(&["--syn-rate", "30", "--syn-burst", "60", "-v"]);
    let (busy, quiet, forged, busy_ipv6) =
        ("192.0.2.100", "192.0.2.101", "192.0.2.77", "2001:db8::100");
    host.lab.client.within(|| {
        for (from, to, connections) in [
            (busy, HOST_IPV4, 100),
            (busy_ipv6, HOST_IPV6, 100),
            (quiet, HOST_IPV4, 3),
        ] {
            for _ in 0..connections {
                assert!(is_served(from, to));
            }
        }
        let sender = FrameSender::open(CLIENT_INTERFACE);
        for port in 0..1000 {
            let from = format!("{forged}:{}", 10_000 + port);
            sender.send(&Segment::syn(&from, &format!("{HOST_IPV4}:25")).frame());
        }
    });
    let log = until("all of it is reported", || {
        let log = agent.log();
        let line = |event: &str, source: &str| {
            let found = |line: &&str| {
                line.contains(&format!("\"event\":\"{event}\""))
                    && line.contains(&format!("\"source\":\"{source}"))
            };
            log.lines().find(found).is_some()
        };
        let all = line("activity", busy)
            && line("activity", quiet)
            && line("activity", "2001:db8::/64")
            && line("limited", forged);
        all.then_some(log)
    });
    agent.stop();

    let shipped = repository().join("packaging/crowdsec");
    let lines = host.files.path("log.json");
    fs::write(&lines, &log).unwrap();
    let names = [
        (
            "parsers/s01-parse/nomail-logs.yaml",
            "/cs/parsers/s01-parse/nomail-logs.yaml",
        ),
        (
            "scenarios/nomail-many-connections.yaml",
            "/cs/scenarios/nomail-many-connections.yaml",
        ),
        ("acquis.d/nomail.yaml", "/cs/nomail-acquis.yaml"),
        ("profiles-range.yaml", "/cs/profiles-range.yaml"),
    ];
    let mut files: Vec<(PathBuf, &str)> = names.map(|(name, to)| (shipped.join(name), to)).to_vec();
    files.push((lines, "/var/log/nomail.log"));
    let files: Vec<_> = files
        .iter()
        .map(|(from, to)| (from.as_path(), *to))
        .collect();
    let script = format!("{LAY_OUT}\ncat /cs/profiles-range.yaml >> /cs/profiles.yaml\n");
    let mut engine = root.start_with(&host.lab.host, &script, &files);
    engine.ready();
    engine.run(API);
    engine.line("/cs/log", &["Local API listening"]);

    // Line by line: what the parser takes, and from whom.
    let explained = cscli(
        &mut engine,
        "explain --file /var/log/nomail.log --type nomail -v",
    );
    let taken: Vec<_> = explained
        .lines()
        .filter_map(|line| line.split_once("evt.Parsed.source_ip : "))
        .map(|(_, source)| source.trim())
        .collect();
    for source in [busy, quiet, "2001:db8::"] {
        assert!(taken.contains(&source), "{source}: {explained}");
    }
    assert!(!taken.contains(&forged), "{explained}");
    assert!(
        explained.contains("🟢 nomail/many-connections"),
        "{explained}"
    );

    // As they come out of the journal.
    let journal = "sed 's/^/Nov 24 18:16:36 mailless nomail-agent[7]: /' /var/log/nomail.log";
    engine.run(&format!("{journal} > /cs/journal; echo done > /cs/made"));
    engine.line("/cs/made", &["done"]);
    let explained = cscli(&mut engine, "explain --file /cs/journal --type syslog -v");
    let parsed = format!("evt.Meta.source_ip : {busy}");
    assert!(explained.contains(&parsed), "{explained}");
    assert!(
        !explained.contains(&format!("source_ip : {forged}")),
        "{explained}"
    );

    // The example of an acquisition is right, but for the journal, which a
    // namespace has not.
    engine.run(
        "sed '1,/^---/d' /cs/nomail-acquis.yaml > /cs/acquis.yaml; crowdsec -t -c /cs/config.yaml \
         > /cs/test 2>&1; echo \"exit $?\" >> /cs/test",
    );
    let tested = engine.line("/cs/test", &["exit "]);
    assert_eq!(tested, "exit 0", "{}", engine.read("/cs/test"));

    // And the whole way, to decisions of the API.
    let dsn = "crowdsec -c /cs/config.yaml -no-api -dsn file:///var/log/nomail.log -type nomail";
    engine.run(&format!(
        "{dsn} > /cs/replayed 2>&1; echo \"exit $?\" >> /cs/replayed"
    ));
    engine.line("/cs/replayed", &["exit "]);
    let decisions = cscli(&mut engine, "decisions list -o json -a");
    let about = |source: &str| decisions.contains(&format!("\"value\": \"{source}\""));
    assert!(about(busy), "{decisions}\n{}", engine.read("/cs/replayed"));
    assert!(!about(quiet) && !about(forged), "{decisions}");
    // A range as well, with the profile for ranges.
    assert!(about("2001:db8::/64"), "{decisions}");
}

// ---- APIs that are broken ----

/// What the API does with a request.
#[derive(Clone)]
enum Answer {
    /// The whole list, or a change.
    Lists {
        new: Vec<String>,
        deleted: Vec<String>,
    },
    /// Nothing.
    Hang,
    /// An octet every now and then, for ever.
    Drip,
    /// So many octets of a list that does not end.
    Long(usize),
    Octets(&'static [u8]),
}

/// An API in the host's namespace.
struct Api {
    answer: Arc<Mutex<Answer>>,
    asked: Arc<Mutex<Vec<String>>>,
    port: u16,
}

impl Api {
    fn start(lab: &Lab) -> Self {
        let listener = lab
            .host
            .within(|| TcpListener::bind("127.0.0.1:0").unwrap());
        let port = listener.local_addr().unwrap().port();
        let answer = Arc::new(Mutex::new(bans(&[])));
        let asked = Arc::new(Mutex::new(Vec::new()));
        let api = Self {
            answer: Arc::clone(&answer),
            asked: Arc::clone(&asked),
            port,
        };
        // Ends with the test program.
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (answer, asked) = (Arc::clone(&answer), Arc::clone(&asked));
                thread::spawn(move || {
                    // The client may not want to hear all.
                    let _ = serve(stream, &answer, &asked);
                });
            }
        });
        api
    }

    fn says(&self, answer: Answer) {
        *self.answer.lock().unwrap() = answer;
    }

    fn asked(&self) -> usize {
        self.asked.lock().unwrap().len()
    }

    fn table(&self) -> String {
        format!(
            "url = \"http://127.0.0.1:{}/\"\ninterval_secs = 1",
            self.port
        )
    }
}

fn bans(new: &[&str]) -> Answer {
    Answer::Lists {
        new: new.iter().map(ToString::to_string).collect(),
        deleted: Vec::new(),
    }
}

fn serve(
    mut stream: TcpStream,
    answer: &Mutex<Answer>,
    asked: &Mutex<Vec<String>>,
) -> std::io::Result<()> {
    let mut request = Vec::new();
    let mut piece = [0; 1024];
    while !request.ends_with(b"\r\n\r\n") {
        let read = stream.read(&mut piece)?;
        request.extend(&piece[..read]);
    }
    let request = String::from_utf8(request).unwrap();
    asked.lock().unwrap().push(request);
    let answer = answer.lock().unwrap().clone();
    match answer {
        Answer::Lists { new, deleted } => {
            let list = |values: Vec<String>| {
                let decisions = values.into_iter().map(|value| {
                    let scope = if value.contains('/') { "Range" } else { "Ip" };
                    json!({
                        "duration": "3h59m59.576599868s", "id": 1, "origin": "CAPI",
                        "scenario": "crowdsecurity/ssh-bf", "scope": scope, "type": "ban",
                        "value": value,
                    })
                });
                decisions.collect::<Vec<_>>()
            };
            let body = json!({"deleted": list(deleted), "new": list(new)}).to_string();
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
            stream.write_all(head.as_bytes())?;
            stream.write_all(body.as_bytes())
        }
        Answer::Hang => {
            // Until the client goes.
            stream.read_to_end(&mut Vec::new())?;
            Ok(())
        }
        Answer::Drip => {
            stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
            loop {
                stream.write_all(b"1\r\n \r\n")?;
                sleep(Duration::from_millis(100));
            }
        }
        Answer::Long(length) => {
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n{\"deleted\":null,\"new\":[")?;
            let one = b"{\"duration\":\"1h\",\"id\":1,\"scope\":\"Ip\",\"type\":\"ban\",\"value\":\"192.0.2.100\"},";
            let many = one.repeat(1000);
            for _ in 0..length / many.len() {
                stream.write_all(&many)?;
            }
            Ok(())
        }
        Answer::Octets(octets) => stream.write_all(octets),
    }
}

/// Whatever the API does: the responder answers, the last list stays, memory has a
/// bound, and it is told once.
#[test]
fn a_broken_api_changes_nothing() {
    let host = Host::new();
    let api = Api::start(&host.lab);
    host.key("k3y");
    host.configure(&api.table(), "");
    api.says(bans(&["192.0.2.100"]));
    let agent = host.start(&[]);
    let puller = host.pull();
    host.until(false, &["192.0.2.100"], WITHIN);
    let before: u64 = puller.process("VmHWM").parse().unwrap();
    let told = metrics(&host);
    assert_eq!(told["last_pull_successful"], 1.0, "{told:?}");
    let pulled = told["last_pull_success_timestamp_seconds"];
    assert!((unix_now() - pulled).abs() < 30.0, "{told:?}");

    // In a debug build the reading of what is too long takes too long as well.
    let slow = "no complete answer within 15 s";
    let long = ["longer than 67108864 bytes", slow];
    for (answer, told) in [
        (
            Answer::Octets(b"HTTP/1.1 200 OK\r\n\r\n{\"new\":null"),
            &["not a list of decisions"][..],
        ),
        (
            Answer::Octets(b"\0\xff\x1b[31m\r\n\r\n"),
            &["no HTTP, or incomplete"],
        ),
        (
            Answer::Octets(b"HTTP/1.1 503 No\r\n\r\n"),
            &["it answers 503"],
        ),
        (Answer::Long(100 << 20), &long),
        (Answer::Hang, &[slow]),
        (Answer::Drip, &[slow]),
    ] {
        let failures = || agent.status()["crowdsec"]["error"].to_string();
        api.says(answer);
        let asked = api.asked();
        in_time("it is asked again", || api.asked() > asked);
        in_time(told[0], || {
            // Meanwhile everybody is served as ever.
            assert!(host.passes("192.0.2.101"), "{told:?}");
            told.iter().any(|told| failures().contains(told))
        });
        host.until(false, &["192.0.2.100"], Duration::ZERO);
        // From before it was broken.
        let last = agent.status()["crowdsec"]["last_pull_unix_secs"]
            .as_f64()
            .unwrap();
        in_time("the metrics tell it", || {
            let told = metrics(&host);
            told["last_pull_successful"] == 0.0
                && told["last_pull_success_timestamp_seconds"] == last
                && told["decisions{family=\"ipv4\"}"] == 1.0
        });
        // Each kind of failure once: the drip is of a kind with the hanging.
        let log = puller.log();
        let counts = told.iter().map(|told| count(&log, told));
        assert!(
            counts.clone().all(|count| count <= 1) && counts.sum::<usize>() >= 1,
            "{log}"
        );
    }
    let after: u64 = puller.process("VmHWM").parse().unwrap();
    assert!(
        after < before + (48 << 10),
        "{before} KiB, then {after} KiB"
    );
    assert!(!puller.log().contains('\u{1b}') && !agent.log().contains('\u{1b}'));

    // What it missed comes with the whole list.
    api.says(bans(&["192.0.2.101"]));
    in_time("it is well again", || {
        agent.status()["crowdsec"]["ok"] == true
    });
    in_time("the metrics tell that, too", || {
        let told = metrics(&host);
        told["last_pull_successful"] == 1.0 && told["last_pull_success_timestamp_seconds"] > pulled
    });
    host.until(false, &["192.0.2.101"], WITHIN);
    host.until(true, &["192.0.2.100"], WITHIN);
    let asked = api.asked.lock().unwrap().clone();
    assert!(
        asked
            .iter()
            .all(|asked| asked.to_ascii_lowercase().contains("x-api-key: k3y"))
    );
    let log = puller.log();
    assert_eq!(count(&log, "CrowdSec answers again"), 1, "{log}");
    assert!(!log.contains("k3y"), "{log}");
    agent.stop();
}

/// Without the process there are no bans, and that is said everywhere.
#[test]
fn bans_end_with_the_process_and_what_hangs_is_reported() {
    let host = Host::new();
    let api = Api::start(&host.lab);
    host.key("k3y");
    host.configure(&api.table(), "");
    api.says(bans(&["192.0.2.100"]));
    let agent = host.start(&[]);
    let absent = || {
        let status = agent.status()["crowdsec"].clone();
        let error = status["error"].as_str().unwrap();
        (status["running"] == false && status["ok"] == false && error.contains("does not run"))
            .then_some(())
    };
    until("it is absent at the start", absent);
    assert!(agent.log().contains("nomail-agent crowdsec does not run"));
    host.until(true, &["192.0.2.100"], Duration::ZERO);
    let control = agent.control();
    let doctor = || {
        let output = host.lab.host.within(|| {
            Command::new(agent::binary())
                .args(["doctor", "--control"])
                .arg(&control)
                .arg("--config")
                .arg(host.files.path("nomail.toml"))
                .output()
                .unwrap()
        });
        String::from_utf8(output.stdout).unwrap()
    };
    let said = doctor();
    assert!(
        said.contains("nomail-agent crowdsec does not run"),
        "{said}"
    );

    let mut puller = host.pull();
    host.until(false, &["192.0.2.100"], WITHIN);
    let said = doctor();
    assert!(
        said.contains("1 decisions of CrowdSec are in force"),
        "{said}"
    );
    let written = host.files.path("decisions/deny");
    let found = fs::metadata(&written).unwrap();
    assert_eq!((found.uid(), found.mode() & 0o777), (NOGROUP, 0o644));
    puller.signal(Signal::SIGTERM);
    assert_eq!(puller.wait().code(), Some(0), "{}", puller.log());
    host.until(true, &["192.0.2.100"], WITHIN);
    assert!(!written.exists());
    until("it is absent again", absent);

    // Killed, it leaves its list to the next one, which does not trust it.
    let mut puller = host.pull();
    host.until(false, &["192.0.2.100"], WITHIN);
    puller.signal(Signal::SIGKILL);
    puller.wait();
    api.says(Answer::Hang);
    assert!(written.exists());
    let puller = host.pull();
    host.until(true, &["192.0.2.100"], WITHIN);
    until("what hangs is reported", || {
        let status = agent.status()["crowdsec"].clone();
        (status["running"] == true && status["ok"] == false).then_some(())
    });
    api.says(bans(&["192.0.2.100"]));
    host.until(false, &["192.0.2.100"], LONG);

    // What is no list of its is not taken for one.
    puller.signal(Signal::SIGSTOP);
    fs::write(&written, "<html>\n").unwrap();
    until("a wrong list is reported", || {
        let error = agent.status()["crowdsec"]["error"].to_string();
        error
            .contains("the decisions of before stay denied")
            .then_some(())
    });
    host.until(false, &["192.0.2.100"], Duration::ZERO);
    agent.stop();
}

/// Lists of the configuration, reloads, and long lists of decisions.
#[test]
fn decisions_and_lists_do_not_mix() {
    let host = Host::new();
    let api = Api::start(&host.lab);
    host.key("k3y");
    let deny = "lists.deny = [\"192.0.2.101\"]";
    host.configure(&api.table(), deny);
    let many = |last: &[&str]| {
        let many = (0..20_000)
            .map(|number| std::net::Ipv4Addr::from(0x0a00_0000 + number * 7).to_string());
        let new = many.chain(last.iter().map(ToString::to_string)).collect();
        Answer::Lists {
            new,
            deleted: Vec::new(),
        }
    };
    api.says(many(&["192.0.2.100", "192.0.2.101", "2001:db8::/64"]));
    let agent = host.start(&[]);
    let puller = host.pull();
    until("all are there", || {
        (agent.status()["crowdsec"]["decisions"] == 20_003).then_some(())
    });
    until("the metrics tell them by family", || {
        let told = metrics(&host);
        let of = |family: &str| told[&format!("decisions{{family={family:?}}}")];
        let all = (of("ipv4"), of("ipv6"), told["decisions_left_out"]);
        (all == (20_002.0, 1.0, 0.0)).then_some(())
    });
    host.until(
        false,
        &["192.0.2.100", "192.0.2.101", "2001:db8::100"],
        WITHIN,
    );

    // A reload with other lists keeps the decisions.
    api.says(Answer::Hang);
    host.configure(
        &api.table(),
        "lists.deny = [\"192.0.2.101\", \"198.51.100.7\"]",
    );
    reload(&agent);
    host.until(
        false,
        &["192.0.2.100", "192.0.2.101", "2001:db8::100"],
        Duration::ZERO,
    );
    host.until(true, &["192.0.2.102"], Duration::ZERO);
    // And the end of a decision is not the end of what the configuration says.
    host.configure("", deny);
    reload(&agent);
    host.until(true, &["192.0.2.100", "2001:db8::100"], WITHIN);
    host.until(false, &["192.0.2.101"], Duration::ZERO);
    assert_eq!(agent.status()["crowdsec"]["decisions"], 0);
    until("there are no metrics of nobody", || {
        metrics(&host).is_empty().then_some(())
    });
    // Without the table the other process has nothing to do.
    let mut puller = puller;
    puller.signal(Signal::SIGHUP);
    assert_eq!(puller.wait().code(), Some(0), "{}", puller.log());

    // It may come back: the agent was started with it.
    api.says(bans(&["192.0.2.100"]));
    host.configure(&api.table(), "");
    reload(&agent);
    let puller = host.pull();
    host.until(false, &["192.0.2.100"], WITHIN);
    host.until(true, &["192.0.2.101"], WITHIN);
    let change = Answer::Lists {
        new: Vec::new(),
        deleted: vec!["192.0.2.100".to_owned()],
    };
    api.says(change);
    host.until(true, &["192.0.2.100"], WITHIN);

    // A key that cannot be read fails the reload, and nothing else.
    fs::remove_file(host.files.path("key")).unwrap();
    let log = puller.reload();
    assert!(
        log.contains("cannot be read") && log.contains("cscli bouncers add"),
        "{log}"
    );
    assert!(log.contains("the configuration stays"), "{log}");
    agent.stop();
}

/// Without the table at the start the decisions are out of the agent's reach.
#[test]
fn the_table_needs_a_restart_where_there_was_none() {
    let host = Host::new();
    let api = Api::start(&host.lab);
    host.key("k3y");
    host.configure("", "");
    let agent = host.start(&[]);
    assert_eq!(agent.status()["crowdsec"], serde_json::Value::Null);
    host.configure(&api.table(), "");
    let log = reload(&agent);
    assert!(
        log.contains("a change of crowdsec needs a restart"),
        "{log}"
    );
    assert_eq!(
        agent.status()["reload"]["needs_restart"],
        json!(["crowdsec"])
    );
    assert_eq!(api.asked(), 0);
    agent.stop();

    // A key that everybody can read is warned of; one that is missing is an error.
    fs::set_permissions(host.files.path("key"), fs::Permissions::from_mode(0o644)).unwrap();
    let puller = host.pull();
    until("it is asked", || (api.asked() > 0).then_some(()));
    let log = puller.log();
    assert!(
        log.contains("every account of this host can read the key"),
        "{log}"
    );
    drop(puller);
    fs::remove_file(host.files.path("key")).unwrap();
    let mut puller = host.pull();
    assert_eq!(puller.wait().code(), Some(78), "{}", puller.log());
    let log = puller.log();
    assert!(log.contains("crowdsec.api_key_file: "), "{log}");
    // Without the table there is nothing to do, which is no failure.
    host.configure("", "");
    let mut puller = host.pull();
    assert_eq!(puller.wait().code(), Some(0), "{}", puller.log());
}

/// A guard that was left behind knows decisions which may be over by now.
#[test]
fn decisions_of_a_killed_agent_do_not_come_back() {
    let host = Host::new();
    let api = Api::start(&host.lab);
    host.key("k3y");
    let bpf = host.files.path("bpf");
    fs::create_dir(&bpf).unwrap();
    mount(
        Some("bpf"),
        &bpf,
        Some("bpf"),
        MsFlags::empty(),
        Some("mode=0700"),
    )
    .unwrap();
    /// Unmounts it, and so removes the pins, also when the test fails.
    struct Mounted(PathBuf);
    impl Drop for Mounted {
        fn drop(&mut self) {
            let _ = umount2(&self.0, MntFlags::MNT_DETACH);
        }
    }
    let mounted = Mounted(bpf);
    let keep = format!(
        "on_exit = \"keep\"\npin_dir = {:?}",
        mounted.0.join("nomail")
    );
    host.configure(&api.table(), &keep);
    api.says(bans(&["192.0.2.100"]));
    let mut agent = host.start(&[]);
    let puller = host.pull();
    host.until(false, &["192.0.2.100"], WITHIN);
    agent.signal(Signal::SIGKILL);
    agent.wait();
    drop(puller);

    api.says(bans(&["192.0.2.101"]));
    let agent = host.start(&[]);
    let _puller = host.pull();
    host.until(false, &["192.0.2.101"], WITHIN);
    host.until(true, &["192.0.2.100"], Duration::ZERO);
    agent.stop();
}
