//! What the tables come to whose keys name files: prefixes and domains.

use std::{path::PathBuf, sync::Arc};

use ipnet::IpNet;

use super::{choices::RelayCode, stamp::Stamp};

/// The sources of `[lists]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListSources {
    /// Networks without host bits, IPv4 before IPv6, sorted, each once. Those that
    /// the configuration itself names are not in [`Self::deny`] too.
    pub allow: Arc<[IpNet]>,
    /// Networks as in [`Self::allow`].
    pub deny: Arc<[IpNet]>,
    /// Nothing is denied, because a file of allowed sources could not be read.
    pub denies_nothing: bool,
    /// The files that a reload reads, those of allowed sources first.
    pub files: Vec<ListFile>,
    /// What the table says, from which the lists are read again.
    pub(super) written: WrittenLists,
}

/// The values of `[lists]` as they are written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct WrittenLists {
    pub(super) allow: Vec<String>,
    pub(super) deny: Vec<String>,
    pub(super) allow_files: Vec<PathBuf>,
    pub(super) deny_files: Vec<PathBuf>,
}

/// `[relay]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relay {
    /// The domains, each once, in the order they are written in. Empty only where
    /// its files have none, or could not be read.
    pub domains: Vec<RelayDomain>,
    /// The codes of the refusal.
    pub code: RelayCode,
    /// The text of the refusal for a domain without its own: printable ASCII.
    pub text: String,
    /// The mailbox that mail to postmaster is pointed to, in ASCII.
    pub postmaster: Option<String>,
    /// The files that a reload reads.
    pub files: Vec<ListFile>,
    /// `relay.domains` as it is written.
    pub written: Vec<String>,
}

/// A domain that takes no mail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelayDomain {
    /// `example.org`, or `*.example.org` for all names below it and not itself.
    /// In lower case, in A-labels, without a final dot.
    pub name: String,
    /// Replaces [`Relay::text`]: printable ASCII.
    pub text: Option<Arc<str>>,
}

/// A list file that the configuration names, and what was read of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListFile {
    /// Its path; absolute.
    pub path: PathBuf,
    /// The key that names it, such as `lists.deny_files`.
    pub key: &'static str,
    /// Lines that were taken.
    pub entries: usize,
    /// Wrong lines, which were left out.
    pub left_out: usize,
    /// Why nothing of the file is in force. None: it was read.
    pub unread: Option<String>,
    /// What to log about it, each with its place; bounded.
    pub warnings: Vec<String>,
    /// The stamp of the file when it was read. None: it could not be opened.
    pub stamp: Option<Stamp>,
}
