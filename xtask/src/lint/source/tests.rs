//! Small crates, and what is read from them.

use anyhow::anyhow;

use super::*;

/// Sources of crates, each a name and its top file, from files in memory.
pub(in super::super) fn sources(crates: &[(&str, &str)], files: &[(&str, &str)]) -> Sources {
    let read = |path: &Path| {
        let file = files.iter().find(|(name, _)| path == Path::new(name));
        file.map(|(_, text)| (*text).to_owned())
            .ok_or_else(|| anyhow!("no {}", path.display()))
    };
    let mut sources = Sources::default();
    for (name, root) in crates {
        sources.add(name, root, &read).unwrap();
    }
    sources
}

/// The arrows of a crate `a` as text: `from -> to: names`, without the folder.
fn arrows(files: &[(&str, &str)]) -> Vec<String> {
    let sources = sources(&[("a", "a/src/lib.rs")], files);
    let name = |file: usize| sources.files[file].path.trim_start_matches("a/src/");
    let arrows = sources.arrows();
    let shown = arrows.iter().map(|arrow| {
        let (from, to) = (name(arrow.from), name(arrow.to));
        format!("{from}:{} -> {to}: {}", arrow.line, arrow.names.join(" "))
    });
    shown.collect()
}

#[test]
fn imports_and_paths_lead_to_the_file_that_defines_the_name() {
    let found = arrows(&[
        ("a/src/lib.rs", "mod x;\nmod y;\nmod z;"),
        (
            "a/src/x.rs",
            "use crate::y::{Y, self};\n\nfn f() { y::g(); crate::z::H; Y::new(); }",
        ),
        ("a/src/y.rs", "pub struct Y;\npub fn g() {}"),
        (
            "a/src/z.rs",
            "pub const H: u8 = 0;\nfn f(_: super::x::Nothing) {}",
        ),
    ]);
    assert_eq!(found, ["x.rs:1 -> y.rs: Y g", "x.rs:3 -> z.rs: H"]);
}

#[test]
fn a_re_export_is_followed_and_is_no_use() {
    let found = arrows(&[
        ("a/src/lib.rs", "mod room;\nmod user;"),
        (
            "a/src/room/mod.rs",
            "mod inner;\nmod other;\npub use inner::Inner;\npub use self::other::*;",
        ),
        ("a/src/room/inner.rs", "pub struct Inner;"),
        ("a/src/room/other.rs", "pub struct Other;"),
        (
            "a/src/user.rs",
            "use crate::room::{Inner as I};\n\nfn f(_: crate::room::Other) {}",
        ),
    ]);
    assert_eq!(
        found,
        [
            "user.rs:1 -> room/inner.rs: Inner",
            "user.rs:3 -> room/other.rs: Other"
        ]
    );
}

#[test]
fn an_import_that_is_used_is_an_arrow_also_of_a_mod_file() {
    let found = arrows(&[
        ("a/src/lib.rs", "mod room;"),
        (
            "a/src/room/mod.rs",
            "mod inner;\nuse inner::Inner;\nstruct Outer(Inner);",
        ),
        ("a/src/room/inner.rs", "pub struct Inner(super::Outer);"),
    ]);
    assert_eq!(
        found,
        [
            "room/mod.rs:2 -> room/inner.rs: Inner",
            "room/inner.rs:1 -> room/mod.rs: Outer"
        ]
    );
}

#[test]
fn modules_within_a_file_are_of_that_file() {
    let found = arrows(&[
        ("a/src/lib.rs", "mod x;\nmod y;"),
        (
            "a/src/x.rs",
            "mod inner {\n    use super::{X, super::y::Y};\n}\nstruct X;\nmod file;",
        ),
        ("a/src/x/file.rs", "use super::super::y::Y;"),
        ("a/src/y.rs", "pub struct Y;"),
    ]);
    assert_eq!(found, ["x.rs:2 -> y.rs: Y", "x/file.rs:1 -> y.rs: Y"]);
}

#[test]
fn the_input_of_macros_is_read_too() {
    let found = arrows(&[
        ("a/src/lib.rs", "#[macro_use]\nmod x;\nmod y;\nmod z;"),
        (
            "a/src/x.rs",
            "#[macro_export]\nmacro_rules! table {\n    ($name:ident) => { $crate::z::Z; $name::none() };\n}",
        ),
        (
            "a/src/y.rs",
            "crate::table! { pub enum Word { A } }\nuse crate::z;\nfn f() { log!(\"{}\", z::g(1)); }",
        ),
        (
            "a/src/z.rs",
            "pub struct Z;\npub fn g() { super::y::Word::A }",
        ),
    ]);
    assert_eq!(
        found,
        [
            "x.rs:3 -> z.rs: Z",
            "y.rs:1 -> x.rs: table",
            "y.rs:3 -> z.rs: g",
            "z.rs:2 -> y.rs: Word"
        ]
    );
}

#[test]
fn test_code_is_left_out() {
    let found = arrows(&[
        ("a/src/lib.rs", "mod x;\nmod y;"),
        (
            "a/src/x.rs",
            "#[cfg(test)]\nuse crate::y::Y;\n#[cfg(all(test, unix))]\nfn f() { crate::y::g() }\n\
             #[cfg(test)]\nmod tests { use crate::y::Y; }\n#[cfg(test)]\nmod missing;",
        ),
        (
            "a/src/y.rs",
            "pub struct Y;\npub fn g() {}\n#[cfg(not(test))]\nuse crate::x::X;",
        ),
    ]);
    assert_eq!(found, [""; 0]);
    let found = arrows(&[
        ("a/src/lib.rs", "mod x;\nmod y;"),
        ("a/src/x.rs", "pub struct X;"),
        ("a/src/y.rs", "#[cfg(not(test))]\nuse crate::x::X;"),
    ]);
    assert_eq!(found, ["y.rs:2 -> x.rs: X"]);
}

#[test]
fn lines_of_tests_at_the_end_do_not_count() {
    let lines =
        |text: &str| sources(&[("a", "a/src/lib.rs")], &[("a/src/lib.rs", text)]).files[0].lines;
    assert_eq!(
        lines("fn f() {}\n\n#[cfg(test)]\nmod tests {\n    fn g() {}\n}\n"),
        1
    );
    assert_eq!(lines("#[cfg(test)]\nmod tests {\n}\nfn f() {}\n"), 4);
    assert_eq!(lines("fn f() {}\nmod tests {\n}\n"), 3);
}

#[test]
fn a_crate_is_foreign_unless_a_module_or_an_import_has_its_name() {
    let sources = sources(
        &[("a", "a/src/lib.rs")],
        &[
            ("a/src/lib.rs", "mod aya;\nmod x;\nuse aya::Y;"),
            ("a/src/aya.rs", "pub struct Y;"),
            (
                "a/src/x.rs",
                "fn f() {\n    aya::load();\n    let _ = super::aya::Y;\n}",
            ),
        ],
    );
    let foreign = sources.foreign();
    let of_aya: Vec<_> = foreign
        .iter()
        .filter(|foreign| foreign.name == "aya")
        .collect();
    assert_eq!(of_aya.len(), 1);
    assert_eq!(sources.files[of_aya[0].from].path, "a/src/x.rs");
    assert_eq!(of_aya[0].line, 2);
}
