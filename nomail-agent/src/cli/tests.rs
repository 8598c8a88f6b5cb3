use clap::error::ErrorKind;
use rstest::rstest;

use super::*;

fn words(line: &str) -> Vec<&str> {
    std::iter::once("nomail-agent")
        .chain(line.split_whitespace())
        .collect()
}

fn overrides(file: Option<&str>, given: &[(&'static str, &'static str, &[&str])]) -> Overrides {
    let mut overrides = Overrides::of_file(file.map(PathBuf::from));
    for (key, flag, values) in given {
        let values = values.iter().map(|&value| value.to_owned()).collect();
        overrides.set(key, GivenBy::Flag(flag), values);
    }
    overrides
}

#[test]
fn definition_is_sound() {
    command().debug_assert();
}

#[rstest]
#[case::nothing("", overrides(None, &[]), 0)]
#[case::run("run", overrides(None, &[]), 0)]
#[case::default_command(
    "--iface eth0 -v",
    overrides(None, &[("interfaces", "--iface", &["eth0"])]),
    1
)]
#[case::named_command(
    "run --iface eth0 --iface=eth1,eth2 -vv",
    overrides(None, &[("interfaces", "--iface", &["eth0", "eth1", "eth2"])]),
    2
)]
#[case::switch("--observe", overrides(None, &[("observe", "--observe", &["true"])]), 0)]
#[case::switch_off(
    "--observe=false --config /a.toml",
    overrides(Some("/a.toml"), &[("observe", "--observe", &["false"])]),
    0
)]
#[case::everything(
    "--listen 192.0.2.7:25 --listen [::1]:25 --hostname a.example --refuse-at rcpt \
     --responder listener --after-greeting close --xdp-mode off --syn-rate 1 --syn-burst 2 --control /c \
     --metrics off --log-format json",
    overrides(
        None,
        &[
            ("listen", "--listen", &["192.0.2.7:25", "[::1]:25"]),
            ("hostname", "--hostname", &["a.example"]),
            ("refuse_at", "--refuse-at", &["rcpt"]),
            ("responder", "--responder", &["listener"]),
            ("after_greeting", "--after-greeting", &["close"]),
            ("xdp_mode", "--xdp-mode", &["off"]),
            ("limits.syn_rate", "--syn-rate", &["1"]),
            ("limits.syn_burst", "--syn-burst", &["2"]),
            ("control", "--control", &["/c"]),
            ("metrics.listen", "--metrics", &["off"]),
            ("log.format", "--log-format", &["json"]),
        ]
    ),
    0
)]
fn run_options(#[case] line: &str, #[case] overrides: Overrides, #[case] verbose: u8) {
    let command = parse(words(line)).unwrap();
    assert_eq!(command, Commands::Run(RunArgs { overrides, verbose }));
}

#[rstest]
#[case("status", false, 20, None)]
#[case("status --json --sources 0 --control /c", true, 0, Some("/c"))]
fn status_options(
    #[case] line: &str,
    #[case] json: bool,
    #[case] sources: usize,
    #[case] control: Option<&str>,
) {
    let status = StatusArgs {
        json,
        sources,
        control: control.map(PathBuf::from),
        config: None,
    };
    assert_eq!(parse(words(line)).unwrap(), Commands::Status(status));
}

#[rstest]
#[case("top", 1000, false, None, 20)]
#[case("top --interval 0.5", 500, false, None, 20)]
#[case("top -b -n 1 --sources 3 --interval 3600", 3_600_000, true, Some(1), 3)]
fn top_options(
    #[case] line: &str,
    #[case] interval_ms: u64,
    #[case] batch: bool,
    #[case] frames: Option<u64>,
    #[case] sources: usize,
) {
    let top = TopArgs {
        interval: Duration::from_millis(interval_ms),
        batch,
        frames,
        sources,
        control: None,
        config: None,
    };
    assert_eq!(parse(words(line)).unwrap(), Commands::Top(top));
}

#[rstest]
#[case("check-config", None, &[], false)]
#[case("check-config --config a.toml", Some("a.toml"), &[], false)]
#[case("check-config --show", None, &[], true)]
#[case(
    "check-config --observe --config a.toml --show",
    Some("a.toml"),
    &[("observe", "--observe", &["true"][..])],
    true
)]
fn check_config_options(
    #[case] line: &str,
    #[case] file: Option<&str>,
    #[case] given: &[(&'static str, &'static str, &[&str])],
    #[case] show: bool,
) {
    let given: Vec<_> = given
        .iter()
        .map(|(key, flag, values)| (*key, *flag, *values))
        .collect();
    let check = CheckConfigArgs {
        overrides: overrides(file, &given),
        show,
    };
    assert_eq!(parse(words(line)).unwrap(), Commands::CheckConfig(check));
}

#[rstest]
#[case("doctor", &[], &[], None, false)]
#[case(
    "doctor --iface eth0 --iface eth1,eth2 --domain a.example --config /a.toml --json --quiet \
     --control /c",
    &["eth0", "eth1", "eth2"],
    &["a.example"],
    Some("/a.toml"),
    true
)]
fn doctor_options(
    #[case] line: &str,
    #[case] interfaces: &[&str],
    #[case] domains: &[&str],
    #[case] config: Option<&str>,
    #[case] json: bool,
) {
    let owned = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
    let doctor = DoctorArgs {
        interfaces: owned(interfaces),
        domains: owned(domains),
        config: config.map(PathBuf::from),
        control: json.then(|| PathBuf::from("/c")),
        json,
        quiet: json,
    };
    assert_eq!(parse(words(line)).unwrap(), Commands::Doctor(doctor));
}

#[rstest]
#[case("detach", None, None)]
#[case("detach --all --config /a.toml", None, Some("/a.toml"))]
#[case("detach --iface eth0", Some("eth0"), None)]
fn detach_options(
    #[case] line: &str,
    #[case] interface: Option<&str>,
    #[case] config: Option<&str>,
) {
    let detach = DetachArgs {
        interface: interface.map(str::to_owned),
        config: config.map(PathBuf::from),
    };
    assert_eq!(parse(words(line)).unwrap(), Commands::Detach(detach));
}

#[rstest]
#[case("crowdsec", None, 0)]
#[case("crowdsec -vv --config /a.toml", Some("/a.toml"), 2)]
fn crowdsec_options(#[case] line: &str, #[case] config: Option<&str>, #[case] verbose: u8) {
    let crowdsec = CrowdsecArgs {
        config: config.map(PathBuf::from),
        verbose,
    };
    assert_eq!(parse(words(line)).unwrap(), Commands::Crowdsec(crowdsec));
}

#[rstest]
#[case("--help", 0)]
#[case("run --help", 0)]
#[case("--version", 0)]
#[case("--metrics", EX_USAGE)]
#[case("--iface", EX_USAGE)]
#[case("--hostname a --hostname b", EX_USAGE)]
#[case("--iface eth0 status", EX_USAGE)]
#[case("top -n 1", EX_USAGE)]
#[case("top --batch -n 0", EX_USAGE)]
#[case("top --sources 1", EX_USAGE)]
#[case("top --interval 0.09", EX_USAGE)]
#[case("top --interval 3601", EX_USAGE)]
#[case("top --interval NaN", EX_USAGE)]
#[case("detach --iface eth0 --all", EX_USAGE)]
#[case("detach --iface", EX_USAGE)]
#[case("status --sources 65537", EX_USAGE)]
#[case("status --iface eth0", EX_USAGE)]
#[case("check-config --json", EX_USAGE)]
#[case("check-config -v", EX_USAGE)]
fn exit_codes(#[case] line: &str, #[case] code: u8) {
    assert_eq!(exit_code(&parse(words(line)).unwrap_err()), code);
}

#[test]
fn relative_paths_become_absolute() {
    let here = std::env::current_dir().unwrap();
    let Commands::Run(run) = parse(words("--config a.toml --control b.sock")).unwrap() else {
        panic!("not run");
    };
    assert_eq!(run.overrides.file, Some(here.join("a.toml")));
    let mut expected = Overrides::of_file(Some(here.join("a.toml")));
    let control = here.join("b.sock").to_str().unwrap().to_owned();
    expected.set("control", GivenBy::Flag("--control"), vec![control]);
    assert_eq!(run.overrides, expected);
}

/// The test calls itself in a process with these variables.
#[test]
fn environment_is_read() {
    const CHILD: &str = "ENVIRONMENT_IS_READ_CHILD";
    if std::env::var_os(CHILD).is_none() {
        let child = std::process::Command::new(std::env::current_exe().unwrap())
            .arg("environment_is_read")
            .env(CHILD, "1")
            .env("NOMAIL_IFACE", "eth0,eth1")
            .env("NOMAIL_LISTEN", "192.0.2.7:25,[::1]:25")
            .env("NOMAIL_CONFIG", "/a.toml")
            .env("NOMAIL_HOSTNAME", "")
            .env("NOMAIL_SYN_RATE", "0")
            .env("NOMAIL_SYN_BURST", "7")
            .env("NOMAIL_OBSERVE", "false")
            .env("NOMAIL_CONTROL", "/c")
            .env("NOMAIL_METRICS", "[::1]:9521")
            .env("NOMAIL_VERBOSE", "2")
            .output()
            .unwrap();
        assert!(
            child.status.success(),
            "{}",
            String::from_utf8_lossy(&child.stdout)
        );
        return;
    }
    let mut expected = Overrides::of_file(Some("/a.toml".into()));
    let mut set = |key, variable, values: &[&str]| {
        let values = values.iter().map(|&value| value.to_owned()).collect();
        expected.set(key, GivenBy::Environment(variable), values);
    };
    set("interfaces", "NOMAIL_IFACE", &["eth0", "eth1"]);
    set("listen", "NOMAIL_LISTEN", &["192.0.2.7:25", "[::1]:25"]);
    set("limits.syn_rate", "NOMAIL_SYN_RATE", &["0"]);
    set("observe", "NOMAIL_OBSERVE", &["false"]);
    set("control", "NOMAIL_CONTROL", &["/c"]);
    set("metrics.listen", "NOMAIL_METRICS", &["[::1]:9521"]);
    let burst = vec!["8".to_owned()];
    expected.set("limits.syn_burst", GivenBy::Flag("--syn-burst"), burst);
    for line in ["--syn-burst 8", "run --syn-burst 8"] {
        let run = RunArgs {
            overrides: expected.clone(),
            verbose: 2,
        };
        assert_eq!(parse(words(line)).unwrap(), Commands::Run(run));
    }
    let shown = expected;
    let status = parse(words("status --sources 1")).unwrap();
    let expected = StatusArgs {
        json: false,
        sources: 1,
        control: Some("/c".into()),
        config: Some("/a.toml".into()),
    };
    assert_eq!(status, Commands::Status(expected));
    let Commands::CheckConfig(check) = parse(words("check-config")).unwrap() else {
        panic!("not check-config");
    };
    assert_eq!(check.overrides, Overrides::of_file(Some("/a.toml".into())));
    let check = parse(words("check-config --show --syn-burst 8")).unwrap();
    let expected = CheckConfigArgs {
        overrides: shown,
        show: true,
    };
    assert_eq!(check, Commands::CheckConfig(expected));
}

#[test]
fn version_names_the_abi() {
    let error = parse(words("--version")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DisplayVersion);
    let expected = format!(
        "nomail-agent {} (ABI {ABI_VERSION})\n",
        env!("CARGO_PKG_VERSION")
    );
    assert_eq!(error.to_string(), expected);
}

#[test]
fn every_option_names_its_variable_and_default() {
    let help = command().render_help().to_string();
    let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut options = 0;
    for key in config::tables().iter().flat_map(|table| &table.keys) {
        let Some(flag) = key.flag else { continue };
        let variable = flag.option.trim_start_matches("--").replace('-', "_");
        assert_eq!(
            flag.variable,
            format!("NOMAIL_{}", variable.to_uppercase()),
            "{}",
            key.name
        );
        assert!(
            help.contains(&format!("[env: {}]", flag.variable)),
            "{help}"
        );
        assert!(help_of(key).contains("[default: "), "{}", key.name);
        options += 1;
    }
    assert!(options > 10, "{options}");
}

#[test]
fn usage_errors_are_escaped() {
    assert_eq!(escaped("a\u{1b}[31m\r\n"), "a\\u{1b}[31m\\r\n");
}
