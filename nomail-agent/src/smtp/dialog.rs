//! The dialog of a host that greets with 521, without input or output.
//!
//! RFC 1846 section 4.2 leaves two ways after the greeting: (a) close, or
//! (b) read, and answer 521 to everything but QUIT. [`AfterGreeting`] chooses.
//! The rules named in the tests (S1 to S26) are those of RFC 1846, RFC 7504,
//! RFC 5321, RFC 2034 and RFC 2920.
//!
//! A [`Dialog`] gives one reply at a time: the caller writes it before it
//! hands over more input, so a client that never reads makes nothing grow.
//! A command is never stored; its first few octets and its length decide.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The longest command line with its CRLF (RFC 5321 section 4.5.3.1.4).
/// A longer one is discarded up to its CRLF and answered with one 521.
pub const LINE_MAX: u32 = 512;

/// After so many octets without CRLF the session is refused and closed.
pub const LINE_DISCARD_MAX: u32 = 65_536;

/// The last command a session may send; answered, and the session is closed
/// (RFC 5321 section 7.8).
pub const COMMANDS_MAX: u16 = 1000;

/// The longest domain name, without its final dot (RFC 1035 section 2.3.4).
const DOMAIN_MAX: usize = 253;

/// The longest label of a domain name (RFC 1035 section 2.3.4).
const LABEL_MAX: usize = 63;

/// The two ways of RFC 1846 section 4.2.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AfterGreeting {
    /// (b): answer 521 to everything but QUIT.
    #[default]
    Hold,
    /// (a): close.
    Close,
}

/// What can be said. The texts are in [`Replies`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// 521, before anything was asked.
    Greeting,
    /// 521 to a command.
    Refusal,
    /// 221 to QUIT.
    Goodbye,
    /// 421: a deadline has passed.
    TimedOut,
    /// 421: the agent is stopping.
    ShuttingDown,
}

/// How a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The client said QUIT.
    Quit,
    /// A deadline passed.
    TimedOut,
    /// The client closed or reset the connection without QUIT.
    ClosedByPeer,
    /// We closed: after the greeting, on input over a bound, or on shutdown.
    Closed,
}

/// One thing to do: write the reply and, if `end` says so, close.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Action {
    /// What to write.
    pub reply: Reply,
    /// How the session has ended, if it has.
    pub end: Option<Outcome>,
}

impl Action {
    const fn go_on(reply: Reply) -> Self {
        Self { reply, end: None }
    }

    const fn close(reply: Reply, outcome: Outcome) -> Self {
        Self {
            reply,
            end: Some(outcome),
        }
    }
}

/// Why a session is cut short from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interruption {
    /// The idle or the session deadline has passed.
    Deadline,
    /// The agent is stopping.
    Shutdown,
}

/// The state of one session, in a few octets.
#[derive(Debug)]
pub struct Dialog {
    /// Octets of the current line so far, with its terminator.
    length: u32,
    /// Commands so far.
    commands: u16,
    /// The first octets of the current line: enough to tell QUIT from QUITX.
    prefix: [u8; 5],
    /// The last octet was a CR.
    after_cr: bool,
    /// The last action has been given.
    over: bool,
}

impl Dialog {
    /// A new session, and the first thing to do in it.
    pub const fn open(after_greeting: AfterGreeting) -> (Self, Action) {
        let over = matches!(after_greeting, AfterGreeting::Close);
        let dialog = Self {
            length: 0,
            commands: 0,
            prefix: [0; 5],
            after_cr: false,
            over,
        };
        let action = if over {
            Action::close(Reply::Greeting, Outcome::Closed)
        } else {
            Action::go_on(Reply::Greeting)
        };
        (dialog, action)
    }

    /// Takes octets up to the end of one command.
    ///
    /// Returns how many were taken, and what to do now. Hand over the rest
    /// only after that is done. Without an action all octets were taken. When
    /// the session is over, input is swallowed.
    pub fn receive(&mut self, input: &[u8]) -> (usize, Option<Action>) {
        if !self.over {
            for (index, &octet) in input.iter().enumerate() {
                if let Some(action) = self.take(octet) {
                    self.over = action.end.is_some();
                    return (index + 1, Some(action));
                }
            }
        }
        (input.len(), None)
    }

    /// Ends the session from outside, with the words that go with it.
    /// Nothing is left to say when it is over already.
    pub fn interrupt(&mut self, why: Interruption) -> Option<Action> {
        if self.over {
            return None;
        }
        self.over = true;
        Some(match why {
            Interruption::Deadline => Action::close(Reply::TimedOut, Outcome::TimedOut),
            Interruption::Shutdown => Action::close(Reply::ShuttingDown, Outcome::Closed),
        })
    }

    /// Takes one octet. Only CR directly followed by LF ends a line (RFC 5321
    /// section 2.3.8), whether or not they arrive together; a CR or LF alone
    /// is part of the line.
    fn take(&mut self, octet: u8) -> Option<Action> {
        if let Some(slot) = self.prefix.get_mut(self.length as usize) {
            *slot = octet;
        }
        self.length += 1;
        let complete = octet == b'\n' && self.after_cr;
        self.after_cr = octet == b'\r';
        if !complete {
            return (self.length >= LINE_DISCARD_MAX)
                .then_some(Action::close(Reply::Refusal, Outcome::Closed));
        }
        let quit = self.line_is_quit();
        self.length = 0;
        self.commands += 1;
        Some(if quit {
            Action::close(Reply::Goodbye, Outcome::Quit)
        } else if self.commands >= COMMANDS_MAX {
            Action::close(Reply::Refusal, Outcome::Closed)
        } else {
            Action::go_on(Reply::Refusal)
        })
    }

    /// Whether the complete line is QUIT: in any case, with trailing white
    /// space, and with arguments too. RFC 5321 would have 501 for these, but
    /// the client wants to go and we want it gone.
    fn line_is_quit(&self) -> bool {
        let [verb @ .., next] = &self.prefix;
        let bare = self.length as usize == verb.len() + b"\r\n".len();
        self.length <= LINE_MAX
            && verb.eq_ignore_ascii_case(b"QUIT")
            && (bare || matches!(next, b' ' | b'\t'))
    }
}

/// The texts of all replies, rendered once for a host name.
#[derive(Debug, PartialEq, Eq)]
pub struct Replies {
    greeting: Box<str>,
    refusal: Box<str>,
    goodbye: Box<str>,
    timed_out: Box<str>,
    shutting_down: Box<str>,
}

/// The host name cannot stand in a reply.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("host name {hostname:?}: {reason}")]
pub struct InvalidHostname {
    hostname: String,
    reason: &'static str,
}

impl Replies {
    /// Renders the replies of `hostname`: a domain name, or an address literal
    /// such as `[192.0.2.7]` or `[IPv6:2001:db8::7]`.
    ///
    /// The host comes first (RFC 1846 section 4.1), after the enhanced code
    /// where there is one: in all replies but the greeting (RFC 2034 section 4).
    /// A valid name leaves every line below the 512 octets of RFC 5321.
    pub fn new(hostname: &str) -> Result<Self, InvalidHostname> {
        check_hostname(hostname).map_err(|reason| InvalidHostname {
            hostname: hostname.to_owned(),
            reason,
        })?;
        let render = |text: String| (text + "\r\n").into_boxed_str();
        Ok(Self {
            greeting: render(format!("521 {hostname} does not accept mail")),
            refusal: render(format!("521 5.3.2 {hostname} does not accept mail")),
            goodbye: render(format!("221 2.0.0 {hostname} closing connection")),
            timed_out: render(format!(
                "421 4.4.2 {hostname} timed out, closing connection"
            )),
            shutting_down: render(format!(
                "421 4.3.2 {hostname} shutting down, closing connection"
            )),
        })
    }

    /// The line to write, with its CRLF.
    pub fn line(&self, reply: Reply) -> &[u8] {
        match reply {
            Reply::Greeting => &self.greeting,
            Reply::Refusal => &self.refusal,
            Reply::Goodbye => &self.goodbye,
            Reply::TimedOut => &self.timed_out,
            Reply::ShuttingDown => &self.shutting_down,
        }
        .as_bytes()
    }
}

/// `Domain` or `address-literal` of RFC 5321 section 4.1.2.
fn check_hostname(hostname: &str) -> Result<(), &'static str> {
    if let Some(literal) = hostname.strip_prefix('[') {
        let valid = literal.strip_suffix(']').is_some_and(|address| {
            match address.split_at_checked("IPv6:".len()) {
                Some((tag, address)) if tag.eq_ignore_ascii_case("IPv6:") => {
                    address.parse::<Ipv6Addr>().is_ok()
                }
                _ => address.parse::<Ipv4Addr>().is_ok(),
            }
        });
        return valid
            .then_some(())
            .ok_or("not an address literal like [192.0.2.7] or [IPv6:2001:db8::7]");
    }
    if hostname.parse::<IpAddr>().is_ok() {
        return Err("an address is written as a literal, [192.0.2.7] or [IPv6:2001:db8::7]");
    }
    if hostname.len() > DOMAIN_MAX {
        return Err("longer than 253 octets");
    }
    for label in hostname.split('.') {
        if label.is_empty() || label.len() > LABEL_MAX {
            return Err("every label has 1 to 63 octets");
        }
        if label.starts_with('-') || label.ends_with('-') {
            return Err("a label neither begins nor ends with a hyphen");
        }
        if !label
            .bytes()
            .all(|octet| octet.is_ascii_alphanumeric() || octet == b'-')
        {
            return Err("only letters, digits and hyphens between the dots");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    const HOST: &str = "mailless.example.org";
    const EVERY: [Reply; 5] = [
        Reply::Greeting,
        Reply::Refusal,
        Reply::Goodbye,
        Reply::TimedOut,
        Reply::ShuttingDown,
    ];
    const REFUSED: Action = Action::go_on(Reply::Refusal);
    const REFUSED_AND_CLOSED: Action = Action::close(Reply::Refusal, Outcome::Closed);
    const QUIT: Action = Action::close(Reply::Goodbye, Outcome::Quit);

    fn held() -> Dialog {
        Dialog::open(AfterGreeting::Hold).0
    }

    fn line(reply: Reply) -> String {
        let replies = Replies::new(HOST).unwrap();
        String::from_utf8(replies.line(reply).to_vec()).unwrap()
    }

    /// All actions on `input`, handed over in pieces of the given sizes.
    fn actions_in_pieces(input: &[u8], sizes: impl IntoIterator<Item = usize>) -> Vec<Action> {
        let mut dialog = held();
        let mut actions = Vec::new();
        let mut rest = input;
        let mut sizes = sizes.into_iter();
        while !rest.is_empty() {
            let size = sizes.next().unwrap_or(rest.len()).clamp(1, rest.len());
            let (mut piece, after) = rest.split_at(size);
            while !piece.is_empty() {
                let (taken, action) = dialog.receive(piece);
                assert!(taken > 0 && (action.is_some() || taken == piece.len()));
                actions.extend(action);
                piece = &piece[taken..];
            }
            rest = after;
        }
        actions
    }

    fn actions(input: &[u8]) -> Vec<Action> {
        actions_in_pieces(input, [])
    }

    #[test]
    fn s1_the_greeting_is_521() {
        assert_eq!(
            line(Reply::Greeting),
            "521 mailless.example.org does not accept mail\r\n"
        );
        for choice in [AfterGreeting::Hold, AfterGreeting::Close] {
            assert_eq!(Dialog::open(choice).1.reply, Reply::Greeting);
        }
    }

    #[rstest]
    #[case("a.example", true)]
    #[case("localhost", true)]
    #[case("3com.example", true)]
    #[case("xn--bcher-kva.example", true)]
    #[case("[192.0.2.7]", true)]
    #[case("[IPv6:2001:db8::7]", true)]
    #[case("[ipv6:2001:db8::7]", true)]
    #[case("", false)]
    #[case(".", false)]
    #[case("a.example.", false)]
    #[case("-a.example", false)]
    #[case("a_b.example", false)]
    #[case("b\u{fc}cher.example", false)]
    #[case("a b", false)]
    #[case("a\r\n250 ok", false)]
    #[case("192.0.2.7", false)]
    #[case("2001:db8::7", false)]
    #[case("[192.0.2.256]", false)]
    #[case("[2001:db8::7]", false)]
    #[case("[IPv6:192.0.2.7]", false)]
    #[case("[192.0.2.7", false)]
    #[case("[\u{fc}\u{fc}\u{fc}]", false)]
    fn s2_the_first_word_is_a_host_name_or_address_literal(
        #[case] hostname: &str,
        #[case] valid: bool,
    ) {
        match Replies::new(hostname) {
            Ok(replies) => {
                assert!(valid);
                let greeting = str::from_utf8(replies.line(Reply::Greeting)).unwrap();
                assert_eq!(greeting.split(' ').nth(1), Some(hostname));
            }
            Err(error) => assert!(!valid, "{error}"),
        }
    }

    #[test]
    fn s3a_close_after_the_greeting() {
        let (mut dialog, action) = Dialog::open(AfterGreeting::Close);
        assert_eq!(action.end, Some(Outcome::Closed));
        assert_eq!(dialog.receive(b"QUIT\r\nNOOP\r\n"), (12, None));
        assert_eq!(dialog.interrupt(Interruption::Deadline), None);
    }

    #[rstest]
    fn s3b_and_s7_everything_but_quit_is_answered_521(
        #[values(
            "EHLO a",
            "HELO a",
            "MAIL FROM:<>",
            "RCPT TO:<a@b>",
            "DATA",
            "RSET",
            "NOOP",
            "VRFY a",
            "HELP",
            "EXPN a",
            "STARTTLS",
            "AUTH PLAIN",
            "GET / HTTP/1.1",
            "",
            " ",
            ".",
            "QUI",
            "QUITX",
            " QUIT",
            "QUIT\r",
            "QUIT\0",
            "\u{fc}"
        )]
        command: &str,
    ) {
        assert_eq!(actions(format!("{command}\r\n").as_bytes()), [REFUSED]);
        assert!(line(Reply::Refusal).starts_with("521 "));
    }

    #[test]
    fn s4_a_time_out_closes() {
        let mut dialog = held();
        assert_eq!(
            dialog.interrupt(Interruption::Deadline),
            Some(Action::close(Reply::TimedOut, Outcome::TimedOut))
        );
        assert_eq!(dialog.interrupt(Interruption::Deadline), None);
        assert_eq!(dialog.receive(b"NOOP\r\n"), (6, None));
    }

    // S5 and S6 tell the operator when to use 521: nothing here chooses by
    // peer or by recipient. S26 is for hosts that greet with 554.

    #[test]
    fn s8_quit_is_answered_221() {
        assert_eq!(actions(b"QUIT\r\n"), [QUIT]);
        assert!(line(Reply::Goodbye).starts_with("221 "));
    }

    #[test]
    fn s9_without_quit_the_session_stays_open() {
        let open = usize::from(COMMANDS_MAX) - 1;
        assert_eq!(actions(&b"NOOP\r\n".repeat(open)), vec![REFUSED; open]);
    }

    #[test]
    fn s10_one_reply_for_one_command() {
        assert_eq!(actions(b"EHLO a\r\n\r\nNOOP\r\n"), [REFUSED; 3]);
        assert_eq!(actions(b"EHLO a\r"), []);
        assert_eq!(actions(b"QUIT\r\nQUIT\r\nNOOP\r\n"), [QUIT]);
    }

    #[test]
    fn s11_s12_s13_replies_are_single_lines_of_code_and_printable_text() {
        for reply in EVERY {
            let line = line(reply);
            let text = line.strip_suffix("\r\n").unwrap();
            let (code, text) = text.split_once(' ').unwrap();
            assert!(code.len() == 3 && code.bytes().all(|octet| octet.is_ascii_digit()));
            assert!(!text.is_empty() && text.bytes().all(|octet| (b' '..=b'~').contains(&octet)));
        }
    }

    #[test]
    fn s14_replies_have_at_most_512_octets() {
        let label = "a".repeat(LABEL_MAX);
        let longest = format!("{label}.{label}.{label}.{}", &label[..DOMAIN_MAX - 3 * 64]);
        assert_eq!(longest.len(), DOMAIN_MAX);
        let replies = Replies::new(&longest).unwrap();
        for reply in EVERY {
            assert!(replies.line(reply).len() <= 512);
        }
        assert!(Replies::new(&format!("{longest}a")).is_err());
    }

    #[rstest]
    #[case(512, &[QUIT])]
    #[case(513, &[REFUSED])]
    #[case(LINE_DISCARD_MAX, &[REFUSED])]
    #[case(LINE_DISCARD_MAX + 1, &[REFUSED_AND_CLOSED])]
    fn s15_lines_of_512_octets_are_commands(#[case] length: u32, #[case] expected: &[Action]) {
        let padding = " ".repeat(length as usize - 6);
        assert_eq!(actions(format!("QUIT{padding}\r\n").as_bytes()), expected);
    }

    #[test]
    fn s15_after_a_long_line_the_next_is_a_command() {
        let long = "a".repeat(2000);
        assert_eq!(
            actions(format!("{long}\r\nQUIT\r\n").as_bytes()),
            [REFUSED, QUIT]
        );
    }

    #[rstest]
    #[case(b"QUIT\n", &[])]
    #[case(b"QUIT\r", &[])]
    #[case(b"NOOP\nQUIT\n\r\n", &[REFUSED])]
    #[case(b"NOOP\rQUIT\r\n", &[REFUSED])]
    #[case(b"NOOP\r\r\nQUIT\r\n", &[REFUSED, QUIT])]
    #[case(b"\n\r\n\r\n", &[REFUSED, REFUSED])]
    fn s16_only_crlf_ends_a_line(#[case] input: &[u8], #[case] expected: &[Action]) {
        assert_eq!(actions(input), expected);
        assert_eq!(actions_in_pieces(input, [1; 32]), expected);
    }

    #[rstest]
    fn s17_trailing_white_space_is_tolerated(
        #[values("QUIT ", "QUIT\t", "QUIT  \t ")] command: &str,
    ) {
        assert_eq!(actions(format!("{command}\r\n").as_bytes()), [QUIT]);
    }

    #[rstest]
    fn s18_verbs_are_case_insensitive(#[values("quit", "Quit", "qUIT")] command: &str) {
        assert_eq!(actions(format!("{command}\r\n").as_bytes()), [QUIT]);
    }

    #[test]
    fn s19_quit_with_arguments_is_quit() {
        assert_eq!(actions(b"QUIT foo\r\n"), [QUIT]);
    }

    #[test]
    fn s20_a_shutdown_is_announced_with_421() {
        let action = held().interrupt(Interruption::Shutdown);
        assert_eq!(
            action,
            Some(Action::close(Reply::ShuttingDown, Outcome::Closed))
        );
        assert!(line(Reply::ShuttingDown).starts_with("421 "));
    }

    #[test]
    fn s21_postmaster_is_no_exception() {
        assert_eq!(actions(b"RCPT TO:<postmaster>\r\n"), [REFUSED]);
    }

    #[test]
    fn s22_enhanced_codes_of_their_class_but_none_in_the_greeting() {
        for reply in EVERY {
            let line = line(reply);
            let mut words = line.split(' ');
            let class = &words.next().unwrap()[..1];
            let word = words.next().unwrap();
            if reply == Reply::Greeting {
                assert_eq!(word, HOST);
            } else {
                assert!(word.starts_with(&format!("{class}.")));
                assert_eq!(words.next(), Some(HOST));
            }
        }
    }

    #[test]
    fn s23_521_goes_with_5_3_2() {
        assert!(line(Reply::Refusal).starts_with("521 5.3.2 "));
    }

    #[test]
    fn s24_pipelined_commands_are_answered_in_order_one_by_one() {
        let mut dialog = held();
        assert_eq!(dialog.receive(b"NOOP\r\nQUIT\r\n"), (6, Some(REFUSED)));
        assert_eq!(dialog.receive(b"QUIT\r\n"), (6, Some(QUIT)));
    }

    #[test]
    fn s25_a_session_that_goes_on_for_ever_is_closed() {
        let all = usize::from(COMMANDS_MAX);
        let actions = actions(&b"NOOP\r\n".repeat(all + 5));
        assert_eq!(actions.len(), all);
        assert_eq!(actions.last(), Some(&REFUSED_AND_CLOSED));
    }

    #[test]
    fn the_state_is_small() {
        assert!(size_of::<Dialog>() <= 16);
    }

    /// The same rules, said of the whole input.
    fn expected(input: &[u8]) -> Vec<Action> {
        let mut actions = Vec::new();
        let mut rest = input;
        loop {
            let end = rest
                .windows(2)
                .position(|pair| pair == b"\r\n")
                .map(|at| at + 2);
            if end.unwrap_or(rest.len() + 1) > LINE_DISCARD_MAX as usize {
                if rest.len() >= LINE_DISCARD_MAX as usize {
                    actions.push(REFUSED_AND_CLOSED);
                }
                return actions;
            }
            let Some(end) = end else { return actions };
            let words = rest[..end - 2].to_ascii_lowercase();
            let quit =
                words == b"quit" || words.starts_with(b"quit ") || words.starts_with(b"quit\t");
            if quit && end <= 512 {
                actions.push(QUIT);
                return actions;
            }
            if actions.len() + 1 == usize::from(COMMANDS_MAX) {
                actions.push(REFUSED_AND_CLOSED);
                return actions;
            }
            actions.push(REFUSED);
            rest = &rest[end..];
        }
    }

    fn input() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            8 => prop::sample::select(vec![
                &b"\r\n"[..], b"\r", b"\n", b"QUIT", b"quit", b" ", b"\t", b"X", b"EHLO a", b"NOOP\r\n",
            ]).prop_map(<[u8]>::to_vec),
            2 => prop::collection::vec(any::<u8>(), 0..8),
            1 => (500usize..520).prop_map(|length| vec![b' '; length]),
        ];
        prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn any_octets_in_any_split_give_the_same_replies(
            input in input(),
            sizes in prop::collection::vec(1usize..20, 0..200),
        ) {
            let whole = actions(&input);
            prop_assert_eq!(&whole, &expected(&input));
            prop_assert_eq!(&whole, &actions_in_pieces(&input, sizes));
            prop_assert_eq!(&whole, &actions_in_pieces(&input, vec![1; input.len()]));
        }

        #[test]
        fn replies_are_bounded_by_the_commands(input in prop::collection::vec(any::<u8>(), 0..2048)) {
            let commands = input.windows(2).filter(|pair| pair == b"\r\n").count();
            let replies = actions(&input);
            prop_assert!(replies.len() <= commands);
            let ends = replies.iter().filter(|action| action.end.is_some()).count();
            prop_assert!(ends == 0 || (ends == 1 && replies.last().is_some_and(|last| last.end.is_some())));
        }
    }
}
