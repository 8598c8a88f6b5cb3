//! Where and how mail is refused: the words that configuration and dialog share.

use nomail_common::counted;

counted! {
    /// The point of a session at which it is refused.
    pub enum RefusalPoint "refused_" {
        /// 521 as the greeting (RFC 1846 section 4, RFC 7504).
        Greeting "greeting" "in the greeting";
        /// 220, then 521 to EHLO and HELO.
        Ehlo "ehlo" "at EHLO";
        /// 220, 250, then 521 to MAIL.
        Mail "mail" "at MAIL";
        /// 220, 250, 250, then 521 to RCPT, or the reply of the relay.
        Rcpt "rcpt" "at RCPT";
    }
}

/// What follows a 521 greeting (RFC 1846 section 4.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AfterGreeting {
    /// Option b: answer 521 to everything except QUIT.
    #[default]
    Hold,
    /// Option a: close.
    Close,
}

/// The code with which a relay refuses a domain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RelayCode {
    /// 556 5.1.2: a list says that the domain accepts no mail (RFC 7504 section 4).
    #[default]
    Listed,
    /// 556 5.1.10: the domain has a null MX (RFC 7505 section 4.1).
    NullMx,
    /// 521 5.3.2: the letter of RFC 1846 section 3.
    Rfc1846,
}

impl RelayCode {
    /// The reply code.
    pub const fn code(self) -> u16 {
        match self {
            Self::Listed | Self::NullMx => 556,
            Self::Rfc1846 => 521,
        }
    }

    /// The enhanced status code (RFC 2034).
    pub const fn enhanced_code(self) -> &'static str {
        match self {
            Self::Listed => "5.1.2",
            Self::NullMx => "5.1.10",
            Self::Rfc1846 => "5.3.2",
        }
    }
}
