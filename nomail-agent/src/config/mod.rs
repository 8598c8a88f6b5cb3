//! The configuration: what the operator wrote, checked, with every default filled in.
//!
//! A value comes from the first of these that has it: a flag, a `NOMAIL_*` variable of the
//! environment, a drop-in of the file (the last one that has it), the file, the default.
//! Flags and environment are fixed for the life of the agent, as [`Overrides`]; each [`load()`]
//! reads the files again. Everything that is written has to be right, also what something
//! else overrides, and all errors are reported at once.

mod addresses;
mod api_url;
mod choices;
mod crowdsec;
mod effective;
mod error;
mod file;
mod fqdn;
mod keys;
mod kinds;
mod layer;
mod lines;
mod lists;
mod load;
mod names;
mod origin;
mod overrides;
mod prefixes;
mod relay;
mod reload;
mod resolved;
mod stamp;
mod table;
#[cfg(test)]
mod tests;
mod together;
mod values;
mod watch;

pub use self::{
    addresses::ListenAddress,
    api_url::ApiUrl,
    choices::{
        AfterGreeting, Fallback, FloodAnswer, LogFormat, OnExit, RefuseAt, RelayCode, Responder,
        XdpMode,
    },
    crowdsec::CrowdsecProcess,
    error::{ConfigError, ValueError},
    file::drop_in_directory,
    fqdn::{host_aliases, host_fqdn},
    keys::{
        CONNECTIONS_MAX, Config, Crowdsec, DEFAULT_CONTROL, DEFAULT_PIN_DIR, DEFAULT_ROUTE,
        DEFAULT_RUN_DIR, Limits, Log, Metrics, tables,
    },
    kinds::{Setting, Takes},
    lists::{LIST_PREFIXES_MAX, read_prefixes},
    load::{DEFAULT_FILE, control_path, load, pin_dir, show},
    names::Hostname,
    overrides::{GivenBy, Overrides},
    reload::reload,
    resolved::{ListFile, ListSources, Relay, RelayDomain},
    stamp::Stamp,
    table::{FileKey, Flag, KeyTable},
    values::{StateDir, User},
    watch::WatchedLists,
};
