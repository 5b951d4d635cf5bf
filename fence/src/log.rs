//! Where messages go: to standard error, which Pacemaker logs, to the journal, and to a file of
//! one's choice.

use crate::options::Options;
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Mutex;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry, fmt};

/// Opens the log.
///
/// # Errors
/// What is wrong with an option of it.
pub(crate) fn open(options: &Options) -> Result<(), String> {
    let is_verbose =
        options.is_set("verbose")? || options.number("verbose_level")?.unwrap_or(0) > 0;
    let level = match (options.is_set("quiet")?, is_verbose) {
        (true, _) => LevelFilter::OFF,
        (false, true) => LevelFilter::DEBUG,
        (false, false) => LevelFilter::WARN,
    };
    // A closed standard error leaves nobody to tell, also not of that.
    let lines = || fmt::layer().with_ansi(false).with_target(false).log_internal_errors(false);
    let mut layers: Vec<Box<dyn Layer<Registry> + Send + Sync>> = Vec::new();
    let stderr = lines().without_time().with_writer(std::io::stderr).with_filter(level);
    layers.push(stderr.boxed());
    let mut unwritten = None;
    if let Some(path) = options.text("debug_file") {
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path);
        match file {
            Ok(file) => {
                let lines = lines().with_writer(Mutex::new(file));
                layers.push(lines.with_filter(LevelFilter::DEBUG).boxed());
            }
            // Nobody's power stays on for want of a log.
            Err(error) => unwritten = Some(format!("cannot write {path}: {error}")),
        }
    }
    if let Ok(journal) = tracing_journald::layer() {
        let journal = journal.with_syslog_identifier("fence_smartplug".to_string());
        layers.push(journal.with_filter(LevelFilter::INFO).boxed());
    }
    // It fails only where a log is open already.
    let _ = tracing_subscriber::registry().with(layers).try_init();
    if let Some(wrong) = unwritten {
        tracing::warn!("{wrong}; going on without that file");
    }
    Ok(())
}
