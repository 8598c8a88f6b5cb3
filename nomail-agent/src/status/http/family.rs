//! A metric and its samples in Prometheus' text format 0.0.4.

use std::fmt::{Arguments, Display, Write as _};

use nomail_common::counted::Counted;

use crate::counts::Counts;

/// The header `Content-Type` of [`text`].
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The type of a metric.
#[derive(Clone, Copy, Debug)]
pub(super) enum MetricType {
    Counter,
    Gauge,
    Histogram,
}

impl MetricType {
    const fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// A metric and its samples.
#[derive(Debug)]
pub(super) struct Family {
    name: String,
    kind: MetricType,
    help: String,
    samples: String,
}

impl Family {
    /// Without samples. `help` is a sentence or more.
    pub(super) fn new(name: impl Into<String>, kind: MetricType, help: &str) -> Self {
        Self {
            name: name.into(),
            kind,
            help: help.to_owned(),
            samples: String::new(),
        }
    }

    /// A gauge with one sample.
    pub(super) fn gauge(name: &str, help: &str, value: impl Display) -> Self {
        let mut family = Self::new(name, MetricType::Gauge, help);
        family.sample("", &[], value);
        family
    }

    /// A counter with one sample.
    pub(super) fn counter(name: impl Into<String>, help: &str, value: impl Display) -> Self {
        let mut family = Self::new(name, MetricType::Counter, help);
        family.sample("", &[], value);
        family
    }

    /// A counter with a sample for each word of a vocabulary, which is the value of `label`.
    pub(super) fn of_words<T: Counted>(
        name: &str,
        help: &str,
        label: &str,
        counts: &Counts<T>,
    ) -> Self {
        let mut family = Self::new(name, MetricType::Counter, help).with_words(T::ALL);
        for (word, count) in counts.iter() {
            family.sample("", &[(label, word.name())], count);
        }
        family
    }

    /// Adds to the help what each of these values of a label means.
    pub(super) fn with_words<T: Counted>(mut self, words: &[T]) -> Self {
        for word in words {
            put(
                &mut self.help,
                format_args!(" {}: {}", word.name(), word.help()),
            );
        }
        self
    }

    /// Adds a sample. Only a histogram has suffixes.
    pub(super) fn sample(&mut self, suffix: &str, labels: &[(&str, &str)], value: impl Display) {
        let text = &mut self.samples;
        put(text, format_args!("{}{suffix}", self.name));
        for (index, (label, of)) in labels.iter().enumerate() {
            let before = if index == 0 { '{' } else { ',' };
            put(text, format_args!("{before}{label}=\""));
            for character in of.chars() {
                match character {
                    '\\' => text.push_str("\\\\"),
                    '"' => text.push_str("\\\""),
                    '\n' => text.push_str("\\n"),
                    other => text.push(other),
                }
            }
            text.push('"');
        }
        if !labels.is_empty() {
            text.push('}');
        }
        put(text, format_args!(" {value}\n"));
    }
}

/// All families in the text format.
pub(super) fn text(families: &[Family]) -> String {
    let mut text = String::with_capacity(16 * 1024);
    for family in families {
        let Family { name, samples, .. } = family;
        let help = family.help.replace('\\', "\\\\");
        let kind = family.kind.name();
        put(
            &mut text,
            format_args!("# HELP {name} {help}\n# TYPE {name} {kind}\n{samples}"),
        );
    }
    text
}

fn put(text: &mut String, what: Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = text.write_fmt(what);
}
