//! Checks of the list files, and of CrowdSec's decisions.

use super::finding::{Check, Finding};
use crate::{
    config::Config,
    status::{CrowdsecStatus, ListsStatus, Status},
};

/// Of the running agent, else of the files as they are now.
pub(super) fn check(config: &Config, status: Option<&Status>) -> Vec<Finding> {
    match status {
        Some(status) => {
            let mut found = findings(&status.lists);
            found.extend(status.crowdsec.as_ref().and_then(decisions));
            found
        }
        None => findings(&ListsStatus::from(config)),
    }
}

fn findings(lists: &ListsStatus) -> Vec<Finding> {
    let check = Check::Lists;
    if lists.files.is_empty() {
        return vec![Finding::skip(check, "no list files are configured")];
    }
    let mut findings = Vec::new();
    if lists.denies_nothing {
        findings.push(Finding::fail(
            check,
            "nothing is denied, because a file of lists.allow_files could not be read",
            "correct that file: the agent takes it up within 10 s",
        ));
    }
    let mut whole = 0;
    for file in &lists.files {
        let (path, key) = (&file.path, &file.key);
        if !file.error.is_empty() {
            findings.push(Finding::fail(
                check,
                match file.kept {
                    true => format!(
                        "{path} of {key} cannot be read again: {}; its earlier lines stay in \
                         force",
                        file.error
                    ),
                    false => format!("{path} of {key} is not in force: {}", file.error),
                },
                "correct it: the agent takes it up within 10 s",
            ));
        } else if file.left_out > 0 {
            let left_out = file.left_out;
            findings.push(Finding::warn(
                check,
                format!("{path} of {key}: {left_out} wrong lines are left out"),
                "nomail-agent check-config shows them",
            ));
        } else {
            whole += 1;
        }
    }
    if whole > 0 {
        findings.push(Finding::ok(
            check,
            format!(
                "{whole} of {} list files are wholly in force",
                lists.files.len()
            ),
        ));
    }
    findings
}

/// None: the agent denies no decisions.
fn decisions(crowdsec: &CrowdsecStatus) -> Option<Finding> {
    let check = Check::Lists;
    if crowdsec.url.is_empty() {
        return None;
    }
    Some(if !crowdsec.running {
        Finding::fail(
            check,
            "nomail-agent crowdsec does not run, so that no decisions of CrowdSec arrive",
            "systemctl restart nomail-crowdsec; journalctl -u nomail-crowdsec says why it ended",
        )
    } else if !crowdsec.ok {
        Finding::warn(
            check,
            format!("decisions of CrowdSec: {}", crowdsec.error),
            "journalctl -u nomail-crowdsec says what to do",
        )
    } else {
        let count = crowdsec.decisions;
        Finding::ok(check, format!("{count} decisions of CrowdSec are in force"))
    })
}

#[cfg(test)]
mod tests {
    use super::{super::finding::CheckResult, *};
    use crate::status::ListFileStatus;

    fn results(lists: &ListsStatus) -> Vec<CheckResult> {
        let findings = findings(lists).into_iter();
        findings.map(|found| found.result).collect()
    }

    #[test]
    fn files_whole_or_not() {
        let file = |left_out, error: &str| ListFileStatus {
            path: "/d".to_owned(),
            key: "lists.deny_files".to_owned(),
            entries: 7,
            left_out,
            error: error.to_owned(),
            kept: false,
        };
        let mut lists = ListsStatus::default();
        assert_eq!(results(&lists), [CheckResult::Skip]);
        lists.files = vec![file(0, "")];
        assert_eq!(results(&lists), [CheckResult::Ok]);
        lists.files = vec![file(0, ""), file(1, ""), file(0, "there is no such file")];
        assert_eq!(
            results(&lists),
            [CheckResult::Warn, CheckResult::Fail, CheckResult::Ok]
        );
        lists.files = vec![file(0, "there is no such file")];
        lists.denies_nothing = true;
        assert_eq!(results(&lists), [CheckResult::Fail; 2]);
    }

    #[test]
    fn decisions_arrive_or_not() {
        let mut crowdsec = CrowdsecStatus::default();
        let result = |crowdsec: &CrowdsecStatus| decisions(crowdsec).map(|found| found.result);
        assert_eq!(result(&crowdsec), None);
        crowdsec.url = "http://127.0.0.1:8080".to_owned();
        assert_eq!(result(&crowdsec), Some(CheckResult::Fail));
        crowdsec.running = true;
        assert_eq!(result(&crowdsec), Some(CheckResult::Warn));
        crowdsec.ok = true;
        assert_eq!(result(&crowdsec), Some(CheckResult::Ok));
        let status = Status {
            crowdsec: Some(crowdsec),
            ..Status::default()
        };
        let found = check(&Config::default(), Some(&status));
        let results: Vec<_> = found.iter().map(|found| found.result).collect();
        assert_eq!(results, [CheckResult::Skip, CheckResult::Ok]);
    }

    #[test]
    fn the_running_agent_knows_what_is_in_force() {
        let status = Status {
            lists: ListsStatus {
                denies_nothing: true,
                files: vec![ListFileStatus::default()],
                ..ListsStatus::default()
            },
            ..Status::default()
        };
        let config = Config::default();
        assert_eq!(check(&config, None)[0].result, CheckResult::Skip);
        assert_eq!(check(&config, Some(&status))[0].result, CheckResult::Fail);
    }
}
