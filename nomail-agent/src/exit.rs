//! Exit codes, which service managers and roles act on.

use std::{fmt, process::ExitCode};

use crate::{config::ConfigError, guard::BpfError, host::service::InheritedError, net::IfaceError};

/// Exit codes, after sysexits.h. 64, for a wrong command line, is
/// [`crate::cli::report`]'s.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Failed at run time.
    Failed = 1,
    /// The interface or the kernel cannot do it.
    Unavailable = 69,
    /// No permission.
    Permission = 77,
    /// Bad configuration.
    Configuration = 78,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// An error with the code to exit with.
#[derive(Debug)]
pub struct Failure {
    /// The code.
    pub exit: Exit,
    /// What happened, with its causes.
    pub error: anyhow::Error,
}

impl Failure {
    /// An error with its code.
    pub fn new(exit: Exit, error: impl Into<anyhow::Error>) -> Self {
        Self {
            exit,
            error: error.into(),
        }
    }

    /// The lines to log: one for each error of a configuration, else one with the causes.
    pub fn lines(&self) -> Vec<String> {
        match self.error.downcast_ref::<ConfigError>() {
            Some(error) => error.lines().collect(),
            None => vec![self.to_string()],
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:#}", self.error)
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::new(Exit::Failed, error)
    }
}

impl From<BpfError> for Failure {
    fn from(error: BpfError) -> Self {
        let exit = match error {
            BpfError::Permission(_) => Exit::Permission,
            BpfError::TooManyPorts(_)
            | BpfError::TooManyInterfaces(_)
            | BpfError::TooManyGuarded(_)
            | BpfError::Limit(..) => Exit::Configuration,
            _ => Exit::Unavailable,
        };
        Self::new(exit, error)
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::new(Exit::Configuration, error)
    }
}

impl From<InheritedError> for Failure {
    fn from(error: InheritedError) -> Self {
        Self::new(Exit::Configuration, error)
    }
}

impl From<IfaceError> for Failure {
    fn from(error: IfaceError) -> Self {
        let exit = match error {
            IfaceError::Unknown { .. } | IfaceError::NoDefaultRoute => Exit::Unavailable,
            IfaceError::Socket(_) | IfaceError::Netlink(_) => Exit::Failed,
        };
        Self::new(exit, error)
    }
}
