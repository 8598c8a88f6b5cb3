use std::fs;

use super::*;
use crate::status::Pull;

const URL: &str = "http://127.0.0.1:8080";

struct Run(tempfile::TempDir);

impl Run {
    fn new() -> (Self, DecisionFiles) {
        let directory = tempfile::tempdir().unwrap();
        let crowdsec = Crowdsec {
            url: URL.parse().unwrap(),
            api_key_file: "/k".into(),
            interval_secs: 5,
            run_dir: directory.path().to_owned(),
        };
        (Self(directory), DecisionFiles::new(&crowdsec))
    }

    fn write(&self, name: &str, text: &str) {
        let new = self.0.path().join("new");
        fs::write(&new, text).unwrap();
        fs::rename(new, self.0.path().join(name)).unwrap();
    }

    fn figures(&self, decisions: u64, error: &str) {
        let mut status = CrowdsecStatus {
            url: "http://192.0.2.1:1".to_owned(),
            running: true,
            ok: error.is_empty(),
            decisions,
            last_pull_unix_secs: 1000,
            error: error.to_owned(),
            ..CrowdsecStatus::default()
        };
        status.pulls[Pull::Succeeded] = 7;
        self.write(STATUS_FILE, &serde_json::to_string(&status).unwrap());
    }
}

fn texts(prefixes: &[IpNet]) -> Vec<String> {
    prefixes.iter().map(ToString::to_string).collect()
}

#[test]
fn what_is_handed_over_is_read_once_and_ends_with_the_file() {
    let (run, mut decisions) = Run::new();
    let now = Instant::now();
    assert!(!decisions.look(now));
    let status = decisions.status(1010);
    assert_eq!(
        (status.url.as_str(), status.running, status.ok),
        (URL, false, false)
    );
    assert!(status.error.contains("does not run"), "{status:?}");

    run.write(DENY_FILE, "# decisions\n192.0.2.7\n2001:db8::/32\n");
    run.figures(2, "");
    assert!(decisions.look(now));
    assert!(!decisions.look(now));
    assert_eq!(texts(decisions.banned()), ["192.0.2.7/32", "2001:db8::/32"]);
    let status = decisions.status(1010);
    assert_eq!(
        (status.url.as_str(), status.running, status.ok),
        (URL, true, true)
    );
    assert_eq!((status.decisions, status.last_pull_secs), (2, Some(10)));
    assert_eq!(status.pulls[Pull::Succeeded], 7);

    run.figures(2, "cannot be reached");
    assert!(!decisions.look(now));
    let status = decisions.status(900);
    assert_eq!((status.ok, status.running), (false, true));
    assert_eq!(
        (&*status.error, status.last_pull_secs),
        ("cannot be reached", Some(0))
    );

    // Figures that nothing renews are those of a process that is gone: no ban would end.
    assert!(decisions.look(now + STALE));
    let status = decisions.status(1010);
    assert_eq!(
        (status.running, status.ok, status.decisions),
        (false, false, 0)
    );
    assert_eq!(status.pulls[Pull::Succeeded], 7);
    assert_eq!(decisions.banned().len(), 0);

    run.figures(2, "");
    assert!(decisions.look(now + STALE));
    assert!(decisions.status(1010).ok);
    assert_eq!(decisions.banned().len(), 2);
    for name in [DENY_FILE, STATUS_FILE] {
        fs::remove_file(run.0.path().join(name)).unwrap();
    }
    assert!(decisions.look(now + STALE));
    assert_eq!(texts(decisions.banned()), [""; 0]);
    let status = decisions.status(1010);
    assert_eq!((status.running, status.decisions), (false, 0));
}

#[test]
fn a_file_that_cannot_be_used_leaves_what_was_denied() {
    let (run, mut decisions) = Run::new();
    let now = Instant::now();
    run.figures(1, "");
    run.write(DENY_FILE, "192.0.2.7\n");
    assert!(decisions.look(now));
    for wrong in ["<html>\n", "nonsense\nmore\n"] {
        run.write(DENY_FILE, wrong);
        assert!(!decisions.look(now));
        let status = decisions.status(1010);
        assert!(
            !status.ok && status.error.contains("stay denied"),
            "{status:?}"
        );
        assert_eq!(texts(decisions.banned()), ["192.0.2.7/32"]);
    }
    let path = run.0.path().join(DENY_FILE);
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert!(!decisions.look(now));
    assert!(!decisions.status(1010).ok);
    fs::remove_dir(&path).unwrap();
    run.write(DENY_FILE, "192.0.2.7\n");
    assert!(!decisions.look(now));
    assert!(decisions.status(1010).ok);
    // Figures that are none are those of nothing that runs.
    run.write(STATUS_FILE, "{\"url\":7}");
    decisions.look(now);
    assert!(!decisions.status(1010).running);
}

#[test]
fn without_the_table_nothing_is_banned() {
    let (run, mut decisions) = Run::new();
    run.figures(1, "");
    run.write(DENY_FILE, "192.0.2.7\n");
    assert!(decisions.look(Instant::now()));
    decisions.follow(None);
    assert!(decisions.look(Instant::now()));
    assert_eq!(decisions.banned(), []);
    assert_eq!(decisions.status(1010), CrowdsecStatus::default());
}
