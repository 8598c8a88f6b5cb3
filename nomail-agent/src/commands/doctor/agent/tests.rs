use rstest::rstest;

use super::{super::finding::CheckResult, *};
use crate::{config::Overrides, status::InterfaceStatus};

#[test]
fn each_kind_of_address_that_is_not_served_as_others_is_a_finding() {
    assert_eq!(addresses(None)[0].result, CheckResult::Skip);
    let mut status = Status::default();
    assert_eq!(addresses(Some(&status))[0].result, CheckResult::Ok);
    status.addresses.unguarded = ["203.0.113.0/24 port 25"].into_iter().collect();
    status.addresses.unchallenged = ["192.0.2.1:25"].into_iter().collect();
    status.addresses.absent = ["eth9"].into_iter().collect();
    status.addresses.own_left_out = 3;
    let found = addresses(Some(&status));
    let texts: Vec<_> = found.iter().map(|finding| finding.found.as_str()).collect();
    let expected = [
        "not guarded, because there is no room: 203.0.113.0/24 port 25",
        "guarded but cannot be challenged: 192.0.2.1:25",
        "configured, but not on this host: eth9",
        "XDP has no room for 3 of this host's own addresses",
    ];
    assert_eq!(texts, expected);
    assert!(
        found
            .iter()
            .all(|finding| finding.result == CheckResult::Warn)
    );
}

#[test]
fn a_wrong_configuration_is_a_finding_for_each_problem() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("nomail.toml");
    fs::write(&file, "hostname = \"a b\"\nnonsense = 1\n").unwrap();
    let load = || config::load(&Overrides::of_file(Some(file.clone())));
    let findings = configuration(load().as_ref());
    assert_eq!(findings.len(), 2, "{findings:?}");
    assert!(
        findings
            .iter()
            .all(|found| found.result == CheckResult::Fail)
    );
    fs::write(&file, "hostname = \"mailless.example.org\"\n").unwrap();
    let findings = configuration(load().as_ref());
    assert_eq!(findings[0].result, CheckResult::Ok);
}

fn status(version: &str, observe: bool) -> Status {
    Status {
        version: version.to_owned(),
        observe,
        ..Status::default()
    }
}

fn refused(kind: io::ErrorKind) -> Result<Status, Error> {
    Err(Error::new(io::Error::from(kind)).context("asking"))
}

#[rstest]
#[case(Ok(status(VERSION, false)), CheckResult::Ok)]
#[case(Ok(status(VERSION, true)), CheckResult::Warn)]
#[case(Ok(status("0.0.1", false)), CheckResult::Warn)]
#[case(refused(io::ErrorKind::NotFound), CheckResult::Skip)]
#[case(refused(io::ErrorKind::ConnectionRefused), CheckResult::Skip)]
#[case(refused(io::ErrorKind::PermissionDenied), CheckResult::Skip)]
#[case(refused(io::ErrorKind::TimedOut), CheckResult::Fail)]
#[case(
    Err(Error::msg("the agent's answer is not complete")),
    CheckResult::Fail
)]
fn agents(#[case] asked: Result<Status, Error>, #[case] result: CheckResult) {
    assert_eq!(agent(&asked, Path::new("/c")).result, result);
}

#[test]
fn users() {
    let default = config::User::default();
    let named = config::User {
        value: "mail".to_owned(),
        is_default: false,
    };
    let known = Some(AgentAccount { uid: 7, gid: 7 });
    assert_eq!(user(&default, known).result, CheckResult::Ok);
    assert_eq!(user(&default, None).result, CheckResult::Warn);
    assert_eq!(user(&named, None).result, CheckResult::Fail);
    let root = Some(AgentAccount { uid: 0, gid: 0 });
    assert_eq!(user(&named, root).result, CheckResult::Fail);
    assert_eq!(look_up("4711").map(|found| found.uid), Some(4711));
    assert_eq!(look_up("root").map(|found| found.uid), Some(0));
    assert_eq!(look_up("no such user"), None);
}

#[test]
fn descriptors_for_all_connections() {
    let many = 1 << 20;
    let result =
        |nr_open, hard, raisable| descriptors(10_000, Some(nr_open), hard, raisable).result;
    assert_eq!(result(many, 1024, Some(true)), CheckResult::Ok);
    assert_eq!(result(many, many, Some(false)), CheckResult::Ok);
    assert_eq!(result(many, 1024, Some(false)), CheckResult::Warn);
    assert_eq!(result(1024, many, Some(true)), CheckResult::Warn);
    assert_eq!(result(many, 1024, None), CheckResult::Skip);
}

#[test]
fn state_directories() {
    let mut config = Config::default();
    let result = |config: &Config, found| state_dir(config, found).result;
    assert_eq!(result(&config, Directory::Writable), CheckResult::Ok);
    assert_eq!(result(&config, Directory::Missing), CheckResult::Warn);
    assert_eq!(result(&config, Directory::Locked), CheckResult::Warn);
    assert_eq!(result(&config, Directory::Other), CheckResult::Fail);
    assert_eq!(result(&config, Directory::Unseen), CheckResult::Skip);
    config.state_dir.is_default = false;
    assert_eq!(result(&config, Directory::Missing), CheckResult::Ok);
    config.refuse_at = RefuseAt::Rcpt;
    assert_eq!(result(&config, Directory::Missing), CheckResult::Skip);
}

#[test]
fn a_directory_is_the_accounts_or_not() {
    use std::os::unix::fs::PermissionsExt as _;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let own = fs::metadata(path).unwrap();
    let ours = AgentAccount {
        uid: own.uid(),
        gid: own.gid(),
    };
    let other = AgentAccount {
        uid: own.uid() + 1,
        gid: own.gid() + 1,
    };
    fs::set_permissions(path, fs::Permissions::from_mode(0o750)).unwrap();
    let (ours, other) = (Some(ours), Some(other));
    assert_eq!(Directory::of(path, ours), Directory::Writable);
    assert_eq!(Directory::of(path, other), Directory::Locked);
    assert_eq!(Directory::of(&path.join("x"), ours), Directory::Missing);
    fs::write(path.join("x"), "").unwrap();
    assert_eq!(Directory::of(&path.join("x"), ours), Directory::Other);
}

#[test]
fn pins_of_the_living_and_the_dead() {
    let directory = tempfile::tempdir().unwrap();
    let config = Config {
        pin_dir: directory.path().join("nomail"),
        ..Config::default()
    };
    let find = || find_pins(&config.pin_dir);
    assert_eq!(pins(find(), &config, None).result, CheckResult::Ok);
    let version = config.pin_dir.join(format!("v{ABI_VERSION}"));
    fs::create_dir_all(&version).unwrap();
    fs::write(version.join("link_2"), "").unwrap();
    fs::write(version.join("SOURCES"), "").unwrap();
    assert_eq!(find().unwrap(), [(version, 1)]);
    let left = pins(find(), &config, None);
    assert_eq!(left.result, CheckResult::Warn);
    assert_eq!(left.remedy.as_deref(), Some("nomail-agent detach"));
    let mut status = Status {
        interfaces: vec![InterfaceStatus::default()],
        ..Status::default()
    };
    assert_eq!(
        pins(find(), &config, Some(&status)).result,
        CheckResult::Warn
    );
    status.interfaces[0].pinned = true;
    assert_eq!(pins(find(), &config, Some(&status)).result, CheckResult::Ok);
    let denied = Err(io::ErrorKind::PermissionDenied.into());
    assert_eq!(pins(denied, &config, None).result, CheckResult::Skip);
    let wrong = Err(io::ErrorKind::NotADirectory.into());
    assert_eq!(pins(wrong, &config, None).result, CheckResult::Fail);
}
