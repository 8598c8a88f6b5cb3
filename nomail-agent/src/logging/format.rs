//! The log: one line each, to stderr, as text or as JSON.

use std::{
    fmt,
    io::{self, Write},
};

use env_logger::{Builder, Target};
use log::{
    Level, LevelFilter, Record,
    kv::{self, Key, Value, VisitSource, VisitValue},
};
use serde_json::Value as Json;

use crate::{config::LogFormat, text::escaped};

/// The keys that each line of JSON has. A key-value with one of these names is left out.
const KEYS: [&str; 3] = ["time", "level", "message"];

/// Starts the log. Each `-v` shows more.
///
/// A line of text has the time and the level, and leaves the record's key-values
/// out. A line of JSON is an object of `time` (RFC 3339, UTC), `level` (in lower
/// case), `message`, and the key-values, each as its own type. Under journald
/// the line carries its priority, which journald takes off; there the text has
/// no time and no level.
pub fn start(verbose: u8, format: LogFormat) {
    let level = match verbose {
        0 => LevelFilter::Info,
        1 => LevelFilter::Debug,
        _ => LevelFilter::Trace,
    };
    // Of a development object alone: several lines for each segment.
    let program_level = if verbose > 2 { level } else { LevelFilter::Off };
    let journald = stderr_is_journal();
    Builder::new()
        .filter_level(LevelFilter::Warn)
        .filter_module("nomail", level)
        .filter_module("nomail_agent", level)
        .filter_module("nomail_ebpf", program_level)
        .target(Target::Stderr)
        .format(move |out, record| match format {
            LogFormat::Text => {
                let time = (!journald).then(|| out.timestamp());
                write_text(out, time, record)
            }
            LogFormat::Json => {
                if journald {
                    write!(out, "<{}>", priority(record.level()))?;
                }
                let time = out.timestamp_millis();
                write_json(out, time, record)
            }
        })
        .init();
}

/// One line of text; without a time for journald.
fn write_text(
    out: &mut impl Write,
    time: Option<impl fmt::Display>,
    record: &Record<'_>,
) -> io::Result<()> {
    let message = escaped(&record.args().to_string());
    match time {
        Some(time) => writeln!(out, "{time} {:<5} {message}", record.level()),
        None => writeln!(out, "<{}>{message}", priority(record.level())),
    }
}

/// One line of JSON.
fn write_json(
    out: &mut impl Write,
    time: impl fmt::Display,
    record: &Record<'_>,
) -> io::Result<()> {
    let object = json_of(&time.to_string(), record)?;
    let mut line = String::with_capacity(object.len() + 1);
    for character in object.chars() {
        // Those that JSON does not escape: DEL, and the C1 set. They can only be
        // within strings.
        if character.is_control() {
            line.push_str(&format!("\\u{:04x}", u32::from(character)));
        } else {
            line.push(character);
        }
    }
    line.push('\n');
    out.write_all(line.as_bytes())
}

/// `time`, `level`, `message` and the key-values of `record` as an object.
fn json_of(time: &str, record: &Record<'_>) -> Result<String, serde_json::Error> {
    let level = record.level().as_str().to_ascii_lowercase();
    let message = record.args().to_string();
    let mut object = String::from("{");
    for (key, value) in KEYS.into_iter().zip([time, &level, &message]) {
        push_pair(&mut object, key, &value.into())?;
    }
    let mut pairs = Pairs(Vec::new());
    // A value that cannot be serialised is left out, not the line.
    let _ = record.key_values().visit(&mut pairs);
    for (key, value) in &pairs.0 {
        push_pair(&mut object, key, value)?;
    }
    object.push('}');
    Ok(object)
}

fn push_pair(object: &mut String, key: &str, value: &Json) -> Result<(), serde_json::Error> {
    if !object.ends_with('{') {
        object.push(',');
    }
    object.push_str(&serde_json::to_string(key)?);
    object.push(':');
    object.push_str(&serde_json::to_string(value)?);
    Ok(())
}

/// The key-values of a record, each key once.
struct Pairs(Vec<(String, Json)>);

impl<'kvs> VisitSource<'kvs> for Pairs {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), kv::Error> {
        let key = key.as_str();
        if !KEYS.contains(&key) && !self.0.iter().any(|(known, _)| known == key) {
            let mut json = AsJson(Json::Null);
            value.visit(&mut json)?;
            self.0.push((key.to_owned(), json.0));
        }
        Ok(())
    }
}

/// A value as its own type of JSON; what JSON has no type for is its text.
struct AsJson(Json);

impl<'v> VisitValue<'v> for AsJson {
    fn visit_any(&mut self, value: Value<'_>) -> Result<(), kv::Error> {
        self.0 = value.to_string().into();
        Ok(())
    }

    fn visit_null(&mut self) -> Result<(), kv::Error> {
        self.0 = Json::Null;
        Ok(())
    }

    fn visit_u64(&mut self, value: u64) -> Result<(), kv::Error> {
        self.0 = value.into();
        Ok(())
    }

    fn visit_i64(&mut self, value: i64) -> Result<(), kv::Error> {
        self.0 = value.into();
        Ok(())
    }

    fn visit_f64(&mut self, value: f64) -> Result<(), kv::Error> {
        self.0 = value.into();
        Ok(())
    }

    fn visit_bool(&mut self, value: bool) -> Result<(), kv::Error> {
        self.0 = value.into();
        Ok(())
    }

    fn visit_str(&mut self, value: &str) -> Result<(), kv::Error> {
        self.0 = value.into();
        Ok(())
    }
}

/// Whether stderr is the stream to the journal that the service manager named
/// (systemd.exec(5)), and was not redirected since.
fn stderr_is_journal() -> bool {
    let named = std::env::var("JOURNAL_STREAM");
    let stat = nix::sys::stat::fstat(io::stderr());
    matches!((named, stat), (Ok(named), Ok(stat)) if named == format!("{}:{}", stat.st_dev, stat.st_ino))
}

/// Priorities of sd-daemon(3).
const fn priority(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TIME: &str = "2026-11-24T12:54:52.001Z";

    fn text_of(time: Option<&str>, record: &Record<'_>) -> String {
        let mut out = Vec::new();
        write_text(&mut out, time, record).unwrap();
        String::from_utf8(out).unwrap()
    }

    fn json_line_of(record: &Record<'_>) -> String {
        let mut out = Vec::new();
        write_json(&mut out, TIME, record).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(escaped("a\r\nb\u{1b}[31mü"), "a\\r\\nb\\u{1b}[31mü");
    }

    #[test]
    fn text_has_no_key_values() {
        let pairs = [("connections", Value::from(41))];
        let record = Record::builder()
            .level(Level::Warn)
            .args(format_args!("a\nb"))
            .key_values(&pairs)
            .build();
        assert_eq!(text_of(Some("now"), &record), "now WARN  a\\nb\n");
        assert_eq!(text_of(None, &record), "<4>a\\nb\n");
    }

    #[test]
    fn json_keeps_types() {
        let address = std::net::Ipv4Addr::new(192, 0, 2, 7);
        let pairs = [
            ("event", Value::from("activity")),
            ("source", Value::from_display(&address)),
            ("connections", Value::from(41_u32)),
            ("change", Value::from(-3_i64)),
            ("most", Value::from(u64::MAX)),
            ("share", Value::from(0.5)),
            ("nan", Value::from(f64::NAN)),
            ("envelope", Value::from(false)),
            ("sender", Value::null()),
        ];
        let args = format_args!("{address}: 41 connections");
        let record = Record::builder()
            .level(Level::Info)
            .args(args)
            .key_values(&pairs)
            .build();
        assert_eq!(
            json_line_of(&record),
            "{\"time\":\"2026-11-24T12:54:52.001Z\",\"level\":\"info\",\
             \"message\":\"192.0.2.7: 41 connections\",\"event\":\"activity\",\
             \"source\":\"192.0.2.7\",\"connections\":41,\"change\":-3,\
             \"most\":18446744073709551615,\"share\":0.5,\"nan\":null,\"envelope\":false,\
             \"sender\":null}\n"
        );
    }

    #[test]
    fn json_has_each_key_once() {
        let pairs = [
            ("level", Value::from("loud")),
            ("a", Value::from(1)),
            ("a", Value::from(2)),
        ];
        let record = Record::builder()
            .level(Level::Debug)
            .args(format_args!(""))
            .key_values(&pairs)
            .build();
        assert_eq!(
            json_line_of(&record),
            "{\"time\":\"2026-11-24T12:54:52.001Z\",\"level\":\"debug\",\"message\":\"\",\
             \"a\":1}\n"
        );
    }

    #[test]
    fn json_escapes_every_control_character() {
        let pairs = [("k\u{9b}", Value::from("\u{7f}\u{1b}\u{85}ü"))];
        let record = Record::builder()
            .level(Level::Error)
            .args(format_args!("\"\\\r\n\0"))
            .key_values(&pairs)
            .build();
        assert_eq!(
            json_line_of(&record),
            "{\"time\":\"2026-11-24T12:54:52.001Z\",\"level\":\"error\",\
             \"message\":\"\\\"\\\\\\r\\n\\u0000\",\"k\\u009b\":\"\\u007f\\u001b\\u0085ü\"}\n"
        );
    }

    proptest! {
        #[test]
        fn any_record_is_one_line(message: String, key: String, value: String) {
            let pairs = [(key.as_str(), Value::from(value.as_str()))];
            let args = format_args!("{message}");
            let record = Record::builder().args(args).key_values(&pairs).build();
            let line = json_line_of(&record);
            let object = line.strip_suffix('\n').unwrap();
            prop_assert!(!object.contains(char::is_control));
            let told: Json = serde_json::from_str(object).unwrap();
            prop_assert_eq!(&told["message"], &Json::from(message.as_str()));
            if !KEYS.contains(&key.as_str()) {
                prop_assert_eq!(&told[key.as_str()], &Json::from(value.as_str()));
            }
            let line = text_of(Some(TIME), &record);
            prop_assert!(!line.strip_suffix('\n').unwrap().contains(char::is_control));
        }
    }
}
