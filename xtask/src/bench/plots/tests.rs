use std::fs;

use super::super::tables;
use super::draw::short;
use super::list::PLOTS;
use super::plot::Plot;

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
