//! Programs that send mail: how each is installed, configured and started, and
//! how its log shows what became of a message.

use std::{env, path::PathBuf, time::Duration};

use crate::{
    lab::Namespace,
    matrix::Outcome,
    root::{Instance, Root},
};

/// Retries after which mail that is still queued counts as deferred.
pub const RETRIES_MAX: u32 = 2;

/// A program that sends mail.
#[derive(Debug)]
pub struct Sender {
    /// As the matrix names it.
    pub name: &'static str,
    root: &'static str,
    packages: &'static [&'static str],
    /// Run once in the root, after the packages.
    install: &'static str,
    /// Run in the root at each start.
    setup: &'static [&'static str],
    /// The program that sends a message from its input: host, recipient.
    send: &'static str,
    /// Prints the version.
    version: &'static str,
    /// When it talks again to a host that has failed, and a bit more.
    pub retry_interval: Duration,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    /// It keeps a queue, retries, and returns mail to the mailbox of the sender.
    Server {
        log: &'static str,
        /// Reads a line of the log that names a recipient.
        read: fn(&str) -> Option<Fate>,
    },
    /// Its user sees what it prints and whether it succeeded.
    Client,
}

/// One attempt, as a line of the log shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Delivered,
    Deferred,
    /// As a deferral, but no host was asked: it is not time yet.
    Waiting,
    Failed,
}

/// Names of each root, and how to send: `attempt HOST RECIPIENT`.
const COMMON: &str = r#"
hostname client.example
printf '%s\n' '127.0.0.1 localhost' '127.0.0.1 client.example client' > /etc/hosts
rm -f /etc/resolv.conf
echo "nameserver $NAME_SERVER" > /etc/resolv.conf
cd /srv/nomail
cat > attempt <<'END'
cd /srv/nomail
printf '%s\n' 'From: sender@client.example' "To: $2" 'Subject: a message' \
    '' 'Is there anybody?' > "$2.message"
code=0
timeout 30 /srv/nomail/send "$1" "$2" < "$2.message" > "$2.part" 2>&1 || code=$?
echo "exit $code" >> "$2.part"
mv "$2.part" "$2.out"
END
chmod 755 send
"#;

/// Whose mailbox returned mail is put in.
const MAILBOX: &str = "/var/mail/sender";
const ADD_SENDER: &str = "useradd --no-create-home --home-dir / sender\n";

const SENDMAIL: &str = r#"#!/bin/sh
exec /usr/sbin/sendmail -f sender@client.example "$2"
"#;

const EXIM_LOG: &str = "/var/log/nomail-test/mainlog";

/// Debian's own configuration is for its debconf; what matters here is
/// Exim's default: MX and address look-up, one SMTP transport. Retry times are
/// shortened.
const EXIM: &str = r#"
install -d -o Debian-exim -g Debian-exim /var/spool/nomail-test /var/log/nomail-test
cat > /etc/exim4/exim4.conf <<END
primary_hostname = client.example
spool_directory = /var/spool/nomail-test
log_file_path = /var/log/nomail-test/%slog
keep_environment =
begin routers
returned:
  driver = accept
  domains = client.example
  transport = mailbox
dnslookup:
  driver = dnslookup
  transport = remote_smtp
  no_more
begin transports
remote_smtp:
  driver = smtp
  hosts_require_tls = ${require_tls-}
mailbox:
  driver = appendfile
  file = /var/mail/sender
  user = sender
  group = mail
begin retry
* * F,2h,10s
END
chown root:root /etc/exim4/exim4.conf
chmod 644 /etc/exim4/exim4.conf
exim4 -q1s
"#;

const POSTFIX_LOG: &str = "/var/log/nomail-test/mail.log";

/// Debian's master.cf, but no service in a chroot, which would want copies of
/// system files; main.cf is ours, with short retry times, and no chance in which
/// address comes first. All else is as Postfix has it by default.
const POSTFIX: &str = r#"
install -d /var/log/nomail-test /var/spool/nomail-test
cat > /etc/postfix/main.cf <<'END'
compatibility_level = 3.6
myhostname = client.example
mydestination = client.example
inet_interfaces = loopback-only
queue_directory = /var/spool/nomail-test
maillog_file = /var/log/nomail-test/mail.log
alias_maps =
queue_run_delay = 1s
minimal_backoff_time = 2s
maximal_backoff_time = 4s
smtp_address_preference = ipv6
END
postconf -F '*/*/chroot=n'
postconf "smtp_tls_security_level = ${require_tls:+encrypt}"
postfix start
"#;

const OPENSMTPD_LOG: &str = "/var/log/nomail-test/smtpd.log";

/// Its intervals are compiled in (400 s and more): when no attempt is under way,
/// its own tool schedules the next, and lifts the bar that a failed route has for
/// 15 s and more.
const OPENSMTPD: &str = r#"
install -d /var/log/nomail-test
cat > /etc/smtpd.conf <<END
action "returned" mbox
action "out" relay ${require_tls:+tls} helo client.example
match for domain client.example action "returned"
match for any action "out"
END
echo client.example > /etc/mailname
smtpd -d -f /etc/smtpd.conf > /var/log/nomail-test/smtpd.log 2>&1 &
while ! smtpctl show stats; do sleep 0.1; done > /dev/null 2>&1
while sleep 1; do
    ! smtpctl show queue | grep inflight || continue
    smtpctl show routes | while read -r route _; do
        smtpctl resume route "${route%.}" || true
    done
    smtpctl schedule all || true
done > /dev/null 2>&1 &
"#;

const REQUIRE_TLS: &str = "require_tls='*'\n";

/// No retry here is the program's: its user runs it again.
const CURL: &str = r#"#!/bin/sh
exec curl --silent --show-error "smtp://$1/client.example" \
    --mail-from sender@client.example --mail-rcpt "$2" --upload-file -
"#;

const MSMTP: &str = r#"#!/bin/sh
exec msmtp --host="$1" --domain=client.example --from=sender@client.example "$2"
"#;

const SWAKS: &str = r#"#!/bin/sh
exec swaks --server "$1" --helo client.example --from sender@client.example --to "$2"
"#;

const SMTPLIB: &str = r#"#!/usr/bin/python3
import smtplib, sys
host, recipient = sys.argv[1:]
with smtplib.SMTP(host, 25, local_hostname="client.example") as server:
    server.sendmail("sender@client.example", [recipient], sys.stdin.read())
"#;

/// npm itself is Debian's, unless the machine has one.
const INSTALL_NODEMAILER: &str = r#"
command -v npm > /dev/null || get nodejs npm || { apt-get update && get nodejs npm; }
npm install --prefix /opt/nodemailer --cache /tmp/npm --no-audit --no-fund nodemailer@9.1.1
"#;

const NODEMAILER: &str = r#"#!/usr/bin/env node
const { createTransport } = require("/opt/nodemailer/node_modules/nodemailer");
const [host, recipient] = process.argv.slice(2);
createTransport({ host, port: 25, name: "client.example" })
    .sendMail({
        envelope: { from: "sender@client.example", to: [recipient] },
        raw: require("fs").readFileSync(0),
    })
    .catch(({ message }) => {
        console.error(message);
        process.exit(1);
    });
"#;

/// The example of this package, which is copied there.
const LETTRE: &str = r#"#!/bin/sh
exec /srv/nomail/lettre "$1" "$2"
"#;

const POSTFIX_SENDER: Sender = Sender {
    name: "Postfix",
    root: "postfix",
    packages: &["postfix"],
    install: "",
    setup: &[ADD_SENDER, POSTFIX],
    send: SENDMAIL,
    version: "dpkg-query -Wf '${Version}' postfix",
    retry_interval: Duration::from_secs(3),
    kind: Kind::Server {
        log: POSTFIX_LOG,
        read: read_postfix,
    },
};

const EXIM_SENDER: Sender = Sender {
    name: "Exim",
    root: "exim",
    packages: &["exim4-daemon-light"],
    install: "",
    setup: &[ADD_SENDER, EXIM],
    send: SENDMAIL,
    version: "dpkg-query -Wf '${Version}' exim4-daemon-light",
    retry_interval: Duration::from_secs(11),
    kind: Kind::Server {
        log: EXIM_LOG,
        read: read_exim,
    },
};

const OPENSMTPD_SENDER: Sender = Sender {
    name: "OpenSMTPD",
    root: "opensmtpd",
    packages: &["opensmtpd"],
    install: "",
    setup: &[ADD_SENDER, OPENSMTPD],
    send: SENDMAIL,
    version: "dpkg-query -Wf '${Version}' opensmtpd",
    retry_interval: Duration::from_secs(16),
    kind: Kind::Server {
        log: OPENSMTPD_LOG,
        read: read_opensmtpd,
    },
};

/// All of them, as the rows of the matrix are ordered.
pub const SENDERS: &[Sender] = &[
    POSTFIX_SENDER,
    EXIM_SENDER,
    OPENSMTPD_SENDER,
    client(
        "msmtp",
        &["msmtp"],
        MSMTP,
        "dpkg-query -Wf '${Version}' msmtp",
    ),
    client(
        "swaks",
        &["swaks"],
        SWAKS,
        "dpkg-query -Wf '${Version}' swaks",
    ),
    client("curl", &["curl"], CURL, "dpkg-query -Wf '${Version}' curl"),
    client(
        "smtplib",
        &["python3"],
        SMTPLIB,
        "/usr/bin/python3 -c 'import platform; print(platform.python_version())'",
    ),
    Sender {
        install: INSTALL_NODEMAILER,
        ..client(
            "nodemailer",
            &[],
            NODEMAILER,
            "node -p 'require(\"/opt/nodemailer/node_modules/nodemailer/package.json\").version'",
        )
    },
    client("lettre", &[], LETTRE, "/srv/nomail/lettre --version"),
    Sender {
        name: "Postfix, TLS required",
        setup: &[REQUIRE_TLS, ADD_SENDER, POSTFIX],
        ..POSTFIX_SENDER
    },
    Sender {
        name: "Exim, TLS required",
        setup: &[REQUIRE_TLS, ADD_SENDER, EXIM],
        ..EXIM_SENDER
    },
    Sender {
        name: "OpenSMTPD, TLS required",
        setup: &[REQUIRE_TLS, ADD_SENDER, OPENSMTPD],
        ..OPENSMTPD_SENDER
    },
];

const fn client(
    name: &'static str,
    packages: &'static [&'static str],
    send: &'static str,
    version: &'static str,
) -> Sender {
    Sender {
        name,
        root: name,
        packages,
        install: "",
        setup: &[],
        send,
        version,
        retry_interval: Duration::ZERO,
        kind: Kind::Client,
    }
}

impl Sender {
    /// Whether it keeps a queue and looks up MX records itself.
    pub fn is_server(&self) -> bool {
        matches!(self.kind, Kind::Server { .. })
    }

    /// Whether it sends by TLS or not at all.
    pub fn requires_tls(&self) -> bool {
        self.setup.contains(&REQUIRE_TLS)
    }

    /// Its root, installed by this run or by an earlier one.
    ///
    /// # Panics
    /// When it cannot be installed.
    pub fn install(&self) -> Root {
        Root::install_more(self.root, self.packages, self.install)
    }

    /// Starts it in a copy of its root.
    ///
    /// # Panics
    /// When its configuration does not work.
    pub fn start<'a>(
        &'a self,
        root: &'a Root,
        namespace: &Namespace,
        name_server: &str,
    ) -> Running<'a> {
        let send = tempfile::NamedTempFile::new().expect("a temporary file");
        std::fs::write(send.path(), self.send).expect("it is writable");
        let lettre = lettre();
        let mut files = vec![(send.path(), "/srv/nomail/send")];
        if self.name == "lettre" {
            files.push((&lettre, "/srv/nomail/lettre"));
        }
        let setup = self.setup.concat();
        let version = self.version;
        let script =
            format!("NAME_SERVER={name_server}\n{COMMON}{setup}\n{version} > /srv/nomail/version");
        let mut instance = root.start_with(namespace, &script, &files);
        instance.ready();
        Running {
            sender: self,
            instance,
        }
    }
}

/// A sender in its root.
#[derive(Debug)]
pub struct Running<'a> {
    sender: &'a Sender,
    instance: Instance<'a>,
}

impl Running<'_> {
    /// What it says its version is.
    pub fn version(&self) -> String {
        let version = self.instance.read("/srv/nomail/version");
        version.trim().to_owned()
    }

    /// Sends a message; a client sends it to `host`.
    ///
    /// # Panics
    /// When the root is gone.
    pub fn send(&mut self, host: &str, recipient: &str) {
        self.instance
            .run(&format!("sh /srv/nomail/attempt {host} {recipient}"));
    }

    /// What has become of the message, and the line that shows it; nothing while
    /// that is open.
    ///
    /// Mail is returned when its sender can read `reason`.
    pub fn outcome(&self, recipient: &str, reason: &str) -> Option<(Outcome, String)> {
        let printed = self.instance.read(&format!("/srv/nomail/{recipient}.out"));
        match self.sender.kind {
            Kind::Client => printed_outcome(&printed, reason),
            Kind::Server { .. } if !printed.is_empty() && printed != "exit 0\n" => {
                Some((Outcome::Lost, last_line(&printed).to_owned()))
            }
            Kind::Server { log, read } => {
                let log = self.instance.read(log);
                let mailbox = self.instance.read(MAILBOX);
                let returned = mailbox
                    .split("\nFrom ")
                    .any(|mail| mail.contains(recipient) && mail.contains(reason));
                logged_outcome(&log, read, recipient, returned)
            }
        }
    }

    /// The end of its log and output, to explain a failure.
    pub fn tail(&self) -> String {
        const LINES: usize = 60;
        let log = match self.sender.kind {
            Kind::Server { log, .. } => self.instance.read(log),
            Kind::Client => String::new(),
        };
        let lines: Vec<_> = log.lines().collect();
        let end = lines[lines.len().saturating_sub(LINES)..].join("\n");
        format!("{}\n{end}\n", self.instance.output())
    }
}

/// Where cargo puts the example `lettre`, as seen from a test program.
fn lettre() -> PathBuf {
    let program = env::current_exe().expect("the test program has a path");
    let profile = program.ancestors().nth(2).expect("it is in deps/");
    profile.join("examples/lettre")
}

/// A client fails at once or not at all.
fn printed_outcome(printed: &str, reason: &str) -> Option<(Outcome, String)> {
    let (said, code) = printed.trim_end().rsplit_once("exit ")?;
    let explained = said.lines().rfind(|line| line.contains(reason));
    let outcome = match explained {
        _ if code == "0" => Outcome::Lost,
        Some(_) => Outcome::Returned(0),
        None => Outcome::Unexplained,
    };
    let line = explained.unwrap_or_else(|| last_line(said)).trim();
    Some((outcome, format!("{line} (exit {code})")))
}

fn logged_outcome(
    log: &str,
    read: fn(&str) -> Option<Fate>,
    recipient: &str,
    returned: bool,
) -> Option<(Outcome, String)> {
    let mut retries = 0;
    for line in log.lines().filter(|line| line.contains(recipient)) {
        let outcome = match read(line) {
            None => continue,
            Some(Fate::Delivered) => Outcome::Delivered,
            Some(Fate::Failed) if returned => Outcome::Returned(retries),
            // The mail that says so is on its way.
            Some(Fate::Failed) => return None,
            Some(Fate::Waiting) if retries > 0 => continue,
            Some(Fate::Deferred | Fate::Waiting) if retries < RETRIES_MAX => {
                retries += 1;
                continue;
            }
            Some(Fate::Deferred | Fate::Waiting) => Outcome::Deferred,
        };
        return Some((outcome, without_chance(line, recipient)));
    }
    None
}

fn last_line(text: &str) -> &str {
    text.lines()
        .rfind(|line| !line.trim().is_empty())
        .unwrap_or("nothing")
}

/// The part of a log's line that is the same in every run.
fn without_chance(line: &str, recipient: &str) -> String {
    const CHANCE: &[&str] = &["delay=", "delays=", "conn_use=", "DT=", "QT="];
    let words: Vec<_> = line.split(' ').collect();
    let to = words.iter().position(|word| word.contains(recipient));
    let mut start = to.unwrap_or_default();
    // Exim's flag is part of it.
    if start > 0 && ["**", "==", "=>", "->"].contains(&words[start - 1]) {
        start -= 1;
    }
    words[start..]
        .iter()
        .filter(|word| !CHANCE.iter().any(|chance| word.starts_with(chance)))
        .copied()
        .collect::<Vec<_>>()
        .join(" ")
}

fn read_postfix(line: &str) -> Option<Fate> {
    let status = line.split_once(" status=")?.1;
    match status.split(' ').next()? {
        "sent" => Some(Fate::Delivered),
        "deferred" => Some(Fate::Deferred),
        "bounced" => Some(Fate::Failed),
        _ => None,
    }
}

fn read_exim(line: &str) -> Option<Fate> {
    match line.split(' ').nth(3)? {
        "=>" | "->" => Some(Fate::Delivered),
        "==" if line.contains("retry time not reached") => Some(Fate::Waiting),
        "==" => Some(Fate::Deferred),
        "**" => Some(Fate::Failed),
        _ => None,
    }
}

fn read_opensmtpd(line: &str) -> Option<Fate> {
    let result = line.split_once(" result=")?.1;
    match result.split(' ').next()?.trim_matches('"') {
        "Ok" => Some(Fate::Delivered),
        "TempFail" => Some(Fate::Deferred),
        "PermFail" => Some(Fate::Failed),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POSTFIX: &str = "\
Nov 24 client postfix/smtp[9]: 4A: to=<a@x.example>, relay=x.example[192.0.2.1]:25, delay=0.1, delays=0/0/0/0, dsn=4.0.0, status=deferred (host refused: 521 x.example)
Nov 24 client postfix/smtp[9]: 4B: to=<b@x.example>, relay=x.example[192.0.2.1]:25, delay=0.1, dsn=2.0.0, status=sent (250 taken)
Nov 24 client postfix/smtp[9]: 4A: to=<a@x.example>, relay=x.example[192.0.2.1]:25, conn_use=2, delay=3, dsn=5.3.2, status=bounced (said: 521 5.3.2)
";
    const EXIM: &str = "\
2026-11-24 14:36:04 1x-1 <= sender@client.example U=root P=local S=355
2026-11-24 14:36:04 1x-1 == a@x.example R=r T=t defer (-54): retry time not reached for any host
2026-11-24 14:36:05 1x-1 == a@x.example R=r T=t defer (-54): retry time not reached for any host
2026-11-24 14:36:06 1x-1 == a@x.example R=r T=t defer (-38) H=x.example [192.0.2.1]: TLS is required
2026-11-24 14:36:07 1x-1 == a@x.example R=r T=t defer (-54): retry time not reached for any host
2026-11-24 14:36:08 1x-1 ** a@x.example R=r T=t H=x.example [192.0.2.1]: 521 x.example DT=0s
";

    #[test]
    fn a_log_tells_after_how_many_retries() {
        let (outcome, line) = logged_outcome(POSTFIX, read_postfix, "a@x.example", true).unwrap();
        assert_eq!(outcome, Outcome::Returned(1));
        assert_eq!(
            line,
            "to=<a@x.example>, relay=x.example[192.0.2.1]:25, dsn=5.3.2, status=bounced (said: 521 5.3.2)"
        );
        let (outcome, _) = logged_outcome(POSTFIX, read_postfix, "b@x.example", false).unwrap();
        assert_eq!(outcome, Outcome::Delivered);
        // As long as the returned mail has not arrived.
        assert!(logged_outcome(POSTFIX, read_postfix, "a@x.example", false).is_none());
        assert!(logged_outcome(POSTFIX, read_postfix, "c@x.example", true).is_none());
    }

    #[test]
    fn to_wait_is_no_retry() {
        let (outcome, line) = logged_outcome(EXIM, read_exim, "a@x.example", true).unwrap();
        assert_eq!(outcome, Outcome::Returned(2));
        assert_eq!(
            line,
            "** a@x.example R=r T=t H=x.example [192.0.2.1]: 521 x.example"
        );
    }

    #[test]
    fn two_retries_without_an_end_are_a_deferral() {
        let log = EXIM
            .replace("**", "==")
            .replace("-54", "-1")
            .replace("not reached", "");
        let (outcome, _) = logged_outcome(&log, read_exim, "a@x.example", true).unwrap();
        assert_eq!(outcome, Outcome::Deferred);
    }

    #[test]
    fn a_client_says_why_or_not() {
        let outcome = |printed: &str| printed_outcome(printed, "521").map(|(outcome, _)| outcome);
        assert_eq!(
            outcome("refused: 521 no\nsorry\nexit 5\n"),
            Some(Outcome::Returned(0))
        );
        assert_eq!(outcome("refused\nexit 5\n"), Some(Outcome::Unexplained));
        assert_eq!(outcome("521\nexit 0\n"), Some(Outcome::Lost));
        assert_eq!(outcome("521\n"), None);
        let (_, line) = printed_outcome(" refused: 521 no\nsorry\nexit 5\n", "521").unwrap();
        assert_eq!(line, "refused: 521 no (exit 5)");
    }
}
