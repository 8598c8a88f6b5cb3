//! Another parser's word on verbs, for the tests here and for the fuzz target
//! `command`, which takes this file in by its path.

use smtp_proto::{Error, Request};

use super::Verb;

/// The verb that we see in a line, and the one that smtp-proto sees.
///
/// Deliberate differences: smtp-proto skips white space before the verb and CRs
/// anywhere, takes LHLO (for LMTP) and an LF or a form feed as the end of a
/// verb. Callers stay clear of these. It does not know the verbs of RFC 821 and
/// RFC 1985 that are no longer in use; these are left out here.
pub(super) fn verbs(line: &str) -> (Option<Verb>, Option<Verb>) {
    let ours = Verb::of(line.as_bytes())
        .filter(|verb| !matches!(verb, Verb::Turn | Verb::Send | Verb::Soml | Verb::Saml));
    (ours, theirs(line))
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
    Verb::of(name.as_bytes())
}
