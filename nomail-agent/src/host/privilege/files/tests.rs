use super::*;

#[test]
fn a_reload_reaches_the_directory_of_a_file_unless_it_is_the_hosts() {
    let paths = |file: &str| reloaded(Path::new(file));
    assert_eq!(paths("/etc/nomail/deny"), [Path::new("/etc/nomail")]);
    assert_eq!(paths("/etc/deny"), [Path::new("/etc/deny")]);
    assert_eq!(paths("/deny"), [Path::new("/deny")]);
}

#[test]
fn a_reload_reaches_what_a_link_leads_to() {
    let directory = tempfile::tempdir().unwrap();
    let real = fs::canonicalize(directory.path()).unwrap();
    for name in ["etc", "lists"] {
        fs::create_dir(real.join(name)).unwrap();
    }
    fs::write(real.join("lists/deny"), "").unwrap();
    std::os::unix::fs::symlink("../lists/deny", real.join("etc/deny")).unwrap();
    let reached = reloaded(&real.join("etc/deny"));
    assert_eq!(reached, [real.join("etc"), real.join("lists")]);
}

#[test]
fn a_file_that_is_not_there_is_in_no_shared_directory() {
    assert!(!is_in_shared_directory(Path::new(
        "/nonexistent/nomail.toml"
    )));
    assert!(!is_in_shared_directory(Path::new("/etc/nonexistent")));
    assert!(is_in_shared_directory(Path::new("/etc/passwd")));
}

#[test]
fn only_the_configurations_directory_is_listed() {
    let paths = Paths {
        config: Some("/etc/nomail/nomail.toml".into()),
        lists: vec!["/srv/nomail/lists/deny".into()],
        ..Paths::default()
    };
    let listed = |path: &str| {
        let rules = paths.rules();
        let of_path = rules.iter().find(|(other, _)| other == Path::new(path));
        of_path.map(|(_, access)| access.contains(AccessFs::ReadDir))
    };
    assert_eq!(listed("/etc/nomail"), Some(true));
    assert_eq!(listed("/srv/nomail/lists"), Some(false));
}
