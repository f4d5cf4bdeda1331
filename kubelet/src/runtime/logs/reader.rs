//! Streams a log the way `kubectl logs` asks for it: from a point, to an end or for ever.

use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use jiff::Timestamp;
use tokio::sync::mpsc;

use super::{Output, parse, tail_offset};
use crate::sys::Watcher;

/// What part of a log is wanted.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Keep going as the container writes, until it ends.
    pub follow: bool,
    /// Only the last records.
    pub tail: Option<u64>,
    /// Only records at or after this time.
    pub since: Option<Timestamp>,
    /// Each line begins with its time.
    pub timestamps: bool,
    /// Stop after this many bytes.
    pub limit_bytes: Option<usize>,
    /// Only this output.
    pub output: Option<Output>,
}

/// Bytes read from the file at once.
const CHUNK: usize = 64 * 1024;
/// How often a followed container is looked at to see whether it still runs: its end makes no event on
/// the file.
const LIVENESS: std::time::Duration = std::time::Duration::from_secs(1);

/// Starts reading `path`. `running` tells whether the container can still write; it is asked only when
/// following, at the end of the file. Dropping the receiver stops the reader.
pub fn stream<F, Fut>(path: PathBuf, options: Options, running: F) -> mpsc::Receiver<std::io::Result<Bytes>>
where
    F: Fn() -> Fut + Send + 'static,
    Fut: Future<Output = bool> + Send,
{
    let (sender, receiver) = mpsc::channel(4);
    tokio::spawn(async move {
        if let Err(error) = copy(path, options, running, &sender).await {
            let _ = sender.send(Err(error)).await;
        }
    });
    receiver
}

async fn copy<F, Fut>(
    path: PathBuf,
    options: Options,
    running: F,
    sender: &mpsc::Sender<std::io::Result<Bytes>>,
) -> std::io::Result<()>
where
    F: Fn() -> Fut + Send,
    Fut: Future<Output = bool> + Send,
{
    let mut file = std::fs::File::open(&path)?;
    if let Some(lines) = options.tail {
        let start = tail_offset(&mut file, lines)?;
        file.seek(SeekFrom::Start(start))?;
    }
    let watcher = if options.follow { Watcher::new(path.parent().unwrap_or(&path)).ok().map(Arc::new) } else { None };
    let mut formatter = Formatter { left: options.limit_bytes, options, after_partial: false };
    let mut pending = BytesMut::new();
    let mut finished = false;
    loop {
        pending.reserve(CHUNK);
        let mut block = vec![0; CHUNK];
        let count = file.read(&mut block)?;
        pending.put_slice(&block[..count]);
        let mut out = BytesMut::new();
        while let Some(end) = memchr(&pending) {
            let record = pending.split_to(end + 1);
            if !formatter.push(&record[..end], &mut out) {
                finished = true;
                break;
            }
        }
        if !out.is_empty() && sender.send(Ok(out.freeze())).await.is_err() {
            return Ok(());
        }
        if finished {
            return Ok(());
        }
        if count > 0 {
            continue;
        }
        if !formatter.options.follow {
            return Ok(());
        }
        if replaced(&file, &path) {
            // Rotated: the runtime writes a new file under the old name.
            if let Ok(fresh) = std::fs::File::open(&path) {
                file = fresh;
                continue;
            }
        }
        let alive = running().await;
        let wait = async {
            match &watcher {
                Some(watcher) => watcher.changed().await,
                None => std::future::pending().await,
            }
        };
        if !alive {
            // One more look: what was written before the end must not be lost.
            let more = file.metadata()?.len() > file.stream_position()?;
            if !more {
                return Ok(());
            }
            continue;
        }
        tokio::select! {
            () = wait => {}
            () = tokio::time::sleep(LIVENESS) => {}
            () = sender.closed() => return Ok(()),
        }
    }
}

fn memchr(bytes: &[u8]) -> Option<usize> {
    bytes.iter().position(|b| *b == b'\n')
}

fn replaced(file: &std::fs::File, path: &std::path::Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    match (file.metadata(), std::fs::metadata(path)) {
        (Ok(ours), Ok(now)) => ours.ino() != now.ino(),
        _ => false,
    }
}

/// Turns records into what the client sees.
struct Formatter {
    options: Options,
    left: Option<usize>,
    after_partial: bool,
}

impl Formatter {
    /// Appends one record; `false` once the limit is reached.
    fn push(&mut self, record: &[u8], out: &mut BytesMut) -> bool {
        let Some(line) = parse(record) else { return true };
        if self.options.output.is_some_and(|wanted| wanted != line.output) {
            return true;
        }
        if let Some(since) = self.options.since
            && line.timestamp.parse::<Timestamp>().is_ok_and(|time| time < since)
        {
            return true;
        }
        let start = out.len();
        if self.options.timestamps && !self.after_partial {
            out.put_slice(line.timestamp.as_bytes());
            out.put_u8(b' ');
        }
        out.put_slice(line.text);
        if !line.partial {
            out.put_u8(b'\n');
        }
        self.after_partial = line.partial;
        if let Some(left) = &mut self.left {
            let written = out.len() - start;
            if written >= *left {
                out.truncate(start + *left);
                *left = 0;
                return false;
            }
            *left -= written;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::sync::atomic::{AtomicBool, Ordering};

    const LOG: &str = "2026-10-06T00:00:01Z stdout F one\n\
        2026-10-06T00:00:02Z stderr F two\n\
        2026-10-06T00:00:03Z stdout P thr\n\
        2026-10-06T00:00:03Z stdout F ee\n";

    async fn read(options: Options) -> String {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(LOG.as_bytes()).unwrap();
        let mut chunks = stream(file.path().to_owned(), options, || async { false });
        let mut out = Vec::new();
        while let Some(chunk) = chunks.recv().await {
            out.extend_from_slice(&chunk.unwrap());
        }
        String::from_utf8(out).unwrap()
    }

    #[tokio::test]
    async fn options_select_records() {
        let since = Some("2026-10-06T00:00:02Z".parse().unwrap());
        for (options, expected) in [
            (Options::default(), "one\ntwo\nthree\n"),
            (Options { tail: Some(2), ..Default::default() }, "three\n"),
            (Options { tail: Some(0), ..Default::default() }, ""),
            (Options { since, ..Default::default() }, "two\nthree\n"),
            (Options { limit_bytes: Some(5), ..Default::default() }, "one\nt"),
            (Options { output: Some(Output::Stderr), ..Default::default() }, "two\n"),
            (
                Options { timestamps: true, ..Default::default() },
                "2026-10-06T00:00:01Z one\n2026-10-06T00:00:02Z two\n2026-10-06T00:00:03Z three\n",
            ),
            (Options { follow: true, ..Default::default() }, "one\ntwo\nthree\n"),
        ] {
            assert_eq!(read(options.clone()).await, expected, "{options:?}");
        }
    }

    #[tokio::test]
    async fn following_sees_new_records_and_ends_with_the_container() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let alive = Arc::new(AtomicBool::new(true));
        let flag = alive.clone();
        let options = Options { follow: true, ..Default::default() };
        let mut chunks = stream(file.path().to_owned(), options, move || {
            let flag = flag.clone();
            async move { flag.load(Ordering::SeqCst) }
        });
        for text in ["one", "two"] {
            writeln!(file, "2026-10-06T00:00:01Z stdout F {text}").unwrap();
            assert_eq!(chunks.recv().await.unwrap().unwrap(), format!("{text}\n"));
        }
        alive.store(false, Ordering::SeqCst);
        writeln!(file, "2026-10-06T00:00:01Z stdout F last").unwrap();
        assert_eq!(chunks.recv().await.unwrap().unwrap(), "last\n");
        assert!(chunks.recv().await.is_none());
    }
}
