//! Replaces the files of a volume all at once: readers see the old set or the new one, never a mix.
//!
//! Layout, as upstream's `AtomicWriter`: files live in a time-stamped directory, `..data` points at it,
//! and each visible name is a link through `..data`. An update writes a new directory and renames one
//! link.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};

const DATA: &str = "..data";
const DATA_TMP: &str = "..data_tmp";

/// One file to be: contents, permission bits, owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    pub data: Vec<u8>,
    pub mode: u32,
    /// The user who owns the file; root when `None`.
    pub uid: Option<u32>,
}

/// Files by path relative to the volume.
pub type Payload = BTreeMap<String, File>;

/// Makes `target` hold exactly `payload`; says whether anything changed. `prepare` gets the new
/// directory before it becomes visible, to set its ownership.
pub fn write(
    target: &Path,
    payload: &Payload,
    stamp: &str,
    prepare: impl Fn(&Path) -> io::Result<()>,
) -> io::Result<bool> {
    for path in payload.keys() {
        validate(path)?;
    }
    let old = fs::read_link(target.join(DATA)).ok();
    let old_dir = old.as_ref().map(|name| target.join(name));
    if let Some(dir) = &old_dir
        && same(dir, payload)?
    {
        // A crash may have come between the swap and the links: put them right again.
        link_visible(target, payload)?;
        return Ok(false);
    }
    let name = format!("..{stamp}");
    let fresh = target.join(&name);
    fs::DirBuilder::new().mode(0o755).create(&fresh)?;
    fs::set_permissions(&fresh, fs::Permissions::from_mode(0o755))?;
    for (path, file) in payload {
        let full = fresh.join(path);
        if let Some(parent) = full.parent() {
            fs::create_dir_all(parent)?;
        }
        let mut handle = fs::OpenOptions::new().write(true).create_new(true).mode(file.mode).open(&full)?;
        io::Write::write_all(&mut handle, &file.data)?;
        // The mode given to open is subject to the umask.
        handle.set_permissions(fs::Permissions::from_mode(file.mode))?;
        if let Some(uid) = file.uid {
            std::os::unix::fs::chown(&full, Some(uid), None)?;
        }
    }
    prepare(&fresh)?;
    let temporary = target.join(DATA_TMP);
    let _ = fs::remove_file(&temporary);
    symlink(&name, &temporary)?;
    fs::rename(&temporary, target.join(DATA))?;
    link_visible(target, payload)?;
    if let Some(dir) = old_dir {
        fs::remove_dir_all(dir).or_else(|e| if e.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(e) })?;
    }
    Ok(true)
}

fn validate(path: &str) -> io::Result<()> {
    let parts: Vec<_> = Path::new(path).components().collect();
    let plain = !parts.is_empty() && parts.iter().all(|part| matches!(part, Component::Normal(_)));
    if !plain || path.starts_with("..") || path.len() > 4096 {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("invalid path: {path:?}")));
    }
    Ok(())
}

/// Links every first path component, and removes the links that lead nowhere any more.
fn link_visible(target: &Path, payload: &Payload) -> io::Result<()> {
    let wanted: BTreeSet<&str> = payload.keys().filter_map(|path| path.split('/').next()).collect();
    for name in &wanted {
        let link = target.join(name);
        if fs::symlink_metadata(&link).is_err() {
            symlink(Path::new(DATA).join(name), &link)?;
        }
    }
    for entry in fs::read_dir(target)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if !name.starts_with("..") && !wanted.contains(name.as_ref()) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn same(directory: &Path, payload: &Payload) -> io::Result<bool> {
    let mut present = BTreeSet::new();
    if let Err(error) = walk(directory, directory, &mut present) {
        return if error.kind() == io::ErrorKind::NotFound { Ok(false) } else { Err(error) };
    }
    if present.len() != payload.len() {
        return Ok(false);
    }
    for (path, file) in payload {
        if !present.contains(Path::new(path)) || fs::read(directory.join(path))? != file.data {
            return Ok(false);
        }
    }
    Ok(true)
}

fn walk(root: &Path, directory: &Path, out: &mut BTreeSet<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            walk(root, &entry.path(), out)?;
        } else if let Ok(relative) = entry.path().strip_prefix(root) {
            out.insert(relative.to_owned());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(files: &[(&str, &str)]) -> Payload {
        files
            .iter()
            .map(|(p, d)| (p.to_string(), File { data: d.as_bytes().to_vec(), mode: 0o644, uid: None }))
            .collect()
    }

    fn visible(target: &Path) -> Vec<(String, String)> {
        let mut paths = BTreeSet::new();
        for entry in fs::read_dir(target).unwrap().flatten() {
            let name = entry.file_name().into_string().unwrap();
            if !name.starts_with("..") {
                let full = entry.path();
                if full.is_dir() {
                    walk(target, &full, &mut paths).unwrap();
                } else {
                    paths.insert(PathBuf::from(name));
                }
            }
        }
        paths
            .into_iter()
            .map(|p| (p.to_str().unwrap().to_owned(), fs::read_to_string(target.join(&p)).unwrap()))
            .collect()
    }

    fn pairs(files: &[(&str, &str)]) -> Vec<(String, String)> {
        files.iter().map(|(a, b)| (a.to_string(), b.to_string())).collect()
    }

    #[test]
    fn updates_replace_the_whole_set() {
        let directory = tempfile::tempdir().unwrap();
        let target = directory.path();
        let none = |_: &Path| Ok(());
        let steps: &[&[(&str, &str)]] =
            &[&[("a", "1"), ("b", "2")], &[("a", "1"), ("d/e/f", "x"), ("d/g", "y")], &[("d", "now a file")], &[]];
        for (index, step) in steps.iter().enumerate() {
            let files = payload(step);
            assert!(write(target, &files, &format!("stamp{index}"), none).unwrap());
            assert_eq!(visible(target), pairs(step));
            assert!(!write(target, &files, "unused", none).unwrap(), "a second write changes nothing");
            let stamps = fs::read_dir(target).unwrap().flatten().filter(|e| e.file_type().unwrap().is_dir()).count();
            assert_eq!(stamps, 1, "old directories are gone");
        }
    }

    #[test]
    fn a_crash_before_the_links_is_repaired() {
        let directory = tempfile::tempdir().unwrap();
        let target = directory.path();
        write(target, &payload(&[("a", "1")]), "s", |_| Ok(())).unwrap();
        fs::remove_file(target.join("a")).unwrap();
        assert!(!write(target, &payload(&[("a", "1")]), "t", |_| Ok(())).unwrap());
        assert_eq!(visible(target), pairs(&[("a", "1")]));
    }

    #[test]
    fn paths_cannot_leave_the_volume() {
        let directory = tempfile::tempdir().unwrap();
        for path in ["../x", "/etc/passwd", "..data", "a/../b", ""] {
            let error = write(directory.path(), &payload(&[(path, "x")]), "s", |_| Ok(())).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{path}");
        }
    }

    #[test]
    fn modes_are_exact() {
        let directory = tempfile::tempdir().unwrap();
        let files = Payload::from([("k".to_owned(), File { data: b"v".to_vec(), mode: 0o406, uid: None })]);
        write(directory.path(), &files, "s", |_| Ok(())).unwrap();
        assert_eq!(fs::metadata(directory.path().join("k")).unwrap().permissions().mode() & 0o777, 0o406);
    }
}
