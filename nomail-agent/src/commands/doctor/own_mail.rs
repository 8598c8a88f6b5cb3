//! Checks whether a mail server on the host sends with addresses that are refused here.
//! Receivers that verify senders by calling back reject such mail, and its bounces are lost.

use std::{
    fs::File,
    io::Read as _,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
};

use super::{
    dns::{Destination, destination_of},
    finding::{Check, Finding},
    host::Host,
};
use crate::net::{has_listener, listening_process};

/// Bytes that are read of a file.
const FILE_MAX: u64 = 256 << 10;
/// Where a mail server accepts mail from the host itself.
const LOOPBACK: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 25);
/// The kernel's name of this program.
const OWN_PROGRAM: &str = "nomail-agent";

/// A mail server that may be installed.
struct KnownServer {
    name: &'static str,
    /// It is installed if any of these programs exists.
    programs: &'static [&'static str],
    /// The domain that it sends with, if its files say.
    origin: fn(&Path) -> Option<String>,
    remedy: &'static str,
}

const KNOWN_SERVERS: &[KnownServer] = &[
    KnownServer {
        name: "Postfix",
        programs: &["usr/sbin/postfix"],
        origin: postfix,
        remedy: "postconf -e myorigin=example.org, a domain that takes mail; then systemctl reload \
                 postfix",
    },
    KnownServer {
        name: "Exim",
        programs: &["usr/sbin/exim4", "usr/sbin/exim", "usr/exim/bin/exim"],
        origin: mailname,
        remedy: "write a domain that takes mail into /etc/mailname (elsewhere than on Debian: \
                 qualify_domain), and restart Exim",
    },
    KnownServer {
        name: "OpenSMTPD",
        programs: &["usr/sbin/smtpd"],
        origin: opensmtpd,
        remedy: "action \"relay\" relay mail-from \"@example.org\", in smtpd.conf, with a domain that \
                 takes mail",
    },
    KnownServer {
        name: "msmtp",
        programs: &["usr/bin/msmtp"],
        origin: msmtp,
        remedy: "from %U@example.org, in /etc/msmtprc, with a domain that takes mail",
    },
    KnownServer {
        name: "nullmailer",
        programs: &["usr/sbin/nullmailer-send"],
        origin: nullmailer,
        remedy: "write an address of a domain that takes mail into /etc/nullmailer/allmailfrom",
    },
    KnownServer {
        name: "dma",
        programs: &["usr/sbin/dma", "usr/libexec/dma"],
        origin: dma,
        remedy: "MASQUERADE example.org, in /etc/dma/dma.conf, with a domain that takes mail",
    },
    KnownServer {
        name: "Sendmail",
        programs: &["usr/sbin/sendmail-mta", "usr/libexec/sendmail/sendmail"],
        origin: sendmail,
        remedy: "MASQUERADE_AS(`example.org') and FEATURE(`masquerade_envelope'), in sendmail.mc, \
                 with a domain that takes mail",
    },
];

const REMEDY: &str = "have it send with an envelope sender of a domain that takes mail";

/// A mail server that may send the host's mail.
#[derive(Clone, Debug, PartialEq, Eq)]
struct MailServer {
    name: String,
    /// The domain that it sends with; none if its files do not say.
    origin: Option<String>,
    remedy: &'static str,
}

pub(super) async fn check(host: &Host) -> Vec<Finding> {
    let mut senders = installed(Path::new("/"));
    if senders.is_empty() {
        senders.extend(listening());
    }
    if senders.is_empty() {
        return vec![Finding::ok(
            Check::OwnMail,
            "no mail server for this host's own mail was found",
        )];
    }
    let own = host.name.as_str().to_ascii_lowercase();
    let mut findings = Vec::new();
    for sender in senders {
        let domain = sender.origin.clone().unwrap_or_else(|| own.clone());
        let destination = match domain.starts_with('[') {
            // An address literal is this host's: there is nothing to look up.
            true => Destination::Here,
            false => destination_of(host, &domain).await,
        };
        findings.push(finding(&sender, &domain, &own, &destination));
    }
    findings
}

/// The mail servers that are installed below `root`.
fn installed(root: &Path) -> Vec<MailServer> {
    let is_there = |server: &&KnownServer| {
        let mut programs = server.programs.iter();
        programs.any(|program| root.join(program).exists())
    };
    let found = KNOWN_SERVERS.iter().filter(is_there);
    found
        .map(|server| MailServer {
            name: server.name.to_owned(),
            origin: (server.origin)(root).and_then(|origin| plain(&origin)),
            remedy: server.remedy,
        })
        .collect()
}

/// Any other process that listens on loopback.
fn listening() -> Option<MailServer> {
    let address = SocketAddr::from(LOOPBACK);
    let holder = listening_process(address);
    let is_ours = |holder: &String| holder.starts_with(OWN_PROGRAM);
    if !has_listener(address) || holder.as_ref().is_some_and(is_ours) {
        return None;
    }
    let shown = format!("the process that listens on {address}");
    Some(MailServer {
        name: holder.unwrap_or(shown),
        origin: None,
        remedy: REMEDY,
    })
}

fn finding(sender: &MailServer, domain: &str, own: &str, destination: &Destination) -> Finding {
    let check = Check::OwnMail;
    let name = &sender.name;
    let how = match sender.origin {
        Some(_) => format!("{name} sends this host's mail as @{domain}"),
        None => format!("{name} sends this host's mail, most likely as @{domain}"),
    };
    let harm = "receivers that verify senders reject it, and bounces are lost";
    let warn = |why: &str| Finding::warn(check, format!("{how}, {why}: {harm}"), sender.remedy);
    match destination {
        Destination::Elsewhere(exchange) => {
            Finding::ok(check, format!("{how}, whose mail {exchange} takes"))
        }
        Destination::Here => warn("whose mail is refused here"),
        Destination::NullMx => warn("which has a null MX (RFC 7505 section 4.2)"),
        Destination::Nowhere => warn("which has neither an MX nor an address"),
        // Few hosts have an MX record for their own name.
        Destination::Unknown(_) if domain == own => warn("whose mail is refused here"),
        Destination::Unknown(error) => Finding::unseen(
            check,
            format!("{how}; whether that takes mail: {error}"),
            format!("dig MX {domain}"),
        ),
    }
}

fn read(root: &Path, name: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let file = File::open(root.join(name)).ok()?;
    file.take(FILE_MAX).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// The lines of a file that are no comments.
fn lines(text: &str) -> impl Iterator<Item = &str> {
    let lines = text.lines().map(str::trim);
    lines.filter(|line| !line.is_empty() && !line.starts_with('#'))
}

fn first_line(root: &Path, name: &str) -> Option<String> {
    let text = read(root, name)?;
    lines(&text).next().map(str::to_owned)
}

/// The value of `KEY VALUE`, the last one.
fn value(text: &str, key: &str) -> Option<String> {
    let values = lines(text).filter_map(|line| {
        let (found, value) = line.split_once([' ', '\t'])?;
        (found == key).then(|| value.trim().to_owned())
    });
    values.last()
}

/// A domain, from `domain`, `@domain` or `user@domain`, if it is one.
fn plain(origin: &str) -> Option<String> {
    let domain = origin.rsplit('@').next().unwrap_or(origin);
    let domain = domain.trim().trim_end_matches('.').to_ascii_lowercase();
    let fit = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.');
    (domain.contains('.') && domain.bytes().all(fit)).then_some(domain)
}

fn mailname(root: &Path) -> Option<String> {
    first_line(root, "etc/mailname")
}

/// `myorigin`, which may be a file, or another parameter; by default `myhostname`.
fn postfix(root: &Path) -> Option<String> {
    let text = read(root, "etc/postfix/main.cf")?;
    let parameter = |name: &str| {
        let values = lines(&text).filter_map(|line| {
            let (found, value) = line.split_once('=')?;
            (found.trim() == name).then(|| value.trim().to_owned())
        });
        values.last()
    };
    let mut value = parameter("myorigin").unwrap_or_else(|| "$myhostname".to_owned());
    // Bounded, because parameters may name each other in a circle.
    for _ in 0..4 {
        let Some(name) = value.strip_prefix('$') else {
            break;
        };
        let name = name.trim_matches(['{', '}', '(', ')']);
        value = match (parameter(name), name) {
            (Some(value), _) => value,
            (None, "mydomain") => {
                let host = parameter("myhostname")?;
                host.split_once('.')?.1.to_owned()
            }
            (None, _) => return None,
        };
    }
    match value.strip_prefix('/') {
        Some(file) => first_line(root, file),
        None => Some(value),
    }
}

fn opensmtpd(root: &Path) -> Option<String> {
    first_line(root, "etc/mail/mailname").or_else(|| mailname(root))
}

fn msmtp(root: &Path) -> Option<String> {
    let text = read(root, "etc/msmtprc")?;
    value(&text, "from").or_else(|| value(&text, "maildomain"))
}

fn nullmailer(root: &Path) -> Option<String> {
    let files = ["etc/nullmailer/allmailfrom", "etc/nullmailer/defaultdomain"];
    let mut files = files.iter().chain(&["etc/nullmailer/me", "etc/mailname"]);
    files.find_map(|file| first_line(root, file))
}

fn dma(root: &Path) -> Option<String> {
    let text = read(root, "etc/dma/dma.conf").unwrap_or_default();
    let origin = value(&text, "MASQUERADE").or_else(|| value(&text, "MAILNAME"));
    match origin {
        None => mailname(root),
        Some(origin) => match origin.strip_prefix('/') {
            Some(file) => first_line(root, file),
            None => Some(origin),
        },
    }
}

/// `DM`, the masquerade, or `Dj`, the host's name.
fn sendmail(root: &Path) -> Option<String> {
    let text = read(root, "etc/mail/sendmail.cf")?;
    let macro_of = |prefix: &str| {
        let mut values = lines(&text).filter_map(|line| line.strip_prefix(prefix));
        values.find(|value| !value.is_empty()).map(str::to_owned)
    };
    macro_of("DM").or_else(|| macro_of("Dj"))
}

#[cfg(test)]
mod tests;
