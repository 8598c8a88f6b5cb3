//! Mail for domains that are not this host's: warned of, kept and shown, whatever else
//! is invented.

#![allow(clippy::unwrap_used, reason = "helpers of tests, too")]

use std::fmt::Write as _;

use nomail_tests::{
    agent::{self, Agent, UNLIMITED},
    client::converse,
    files::Files,
    http::{get, samples},
    lab::{HOST_IPV4, HOST_IPV6, Lab},
    poll::until,
};
use serde_json::Value;

/// Three clients in two networks.
const PROBER: &str = "192.0.2.100";
const NEIGHBOUR: &str = "192.0.2.101";
const ELSEWHERE: &str = "2001:db8::100";

#[derive(Default)]
struct Host {
    lab: Lab,
    files: Files,
}

impl Host {
    fn start(&self, more: &str) -> Agent {
        let config = format!(
            "hostname = \"mailless.example.org\"\nrefuse_at = \"rcpt\"\nstate_dir = {}\n{more}\n\
             [log]\nformat = \"json\"\n",
            self.files.quoted("state")
        );
        self.files.write("nomail.toml", config);
        self.files.spawn(&self.lab, &[], UNLIMITED).serving()
    }

    /// Mail from `from` for each of these domains, on one connection: the replies.
    fn mail(&self, from: &str, domains: &[&str]) -> String {
        let mut says = "EHLO client.example\r\nMAIL FROM:<a@client.example>\r\n".to_owned();
        for domain in domains {
            write!(says, "RCPT TO:<u@{domain}>\r\n").unwrap();
        }
        says += "QUIT\r\n";
        let to = if from.contains(':') {
            HOST_IPV6
        } else {
            HOST_IPV4
        };
        let mail = || converse(from, to, &says).unwrap();
        self.lab.client.within(mail)
    }

    fn suspects(&self) -> f64 {
        let answer = get(&self.lab.host, "127.0.0.1:9521", "/metrics");
        samples(&answer.body)["nomail_foreign_domains"]
    }
}

/// The warnings in the log.
fn warnings(agent: &Agent) -> Vec<Value> {
    let log = agent.log();
    let lines = log.lines().map(|line| serde_json::from_str(line).unwrap());
    lines
        .filter(|line: &Value| line["event"] == "foreign_domain")
        .collect()
}

fn kept(agent: &Agent) -> Vec<Value> {
    agent.status()["foreign_domains"]
        .as_array()
        .unwrap()
        .clone()
}

#[test]
fn forty_invented_domains_do_not_silence_the_warning() {
    let host = Host::default();
    let agent = host.start("");
    let invented: Vec<_> = (0..40).map(|n| format!("invented-{n}.example")).collect();
    let invented: Vec<_> = invented.iter().map(String::as_str).collect();
    let heard = host.mail(PROBER, &invented);
    assert_eq!(heard.matches("\r\n521 5.3.2 ").count(), 40, "{heard}");
    assert_eq!(agent.count("/connections/recipients_elsewhere"), 40);
    assert_eq!(kept(&agent).len(), 8, "the quota of a network");
    // Names of this host and addresses are no news.
    host.mail(
        ELSEWHERE,
        &["mailless.example.org", "[192.0.2.1]", "localhost"],
    );
    host.mail(ELSEWHERE, &["Example.ORG"]);
    assert!(warnings(&agent).is_empty(), "of one network at once");
    host.mail(NEIGHBOUR, &["example.org."]);
    let warned = until("it is warned of what two networks ask for", || {
        let warned = warnings(&agent);
        (!warned.is_empty()).then_some(warned)
    });
    assert_eq!(warned.len(), 1, "{warned:#?}");
    assert_eq!(warned[0]["domain"], "example.org");
    assert_eq!(warned[0]["networks"], 2);
    assert_eq!(warned[0]["source"], NEIGHBOUR);
    let said = warned[0]["message"].as_str().unwrap();
    assert!(said.contains("mail for example.org arrives here"), "{said}");
    assert_eq!(agent.count("/connections/recipients_elsewhere"), 42);

    let domains = kept(&agent);
    assert_eq!(domains.len(), 9, "{domains:#?}");
    assert_eq!(domains[0]["domain"], "example.org");
    assert_eq!(domains[0]["networks"], 2);
    assert_eq!(domains[0]["recipients"], 2);
    assert_eq!(domains[0]["suspect"], true);
    assert!(domains[1..].iter().all(|probe| probe["suspect"] == false));
    let text = agent::status(&agent.control(), &[]);
    let line = text.lines().find(|line| line.starts_with("mail for "));
    let expected = "example.org: 2 recipients from 2 networks, last ";
    assert!(line.is_some_and(|line| line.contains(expected)), "{text}");
    until("the metric follows", || {
        (host.suspects() == 1.0).then_some(())
    });
    agent.stop();

    // A restart forgets neither the domain nor that it was warned of.
    let agent = host.start("");
    let again = kept(&agent);
    assert_eq!(again.len(), 9, "{again:#?}");
    assert_eq!(again[0]["domain"], "example.org");
    host.mail(PROBER, &["example.org"]);
    until("the mail is counted", || {
        (kept(&agent)[0]["recipients"] == 3).then_some(())
    });
    assert!(warnings(&agent).is_empty());
    agent.stop();

    let agent = host.start("aliases = [\"*.org\"]");
    let domains = kept(&agent);
    assert_eq!(domains.len(), 8, "{domains:#?}");
    host.mail(ELSEWHERE, &["www.example.org"]);
    assert_eq!(agent.count("/connections/recipients_elsewhere"), 0);
    agent.stop();
}
