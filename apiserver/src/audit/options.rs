//! `--audit-*`: how events are delivered, and what of it cannot work.

use std::path::PathBuf;
use std::time::Duration;

/// When a request waits for its events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Never: events are queued, and lost when the queue is full.
    Batch,
    /// Until they are delivered, or were not.
    Blocking,
    /// Likewise, and a request whose first event was not delivered is refused.
    BlockingStrict,
}

impl Mode {
    /// A mode's name.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "batch" => Some(Mode::Batch),
            "blocking" => Some(Mode::Blocking),
            "blocking-strict" => Some(Mode::BlockingStrict),
            _ => None,
        }
    }
}

/// How many batches may go out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Throttle {
    /// Batches a second on the average.
    pub qps: f64,
    /// Batches at once after a pause.
    pub burst: i64,
}

/// The queue of mode `batch`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Batch {
    pub buffer_size: i64,
    pub max_size: i64,
    /// How long the first of a batch waits for others.
    pub max_wait: Duration,
    pub throttle: Option<Throttle>,
}

/// Bounds of what goes to a backend, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Truncate {
    pub enabled: bool,
    /// Events come to this stage one by one, so nothing is ever split by it; as upstream has it, it is only
    /// checked to be no smaller than one event.
    pub max_batch_size: i64,
    pub max_event_size: i64,
}

/// What both backends have.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Delivery {
    pub mode: Mode,
    pub batch: Batch,
    pub truncate: Truncate,
}

/// How a line of the log looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Json,
    Legacy,
}

/// `--audit-log-*`.
#[derive(Clone, Debug, PartialEq)]
pub struct LogOptions {
    /// `-` is standard output.
    pub path: PathBuf,
    /// Days that old files are kept; zero keeps them.
    pub max_age: i64,
    /// Old files kept; zero keeps all.
    pub max_backups: i64,
    /// Megabytes before the file is rotated; zero never rotates.
    pub max_size: i64,
    /// Whether old files are compressed.
    pub compress: bool,
    pub format: Format,
    pub delivery: Delivery,
}

/// `--audit-webhook-*`.
#[derive(Clone, Debug, PartialEq)]
pub struct WebhookOptions {
    /// A kubeconfig whose server takes the events.
    pub kubeconfig: PathBuf,
    /// Before the second attempt.
    pub initial_backoff: Duration,
    pub delivery: Delivery,
}

const BUFFER: i64 = 10_000;
const TRUNCATE: Truncate = Truncate { enabled: false, max_batch_size: 10 * 1024 * 1024, max_event_size: 100 * 1024 };

/// How the log's events are delivered unless flags say otherwise.
pub const LOG: Delivery = Delivery {
    mode: Mode::Blocking,
    batch: Batch { buffer_size: BUFFER, max_size: 1, max_wait: Duration::ZERO, throttle: None },
    truncate: TRUNCATE,
};

/// Likewise, of the webhook.
pub const WEBHOOK: Delivery = Delivery {
    mode: Mode::Batch,
    batch: Batch {
        buffer_size: BUFFER,
        max_size: 400,
        max_wait: Duration::from_secs(30),
        throttle: Some(Throttle { qps: 10.0, burst: 15 }),
    },
    truncate: TRUNCATE,
};

impl LogOptions {
    /// Upstream's defaults for a file.
    pub fn new(path: PathBuf) -> Self {
        Self {
            path,
            max_age: 366,
            max_backups: 100,
            max_size: 100,
            compress: false,
            format: Format::Json,
            delivery: LOG,
        }
    }

    /// # Errors
    /// The first thing that cannot work, in upstream's words.
    pub fn validate(&self) -> Result<(), String> {
        self.delivery.validate("log")?;
        for (name, value) in [("maxage", self.max_age), ("maxbackup", self.max_backups), ("maxsize", self.max_size)] {
            if value < 0 {
                return Err(format!("--audit-log-{name} {value} can't be a negative number"));
            }
        }
        Ok(())
    }
}

impl Delivery {
    /// # Errors
    /// The first thing that cannot work, in upstream's words.
    pub fn validate(&self, plugin: &str) -> Result<(), String> {
        let positive = |what: &str, value: &dyn std::fmt::Display, good: bool| {
            let bad = || format!("invalid audit batch {plugin} {what} {value}, must be a positive number");
            if good { Ok(()) } else { Err(bad()) }
        };
        // What is not used is not looked at.
        if self.mode == Mode::Batch {
            let Batch { buffer_size, max_size, throttle, .. } = self.batch;
            positive("buffer size", &buffer_size, buffer_size > 0)?;
            positive("max batch size", &max_size, max_size > 0)?;
            if let Some(Throttle { qps, burst }) = throttle {
                positive("throttle QPS", &qps, qps > 0.0)?;
                positive("throttle burst", &burst, burst > 0)?;
            }
        }
        let Truncate { max_batch_size, max_event_size, .. } = self.truncate;
        if max_event_size <= 0 {
            return Err(format!(
                "invalid audit truncate {plugin} max event size {max_event_size}, must be a positive number"
            ));
        }
        if max_batch_size < max_event_size {
            return Err(format!(
                "invalid audit truncate {plugin} max batch size {max_batch_size}, must be greater than max event size ({max_event_size})"
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_work_is_told() {
        let check = |change: &dyn Fn(&mut LogOptions)| {
            let mut options = LogOptions::new("/x".into());
            change(&mut options);
            options.validate().err().unwrap_or_default()
        };
        assert_eq!(check(&|_| {}), "");
        assert_eq!(check(&|o| o.max_age = -1), "--audit-log-maxage -1 can't be a negative number");
        assert_eq!(check(&|o| o.delivery.batch.buffer_size = 0), "", "the mode has no queue");
        let batch = |o: &mut LogOptions| o.delivery.mode = Mode::Batch;
        assert_eq!(
            check(&|o| {
                batch(o);
                o.delivery.batch.buffer_size = 0;
            }),
            "invalid audit batch log buffer size 0, must be a positive number"
        );
        assert_eq!(
            check(&|o| {
                batch(o);
                o.delivery.batch.throttle = Some(Throttle { qps: 0.0, burst: 1 });
            }),
            "invalid audit batch log throttle QPS 0, must be a positive number"
        );
        assert_eq!(
            check(&|o| o.delivery.truncate.max_event_size = 0),
            "invalid audit truncate log max event size 0, must be a positive number"
        );
        assert_eq!(
            check(&|o| o.delivery.truncate.max_batch_size = 1),
            "invalid audit truncate log max batch size 1, must be greater than max event size (102400)"
        );
    }
}
