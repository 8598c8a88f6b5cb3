//! The binary; everything is in the library.

use std::{
    env,
    io::{self, IsTerminal as _, Write as _, stdout},
    process::ExitCode,
};

use anyhow::Context as _;
use log::{error, warn};
use nomail_agent::{
    cli::{self, CheckConfig, Command, Detach, Doctor, Run, Status, Top},
    config::{self, LogFormat, Overrides},
    crowdsec::ApiKey,
    doctor,
    exit::{Exit, Failure},
    logging,
    supervisor::{self, Teller},
    top,
};

fn main() -> ExitCode {
    let command = match cli::parse(std::env::args_os()) {
        Ok(command) => command,
        Err(error) => return cli::report(&error).into(),
    };
    let done = match command {
        Command::Run(Run { overrides, verbose }) => run(&overrides, verbose),
        Command::Status(asked) => {
            logging::start(0, LogFormat::Text);
            status(asked).map_err(Failure::from)
        }
        Command::Top(asked) => {
            logging::start(0, LogFormat::Text);
            top(&asked).map_err(Failure::from)
        }
        Command::CheckConfig(asked) => {
            logging::start(0, LogFormat::Text);
            check_config(&asked)
        }
        Command::Doctor(asked) => {
            logging::start(0, LogFormat::Text);
            match examine(&asked) {
                Ok(true) => Ok(()),
                // It is told already.
                Ok(false) => return Exit::Failed.into(),
                Err(failure) => Err(failure),
            }
        }
        Command::Detach(asked) => {
            logging::start(0, LogFormat::Text);
            detach(&asked)
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
    // What is wrong with the configuration is told as text: the form of the log
    // is a part of it.
    let config = load(overrides).inspect_err(|_| logging::start(verbose, LogFormat::Text))?;
    logging::start(verbose, config.log.format);
    supervisor::run(config, overrides)
}

fn status(asked: Status) -> anyhow::Result<()> {
    let told = Teller::new(asked.control, asked.config).tell(asked.sources)?;
    let mut out = io::stdout().lock();
    let colour = out.is_terminal() && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let text = match asked.json {
        true => serde_json::to_string(&told)? + "\n",
        false => told.text(colour),
    };
    match out.write_all(text.as_bytes()) {
        // Who read it has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => Ok(written?),
    }
}

fn top(asked: &Top) -> anyhow::Result<()> {
    let teller = Teller::new(asked.control.clone(), asked.config.clone());
    top::run(asked, move |sources| teller.tell(sources))
}

fn check_config(asked: &CheckConfig) -> Result<(), Failure> {
    if asked.show {
        let shown = config::show(&asked.overrides)?;
        // Not print!, which panics when whoever reads it has seen enough.
        io::stdout()
            .write_all(shown.as_bytes())
            .context("the configuration cannot be written to standard output")?;
        return Ok(());
    }
    let config = load(&asked.overrides)?;
    check_lists(&config)?;
    if let Some(crowdsec) = &config.crowdsec {
        check_key(crowdsec)?;
    }
    for file in &config.files {
        println!("{}: ok", file.display());
    }
    if config.files.is_empty() {
        println!("there is no {}: the defaults apply", config::DEFAULT_FILE);
    }
    Ok(())
}

/// Whether nothing failed.
fn examine(asked: &Doctor) -> Result<bool, Failure> {
    let findings = doctor::examine(asked)?;
    if asked.json {
        let json = doctor::json(&findings).map_err(anyhow::Error::from)?;
        println!("{json}");
    } else {
        let colour = stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        print!("{}", doctor::text(&findings, colour));
    }
    let failed = |finding: &doctor::Finding| finding.result == doctor::Outcome::Fail;
    Ok(!findings.iter().any(failed))
}

/// Warns of what a start leaves out. A file that it would do without is an error here:
/// most likely its name is wrong.
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

/// The key is secret: whoever checks the rest need not be able to read it.
fn check_key(crowdsec: &config::Crowdsec) -> Result<(), Failure> {
    match ApiKey::read(&crowdsec.api_key_file) {
        Err(error) if !error.is_denied() => Err(Failure::new(Exit::Configuration, error)),
        _ => Ok(()),
    }
}

fn detach(asked: &Detach) -> Result<(), Failure> {
    for line in supervisor::detach(asked)? {
        println!("{line}");
    }
    Ok(())
}

fn load(overrides: &Overrides) -> Result<config::Config, Failure> {
    config::load(overrides).map_err(Failure::from)
}
