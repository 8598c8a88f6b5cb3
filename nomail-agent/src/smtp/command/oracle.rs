//! The verbs that another parser sees, for the tests here and for the fuzz target
//! `command`, which includes this file by its path.

use smtp_proto::{Error, Request};

use super::Verb;

/// Returns the verb that [`Verb::of`] sees in a line, and the one that smtp-proto sees.
///
/// Deliberate differences: smtp-proto skips white space before the verb and CRs
/// anywhere, takes LHLO (for LMTP) and an LF or a form feed as the end of a
/// verb. Callers avoid these. It does not know the obsolete verbs of RFC 821, which
/// are left out here.
pub(super) fn verbs(line: &str) -> (Verb, Verb) {
    let ours = match Verb::of(line.as_bytes()) {
        Verb::Turn | Verb::Send | Verb::Soml | Verb::Saml => Verb::Other,
        verb => verb,
    };
    (ours, theirs(line).unwrap_or(Verb::Other))
}

fn theirs(line: &str) -> Option<Verb> {
    let line = format!("{line}\r\n");
    let name = match Request::parse(&mut line.as_bytes().iter()) {
        Ok(Request::Helo { .. }) => "HELO",
        Ok(Request::Ehlo { .. }) => "EHLO",
        Ok(Request::Mail { .. }) | Err(Error::InvalidSenderAddress) => "MAIL",
        Ok(Request::Rcpt { .. }) | Err(Error::InvalidRecipientAddress) => "RCPT",
        Ok(Request::Data) => "DATA",
        Ok(Request::Rset) => "RSET",
        Ok(Request::Noop { .. }) => "NOOP",
        Ok(Request::Vrfy { .. }) => "VRFY",
        Ok(Request::Help { .. }) => "HELP",
        Ok(Request::Quit) => "QUIT",
        Ok(Request::Expn { .. }) => "EXPN",
        Ok(Request::StartTls) => "STARTTLS",
        Ok(Request::Auth { .. }) => "AUTH",
        Ok(Request::Bdat { .. }) => "BDAT",
        Ok(Request::Burl { .. }) => "BURL",
        Ok(Request::Etrn { .. }) => "ETRN",
        Ok(Request::Atrn { .. }) => "ATRN",
        Err(Error::SyntaxError { syntax }) => syntax.split(' ').next()?,
        // Only MAIL and RCPT have parameters, and are read beyond the end of the
        // line when they lack their colon.
        Err(
            Error::InvalidParameter { .. }
            | Error::UnsupportedParameter { .. }
            | Error::NeedsMoreData { .. },
        ) => line.get(..4)?,
        Err(Error::UnknownCommand) => return None,
        other => panic!("{line:?}: {other:?}"),
    };
    Some(Verb::of(name.as_bytes()))
}
