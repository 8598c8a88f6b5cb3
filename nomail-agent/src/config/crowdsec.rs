//! `[crowdsec]`: the local API of CrowdSec whose decisions are denied.

#[cfg(test)]
mod tests;

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    str::FromStr,
};

use super::{
    DEFAULT_FILE, LogFormat,
    error::{ConfigError, Problem, ValueError, quoted, wrong},
    file::Files,
    layer::Layers,
    values::{self, User, absolute_path, choice, number},
};

/// Where CrowdSec's local API listens by default.
const DEFAULT_URL: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);
/// With the time that an answer takes, decisions are in force within 10 seconds.
const DEFAULT_INTERVAL_SECS: u64 = 5;
/// Where decisions are handed over by default. The unit's directory is made anew with each
/// start; the one above it stays, and is what an agent in its sandbox can still reach.
pub const DEFAULT_RUN_DIR: &str = "/run/nomail-crowdsec/decisions";

/// `[crowdsec]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Crowdsec {
    /// The local API.
    pub url: ApiUrl,
    /// The file with the key of the API; absolute.
    pub api_key_file: PathBuf,
    /// Seconds from one pull to the next.
    pub interval_secs: u64,
    /// The directory in which `nomail-agent crowdsec` writes the decisions, and the agent
    /// reads them; absolute.
    pub run_dir: PathBuf,
}

/// What `nomail-agent crowdsec` goes by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CrowdsecProcess {
    /// The file that was read, or would have been.
    pub file: PathBuf,
    /// `[crowdsec]`, if it is there.
    pub crowdsec: Option<Crowdsec>,
    /// The user that it becomes if it is started as root.
    pub user: User,
    /// The form of the log.
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
        let files = Files::read(path, file.is_some());
        let mut layers = Layers::new(files.layers);
        layers.problems = files.problems;
        let process = Self {
            file: path.to_owned(),
            crowdsec: read(&mut layers),
            user: layers.value("user", values::user).unwrap_or_default(),
            log_format: layers
                .value("log.format", choice(LogFormat::CHOICES))
                .unwrap_or_default(),
        };
        match layers.problems.is_empty() {
            true => Ok(process),
            false => Err(ConfigError::new(layers.problems)),
        }
    }
}

/// The URL of an API: `http`, a numeric address and a port. The process that connects to it
/// can look up no name in its sandbox, and has no TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ApiUrl(SocketAddr);

impl ApiUrl {
    /// Where to connect to.
    pub const fn address(self) -> SocketAddr {
        self.0
    }
}

impl fmt::Display for ApiUrl {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "http://{}", self.0)
    }
}

impl FromStr for ApiUrl {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let shown = quoted(text);
        let give = "write \"http://127.0.0.1:8080\"";
        let scheme = |scheme: &str| {
            let begin = text.get(..scheme.len())?;
            let rest = text.get(scheme.len()..)?;
            begin.eq_ignore_ascii_case(scheme).then_some(rest)
        };
        if scheme("https://").is_some() {
            return wrong(format!(
                "{shown} is https, which nomail does not speak: let a local API on this host, or \
                 a tunnel (stunnel, ssh -L) listen on 127.0.0.1, and {give}"
            ));
        }
        let Some(rest) = scheme("http://") else {
            return wrong(format!("{shown} is not the URL of an API: {give}"));
        };
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        if authority.contains('@') {
            return wrong(format!(
                "a URL with a user or a password: leave that out, and put the key into \
                 api_key_file; {give}"
            ));
        }
        if authority.contains(['/', '?', '#']) {
            return wrong(format!(
                "{shown} has more behind its port: leave that out; {give}"
            ));
        }
        // The one name that is known without asking.
        let authority = match authority.get(..9) {
            Some(name) if name.eq_ignore_ascii_case("localhost") => {
                format!("127.0.0.1{}", &authority[9..])
            }
            _ => authority.to_owned(),
        };
        if let Ok(address) = authority.parse::<SocketAddr>() {
            if address.port() == 0 || address.ip().is_unspecified() {
                return wrong(format!("{shown} is the address of no server: {give}"));
            }
            return Ok(Self(address));
        }
        let bare = authority.trim_matches(['[', ']']);
        if bare.parse::<IpAddr>().is_ok() {
            return wrong(format!("{shown} has no port: {give}"));
        }
        wrong(format!(
            "{shown} has no numeric address and port: nomail cannot look up a name in its \
             sandbox; {give}"
        ))
    }
}

/// Reads the table, but not the file with the key. None: there is no table.
pub(super) fn read(layers: &mut Layers) -> Option<Crowdsec> {
    let table = layers.section("crowdsec");
    let named = layers.has("crowdsec.api_key_file");
    let url = layers.value("crowdsec.url", |value| value.text()?.parse());
    let api_key_file = layers.value("crowdsec.api_key_file", |value| {
        absolute_path(value.text()?, "file")
    });
    let interval_secs = layers.value(
        "crowdsec.interval_secs",
        number(
            1..=3600,
            "give the seconds from one pull of decisions to the next",
        ),
    );
    let run_dir = layers.value("crowdsec.run_dir", |value| {
        absolute_path(value.text()?, "directory")
    });
    let table = table?;
    if !named {
        layers.problems.push(Problem {
            origin: table,
            text: "crowdsec: names no key: give api_key_file = \"/etc/nomail/crowdsec.key\", a \
                   file with what `cscli bouncers add nomail -o raw` prints"
                .to_owned(),
        });
    }
    Some(Crowdsec {
        url: url.unwrap_or(ApiUrl(DEFAULT_URL)),
        api_key_file: api_key_file?,
        interval_secs: interval_secs.unwrap_or(DEFAULT_INTERVAL_SECS),
        run_dir: run_dir.unwrap_or_else(|| PathBuf::from(DEFAULT_RUN_DIR)),
    })
}
