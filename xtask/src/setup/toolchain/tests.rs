use std::os::unix::fs::PermissionsExt as _;

use super::*;

const STABLE: &str = "rustc 1.95.0 (59807616e 2026-04-14)\nbinary: rustc\nhost: x86_64-unknown-linux-gnu\nrelease: 1.95.0\nLLVM version: 22.1.2\n";

pub(in super::super) fn compiler(origin: Origin, release: &str, rust_src: bool) -> Compiler {
    let text = format!("release: {release}\nLLVM version: 22.1.2\n");
    Compiler {
        origin,
        rustc: "/somewhere/bin/rustc".into(),
        cargo: None,
        version: Version::parse(&text).unwrap(),
        rust_src,
    }
}

#[test]
fn reads_rustc_versions() {
    let version = Version::parse(STABLE).unwrap();
    assert_eq!(version.release, "1.95.0");
    assert_eq!((version.number, version.llvm), ((1, 95), 22));
    let nightly = STABLE.replace("release: 1.95.0", "release: 1.100.0-nightly");
    assert_eq!(Version::parse(&nightly).unwrap().number, (1, 100));
    assert_eq!(Version::parse("rustc 1.95.0\n"), None);
    assert_eq!(Version::parse(&STABLE.replace("22.1.2", "unknown")), None);
    assert_eq!(Version::parse(""), None);
}

#[test]
fn reads_the_llvm_of_a_linker() {
    for (text, major) in [
        ("\0libLLVM.so.22.1\0", Some(22)),
        ("\0libLLVM-14.so.1\0", Some(14)),
        ("\0LLVM_21.1\0", Some(21)),
        ("\0LLVM23.1.0-rust-1.99.0-nightly\0", Some(23)),
        ("LLLVM22.1", Some(22)),
        ("LLVM 22 builds also", None),
        ("LLVM3.1 LLVMContext22set LLVM", None),
        ("", None),
    ] {
        assert_eq!(llvm_of_binary(text.as_bytes()), major, "{text:?}");
    }
}

#[test]
fn prefers_the_first_complete_set() {
    let linker = Some(PathBuf::from("/tools/bpf-linker"));
    let nightly = compiler(Origin::Nightly, "1.97.0-nightly", true);
    let bare = compiler(Origin::Nightly, "1.97.0-nightly", false);
    let old = compiler(Origin::System, "1.63.0", true);
    let system = compiler(Origin::System, "1.96.0", true);
    let origin = |found: &[Candidate]| choose(found).map(|(compiler, _)| compiler.origin);

    let both = [
        (nightly.clone(), linker.clone()),
        (system.clone(), linker.clone()),
    ];
    assert_eq!(origin(&both), Some(Origin::Nightly));
    // A complete set wins over a better compiler that would need a linker built.
    let one_linker = [(nightly.clone(), None), (system.clone(), linker)];
    assert_eq!(origin(&one_linker), Some(Origin::System));
    let no_linker = [(nightly, None), (system.clone(), None)];
    assert_eq!(origin(&no_linker), Some(Origin::Nightly));
    assert_eq!(
        origin(&[(bare.clone(), None), (system, None)]),
        Some(Origin::System)
    );
    assert_eq!(origin(&[(bare, None), (old, None)]), None);
    assert_eq!(origin(&[]), None);
}

#[test]
fn finds_a_set_in_given_places() {
    let dir = tempfile::tempdir().unwrap();
    let sysroot = dir.path().join("sysroot");
    let core = sysroot.join("lib/rustlib/src/rust/library/core/src");
    let script = |file: &Path, text: &str| {
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(file, fs::Permissions::from_mode(0o755)).unwrap();
    };
    let rustc = sysroot.join("bin/rustc");
    script(
        &rustc,
        &format!(
            "case $1 in -vV) echo 'release: 1.96.0'; echo 'LLVM version: 22.1.8';; *) echo {};; esac",
            sysroot.display()
        ),
    );
    let tools = dir.path().join("tools");
    let mut places = Places {
        rustcs: vec![
            (Origin::System, rustc.clone()),
            (Origin::Path, rustc.clone()),
        ],
        linkers: vec![tools.clone()],
    };

    let found = candidates(&places);
    assert_eq!(found.len(), 1, "the same compiler counts once");
    assert_eq!(found[0].0.shortcoming().as_deref(), Some("no rust-src"));

    fs::create_dir_all(&core).unwrap();
    fs::write(core.join("lib.rs"), "").unwrap();
    script(&tools.join("bpf-linker"), "# LLVM21.1.0");
    let (found, linker) = candidates(&places).remove(0);
    assert_eq!((found.rustc, linker), (rustc, None), "its LLVM is too old");

    script(&tools.join("bpf-linker"), "# LLVM22.1.0");
    assert_eq!(candidates(&places)[0].1, Some(tools.join("bpf-linker")));
    script(&tools.join("bpf-linker"), "# LLVM22.1.0\nexit 127");
    assert_eq!(candidates(&places)[0].1, None, "it does not run");

    places.rustcs = vec![(Origin::System, dir.path().join("nowhere"))];
    assert_eq!(candidates(&places), []);
}
