//! Telling the person who waits: one line per step, with the time that it took.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// Prints steps as they start and end.
#[derive(Debug)]
pub struct Progress {
    started: Instant,
    terminal: bool,
}

impl Default for Progress {
    fn default() -> Self {
        Progress { started: Instant::now(), terminal: std::io::stderr().is_terminal() }
    }
}

impl Progress {
    /// Runs one step. A terminal shows it while it runs; a log gets a line when it has ended.
    pub async fn step<T, E, F>(&self, what: &str, work: F) -> Result<T, E>
    where
        F: Future<Output = Result<T, E>>,
    {
        let spinner = self.terminal.then(|| {
            let spinner = indicatif::ProgressBar::new_spinner().with_message(what.to_owned());
            spinner.enable_steady_tick(Duration::from_millis(80));
            spinner
        });
        let started = Instant::now();
        let result = work.await;
        if let Some(spinner) = spinner {
            spinner.finish_and_clear();
        }
        let mark = if result.is_ok() { "✓" } else { "✗" };
        self.line(&format!("{mark} {what:<52} {:>6}", seconds(started.elapsed())));
        result
    }

    /// A closing line with the time since the first step.
    pub fn total(&self, what: &str) {
        self.line(&format!("  {what:<52} {:>6}", seconds(self.started.elapsed())));
    }

    pub fn line(&self, text: &str) {
        // Progress must not end the work that it reports on: a closed terminal is no error.
        let _ = writeln!(std::io::stderr(), "{text}");
    }
}

fn seconds(time: Duration) -> String {
    if time < Duration::from_millis(9950) {
        format!("{:.2}s", time.as_secs_f64())
    } else {
        format!("{:.1}s", time.as_secs_f64())
    }
}
