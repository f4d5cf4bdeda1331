//! `fsGroup`: gives a volume's files to a group that may read them, and write them where the volume is
//! not read-only.

use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown};
use std::path::Path;

const GROUP_RW: u32 = 0o660;
const GROUP_R: u32 = 0o440;
const GROUP_EXEC: u32 = 0o110;
const SET_GID: u32 = 0o2000;

/// Gives everything below `path` to `group`. Links are owned, not followed.
pub fn give(path: &Path, group: i64, read_only: bool) -> io::Result<()> {
    let group =
        u32::try_from(group).map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "fsGroup is out of range"))?;
    walk(path, group, if read_only { GROUP_R } else { GROUP_RW })
}

/// Whether the top of the volume already has the group and bits that [`give`] would set.
pub fn root_matches(path: &Path, group: i64) -> io::Result<bool> {
    let metadata = std::fs::metadata(path)?;
    let wanted = GROUP_RW | GROUP_EXEC | SET_GID;
    Ok(i64::from(metadata.gid()) == group && metadata.mode() & wanted == wanted)
}

fn walk(path: &Path, group: u32, bits: u32) -> io::Result<()> {
    let metadata = std::fs::symlink_metadata(path)?;
    lchown(path, None, Some(group))?;
    if metadata.is_symlink() {
        return Ok(());
    }
    let mut mode = metadata.mode() & 0o7777 | bits;
    if metadata.is_dir() {
        mode |= GROUP_EXEC | SET_GID;
    }
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    if metadata.is_dir() {
        for entry in std::fs::read_dir(path)? {
            walk(&entry?.path(), group, bits)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_get_access() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("f");
        std::fs::write(&file, "x").unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        let group = i64::from(std::fs::metadata(&file).unwrap().gid());
        give(directory.path(), group, false).unwrap();
        assert_eq!(std::fs::metadata(&file).unwrap().mode() & 0o777, 0o660);
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o400)).unwrap();
        give(&file, group, true).unwrap();
        assert_eq!(std::fs::metadata(&file).unwrap().mode() & 0o777, 0o440);
        assert!(root_matches(directory.path(), group).unwrap());
        assert!(give(directory.path(), -1, false).is_err());
    }
}
