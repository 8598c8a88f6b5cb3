//! The binary; everything is in the library.

#![deny(clippy::print_stdout)]

use std::{
    env,
    io::{IsTerminal as _, stdout},
    process::ExitCode,
};

use log::{error, warn};
use nomail_agent::{
    agent::{self, StatusClient},
    cli::{
        self, CheckConfigArgs, Commands, CrowdsecArgs, DetachArgs, DoctorArgs, RunArgs, StatusArgs,
        TopArgs,
    },
    commands::{
        crowdsec::{self, ApiKey},
        detach, doctor, top,
    },
    config::{self, LogFormat, Overrides},
    exit::{Exit, Failure},
    logging,
    text::print,
};

fn main() -> ExitCode {
    let command = match cli::parse(std::env::args_os()) {
        Ok(command) => command,
        Err(error) => return cli::report(&error).into(),
    };
    let done = match command {
        Commands::Run(RunArgs { overrides, verbose }) => run(&overrides, verbose),
        Commands::Status(asked) => {
            logging::start(0, LogFormat::Text);
            status(asked).map_err(Failure::from)
        }
        Commands::Top(asked) => {
            logging::start(0, LogFormat::Text);
            top(&asked).map_err(Failure::from)
        }
        Commands::CheckConfig(asked) => {
            logging::start(0, LogFormat::Text);
            check_config(&asked)
        }
        Commands::Doctor(asked) => {
            logging::start(0, LogFormat::Text);
            match examine(&asked) {
                Ok(true) => Ok(()),
                // The findings are printed already.
                Ok(false) => return Exit::Failed.into(),
                Err(failure) => Err(failure),
            }
        }
        Commands::Detach(asked) => {
            logging::start(0, LogFormat::Text);
            detach(&asked)
        }
        Commands::Crowdsec(CrowdsecArgs { config, verbose }) => {
            crowdsec::run(config.as_deref(), verbose)
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            for line in failure.lines() {
                error!("{line}");
            }
            failure.exit.into()
        }
    }
}

fn run(overrides: &Overrides, verbose: u8) -> Result<(), Failure> {
    // Errors of the configuration are logged as text: it names the format of the log.
    let config = load(overrides).inspect_err(|_| logging::start(verbose, LogFormat::Text))?;
    logging::start(verbose, config.log.format);
    nomail_agent::mechanisms::warn_if_one_is_off();
    agent::run(config, overrides)
}

fn status(asked: StatusArgs) -> anyhow::Result<()> {
    let status = StatusClient::new(asked.control, asked.config).ask(asked.sources)?;
    let text = match asked.json {
        true => serde_json::to_string(&status)? + "\n",
        false => status.text(is_coloured()),
    };
    print(&text)
}

/// Whether standard output takes colours, and NO_COLOR (no-color.org) does not forbid them.
fn is_coloured() -> bool {
    let unwanted = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    stdout().is_terminal() && !unwanted
}

fn top(asked: &TopArgs) -> anyhow::Result<()> {
    let client = StatusClient::new(asked.control.clone(), asked.config.clone());
    top::run(asked, move |sources| client.ask(sources))
}

fn check_config(asked: &CheckConfigArgs) -> Result<(), Failure> {
    if asked.show {
        let shown = config::show(&asked.overrides)?;
        return Ok(print(&shown)?);
    }
    let config = load(&asked.overrides)?;
    check_lists(&config)?;
    if let Some(crowdsec) = &config.crowdsec {
        check_key(crowdsec)?;
    }
    let lines = config.files.iter();
    let mut text: String = lines
        .map(|file| format!("{}: ok\n", file.display()))
        .collect();
    if text.is_empty() {
        text = format!("there is no {}: the defaults apply\n", config::DEFAULT_FILE);
    }
    Ok(print(&text)?)
}

/// Whether nothing failed.
fn examine(asked: &DoctorArgs) -> Result<bool, Failure> {
    let findings = doctor::examine(asked)?;
    let text = match asked.json {
        true => doctor::json(&findings).map_err(anyhow::Error::from)? + "\n",
        false if asked.quiet => doctor::text(&findings, is_coloured()),
        false => doctor::text(&findings, is_coloured()) + &doctor::summary(&findings),
    };
    print(&text)?;
    let failed = |finding: &doctor::Finding| finding.result == doctor::CheckResult::Fail;
    Ok(!findings.iter().any(failed))
}

/// Warns of lines that the agent leaves out. A list file that it starts without is an error
/// here: most likely its name is wrong.
fn check_lists(config: &config::Config) -> Result<(), Failure> {
    for line in config.list_files().flat_map(|file| &file.warnings) {
        warn!("{line}");
    }
    let unread = config.list_files().find(|file| file.unread.is_some());
    match unread {
        None => Ok(()),
        Some(file) => Err(Failure::new(
            Exit::Configuration,
            anyhow::anyhow!(
                "{}: nomail-agent starts without this file of {}, and reports it; correct it",
                file.path.display(),
                file.key
            ),
        )),
    }
}

/// Checks the key, unless this user may not read it, because it is secret.
fn check_key(crowdsec: &config::Crowdsec) -> Result<(), Failure> {
    match ApiKey::read(&crowdsec.api_key_file) {
        Err(error) if !error.is_denied() => Err(Failure::new(Exit::Configuration, error)),
        _ => Ok(()),
    }
}

fn detach(asked: &DetachArgs) -> Result<(), Failure> {
    let lines = detach::run(asked)?;
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    Ok(print(&text)?)
}

fn load(overrides: &Overrides) -> Result<config::Config, Failure> {
    config::load(overrides).map_err(Failure::from)
}
