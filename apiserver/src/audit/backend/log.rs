//! The log: a line for each event, in a file that is rotated or on standard output.
//!
//! A thread of its own writes, and answers when a line is with the system: no worker of the server waits
//! for a disk, and lines that come together are written together.

use std::io::Write as _;
use std::path::Path;

use async_trait::async_trait;
use tokio::sync::{mpsc, oneshot};

use super::super::options::{Format, LogOptions};
use super::rotate::File;
use super::{Lost, Sent, Sink};

const NAME: &str = "log";
/// What a line has before an event as lists have it, instead of the first brace; and the end of the line.
pub const PREFIX: &str = "{\"kind\":\"Event\",\"apiVersion\":\"audit.k8s.io/v1\",";
/// Lines that may wait for the thread.
const WAITING: usize = 1024;

struct Job {
    lines: Vec<String>,
    done: oneshot::Sender<Result<(), Lost>>,
}

enum Output {
    Standard,
    File(File),
}

impl Output {
    fn write(&mut self, line: &str) -> Result<(), String> {
        match self {
            Output::Standard => std::io::stdout().lock().write_all(line.as_bytes()).map_err(|error| error.to_string()),
            Output::File(file) => file.write(line.as_bytes()),
        }
    }
}

/// Writes lines.
pub struct Log {
    jobs: mpsc::Sender<Job>,
    format: Format,
}

impl Log {
    /// Opens the file and starts the thread, which ends with this.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn open(options: &LogOptions) -> Result<Self, String> {
        let mut output = if options.path == Path::new("-") {
            Output::Standard
        } else {
            Output::File(File::open(options).map_err(|error| format!("ensureLogFile: {error}"))?)
        };
        let (jobs, mut receiver) = mpsc::channel::<Job>(WAITING);
        let work = move || {
            while let Some(job) = receiver.blocking_recv() {
                let mut lost = Lost { events: 0, why: String::new() };
                for line in &job.lines {
                    if let Err(why) = output.write(line) {
                        lost = Lost { events: lost.events + 1, why };
                    }
                }
                // Who asked may have left.
                let _ = job.done.send(if lost.events == 0 { Ok(()) } else { Err(lost) });
            }
        };
        std::thread::Builder::new().name("audit-log".to_string()).spawn(work).map_err(|error| error.to_string())?;
        Ok(Self { jobs, format: options.format })
    }

    fn line(&self, sent: &Sent) -> String {
        match self.format {
            Format::Json => format!("{PREFIX}{}\n", &sent.item[1..]),
            Format::Legacy => sent.event.line() + "\n",
        }
    }
}

#[async_trait]
impl Sink for Log {
    fn name(&self) -> &'static str {
        NAME
    }

    async fn deliver(&self, events: &[Sent]) -> Result<(), Lost> {
        let gone = || Lost { events: events.len(), why: "the log's thread has ended".to_string() };
        let (done, answer) = oneshot::channel();
        let lines = events.iter().map(|sent| self.line(sent)).collect();
        self.jobs.send(Job { lines, done }).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}
