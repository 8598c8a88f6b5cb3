//! Reading of files as a whole. What is in them is tested with each list.

use std::fs;

use tempfile::TempDir;

use super::*;

#[test]
fn a_list_that_is_too_long() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("list");
    fs::write(&path, b"12345").unwrap();
    let file = LineFile::new(&path, List::Domains, 0);
    assert_eq!(file.octets(5), Ok(b"12345".to_vec()));
    assert_eq!(
        file.octets(4),
        Err("is longer than 4 octets: split it".to_owned())
    );
}

#[test]
fn a_named_pipe_does_not_hang() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("pipe");
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    for (list, entry) in [
        (List::Allow, "prefix"),
        (List::Deny, "prefix"),
        (List::Domains, "domain"),
    ] {
        assert_eq!(
            LineFile::new(&path, list, 0).octets(5),
            Err(format!("is not a file: name one with a {entry} a line"))
        );
    }
}
