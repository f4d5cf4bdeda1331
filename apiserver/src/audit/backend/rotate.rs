//! A file that is put aside when it is full: `audit.log` becomes `audit-2026-01-02T03-04-05.678.log`, old
//! ones are compressed and removed by number and age. The names are those of the library that upstream uses,
//! so that either server goes on with the other's files.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use component_base::clock::{RealClock, SharedClock};
use flate2::Compression;
use flate2::write::GzEncoder;
use jiff::{SignedDuration, Timestamp};

use super::super::options::LogOptions;

const MEGABYTE: u64 = 1024 * 1024;
const COMPRESSED: &str = ".gz";
const TIME: &str = "%Y-%m-%dT%H-%M-%S%.3f";

/// The log.
pub struct File {
    path: PathBuf,
    /// Bytes; zero never rotates.
    limit: u64,
    keep: usize,
    max_age: i64,
    compress: bool,
    clock: SharedClock,
    open: Option<(fs::File, u64)>,
}

/// A file that was put aside.
struct Old {
    path: PathBuf,
    /// Without the suffix of compression.
    name: String,
    compressed: bool,
    at: Timestamp,
}

impl File {
    /// Makes the file, and its folder, unless they are there.
    ///
    /// # Errors
    /// When that fails.
    pub fn open(options: &LogOptions) -> io::Result<Self> {
        Self::with_clock(options, RealClock::shared())
    }

    pub(super) fn with_clock(options: &LogOptions, clock: SharedClock) -> io::Result<Self> {
        let path = options.path.clone();
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        }
        OpenOptions::new().create(true).append(true).mode(0o600).open(&path)?;
        let number = |value: i64| u64::try_from(value).unwrap_or_default();
        Ok(Self {
            path,
            limit: number(options.max_size) * MEGABYTE,
            keep: usize::try_from(options.max_backups).unwrap_or_default(),
            max_age: options.max_age,
            compress: options.compress,
            clock,
            open: None,
        })
    }

    /// Appends a line, after putting the file aside if it would become too large.
    ///
    /// # Errors
    /// Why the line is not in the file.
    pub fn write(&mut self, line: &[u8]) -> Result<(), String> {
        let length = line.len() as u64;
        if self.limit > 0 && length > self.limit {
            return Err(format!("write length {length} exceeds maximum file size {}", self.limit));
        }
        let written = self.append(line);
        if written.is_err() {
            // It may have been removed, or the disk be full: the next line tries again.
            self.open = None;
        }
        written.map_err(|error| error.to_string())
    }

    fn append(&mut self, line: &[u8]) -> io::Result<()> {
        let length = line.len() as u64;
        let (mut file, mut size) = match self.open.take() {
            Some(open) => open,
            None => {
                let file = OpenOptions::new().create(true).append(true).mode(0o600).open(&self.path)?;
                let size = file.metadata()?.len();
                (file, size)
            }
        };
        if self.limit > 0 && size > 0 && size + length > self.limit {
            (file, size) = (self.rotate(&file)?, 0);
        }
        file.write_all(line)?;
        self.open = Some((file, size + length));
        Ok(())
    }

    fn rotate(&self, full: &fs::File) -> io::Result<fs::File> {
        let (prefix, extension) = self.parts();
        let time = self.clock.now().strftime(TIME);
        fs::rename(&self.path, self.path.with_file_name(format!("{prefix}{time}{extension}")))?;
        let metadata = full.metadata()?;
        let mode = metadata.permissions().mode();
        let file = OpenOptions::new().create(true).append(true).mode(mode).open(&self.path)?;
        if let Err(error) = std::os::unix::fs::fchown(&file, Some(metadata.uid()), Some(metadata.gid())) {
            tracing::warn!(%error, path = %self.path.display(), "the audit log has another owner now");
        }
        self.tidy();
        Ok(file)
    }

    /// What files that were put aside begin and end with.
    fn parts(&self) -> (String, String) {
        let name = self.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let at = name.rfind('.').unwrap_or(name.len());
        (format!("{}-", &name[..at]), name[at..].to_string())
    }

    /// The newest first.
    fn old(&self) -> io::Result<Vec<Old>> {
        let (prefix, extension) = self.parts();
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut found = Vec::new();
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let full = entry.file_name().to_string_lossy().into_owned();
            let name = full.strip_suffix(COMPRESSED).unwrap_or(&full).to_string();
            let time = name.strip_prefix(&prefix).and_then(|rest| rest.strip_suffix(&extension));
            let civil = time.and_then(|time| jiff::civil::DateTime::strptime(TIME, time).ok());
            let Some(at) = civil.and_then(|civil| civil.to_zoned(jiff::tz::TimeZone::UTC).ok()) else { continue };
            let compressed = name.len() != full.len();
            found.push(Old { path: entry.path(), name, compressed, at: at.timestamp() });
        }
        found.sort_by_key(|old| std::cmp::Reverse(old.at));
        Ok(found)
    }

    /// Compresses and removes.
    fn tidy(&self) {
        let outcome = self.old().and_then(|old| {
            let cutoff = self.clock.now() - SignedDuration::from_hours(24 * self.max_age.min(100 * 366));
            let mut kept: Vec<&str> = Vec::new();
            for file in &old {
                if !kept.contains(&file.name.as_str()) {
                    kept.push(&file.name);
                }
                let extra = self.keep > 0 && kept.len() > self.keep;
                if extra || (self.max_age > 0 && file.at < cutoff) {
                    fs::remove_file(&file.path)?;
                } else if self.compress && !file.compressed {
                    compress(&file.path)?;
                }
            }
            Ok(())
        });
        if let Err(error) = outcome {
            tracing::error!(%error, path = %self.path.display(), "old audit logs cannot be tidied up");
        }
    }
}

fn compress(path: &Path) -> io::Result<()> {
    let mut target = path.as_os_str().to_owned();
    target.push(COMPRESSED);
    let mut source = fs::File::open(path)?;
    let mode = source.metadata()?.permissions().mode();
    let file = OpenOptions::new().create(true).truncate(true).write(true).mode(mode).open(&target)?;
    let mut encoder = GzEncoder::new(file, Compression::default());
    let written = io::copy(&mut source, &mut encoder).and_then(|_| encoder.finish());
    if let Err(error) = written {
        let _ = fs::remove_file(&target);
        return Err(error);
    }
    fs::remove_file(path)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::sync::Arc;
    use std::time::Duration;

    use component_base::clock::FakeClock;

    use super::*;

    struct Bench {
        dir: tempfile::TempDir,
        clock: FakeClock,
        file: File,
    }

    fn bench(change: impl FnOnce(&mut LogOptions)) -> Bench {
        let dir = tempfile::tempdir().unwrap();
        let mut options = LogOptions::new(dir.path().join("logs/audit.log"));
        options.max_size = 1;
        change(&mut options);
        let clock = FakeClock::new("2026-01-02T03:04:05.678Z".parse().unwrap());
        let file = File::with_clock(&options, Arc::new(clock.clone())).unwrap();
        Bench { dir, clock, file }
    }

    impl Bench {
        /// A line of which two do not fit, and a second later.
        fn write(&mut self, letter: char) {
            let line = letter.to_string().repeat(600 * 1024) + "\n";
            self.file.write(line.as_bytes()).unwrap();
            self.clock.step(Duration::from_secs(1));
        }

        fn names(&self) -> Vec<String> {
            let folder = fs::read_dir(self.dir.path().join("logs")).unwrap();
            let mut names: Vec<String> =
                folder.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
            names.sort();
            names
        }

        fn first(&self, name: &str) -> char {
            let bytes = fs::read(self.dir.path().join("logs").join(name)).unwrap();
            bytes[0].into()
        }
    }

    #[test]
    fn a_full_file_is_put_aside() {
        let mut bench = bench(|options| options.max_backups = 2);
        "abcd".chars().for_each(|letter| bench.write(letter));
        let names = bench.names();
        // The first of three is gone.
        assert_eq!(names, ["audit-2026-01-02T03-04-07.678.log", "audit-2026-01-02T03-04-08.678.log", "audit.log"]);
        assert_eq!(names.iter().map(|name| bench.first(name)).collect::<String>(), "bcd");
        let mode = fs::metadata(bench.dir.path().join("logs/audit.log")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn old_files_are_compressed_and_leave_when_their_time_is_over() {
        let mut bench = bench(|options| {
            options.compress = true;
            options.max_age = 1;
        });
        bench.write('a');
        bench.write('b');
        assert_eq!(bench.names(), ["audit-2026-01-02T03-04-06.678.log.gz", "audit.log"]);
        let packed = fs::File::open(bench.dir.path().join("logs/audit-2026-01-02T03-04-06.678.log.gz")).unwrap();
        let mut text = String::new();
        flate2::read::GzDecoder::new(packed).read_to_string(&mut text).unwrap();
        assert_eq!(text.trim_end(), "a".repeat(600 * 1024));
        fs::write(bench.dir.path().join("logs/audit-mine.log"), "not ours").unwrap();
        bench.clock.step(Duration::from_secs(24 * 3600));
        bench.write('c');
        assert_eq!(bench.names(), ["audit-2026-01-03T03-04-07.678.log.gz", "audit-mine.log", "audit.log"]);
    }

    #[test]
    fn goes_on_where_it_was_and_refuses_what_never_fits() {
        let mut bench = bench(|_| {});
        bench.write('a');
        let path = bench.dir.path().join("logs/audit.log");
        let mut options = LogOptions::new(path.clone());
        options.max_size = 1;
        let mut again = File::open(&options).unwrap();
        let long = vec![b'x'; 1024 * 1024 + 1];
        assert_eq!(again.write(&long).unwrap_err(), "write length 1048577 exceeds maximum file size 1048576");
        again.write(b"b\n").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().len(), 600 * 1024 + 3);
        // Somebody else moved it away.
        fs::remove_file(&path).unwrap();
        again.open = None;
        again.write(b"c\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "c\n");
    }

    #[test]
    fn zero_never_rotates() {
        let mut bench = bench(|options| options.max_size = 0);
        "abcd".chars().for_each(|letter| bench.write(letter));
        assert_eq!(bench.names(), ["audit.log"]);
    }
}
