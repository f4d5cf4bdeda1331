//! Logs in upstream's shapes: klog's text lines by default, JSON with `--logging-format=json`.
//!
//! Writes to stderr. `-v` follows klog: 0–3 show info, 4–5 debug, 6 and more trace for Keelson's own
//! crates; libraries stay at warnings until 8. `RUST_LOG`, when set, replaces that filter.

use std::fmt::{self, Write as _};

use jiff::Timestamp;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// How logs look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    #[default]
    Text,
    Json,
}

/// What `init` needs to know; `from_flags` reads it from the common flags.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// klog's `-v`.
    pub verbosity: i64,
    pub format: Format,
}

impl Options {
    /// Reads `-v` and `--logging-format`.
    pub fn from_flags(flags: &crate::flags::Parsed) -> Self {
        Self {
            verbosity: flags.int("v"),
            format: if flags.string("logging-format") == "json" { Format::Json } else { Format::Text },
        }
    }

    fn filter(&self) -> EnvFilter {
        if let Ok(filter) = EnvFilter::try_from_default_env() {
            return filter;
        }
        let level = match self.verbosity {
            ..=3 => "info",
            4..=5 => "debug",
            _ => "trace",
        };
        let text = if self.verbosity >= 8 {
            level.to_string()
        } else {
            let quiet = [
                "h2",
                "hyper",
                "hyper_util",
                "rustls",
                "tower",
                "kube_client::client::builder=off,kube_client",
                "tonic",
                "fjall",
                "lsm_tree",
                "value_log",
            ];
            quiet.iter().fold(level.to_string(), |text, library| text + &format!(",{library}=warn"))
        };
        EnvFilter::new(text)
    }
}

/// Installs the process's logger. A second call does nothing, so tests and composed processes may
/// each call it.
pub fn init(options: &Options) {
    let builder = tracing_subscriber::fmt().with_env_filter(options.filter()).with_writer(std::io::stderr);
    // An error means that a logger is installed already, which is what was asked for.
    let _ = match options.format {
        Format::Text => builder.event_format(Klog).try_init(),
        Format::Json => builder.json().flatten_event(true).try_init(),
    };
}

/// klog's line: `I1121 06:39:38.123456    1234 file.rs:12] "message" key="value"`.
struct Klog;

impl<S, N> FormatEvent<S, N> for Klog
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let meta = event.metadata();
        let severity = match *meta.level() {
            Level::ERROR => 'E',
            Level::WARN => 'W',
            _ => 'I',
        };
        let file = meta.file().and_then(|path| path.rsplit('/').next()).unwrap_or("unknown");
        let now = Timestamp::now().strftime("%m%d %H:%M:%S%.6f");
        write!(writer, "{severity}{now} {:>7} {file}:{}]", std::process::id(), meta.line().unwrap_or(1))?;
        let mut line = Line::default();
        event.record(&mut line);
        write!(writer, " \"{}\"{}", line.message, line.fields)?;
        if let Some(scope) = context.event_scope() {
            for span in scope.from_root() {
                if let Some(fields) = span.extensions().get::<tracing_subscriber::fmt::FormattedFields<N>>()
                    && !fields.is_empty()
                {
                    write!(writer, " {fields}")?;
                }
            }
        }
        writeln!(writer)
    }
}

#[derive(Default)]
struct Line {
    message: String,
    fields: String,
}

impl Line {
    fn push(&mut self, name: &str, value: fmt::Arguments<'_>) {
        // Writing to a String cannot fail.
        let _ = write!(self.fields, " {name}={value}");
    }
}

impl Visit for Line {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            self.message.push_str(value);
        } else {
            self.push(field.name(), format_args!("{value:?}"));
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.push(field.name(), format_args!("{value}"));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.push(field.name(), format_args!("{value}"));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.push(field.name(), format_args!("{value}"));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        // The chain, because Display of our errors does not repeat its source.
        let mut text = value.to_string();
        let mut source = value.source();
        while let Some(inner) = source {
            let _ = write!(text, ": {inner}");
            source = inner.source();
        }
        self.push(field.name(), format_args!("{text:?}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            let _ = write!(self.message, "{value:?}");
        } else {
            let text = format!("{value:?}");
            if text.contains([' ', '"']) && !text.starts_with('"') {
                self.push(field.name(), format_args!("{text:?}"));
            } else {
                self.push(field.name(), format_args!("{text}"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);
    impl std::io::Write for Sink {
        fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(buf);
            Ok(buf.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn writes_klog_lines() {
        let sink = Sink::default();
        let out = sink.clone();
        let subscriber = tracing_subscriber::fmt().with_writer(move || out.clone()).event_format(Klog).finish();
        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!(pod = "a/b", count = 3, "it happened");
        });
        let line = String::from_utf8(sink.0.lock().unwrap().clone()).unwrap();
        assert!(line.starts_with('W'), "{line}");
        assert!(line.contains("logging.rs:"), "{line}");
        assert!(line.ends_with("] \"it happened\" pod=\"a/b\" count=3\n"), "{line}");
    }
}
