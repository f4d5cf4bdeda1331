//! Where audit events go: lines of a file, batches to a webhook, or both.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::remote::Remote;

/// Events that may wait for a backend; upstream's figure.
const BUFFER: usize = 10_000;

/// `--audit-log-*`.
#[derive(Clone, Debug)]
pub struct LogOptions {
    /// `-` is standard output.
    pub path: PathBuf,
    /// Megabytes before the file is rotated; zero never rotates.
    pub max_size: u64,
    /// Old files kept; zero keeps all.
    pub max_backups: usize,
}

/// `--audit-webhook-*`.
#[derive(Clone)]
pub struct WebhookOptions {
    pub sender: Arc<dyn Remote>,
    pub batch_size: usize,
    pub batch_wait: Duration,
}

/// The backends of a server, each with its queue.
pub struct Backend {
    queues: Vec<mpsc::Sender<Value>>,
    lost: Arc<AtomicU64>,
}

impl Backend {
    /// Starts the tasks that deliver; they end after `shutdown`, with what is queued delivered.
    pub fn start(log: Option<LogOptions>, webhook: Option<WebhookOptions>, shutdown: &CancellationToken) -> Self {
        let lost = Arc::new(AtomicU64::new(0));
        let mut queues = Vec::new();
        if let Some(options) = log {
            let (sender, receiver) = mpsc::channel(BUFFER);
            tokio::spawn(write_log(options, receiver, shutdown.clone()));
            queues.push(sender);
        }
        if let Some(options) = webhook {
            let (sender, receiver) = mpsc::channel(BUFFER);
            tokio::spawn(send_batches(options, receiver, shutdown.clone()));
            queues.push(sender);
        }
        Self { queues, lost }
    }

    /// Queues an event; a full queue loses it.
    pub fn send(&self, event: Value) {
        for queue in &self.queues {
            if queue.try_send(event.clone()).is_err() && self.lost.fetch_add(1, Ordering::Relaxed).is_multiple_of(1000)
            {
                tracing::error!(
                    lost = self.lost.load(Ordering::Relaxed),
                    "audit events are lost: a backend is too slow"
                );
            }
        }
    }
}

/// The next event, or none once shut down and drained.
async fn next(receiver: &mut mpsc::Receiver<Value>, shutdown: &CancellationToken) -> Option<Value> {
    tokio::select! {
        biased;
        event = receiver.recv() => event,
        () = shutdown.cancelled() => receiver.try_recv().ok(),
    }
}

async fn write_log(options: LogOptions, mut receiver: mpsc::Receiver<Value>, shutdown: CancellationToken) {
    let mut file: Option<(tokio::fs::File, u64)> = None;
    while let Some(event) = next(&mut receiver, &shutdown).await {
        let mut line = event.to_string();
        line.push('\n');
        if options.path == Path::new("-") {
            let _ = tokio::io::stdout().write_all(line.as_bytes()).await;
            continue;
        }
        let limit = options.max_size * 1024 * 1024;
        if let Some((_, size)) = &file
            && limit > 0
            && *size + line.len() as u64 > limit
        {
            file = None;
            rotate(&options).await;
        }
        if file.is_none() {
            file = open(&options.path).await;
        }
        let Some((target, size)) = &mut file else { continue };
        match target.write_all(line.as_bytes()).await {
            Ok(()) => *size += line.len() as u64,
            Err(error) => {
                tracing::error!(%error, path = %options.path.display(), "the audit log cannot be written");
                file = None;
            }
        }
    }
    if let Some((mut file, _)) = file {
        let _ = file.flush().await;
    }
}

async fn open(path: &Path) -> Option<(tokio::fs::File, u64)> {
    let opened = tokio::fs::OpenOptions::new().create(true).append(true).mode(0o600).open(path).await;
    match opened {
        Ok(file) => {
            let size = file.metadata().await.map(|metadata| metadata.len()).unwrap_or_default();
            Some((file, size))
        }
        Err(error) => {
            tracing::error!(%error, path = %path.display(), "the audit log cannot be opened");
            None
        }
    }
}

/// Puts the full file aside as `.1`, the older ones one further.
async fn rotate(options: &LogOptions) {
    let numbered = |number: usize| {
        let mut name = options.path.clone().into_os_string();
        name.push(format!(".{number}"));
        PathBuf::from(name)
    };
    let mut last = 0;
    while tokio::fs::try_exists(numbered(last + 1)).await.unwrap_or(false) {
        last += 1;
    }
    for number in (1..=last).rev() {
        if options.max_backups > 0 && number >= options.max_backups {
            let _ = tokio::fs::remove_file(numbered(number)).await;
        } else {
            let _ = tokio::fs::rename(numbered(number), numbered(number + 1)).await;
        }
    }
    let _ = tokio::fs::rename(&options.path, numbered(1)).await;
}

async fn send_batches(options: WebhookOptions, mut receiver: mpsc::Receiver<Value>, shutdown: CancellationToken) {
    loop {
        let Some(first) = next(&mut receiver, &shutdown).await else { return };
        let mut batch = vec![first];
        let deadline = tokio::time::sleep(options.batch_wait);
        tokio::pin!(deadline);
        while batch.len() < options.batch_size {
            tokio::select! {
                () = &mut deadline => break,
                event = next(&mut receiver, &shutdown) => match event {
                    Some(event) => batch.push(event),
                    None => break,
                },
            }
        }
        let list = json!({"kind": "EventList", "apiVersion": "audit.k8s.io/v1", "metadata": {}, "items": batch});
        let mut wait = Duration::from_secs(10);
        for attempt in 0..4 {
            match options.sender.ask(&list).await {
                Ok(_) => break,
                Err(error) => {
                    tracing::warn!(error, attempt, "audit events were not delivered");
                    tokio::select! {
                        () = tokio::time::sleep(wait) => {}
                        () = shutdown.cancelled() => {}
                    }
                    wait = wait.mul_f64(1.5);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_full_log_is_put_aside() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.log");
        let options = LogOptions { path: path.clone(), max_size: 1, max_backups: 1 };
        let shutdown = CancellationToken::new();
        let (sender, receiver) = mpsc::channel(16);
        let task = tokio::spawn(write_log(options, receiver, shutdown));
        let text = "x".repeat(600 * 1024);
        for number in 0..3 {
            sender.send(json!({"number": number, "text": text})).await.unwrap();
        }
        drop(sender);
        task.await.unwrap();
        let number = |path: &Path| -> Value {
            let text = std::fs::read_to_string(path).unwrap();
            serde_json::from_str::<Value>(text.lines().next().unwrap()).unwrap()["number"].clone()
        };
        assert_eq!(number(&path), 2);
        assert_eq!(number(&dir.path().join("audit.log.1")), 1);
        assert!(!dir.path().join("audit.log.2").exists(), "one backup is kept");
    }
}
