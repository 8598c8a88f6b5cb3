//! The files beside the file.

use std::os::unix::fs::symlink;

use super::*;

/// A directory with `t.toml` and its drop-ins.
struct Beside(TempDir);

impl Beside {
    /// Writes `files`, whose names are relative to the directory of drop-ins but for
    /// `t.toml`.
    fn new(files: &[(&str, &str)]) -> Self {
        let beside = Self(TempDir::new().unwrap());
        fs::create_dir(beside.path("t.toml.d")).unwrap();
        for (name, text) in files {
            fs::write(beside.drop_in(name), text).unwrap();
        }
        beside
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn drop_in(&self, name: &str) -> PathBuf {
        match name {
            "t.toml" => self.path(name),
            _ => self.path("t.toml.d").join(name),
        }
    }

    fn load(&self) -> Result<Config, String> {
        let prefix = format!("{}/", self.0.path().display());
        load_from(&self.path("t.toml"), true, &Overrides::default())
            .map_err(|error| error.to_string().replace(&prefix, ""))
    }

    fn error(&self) -> String {
        self.load().unwrap_err()
    }
}

#[test]
fn the_last_by_name_counts_key_by_key() {
    let beside = Beside::new(&[
        (
            "t.toml",
            "hostname = \"file.example\"\nobserve = true\n[limits]\nsyn_rate = 1\nsyn_burst = 1\n\
             [lists]\ndeny = [\"192.0.2.1\"]\nallow = [\"192.0.2.9\"]",
        ),
        ("9.toml", "limits.syn_rate = 4"),
        ("10.toml", "limits.syn_rate = 3\nlimits.connections = 7"),
        ("Z.toml", "limits = { syn_burst = 5 }\nobserve = false"),
        ("a.toml", "lists.deny = [\"192.0.2.2\", \"192.0.2.3\"]"),
        ("ä.toml", "limits.idle_timeout_secs = 9"),
    ]);
    let config = beside.load().unwrap();
    assert_eq!(config.hostname.as_ref().unwrap().as_str(), "file.example");
    assert_eq!(config.limits.syn_rate, 4);
    assert_eq!(config.limits.syn_burst, 5);
    assert_eq!(config.limits.connections, 7);
    assert_eq!(config.limits.idle_timeout_secs, 9);
    assert!(!config.observe);
    assert_eq!(
        *config.lists.deny,
        ["192.0.2.2/32", "192.0.2.3/32"].map(|net| net.parse().unwrap())
    );
    assert_eq!(*config.lists.allow, ["192.0.2.9/32".parse().unwrap()]);
    let expected = ["t.toml", "10.toml", "9.toml", "Z.toml", "a.toml", "ä.toml"];
    assert_eq!(config.files, expected.map(|name| beside.drop_in(name)));
}

#[test]
fn flags_win_over_drop_ins() {
    let beside = Beside::new(&[("a.toml", "limits.syn_rate = 3\nlimits.syn_burst = 3")]);
    let overrides = flags(&[("limits.syn_rate", "--syn-rate", &["8"])]);
    let limits = load_from(&beside.path("t.toml"), true, &overrides)
        .unwrap()
        .limits;
    assert_eq!((limits.syn_rate, limits.syn_burst), (8, 3));
}

/// Everything in here would be an error if it were read.
#[test]
fn what_is_no_drop_in_is_left_alone() {
    let beside = Beside::new(&[
        ("a.toml", "observe = true"),
        (".hidden.toml", "x"),
        (".toml", "x"),
        ("b.toml~", "x"),
        ("b.toml.dpkg-dist", "x"),
        ("README", "x"),
        ("b.TOML", "x"),
        ("toml", "x"),
    ]);
    fs::create_dir(beside.drop_in("c.toml")).unwrap();
    fs::write(beside.drop_in("c.toml/d.toml"), "x").unwrap();
    nix::unistd::mkfifo(&beside.drop_in("e.toml"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    // As systemd masks its files.
    symlink("/dev/null", beside.drop_in("f.toml")).unwrap();
    let config = beside.load().unwrap();
    assert!(config.observe);
    assert_eq!(config.files, [beside.drop_in("a.toml")]);
}

#[test]
fn a_link_is_what_it_leads_to() {
    let beside = Beside::new(&[]);
    fs::write(beside.path("site"), "observe = true").unwrap();
    symlink("../site", beside.drop_in("a.toml")).unwrap();
    assert!(beside.load().unwrap().observe);
    fs::remove_file(beside.path("site")).unwrap();
    assert_eq!(
        beside.error(),
        "t.toml.d/a.toml: cannot be read: No such file or directory (os error 2)"
    );
}

/// A drop-in alone is a configuration; nothing at all is none.
#[test]
fn the_file_itself_may_be_missing() {
    let beside = Beside::new(&[]);
    let missing = "t.toml: there is no such file: create it, or name another with --config";
    assert_eq!(beside.error(), missing);
    fs::write(beside.drop_in("a.toml"), "observe = true").unwrap();
    assert!(beside.load().unwrap().observe);
    fs::write(beside.drop_in("a.toml"), "observe = 1").unwrap();
    assert_eq!(
        beside.error(),
        "t.toml.d/a.toml:1:11: observe: an integer is neither true nor false"
    );
}

#[test]
fn each_error_names_its_file() {
    let beside = Beside::new(&[
        ("t.toml", "observe = 1\nnonsense = 1"),
        ("b.toml", "\n[limits]\nsyn_rate = 0\nnonsense = 1"),
        ("a.toml", "  hostname = \"a b\""),
        ("c.toml", "observe = "),
        ("d.toml", "limits = 3"),
    ]);
    let error = beside.error();
    let places: Vec<_> = error
        .lines()
        .map(|line| line.split(": ").next().unwrap())
        .collect();
    assert_eq!(
        places,
        [
            "t.toml:1:11",
            "t.toml:2:1",
            "t.toml.d/a.toml:1:14",
            "t.toml.d/b.toml:3:12",
            "t.toml.d/b.toml:4:1",
            "t.toml.d/c.toml:1:11",
            "t.toml.d/d.toml:1:1",
        ],
        "{error}"
    );
}

#[test]
fn what_does_not_go_together_is_found_across_files() {
    let relay = "relay.domains = [\"example.org\"]";
    let beside = Beside::new(&[("t.toml", "refuse_at = \"greeting\""), ("a.toml", relay)]);
    assert!(
        beside
            .error()
            .starts_with("t.toml:1:13: refuse_at: \"greeting\" does not go with [relay]")
    );
    // What is overridden does not count.
    fs::write(
        beside.drop_in("a.toml"),
        format!("{relay}\nrefuse_at = \"rcpt\""),
    )
    .unwrap();
    assert_eq!(beside.load().unwrap().refuse_at, RefuseAt::Rcpt);
    fs::write(beside.drop_in("b.toml"), "after_greeting = \"close\"").unwrap();
    assert!(
        beside
            .error()
            .starts_with("t.toml.d/b.toml:1:18: after_greeting: \"close\" does not go")
    );
    fs::write(beside.drop_in("c.toml"), "after_greeting = \"hold\"").unwrap();
    assert!(beside.load().is_ok());
}

#[test]
fn they_are_bounded() {
    let beside = Beside::new(&[]);
    for number in 0..64 {
        fs::write(beside.drop_in(&format!("{number}.toml")), "").unwrap();
    }
    assert_eq!(beside.load().unwrap().files.len(), 64);
    fs::write(beside.drop_in("64.toml"), "").unwrap();
    assert_eq!(
        beside.error(),
        "t.toml.d: has more than 64 files: put some together"
    );
    fs::remove_file(beside.drop_in("64.toml")).unwrap();
    fs::write(beside.drop_in("7.toml"), vec![b'#'; (1 << 20) + 1]).unwrap();
    assert_eq!(
        beside.error(),
        "t.toml.d/7.toml: is longer than 1048576 bytes"
    );
}

#[test]
fn the_directory_has_to_be_one() {
    let beside = Beside::new(&[("t.toml", "")]);
    fs::remove_dir(beside.path("t.toml.d")).unwrap();
    assert!(beside.load().is_ok(), "there may be none");
    fs::write(beside.path("t.toml.d"), "").unwrap();
    assert_eq!(
        beside.error(),
        "t.toml.d: cannot be read: Not a directory (os error 20)"
    );
}

/// Opening a pipe would wait for its other end, and a reload must not.
#[test]
fn a_pipe_is_refused() {
    let beside = Beside::new(&[]);
    let path = beside.path("t.toml");
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert_eq!(
        beside.error(),
        "t.toml: cannot be read: it is a pipe, which could not be read again: give a file"
    );
}

#[test]
fn the_socket_and_the_pins_are_found_in_them() {
    let beside = Beside::new(&[
        ("t.toml", "control = \"/c\"\npin_dir = \"/sys/fs/bpf/c\""),
        ("a.toml", "control = \"/a\"\npin_dir = \"/sys/fs/bpf/a\""),
    ]);
    let file = beside.path("t.toml");
    assert_eq!(control_of(&file), Path::new("/a"));
    assert_eq!(pin_dir(Some(&file)).unwrap(), Path::new("/sys/fs/bpf/a"));
    fs::remove_file(&file).unwrap();
    assert_eq!(pin_dir(Some(&file)).unwrap(), Path::new("/sys/fs/bpf/a"));
    fs::write(beside.drop_in("b.toml"), "control = 1\npin_dir = 1").unwrap();
    assert_eq!(control_of(&file), Path::new("/a"));
    assert!(pin_dir(Some(&file)).is_err());
}

/// Where a file was read, the defaults do not take its place.
#[test]
fn a_reload_wants_what_was_there() {
    let nothing = Config {
        file: Some("/none/t.toml".into()),
        ..Config::default()
    };
    let overrides = Overrides::default();
    assert_eq!(overrides.after(&nothing), overrides);
    let something = Config {
        files: vec!["/none/t.toml.d/a.toml".into()],
        ..nothing
    };
    let after = overrides.after(&something);
    assert_eq!(
        load(&after).unwrap_err().to_string(),
        "/none/t.toml: there is no such file: create it, or name another with --config"
    );
}
