//! Figures that do not depend on how busy a machine is, recorded in the repository, so that
//! none changes unseen.

use std::{collections::BTreeMap, env, fmt::Write as _, fs};

use crate::repository::repository;

/// Largest change of a figure that needs no new record, in percent.
const CHANGE_MAX: u64 = 3;
/// How much larger a figure may be that another compiler or kernel makes, in percent.
const ELSEWHERE_MAX: u64 = 10;

/// A row of figures, with its name.
pub type Row = (String, Vec<u64>);

/// A file with a table in Markdown.
#[derive(Clone, Copy, Debug)]
pub struct Record {
    /// Its path in the repository.
    pub file: &'static str,
    /// What is in it.
    pub text: &'static str,
    /// The command that writes it, when `NOMAIL_GOLDEN_WRITE` is set.
    pub command: &'static str,
}

impl Record {
    /// The compiler or the kernel that made the figures.
    pub fn maker(&self) -> &'static str {
        self.text.split('|').nth(1).unwrap_or_default().trim()
    }

    /// Compares the rows with those recorded, and prints them, with what was recorded behind
    /// each figure that is another one. With `NOMAIL_GOLDEN_WRITE` writes the file instead.
    /// `maker` is the compiler or the kernel that made the figures.
    ///
    /// # Panics
    /// When a row is new or missing, or a figure is over 3 % larger or smaller than recorded;
    /// smaller, so that the next growth is compared with what there is. Of another maker than
    /// recorded a figure may be 10 % larger.
    pub fn check(&self, maker: &str, columns: &[&str], rows: &[Row]) {
        if env::var_os("NOMAIL_GOLDEN_WRITE").is_some() {
            let text = table(maker, columns, rows, &BTreeMap::new());
            fs::write(repository().join(self.file), text).expect("the record can be written");
            return;
        }
        let recorded = read(self.text);
        println!("{}", table(maker, columns, rows, &recorded));
        let recorded_maker = self.maker();
        let elsewhere = maker != recorded_maker;
        let mut faults = String::new();
        for (name, figures) in rows {
            let Some(before) = recorded.get(name) else {
                let _ = writeln!(faults, "{name}: not recorded");
                continue;
            };
            for ((column, &now), &before) in columns.iter().zip(figures).zip(before) {
                let changed = if elsewhere {
                    now * 100 > before * (100 + ELSEWHERE_MAX)
                } else {
                    now.abs_diff(before) * 100 > before * CHANGE_MAX
                };
                if changed {
                    let percent = (now as f64 / before as f64 - 1.0) * 100.0;
                    let change = format!("{before} before, {now} now ({percent:+.1} %)");
                    let _ = writeln!(faults, "{name}, {column}: {change}");
                }
            }
        }
        for name in recorded.keys() {
            if rows.iter().all(|(measured, _)| measured != name) {
                let _ = writeln!(faults, "{name}: recorded, but not measured");
            }
        }
        assert!(
            faults.is_empty(),
            "{faults}recorded with {recorded_maker}, measured with {maker}; if the change is \
             worth it, record it: NOMAIL_GOLDEN_WRITE=1 {}",
            self.command
        );
    }
}

fn table(
    maker: &str,
    columns: &[&str],
    rows: &[Row],
    recorded: &BTreeMap<String, Vec<u64>>,
) -> String {
    let mut table = format!("| {maker} | {} |\n|---|", columns.join(" | "));
    table += &"---:|".repeat(columns.len());
    for (name, figures) in rows {
        let _ = write!(table, "\n| {name} |");
        for (column, figure) in figures.iter().enumerate() {
            let _ = write!(table, " {figure}");
            let before = recorded.get(name).and_then(|before| before.get(column));
            if let Some(before) = before.filter(|before| *before != figure) {
                let _ = write!(table, " (was {before})");
            }
            table += " |";
        }
    }
    table + "\n"
}

/// The rows of a table, by name.
fn read(table: &str) -> BTreeMap<String, Vec<u64>> {
    let row = |line: &str| {
        let mut cells = line.trim_matches('|').split('|').map(str::trim);
        let name = cells.next()?.to_owned();
        Some((name, cells.map_while(|cell| cell.parse().ok()).collect()))
    };
    table.lines().skip(2).filter_map(row).collect()
}

#[cfg(test)]
mod tests {
    use std::panic::catch_unwind;

    use super::*;

    const RECORD: Record = Record {
        file: "",
        text: "| gcc 1 | bytes | calls |\n|---|---:|---:|\n| one | 100 | 2 |\n| two | 50 | 0 |\n",
        command: "make",
    };

    /// What [`Record::check`] says of rows.
    fn fault(maker: &str, rows: &[(&str, u64, u64)]) -> Option<String> {
        let rows = rows.iter();
        let rows = rows.map(|&(name, bytes, calls)| (name.to_owned(), vec![bytes, calls]));
        let rows: Vec<Row> = rows.collect();
        let checked = catch_unwind(|| RECORD.check(maker, &["bytes", "calls"], &rows));
        let panic = checked.err()?.downcast::<String>().expect("a message");
        Some(*panic)
    }

    #[test]
    fn no_figure_changes_by_over_3_percent() {
        assert_eq!(fault("gcc 1", &[("one", 103, 2), ("two", 49, 0)]), None);
        for (rows, said) in [
            (
                [("one", 104, 2), ("two", 50, 0)],
                "one, bytes: 100 before, 104 now (+4.0 %)",
            ),
            (
                [("one", 96, 2), ("two", 50, 0)],
                "one, bytes: 100 before, 96 now (-4.0 %)",
            ),
            (
                [("one", 100, 3), ("two", 50, 0)],
                "one, calls: 2 before, 3 now (+50.0 %)",
            ),
            (
                [("one", 100, 2), ("two", 50, 1)],
                "two, calls: 0 before, 1 now",
            ),
            ([("one", 100, 2), ("six", 50, 0)], "six: not recorded"),
            (
                [("one", 100, 2), ("one", 100, 2)],
                "two: recorded, but not measured",
            ),
        ] {
            let fault = fault("gcc 1", &rows).expect("a fault");
            assert!(fault.starts_with(said), "{fault}");
            assert!(fault.ends_with("NOMAIL_GOLDEN_WRITE=1 make"), "{fault}");
        }
    }

    #[test]
    fn of_another_maker_a_figure_may_be_a_tenth_larger() {
        assert_eq!(fault("gcc 2", &[("one", 110, 2), ("two", 5, 0)]), None);
        let fault = fault("gcc 2", &[("one", 111, 2), ("two", 5, 0)]).expect("a fault");
        assert!(
            fault.contains("recorded with gcc 1, measured with gcc 2"),
            "{fault}"
        );
    }
}
