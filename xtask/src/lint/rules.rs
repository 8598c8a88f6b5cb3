//! The rules of the house, and what breaks them.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;

use anyhow::{Result, bail};

use super::rooms::{Package, SHIPPED, WRAPPED, room_of};
use super::source::{Arrow, Sources};

/// Longest file, without a `mod tests` at its end.
pub(super) const LINES_MAX: usize = 600;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rule {
    /// A room uses only the rooms that the table names.
    Room,
    /// No file takes a name from the file that declares it.
    Upward,
    /// No circle between the files of a crate.
    Circle,
    /// No file has more than [`LINES_MAX`] lines.
    Length,
    /// No two types of the program have one name.
    Name,
}

const RULES: [Rule; 5] = [
    Rule::Room,
    Rule::Upward,
    Rule::Circle,
    Rule::Length,
    Rule::Name,
];

impl Rule {
    fn name(self) -> &'static str {
        match self {
            Self::Room => "room",
            Self::Upward => "upward",
            Self::Circle => "circle",
            Self::Length => "length",
            Self::Name => "name",
        }
    }

    fn remedy(self) -> &'static str {
        match self {
            Self::Room => {
                "have `agent` or `commands` hand it over, or move the name into a room that both \
                 may use: xtask/src/lint/rooms.rs has the table"
            }
            Self::Upward => "move the name into a file of its own beside this one",
            Self::Circle => "move what both need into a third file",
            Self::Length => "split it by subject, and move its tests into a file of their own",
            Self::Name => "name each after what it is, or make one of the two",
        }
    }
}

/// Something that is against a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) rule: Rule,
    pub(super) file: String,
    /// The other file or crate, if any: with rule and file what an [`Exception`] names.
    pub(super) other: String,
    pub(super) line: usize,
    pub(super) what: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            file,
            line,
            what,
            rule,
            ..
        } = self;
        let (name, remedy) = (rule.name(), rule.remedy());
        write!(f, "{file}:{line}: {name}: {what}\n    remedy: {remedy}")
    }
}

/// A fault that is known: the rule, the file, and what [`Fault::other`] has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Exception<'a> {
    pub(super) rule: Rule,
    pub(super) file: &'a str,
    pub(super) other: &'a str,
}

impl<'a> Exception<'a> {
    /// Reads a line of the file of known faults.
    ///
    /// # Errors
    /// When it does not name a rule and a file.
    pub(super) fn parse(line: &'a str) -> Result<Self> {
        let mut words = line.split_whitespace();
        let name = words.next().unwrap_or_default();
        let rule = RULES.into_iter().find(|rule| rule.name() == name);
        match (rule, words.next(), words.next(), words.next()) {
            (Some(rule), Some(file), other, None) => Ok(Self {
                rule,
                file,
                other: other.unwrap_or_default(),
            }),
            _ => bail!("a known fault is a rule, a file, and perhaps another file: {line:?}"),
        }
    }

    fn is(&self, fault: &Fault) -> bool {
        (self.rule, self.file, self.other) == (fault.rule, &fault.file, &fault.other)
    }
}

impl fmt::Display for Exception<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.rule.name(), self.file, self.other)
    }
}

/// All faults except the known ones, and the known ones that are no faults any more.
pub(super) fn faults<'a>(
    sources: &Sources,
    packages: &[Package],
    known: &[Exception<'a>],
) -> (Vec<Fault>, Vec<Exception<'a>>) {
    let arrows = sources.arrows();
    let mut found = rooms(sources, packages, &arrows);
    found.extend(wrapped(sources, packages));
    found.extend(upward(sources, &arrows));
    found.extend(length(sources, packages));
    found.extend(names(sources, packages));

    let mut graph = Graph::new(sources, &arrows);
    let ends = |known: &Exception<'_>| {
        let is_circle = known.rule == Rule::Circle;
        is_circle.then_some((sources.file(known.file)?, sources.file(known.other)?))
    };
    let is_fault = |known: &Exception<'_>| match known.rule {
        Rule::Circle => ends(known).is_some_and(|(from, to)| graph.has_circle(from, to)),
        _ => found.iter().any(|fault| known.is(fault)),
    };
    let mut mended = known.to_vec();
    mended.retain(|known| !is_fault(known));

    found.retain(|fault| !known.iter().any(|known| known.is(fault)));
    for (from, to) in known.iter().filter_map(ends) {
        graph.remove(from, to);
    }
    found.extend(circles(sources, graph));
    found.sort_by(|one, other| (&one.file, one.line).cmp(&(&other.file, other.line)));
    (found, mended)
}

/// Files that use what the table does not let their room use, and rooms that are not in it.
fn rooms(sources: &Sources, packages: &[Package], arrows: &[Arrow]) -> Vec<Fault> {
    let mut faults = Vec::new();
    let mut add = |from: usize, other: &str, line, what| {
        faults.push(Fault {
            rule: Rule::Room,
            file: sources.files[from].path.clone(),
            other: other.to_owned(),
            line,
            what,
        });
    };
    for arrow in arrows {
        let room = |file: usize| room_of(&sources.files[file].path, packages);
        let (Some((package, from)), Some((other, to))) = (room(arrow.from), room(arrow.to)) else {
            continue;
        };
        let names = arrow.names.join(", ");
        if package.name != other.name {
            if !package.uses.contains(&other.name) {
                let what = format!("{} must not use {} ({names})", package.name, other.name);
                add(arrow.from, other.name, arrow.line, what);
            }
        } else if from != to && !package.rooms.is_empty() {
            let other = &sources.files[arrow.to].path;
            match package.may_use(from, to) {
                Some(true) => {}
                Some(false) => {
                    let what = format!("{from} must not use {to} ({names})");
                    add(arrow.from, other, arrow.line, what);
                }
                None => {
                    let what = format!("{from} uses {to} ({names}): not both are in the table");
                    add(arrow.from, other, arrow.line, what);
                }
            }
        }
    }
    faults
}

/// Files that use a crate that another folder wraps.
fn wrapped(sources: &Sources, packages: &[Package]) -> Vec<Fault> {
    let mut faults = BTreeMap::new();
    for foreign in sources.foreign() {
        let path = &sources.files[foreign.from].path;
        let package = room_of(path, packages).map(|(package, _)| package.name);
        let owner = WRAPPED.iter().find(|(name, owner, folder)| {
            *name == foreign.name && package == Some(owner) && !path.starts_with(folder)
        });
        if let Some((name, _, folder)) = owner {
            faults.entry((path, *name)).or_insert_with(|| Fault {
                rule: Rule::Room,
                file: path.clone(),
                other: (*name).to_owned(),
                line: foreign.line,
                what: format!("only {folder} may use {name}"),
            });
        }
    }
    faults.into_values().collect()
}

/// Names that a file takes from one that declares it.
fn upward(sources: &Sources, arrows: &[Arrow]) -> Vec<Fault> {
    let upward = arrows
        .iter()
        .filter(|arrow| sources.is_below(arrow.from, arrow.to));
    let faults = upward.map(|arrow| {
        let other = &sources.files[arrow.to].path;
        Fault {
            rule: Rule::Upward,
            file: sources.files[arrow.from].path.clone(),
            other: other.clone(),
            line: arrow.line,
            what: format!(
                "takes {} from {other}, which declares it",
                arrow.names.join(", ")
            ),
        }
    });
    faults.collect()
}

fn length(sources: &Sources, packages: &[Package]) -> Vec<Fault> {
    let is_bounded =
        |path: &str| room_of(path, packages).is_some_and(|(package, _)| package.is_bounded);
    let long = sources
        .files
        .iter()
        .filter(|file| file.lines > LINES_MAX && is_bounded(&file.path));
    long.map(|file| Fault {
        rule: Rule::Length,
        file: file.path.clone(),
        other: String::new(),
        line: LINES_MAX + 1,
        what: format!("{} lines without tests, more than {LINES_MAX}", file.lines),
    })
    .collect()
}

/// Types that have the name of one in an earlier file.
fn names(sources: &Sources, packages: &[Package]) -> Vec<Fault> {
    let mut faults = Vec::new();
    let mut known = BTreeMap::<&str, &str>::new();
    for file in &sources.files {
        let package = room_of(&file.path, packages).map(|(package, _)| package.name);
        if !package.is_some_and(|name| SHIPPED.contains(&name)) {
            continue;
        }
        for (name, line) in &file.types {
            let other = *known.entry(name).or_insert(&file.path);
            if other != file.path {
                faults.push(Fault {
                    rule: Rule::Name,
                    file: file.path.clone(),
                    other: other.to_owned(),
                    line: *line,
                    what: format!("{name} is the name of a type in {other}, too"),
                });
            }
        }
    }
    faults
}

/// Which files each file uses, those that declare it left out.
struct Graph<'a>(BTreeMap<usize, BTreeMap<usize, &'a Arrow>>);

impl<'a> Graph<'a> {
    fn new(sources: &Sources, arrows: &'a [Arrow]) -> Self {
        let mut graph = BTreeMap::<_, BTreeMap<_, _>>::new();
        for arrow in arrows {
            let is_own = sources.is_one_crate(arrow.from, arrow.to);
            if is_own && !sources.is_below(arrow.from, arrow.to) {
                graph.entry(arrow.from).or_default().insert(arrow.to, arrow);
            }
        }
        Self(graph)
    }

    fn remove(&mut self, from: usize, to: usize) {
        self.0.get_mut(&from).map(|used| used.remove(&to));
    }

    /// Whether an arrow is part of a circle.
    fn has_circle(&self, from: usize, to: usize) -> bool {
        self.0.get(&from).is_some_and(|used| used.contains_key(&to)) && self.way(to, from).is_some()
    }

    /// The shortest way along the arrows.
    fn way(&self, from: usize, to: usize) -> Option<Vec<usize>> {
        let mut before = BTreeMap::from([(from, from)]);
        let mut next = VecDeque::from([from]);
        while let Some(here) = next.pop_front() {
            if here == to {
                let mut way = vec![to];
                while way[0] != from {
                    way.insert(0, before[&way[0]]);
                }
                return Some(way);
            }
            for &used in self.0.get(&here).into_iter().flat_map(BTreeMap::keys) {
                before.entry(used).or_insert_with(|| {
                    next.push_back(used);
                    here
                });
            }
        }
        None
    }

    /// The shortest circle: its files, the first one of them again at the end.
    fn shortest_circle(&self) -> Option<Vec<usize>> {
        let arrows = self
            .0
            .iter()
            .flat_map(|(from, used)| used.keys().map(move |to| (*from, *to)));
        let circles = arrows.filter_map(|(from, to)| {
            let mut circle = self.way(to, from)?;
            circle.insert(0, from);
            Some(circle)
        });
        circles.min_by_key(Vec::len)
    }
}

/// Circles, the shortest first, each without the arrows that were reported before.
fn circles(sources: &Sources, mut graph: Graph<'_>) -> Vec<Fault> {
    let mut faults = Vec::new();
    while let Some(circle) = graph.shortest_circle() {
        let path = |file: usize| &sources.files[file].path;
        let mut what = "is part of a circle".to_owned();
        for pair in circle.windows(2) {
            let Arrow {
                from,
                to,
                names,
                line,
            } = graph.0[&pair[0]][&pair[1]];
            let names = names.join(", ");
            what += &format!(
                "\n      {}:{line} uses {names} of {}",
                path(*from),
                path(*to)
            );
        }
        let (from, to) = (circle[0], circle[1]);
        faults.push(Fault {
            rule: Rule::Circle,
            file: path(from).clone(),
            other: path(to).clone(),
            line: graph.0[&from][&to].line,
            what,
        });
        graph.remove(from, to);
    }
    faults
}

#[cfg(test)]
mod tests;
