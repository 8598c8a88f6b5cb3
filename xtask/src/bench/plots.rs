//! Plots of the tables, in SVG.

mod draw;
mod list;
mod plot;

pub(super) use list::PLOTS;

#[cfg(test)]
mod tests;
