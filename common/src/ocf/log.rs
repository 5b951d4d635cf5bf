//! Log lines go to the journal, and to standard error where there is none.

use tracing::level_filters::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Opens the log under this name, for lines that are as grave as this. A second call changes nothing.
pub fn open(name: &str, least: LevelFilter) {
    let journal = tracing_journald::layer().ok();
    let journal = journal.map(|layer| layer.with_syslog_identifier(name.to_string()));
    let stderr = match journal {
        Some(_) => None,
        None => Some(
            tracing_subscriber::fmt::layer()
                .with_writer(std::io::stderr)
                .with_ansi(false)
                .with_target(false)
                .without_time(),
        ),
    };
    // It fails only where a log is open already, and that one is as good.
    let _ = tracing_subscriber::registry().with(least).with(journal).with(stderr).try_init();
}
