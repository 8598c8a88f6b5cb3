//! Parses the file and its drop-ins into values, each with line and column.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    ops::Range,
    os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    error::Problem,
    keys::tables,
    layer::{Layer, LayerEntry, Value, Written},
    origin::{Origin, Position},
};

/// Longest file that is read.
const FILE_MAX: u64 = 1 << 20;
/// Most drop-ins of a file.
const DROP_INS_MAX: usize = 64;

/// The contents of a file and its drop-ins.
#[derive(Debug, Default)]
pub(super) struct ConfigFiles {
    /// One for each file, from the lowest to the highest.
    pub(super) layers: Vec<Layer>,
    /// The files that exist: the file itself, and its drop-ins.
    pub(super) paths: Vec<PathBuf>,
    /// Errors of reading and parsing.
    pub(super) problems: Vec<Problem>,
}

impl ConfigFiles {
    /// Reads the file and its drop-ins. If they are `required`, one of them has to exist.
    pub(super) fn read(path: &Path, required: bool) -> Self {
        let mut files = Self::default();
        files.add(path);
        match drop_ins(&drop_in_directory(path)) {
            Ok(paths) => paths.iter().for_each(|path| files.add(path)),
            Err(problem) => files.problems.push(problem),
        }
        if required && files.paths.is_empty() && files.problems.is_empty() {
            files.problems.push(Problem {
                origin: Origin::whole_file(path),
                text: "there is no such file: create it, or name another with --config".to_owned(),
            });
        }
        files
    }

    fn add(&mut self, path: &Path) {
        match read(path) {
            Ok(Some(layer)) => self.layers.push(layer),
            Ok(None) => return,
            Err(problem) => self.problems.push(problem),
        }
        self.paths.push(path.to_owned());
    }
}

/// The directory of drop-ins of a file: `nomail.toml.d` beside `nomail.toml`.
pub fn drop_in_directory(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".d");
    name.into()
}

/// The files of a directory whose names end in `.toml` and begin with no dot, in the order
/// of their names' bytes. Empty if there is no such directory.
fn drop_ins(directory: &Path) -> Result<Vec<PathBuf>, Problem> {
    let problem = |text| Problem {
        origin: Origin::whole_file(directory),
        text,
    };
    let cannot = |error: io::Error| problem(cannot_be_read(&error));
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(cannot(error)),
    };
    let mut paths = Vec::new();
    for entry in entries {
        let entry = entry.map_err(cannot)?;
        let name = entry.file_name();
        let name = name.as_encoded_bytes();
        if name.starts_with(b".") || !name.ends_with(b".toml") {
            continue;
        }
        let path = entry.path();
        // A link counts as its target. A file without metadata is read, which reports why.
        if fs::metadata(&path).is_ok_and(|found| !found.is_file()) {
            continue;
        }
        if paths.len() >= DROP_INS_MAX {
            return Err(problem(format!(
                "has more than {DROP_INS_MAX} files: put some together"
            )));
        }
        paths.push(path);
    }
    paths.sort();
    Ok(paths)
}

/// Reads `path`. None: there is no such file.
fn read(path: &Path) -> Result<Option<Layer>, Problem> {
    let problem = |text| Problem {
        origin: Origin::whole_file(path),
        text,
    };
    let mut bytes = Vec::new();
    let found = open(path).and_then(|file| file.take(FILE_MAX + 1).read_to_end(&mut bytes));
    match found {
        Ok(_) => {}
        // A dangling link is an error, not a missing file.
        Err(error) if error.kind() == io::ErrorKind::NotFound && !path.is_symlink() => {
            return Ok(None);
        }
        Err(error) => return Err(problem(cannot_be_read(&error))),
    }
    if bytes.len() as u64 > FILE_MAX {
        return Err(problem(format!("is longer than {FILE_MAX} bytes")));
    }
    parse(path, &bytes).map(Some)
}

fn cannot_be_read(error: &io::Error) -> String {
    let remedy = match error.kind() {
        io::ErrorKind::PermissionDenied => {
            ": let the agent's user read it; a directory that the agent did not know at its start \
             needs a restart"
        }
        _ => "",
    };
    format!("cannot be read: {error}{remedy}")
}

/// Opens a file without blocking, and refuses one that a reload could not read again.
fn open(path: &Path) -> io::Result<File> {
    let file = File::options()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)?;
    if file.metadata()?.file_type().is_fifo() {
        let text = "it is a pipe, which could not be read again: give a file";
        return Err(io::Error::other(text));
    }
    Ok(file)
}

/// Parses the bytes of a file.
pub(super) fn parse(path: &Path, bytes: &[u8]) -> Result<Layer, Problem> {
    let path = Arc::from(path);
    let text = match str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => {
            let valid = String::from_utf8_lossy(&bytes[..error.valid_up_to()]);
            return Err(Problem {
                origin: SourceText::new(&path, &valid).origin(&(valid.len()..valid.len())),
                text: "not UTF-8: write the file in UTF-8".to_owned(),
            });
        }
    };
    let source = SourceText::new(&path, text);
    let table = DeTable::parse(text).map_err(|error| Problem {
        origin: match error.span() {
            Some(span) => source.origin(&span),
            None => Origin::whole_file(&path),
        },
        text: format!("not TOML: {}", error.message()),
    })?;
    let mut layer = Layer::new();
    source.flatten("", table.into_inner(), &mut layer);
    Ok(layer)
}

/// A text in which positions are looked up.
struct SourceText<'a> {
    path: &'a Arc<Path>,
    text: &'a str,
    /// The byte at which each line begins.
    lines: Vec<usize>,
    /// The names of known tables.
    tables: Vec<&'static str>,
}

impl<'a> SourceText<'a> {
    fn new(path: &'a Arc<Path>, text: &'a str) -> Self {
        let ends = text.match_indices('\n').map(|(end, _)| end + 1);
        Self {
            path,
            text,
            lines: std::iter::once(0).chain(ends).collect(),
            tables: tables().iter().map(|table| table.name).collect(),
        }
    }

    /// Where `span` begins.
    fn origin(&self, span: &Range<usize>) -> Origin {
        let line = self.lines.partition_point(|&begin| begin <= span.start);
        let begin = line.checked_sub(1).and_then(|line| self.lines.get(line));
        let before = self
            .text
            .as_bytes()
            .get(begin.copied().unwrap_or(0)..span.start);
        // Bytes that begin a character: the offset may be within one.
        let column = before.map_or(0, |before| {
            before.iter().filter(|&&byte| byte & 0xC0 != 0x80).count()
        });
        Origin::File {
            path: Arc::clone(self.path),
            position: Some(Position {
                line,
                column: column + 1,
            }),
        }
    }

    /// Puts the keys of `table` into `layer`, after `prefix`.
    fn flatten(&self, prefix: &str, table: DeTable<'_>, layer: &mut Layer) {
        for (key, value) in table {
            let name = format!("{prefix}{}", key.get_ref());
            let key = self.origin(&key.span());
            let span = value.span();
            match value.into_inner() {
                DeValue::Table(section) if self.tables.contains(&name.as_str()) => {
                    self.flatten(&format!("{name}."), section, layer);
                    let written = Written {
                        origin: key.clone(),
                        value: Value::Table,
                    };
                    layer.insert(name, LayerEntry { key, written });
                }
                value => {
                    let written = self.written(Spanned::new(span, value));
                    layer.insert(name, LayerEntry { key, written });
                }
            }
        }
    }

    fn written(&self, value: Spanned<DeValue<'_>>) -> Written {
        let origin = self.origin(&value.span());
        let value = match value.into_inner() {
            DeValue::String(text) => Value::Text(text.into_owned()),
            DeValue::Integer(number) => {
                match i128::from_str_radix(number.as_str(), number.radix()) {
                    Ok(number) => Value::Integer(number),
                    Err(_) => Value::Other("an integer of that size"),
                }
            }
            DeValue::Boolean(value) => Value::Boolean(value),
            DeValue::Array(items) => {
                Value::List(items.into_iter().map(|item| self.written(item)).collect())
            }
            DeValue::Float(_) => Value::Other("a number with a fraction"),
            DeValue::Datetime(_) => Value::Other("a date or time"),
            DeValue::Table(_) => Value::Other("a table"),
        };
        Written { origin, value }
    }
}
