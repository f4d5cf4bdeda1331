//! Configuration files of components: YAML that says of which kind and version it is.

use std::path::Path;

use serde::de::DeserializeOwned;

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("failed to read {path}")]
    Read {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is not of that kind.
    #[error("failed to decode {path}: {message}")]
    Decode {
        /// The file; empty for a text that was in none.
        path: String,
        /// Why.
        message: String,
    },
}

/// Reads a file of a kind and version.
///
/// # Errors
/// When it cannot be read, is of another kind or version, or has a member of a wrong type.
pub fn read<T: DeserializeOwned>(path: &Path, api_version: &str, kind: &str) -> Result<T, Error> {
    let shown = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|source| Error::Read { path: shown.clone(), source })?;
    decode(&text, api_version, kind).map_err(|message| Error::Decode { path: shown, message })
}

/// Reads the text of such a file.
///
/// # Errors
/// As [`read`].
pub fn parse<T: DeserializeOwned>(text: &str, api_version: &str, kind: &str) -> Result<T, Error> {
    decode(text, api_version, kind).map_err(|message| Error::Decode { path: String::new(), message })
}

fn decode<T: DeserializeOwned>(text: &str, api_version: &str, kind: &str) -> Result<T, String> {
    let mut value = apimachinery::yaml::parse(text).map_err(|error| error.to_string())?;
    let mut taken = |member: &str| {
        let taken = value.as_object_mut().and_then(|members| members.remove(member)).unwrap_or_default();
        taken.as_str().unwrap_or_default().to_owned()
    };
    let (its_version, its_kind) = (taken("apiVersion"), taken("kind"));
    if (its_version.as_str(), its_kind.as_str()) != (api_version, kind) {
        return Err(format!("no kind {its_kind:?} is registered for version {its_version:?}"));
    }
    serde_json::from_value(value).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Tea {
        cups: u8,
    }

    #[test]
    fn a_file_says_what_it_is() {
        let read = |text: &str| parse::<Tea>(text, "kitchen/v1", "Tea").map(|tea| tea.cups).map_err(|e| e.to_string());
        assert_eq!(read("apiVersion: kitchen/v1\nkind: Tea\ncups: 2\n"), Ok(2));
        let refused = read("apiVersion: kitchen/v2\nkind: Tea\ncups: 2\n").unwrap_err();
        assert!(refused.ends_with("no kind \"Tea\" is registered for version \"kitchen/v2\""), "{refused}");
        assert!(read("cups: 2").is_err());
        assert!(read("apiVersion: kitchen/v1\nkind: Tea\ncups: two\n").unwrap_err().contains("invalid type"));
        assert!(read("apiVersion: kitchen/v1\nkind: Tea\ncups: 2\nmilk: 1\n").unwrap_err().contains("unknown field"));
        let absent = super::read::<Tea>(Path::new("/nowhere/tea.yaml"), "kitchen/v1", "Tea").unwrap_err();
        assert_eq!(absent.to_string(), "failed to read /nowhere/tea.yaml");
    }
}
