//! What a check gives, and how it is shown.

use std::fmt::Write as _;

use serde::{Serialize, Serializer};

macro_rules! checks {
    ($($check:ident $name:literal,)*) => {
        /// Everything that is looked at. `docs/doctor.md` tells what each means.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[expect(missing_docs, reason = "each is told of in docs/doctor.md")]
        pub enum Check {
            $($check,)*
        }

        impl Check {
            /// All of them, in the order of their findings.
            pub const ALL: &[Self] = &[$(Self::$check,)*];

            /// How people and scripts call it.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$check => $name,)*
                }
            }
        }
    };
}

checks! {
    Kernel "kernel",
    Btf "btf",
    BpfJit "bpf_jit",
    UnprivilegedBpf "unprivileged_bpf",
    BpfLoad "bpf_load",
    Configuration "configuration",
    Agent "agent",
    Lists "lists",
    User "user",
    Descriptors "descriptors",
    StateDir "state_dir",
    Pins "pins",
    Interface "interface",
    Topology "topology",
    XdpProgram "xdp_program",
    XdpNative "xdp_native",
    Answers "answers",
    Mtu "mtu",
    Offloads "offloads",
    Checksums "checksums",
    Addresses "addresses",
    Port "port",
    Greeting "greeting",
    Firewall "firewall",
    Conntrack "conntrack",
    SynCookies "tcp_syncookies",
    Somaxconn "somaxconn",
    Hostname "hostname",
    OwnMail "own_mail",
    Mx "mx",
    NullMx "null_mx",
    Spf "spf",
}

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// As it should be.
    Ok,
    /// It works, but worse than it could.
    Warn,
    /// It does not work, or harms somebody.
    Fail,
    /// It could not be seen, or does not apply.
    Skip,
}

impl Outcome {
    const fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
            Self::Skip => "skip",
        }
    }

    /// The colour of the word on a terminal.
    const fn sgr(self) -> &'static str {
        match self {
            Self::Ok => "32",
            Self::Warn => "33",
            Self::Fail => "31;1",
            Self::Skip => "2",
        }
    }
}

/// What one check found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The check.
    #[serde(serialize_with = "as_name")]
    pub check: Check,
    /// How it came out.
    pub result: Outcome,
    /// What was found, or why nothing was; one line without control characters.
    pub found: String,
    /// A command or a line of configuration that mends it.
    pub remedy: Option<String>,
}

fn as_name<S: Serializer>(check: &Check, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(check.name())
}

impl Finding {
    pub(super) fn ok(check: Check, found: impl AsRef<str>) -> Self {
        Self::new(check, Outcome::Ok, found.as_ref(), None)
    }

    pub(super) fn warn(check: Check, found: impl AsRef<str>, remedy: impl AsRef<str>) -> Self {
        Self::new(check, Outcome::Warn, found.as_ref(), Some(remedy.as_ref()))
    }

    pub(super) fn fail(check: Check, found: impl AsRef<str>, remedy: impl AsRef<str>) -> Self {
        Self::new(check, Outcome::Fail, found.as_ref(), Some(remedy.as_ref()))
    }

    /// It does not apply.
    pub(super) fn skip(check: Check, reason: impl AsRef<str>) -> Self {
        Self::new(check, Outcome::Skip, reason.as_ref(), None)
    }

    /// It could not be seen, but can be.
    pub(super) fn unseen(check: Check, reason: impl AsRef<str>, remedy: impl AsRef<str>) -> Self {
        Self::new(check, Outcome::Skip, reason.as_ref(), Some(remedy.as_ref()))
    }

    /// Only root sees it.
    pub(super) fn needs_root(check: Check, what: &str) -> Self {
        Self::unseen(check, format!("only root sees {what}"), "run as root")
    }

    fn new(check: Check, result: Outcome, found: &str, remedy: Option<&str>) -> Self {
        Self {
            check,
            result,
            found: escaped(found),
            remedy: remedy.map(escaped),
        }
    }
}

/// `text` with nothing that a terminal would act on.
fn escaped(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '"' | '\'' | '\\' => shown.push(character),
            _ => shown.extend(character.escape_debug()),
        }
    }
    shown
}

/// A line for each finding, in columns.
pub fn text(findings: &[Finding], colour: bool) -> String {
    let names = findings.iter().map(|finding| finding.check.name().len());
    let width = names.max().unwrap_or(0);
    let mut shown = String::new();
    for finding in findings {
        let word = format!("{:<4}", finding.result.word());
        let word = match colour {
            true => format!("\x1b[{}m{word}\x1b[0m", finding.result.sgr()),
            false => word,
        };
        // Writing to a string cannot fail.
        let _ = write!(
            shown,
            "{word}  {:<width$}  {}",
            finding.check.name(),
            finding.found
        );
        if let Some(remedy) = &finding.remedy {
            let _ = write!(shown, " -> {remedy}");
        }
        shown.push('\n');
    }
    shown
}

/// How many came out how, as a line.
pub fn summary(findings: &[Finding]) -> String {
    let count = |result| {
        findings
            .iter()
            .filter(|finding| finding.result == result)
            .count()
    };
    let noun = |count: usize, noun: &str| match count {
        1 => format!("1 {noun}"),
        _ => format!("{count} {noun}s"),
    };
    format!(
        "{}: {} ok, {}, {}, {} skipped\n",
        noun(findings.len(), "check"),
        count(Outcome::Ok),
        noun(count(Outcome::Warn), "warning"),
        noun(count(Outcome::Fail), "error"),
        count(Outcome::Skip)
    )
}

/// An array of objects with `check`, `result`, `found` and `remedy`, which is
/// null where there is none.
///
/// # Errors
/// None that can be.
pub fn json(findings: &[Finding]) -> serde_json::Result<String> {
    serde_json::to_string(findings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_aligned_and_json_says_the_same() {
        let findings = [
            Finding::ok(Check::Mx, "fine"),
            Finding::fail(Check::XdpProgram, "a \"b\"\n\u{1b}[31m\u{202e}", "do it"),
            Finding::needs_root(Check::Pins, "them"),
        ];
        assert_eq!(
            text(&findings, false),
            "ok    mx           fine\n\
             fail  xdp_program  a \"b\"\\n\\u{1b}[31m\\u{202e} -> do it\n\
             skip  pins         only root sees them -> run as root\n"
        );
        assert_eq!(
            summary(&findings),
            "3 checks: 1 ok, 0 warnings, 1 error, 1 skipped\n"
        );
        let json: serde_json::Value = serde_json::from_str(&json(&findings).unwrap()).unwrap();
        assert_eq!(json[0]["remedy"], serde_json::Value::Null);
        for (finding, json) in findings.iter().zip(json.as_array().unwrap()) {
            assert_eq!(json["check"], finding.check.name());
            assert_eq!(json["result"], finding.result.word());
            assert_eq!(json["found"], finding.found.as_str());
        }
    }

    #[test]
    fn colour_is_only_for_the_word() {
        let coloured = text(&[Finding::ok(Check::Mx, "fine")], true);
        assert_eq!(coloured, "\x1b[32mok  \x1b[0m  mx  fine\n");
    }
}
