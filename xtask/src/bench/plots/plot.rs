//! A plot, and the data for it from the tables.

use super::super::tables::{Figure, Table};

/// What is drawn of a table, and how.
pub(in super::super) struct Plot {
    /// The name of the file, without `.svg`.
    pub(in super::super) file: &'static str,
    /// The benchmark that has the table, and how the table's title begins.
    pub(in super::super) benchmark: &'static str,
    pub(super) table: &'static str,
    pub(super) caption: &'static str,
    /// The column of the places along the axis, in the order of the table. They are evenly
    /// spaced, even if they are numbers.
    pub(super) places: &'static str,
    /// The column whose values are the lines, or the bars at each place. Without it each of
    /// `figures` is one.
    pub(super) series: Option<&'static str>,
    /// The columns that are drawn.
    pub(super) figures: &'static [&'static str],
    /// What is written along the axes.
    pub(super) along: [&'static str; 2],
    pub(super) kind: Kind,
    pub(super) scale: Scale,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Lines,
    /// From left to right, one place below the other.
    Bars,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Scale {
    /// From 0 on.
    Linear,
    Logarithmic,
}

/// What is drawn.
pub(super) struct Data {
    pub(super) places: Vec<String>,
    pub(super) series: Vec<Series>,
}

/// A line, or the bars of one colour.
pub(super) struct Series {
    pub(super) name: String,
    /// With the number of the place.
    pub(super) points: Vec<(usize, Figure)>,
}

impl Plot {
    /// None where the table is not there, or has nothing to draw.
    pub(super) fn data(&self, tables: &[Table]) -> Option<Data> {
        let mut tables = tables.iter();
        let table = tables.find(|table| table.title.starts_with(self.table))?;
        let places_at = table.column(self.places)?;
        let mut data = Data {
            places: Vec::new(),
            series: Vec::new(),
        };
        for row in &table.rows {
            for figure in self.figures {
                let cell = row.get(table.column(figure)?)?;
                let Some(mut found) = Figure::read(cell) else {
                    continue;
                };
                if self.scale == Scale::Logarithmic {
                    if found.value <= 0.0 {
                        continue;
                    }
                    found.least = if found.least > 0.0 {
                        found.least
                    } else {
                        found.value
                    };
                }
                let name = match self.series {
                    Some(column) => row.get(table.column(column)?)?.as_str(),
                    None => figure,
                };
                let name = name.replace(['*', '`'], "");
                let place = position(
                    &mut data.places,
                    |place| *place == row[places_at],
                    || row[places_at].clone(),
                );
                let series = position(
                    &mut data.series,
                    |series| series.name == name,
                    || Series {
                        name: name.clone(),
                        points: Vec::new(),
                    },
                );
                data.series[series].points.push((place, found));
            }
        }
        (!data.series.is_empty()).then_some(data)
    }
}

/// The index of the first that fits, after adding a new one if there is none.
fn position<T>(all: &mut Vec<T>, is_it: impl Fn(&T) -> bool, new: impl FnOnce() -> T) -> usize {
    match all.iter().position(is_it) {
        Some(at) => at,
        None => {
            all.push(new());
            all.len() - 1
        }
    }
}
