//! The log on standard error: text for people, or one JSON object per line.

use std::fmt;
use std::io::IsTerminal;

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;

use crate::clock;

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

/// The library that encrypts, as the log calls it.
const TUNN: &str = "boringtun";

/// Starts logging; a second call is ignored.
pub fn start(format: LogFormat, level: LevelFilter) {
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|set| set.is_empty());
    let _ = tracing::subscriber::set_global_default(subscriber(format, level, colour, std::io::stderr));
}

fn subscriber<W>(format: LogFormat, level: LevelFilter, colour: bool, to: W) -> Box<dyn Subscriber + Send + Sync>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    // A log that nobody takes any more ends no lane.
    let base = tracing_subscriber::fmt().with_max_level(level).with_writer(to).log_internal_errors(false);
    // A service manager stamps lines itself; a terminal's reader knows the time.
    match format {
        LogFormat::Text => {
            Box::new(base.with_ansi(colour).with_target(false).without_time().finish().with(wanted(level)))
        }
        LogFormat::Json => Box::new(base.event_format(JsonLines).finish().with(wanted(level))),
    }
}

/// What is logged at a level. Of the library that encrypts only what somebody looks for who asks for everything: its
/// warnings, such as HANDSHAKE(REKEY_TIMEOUT), are of messages that were lost, which is nothing to be woken for, and what
/// becomes of a lane is said by us.
fn wanted(level: LevelFilter) -> Targets {
    let theirs = if level >= LevelFilter::DEBUG { level } else { LevelFilter::OFF };
    Targets::new().with_default(level).with_target(TUNN, theirs)
}

/// `{"schema":1,"time":..,"level":..,"message":..,FIELD:..}`.
struct JsonLines;

impl<S, N> FormatEvent<S, N> for JsonLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut to: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut fields = Fields(Map::new());
        fields.0.insert("schema".into(), 1.into());
        fields.0.insert("time".into(), clock::wall().to_string().into());
        fields.0.insert("level".into(), event.metadata().level().as_str().to_ascii_lowercase().into());
        event.record(&mut fields);
        writeln!(to, "{}", Value::Object(fields.0))
    }
}

struct Fields(Map<String, Value>);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name().to_owned(), format!("{value:?}").into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().to_owned(), value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.insert(field.name().to_owned(), value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.0.insert(field.name().to_owned(), value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.0.insert(field.name().to_owned(), value.into());
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Page {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("no panic holds it").write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(format: LogFormat, level: LevelFilter) -> String {
        let page = Page::default();
        let to = page.clone();
        tracing::subscriber::with_default(subscriber(format, level, false, move || to.clone()), || {
            tracing::warn!(target: "boringtun::noise::timers", "HANDSHAKE(REKEY_TIMEOUT)");
            tracing::error!(target: "boringtun::noise::timers", "CONNECTION_EXPIRED(REJECT_AFTER_TIME * 3)");
            tracing::warn!(target: "thinlane_wg::lane", lane = 7, "ours");
            tracing::trace!("too much");
        });
        let bytes = page.0.lock().expect("no panic holds it").clone();
        String::from_utf8(bytes).expect("text")
    }

    #[test]
    fn whoever_reads_the_log_at_night_meets_our_words_only() {
        for format in [LogFormat::Text, LogFormat::Json] {
            for level in [LevelFilter::WARN, LevelFilter::INFO] {
                let said = logged(format, level);
                assert_eq!(said.lines().count(), 1, "{said}");
                assert!(said.contains("ours") && !said.contains("HANDSHAKE"), "{said}");
            }
            let said = logged(format, LevelFilter::DEBUG);
            assert!(said.contains("ours") && said.contains("HANDSHAKE(REKEY_TIMEOUT)"), "{said}");
            assert!(!said.contains("too much"), "{said}");
        }
    }
}
