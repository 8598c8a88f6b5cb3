//! Reading of files as a whole. What is in them is tested with each list.

use std::fs;

use tempfile::TempDir;

use super::*;

/// Reads a file of this content, of which at most so much is read, as a list in which
/// each line counts that begins with a digit.
fn read(content: &[u8], max: u64) -> ListFile {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("list");
    fs::write(&path, content).unwrap();
    let mut read =
        LineFile::new(&path, List::Deny).read_at_most(max, |line, _| match line.chars().next() {
            None => Ok(ListLine::Nothing),
            Some('0') => Ok(ListLine::Corrected),
            Some('1'..='9') => Ok(ListLine::Entry),
            Some(_) => Err(EntryError::new(1, ValueError::Wrong("no".to_owned()))),
        });
    let at = format!("{}/", directory.path().display());
    for warning in &mut read.warnings {
        *warning = warning.replace(&at, "");
    }
    read
}

#[test]
fn wrong_lines_are_left_out_counted_and_some_are_shown() {
    let content = format!("1\r\n{}2\n", "bad\n".repeat(12));
    let read = read(content.as_bytes(), 100);
    assert_eq!((read.entries, read.left_out), (2, 12));
    assert_eq!(read.unread, None);
    assert_eq!(read.warnings.len(), 11);
    assert_eq!(read.warnings[0], "list:2:2: left out: no");
    assert_eq!(read.warnings[9], "list:11:2: left out: no");
    assert_eq!(read.warnings[10], "list: 2 more lines are left out");
}

#[test]
fn what_is_corrected_is_said_once() {
    let read = read(b"1\n0\n0\n", 100);
    assert_eq!((read.entries, read.left_out), (3, 0));
    assert_eq!(read.warnings.len(), 1);
    let warning = &read.warnings[0];
    assert!(
        warning.starts_with("list:2:1: is a network with"),
        "{warning}"
    );
    assert!(warning.ends_with("lines like this: 2"), "{warning}");
}

#[test]
fn a_file_without_one_right_line_is_not_the_one_that_was_meant() {
    let read = read(b"<html>\n<body>\n\n", 100);
    assert_eq!((read.entries, read.left_out), (0, 2));
    assert!(
        read.unread
            .unwrap()
            .starts_with("has no line that is a prefix")
    );
    assert_eq!(read.warnings.len(), 3);
    for empty in [&b""[..], b"\n\n", b"\xEF\xBB\xBF\n"] {
        assert_eq!(self::read(empty, 100).unread, None);
    }
}

/// The bound costs what is behind it.
#[test]
fn of_a_file_that_is_too_long_the_beginning_counts() {
    assert_eq!(read(b"11\n22\n", 6).warnings, [""; 0]);
    let cut = read(b"11\n22\n33\n44\n", 7);
    assert_eq!((cut.entries, cut.left_out), (2, 1));
    assert_eq!(cut.unread, None);
    let expected = "list: is longer than 7 bytes: all that follows is left out; split it";
    assert_eq!(cut.warnings, [expected]);
    assert!(read(b"1111111", 4).unread.is_some());
}

#[test]
fn what_is_not_utf8_is_replaced() {
    let read = read(b"1\xff\n\xff\n", 100);
    assert_eq!((read.entries, read.left_out), (1, 1));
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
        let read = LineFile::new(&path, list).read(|_, _| Ok(ListLine::Entry));
        let expected = format!("is not a file: name one with a {entry} a line");
        assert_eq!(read.unread, Some(expected.clone()));
        assert_eq!(read.warnings, [format!("{}: {expected}", path.display())]);
        assert_eq!(read.key, list.key());
    }
}

#[test]
fn comments_begin_with_a_word() {
    for (line, expected) in [
        ("a.example # b", "a.example "),
        ("a.example\t;b", "a.example\t"),
        ("; a", ""),
        ("a#b c;d", "a#b c;d"),
    ] {
        assert_eq!(without_comment(line), expected);
    }
}
