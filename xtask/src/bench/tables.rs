//! The tables of a benchmark, read from the Markdown that it prints.

use serde_json::{Value, json};

/// A table, below the nearest heading.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Table {
    pub(super) title: String,
    pub(super) columns: Vec<String>,
    pub(super) rows: Vec<Vec<String>>,
}

impl Table {
    /// The index of the column with that name.
    pub(super) fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column == name)
    }
}

/// All tables of a text, in order.
pub(super) fn read(markdown: &str) -> Vec<Table> {
    let mut tables: Vec<Table> = Vec::new();
    let mut title = "";
    let mut is_within = false;
    for line in markdown.lines() {
        if line.starts_with('#') {
            title = line.trim_start_matches('#').trim();
        }
        let cells = cells(line);
        match (cells, is_within, tables.last_mut()) {
            (None, _, _) => is_within = false,
            (Some(columns), false, _) => {
                is_within = true;
                tables.push(Table {
                    title: title.to_owned(),
                    columns,
                    rows: Vec::new(),
                });
            }
            (Some(row), true, Some(table)) => {
                let is_rule = row.iter().all(|cell| cell.starts_with("---"));
                if !is_rule {
                    table.rows.push(row);
                }
            }
            (Some(_), true, None) => {}
        }
    }
    tables
}

/// The cells of a line that is a row of a table.
fn cells(line: &str) -> Option<Vec<String>> {
    let line = line.strip_prefix('|')?.strip_suffix('|')?;
    Some(line.split('|').map(|cell| cell.trim().to_owned()).collect())
}

/// The figure that a cell begins with, and its range: `88 (83 to 94)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Figure {
    pub(super) value: f64,
    pub(super) least: f64,
    pub(super) most: f64,
}

impl Figure {
    pub(super) fn read(cell: &str) -> Option<Self> {
        let value = leading_number(cell)?;
        let spread = cell.split_once('(').and_then(|(_, inner)| {
            let (least, most) = inner.split_once(" to ")?;
            Some((leading_number(least)?, leading_number(most)?))
        });
        let (least, most) = spread.unwrap_or((value, value));
        Some(Self { value, least, most })
    }
}

/// A number that ends with the text, a space or a bracket.
fn leading_number(text: &str) -> Option<f64> {
    let word = text.split([' ', ')', ';']).next()?;
    let number: f64 = word.parse().ok()?;
    number.is_finite().then_some(number)
}

/// The tables as JSON. A cell is a number if it is nothing else, an object with text and
/// figure if the figure has a range, else a text.
pub(super) fn json(tables: &[Table]) -> Value {
    let tables = tables.iter().map(|table| {
        let rows: Vec<Vec<Value>> = table
            .rows
            .iter()
            .map(|row| row.iter().map(|cell| cell_json(cell)).collect())
            .collect();
        json!({"title": table.title, "columns": table.columns, "rows": rows})
    });
    tables.collect()
}

fn cell_json(cell: &str) -> Value {
    if let Ok(number) = cell.parse::<u64>() {
        return json!(number);
    }
    match (cell.parse::<f64>(), Figure::read(cell)) {
        (Ok(number), _) if number.is_finite() => json!(number),
        (_, Some(Figure { value, least, most })) if cell.contains(" to ") => {
            json!({"text": cell, "value": value, "least": least, "most": most})
        }
        _ => json!(cell),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "## Time, 3 rounds\n\n| frame | ns | |\n|---|---|---|\n\
        | UDP | 28.0 (27.5 to 30.0) | met |\n| SYN | 80 | |\n\nWords.\n\n\
        | what | share |\n|---|---|\n| strangers | 99.50 % (99.10 to 99.80) of 5100 |\n";

    #[test]
    fn reads_each_table_below_its_heading() {
        let tables = read(TEXT);
        assert_eq!(tables.len(), 2);
        assert!(tables.iter().all(|table| table.title == "Time, 3 rounds"));
        assert_eq!(tables[0].columns, ["frame", "ns", ""]);
        assert_eq!(tables[0].rows.len(), 2);
        assert_eq!(tables[0].column("ns"), Some(1));
        assert_eq!(tables[1].rows[0][0], "strangers");
    }

    #[test]
    fn reads_figures_with_their_spread() {
        let figure = |value, least, most| Some(Figure { value, least, most });
        for (cell, expected) in [
            ("28.0 (27.5 to 30.0)", figure(28.0, 27.5, 30.0)),
            ("99.50 % (99.10 to 99.80) of 5100", figure(99.5, 99.1, 99.8)),
            ("0.33; above all", figure(0.33, 0.33, 0.33)),
            ("-3", figure(-3.0, -3.0, -3.0)),
            ("12 ms, 30 ms (400 clients)", figure(12.0, 12.0, 12.0)),
            ("521, 221", None),
            ("none tried", None),
            ("–", None),
            ("", None),
        ] {
            assert_eq!(Figure::read(cell), expected, "{cell}");
        }
    }

    #[test]
    fn json_has_all_that_the_table_says() {
        let json = json(&read(TEXT));
        assert_eq!(json[0]["title"], "Time, 3 rounds");
        assert_eq!(json[0]["rows"][0][0], "UDP");
        assert_eq!(json[0]["rows"][0][1]["least"], 27.5);
        assert_eq!(json[0]["rows"][1][1], 80);
        assert_eq!(json[1]["rows"][0][1]["value"], 99.5);
    }
}
