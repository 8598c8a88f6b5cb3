//! From the text of a file to its values, each with line and column.

use std::{
    fs::File,
    io::{self, Read as _},
    ops::Range,
    path::Path,
    sync::Arc,
};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    SECTIONS,
    error::{Origin, Position, Problem},
    layer::{Entry, Layer, Value, Written},
};

/// Longest file that is read.
const FILE_MAX: u64 = 1 << 20;

/// Reads `path`. Nothing when it is not there.
pub(super) fn read(path: &Path) -> Result<Option<Layer>, Problem> {
    let problem = |text| Problem {
        origin: Origin::whole_file(path),
        text,
    };
    let mut octets = Vec::new();
    match File::open(path).and_then(|file| file.take(FILE_MAX + 1).read_to_end(&mut octets)) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(problem(format!("cannot be read: {error}"))),
    }
    if octets.len() as u64 > FILE_MAX {
        return Err(problem(format!("is longer than {FILE_MAX} octets")));
    }
    parse(path, &octets).map(Some)
}

/// Takes the values out of a text.
pub(super) fn parse(path: &Path, octets: &[u8]) -> Result<Layer, Problem> {
    let path = Arc::from(path);
    let text = match str::from_utf8(octets) {
        Ok(text) => text,
        Err(error) => {
            let valid = String::from_utf8_lossy(&octets[..error.valid_up_to()]);
            return Err(Problem {
                origin: Source::new(&path, &valid).origin(&(valid.len()..valid.len())),
                text: "not UTF-8: write the file in UTF-8".to_owned(),
            });
        }
    };
    let source = Source::new(&path, text);
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

/// A text that positions are looked up in.
struct Source<'a> {
    path: &'a Arc<Path>,
    text: &'a str,
    /// The octet at which each line begins.
    lines: Vec<usize>,
}

impl<'a> Source<'a> {
    fn new(path: &'a Arc<Path>, text: &'a str) -> Self {
        let ends = text.match_indices('\n').map(|(end, _)| end + 1);
        Self {
            path,
            text,
            lines: std::iter::once(0).chain(ends).collect(),
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
        // Octets that begin a character, so that any offset will do.
        let column = before.map_or(0, |before| {
            before.iter().filter(|&&octet| octet & 0xC0 != 0x80).count()
        });
        Origin::File {
            path: Arc::clone(self.path),
            position: Some(Position {
                line,
                column: column + 1,
            }),
        }
    }

    /// Puts the keys of `table` into `layer`, those of the sections with their
    /// section's name before them.
    fn flatten(&self, prefix: &str, table: DeTable<'_>, layer: &mut Layer) {
        for (key, value) in table {
            let name = format!("{prefix}{}", key.get_ref());
            let key = self.origin(&key.span());
            let span = value.span();
            match value.into_inner() {
                DeValue::Table(section) if SECTIONS.contains(&name.as_str()) => {
                    self.flatten(&format!("{name}."), section, layer);
                    let written = Written {
                        origin: key.clone(),
                        value: Value::Section,
                    };
                    layer.insert(name, Entry { key, written });
                }
                value => {
                    let written = self.written(Spanned::new(span, value));
                    layer.insert(name, Entry { key, written });
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
