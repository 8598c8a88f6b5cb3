//! The lists of prefixes and domains, and the errors of their files.

use serde::{Deserialize, Serialize};

use crate::{
    config::{Config, ListFile},
    text::{ascii, count},
};

/// The lists in force.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListsStatus {
    /// Prefixes that are allowed.
    pub allow: u64,
    /// Prefixes that are denied, without CrowdSec's decisions.
    pub deny: u64,
    /// Domains of `[relay]`.
    pub domains: u64,
    /// Whether nothing is denied, because a file of `lists.allow_files` could not be read.
    pub denies_nothing: bool,
    /// The files.
    pub files: Vec<ListFileStatus>,
}

/// A list file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListFileStatus {
    /// Its path.
    pub path: String,
    /// The configuration key that names it.
    pub key: String,
    /// Lines in force.
    pub entries: u64,
    /// Wrong lines, which are left out.
    pub left_out: u64,
    /// Why it could not be read; empty if it was.
    pub error: String,
    /// Its earlier lines are still in force, although it could not be read again.
    #[serde(default)]
    pub kept: bool,
}

impl From<&ListFile> for ListFileStatus {
    fn from(file: &ListFile) -> Self {
        Self {
            path: file.path.display().to_string(),
            key: file.key.to_owned(),
            entries: file.entries as u64,
            left_out: file.left_out as u64,
            error: file.unread.clone().unwrap_or_default(),
            kept: false,
        }
    }
}

impl From<&Config> for ListsStatus {
    fn from(config: &Config) -> Self {
        let domains = config.relay.as_ref().map_or(0, |relay| relay.domains.len());
        Self {
            allow: config.lists.allow.len() as u64,
            deny: config.lists.deny.len() as u64,
            domains: domains as u64,
            denies_nothing: config.lists.denies_nothing,
            files: config.list_files().map(ListFileStatus::from).collect(),
        }
    }
}

impl ListsStatus {
    /// Marks the files that can no longer be read, whose earlier lines stay in force.
    pub fn keep(&mut self, lost: &[&ListFile]) {
        for file in &mut self.files {
            let of = |lost: &&&ListFile| {
                lost.key == file.key && lost.path.display().to_string() == file.path
            };
            let found = lost.iter().find(of);
            file.kept = found.is_some();
            if let Some(found) = found {
                file.error = found.unread.clone().unwrap_or_default();
            }
        }
    }

    /// For the files of a key: the number of unread files, and of lines left out of the others.
    pub fn missing_of(&self, key: &str) -> (u64, u64) {
        let files = self.files.iter().filter(|file| file.key == key);
        files.fold((0, 0), |(unread, left_out), file| {
            match file.error.is_empty() {
                true => (unread, left_out + file.left_out),
                false => (unread + 1, left_out),
            }
        })
    }

    /// A line for each file that is not wholly in force.
    pub fn about(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if self.denies_nothing {
            lines.push(
                "NOTHING IS DENIED until every file of lists.allow_files can be read".to_owned(),
            );
        }
        for file in &self.files {
            let path = ascii(&file.path);
            if !file.error.is_empty() {
                let kept = match file.kept {
                    true => ", ITS EARLIER LINES STAY IN FORCE",
                    false => "",
                };
                lines.push(format!("{path} NOT READ{kept}: {}", ascii(&file.error)));
            } else if file.left_out > 0 {
                let wrong = count(file.left_out);
                lines.push(format!("{path}: {wrong} wrong lines are left out"));
            }
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, key: &str, left_out: u64, error: &str) -> ListFileStatus {
        ListFileStatus {
            path: path.to_owned(),
            key: key.to_owned(),
            entries: 1,
            left_out,
            error: error.to_owned(),
            kept: false,
        }
    }

    #[test]
    fn a_file_that_is_lost_is_named_and_what_it_said_counts() {
        let mut lists = ListsStatus {
            files: vec![
                file("/a", "lists.allow_files", 0, ""),
                file("/d", "lists.deny_files", 0, ""),
            ],
            ..ListsStatus::default()
        };
        let lost = ListFile {
            path: "/d".into(),
            key: "lists.deny_files",
            unread: Some("there is no such file".to_owned()),
            ..ListFile::default()
        };
        lists.keep(&[&lost]);
        assert_eq!(
            lists.about(),
            ["/d NOT READ, ITS EARLIER LINES STAY IN FORCE: there is no such file"]
        );
        assert_eq!(lists.missing_of("lists.deny_files"), (1, 0));
        assert_eq!(lists.missing_of("lists.allow_files"), (0, 0));
        assert_eq!(lists.files[1].entries, 1);
    }

    #[test]
    fn what_is_not_in_force_is_shown_and_counted_by_key() {
        let mut lists = ListsStatus {
            files: vec![file("/a", "lists.allow_files", 0, "")],
            ..ListsStatus::default()
        };
        assert!(lists.about().is_empty());
        lists.denies_nothing = true;
        lists.files = vec![
            file("/a", "lists.allow_files", 0, "there is no such file"),
            file("/\u{1b}[2J", "lists.deny_files", 1200, ""),
            file("/d", "lists.deny_files", 1, ""),
        ];
        assert_eq!(
            lists.about(),
            [
                "NOTHING IS DENIED until every file of lists.allow_files can be read",
                "/a NOT READ: there is no such file",
                "/\\u{1b}[2J: 1,200 wrong lines are left out",
                "/d: 1 wrong lines are left out",
            ]
        );
        assert_eq!(lists.missing_of("lists.allow_files"), (1, 0));
        assert_eq!(lists.missing_of("lists.deny_files"), (0, 1201));
        assert_eq!(lists.missing_of("relay.domain_files"), (0, 0));
    }
}
