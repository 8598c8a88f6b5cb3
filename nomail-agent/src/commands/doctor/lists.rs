//! Checks of the list files.

use super::finding::{Check, Finding};
use crate::{
    config::Config,
    status::{ListsStatus, Status},
};

/// Of the running agent, else of the files as they are now.
pub(super) fn check(config: &Config, status: Option<&Status>) -> Vec<Finding> {
    match status {
        Some(status) => findings(&status.lists),
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
            "correct that file, then: systemctl reload nomail-agent",
        ));
    }
    let mut whole = 0;
    for file in &lists.files {
        let (path, key) = (&file.path, &file.key);
        if !file.error.is_empty() {
            findings.push(Finding::fail(
                check,
                format!("{path} of {key} is not in force: {}", file.error),
                "correct it, then: systemctl reload nomail-agent",
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
