//! Single command lines.

use nomail_agent::smtp::{
    command::{Command, Recipient, ReversePath, Verb, parse},
    protocol::Protocol,
};

#[path = "../../nomail-agent/src/smtp/command/oracle.rs"]
mod oracle;

/// The bytes of one line, also as the paths of MAIL and RCPT: the result
/// is a part of the input, and smtp-proto sees the same verbs.
pub fn command(line: &[u8]) {
    check(line);
    check(&[b"MAIL FROM:", line].concat());
    check(&[b"RCPT TO:<", line, b">"].concat());
    recognise_in_pieces(line);
    if let Ok(text) = str::from_utf8(line)
        && is_common_ground(text)
    {
        let (ours, theirs) = oracle::verbs(text);
        assert_eq!(ours, theirs);
    }
}

fn check(line: &[u8]) {
    let parsed = parse(line);
    assert_eq!(parsed.is_some(), Verb::of(line) != Verb::Other);
    let mailbox = match parsed {
        Some(Command::Mail(ReversePath::Mailbox(mailbox))) => mailbox,
        Some(Command::Rcpt(Recipient::Mailbox(mailbox))) => mailbox,
        Some(Command::Mail(ReversePath::Other(path)) | Command::Rcpt(Recipient::Other(path))) => {
            assert!(path.is_empty() || line.windows(path.len()).any(|at| at == path));
            return;
        }
        _ => return,
    };
    let address = [mailbox.local, b"@", mailbox.domain].concat();
    assert!(mailbox.path.ends_with(&address));
    let path = mailbox.path;
    assert!(line.windows(path.len()).any(|at| at == path));
    // A domain is looked up and shown to people.
    assert!(!mailbox.domain.iter().any(u8::is_ascii_control));
}

/// How a line is cut never changes the protocol that is recognised.
fn recognise_in_pieces(line: &[u8]) {
    let mut pieces = (0..line.len()).map(|seen| Protocol::recognise(&line[..=seen], seen));
    assert_eq!(pieces.find_map(|found| found), Protocol::recognise(line, 0));
}

/// Whether smtp-proto and nomail must agree on a line: see [`oracle::verbs`].
fn is_common_ground(line: &str) -> bool {
    let text = line.bytes().all(|byte| matches!(byte, b' '..=b'~' | b'\t'));
    let is_lhlo = |line: &str| {
        line.get(..4)
            .is_some_and(|word| word.eq_ignore_ascii_case("LHLO"))
    };
    text && !line.starts_with([' ', '\t']) && !is_lhlo(line)
}
