//! Pairs of certificate and key on the disk, each in one file, and a link to the newest, as a kubelet keeps its own.
//! Upstream: `client-go/util/certificate`.

use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::{Facts, Pair, facts, write_file};

/// The certificates of one purpose.
#[derive(Clone, Debug)]
pub struct Store {
    dir: PathBuf,
    base: &'static str,
}

impl Store {
    /// `base` is `kubelet-client` or `kubelet-server`.
    pub fn new(dir: &Path, base: &'static str) -> Self {
        Self { dir: dir.into(), base }
    }

    /// The link to the newest pair.
    pub fn current_path(&self) -> PathBuf {
        self.dir.join(format!("{}-current.pem", self.base))
    }

    /// The newest pair; `None` when there is none that can be read.
    pub fn current(&self) -> Option<Pair> {
        let text = std::fs::read_to_string(self.current_path()).ok()?;
        let (mut cert_pem, mut key_pem) = (String::new(), String::new());
        for block in text.split("-----BEGIN ").skip(1) {
            let into = if block.starts_with("CERTIFICATE") { &mut cert_pem } else { &mut key_pem };
            into.push_str("-----BEGIN ");
            into.push_str(block);
        }
        (!cert_pem.is_empty() && !key_pem.is_empty()).then_some(Pair { cert_pem, key_pem })
    }

    /// What the newest certificate says, if it is good now.
    pub fn valid(&self, now: Timestamp) -> Option<Facts> {
        let facts = facts(&self.current()?.cert_pem).ok()?;
        (now < facts.not_after).then_some(facts)
    }

    /// Keeps a pair and makes it the newest, in one step for readers.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn update(&self, pair: &Pair, now: Timestamp) -> std::io::Result<()> {
        let stamp = now.strftime("%Y-%m-%d-%H-%M-%S").to_string();
        let name = format!("{}-{stamp}.pem", self.base);
        let text = format!("{}\n{}\n", pair.cert_pem.trim_end(), pair.key_pem.trim_end());
        write_file(&self.dir.join(&name), &text, 0o600).map_err(std::io::Error::other)?;
        let fresh = self.dir.join(format!("{}-updated.pem", self.base));
        match std::fs::remove_file(&fresh) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        std::os::unix::fs::symlink(&name, &fresh)?;
        std::fs::rename(&fresh, self.current_path())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::{Ca, Profile};

    #[test]
    fn the_newest_is_linked() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new(dir.path(), "kubelet-client");
        let now = Timestamp::now();
        assert!(store.current().is_none());
        let ca = Ca::new("kubernetes").unwrap();
        for second in 0..2 {
            let pair = ca.issue(&Profile::client("system:node:a", &["system:nodes"])).unwrap();
            store.update(&pair, now + jiff::SignedDuration::from_secs(second)).unwrap();
            let read = store.current().unwrap();
            crate::tls::ClientCert::from_pair(&read).expect("they fit together");
            assert_eq!(read.key_pem.trim(), pair.key_pem.trim());
            crate::tls::ClientCert::from_files(&store.current_path(), &store.current_path()).unwrap();
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 3);
        assert_eq!(store.valid(now).unwrap().common_name, "system:node:a");
        assert!(store.valid(now + jiff::SignedDuration::from_hours(24 * 366)).is_none());
    }
}
