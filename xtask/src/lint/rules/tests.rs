//! Each rule is broken once.

use super::super::rooms::Uses;
use super::super::source::tests::sources;
use super::*;

const PACKAGES: &[Package] = &[
    Package {
        name: "common",
        crates: &[("common", "common/src/lib.rs")],
        uses: &[],
        rooms: &[],
        is_bounded: false,
    },
    Package {
        name: "nomail-agent",
        crates: &[("agent", "nomail-agent/src/lib.rs")],
        uses: &["common"],
        rooms: &[
            ("text", Uses::Ground),
            ("smtp", Uses::Only(&[])),
            ("guard", Uses::Only(&[])),
            ("agent", Uses::AllBut(&[])),
        ],
        is_bounded: true,
    },
];
const COMMON: [(&str, &str); 2] = [
    ("common/src/lib.rs", "pub mod abi;"),
    ("common/src/abi.rs", "pub struct Abi;"),
];

/// The faults of an agent of these files, below `nomail-agent/src`, and the known faults that
/// are none.
fn check<'a>(files: &[(&str, &str)], known: &[Exception<'a>]) -> (Vec<Fault>, Vec<Exception<'a>>) {
    let files: Vec<_> = files
        .iter()
        .map(|(name, text)| (format!("nomail-agent/src/{name}"), *text))
        .collect();
    let named = files.iter().map(|(name, text)| (name.as_str(), *text));
    let all: Vec<_> = named.chain(COMMON).collect();
    let crates = PACKAGES
        .iter()
        .flat_map(|package| package.crates.iter().copied());
    let sources = sources(&crates.collect::<Vec<_>>(), &all);
    faults(&sources, PACKAGES, known)
}

/// Rule, file, line and other file of each.
fn brief(faults: &[Fault]) -> Vec<(Rule, &str, usize, &str)> {
    let short = |path| str::strip_prefix(path, "nomail-agent/src/").unwrap_or(path);
    let brief = faults.iter().map(|fault| {
        (
            fault.rule,
            short(&fault.file),
            fault.line,
            short(&fault.other),
        )
    });
    brief.collect()
}

const GOOD: [(&str, &str); 6] = [
    ("lib.rs", "mod agent;\nmod guard;\nmod smtp;\nmod text;"),
    ("agent.rs", "use crate::{guard::G, smtp::S};"),
    ("guard/mod.rs", "mod g;\npub use g::G;"),
    (
        "guard/g.rs",
        "use aya::Ebpf;\nuse common::abi::Abi;\npub struct G;",
    ),
    ("smtp.rs", "use crate::text;\npub struct S(text::T);"),
    ("text.rs", "pub struct T;"),
];

/// The good house with one file in place of another.
fn changed(name: &'static str, text: &'static str) -> Vec<(&'static str, &'static str)> {
    let mut files = GOOD.to_vec();
    files.retain(|(file, _)| *file != name);
    files.push((name, text));
    files
}

#[test]
fn a_house_in_order_has_no_fault() {
    assert_eq!(check(&GOOD, &[]), (Vec::new(), Vec::new()));
}

#[test]
fn a_subject_that_knows_another_is_a_fault() {
    let files = changed("smtp.rs", "pub struct S;\nuse crate::guard::G;");
    let (faults, _) = check(&files, &[]);
    assert_eq!(brief(&faults), [(Rule::Room, "smtp.rs", 2, "guard/g.rs")]);
    let text = faults[0].to_string();
    assert!(
        text.starts_with("nomail-agent/src/smtp.rs:2: room: smtp must not use guard (G)\n")
            && text.contains("remedy: have `agent`"),
        "{text}"
    );
    let line = "room nomail-agent/src/smtp.rs nomail-agent/src/guard/g.rs";
    let known = [Exception::parse(line).unwrap()];
    assert_eq!(known[0].to_string(), line);
    assert_eq!(check(&files, &known), (Vec::new(), Vec::new()));
    assert_eq!(check(&GOOD, &known), (Vec::new(), known.to_vec()));
}

#[test]
fn ground_that_uses_a_subject_and_a_room_without_a_row_are_faults() {
    let (faults, _) = check(&changed("text.rs", "pub struct T(crate::smtp::S);"), &[]);
    assert!(brief(&faults).contains(&(Rule::Room, "text.rs", 1, "smtp.rs")));
    let mut files = changed(
        "lib.rs",
        "mod agent;\nmod guard;\nmod smtp;\nmod text;\nmod new;",
    );
    files.push(("new.rs", "use crate::text::T;"));
    let (faults, _) = check(&files, &[]);
    assert_eq!(brief(&faults), [(Rule::Room, "new.rs", 1, "text.rs")]);
}

#[test]
fn only_its_folder_uses_a_wrapped_crate() {
    let (faults, _) = check(
        &changed("text.rs", "pub struct T;\nfn f() { aya::load() }"),
        &[],
    );
    assert_eq!(brief(&faults), [(Rule::Room, "text.rs", 2, "aya")]);
}

#[test]
fn a_package_uses_only_those_of_its_row() {
    let files = [COMMON[0], ("common/src/abi.rs", "use agent::text::T;")];
    let agent = [
        ("nomail-agent/src/lib.rs", "pub mod text;"),
        ("nomail-agent/src/text.rs", "pub struct T;"),
    ];
    let crates = [
        ("common", "common/src/lib.rs"),
        ("agent", "nomail-agent/src/lib.rs"),
    ];
    let sources = sources(&crates, &[files, agent].concat());
    let (faults, _) = faults(&sources, PACKAGES, &[]);
    assert_eq!(
        brief(&faults),
        [(Rule::Room, "common/src/abi.rs", 1, "nomail-agent")]
    );
}

#[test]
fn a_name_taken_from_the_file_that_declares_it_is_a_fault_but_no_circle() {
    let mut files = changed(
        "guard/mod.rs",
        "mod g;\npub use g::G;\npub const N: u8 = 0;\nfn f(_: G) {}",
    );
    files.retain(|(name, _)| *name != "guard/g.rs");
    files.push(("guard/g.rs", "use super::N;\npub struct G;"));
    let (faults, _) = check(&files, &[]);
    assert_eq!(
        brief(&faults),
        [(Rule::Upward, "guard/g.rs", 1, "guard/mod.rs")]
    );
}

#[test]
fn a_circle_is_reported_once_with_each_of_its_arrows() {
    let mut files = changed("guard/mod.rs", "mod g;\nmod h;\nmod i;\npub use g::G;");
    files.retain(|(name, _)| *name != "guard/g.rs");
    files.extend([
        ("guard/g.rs", "use super::h::H;\npub struct G;"),
        ("guard/h.rs", "\nuse super::i::I;\npub struct H;"),
        ("guard/i.rs", "\n\nuse super::g::G;\npub struct I;"),
    ]);
    let (faults, _) = check(&files, &[]);
    assert_eq!(
        brief(&faults),
        [(Rule::Circle, "guard/g.rs", 1, "guard/h.rs")]
    );
    for arrow in [
        "guard/g.rs:1 uses H of ",
        "guard/h.rs:2 uses I of ",
        "guard/i.rs:3 uses G of ",
    ] {
        assert!(faults[0].what.contains(arrow), "{}", faults[0].what);
    }
    // Without one of its arrows there is none.
    let line = "circle nomail-agent/src/guard/h.rs nomail-agent/src/guard/i.rs";
    let h = Exception::parse(line).unwrap();
    assert_eq!(check(&files, &[h]), (Vec::new(), Vec::new()));
    assert_eq!(check(&GOOD, &[h]), (Vec::new(), vec![h]));
}

#[test]
fn a_long_file_is_a_fault_and_its_tests_do_not_count() {
    let long = "\n".repeat(LINES_MAX - 1) + "pub struct T;\n";
    let tests = "#[cfg(test)]\nmod tests {\n}\n";
    let right = (long.clone() + tests).leak();
    assert_eq!(check(&changed("text.rs", right), &[]).0, []);
    let (faults, _) = check(&changed("text.rs", ("\n".to_owned() + &long).leak()), &[]);
    assert_eq!(
        brief(&faults),
        [(Rule::Length, "text.rs", LINES_MAX + 1, "")]
    );
}

#[test]
fn a_line_of_a_known_fault_names_a_rule_and_a_file() {
    let parsed = Exception::parse("length a/src/lib.rs").unwrap();
    assert_eq!(
        (parsed.rule, parsed.file, parsed.other),
        (Rule::Length, "a/src/lib.rs", "")
    );
    for line in ["", "length", "long a/src/lib.rs", "room a b c"] {
        assert!(Exception::parse(line).is_err(), "{line}");
    }
}

#[test]
fn a_name_that_two_types_of_the_program_have_is_a_fault() {
    let mut files = changed(
        "smtp.rs",
        "pub struct S;\npub enum Line {}\nconst LINE: u8 = 0;",
    );
    files.retain(|(name, _)| *name != "text.rs");
    files.push((
        "text.rs",
        "pub struct T;\nstruct Line;\nconst LINE: u8 = 0;",
    ));
    let (faults, _) = check(&files, &[]);
    assert_eq!(brief(&faults), [(Rule::Name, "text.rs", 2, "smtp.rs")]);
}
