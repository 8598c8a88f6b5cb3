use std::fs;

use rstest::rstest;
use tempfile::TempDir;

use super::{super::finding::CheckResult, *};

fn root(files: &[(&str, &str)]) -> TempDir {
    let root = TempDir::new().unwrap();
    for (name, content) in files {
        let path = root.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    root
}

#[rstest]
#[case::postfix_of_debian(
    "usr/sbin/postfix",
    &[("etc/postfix/main.cf", "myhostname = a.example.org\nmyorigin = /etc/mailname\n"),
      ("etc/mailname", "example.org\n")],
    Some("example.org")
)]
#[case::postfix_default(
    "usr/sbin/postfix",
    &[("etc/postfix/main.cf", "# myorigin = no.example\nmyhostname=a.example.org\n")],
    Some("a.example.org")
)]
#[case::postfix_domain(
    "usr/sbin/postfix",
    &[("etc/postfix/main.cf", "myhostname=a.example.org\nmyorigin = $mydomain\n")],
    Some("example.org")
)]
#[case::postfix_itself("usr/sbin/postfix", &[("etc/postfix/main.cf", "myorigin=$myorigin")], None)]
#[case::postfix_nothing("usr/sbin/postfix", &[("etc/postfix/main.cf", "")], None)]
#[case::exim("usr/sbin/exim4", &[("etc/mailname", "Mail.Example.org.\n")], Some("mail.example.org"))]
#[case::exim_single("usr/sbin/exim4", &[("etc/mailname", "host\n")], None)]
#[case::opensmtpd("usr/sbin/smtpd", &[("etc/mailname", "example.org")], Some("example.org"))]
#[case::msmtp(
    "usr/bin/msmtp",
    &[("etc/msmtprc", "account default\nfrom  root@example.org\n")],
    Some("example.org")
)]
#[case::nullmailer(
    "usr/sbin/nullmailer-send",
    &[("etc/nullmailer/me", "a.example.org"), ("etc/nullmailer/allmailfrom", "x@example.org")],
    Some("example.org")
)]
#[case::dma(
    "usr/sbin/dma",
    &[("etc/dma/dma.conf", "MAILNAME /etc/mailname\n"), ("etc/mailname", "a.example.org")],
    Some("a.example.org")
)]
#[case::dma_masquerade(
    "usr/sbin/dma",
    &[("etc/dma/dma.conf", "#MASQUERADE x\nMASQUERADE root@example.org\n")],
    Some("example.org")
)]
#[case::sendmail(
    "usr/sbin/sendmail-mta",
    &[("etc/mail/sendmail.cf", "Djhost.example.org\nDM\nDMexample.org\n")],
    Some("example.org")
)]
#[case::no_files("usr/sbin/exim", &[], None)]
#[case::escape("usr/sbin/exim", &[("etc/mailname", "a\x1b[2J.example")], None)]
fn origins(#[case] program: &str, #[case] files: &[(&str, &str)], #[case] expected: Option<&str>) {
    let root = root(&[files, &[(program, "")]].concat());
    let senders = installed(root.path());
    assert_eq!(senders.len(), 1, "{senders:?}");
    assert_eq!(senders[0].origin.as_deref(), expected);
}

/// Files of a server that was removed are no server.
#[test]
fn files_alone_send_nothing() {
    let root = root(&[("etc/mailname", "example.org"), ("etc/postfix/main.cf", "")]);
    assert_eq!(installed(root.path()), []);
}

#[test]
fn what_becomes_of_replies() {
    let own = "mailless.example.org";
    let sender = |origin: Option<&str>| MailServer {
        name: "Postfix".to_owned(),
        origin: origin.map(str::to_owned),
        remedy: "postconf",
    };
    let result = |origin: Option<&str>, destination: &Destination| {
        let domain = origin.unwrap_or(own);
        finding(&sender(origin), domain, own, destination)
    };
    let elsewhere = Destination::Elsewhere("mx.example.org".to_owned());
    let unknown = Destination::Unknown("late".to_owned());
    let other = Some("example.org");
    assert_eq!(result(other, &elsewhere).result, CheckResult::Ok);
    assert_eq!(result(other, &unknown).result, CheckResult::Skip);
    for destination in [Destination::Here, Destination::NullMx, Destination::Nowhere] {
        let found = result(other, &destination);
        assert_eq!(found.result, CheckResult::Warn);
        assert_eq!(found.remedy.as_deref(), Some("postconf"));
    }
    let found = result(None, &unknown);
    assert_eq!(found.result, CheckResult::Warn);
    assert!(found.found.contains("most likely as @mailless.example.org"));
}
