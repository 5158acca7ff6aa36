// SPDX-License-Identifier: Apache-2.0
//! Where log lines go: the journal when it listens, else the terminal.
//!
//! Devices use the `log` crate's macros. The data path does not log; what a guest can cause
//! goes through [`limited!`](virtio_device::limited).

mod journal;
mod terminal;

use log::{LevelFilter, Log, Metadata, Record};
use std::cell::OnceCell;
use std::sync::OnceLock;

/// Which device of which guest writes. In the journal the fields `AGL_VIRTIO_GUEST` and
/// `AGL_VIRTIO_DEVICE`: `journalctl AGL_VIRTIO_GUEST=ivi`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The name of the guest.
    pub guest: String,
    /// The name of the device within the guest.
    pub device: String,
}

enum Sink {
    Journal(journal::Journal),
    Terminal(terminal::Terminal),
}

struct Logger {
    sink: Sink,
    origin: OnceLock<Origin>,
}

static LOGGER: OnceLock<Logger> = OnceLock::new();

thread_local! {
    /// What this thread's lines are about, where that is not the whole device.
    static SUBJECT: OnceCell<String> = const { OnceCell::new() };
}

/// Starts logging, once per process; later calls change the level only.
///
/// Crates below us speak up from `warn` on, or at every level from `debug` on.
pub fn start(program: &'static str, level: LevelFilter) {
    let logger = LOGGER.get_or_init(|| Logger {
        sink: match journal::Journal::if_listening(program) {
            Some(journal) => Sink::Journal(journal),
            None => Sink::Terminal(terminal::Terminal::standard_error()),
        },
        origin: OnceLock::new(),
    });
    // Fails where a test installed a logger of its own, which then keeps the lines.
    let _ = log::set_logger(logger);
    log::set_max_level(level);
}

/// Says for whom all later lines are. The first call counts.
pub fn set_origin(origin: Origin) {
    if let Some(logger) = LOGGER.get() {
        let _ = logger.origin.set(origin);
    }
}

/// Says what all later lines of this thread are about, such as `stream Music (0)`: they begin with
/// it. The first call of a thread counts.
pub fn set_subject(subject: &str) {
    // Fails in a thread that ends, which says nothing more.
    let _ = SUBJECT.try_with(|own| own.set(subject.to_owned()));
}

/// The chatter of the bus library is of no use to a person who watches a device.
fn is_wanted(metadata: &Metadata<'_>) -> bool {
    let foreign = metadata.target().starts_with("zbus") || metadata.target().starts_with("tracing");
    !foreign || metadata.level() <= log::Level::Warn || log::max_level() >= LevelFilter::Trace
}

impl Logger {
    fn write(&self, record: &Record<'_>) {
        match &self.sink {
            Sink::Journal(journal) => journal.write(record, self.origin.get()),
            Sink::Terminal(terminal) => terminal.write(record, self.origin.get()),
        }
    }
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level() && is_wanted(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let with_subject = |own: &OnceCell<String>| match own.get() {
            Some(subject) => self.write(
                &Record::builder()
                    .metadata(record.metadata().clone())
                    .args(format_args!("{subject}: {}", record.args()))
                    .build(),
            ),
            None => self.write(record),
        };
        if SUBJECT.try_with(with_subject).is_err() {
            self.write(record);
        }
    }

    fn flush(&self) {}
}
