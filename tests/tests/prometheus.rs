//! A real Prometheus scrapes the agent, likes what it reads, and raises the
//! alarm in a flood.

#![allow(clippy::unwrap_used, reason = "helpers of tests, too")]

use std::{fs, path::Path};

use nomail_tests::{
    agent::Agent,
    flood::{answerable, flooded, strangers},
    http::get,
    lab::{CLIENT_INTERFACE, HOST_INTERFACE, Lab},
    poll::until,
    repository::repository,
    root::Root,
};
use serde_json::Value;

const PROMETHEUS: &str = "127.0.0.1:9090";

/// As docs/metrics.md has it, but more often.
const SCRIPT: &str = r#"
cat > /prometheus.yml <<'END'
global:
  scrape_interval: 1s
  evaluation_interval: 1s
rule_files: ["nomail.rules.yml"]
scrape_configs:
  - job_name: nomail
    static_configs:
      - targets: ["127.0.0.1:9521"]
END
promtool check metrics < /metrics.txt
promtool check rules /nomail.rules.yml
promtool check config /prometheus.yml
prometheus --config.file=/prometheus.yml --storage.tsdb.path=/tmp/prometheus \
    --web.listen-address=127.0.0.1:9090 &
"#;

fn ask(lab: &Lab, path: &str) -> Value {
    let answer = get(&lab.host, PROMETHEUS, path);
    serde_json::from_str(&answer.body).unwrap_or(Value::Null)
}

/// The value of a query that has one.
fn query(lab: &Lab, query: &str) -> Option<f64> {
    let answer = ask(lab, &format!("/api/v1/query?query={query}"));
    let value = answer.pointer("/data/result/0/value/1")?.as_str()?;
    value.parse().ok()
}

fn firing(lab: &Lab) -> Vec<String> {
    alerts(lab, "firing")
}

/// Those in that state.
fn alerts(lab: &Lab, state: &str) -> Vec<String> {
    let answer = ask(lab, "/api/v1/alerts");
    let alerts = answer["data"]["alerts"].as_array().unwrap();
    alerts
        .iter()
        .filter(|alert| alert["state"] == state)
        .map(|alert| alert["labels"]["alertname"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn scrapes_and_raises_the_alarm_in_a_flood() {
    let root = Root::install("prometheus", &["prometheus"]);
    let lab = Lab::new();
    let _program = answerable(&lab.client, CLIENT_INTERFACE);
    let directory = tempfile::tempdir().unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(directory.path(), mode).unwrap();
    // CrowdSec's decisions are wanted, and nothing pulls them.
    let key = directory.path().join("key");
    fs::write(&key, "k3y").unwrap();
    let config = directory.path().join("nomail.toml");
    let decisions = directory.path().join("decisions");
    let table = format!(
        "interfaces = [{HOST_INTERFACE:?}]\n\
         [crowdsec]\napi_key_file = {key:?}\nrun_dir = {decisions:?}\n"
    );
    fs::write(&config, table).unwrap();
    let agent = Agent::start(&lab.host, &["--config", config.to_str().unwrap()]);
    let text = directory.path().join("metrics.txt");
    fs::write(&text, get(&lab.host, "127.0.0.1:9521", "/metrics").body).unwrap();
    let rules = repository().join("packaging/prometheus/nomail.rules.yml");
    let files: [(&Path, &str); 2] = [(&text, "/metrics.txt"), (&rules, "/nomail.rules.yml")];
    let mut prometheus = root.start_with(&lab.host, SCRIPT, &files);
    prometheus.ready();
    let said = prometheus.output();
    assert!(said.contains("SUCCESS: 12 rules found"), "{said}");
    until("Prometheus listens", || {
        let up = lab.host.within(|| std::net::TcpStream::connect(PROMETHEUS));
        up.ok()
    });
    until("the agent is scraped", || {
        let answer = ask(&lab, "/api/v1/targets");
        let target = answer.pointer("/data/activeTargets/0")?;
        assert_eq!(target["lastError"], "", "{target:#}");
        (target["health"] == "up").then_some(())
    });
    until("what it scraped can be queried", || {
        (query(&lab, "nomail_build_info") == Some(1.0)).then_some(())
    });
    assert_eq!(firing(&lab), [""; 0]);
    until(
        "an alert for decisions that do not arrive is pending",
        || (alerts(&lab, "pending") == ["NomailCrowdsecFailing"]).then_some(()),
    );

    flooded(
        &lab.client,
        CLIENT_INTERFACE,
        &strangers("192.0.2.1:25"),
        || {
            until("the alarm is raised", || {
                (firing(&lab) == ["NomailFloodActive"]).then_some(())
            });
        },
    );
    until("the alarm is over", || {
        firing(&lab).is_empty().then_some(())
    });
    let told = until("Prometheus knows how many there were", || {
        let told = query(&lab, "sum(nomail_syn_total{verdict=%22flood%22})")?;
        (told == agent.count("/syn/flood") as f64).then_some(told)
    });
    assert!(told > 1000.0, "{told}");
    agent.stop();
}
