//! Running other programs: one place that turns a failed command into an error that says which
//! command it was and what it printed.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use tokio::process::Command;

/// A command that could not be run, or that failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The program is not there or may not be executed: install it.
    #[error("cannot run {program}")]
    Start { program: String, source: std::io::Error },
    /// It ran and said no; the message holds its own words.
    #[error("{command}: {status}{output}")]
    Failed { command: String, status: std::process::ExitStatus, output: String },
}

/// Runs `program` to its end and gives what it wrote to its standard output.
pub async fn run<I, S>(program: &str, args: I) -> Result<String, Error>
where
    I: IntoIterator<Item = S>,
    S: AsRef<OsStr>,
{
    let mut command = Command::new(program);
    command.args(args).stdin(std::process::Stdio::null()).kill_on_drop(true);
    output(command).await
}

/// As [`run`], with the words in one string; none of them may hold a space.
pub async fn words(line: &str) -> Result<String, Error> {
    let mut words = line.split_whitespace();
    run(words.next().unwrap_or_default(), words).await
}

/// Runs a prepared command to its end.
pub async fn output(mut command: Command) -> Result<String, Error> {
    let text = describe(&command);
    let done = command.output().await.map_err(|source| Error::Start { program: text.clone(), source })?;
    if done.status.success() {
        return Ok(String::from_utf8_lossy(&done.stdout).into_owned());
    }
    let mut said = String::from_utf8_lossy(&done.stderr).trim().to_owned();
    if said.is_empty() {
        said = String::from_utf8_lossy(&done.stdout).trim().to_owned();
    }
    let output = if said.is_empty() { String::new() } else { format!(": {said}") };
    Err(Error::Failed { command: text, status: done.status, output })
}

/// Like [`words`] for undoing: a failure only means that there was nothing to undo.
pub async fn undo(line: &str) {
    if let Err(error) = words(line).await {
        tracing::debug!(%error, "nothing to undo");
    }
}

/// Finds a program on the path, as a shell would.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        // Debian keeps network tools out of users' paths.
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|dir| dir.join(program))
        .find(|file| is_program(file))
}

fn is_program(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(file).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}

fn describe(command: &Command) -> String {
    let command = command.as_std();
    let mut text = command.get_program().to_string_lossy().into_owned();
    for arg in command.get_args() {
        text.push(' ');
        text.push_str(&arg.to_string_lossy());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_failure_names_the_command_and_its_words() {
        let error = run("sh", ["-c", "echo no such thing >&2; exit 3"]).await.expect_err("it exits with 3");
        let text = error.to_string();
        assert!(text.contains("sh -c") && text.contains("no such thing") && text.contains('3'), "{text}");
    }

    #[tokio::test]
    async fn a_missing_program_is_named() {
        let error = words("keelson-no-such-program x").await.expect_err("there is no such program");
        assert!(error.to_string().contains("keelson-no-such-program"));
    }
}
