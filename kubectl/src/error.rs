//! What can go wrong in a command, and how it is told: the text on standard error and the exit code.
//!
//! The texts are upstream's, because scripts match them: `Error from server (NotFound): …` for what
//! the API answered, `error: …` for what went wrong on this side.

use std::fmt;

use serde_json::Value;

/// The result of everything a command does.
pub type Result<T> = std::result::Result<T, Error>;

/// A command's failure.
#[derive(Debug, Clone)]
pub enum Error {
    /// The API answered with a Status. `context` is put before its message: `error when creating "f.yaml": `.
    Api {
        /// The Status object.
        status: Value,
        /// Prefix of the message.
        context: String,
    },
    /// The server could not be reached or broke off.
    Transport {
        /// `host:port` of the server.
        host: String,
        /// What the transport said.
        message: String,
        /// Nobody listens there.
        refused: bool,
    },
    /// No resource of that name is served.
    NoMatch {
        /// What was asked for.
        resource: String,
        /// Its group, when one was given.
        group: String,
        /// Its version, when one was given.
        version: String,
    },
    /// Anything said in one line on this side.
    Message(String),
    /// Told as it is, without the `error: ` prefix.
    Plain(String),
    /// Several failures of one command.
    Aggregate(Vec<Error>),
    /// A command in a container ended with this code, which becomes ours.
    Terminated(u8),
    /// Already told; only the exit code is left.
    Exit(u8),
}

impl Error {
    /// An error of this side with a text.
    pub fn message(text: impl Into<String>) -> Self {
        Error::Message(text.into())
    }

    /// An answer of the API.
    pub fn api(status: Value) -> Self {
        Error::Api { status, context: String::new() }
    }

    /// Many become an aggregate, one stays itself, none is success.
    pub fn aggregate(mut errors: Vec<Error>) -> Result<()> {
        match errors.len() {
            0 => Ok(()),
            1 => Err(errors.remove(0)),
            _ => Err(Error::Aggregate(errors)),
        }
    }

    /// Says what was being done with which file: `error when creating "f.yaml": …`.
    #[must_use]
    pub fn when(self, verb: &str, source: &str) -> Self {
        if source.is_empty() {
            return self;
        }
        let prefix = format!("error when {verb} {source:?}: ");
        match self {
            Error::Api { status, context } => Error::Api { status, context: format!("{prefix}{context}") },
            other => Error::Message(format!("{prefix}{other}")),
        }
    }

    /// The reason of the API's Status, "" for other errors.
    pub fn reason(&self) -> &str {
        match self {
            Error::Api { status, .. } => status.get("reason").and_then(Value::as_str).unwrap_or(""),
            _ => "",
        }
    }

    /// The object does not exist.
    pub fn is_not_found(&self) -> bool {
        self.reason() == "NotFound"
    }

    /// Somebody else changed the object meanwhile.
    pub fn is_conflict(&self) -> bool {
        self.reason() == "Conflict"
    }

    /// The object exists already.
    pub fn is_already_exists(&self) -> bool {
        self.reason() == "AlreadyExists"
    }

    /// What to print on standard error (without the final newline where upstream adds it) and the exit code.
    pub fn report(&self) -> (String, u8) {
        match self {
            Error::Exit(code) => (String::new(), *code),
            Error::Terminated(code) => (self.to_string(), *code),
            Error::Aggregate(errors) => {
                let lines: Vec<String> = errors.iter().map(Error::line).collect();
                (lines.join("\n"), 1)
            }
            Error::Api { status, .. } if self.reason() == "Invalid" => (invalid(status), 1),
            other => (other.standard().unwrap_or_else(|| prefixed(&other.to_string())), 1),
        }
    }

    fn standard(&self) -> Option<String> {
        match self {
            Error::Api { status, context } => {
                let message = status.get("message").and_then(Value::as_str).unwrap_or("");
                Some(match self.reason() {
                    "Unauthorized" => format!("error: You must be logged in to the server ({context}{message})"),
                    "" => format!("Error from server: {context}{message}"),
                    reason => format!("Error from server ({reason}): {context}{message}"),
                })
            }
            Error::Transport { host, refused: true, .. } => Some(format!(
                "The connection to the server {host} was refused - did you specify the right host or port?"
            )),
            Error::Transport { message, .. } => Some(format!("Unable to connect to the server: {message}")),
            Error::Plain(text) => Some(text.clone()),
            _ => None,
        }
    }

    /// The text of one error among several.
    pub fn line(&self) -> String {
        self.standard().unwrap_or_else(|| self.to_string())
    }
}

fn prefixed(text: &str) -> String {
    if text.starts_with("error: ") { text.to_owned() } else { format!("error: {text}") }
}

/// The causes of an invalid object, one per line when there are several.
fn invalid(status: &Value) -> String {
    let message = status.get("message").and_then(Value::as_str).unwrap_or("");
    let Some(details) = status.get("details") else {
        let mut text = "The request is invalid".to_owned();
        if !message.is_empty() {
            text = format!("{text}: {message}");
        }
        return text;
    };
    let detail = |field| details.get(field).and_then(Value::as_str).unwrap_or("");
    let causes = details.get("causes").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let mut text = "The request is invalid".to_owned();
    if !detail("kind").is_empty() || !detail("name").is_empty() {
        text = format!("The {} {:?} is invalid", detail("kind"), detail("name"));
    } else if !message.is_empty() && causes.is_empty() {
        text = format!("{text}: {message}");
    }
    // The same message twice would only confuse; upstream drops repetitions.
    let mut lines: Vec<String> = Vec::new();
    for cause in causes {
        let part = |field| cause.get(field).and_then(Value::as_str).unwrap_or("");
        let line = format!("{}: {}", part("field"), part("message"));
        if !lines.contains(&line) {
            lines.push(line);
        }
    }
    match lines.as_slice() {
        [] => text,
        [one] => format!("{text}: {one}"),
        many => format!("{text}: \n* {}", many.join("\n* ")),
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Api { status, context } => {
                write!(f, "{context}{}", status.get("message").and_then(Value::as_str).unwrap_or(""))
            }
            Error::Transport { message, .. } => f.write_str(message),
            Error::NoMatch { resource, group, version } => {
                write!(f, "the server doesn't have a resource type {resource:?}")?;
                match (group.is_empty(), version.is_empty()) {
                    (false, false) => write!(f, " in group {group:?} and version {version:?}"),
                    (false, true) => write!(f, " in group {group:?}"),
                    (true, false) => write!(f, " in version {version:?}"),
                    (true, true) => Ok(()),
                }
            }
            Error::Message(text) | Error::Plain(text) => f.write_str(text),
            Error::Aggregate(errors) => {
                let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
                write!(f, "[{}]", texts.join(", "))
            }
            Error::Exit(code) => write!(f, "exit code {code}"),
            Error::Terminated(code) => write!(f, "command terminated with exit code {code}"),
        }
    }
}

impl std::error::Error for Error {}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        Error::Message(os_reason(&error))
    }
}

/// Go's words for an error of the operating system.
pub fn os_reason(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "no such file or directory".into(),
        std::io::ErrorKind::PermissionDenied => "permission denied".into(),
        std::io::ErrorKind::NotADirectory => "not a directory".into(),
        std::io::ErrorKind::IsADirectory => "is a directory".into(),
        std::io::ErrorKind::AddrInUse => "bind: address already in use".into(),
        std::io::ErrorKind::ConnectionRefused => "connect: connection refused".into(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::Error;

    #[test]
    fn texts() {
        let not_found = json!({"reason": "NotFound", "message": "pods \"x\" not found", "code": 404});
        assert_eq!(Error::api(not_found.clone()).report().0, "Error from server (NotFound): pods \"x\" not found");
        assert_eq!(
            Error::api(not_found).when("deleting", "f.yaml").report().0,
            "Error from server (NotFound): error when deleting \"f.yaml\": pods \"x\" not found"
        );
        let invalid = json!({"reason": "Invalid", "message": "…", "details": {"kind": "Pod", "name": "p", "causes": [
            {"field": "spec.containers", "message": "Required value"}, {"field": "metadata.name", "message": "Invalid value"}]}});
        assert_eq!(
            Error::api(invalid).report().0,
            "The Pod \"p\" is invalid: \n* spec.containers: Required value\n* metadata.name: Invalid value"
        );
        let no_match = Error::NoMatch { resource: "foo".into(), group: String::new(), version: String::new() };
        assert_eq!(no_match.report().0, "error: the server doesn't have a resource type \"foo\"");
    }
}
