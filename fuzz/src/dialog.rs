//! The dialog, with any input, in pieces of any size.

use std::{iter, sync::Arc, sync::LazyLock};

use nomail_agent::{
    refusal::{AfterGreeting, RefusalPoint, RelayCode},
    smtp::{
        Dialog, Outcome, RefusedDomains, Replies,
        dialog::{COMMANDS_MAX, DialogAction, Interruption, Observed},
        line::LINE_MAX,
        protocol::Protocol,
        relay::REPLY_MAX,
    },
};

const HOST: &str = "mailless.example.org";

/// This many bytes reach the bound of commands.
const MANY: usize = 8_192;

/// This many bytes reach the bound of a line.
const VERY_MANY: usize = 70_000;

/// With more bytes than this, pieces have a least size: the smaller they are, the
/// fewer inputs are tried.
const CUT_ANYWHERE_MAX: usize = 1_024;
const PIECE_MIN: usize = 32;

/// At worst an empty line, two bytes, or a byte that no text contains is
/// answered with one reply.
const OUT_PER_BYTE_MAX: usize = 100;

/// Where sessions are refused. None: they are shed.
const POINTS: [Option<(RefusalPoint, AfterGreeting)>; 6] = [
    Some((RefusalPoint::Greeting, AfterGreeting::Hold)),
    Some((RefusalPoint::Greeting, AfterGreeting::Close)),
    Some((RefusalPoint::Ehlo, AfterGreeting::Hold)),
    Some((RefusalPoint::Mail, AfterGreeting::Hold)),
    Some((RefusalPoint::Rcpt, AfterGreeting::Hold)),
    None,
];

static HOST_REPLIES: LazyLock<Replies> = LazyLock::new(|| replies(None));

static RELAY_REPLIES: LazyLock<Replies> = LazyLock::new(|| {
    let domains = [
        ("example.com", None),
        ("*.example.com", Some(Arc::from("write to example.net"))),
        ("xn--bcher-kva.example", None),
    ];
    let relay = RefusedDomains::new(
        RelayCode::Listed,
        "this domain does not accept mail",
        domains,
        Some("postmaster@example.net"),
    );
    replies(Some(Arc::new(relay)))
});

fn replies(relay: Option<Arc<RefusedDomains>>) -> Replies {
    match Replies::new(HOST, relay) {
        Ok(replies) => replies,
        Err(error) => panic!("{error}"),
    }
}

/// The first four bytes are parameters, the others what the client says:
///
/// - the point of refusal, `0` to `5`; for a relay `8` to `=`;
/// - the sizes of pieces that are passed in turn, two bytes;
/// - how often it is said: once, or with 254 repeatedly up to [`MANY`]
///   bytes, with 255 up to [`VERY_MANY`].
pub fn dialog(data: &[u8]) {
    let Some((&[point, one, other, times], said)) = data.split_first_chunk() else {
        return;
    };
    let length = match times {
        254 => MANY,
        255 => VERY_MANY,
        _ => said.len(),
    };
    let session = Session {
        point: POINTS[usize::from(point % 8) % POINTS.len()],
        replies: match point & 8 {
            0 => &HOST_REPLIES,
            _ => &RELAY_REPLIES,
        },
        said: said.iter().copied().cycle().take(length).collect(),
    };
    let mut whole = Vec::new();
    session.talk([usize::MAX, usize::MAX], |action| {
        whole.push(Answer::from(action));
    });
    session.check(&whole);
    let given = [one.into(), other.into()];
    let splits = match length {
        ..=CUT_ANYWHERE_MAX => vec![[1, 1], given.map(|size: usize| size.max(1))],
        _ => vec![given.map(|size| size.max(PIECE_MIN))],
    };
    for sizes in splits {
        let mut expected = whole.iter();
        session.talk(sizes, |action| {
            let answer = expected.next();
            assert!(
                answer.is_some_and(|answer| answer.is(&action)),
                "in pieces {action:?}, else {answer:?}"
            );
        });
        assert_eq!(expected.next(), None, "in pieces nothing");
    }
}

/// What happens in one session.
struct Session {
    point: Option<(RefusalPoint, AfterGreeting)>,
    replies: &'static Replies,
    said: Vec<u8>,
}

/// One reply, without the borrows of an [`DialogAction`].
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    line: Vec<u8>,
    may_wait: bool,
    end: Option<Outcome>,
    refused: Option<RefusalPoint>,
    observed: Option<Vec<u8>>,
}

impl Answer {
    fn is(&self, action: &DialogAction<'_>) -> bool {
        self.line == action.line
            && self.may_wait == action.may_wait
            && self.end == action.end
            && self.refused == action.refused
            && self.observed.as_deref() == action.observed.map(bytes_of)
    }
}

impl From<DialogAction<'_>> for Answer {
    fn from(action: DialogAction<'_>) -> Self {
        Self {
            line: action.line.to_vec(),
            may_wait: action.may_wait,
            end: action.end,
            refused: action.refused,
            observed: action.observed.map(|observed| bytes_of(observed).to_vec()),
        }
    }
}

const fn bytes_of(observed: Observed<'_>) -> &[u8] {
    match observed {
        Observed::Protocol(Protocol::Http) => b"HTTP",
        Observed::Protocol(Protocol::Tls) => b"TLS",
        Observed::Protocol(Protocol::Proxy) => b"PROXY",
        Observed::Protocol(Protocol::Garbage) => b"garbage",
        Observed::Sender(sender) => sender.path(),
        Observed::Recipient(recipient) => recipient.path(),
    }
}

impl Session {
    /// Passes the input in pieces of these sizes in turn, and reports the
    /// greeting and every answer.
    fn talk(&self, sizes: [usize; 2], mut report: impl FnMut(DialogAction<'_>)) {
        let replies = self.replies;
        let (mut dialog, greeting) = match self.point {
            Some((point, after_greeting)) => Dialog::open(point, after_greeting, replies),
            None => Dialog::shed(replies),
        };
        let mut ended = greeting.end.is_some();
        let mut answers = 0_usize;
        report(greeting);
        let mut rest = self.said.as_slice();
        for size in iter::repeat(sizes).flatten() {
            if rest.is_empty() {
                break;
            }
            let (mut piece, after) = rest.split_at(size.min(rest.len()));
            while !piece.is_empty() {
                let (taken, action) = dialog.receive(replies, piece);
                assert!(taken > 0, "no byte taken");
                assert!(action.is_some() || taken == piece.len(), "bytes left");
                if let Some(action) = action {
                    assert!(!ended, "an answer after the end");
                    ended = action.end.is_some();
                    answers += 1;
                    report(action);
                }
                piece = &piece[taken..];
                assert!(dialog.held() <= 2 * LINE_MAX as usize, "memory grows");
            }
            rest = after;
        }
        let commands = dialog.commands();
        assert!(commands <= COMMANDS_MAX && usize::from(commands) <= answers);
        let last_word = dialog.interrupt(replies, Interruption::Shutdown);
        assert_eq!(last_word.is_none(), ended);
        if let Some(action) = last_word {
            assert!(action.line.starts_with(b"421 ") && action.end.is_some());
        }
        assert_eq!(dialog.receive(replies, b"NOOP\r\n"), (6, None));
    }

    /// Checks what holds for every session.
    fn check(&self, answers: &[Answer]) {
        // One reply for each line, and for input that is cut off before its end.
        let lines = self.said.windows(2).filter(|pair| pair == b"\r\n").count();
        let replies = answers.len() - 1;
        match answers.last().and_then(|answer| answer.end) {
            None => assert_eq!(replies, lines),
            Some(Outcome::Closed) => assert!(replies <= lines + 1),
            Some(_) => assert!(replies <= lines),
        }
        let refused = answers.iter().filter(|answer| answer.refused.is_some());
        assert!(refused.count() <= 1, "refused twice");
        let after_greeting = answers.iter().skip(1);
        let out: usize = after_greeting.map(|answer| answer.line.len()).sum();
        assert!(out <= OUT_PER_BYTE_MAX * self.said.len(), "{out} bytes");
        for answer in answers {
            check_reply(&answer.line);
        }
    }
}

/// A reply as RFC 5321 section 4.2 has it, that asks for nothing (no 3yz), with
/// an enhanced code of its class if it has one (RFC 2034).
fn check_reply(text: &[u8]) {
    let shown = text.escape_ascii();
    let Some(lines) = text.strip_suffix(b"\r\n") else {
        panic!("no CRLF at the end: {shown}");
    };
    let lines: Vec<_> = lines.split(|&byte| byte == b'\n').collect();
    let code = &lines[0][..3];
    assert!(matches!(code[0], b'2' | b'4' | b'5'), "{shown}");
    assert!(code.iter().all(u8::is_ascii_digit), "{shown}");
    for (number, &line) in lines.iter().enumerate() {
        let last = number + 1 == lines.len();
        let line = if last {
            line
        } else {
            line.strip_suffix(b"\r").unwrap_or_default()
        };
        let (digits, text) = line.split_at(3);
        assert_eq!(digits, code, "{shown}");
        assert_eq!(text[0], if last { b' ' } else { b'-' }, "{shown}");
        let text = &text[1..];
        assert!(line.len() + 2 <= REPLY_MAX && !text.is_empty(), "{shown}");
        assert!(
            text.iter().all(|byte| (b' '..=b'~').contains(byte)),
            "{shown}"
        );
        if let &[class, b'.', subject, b'.', ..] = text
            && class.is_ascii_digit()
            && subject.is_ascii_digit()
        {
            assert_eq!(class, code[0], "{shown}");
        }
    }
}
