//! Archives as `tar` in a container writes and reads them: POSIX ustar, with GNU's and POSIX' long names.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

const BLOCK: usize = 512;

/// Writes a file or a folder with all below it into an archive, under `name`.
///
/// # Errors
/// When something cannot be read or written.
pub fn write(out: &mut impl Write, source: &Path, name: &str) -> io::Result<()> {
    add(out, source, name)?;
    out.write_all(&[0; 2 * BLOCK])
}

fn add(out: &mut impl Write, source: &Path, name: &str) -> io::Result<()> {
    let metadata = fs::symlink_metadata(source)?;
    let mode = metadata.permissions().mode() & 0o7777;
    if metadata.is_dir() {
        header(out, &format!("{}/", name.trim_end_matches('/')), b'5', mode, 0, metadata.mtime(), "")?;
        let mut entries: Vec<_> = fs::read_dir(source)?.collect::<Result<_, _>>()?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let below = format!("{}/{}", name.trim_end_matches('/'), entry.file_name().to_string_lossy());
            add(out, &entry.path(), &below)?;
        }
        return Ok(());
    }
    if metadata.is_symlink() {
        let target = fs::read_link(source)?;
        return header(out, name, b'2', mode, 0, metadata.mtime(), &target.to_string_lossy());
    }
    if !metadata.is_file() {
        return Ok(());
    }
    header(out, name, b'0', mode, metadata.len(), metadata.mtime(), "")?;
    let copied = io::copy(&mut fs::File::open(source)?.take(metadata.len()), out)?;
    if copied != metadata.len() {
        return Err(io::Error::other(format!("{} changed while it was read", source.display())));
    }
    pad(out, copied)
}

fn pad(out: &mut impl Write, length: u64) -> io::Result<()> {
    let over = usize::try_from(length % BLOCK as u64).unwrap_or(0);
    if over == 0 { Ok(()) } else { out.write_all(&vec![0; BLOCK - over]) }
}

fn header(out: &mut impl Write, name: &str, kind: u8, mode: u32, size: u64, time: i64, link: &str) -> io::Result<()> {
    for (text, kind) in [(name, b'L'), (link, b'K')] {
        if text.len() > 100 {
            // GNU's way, which busybox reads too: the whole text as a file of its own before.
            block(out, "././@LongLink", kind, 0, text.len() as u64 + 1, 0, "")?;
            out.write_all(text.as_bytes())?;
            out.write_all(&[0])?;
            pad(out, text.len() as u64 + 1)?;
        }
    }
    block(out, name, kind, mode, size, time, link)
}

fn block(out: &mut impl Write, name: &str, kind: u8, mode: u32, size: u64, time: i64, link: &str) -> io::Result<()> {
    let mut block = [0u8; BLOCK];
    let mut put = |at: usize, length: usize, bytes: &[u8]| {
        let length = length.min(bytes.len());
        block[at..at + length].copy_from_slice(&bytes[..length]);
    };
    put(0, 100, name.as_bytes());
    put(100, 8, format!("{mode:07o}\0").as_bytes());
    put(108, 8, b"0000000\0");
    put(116, 8, b"0000000\0");
    put(124, 12, format!("{size:011o}\0").as_bytes());
    put(136, 12, format!("{:011o}\0", time.max(0)).as_bytes());
    put(148, 8, b"        ");
    put(156, 1, &[kind]);
    put(157, 100, link.as_bytes());
    put(257, 8, b"ustar\x0000");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    out.write_all(&block)
}

/// Unpacks an archive: what it calls `prefix` becomes `destination`. Nothing is written outside of that,
/// and links are not made (upstream's kubectl refuses them for the same reason: they may lead anywhere).
///
/// # Errors
/// When the archive is broken or something cannot be written. `warn` hears of what was left out.
pub fn unpack(
    input: &mut impl Read,
    prefix: &str,
    destination: &Path,
    mut warn: impl FnMut(String),
) -> io::Result<usize> {
    let (mut long_name, mut long_link) = (None::<String>, None::<String>);
    let mut count = 0;
    loop {
        let mut block = [0u8; BLOCK];
        if !read_block(input, &mut block)? || block.iter().all(|byte| *byte == 0) {
            return Ok(count);
        }
        let entry = Entry::parse(&block)?;
        let name = long_name.take().unwrap_or(entry.name);
        let link = long_link.take().unwrap_or(entry.link);
        match entry.kind {
            b'L' => long_name = Some(text(input, entry.size)?),
            b'K' => long_link = Some(text(input, entry.size)?),
            b'x' => {
                let records = text(input, entry.size)?;
                long_name = record(&records, "path");
                long_link = record(&records, "linkpath");
            }
            b'g' => drop(text(input, entry.size)?),
            kind => {
                let Some(path) = place(&name, prefix, destination) else {
                    warn(format!("warning: file {name:?} is outside target destination, skipping"));
                    skip(input, entry.size + padding(entry.size))?;
                    continue;
                };
                count += 1;
                match kind {
                    b'5' => fs::create_dir_all(&path)?,
                    b'0' | 0 => {
                        if let Some(folder) = path.parent() {
                            fs::create_dir_all(folder)?;
                        }
                        let mut file = fs::File::create(&path)?;
                        let copied = io::copy(&mut input.take(entry.size), &mut file)?;
                        if copied != entry.size {
                            return Err(io::ErrorKind::UnexpectedEof.into());
                        }
                        file.set_permissions(fs::Permissions::from_mode(entry.mode & 0o777))?;
                        skip(input, padding(entry.size))?;
                    }
                    b'1' | b'2' => warn(format!("warning: skipping symlink: {:?} -> {link:?}", path.display())),
                    _ => skip(input, entry.size + padding(entry.size))?,
                }
            }
        }
    }
}

struct Entry {
    name: String,
    link: String,
    kind: u8,
    size: u64,
    mode: u32,
}

impl Entry {
    fn parse(block: &[u8; BLOCK]) -> io::Result<Self> {
        let text = |range: std::ops::Range<usize>| {
            let bytes = &block[range];
            let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
            String::from_utf8_lossy(&bytes[..end]).into_owned()
        };
        let bad = || io::Error::new(io::ErrorKind::InvalidData, "archive/tar: invalid tar header");
        let octal = |range: std::ops::Range<usize>| {
            let digits = text(range);
            match digits.trim() {
                "" => Ok(0),
                digits => u64::from_str_radix(digits, 8).map_err(|_| bad()),
            }
        };
        let sum: u64 = block
            .iter()
            .enumerate()
            .map(|(at, byte)| u64::from(if (148..156).contains(&at) { b' ' } else { *byte }))
            .sum();
        if octal(148..156)? != sum {
            return Err(bad());
        }
        let prefix = if &block[257..262] == b"ustar" && block[263] == b'0' { text(345..500) } else { String::new() };
        let name = text(0..100);
        Ok(Entry {
            name: if prefix.is_empty() { name } else { format!("{prefix}/{name}") },
            link: text(157..257),
            kind: block[156],
            size: octal(124..136)?,
            mode: u32::try_from(octal(100..108)?).unwrap_or(0o644),
        })
    }
}

/// Where an entry goes; `None` when its name leads out of the destination.
fn place(name: &str, prefix: &str, destination: &Path) -> Option<PathBuf> {
    let name = name.trim_start_matches('/').trim_start_matches("./");
    let prefix = prefix.trim_matches('/').trim_start_matches("./");
    let rest = match prefix {
        "" | "." => name,
        prefix => name.strip_prefix(prefix)?,
    };
    let rest = Path::new(rest.trim_start_matches('/'));
    let inside = rest.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    inside.then(|| if rest.as_os_str().is_empty() { destination.to_owned() } else { destination.join(rest) })
}

fn read_block(input: &mut impl Read, block: &mut [u8; BLOCK]) -> io::Result<bool> {
    let mut read = 0;
    while read < BLOCK {
        match input.read(&mut block[read..])? {
            0 if read == 0 => return Ok(false),
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => read += count,
        }
    }
    Ok(true)
}

fn padding(size: u64) -> u64 {
    (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64
}

fn skip(input: &mut impl Read, count: u64) -> io::Result<()> {
    io::copy(&mut input.take(count), &mut io::sink()).map(drop)
}

/// A name that is too long for a header; a bound keeps a broken archive from filling the memory.
fn text(input: &mut impl Read, size: u64) -> io::Result<String> {
    if size > 1 << 20 {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "archive/tar: header field too long"));
    }
    let mut bytes = vec![0; usize::try_from(size).unwrap_or(0)];
    input.read_exact(&mut bytes)?;
    skip(input, padding(size))?;
    while bytes.last() == Some(&0) {
        bytes.pop();
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// A value of POSIX' extended header: `LENGTH KEY=VALUE\n` each.
fn record(records: &str, key: &str) -> Option<String> {
    records.lines().find_map(|line| line.split_once(' ')?.1.strip_prefix(key)?.strip_prefix('=').map(str::to_owned))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_comes_back_as_it_was() {
        let source = tempfile::tempdir().unwrap();
        let long = "n".repeat(120);
        fs::create_dir_all(source.path().join("sub")).unwrap();
        fs::write(source.path().join("sub/a"), "one").unwrap();
        fs::write(source.path().join(&long), vec![7u8; 1500]).unwrap();
        fs::set_permissions(source.path().join("sub/a"), fs::Permissions::from_mode(0o755)).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", source.path().join("link")).unwrap();
        let mut archive = Vec::new();
        write(&mut archive, source.path(), "top").unwrap();
        assert_eq!(archive.len() % BLOCK, 0);
        let target = tempfile::tempdir().unwrap();
        let mut warned = Vec::new();
        unpack(&mut archive.as_slice(), "top", &target.path().join("new"), |text| warned.push(text)).unwrap();
        let new = target.path().join("new");
        assert_eq!(fs::read_to_string(new.join("sub/a")).unwrap(), "one");
        assert_eq!(fs::metadata(new.join("sub/a")).unwrap().permissions().mode() & 0o777, 0o755);
        assert_eq!(fs::read(new.join(&long)).unwrap().len(), 1500);
        assert!(!new.join("link").exists() && warned[0].contains("skipping symlink"), "{warned:?}");
    }

    #[test]
    fn what_leads_out_is_left_out() {
        let target = tempfile::tempdir().unwrap();
        let mut archive = Vec::new();
        header(&mut archive, "top/../../evil", b'0', 0o644, 1, 0, "").unwrap();
        archive.extend_from_slice(b"x");
        pad(&mut archive, 1).unwrap();
        let mut warned = Vec::new();
        unpack(&mut archive.as_slice(), "top", &target.path().join("new"), |text| warned.push(text)).unwrap();
        assert!(warned[0].contains("outside target destination"));
        assert!(!target.path().join("evil").exists());
        assert_eq!(place("etc/../x", "etc", Path::new("/d")), None);
        assert_eq!(place("./etc/x", "/etc", Path::new("/d")), Some("/d/x".into()));
    }

    #[test]
    fn broken_headers_are_refused() {
        let target = tempfile::tempdir().unwrap();
        assert!(unpack(&mut [1u8; BLOCK].as_slice(), "", target.path(), |_| {}).is_err());
        assert!(unpack(&mut [1u8; 7].as_slice(), "", target.path(), |_| {}).is_err());
    }
}
