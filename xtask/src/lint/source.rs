//! The production code of some crates: their modules, what each defines, and the paths that
//! each names. Test code is left out.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use syn::Item;
use syn::spanned::Spanned as _;
use syn::visit::Visit as _;

use super::syntax::{Import, Reader, names_of, production_lines};

/// How deep re-exports and imports are followed.
const DEPTH_MAX: usize = 16;

/// The sources of crates.
#[derive(Debug, Default)]
pub(super) struct Sources {
    pub(super) files: Vec<File>,
    modules: Vec<Module>,
    /// The top module of each crate, by the name that other crates use.
    crates: BTreeMap<String, usize>,
}

/// A source file.
#[derive(Debug)]
pub(super) struct File {
    /// From the top of the workspace.
    pub(super) path: String,
    /// Its module, from the top of its crate.
    module: Vec<String>,
    /// The top module of its crate.
    top: usize,
    /// Lines without a `#[cfg(test)] mod` at the end.
    pub(super) lines: usize,
    /// The types and traits that it defines, with their lines.
    pub(super) types: Vec<(String, usize)>,
}

#[derive(Debug)]
struct Module {
    file: usize,
    parent: Option<usize>,
    top: usize,
    /// Names that the module defines, and the file that does; a macro's ends with `!`.
    items: BTreeMap<String, usize>,
    children: BTreeMap<String, usize>,
    imports: Vec<Import>,
    /// Paths of code, with their lines.
    named: Vec<(Vec<String>, usize)>,
}

/// A file uses names that another file defines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Arrow {
    pub(super) from: usize,
    pub(super) to: usize,
    pub(super) names: Vec<String>,
    /// Where the first of them is used.
    pub(super) line: usize,
}

/// A file names another crate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Foreign {
    pub(super) from: usize,
    pub(super) name: String,
    pub(super) line: usize,
}

enum Target {
    Module(usize),
    Item(usize),
}

impl Sources {
    /// Adds a crate and all files that it declares; `read` gives the text of a file by its
    /// path from the top of the workspace.
    ///
    /// # Errors
    /// When a file is missing or is not Rust.
    pub(super) fn add(
        &mut self,
        name: &str,
        root: &str,
        read: &dyn Fn(&Path) -> Result<String>,
    ) -> Result<()> {
        let top = self.modules.len();
        self.crates.insert(name.to_owned(), top);
        self.add_file(Path::new(root), &[], None, top, read)?;
        Ok(())
    }

    fn add_file(
        &mut self,
        path: &Path,
        module: &[String],
        parent: Option<usize>,
        top: usize,
        read: &dyn Fn(&Path) -> Result<String>,
    ) -> Result<usize> {
        let text = read(path)?;
        let syntax = syn::parse_file(&text)
            .with_context(|| format!("{} is not Rust that syn reads", path.display()))?;
        let file = self.files.len();
        self.files.push(File {
            path: path.display().to_string(),
            module: module.to_vec(),
            top,
            lines: production_lines(&text, &syntax.items),
            types: Vec::new(),
        });
        let folder = folder_of(path, parent.is_none());
        let place = Place {
            file,
            folder: &folder,
            module,
            parent,
            top,
            read,
        };
        self.add_module(&syntax.items, &place)
    }

    fn add_module(&mut self, items: &[Item], place: &Place<'_>) -> Result<usize> {
        let id = self.modules.len();
        self.modules.push(Module {
            file: place.file,
            parent: place.parent,
            top: place.top,
            items: BTreeMap::new(),
            children: BTreeMap::new(),
            imports: Vec::new(),
            named: Vec::new(),
        });
        let mut reader = Reader::default();
        for item in items {
            for name in names_of(item) {
                // All others are in snake case or in capitals.
                if name.starts_with(char::is_uppercase) && name.contains(char::is_lowercase) {
                    let line = item.span().start().line;
                    self.files[place.file].types.push((name.clone(), line));
                }
                self.modules[id].items.insert(name, place.file);
            }
            if let Item::Macro(definition) = item
                && let Some(name) = &definition.ident
                && definition
                    .attrs
                    .iter()
                    .any(|attribute| attribute.path().is_ident("macro_export"))
            {
                self.modules[place.top]
                    .items
                    .insert(format!("{name}!"), place.file);
            }
            reader.visit_item(item);
        }
        self.modules[id].imports = reader.imports;
        self.modules[id].named = reader.named;
        for child in reader.children {
            let name = child.ident.to_string();
            let module = [place.module, std::slice::from_ref(&name)].concat();
            let child = match &child.content {
                Some((_, items)) => self.add_module(
                    items,
                    &Place {
                        folder: &place.folder.join(&name),
                        module: &module,
                        parent: Some(id),
                        ..*place
                    },
                )?,
                // A file of another place by `#[path]` is read there.
                None if child
                    .attrs
                    .iter()
                    .any(|attribute| attribute.path().is_ident("path")) =>
                {
                    continue;
                }
                None => {
                    let flat = place.folder.join(format!("{name}.rs"));
                    let nested = place.folder.join(&name).join("mod.rs");
                    let path = if (place.read)(&flat).is_ok() {
                        flat
                    } else {
                        nested
                    };
                    self.add_file(&path, &module, Some(id), place.top, place.read)?
                }
            };
            self.modules[id].children.insert(name, child);
        }
        Ok(id)
    }

    /// Which file uses which.
    pub(super) fn arrows(&self) -> Vec<Arrow> {
        let mut arrows = BTreeMap::<(usize, usize), Arrow>::new();
        for (id, module) in self.modules.iter().enumerate() {
            let from = module.file;
            let mut add = |to: usize, name: &str, line: usize| {
                if to == from {
                    return;
                }
                let names = Vec::new();
                let arrow = Arrow {
                    from,
                    to,
                    names,
                    line,
                };
                let arrow = arrows.entry((from, to)).or_insert(arrow);
                let name = name.trim_end_matches('!');
                if !arrow.names.iter().any(|known| known == name) {
                    arrow.names.push(name.to_owned());
                }
            };
            for import in &module.imports {
                let last = import.path.last().filter(|_| import.alias != "*");
                for to in self.taken(id, import) {
                    // What a module re-exports of its own modules it does not use.
                    if !(import.is_public && self.is_below(to, from)) {
                        add(to, last.map_or("*", String::as_str), import.line);
                    }
                }
            }
            for (path, line) in &module.named {
                if let Some((Target::Item(to), used)) = self.resolve(id, path, 0) {
                    add(to, &path[used - 1], *line);
                }
            }
        }
        arrows.into_values().collect()
    }

    /// The files that define what is imported. None for a module: what is used of it counts.
    fn taken(&self, module: usize, import: &Import) -> Vec<usize> {
        match self.resolve(module, &import.path, 0) {
            Some((Target::Item(file), _)) => vec![file],
            Some((Target::Module(found), _)) if import.alias == "*" => {
                self.modules[found].items.values().copied().collect()
            }
            _ => Vec::new(),
        }
    }

    /// The paths that begin with a name of no module: those of other crates.
    pub(super) fn foreign(&self) -> Vec<Foreign> {
        let mut found = Vec::new();
        for (id, module) in self.modules.iter().enumerate() {
            let imports = module
                .imports
                .iter()
                .map(|import| (&import.path, import.line));
            let named = module.named.iter().map(|(path, line)| (path, *line));
            for (path, line) in imports.chain(named) {
                let own = ["crate", "self", "super"].contains(&path[0].as_str());
                if !own && self.look_up(id, &path[0], 0).is_none() {
                    found.push(Foreign {
                        from: module.file,
                        name: path[0].clone(),
                        line,
                    });
                }
            }
        }
        found
    }

    /// The number of a file.
    pub(super) fn file(&self, path: &str) -> Option<usize> {
        self.files.iter().position(|file| file.path == path)
    }

    /// Whether the module of the file `child` is below that of the file `parent`.
    pub(super) fn is_below(&self, child: usize, parent: usize) -> bool {
        let (child, parent) = (&self.files[child], &self.files[parent]);
        child.top == parent.top
            && child.module.len() > parent.module.len()
            && child.module.starts_with(&parent.module)
    }

    /// Whether both files are of one crate.
    pub(super) fn is_one_crate(&self, one: usize, other: usize) -> bool {
        self.files[one].top == self.files[other].top
    }

    /// Follows a path to a module, or to the file that defines an item; and how many
    /// segments that took.
    fn resolve(&self, module: usize, path: &[String], depth: usize) -> Option<(Target, usize)> {
        if depth > DEPTH_MAX {
            return None;
        }
        let (mut here, mut used) = match path.first()?.as_str() {
            "crate" => (self.modules[module].top, 1),
            "self" => (module, 1),
            "super" => (module, 0),
            name => match self.look_up(module, name, depth) {
                Some(Target::Module(found)) => (found, 1),
                Some(item) => return Some((item, 1)),
                None => (*self.crates.get(name)?, 1),
            },
        };
        while path.get(used).is_some_and(|segment| segment == "super") {
            here = self.modules[here].parent?;
            used += 1;
        }
        for segment in &path[used..] {
            used += 1;
            match self.look_up(here, segment, depth)? {
                Target::Module(found) => here = found,
                item => return Some((item, used)),
            }
        }
        Some((Target::Module(here), used))
    }

    /// What a name means in a module.
    fn look_up(&self, module: usize, name: &str, depth: usize) -> Option<Target> {
        let here = &self.modules[module];
        if let Some(child) = here.children.get(name) {
            return Some(Target::Module(*child));
        }
        if let Some(file) = here.items.get(name) {
            return Some(Target::Item(*file));
        }
        let bare = name.trim_end_matches('!');
        for import in here.imports.iter().filter(|import| import.alias == bare) {
            let mut path = import.path.clone();
            if bare != name
                && let Some(last) = path.last_mut()
            {
                last.push('!');
            }
            // `use log;` would go round for ever.
            if path != [name]
                && let Some((target, _)) = self.resolve(module, &path, depth + 1)
            {
                return Some(target);
            }
        }
        for import in here.imports.iter().filter(|import| import.alias == "*") {
            if depth < DEPTH_MAX
                && let Some((Target::Module(all), _)) =
                    self.resolve(module, &import.path, depth + 1)
                && all != module
                && let Some(target) = self.look_up(all, name, depth + 1)
            {
                return Some(target);
            }
        }
        None
    }
}

/// Where a module is written.
struct Place<'a> {
    file: usize,
    /// Where files of its own modules are.
    folder: &'a Path,
    module: &'a [String],
    parent: Option<usize>,
    top: usize,
    read: &'a dyn Fn(&Path) -> Result<String>,
}

/// Where the modules of a file are.
fn folder_of(path: &Path, is_root: bool) -> PathBuf {
    let folder = path.parent().unwrap_or(Path::new(""));
    if is_root || path.ends_with("mod.rs") {
        folder.to_owned()
    } else {
        folder.join(path.file_stem().unwrap_or_default())
    }
}

#[cfg(test)]
pub(super) mod tests;
