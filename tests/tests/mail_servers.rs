//! Real mail servers meet the agent: what becomes of a message whose first
//! contact is the 521 greeting. All senders and points of refusal: `senders.rs`.

use nomail_tests::{
    agent::{Agent, on_host},
    flood::answerable,
    lab::{CLIENT_INTERFACE, Lab},
    poll::until,
    root::Root,
};

const GREETING: &str = "521 mailless.example.org does not accept mail";

/// Run first in each root. The names are in no DNS: the resolver is one that
/// refuses at once, so that no look-up is waited for.
const CLIENT: &str = r#"
hostname client.example
printf '%s\n' '127.0.0.1 localhost' '192.0.2.100 client.example client' > /etc/hosts
rm -f /etc/resolv.conf
echo nameserver 127.0.0.1 > /etc/resolv.conf
send() {
    printf '%s\n' 'From: sender@client.example' 'To: user@mailless.example.org' \
        'Subject: a message' '' 'Is there anybody?' |
        /usr/sbin/sendmail -f sender@client.example user@mailless.example.org
}
"#;

/// Exim's spool and log are its own; so is the mailbox that returned mail is put
/// in. The domain is routed by hand, as there is no MX.
const EXIM: &str = r#"
install -d -o Debian-exim -g Debian-exim /var/spool/nomail-test /var/log/nomail-test
cat > /etc/exim4/exim4.conf <<'END'
primary_hostname = client.example
spool_directory = /var/spool/nomail-test
log_file_path = /var/log/nomail-test/%slog
keep_environment =
begin routers
to_nomail:
  driver = manualroute
  domains = mailless.example.org
  route_list = * 192.0.2.1
  transport = to_nomail
returned:
  driver = accept
  domains = client.example
  transport = mailbox
begin transports
to_nomail:
  driver = smtp
mailbox:
  driver = appendfile
  file = /var/spool/nomail-test/mailbox
  user = Debian-exim
begin retry
* * F,2h,15m
END
chown root:root /etc/exim4/exim4.conf
chmod 644 /etc/exim4/exim4.conf
send
"#;

/// Debian's master.cf, but no service in a chroot, which would want copies of
/// system files; main.cf is ours. All else is as Postfix has it by default.
const POSTFIX: &str = r#"
install -d /var/log/nomail-test
cat > /etc/postfix/main.cf <<'END'
compatibility_level = 3.6
myhostname = client.example
mydestination =
inet_interfaces = loopback-only
queue_directory = /var/spool/nomail-test
maillog_file = /var/log/nomail-test/mail.log
relayhost = [192.0.2.1]:25
alias_maps =
END
postconf -F '*/*/chroot=n'
install -d /var/spool/nomail-test
postfix start
send
"#;

/// What speaks: sockets, or XDP without any.
const RESPONDERS: [&str; 2] = ["listener", "xdp"];

fn agent(lab: &Lab, responder: &str) -> Agent {
    let more = format!("--refuse-at greeting --responder {responder}");
    Agent::start(&lab.host, &on_host(&more))
}

/// The agent has seen one client, which was told 521 and said QUIT.
fn one_refused_and_quit(agent: &Agent, responder: &str) {
    if responder == "xdp" {
        until("one dialog, greeted, quit, without a connection", || {
            (agent.count("/answers/greeted") > 0 && agent.count("/answers/quit") > 0).then_some(())
        });
        assert_eq!(agent.count("/connections/accepted"), 0);
        return;
    }
    until("one connection, refused in the greeting, quit", || {
        let connections = &agent.status()["connections"];
        ["accepted", "refused_greeting", "quit"]
            .iter()
            .all(|counter| connections[counter] == 1)
            .then_some(())
    });
}

#[test]
fn exim_returns_the_mail_at_once() {
    let root = Root::install("exim", &["exim4-daemon-light"]);
    for responder in RESPONDERS {
        let lab = Lab::new();
        let _program = answerable(&lab.client, CLIENT_INTERFACE);
        let agent = agent(&lab, responder);
        let mut exim = root.start(&lab.client, &format!("{CLIENT}{EXIM}"));
        let log = "/var/log/nomail-test/mainlog";

        let failed = exim.line(log, &["** user@mailless.example.org", GREETING]);
        let message = failed.split_whitespace().nth(2).unwrap();
        // Generated for the sender, delivered to the sender, and nothing is left of
        // the message.
        exim.line(log, &["<= <>", &format!("R={message}")]);
        exim.line(log, &["=> sender <sender@client.example>"]);
        exim.line(log, &[message, "Completed"]);
        exim.line("/var/spool/nomail-test/mailbox", &[GREETING]);
        let log = exim.read(log);
        assert!(!log.contains(" == "), "deferred first:\n{log}");
        one_refused_and_quit(&agent, responder);
    }
}

#[test]
fn postfix_records_the_521() {
    let root = Root::install("postfix", &["postfix"]);
    for responder in RESPONDERS {
        let lab = Lab::new();
        let _program = answerable(&lab.client, CLIENT_INTERFACE);
        let agent = agent(&lab, responder);
        let mut postfix = root.start(&lab.client, &format!("{CLIENT}{POSTFIX}"));

        // Its default, smtp_skip_5xx_greeting, makes a 4 of the 5: the sender gets
        // the text only when the mail has been in the queue for too long.
        let refused = format!("refused to talk to me: {GREETING}");
        postfix.line(
            "/var/log/nomail-test/mail.log",
            &[
                "to=<user@mailless.example.org>",
                "status=deferred",
                &refused,
            ],
        );
        one_refused_and_quit(&agent, responder);
    }
}
