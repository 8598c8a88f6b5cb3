//! The keys that `nomail-agent crowdsec` reads.

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use super::{
    choices::LogFormat,
    error::ConfigError,
    file::ConfigFiles,
    keys::Crowdsec,
    kinds::{Choice, ValueKind as _},
    layer::Layers,
    load::DEFAULT_FILE,
    table::Values as _,
    together::crowdsec_of,
    values::{self, User},
};

/// The configuration of `nomail-agent crowdsec`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CrowdsecProcess {
    /// The file that was read, or would have been.
    pub file: PathBuf,
    /// `[crowdsec]`, if it is there.
    pub crowdsec: Option<Crowdsec>,
    /// The user that it becomes if it is started as root.
    pub user: User,
    /// The format of the log.
    pub log_format: LogFormat,
}

impl CrowdsecProcess {
    /// Reads the file and its drop-ins, or [`DEFAULT_FILE`] if it is there. List files are
    /// not read, and other keys not checked.
    ///
    /// # Errors
    /// The file was named and cannot be read, or one of these keys is wrong.
    pub fn load(file: Option<&Path>) -> Result<Self, ConfigError> {
        let path = file.unwrap_or(Path::new(DEFAULT_FILE));
        let files = ConfigFiles::read(path, file.is_some());
        let mut layers = Layers::new(files.layers, files.problems);
        let crowdsec = Crowdsec::read(&mut layers);
        let process = Self {
            file: path.to_owned(),
            crowdsec: crowdsec_of(crowdsec, &mut layers),
            user: layers.value("user", values::user).unwrap_or_default(),
            log_format: Choice(LogFormat::CHOICES)
                .read(&mut layers, "log.format")
                .unwrap_or_default(),
        };
        match layers.problems.is_empty() {
            true => Ok(process),
            false => Err(ConfigError::new(layers.problems)),
        }
    }
}
