//! Keeps container logs within bounds (`containerLogMaxSize`, `containerLogMaxFiles`).
//!
//! A log that has grown too large is renamed with a time stamp and the runtime is told to open a new
//! one; older ones beyond the count are removed. Rotated files are left uncompressed.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;

use crate::cri::Runtime;

/// How large and how many.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// Bytes after which a log is rotated.
    pub max_size: u64,
    /// Files kept per container, the current one included.
    pub max_files: usize,
}

/// Rotates one container's log if it is due.
pub async fn rotate(
    runtime: &Arc<dyn Runtime>,
    id: &str,
    log: &Path,
    policy: Policy,
    now: Timestamp,
) -> std::io::Result<bool> {
    let Ok(metadata) = tokio::fs::metadata(log).await else { return Ok(false) };
    if metadata.len() <= policy.max_size {
        return Ok(false);
    }
    let mut rotated = rotated_files(log)?;
    // After this rotation there are one more rotated file and a fresh current one.
    while !rotated.is_empty() && rotated.len() + 2 > policy.max_files {
        tokio::fs::remove_file(rotated.remove(0)).await?;
    }
    let stamp = now.strftime("%Y%m%d-%H%M%S");
    let target = PathBuf::from(format!("{}.{stamp}", log.display()));
    tokio::fs::rename(log, &target).await?;
    if let Err(error) = runtime.reopen_container_log(id).await {
        // The runtime still writes to the renamed file: put it back so that nothing is hidden.
        tokio::fs::rename(&target, log).await?;
        return Err(std::io::Error::other(error));
    }
    Ok(true)
}

/// The rotated files of a log, oldest first.
pub fn rotated_files(log: &Path) -> std::io::Result<Vec<PathBuf>> {
    let (Some(directory), Some(name)) = (log.parent(), log.file_name().and_then(|n| n.to_str())) else {
        return Ok(Vec::new());
    };
    let prefix = format!("{name}.");
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_name().to_str().is_some_and(|n| n.starts_with(&prefix)) {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cri::fake::FakeRuntime;

    #[tokio::test]
    async fn keeps_at_most_the_given_number_of_files() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("0.log");
        let fake = FakeRuntime::default();
        let runtime: Arc<dyn Runtime> = Arc::new(fake.clone());
        let policy = Policy { max_size: 4, max_files: 3 };
        for i in 0..5 {
            std::fs::write(&log, format!("log number {i}")).unwrap();
            let now = Timestamp::from_second(1_000_000 + i).unwrap();
            assert!(rotate(&runtime, "c", &log, policy, now).await.unwrap());
            assert!(!log.exists());
        }
        let left = rotated_files(&log).unwrap();
        assert_eq!(left.len(), 2);
        assert_eq!(std::fs::read_to_string(&left[1]).unwrap(), "log number 4");
        std::fs::write(&log, "log").unwrap();
        assert!(!rotate(&runtime, "c", &log, policy, Timestamp::now()).await.unwrap());
        std::fs::write(&log, "too long").unwrap();
        fake.fail_next("ReopenContainerLog", "no");
        assert!(rotate(&runtime, "c", &log, policy, Timestamp::now()).await.is_err());
        assert!(log.exists());
    }
}
