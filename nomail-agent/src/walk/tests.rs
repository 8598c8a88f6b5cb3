use std::{
    fs,
    io::Read as _,
    os::unix::fs::{PermissionsExt as _, chown, lchown, symlink},
};

use super::*;

const OTHER: u32 = 23_456;

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn read(path: &Path) -> Result<String, String> {
    let mut text = String::new();
    let mut file = open_file(path).map_err(|error| error.to_string())?;
    file.read_to_string(&mut text)
        .map_err(|error| error.to_string())?;
    Ok(text)
}

/// A directory beneath one that only its owner may change.
fn tree() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let real = fs::canonicalize(directory.path()).unwrap();
    for name in ["etc", "data"] {
        fs::create_dir(real.join(name)).unwrap();
    }
    fs::write(real.join("data/deny"), "listed").unwrap();
    (directory, real)
}

#[test]
fn a_descriptor_is_read_by_its_name() {
    let (_kept, top) = tree();
    let file = File::open(top.join("data/deny")).unwrap();
    let number = std::os::fd::AsRawFd::as_raw_fd(&file);
    for path in [
        format!("/proc/self/fd/{number}"),
        format!("/dev/fd/{number}"),
    ] {
        assert_eq!(read(Path::new(&path)), Ok("listed".to_owned()), "{path}");
    }
}

#[test]
fn a_file_is_read_over_ones_own_links_as_of_alternatives_and_volumes() {
    let (_kept, top) = tree();
    symlink("../data/./../data/deny", top.join("etc/relative")).unwrap();
    symlink(top.join("etc/relative"), top.join("etc/absolute")).unwrap();
    symlink("data", top.join("volume")).unwrap();
    for path in [
        "data/deny",
        "etc/relative",
        "etc/absolute",
        "volume/deny",
        "etc/../volume/deny",
    ] {
        assert_eq!(read(&top.join(path)), Ok("listed".to_owned()), "{path}");
    }
    // As a volume of Kubernetes is, whose mode lets everybody write.
    mode(&top.join("etc"), 0o777);
    assert_eq!(read(&top.join("etc/absolute")), Ok("listed".to_owned()));
}

#[test]
fn what_is_not_there_and_circles_end_as_in_the_kernel() {
    let (_kept, top) = tree();
    symlink("round", top.join("round")).unwrap();
    let kind = |path: &str| open_file(&top.join(path)).unwrap_err().into_io();
    assert_eq!(kind("nothing").kind(), io::ErrorKind::NotFound);
    assert_eq!(kind("data/deny/deny").kind(), io::ErrorKind::NotADirectory);
    assert_eq!(kind("round").raw_os_error(), Some(libc::ELOOP));
    assert_eq!(kind("data/..").kind(), io::ErrorKind::IsADirectory);
}

#[test]
fn a_link_of_another_account_is_not_followed() {
    if !Uid::effective().is_root() {
        return;
    }
    let (_kept, top) = tree();
    let secret = top.join("secret");
    fs::write(&secret, "secret").unwrap();
    mode(&secret, 0o600);
    chown(top.join("data"), Some(OTHER), None).unwrap();
    assert_eq!(read(&top.join("data/deny")), Ok("listed".to_owned()));
    for (link, target) in [("data/link", "../secret"), ("data/up", "..")] {
        symlink(target, top.join(link)).unwrap();
        lchown(top.join(link), Some(OTHER), None).unwrap();
    }
    for path in ["data/link", "data/up/secret"] {
        let error = read(&top.join(path)).unwrap_err();
        assert!(
            error.contains("uid 23456") && error.contains("make the link as root"),
            "{error}"
        );
        let link = path.split("/secret").next().unwrap();
        assert!(
            error.starts_with(top.join(link).to_str().unwrap()),
            "{error}"
        );
    }
    fs::hard_link(&secret, top.join("data/name")).unwrap();
    let error = read(&top.join("data/name")).unwrap_err();
    assert!(error.contains("has other names"), "{error}");
    fs::hard_link(&secret, top.join("etc/name")).unwrap();
    assert_eq!(read(&top.join("etc/name")), Ok("secret".to_owned()));
}

#[test]
fn a_directory_is_safe_or_the_error_names_the_one_that_is_not() {
    if !Uid::effective().is_root() {
        return;
    }
    let (_kept, top) = tree();
    let sockets = top.join("data/run");
    fs::create_dir(&sockets).unwrap();
    let checked = |path: &Path| check_directory(path, 12_345).map_err(|error| error.to_string());
    assert_eq!(checked(&sockets), Ok(()));
    chown(&sockets, Some(12_345), Some(12_345)).unwrap();
    assert_eq!(checked(&sockets), Ok(()), "the account's");
    symlink("data/run", top.join("link")).unwrap();
    assert_eq!(checked(&top.join("link")), Ok(()), "root's link");
    lchown(top.join("link"), Some(OTHER), None).unwrap();
    assert!(
        checked(&top.join("link"))
            .unwrap_err()
            .contains("make the link as root")
    );
    for unsafe_mode in [0o777, 0o757, 0o775] {
        chown(&sockets, Some(0), Some(OTHER)).unwrap();
        mode(&sockets, unsafe_mode);
        let error = checked(&sockets).unwrap_err();
        assert!(error.contains("chmod go-w"), "{unsafe_mode:o}: {error}");
        mode(&sockets, unsafe_mode | 0o1000);
        assert_eq!(checked(&sockets), Ok(()), "sticky");
    }
    // Above it, as well.
    chown(top.join("data"), Some(OTHER), None).unwrap();
    let error = checked(&sockets).unwrap_err();
    let data = top.join("data");
    assert!(
        error.starts_with(&format!("{} belongs to uid 23456", data.display())),
        "{error}"
    );
}
