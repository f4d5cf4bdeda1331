//! Plugins: programs called `kubectl-…` in the PATH are commands too, and `kubectl plugin list` names them.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};

use futures::FutureExt;

use crate::command::{Command, Context};
use crate::error::{Error, Result};
use crate::flags::Flag;

const PREFIX: &str = "kubectl-";

/// `kubectl plugin`.
pub const COMMAND: Command = Command::group(
    "plugin",
    "Provides utilities for interacting with plugins.",
    &[Command::new(
        "list",
        "List all visible plugin executables on a user's PATH.",
        "",
        &[&[Flag::bool(
            "name-only",
            "If true, display only the binary name of each plugin, rather than its full path",
        )]],
        |ctx| std::future::ready(list(ctx)).boxed_local(),
    )],
);

fn folders() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).filter(|folder| !folder.as_os_str().is_empty()).collect()
}

fn is_executable(path: &Path) -> bool {
    path.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

fn list(ctx: &Context) -> Result<()> {
    let mut found: Vec<PathBuf> = Vec::new();
    let mut warnings = Vec::new();
    for folder in folders() {
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
        paths.sort();
        for path in paths {
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            if !name.starts_with(PREFIX) || path.is_dir() {
                continue;
            }
            if !is_executable(&path) {
                warnings.push(format!(
                    "warning: {} identified as a kubectl plugin, but it is not executable",
                    path.display()
                ));
            } else if let Some(first) = found.iter().find(|known| known.file_name() == path.file_name()) {
                warnings.push(format!(
                    "warning: {} is overshadowed by a similarly named plugin: {}",
                    path.display(),
                    first.display()
                ));
            }
            found.push(path);
        }
    }
    if found.is_empty() {
        return Err(Error::message("unable to find any kubectl plugins in your PATH"));
    }
    ctx.streams.out.line("The following compatible plugins are available:\n");
    for path in &found {
        let shown = if ctx.parsed.bool("name-only") { path.file_name().map(Path::new).unwrap_or(path) } else { path };
        ctx.streams.out.line(&shown.display().to_string());
    }
    for warning in &warnings {
        ctx.streams.err.line(&format!("  - {warning}"));
    }
    match warnings.len() {
        0 => Ok(()),
        1 => Err(Error::message("one plugin warning was found")),
        many => Err(Error::message(format!("{many} plugin warnings were found"))),
    }
}

/// The longest plugin that the first words of a command line name, and how many words those are.
fn find(args: &[String], executable: impl Fn(&str) -> Option<PathBuf>) -> Option<(PathBuf, usize)> {
    let words: Vec<String> =
        args.iter().take_while(|arg| !arg.starts_with('-')).map(|arg| arg.replace('-', "_")).collect();
    (1..=words.len())
        .rev()
        .find_map(|count| Some((executable(&format!("{PREFIX}{}", words[..count].join("-")))?, count)))
}

/// Becomes the plugin that a command line names; returns only when there is none, or it cannot be started.
///
/// # Errors
/// When it cannot be started.
pub fn run(args: &[String]) -> Result<()> {
    let executable =
        |name: &str| folders().into_iter().map(|folder| folder.join(name)).find(|path| is_executable(path));
    let Some((path, words)) = find(args, executable) else { return Ok(()) };
    Err(std::process::Command::new(path).args(&args[words..]).exec().into())
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::find;

    #[test]
    fn the_longest_name_wins() {
        let args = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let known = ["kubectl-foo", "kubectl-foo-bar_baz"];
        let executable = |name: &str| known.contains(&name).then(|| PathBuf::from(name));
        let found = |line: &str| find(&args(line), executable).map(|(path, count)| (path.display().to_string(), count));
        assert_eq!(found("foo x"), Some(("kubectl-foo".into(), 1)));
        assert_eq!(found("foo bar-baz y"), Some(("kubectl-foo-bar_baz".into(), 2)));
        assert_eq!(found("foo --flag bar-baz"), Some(("kubectl-foo".into(), 1)));
        assert_eq!(found("nope"), None);
    }
}
