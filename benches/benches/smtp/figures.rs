//! Medians, ratios, and whether a goal is met.

/// The middle one; of none, not a number.
pub(crate) fn median(measured: &[f64]) -> f64 {
    let mut sorted = measured.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Median and spread.
pub(crate) fn shown(measured: &[f64], digits: usize) -> String {
    let least = measured.iter().copied().fold(f64::INFINITY, f64::min);
    let most = measured.iter().copied().fold(0.0, f64::max);
    let middle = median(measured);
    format!("{middle:.digits$} ({least:.digits$} to {most:.digits$})")
}

/// Round by round: the neighbours of a round met the same machine.
pub(crate) fn ratios(of: &[f64], to: &[f64]) -> Vec<f64> {
    of.iter().zip(to).map(|(of, to)| of / to).collect()
}

/// The value that this part of all is not above.
pub(crate) fn quantile(micros: &[u32], part: f64) -> f64 {
    let mut sorted = micros.to_vec();
    sorted.sort_unstable();
    let index = (sorted.len() as f64 * part) as usize;
    let index = index.min(sorted.len().saturating_sub(1));
    sorted
        .get(index)
        .map_or(f64::NAN, |&micros| f64::from(micros) / 1000.0)
}

pub(crate) const fn verdict(met: bool) -> &'static str {
    if met { "met" } else { "MISSED" }
}
