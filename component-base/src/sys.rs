//! The one thing that no library does without `unsafe`: giving back pages of this program's own code.
#![allow(unsafe_code)]

use std::io;

/// Unmaps the pages of this program's code, which the kernel maps again, one after another, as they are run.
///
/// # Errors
/// When the kernel does not say what is mapped, or refuses.
pub fn release_code() -> io::Result<()> {
    let program = std::env::current_exe()?;
    let program = program.to_string_lossy();
    for line in std::fs::read_to_string("/proc/self/maps")?.lines() {
        let Some((start, length)) = code(line, &program) else { continue };
        // SAFETY: the range is a private mapping of a file that nothing can have written to: it is executable and
        // not writable. Its pages are those of the file, so forgetting them loses nothing; whoever runs or reads
        // one of them meanwhile waits until it is mapped again.
        if unsafe { libc::madvise(start as *mut libc::c_void, length, libc::MADV_DONTNEED) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Start and length of a mapping, if it is code of `program`: readable, executable, not writable, private.
///
/// Data that the loader has relocated is not writable either, but its pages are no longer the file's.
fn code(line: &str, program: &str) -> Option<(usize, usize)> {
    let mut words = line.split_ascii_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    if words.next()? != "r-xp" || words.nth(3)? != program || words.next().is_some() {
        return None;
    }
    let (start, end) = (usize::from_str_radix(start, 16).ok()?, usize::from_str_radix(end, 16).ok()?);
    Some((start, end.checked_sub(start)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_code_of_the_program_is_given_back() {
        for (line, want) in [
            ("5500-7500 r-xp 00001000 fe:00 42                         /bin/server", Some((0x5500, 0x2000))),
            ("5500-7500 r--p 00001000 fe:00 42                         /bin/server", None),
            ("5500-7500 rwxp 00001000 fe:00 42                         /bin/server", None),
            ("5500-7500 r-xp 00001000 fe:00 42                         /lib/libc.so.6", None),
            ("5500-7500 r-xp 00001000 fe:00 42                         /bin/server (deleted)", None),
            ("7ffe-8000 r-xp 00000000 00:00 0                          [vdso]", None),
            ("7ffe-8000 r-xp 00000000 00:00 0", None),
            ("", None),
        ] {
            assert_eq!(code(line, "/bin/server"), want, "{line}");
        }
    }

    #[test]
    fn what_was_given_back_still_runs() {
        release_code().expect("this program's code is its own");
        assert_eq!("5500-7500".split_once('-'), Some(("5500", "7500")));
    }
}
