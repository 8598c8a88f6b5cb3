//! The configuration file, and the lists of domains and of prefixes beside it.

use std::{
    collections::BTreeSet, fs::File, io::Write as _, net::IpAddr, os::fd::AsRawFd as _,
    path::PathBuf,
};

use ipnet::IpNet;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nomail_agent::{
    config::{self, Config, ConfigError, GivenBy, Overrides, RefuseAt, RelayCode},
    smtp::{RefusedDomains, Replies, command::DOMAIN_MAX, relay::to_ascii},
};
use nomail_common::abi::{MAX_INTERFACES, MAX_PORTS};

/// No error is longer, however long the names and values are that it repeats.
const ERROR_MAX: usize = 2048;

/// The octets of the configuration file.
pub fn config(text: &[u8]) {
    let file = MemoryFile::new(text);
    let list = MemoryFile::new(b"listed.example\n");
    let mut overrides = Overrides::of_file(Some(PathBuf::from(file.path())));
    // A list that the text names, perhaps with escapes, is not looked for.
    if text.contains(&b'\\') || text.windows(12).any(|key| key == b"domain_files") {
        list.replace_lists(&mut overrides);
    }
    let loaded = config::load(&overrides);
    check(&loaded);
    let again = config::load(&overrides);
    assert_eq!(again, loaded);
    if let (Ok(old), Ok(new)) = (loaded, again) {
        assert!(old.changes_that_need_restart(&new).is_empty());
        assert_eq!(new.with_fixed_from(&old), old);
    }
}

/// The octets of one list of domains. One that is right is right and the same
/// when it is written anew.
pub fn domains(list: &[u8]) {
    let loaded = load_list(list);
    check(&loaded);
    let Some(relay) = loaded.ok().and_then(|config| config.relay) else {
        return;
    };
    let mut text = String::new();
    for domain in &relay.domains {
        text += &domain.name;
        if let Some(own) = &domain.text {
            text += " ";
            text += own;
        }
        text += "\n";
    }
    let again = load_list(text.as_bytes())
        .ok()
        .and_then(|config| config.relay);
    assert_eq!(
        again.map(|again| again.domains.clone()),
        Some(relay.domains.clone())
    );
}

fn load_list(list: &[u8]) -> Result<Config, ConfigError> {
    let file = MemoryFile::new(b"[relay]\n");
    let list = MemoryFile::new(list);
    let mut overrides = Overrides::of_file(Some(PathBuf::from(file.path())));
    list.replace_lists(&mut overrides);
    config::load(&overrides)
}

/// What separates the list of who is let through from the one of who is not: no line
/// of a list has it.
const BETWEEN_LISTS: u8 = 0;

/// The bytes of two lists of prefixes, allow and deny, with a zero between them.
/// Whatever is in them, they load; they say what is written in them, and are the same
/// when they are written anew.
pub fn lists(text: &[u8]) {
    let mut parts = text.splitn(2, |&byte| byte == BETWEEN_LISTS);
    let mut part = || parts.next().unwrap_or_default();
    let texts = [part(), part()];
    let loaded = load_prefixes(texts);
    assert!(loaded.is_ok(), "a list file is never an error: {loaded:?}");
    let Ok(config) = loaded else {
        return;
    };
    let lists = [&config.lists.allow, &config.lists.deny];
    for list in lists {
        assert!(list.is_sorted_by(|one, next| one < next), "{list:?}");
        for prefix in list.iter() {
            assert_eq!(prefix.trunc(), *prefix);
            let mapped = matches!(prefix, IpNet::V6(net) if net.addr().to_ipv4_mapped().is_some());
            assert!(!mapped, "{prefix} would meet no packet");
        }
    }
    for file in config.list_files() {
        assert!(file.left_out == 0 || !file.warnings.is_empty());
        for warning in &file.warnings {
            assert!(warning.len() <= ERROR_MAX && !warning.contains(char::is_control));
        }
    }
    let [allow, deny] = lists;
    assert!(deny.iter().all(|prefix| !allow.contains(prefix)));
    if let Some(written) = prefixes_of(texts[0]) {
        assert!(allow.iter().copied().eq(written), "{allow:?}");
    }
    if let Some(mut written) = prefixes_of(texts[1]) {
        written.retain(|prefix| !config.lists.denies_nothing && !allow.contains(prefix));
        assert!(deny.iter().copied().eq(written), "{deny:?}");
    }
    let anew = lists.map(|list| {
        let lines = list.iter().map(|prefix| format!("{prefix}\n"));
        lines.collect::<String>()
    });
    let again = load_prefixes([anew[0].as_bytes(), anew[1].as_bytes()]);
    let again = again.map(|again| [again.lists.allow.clone(), again.lists.deny.clone()]);
    assert_eq!(again, Ok([allow.clone(), deny.clone()]));
}

/// What a list says: the first word of each line that is a prefix. None: it has lines
/// of which not the first word alone counts, JSON and ranges.
fn prefixes_of(text: &[u8]) -> Option<BTreeSet<IpNet>> {
    let text = String::from_utf8_lossy(text);
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let mut prefixes = BTreeSet::new();
    for line in text.split('\n') {
        let line = line.strip_suffix('\r').unwrap_or(line);
        if line.trim_start_matches([' ', '\t']).starts_with('{') {
            return None;
        }
        let line = line.split(['#', ';']).next().unwrap_or_default();
        let mut words = line.split([' ', '\t']).filter(|word| !word.is_empty());
        let (first, second) = (words.next().unwrap_or_default(), words.next());
        if second.is_some_and(|word| word == "-" || word.parse::<IpAddr>().is_ok()) {
            return None;
        }
        let network = match first.parse::<IpAddr>() {
            Ok(address) => Some(IpNet::from(address)),
            Err(_) => first.parse().ok(),
        };
        let plain = match network {
            Some(IpNet::V6(net)) => match (net.addr().to_ipv4_mapped(), net.prefix_len()) {
                (None, _) => Some(IpNet::V6(net)),
                (Some(ipv4), length @ 96..) => IpNet::new(ipv4.into(), length - 96).ok(),
                (Some(_), _) => None,
            },
            other => other,
        };
        prefixes.extend(plain.map(|net| net.trunc()));
    }
    Some(prefixes)
}

fn load_prefixes([allow, deny]: [&[u8]; 2]) -> Result<Config, ConfigError> {
    let (allow, deny) = (MemoryFile::new(allow), MemoryFile::new(deny));
    let file = MemoryFile::new(
        format!(
            "[lists]\nallow_files = [{:?}]\ndeny_files = [{:?}]\n",
            allow.path(),
            deny.path()
        )
        .as_bytes(),
    );
    config::load(&Overrides::of_file(Some(PathBuf::from(file.path()))))
}

/// What holds for everything that was loaded, or was not.
fn check(loaded: &Result<Config, ConfigError>) {
    let config = match loaded {
        Ok(config) => config,
        Err(error) => {
            assert!(error.lines().count() > 0);
            for line in error.lines() {
                assert!(!line.contains(char::is_control), "{line:?}");
                assert!(line.len() <= ERROR_MAX, "{line}");
            }
            return;
        }
    };
    assert!((1..=MAX_INTERFACES).contains(&config.interfaces.len()));
    let mut ports: Vec<_> = config.listen.iter().map(|address| address.port).collect();
    ports.sort_unstable();
    ports.dedup();
    assert!(ports.len() <= MAX_PORTS);
    for address in &config.listen {
        assert_eq!(address.to_string().parse().as_ref(), Ok(address));
    }
    // The dialog has its own rules for names. What it takes has to be the same.
    if let Some(hostname) = &config.hostname {
        assert_eq!(Replies::new(hostname.as_str(), None).err(), None);
    }
    if let Some(relay) = &config.relay {
        assert_eq!(config.refuse_at, RefuseAt::Rcpt);
        check_relay(relay);
    }
}

/// The dialog finds every domain, and says what is written.
fn check_relay(relay: &config::Relay) {
    let domains = || relay.domains.iter();
    let named = domains().map(|domain| (&domain.name, domain.text.clone()));
    let spoken = RefusedDomains::new(
        RelayCode::Listed,
        &relay.text,
        named,
        relay.postmaster.as_deref(),
    );
    assert_eq!(spoken.len(), relay.domains.len(), "a domain came twice");
    for domain in domains() {
        let name = &domain.name;
        assert!(!name.ends_with('.') && name.parse::<IpAddr>().is_err());
        // A name that is covered. A star is no label beside right-to-left ones.
        let below = name.replace('*', "below");
        if below != *name && domains().any(|other| other.name == below) {
            continue;
        }
        assert_eq!(to_ascii(below.as_bytes()).as_ref(), Some(&below));
        let (u_labels, valid) = idna::domain_to_unicode(&below);
        assert!(valid.is_ok(), "{below}");
        let text = domain.text.as_deref().unwrap_or(&relay.text);
        let wanted = format!("556 5.1.2 {text}\r\n");
        for written in [below.to_ascii_uppercase(), below + ".", u_labels] {
            if written.len() <= DOMAIN_MAX {
                let said = spoken.refusal(written.as_bytes());
                assert_eq!(said, Some(wanted.as_bytes()), "{written}");
            }
        }
    }
}

/// A file that is in no file system, but has a path in /proc.
struct MemoryFile(File);

impl MemoryFile {
    fn new(octets: &[u8]) -> Self {
        let created = memfd_create(c"nomail-fuzz", MFdFlags::MFD_CLOEXEC).map(File::from);
        let written = created.map_err(Into::into).and_then(|mut file| {
            file.write_all(octets)?;
            std::io::Result::Ok(file)
        });
        match written {
            Ok(file) => Self(file),
            Err(error) => panic!("no file in memory: {error}"),
        }
    }

    fn path(&self) -> String {
        format!("/proc/self/fd/{}", self.0.as_raw_fd())
    }

    /// Makes this the one file that lists domains.
    fn replace_lists(&self, overrides: &mut Overrides) {
        let flag = GivenBy::Flag("--domain-files");
        overrides.set("relay.domain_files", flag, vec![self.path()]);
    }
}
