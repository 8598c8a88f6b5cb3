//! Draws a plot.

use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::coord::Shift;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::super::tables::Table;
use super::plot::{Data, Kind, Plot, Scale};

const WIDTH: u32 = 860;
const LINES_HEIGHT: u32 = 420;
const LEGEND_WIDTH: i32 = 220;
/// Of a bar, with the gap to the next.
const BAR_HEIGHT: u32 = 16;
const FONT: &str = "sans-serif";
/// Average width of a letter of size [`SMALL`].
const LETTER_WIDTH: f64 = 6.4;
const SMALL: i32 = 13;
/// Of Okabe and Ito: distinct for colour-blind people too.
const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(230, 159, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(213, 94, 0),
    RGBColor(86, 180, 233),
    RGBColor(90, 90, 90),
];

impl Plot {
    /// Draws the plot from these tables into a file. False if they have nothing to draw.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(in super::super) fn draw(&self, tables: &[Table], file: &Path) -> Result<bool> {
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

    /// The ends of the axis of figures.
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

    /// Most labels that the axis of figures has.
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

/// A long number with a thousand or a million as its unit; other texts as they are.
pub(super) fn short(text: &str) -> String {
    let (unit, sign) = match text.parse::<f64>() {
        Ok(number) if number >= 1e6 => (1e6, "M"),
        Ok(number) if number >= 1e4 => (1e3, "k"),
        _ => return text.to_owned(),
    };
    let number: f64 = text.parse().unwrap_or_default();
    let tenths = (number / unit * 10.0).round() / 10.0;
    format!("{tenths}{sign}")
}
