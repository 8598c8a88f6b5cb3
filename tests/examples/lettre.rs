//! Sends the message on its input as a program that uses lettre would: host,
//! recipient.

#![allow(clippy::print_stderr, reason = "what its user sees")]

use std::{error::Error, io::Read as _, process::ExitCode};

use lettre::{
    SmtpTransport, Transport as _, address::Envelope, transport::smtp::extension::ClientId,
};

const LOCK: &str = include_str!("../../Cargo.lock");

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    match &arguments[..] {
        [version] if version == "--version" => {
            println!("{}", version_in_lock());
            ExitCode::SUCCESS
        }
        [host, recipient] => match send(host, recipient) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("{error}");
                ExitCode::FAILURE
            }
        },
        _ => ExitCode::from(64),
    }
}

fn send(host: &str, recipient: &str) -> Result<(), Box<dyn Error>> {
    let mut message = Vec::new();
    std::io::stdin().read_to_end(&mut message)?;
    let envelope = Envelope::new(
        Some("sender@client.example".parse()?),
        vec![recipient.parse()?],
    )?;
    SmtpTransport::builder_dangerous(host)
        .hello_name(ClientId::Domain("client.example".to_owned()))
        .build()
        .send_raw(&envelope, &message)?;
    Ok(())
}

/// lettre has no constant for it.
fn version_in_lock() -> &'static str {
    LOCK.split_once("name = \"lettre\"\nversion = \"")
        .and_then(|(_, rest)| rest.split('"').next())
        .unwrap_or_default()
}
