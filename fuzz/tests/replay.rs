//! Every input that was worth keeping, on stable Rust and without libFuzzer.

#![allow(clippy::unwrap_used, reason = "helpers of tests, too")]

use std::{collections::BTreeSet, env, fs, path::PathBuf};

use nomail_fuzz::TARGETS;
use rstest::rstest;

/// The folder of this package, as cargo says when it runs the test: the checkout may
/// have been copied or moved since it was compiled.
fn package() -> PathBuf {
    env::var_os("CARGO_MANIFEST_DIR").unwrap().into()
}

/// The files of `kind` for a target, in order; none if there is no such directory.
fn inputs(kind: &str, target: &str) -> Vec<PathBuf> {
    let directory = package().join(kind).join(target);
    let Ok(entries) = fs::read_dir(directory) else {
        return Vec::new();
    };
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[rstest]
#[case::dialog("dialog")]
#[case::command("command")]
#[case::packet("packet")]
#[case::config("config")]
#[case::domains("domains")]
#[case::lists("lists")]
#[case::senders("senders")]
#[case::control("control")]
fn every_input_is_survived(#[case] name: &str) {
    let (_, target) = TARGETS.into_iter().find(|(n, _)| *n == name).unwrap();
    let corpus = inputs("corpus", name);
    assert!(!corpus.is_empty(), "fuzz/corpus/{name} has no file");
    for file in corpus.into_iter().chain(inputs("artifacts", name)) {
        // Shown when it fails.
        println!("replaying {}", file.display());
        target(&fs::read(file).unwrap());
    }
}

/// A target that is missing here would never be replayed.
#[test]
fn every_target_has_its_program_and_its_corpus() {
    let fuzz = package();
    let names = |directory: &str| -> BTreeSet<String> {
        let entries = fs::read_dir(fuzz.join(directory)).unwrap();
        let stem = |path: PathBuf| path.file_stem().unwrap().to_str().unwrap().into();
        entries.map(|entry| stem(entry.unwrap().path())).collect()
    };
    let targets: BTreeSet<_> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(names("fuzz_targets"), targets);
    assert_eq!(names("corpus"), targets);
}
