use rstest::rstest;

use super::{
    super::{
        keys::{Config, DEFAULT_RUN_DIR},
        load::load,
        overrides::Overrides,
    },
    *,
};

fn load_text(text: &str) -> Result<Config, String> {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("t.toml");
    std::fs::write(&file, text).unwrap();
    let prefix = format!("{}/", directory.path().display());
    load(&Overrides::of_file(Some(file))).map_err(|error| error.to_string().replace(&prefix, ""))
}

#[test]
fn a_key_is_enough() {
    let config = load_text("[crowdsec]\napi_key_file = \"/k\"").unwrap();
    let crowdsec = config.crowdsec.unwrap();
    assert_eq!(crowdsec.url.to_string(), "http://127.0.0.1:8080");
    assert_eq!(crowdsec.api_key_file, std::path::Path::new("/k"));
    assert_eq!(crowdsec.interval_secs, 5);
    assert_eq!(crowdsec.run_dir, std::path::Path::new(DEFAULT_RUN_DIR));
    assert_eq!(load_text("").unwrap().crowdsec, None);
}

#[rstest]
#[case("http://127.0.0.1:8080/", "127.0.0.1:8080")]
#[case("HTTP://localhost:80", "127.0.0.1:80")]
#[case("http://[2001:db8::7]:8080", "[2001:db8::7]:8080")]
fn urls(#[case] text: &str, #[case] address: &str) {
    let url: ApiUrl = text.parse().unwrap();
    assert_eq!(url.address().to_string(), address);
    assert_eq!(url.to_string().parse(), Ok(url));
}

#[rstest]
#[case("", "\"\" is not the URL of an API")]
#[case("127.0.0.1:8080", "is not the URL")]
#[case("https://127.0.0.1:8080", "is https, which nomail does not speak")]
#[case("http://u:secret@127.0.0.1:8080", "a URL with a user or a password")]
#[case("http://127.0.0.1:8080/v1", "has more behind its port")]
#[case("http://127.0.0.1", "has no port")]
#[case("http://[::1]", "has no port")]
#[case("http://0.0.0.0:8080", "is the address of no server")]
#[case("http://127.0.0.1:0", "is the address of no server")]
#[case("http://lapi.example.org:8080", "cannot look up a name")]
#[case("http://localhost.example.org:80", "cannot look up a name")]
#[case("http://\u{1b}:80", "\\u{1b}")]
fn urls_that_cannot_be(#[case] text: &str, #[case] expected: &str) {
    let error = text.parse::<ApiUrl>().unwrap_err().to_string();
    assert!(error.contains(expected), "{error}");
    assert!(!error.contains("secret"), "{error}");
}

#[rstest]
#[case(
    "[crowdsec]",
    "t.toml:1:2: crowdsec: names no key: give api_key_file = \"/etc/nomail/crowdsec.key\", a file \
     with what `cscli bouncers add nomail -o raw` prints"
)]
#[case(
    "crowdsec.api_key_file = \"k\"",
    "t.toml:1:25: crowdsec.api_key_file: \"k\" is not the absolute path of a file: give one"
)]
#[case(
    "[crowdsec]\napi_key_file = \"/k\"\ninterval_secs = 0",
    "t.toml:3:17: crowdsec.interval_secs: 0 is not in 1..=3600: give the seconds from one pull of \
     decisions to the next"
)]
#[case(
    "[crowdsec]\napi_key_file = \"/k\"\nrun_dir = \"d\"",
    "t.toml:3:11: crowdsec.run_dir: \"d\" is not the absolute path of a directory: give one"
)]
#[case(
    "[crowdsec]\napi_key_file = \"/k\"\napi_key = \"x\"",
    "t.toml:3:1: crowdsec.api_key: unknown key; [crowdsec] knows url, api_key_file, interval_secs, \
     run_dir"
)]
fn what_is_wrong_is_told(#[case] text: &str, #[case] expected: &str) {
    assert_eq!(load_text(text).unwrap_err(), expected);
}
