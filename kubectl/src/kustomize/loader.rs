//! Files below a root, and the chain of roots that led there.

use std::path::{Component, Path, PathBuf};

use super::{Error, Result};
use crate::error::os_reason as reason;

/// Where files that a kustomization names may lie.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Restriction {
    /// In the root or below.
    #[default]
    RootOnly,
    /// Anywhere.
    None,
}

/// Reads what the kustomization of one folder names.
#[derive(Debug, Clone)]
pub struct Loader {
    root: PathBuf,
    /// The roots by which this one was reached, nearest last.
    visited: Vec<PathBuf>,
    restriction: Restriction,
}

impl Loader {
    /// At the folder a command names.
    ///
    /// # Errors
    /// When it is no folder.
    pub fn new(folder: &Path, restriction: Restriction) -> Result<Self> {
        if is_remote(&folder.to_string_lossy()) {
            return Err(remote(&folder.to_string_lossy()));
        }
        let root = confirm(folder)?;
        Ok(Loader { root, visited: Vec::new(), restriction })
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// At another folder that this one's kustomization names.
    ///
    /// # Errors
    /// When it is no folder, or leads back to where this came from.
    pub fn at(&self, path: &str) -> Result<Self> {
        if path.is_empty() {
            return Err(Error::new("new root cannot be empty"));
        }
        if is_remote(path) {
            return Err(remote(path));
        }
        if Path::new(path).is_absolute() {
            return Err(Error::new(format!("new root '{path}' cannot be absolute")));
        }
        let root = confirm(&clean(&self.root.join(path))).map_err(|error| error.wrap("must build at directory"))?;
        for visited in std::iter::once(&self.root).chain(self.visited.iter().rev()) {
            if visited.starts_with(&root) {
                return Err(Error::new(format!(
                    "cycle detected: candidate root '{}' contains visited root '{}'",
                    root.display(),
                    visited.display()
                )));
            }
        }
        let mut visited = self.visited.clone();
        visited.push(self.root.clone());
        Ok(Loader { root, visited, restriction: self.restriction })
    }

    /// A file's bytes.
    ///
    /// # Errors
    /// When it cannot be read, or lies where it may not.
    pub fn bytes(&self, path: &str) -> Result<Vec<u8>> {
        if path.starts_with("http://") || path.starts_with("https://") {
            return Err(remote(path));
        }
        let path = clean(&self.root.join(path));
        let failed = |error: &std::io::Error| Error::new(format!("open {}: {}", path.display(), reason(error)));
        if self.restriction == Restriction::RootOnly
            && let Ok(real) = path.canonicalize()
            && !real.starts_with(&self.root)
        {
            return Err(Error::new(format!(
                "security; file '{}' is not in or below '{}'",
                real.display(),
                self.root.display()
            )));
        }
        if path.is_dir() {
            return Err(Error::new(format!("'{}' must resolve to a file", path.display())));
        }
        std::fs::read(&path).map_err(|error| {
            if self.restriction == Restriction::RootOnly && error.kind() == std::io::ErrorKind::NotFound {
                return Error::new(format!(
                    "evalsymlink failure on '{}' : lstat {}: {}",
                    path.display(),
                    first_missing(&path).display(),
                    reason(&error)
                ));
            }
            failed(&error)
        })
    }

    /// A file's text.
    ///
    /// # Errors
    /// As [`Loader::bytes`], or when it is not UTF-8.
    pub fn text(&self, path: &str) -> Result<String> {
        String::from_utf8(self.bytes(path)?).map_err(|error| Error::new(format!("{path}: {error}")))
    }
}

fn is_remote(path: &str) -> bool {
    let schemes = ["http://", "https://", "ssh://", "git::", "git@", "file://"];
    schemes.iter().any(|scheme| path.starts_with(scheme))
        || path.starts_with("github.com/")
        || path.contains(".git?")
        || path.ends_with(".git")
}

fn remote(path: &str) -> Error {
    Error::new(format!("reading from {path:?}: remote resources are not supported"))
}

fn confirm(path: &Path) -> Result<PathBuf> {
    let shown = path.display();
    let real = path.canonicalize().map_err(|error| {
        Error::new(format!(
            "not a valid directory: evalsymlink failure on '{shown}' : lstat {}: {}",
            first_missing(path).display(),
            reason(&error)
        ))
    })?;
    if real.is_dir() {
        return Ok(real);
    }
    Err(Error::new(format!("'{shown}': file is not directory")))
}

/// The first part of a path that is not there.
fn first_missing(path: &Path) -> &Path {
    let missing = path.ancestors().take_while(|part| part.symlink_metadata().is_err());
    missing.last().unwrap_or(path)
}

/// The path without `.` and `..`, as Go's `filepath.Clean` leaves it.
fn clean(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                if !out.pop() {
                    out.push("..");
                }
            }
            other => out.push(other),
        }
    }
    out
}
