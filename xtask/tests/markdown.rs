//! The Markdown of the workspace: links and anchors resolve, the tests, files and commands that
//! it names exist, the folder docs is a book, and it stays short.

#![allow(clippy::unwrap_used, reason = "helpers of tests, too")]

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Component, Path, PathBuf},
};

/// Most bytes of all Markdown files together: 150 KiB.
const ALL_MAX: usize = 150 * 1024;
/// Most bytes of a page that is to be read in one go.
const PAGES_MAX: [(&str, usize); 2] = [("README.md", 9_000), ("docs/performance.md", 8_000)];
/// Each Markdown file, by its path from the top.
struct Pages {
    top: PathBuf,
    texts: BTreeMap<PathBuf, String>,
}

impl Pages {
    fn read() -> Self {
        let top = Path::new(&env::var_os("CARGO_MANIFEST_DIR").unwrap()).join("..");
        let top = top.canonicalize().unwrap();
        let mut texts = BTreeMap::new();
        collect(&top, &top, &mut texts);
        assert!(texts.len() > 20, "{}", texts.len());
        Self { top, texts }
    }

    fn text(&self, path: &str) -> &str {
        &self.texts[Path::new(path)]
    }

    /// The pages of the book.
    fn chapters(&self) -> impl Iterator<Item = &PathBuf> {
        let book = Path::new("docs");
        let contents = Path::new("docs/SUMMARY.md");
        let paths = self.texts.keys();
        paths.filter(move |path| path.parent() == Some(book) && path.as_path() != contents)
    }
}

fn collect(top: &Path, folder: &Path, texts: &mut BTreeMap<PathBuf, String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            collect(top, &path, texts);
        } else if name.ends_with(".md") {
            let inner = path.strip_prefix(top).unwrap().to_owned();
            texts.insert(inner, fs::read_to_string(&path).unwrap());
        }
    }
}

/// The blocks of code: what stands behind the fence, and the lines.
fn blocks(text: &str) -> Vec<(&str, Vec<&str>)> {
    // Before, in, between, in, … fences.
    let inner = text.split("```").skip(1).step_by(2);
    inner
        .map(|block| {
            let mut lines = block.lines();
            (lines.next().unwrap_or_default(), lines.collect())
        })
        .collect()
}

/// The lines that are no blocks of code.
fn prose(text: &str) -> Vec<&str> {
    let outer = text.split("```").step_by(2);
    outer.flat_map(str::lines).collect()
}

/// The pieces of code within lines.
fn spans(text: &str) -> Vec<&str> {
    let lines = prose(text).into_iter();
    lines
        .flat_map(|line| line.split('`').skip(1).step_by(2))
        .collect()
}

/// The targets of links and images.
fn links(text: &str) -> Vec<String> {
    let lines = prose(text).into_iter();
    lines
        .flat_map(|line| {
            // A link's text may be code, its target is none.
            let plain: Vec<_> = line.split('`').step_by(2).collect();
            let targets: Vec<_> = plain
                .join("code")
                .split("](")
                .skip(1)
                .map(|rest| rest.split(')').next().unwrap_or(rest).to_owned())
                .collect();
            targets
        })
        .collect()
}

/// What a heading is called in a link, by mdBook and by GitHub.
fn anchors(text: &str) -> Vec<String> {
    let headings = prose(text).into_iter().filter_map(|line| {
        line.trim_start_matches('#')
            .strip_prefix(' ')
            .filter(|_| line.starts_with('#'))
    });
    headings
        .map(|heading| {
            let kept = |letter: &char| letter.is_alphanumeric() || [' ', '-', '_'].contains(letter);
            let heading = heading.trim().to_lowercase();
            let kept: String = heading.chars().filter(kept).collect();
            kept.replace(' ', "-")
        })
        .collect()
}

/// A path without `.` and `..`.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => assert!(plain.pop(), "{}", path.display()),
            Component::CurDir => {}
            other => plain.push(other),
        }
    }
    plain
}

#[test]
fn links_lead_somewhere() {
    let pages = Pages::read();
    let (mut faults, mut checked) = (Vec::new(), 0);
    for (page, text) in &pages.texts {
        for link in links(text) {
            if link.starts_with("https:") {
                continue;
            }
            checked += 1;
            let (file, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let target = match file {
                "" => page.clone(),
                file => plain(&page.parent().unwrap().join(file)),
            };
            let leaves = page.starts_with("docs") && !target.starts_with("docs");
            let lost = !anchor.is_empty()
                && !pages
                    .texts
                    .get(&target)
                    .is_some_and(|text| anchors(text).iter().any(|known| known == anchor));
            for (wrong, why) in [
                (!pages.top.join(&target).is_file(), "no such file"),
                (lost, "no such heading"),
                (leaves, "not in the book"),
            ] {
                if wrong {
                    faults.push(format!("{}: {link}: {why}", page.display()));
                }
            }
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
    assert!(checked > 50, "{checked}");
}

#[test]
fn each_page_of_docs_is_a_chapter() {
    let pages = Pages::read();
    let mut listed = links(pages.text("docs/SUMMARY.md"));
    listed.sort();
    let there: Vec<_> = pages
        .chapters()
        .map(|path| path.file_name().unwrap().to_string_lossy().into_owned())
        .collect();
    assert_eq!(listed, there);
}

/// What a page names as `FILE::TEST`, and paths from the top of the sources.
#[test]
fn tests_and_files_that_are_named_exist() {
    let pages = Pages::read();
    let (mut faults, mut tests, mut files) = (Vec::new(), 0, 0);
    for (page, text) in &pages.texts {
        for span in spans(text) {
            let is_there = if let Some((file, test)) = test_name(span)
                && page.starts_with("docs")
            {
                tests += 1;
                let file = pages.top.join(format!("tests/tests/{file}.rs"));
                let source = fs::read_to_string(file).unwrap_or_default();
                source.contains(&format!("\nfn {test}()"))
            } else if is_path(span) {
                files += 1;
                pages.top.join(span).exists()
            } else {
                true
            };
            if !is_there {
                faults.push(format!("{}: {span}", page.display()));
            }
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
    assert!(tests > 20 && files > 30, "{tests} {files}");
}

/// The two words of `FILE::TEST`.
fn test_name(span: &str) -> Option<(&str, &str)> {
    let word = |text: &str| {
        let mut letters = text.chars();
        !text.is_empty()
            && letters.all(|letter| {
                letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '_'
            })
    };
    span.split_once("::")
        .filter(|(file, test)| word(file) && word(test))
}

/// Whether it is a path from the top of the sources, without a placeholder.
fn is_path(span: &str) -> bool {
    const TOP: [&str; 8] = [
        "docs",
        "fuzz",
        "nomail-agent",
        "nomail-common",
        "nomail-ebpf",
        "packaging",
        "tests",
        "xtask",
    ];
    let mut parts = span.split('/');
    let placeholder =
        |part: &str| part.len() > 1 && part.chars().all(|c| c.is_uppercase() || c == '-');
    parts.next().is_some_and(|first| TOP.contains(&first))
        && parts.next().is_some()
        && !span.contains([' ', '*', '{', '…'])
        && !span.split('/').any(placeholder)
        // Is there while there is a finding.
        && span != "fuzz/artifacts"
}

/// The tests of the package run the book's commands.
#[test]
fn the_readme_runs_what_the_book_runs() {
    let pages = Pages::read();
    let commands = |path: &Path| {
        let mut commands = Vec::new();
        for (kind, lines) in blocks(&pages.texts[path]) {
            if let Some(place) = kind.strip_prefix("sh ") {
                commands.extend(lines.into_iter().map(|line| (place, line)));
            }
        }
        commands
    };
    let book: Vec<_> = pages.chapters().flat_map(|page| commands(page)).collect();
    let readme = commands(Path::new("README.md"));
    for command in &readme {
        assert!(book.contains(command), "{command:?}");
    }
    assert!(readme.len() > 5, "{readme:?}");
}

#[test]
fn pages_stay_short() {
    let pages = Pages::read();
    let all: usize = pages.texts.values().map(String::len).sum();
    assert!(all < ALL_MAX, "{all} bytes of Markdown");
    for (page, max) in PAGES_MAX {
        let bytes = pages.text(page).len();
        assert!(bytes <= max, "{page}: {bytes} bytes");
    }
}
