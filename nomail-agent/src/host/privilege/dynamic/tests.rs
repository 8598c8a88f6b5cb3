use super::*;

#[test]
fn the_owner_of_the_state_comes_first_and_each_is_tried_once() {
    let state_dir = Path::new("/var/lib/nomail");
    let first = candidates(None, state_dir).next().unwrap();
    let all: Vec<_> = candidates(Some(62_000), state_dir).collect();
    assert_eq!(all[..2], [62_000, first]);
    assert_eq!(all.len(), RANGE.clone().count());
    assert_eq!(all.iter().collect::<HashSet<_>>().len(), all.len());
    for other in [0, 1000, NOBODY] {
        assert_eq!(candidates(Some(other), state_dir).next(), Some(first));
    }
    assert_ne!(
        candidates(None, Path::new("/var/lib/other")).next(),
        Some(first)
    );
}

#[test]
fn the_state_of_earlier_accounts_is_taken_over_and_no_others() {
    use std::os::unix::fs::chown;
    if !Uid::effective().is_root() {
        return;
    }
    for (owner, taken) in [(NOBODY, true), (62_000, true), (0, false), (1000, false)] {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join(state::FILE);
        fs::write(&file, "").unwrap();
        for path in [&file, directory.path()] {
            chown(path, Some(owner), Some(owner)).unwrap();
        }
        adopt(directory.path(), 62_001);
        let expected = if taken { 62_001 } else { owner };
        for path in [&file, directory.path()] {
            assert_eq!(fs::metadata(path).unwrap().uid(), expected, "{owner}");
        }
    }
}

#[test]
fn an_account_in_use_is_no_candidate() {
    let own = Uid::effective().as_raw();
    assert!(running_uids("/proc").unwrap().contains(&own));
    assert!(!is_unknown(0).unwrap());
    let uid = free_uid(Path::new("/nonexistent")).unwrap();
    assert!(RANGE.contains(&uid));
    assert!(!running_uids("/proc").unwrap().contains(&uid));
}
