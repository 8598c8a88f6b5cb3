//! Plots of the tables, in SVG: what is on which axis is said once, in [`PLOTS`].

use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::coord::Shift;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::tables::{Figure, Table};

/// What of a table is drawn, and how.
pub(super) struct Plot {
    /// The name of the file, without `.svg`.
    pub(super) file: &'static str,
    /// The benchmark that has the table, and how the table's title begins.
    pub(super) benchmark: &'static str,
    table: &'static str,
    caption: &'static str,
    /// The column of the places along the axis, in the order of the table. They are
    /// evenly spaced, whatever numbers they are.
    places: &'static str,
    /// The column of which each value is a line, or a bar at each place. None: each of
    /// `figures` is.
    series: Option<&'static str>,
    /// The columns that are drawn.
    figures: &'static [&'static str],
    /// What is written along the axes.
    along: [&'static str; 2],
    kind: Kind,
    scale: Scale,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Lines,
    /// From left to right, one place below the other.
    Bars,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Scale {
    /// From 0 on.
    Linear,
    Logarithmic,
}

/// All of them.
pub(super) const PLOTS: &[Plot] = &[
    Plot {
        file: "flood-served",
        benchmark: "growth",
        table: "Flood rate",
        caption: "Honest connections served under a spoofed SYN flood",
        places: "flood, kpps",
        series: Some("guard"),
        figures: &["honest connections served, % (95 %)"],
        along: ["flood, thousand SYNs a second", "served, %"],
        kind: Kind::Lines,
        scale: Scale::Linear,
    },
    Plot {
        file: "flood-time",
        benchmark: "growth",
        table: "Flood rate",
        caption: "Time of the receiving CPU per packet of the flood",
        places: "flood, kpps",
        series: Some("guard"),
        figures: &["ns per packet"],
        along: ["flood, thousand SYNs a second", "ns"],
        kind: Kind::Lines,
        scale: Scale::Logarithmic,
    },
    Plot {
        file: "sources",
        benchmark: "growth",
        table: "Sources",
        caption: "Time per SYN by the number of sources",
        places: "sources",
        series: None,
        figures: &["passes, ns", "challenged, ns", "bare XDP_PASS, ns"],
        along: ["sources", "ns"],
        kind: Kind::Lines,
        scale: Scale::Linear,
    },
    Plot {
        file: "held-memory",
        benchmark: "growth",
        table: "Held connections",
        caption: "Memory (PSS) of all processes of a server by held connections",
        places: "held",
        series: Some("server"),
        figures: &["PSS, MiB"],
        along: ["connections held", "MiB"],
        kind: Kind::Lines,
        scale: Scale::Logarithmic,
    },
    Plot {
        file: "held-greeting",
        benchmark: "growth",
        table: "Held connections",
        caption: "A new client's time to the greeting by held connections (99 of 100)",
        places: "held",
        series: Some("server"),
        figures: &["greeting p99, ms"],
        along: ["connections held", "ms"],
        kind: Kind::Lines,
        scale: Scale::Logarithmic,
    },
    Plot {
        file: "deny",
        benchmark: "growth",
        table: "Deny prefixes",
        caption: "Time per SYN beside a deny list",
        places: "prefixes",
        series: None,
        figures: &["SYN beside the list, ns", "bare XDP_PASS, ns"],
        along: ["prefixes", "ns"],
        kind: Kind::Lines,
        scale: Scale::Linear,
    },
    Plot {
        file: "domains",
        benchmark: "growth",
        table: "Relay domains",
        caption: "Time to the reply to RCPT by relay domains",
        places: "domains",
        series: None,
        figures: &["RCPT of a domain, µs", "RCPT of another, µs"],
        along: ["relay domains", "µs"],
        kind: Kind::Lines,
        scale: Scale::Linear,
    },
    Plot {
        file: "domains-memory",
        benchmark: "growth",
        table: "Relay domains",
        caption: "Memory (PSS) of the agent by relay domains",
        places: "domains",
        series: None,
        figures: &["PSS, MiB"],
        along: ["relay domains", "MiB"],
        kind: Kind::Lines,
        scale: Scale::Linear,
    },
    Plot {
        file: "cpus",
        benchmark: "growth",
        table: "CPUs",
        caption: "SYNs judged a second on one CPU and on two",
        places: "work",
        series: Some("CPUs"),
        figures: &["million a second"],
        along: ["", "million SYNs a second"],
        kind: Kind::Bars,
        scale: Scale::Linear,
    },
    Plot {
        file: "time-per-packet",
        benchmark: "guard",
        table: "Time per frame",
        caption: "Time per packet by BPF_PROG_TEST_RUN",
        places: "frame",
        series: None,
        figures: &["nanoseconds (least to most)"],
        along: ["", "ns"],
        kind: Kind::Bars,
        scale: Scale::Linear,
    },
    Plot {
        file: "connections-per-second",
        benchmark: "smtp",
        table: "Exchanges",
        caption: "Connections a second: connect, greeting, QUIT, 221, end",
        places: "server",
        series: Some("load"),
        figures: &["exchanges/s"],
        along: ["", "connections a second"],
        kind: Kind::Bars,
        scale: Scale::Linear,
    },
];

const WIDTH: u32 = 860;
const LINES_HEIGHT: u32 = 420;
const LEGEND_WIDTH: i32 = 220;
/// Of a bar, with the gap to the next.
const BAR_HEIGHT: u32 = 16;
const FONT: &str = "sans-serif";
/// Of a letter of [`SMALL`], on average.
const LETTER_WIDTH: f64 = 6.4;
const SMALL: i32 = 13;
/// Of Okabe and Ito: told apart by colour-blind eyes too.
const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(230, 159, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(213, 94, 0),
    RGBColor(86, 180, 233),
    RGBColor(90, 90, 90),
];

/// What is drawn.
struct Data {
    places: Vec<String>,
    series: Vec<Series>,
}

struct Series {
    name: String,
    /// With the number of the place.
    points: Vec<(usize, Figure)>,
}

impl Plot {
    /// Draws it from these tables into a file; whether it is there to be drawn.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(super) fn draw(&self, tables: &[Table], file: &Path) -> Result<bool> {
        let Some(data) = self.data(tables) else {
            return Ok(false);
        };
        let height = match self.kind {
            Kind::Lines => LINES_HEIGHT,
            Kind::Bars => {
                let bars = data.places.len() * data.series.len() + data.places.len();
                120 + BAR_HEIGHT * bars as u32
            }
        };
        let root = SVGBackend::new(file, (WIDTH, height)).into_drawing_area();
        self.draw_on(&root, &data)
            .and_then(|()| root.present().map_err(|error| anyhow!("{error}")))
            .map_err(|error| error.context(format!("cannot draw {}", file.display())))?;
        Ok(true)
    }

    /// None where the table is not there, or has nothing to draw.
    fn data(&self, tables: &[Table]) -> Option<Data> {
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

    fn draw_on(&self, root: &DrawingArea<SVGBackend<'_>, Shift>, data: &Data) -> Result<()> {
        let failed = |error: DrawingAreaErrorKind<_>| anyhow!("{error}");
        root.fill(&WHITE).map_err(failed)?;
        let root = root
            .titled(self.caption, (FONT, 17))
            .map_err(failed)?
            .margin(4, 8, 8, 12);
        let (width, _) = root.dim_in_pixel();
        let (left, right) = if data.series.len() > 1 {
            let (left, right) = root.split_horizontally(width as i32 - LEGEND_WIDTH);
            (left, Some(right))
        } else {
            (root, None)
        };
        match self.kind {
            Kind::Lines => self.draw_lines(&left, data),
            Kind::Bars => self.draw_bars(&left, data),
        }?;
        if let Some(right) = right {
            for (number, series) in data.series.iter().enumerate() {
                let top = 12 + 22 * number as i32;
                let colour = colour(number);
                right
                    .draw(&Rectangle::new(
                        [(14, top), (28, top + 12)],
                        colour.filled(),
                    ))
                    .map_err(failed)?;
                right
                    .draw(&Text::new(series.name.clone(), (34, top), (FONT, SMALL)))
                    .map_err(failed)?;
            }
        }
        Ok(())
    }

    fn draw_lines(&self, area: &DrawingArea<SVGBackend<'_>, Shift>, data: &Data) -> Result<()> {
        let failed = |error: DrawingAreaErrorKind<_>| anyhow!("{error}");
        let last = data.places.len() as f64 - 0.5;
        let (low, high) = self.range(data);
        let mut chart = ChartBuilder::on(area)
            .x_label_area_size(44)
            .y_label_area_size(64)
            .build_cartesian_2d(-0.5..last, low..high)
            .map_err(failed)?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .x_labels(0)
            .x_desc(self.along[0])
            .y_desc(self.along[1])
            .y_labels(self.labels(low, high))
            .y_label_formatter(&|value| self.label(*value))
            .light_line_style(TRANSPARENT)
            .label_style((FONT, SMALL))
            .draw()
            .map_err(failed)?;
        let middle = (FONT, SMALL)
            .into_text_style(area)
            .pos(Pos::new(HPos::Center, VPos::Top));
        for (place, name) in data.places.iter().enumerate() {
            let (x, y) = inside(area, &chart, (place as f64, low));
            area.draw(&Text::new(short(name), (x, y + 6), middle.clone()))
                .map_err(failed)?;
        }
        for (number, series) in data.series.iter().enumerate() {
            let colour = colour(number);
            let line = series.points.iter();
            let line = line.map(|(place, figure)| (*place as f64, self.scaled(figure.value)));
            chart
                .draw_series(LineSeries::new(line.clone(), colour.stroke_width(2)))
                .map_err(failed)?;
            chart
                .draw_series(line.map(|point| Circle::new(point, 3, colour.filled())))
                .map_err(failed)?;
            let spreads = series.points.iter().map(|(place, figure)| {
                let ends = [figure.least, figure.most].map(|end| (*place as f64, self.scaled(end)));
                PathElement::new(ends, colour.stroke_width(1))
            });
            chart.draw_series(spreads).map_err(failed)?;
        }
        Ok(())
    }

    fn draw_bars(&self, area: &DrawingArea<SVGBackend<'_>, Shift>, data: &Data) -> Result<()> {
        let failed = |error: DrawingAreaErrorKind<_>| anyhow!("{error}");
        let first = 0.5 - data.places.len() as f64;
        let (low, high) = self.range(data);
        let longest = data.places.iter().map(|name| name.chars().count()).max();
        let names_width = (longest.unwrap_or(0) as f64 * LETTER_WIDTH) as u32 + 12;
        let mut chart = ChartBuilder::on(area)
            .x_label_area_size(44)
            .y_label_area_size(names_width)
            .build_cartesian_2d(low..high, first..0.5)
            .map_err(failed)?;
        chart
            .configure_mesh()
            .disable_y_mesh()
            .y_labels(0)
            .x_desc(self.along[1])
            .x_labels(self.labels(low, high))
            .x_label_formatter(&|value| self.label(*value))
            .light_line_style(TRANSPARENT)
            .label_style((FONT, SMALL))
            .draw()
            .map_err(failed)?;
        let right = (FONT, SMALL)
            .into_text_style(area)
            .pos(Pos::new(HPos::Right, VPos::Center));
        for (place, name) in data.places.iter().enumerate() {
            let (x, y) = inside(area, &chart, (low, -(place as f64)));
            let name = name.replace(['*', '`'], "");
            area.draw(&Text::new(name, (x - 6, y), right.clone()))
                .map_err(failed)?;
        }
        // All bars of a place, and a gap as wide as one.
        let thickness = 1.0 / (data.series.len() as f64 + 1.0);
        for (number, series) in data.series.iter().enumerate() {
            let colour = colour(number);
            for (place, figure) in &series.points {
                let top = 0.5 - *place as f64 - thickness * (number as f64 + 0.5);
                let value = self.scaled(figure.value);
                let bar = [(low, top - 0.1 * thickness), (value, top - 0.9 * thickness)];
                chart
                    .draw_series([Rectangle::new(bar, colour.filled())])
                    .map_err(failed)?;
                let middle = top - 0.5 * thickness;
                let ends = [figure.least, figure.most].map(|end| (self.scaled(end), middle));
                chart
                    .draw_series([PathElement::new(ends, BLACK.stroke_width(1))])
                    .map_err(failed)?;
            }
        }
        Ok(())
    }

    /// From where to where the axis of figures goes.
    fn range(&self, data: &Data) -> (f64, f64) {
        let figures = data.series.iter().flat_map(|series| &series.points);
        let figures =
            figures.map(|(_, figure)| (self.scaled(figure.least), self.scaled(figure.most)));
        let (low, high) = figures.fold((f64::INFINITY, f64::NEG_INFINITY), |all, one| {
            (all.0.min(one.0), all.1.max(one.1))
        });
        match self.scale {
            Scale::Linear => (0.0, (high * 1.05).max(f64::MIN_POSITIVE)),
            // Whole powers of ten, and not less than one.
            Scale::Logarithmic => (low.floor(), high.ceil().max(low.floor() + 1.0)),
        }
    }

    fn scaled(&self, value: f64) -> f64 {
        match self.scale {
            Scale::Linear => value,
            Scale::Logarithmic => value.log10(),
        }
    }

    /// How many labels the axis of figures has, at most.
    fn labels(&self, low: f64, high: f64) -> usize {
        match self.scale {
            Scale::Linear => 8,
            Scale::Logarithmic => (high - low).round() as usize + 1,
        }
    }

    fn label(&self, value: f64) -> String {
        let value = match self.scale {
            Scale::Linear => value,
            Scale::Logarithmic => 10f64.powf(value),
        };
        // The steps of an axis are sums with rounding errors.
        let rounded = (value * 1e6).round() / 1e6;
        short(&rounded.to_string())
    }
}

/// A point of a chart in pixels of the area that it is drawn on.
fn inside(
    area: &DrawingArea<SVGBackend<'_>, Shift>,
    chart: &ChartContext<'_, SVGBackend<'_>, Cartesian2d<RangedCoordf64, RangedCoordf64>>,
    point: (f64, f64),
) -> (i32, i32) {
    let (x, y) = chart.backend_coord(&point);
    let (left, top) = area.get_base_pixel();
    (x - left, y - top)
}

fn colour(number: usize) -> RGBColor {
    COLOURS[number % COLOURS.len()]
}

/// Where the first such one is; else a new one is put at the end.
fn position<T>(all: &mut Vec<T>, is_it: impl Fn(&T) -> bool, new: impl FnOnce() -> T) -> usize {
    match all.iter().position(is_it) {
        Some(at) => at,
        None => {
            all.push(new());
            all.len() - 1
        }
    }
}

/// A long number with a thousand or a million as its unit; other texts as they are.
fn short(text: &str) -> String {
    let (unit, sign) = match text.parse::<f64>() {
        Ok(number) if number >= 1e6 => (1e6, "M"),
        Ok(number) if number >= 1e4 => (1e3, "k"),
        _ => return text.to_owned(),
    };
    let number: f64 = text.parse().unwrap_or_default();
    let tenths = (number / unit * 10.0).round() / 10.0;
    format!("{tenths}{sign}")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::tables;
    use super::*;

    const TEXT: &str = "## Flood rate: strangers\n\n\
        | flood, kpps | guard | honest connections served, % (95 %) | ns per packet |\n\
        |---|---|---|---|\n\
        | 10 | **nomail** | 100.0 (99.9 to 100.0) | 900 |\n\
        | 10 | nft | 99.0 (98.0 to 99.5) | 1000 |\n\
        | 1000 | **nomail** | 100.0 (99.9 to 100.0) | 480 |\n\
        | 1000 | nft | not measured: no nft | |\n\
        | at most | **nomail** | 99.9 (99.8 to 100.0) | 430 |\n";

    fn plot(file: &str) -> &'static Plot {
        PLOTS.iter().find(|plot| plot.file == file).unwrap()
    }

    #[test]
    fn a_plot_has_a_line_for_each_series_and_leaves_out_what_was_not_measured() {
        let data = plot("flood-served").data(&tables::read(TEXT)).unwrap();
        assert_eq!(data.places, ["10", "1000", "at most"]);
        let names: Vec<_> = data.series.iter().map(|series| &series.name).collect();
        assert_eq!(names, ["nomail", "nft"]);
        let of_nft = &data.series[1].points;
        assert_eq!(of_nft.len(), 1);
        assert_eq!((of_nft[0].0, of_nft[0].1.least), (0, 98.0));
    }

    #[test]
    fn lines_and_bars_are_drawn_with_all_their_words() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("plot.svg");
        let tables = tables::read(&format!(
            "{TEXT}\n## Time per frame\n\n| frame | nanoseconds (least to most) |\n|---|---|\n\
             | UDP & co | 28.0 (27.0 to 30.0) |\n"
        ));
        let drawn = |name: &str| {
            assert!(plot(name).draw(&tables, &file).unwrap(), "{name}");
            let text = fs::read_to_string(&file).unwrap();
            assert!(text.starts_with("<svg") && text.trim_end().ends_with("</svg>"));
            text
        };
        for name in ["flood-served", "flood-time"] {
            let text = drawn(name);
            for word in ["nomail", "nft", "at most", plot(name).caption] {
                assert!(text.contains(word), "{name}: {word}: {text}");
            }
        }
        assert!(drawn("time-per-packet").contains("UDP &amp; co"));
        assert!(!plot("cpus").draw(&tables, &file).unwrap());
    }

    #[test]
    fn each_plot_has_a_file_of_its_own_and_a_benchmark() {
        for (number, plot) in PLOTS.iter().enumerate() {
            assert!(super::super::ALL.contains(&plot.benchmark), "{}", plot.file);
            let same = PLOTS[number + 1..].iter();
            assert!(same.clone().all(|other| other.file != plot.file));
        }
    }

    #[test]
    fn long_numbers_are_short() {
        let shown = [
            "1", "4096", "65536", "16777216", "100000", "at most", "0.001",
        ]
        .map(short);
        let expected = ["1", "4096", "65.5k", "16.8M", "100k", "at most", "0.001"];
        assert_eq!(shown, expected);
    }
}
