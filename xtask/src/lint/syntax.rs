//! What the text of a file defines, imports and names.

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};
use syn::{Attribute, Ident, ImplItem, Item, ItemMod, ItemUse, Macro, UseTree, Visibility};

/// A name that a `use` item gives to a path.
#[derive(Debug)]
pub(super) struct Import {
    pub(super) path: Vec<String>,
    /// What the path is called here; `*` for all names of a module.
    pub(super) alias: String,
    pub(super) line: usize,
    pub(super) is_public: bool,
}

/// Lines of a file, without a module of tests at its end.
pub(super) fn production_lines(text: &str, items: &[Item]) -> usize {
    let lines = text.lines().count();
    match items.last() {
        Some(Item::Mod(module)) if module.content.is_some() && is_test(&module.attrs) => {
            let first = module
                .attrs
                .iter()
                .map(|attribute| attribute.pound_token.span);
            let first = first.map(|span| span.start().line).min().unwrap_or(1);
            let before = text.lines().take(first - 1).collect::<Vec<_>>();
            before
                .iter()
                .rposition(|line| !line.trim().is_empty())
                .map_or(0, |last| last + 1)
        }
        _ => lines,
    }
}

/// Whether `#[cfg(test)]` or `#[cfg(all(test, …))]` is among the attributes.
fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let Ok(list) = attribute.meta.require_list() else {
            return false;
        };
        let condition = list.tokens.to_string().replace(' ', "");
        attribute.path().is_ident("cfg")
            && (condition == "test"
                || condition.starts_with("all(test,")
                || condition.starts_with("all(") && condition.ends_with(",test)"))
    })
}

fn attributes_of(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::ExternCrate(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::ForeignMod(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::TraitAlias(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Union(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

/// The names that an item defines.
pub(super) fn names_of(item: &Item) -> Vec<String> {
    if is_test(attributes_of(item)) {
        return Vec::new();
    }
    let name = match item {
        Item::Const(item) => &item.ident,
        Item::Enum(item) => &item.ident,
        Item::Fn(item) => &item.sig.ident,
        Item::Static(item) => &item.ident,
        Item::Struct(item) => &item.ident,
        Item::Trait(item) => &item.ident,
        Item::TraitAlias(item) => &item.ident,
        Item::Type(item) => &item.ident,
        Item::Union(item) => &item.ident,
        Item::Macro(item) => {
            return match &item.ident {
                Some(name) => vec![format!("{name}!")],
                None => names_in(item.mac.tokens.clone()),
            };
        }
        _ => return Vec::new(),
    };
    vec![name.to_string()]
}

/// The names that the input of a macro seems to define: `pub enum NAME`.
fn names_in(tokens: TokenStream) -> Vec<String> {
    const KEYWORDS: [&str; 8] = [
        "const", "enum", "fn", "static", "struct", "trait", "type", "union",
    ];
    let mut names = Vec::new();
    let mut defines = false;
    for token in tokens {
        match token {
            TokenTree::Ident(word) if defines => {
                names.push(word.to_string());
                defines = false;
            }
            TokenTree::Ident(word) => defines = KEYWORDS.contains(&word.to_string().as_str()),
            _ => defines = false,
        }
    }
    names
}

/// Collects what a module imports and names; other modules are only collected.
#[derive(Default)]
pub(super) struct Reader<'ast> {
    pub(super) imports: Vec<Import>,
    pub(super) named: Vec<(Vec<String>, usize)>,
    pub(super) children: Vec<&'ast ItemMod>,
}

impl Reader<'_> {
    fn import(&mut self, tree: &UseTree, path: &[String], is_public: bool) {
        let mut add = |name: &Ident, alias: &Ident| {
            // `use super::{self, …}` names the module itself.
            let is_self = name == "self" && !path.is_empty();
            let alias = match (is_self && name == alias, path.last()) {
                (true, Some(module)) => module.clone(),
                _ => alias.to_string(),
            };
            let own = (!is_self).then(|| name.to_string());
            self.imports.push(Import {
                path: path.iter().cloned().chain(own).collect(),
                alias,
                line: name.span().start().line,
                is_public,
            });
        };
        match tree {
            UseTree::Path(tree) => {
                let path = [path, &[tree.ident.to_string()]].concat();
                self.import(&tree.tree, &path, is_public);
            }
            UseTree::Name(tree) => add(&tree.ident, &tree.ident),
            UseTree::Rename(tree) => add(&tree.ident, &tree.rename),
            UseTree::Glob(tree) => self.imports.push(Import {
                path: path.to_vec(),
                alias: "*".to_owned(),
                line: tree.star_token.spans[0].start().line,
                is_public,
            }),
            UseTree::Group(tree) => {
                for tree in &tree.items {
                    self.import(tree, path, is_public);
                }
            }
        }
    }

    /// Paths in the input of a macro, which is not parsed.
    fn scan(&mut self, tokens: TokenStream) {
        let mut path: Vec<(String, usize)> = Vec::new();
        let mut colons = 0;
        let mut is_variable = false;
        for token in tokens.into_iter().map(Some).chain([None]) {
            match token {
                Some(TokenTree::Ident(word)) if path.is_empty() || colons == 2 => {
                    // `$name::…` is not known, `$crate::…` is.
                    if !(is_variable && word != "crate") {
                        path.push((word.to_string(), word.span().start().line));
                    }
                    (colons, is_variable) = (0, false);
                    continue;
                }
                Some(TokenTree::Punct(punct)) if punct.as_char() == ':' && !path.is_empty() => {
                    colons += 1;
                    continue;
                }
                _ => {}
            }
            self.end_scanned(&mut path);
            colons = 0;
            match token {
                Some(TokenTree::Ident(word)) => {
                    path.push((word.to_string(), word.span().start().line));
                }
                Some(TokenTree::Group(group)) => self.scan(group.stream()),
                Some(TokenTree::Punct(punct)) => is_variable = punct.as_char() == '$',
                _ => {}
            }
        }
    }

    fn end_scanned(&mut self, path: &mut Vec<(String, usize)>) {
        if let [(_, line), _, ..] = path[..] {
            let names = path.iter().map(|(name, _)| name.clone()).collect();
            self.named.push((names, line));
        }
        path.clear();
    }
}

impl<'ast> Visit<'ast> for Reader<'ast> {
    fn visit_item(&mut self, item: &'ast Item) {
        if !is_test(attributes_of(item)) {
            visit::visit_item(self, item);
        }
    }

    fn visit_impl_item(&mut self, item: &'ast ImplItem) {
        let attributes = match item {
            ImplItem::Fn(item) => &item.attrs[..],
            ImplItem::Const(item) => &item.attrs[..],
            _ => &[],
        };
        if !is_test(attributes) {
            visit::visit_impl_item(self, item);
        }
    }

    fn visit_item_mod(&mut self, module: &'ast ItemMod) {
        self.children.push(module);
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        let is_public = !matches!(item.vis, Visibility::Inherited);
        self.import(&item.tree, &[], is_public);
    }

    fn visit_macro(&mut self, invocation: &'ast Macro) {
        if let Some((mut path, line)) = path_of(&invocation.path) {
            path.last_mut().into_iter().for_each(|last| last.push('!'));
            self.named.push((path, line));
        }
        self.scan(invocation.tokens.clone());
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        if path.segments.len() > 1 {
            self.named.extend(path_of(path));
        }
        visit::visit_path(self, path);
    }

    /// What an attribute names is of the compiler or of a derive macro.
    fn visit_attribute(&mut self, _: &'ast Attribute) {}
}

fn path_of(path: &syn::Path) -> Option<(Vec<String>, usize)> {
    let first = path.segments.first()?;
    let names = path
        .segments
        .iter()
        .map(|segment| segment.ident.to_string());
    Some((names.collect(), first.ident.span().start().line))
}
