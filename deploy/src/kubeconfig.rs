//! Kubeconfig files: the cluster's own, and its entries in the user's `~/.kube/config`.
//!
//! The user's file is theirs: every entry that is not ours is kept as it is, and the file is replaced
//! in one piece or not at all.

use std::path::{Path, PathBuf};

use apimachinery::yaml;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::state::CONTEXT;

/// A kubeconfig file that could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot use {}", path.display())]
    File { path: PathBuf, source: std::io::Error },
    /// The file is left as it is.
    #[error("{} is no kubeconfig file: {reason}", path.display())]
    Parse { path: PathBuf, reason: String },
}

/// What a kubeconfig file says.
#[derive(Clone, Debug)]
pub struct Access<'a> {
    /// `https://HOST:PORT`
    pub server: &'a str,
    pub ca_pem: &'a str,
    pub certificate_pem: &'a str,
    pub key_pem: &'a str,
}

/// A kubeconfig document with one cluster, user and context, all named after [`CONTEXT`].
pub fn document(access: &Access<'_>) -> Value {
    let encode = |pem: &str| STANDARD.encode(pem);
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": CONTEXT, "cluster": {
            "server": access.server,
            "certificate-authority-data": encode(access.ca_pem),
        }}],
        "users": [{"name": CONTEXT, "user": {
            "client-certificate-data": encode(access.certificate_pem),
            "client-key-data": encode(access.key_pem),
        }}],
        "contexts": [{"name": CONTEXT, "context": {"cluster": CONTEXT, "user": CONTEXT}}],
        "current-context": CONTEXT,
    })
}

/// Writes a document where only its owner may read it.
pub fn write(path: &Path, document: &Value) -> Result<(), Error> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let failed = |source| Error::File { path: path.into(), source };
    let dir = path.parent().unwrap_or(Path::new("/"));
    std::fs::create_dir_all(dir).map_err(failed)?;
    let draft = path.with_extension(format!("new-{}", std::process::id()));
    let mut file =
        std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft).map_err(failed)?;
    file.write_all(yaml::emit(document).as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
    std::fs::rename(&draft, path).map_err(failed)
}

/// Puts our entries into the user's file and makes our context the current one.
pub fn merge(path: &Path, ours: &Value) -> Result<(), Error> {
    let mut config = read(path)?.unwrap_or_else(|| json!({"apiVersion": "v1", "kind": "Config"}));
    strip(&mut config);
    for list in ["clusters", "users", "contexts"] {
        if !config[list].is_array() {
            config[list] = json!([]);
        }
        let entries = config[list].as_array_mut().expect("made an array above");
        entries.extend(ours[list].as_array().into_iter().flatten().cloned());
    }
    config["current-context"] = json!(CONTEXT);
    write(path, &config)
}

/// Takes our entries out of the user's file; a file that held nothing else goes.
pub fn unmerge(path: &Path) -> Result<(), Error> {
    let Some(mut config) = read(path)? else { return Ok(()) };
    let before = config.clone();
    strip(&mut config);
    if config == before {
        return Ok(());
    }
    let empty = |list: &str| config[list].as_array().is_none_or(Vec::is_empty);
    if empty("clusters") && empty("users") && empty("contexts") {
        return std::fs::remove_file(path).map_err(|source| Error::File { path: path.into(), source });
    }
    write(path, &config)
}

fn strip(config: &mut Value) {
    for list in ["clusters", "users", "contexts"] {
        if let Some(entries) = config[list].as_array_mut() {
            entries.retain(|entry| entry["name"] != CONTEXT);
        }
    }
    if config["current-context"] == CONTEXT {
        config["current-context"] = json!("");
    }
}

fn read(path: &Path) -> Result<Option<Value>, Error> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(Error::File { path: path.into(), source }),
    };
    let refused = |reason: String| Error::Parse { path: path.into(), reason };
    let config = yaml::parse(&text).map_err(|error| refused(error.to_string()))?;
    match config {
        Value::Null => Ok(None),
        Value::Object(_) => Ok(Some(config)),
        _ => Err(refused("it holds no mapping".into())),
    }
}

/// The file that kubectl reads when nothing else is said.
pub fn user_file() -> Option<PathBuf> {
    Some(PathBuf::from(std::env::var_os("HOME")?).join(".kube/config"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ours() -> Value {
        document(&Access { server: "https://127.0.0.1:6443", ca_pem: "ca", certificate_pem: "c", key_pem: "k" })
    }

    #[test]
    fn others_entries_survive_and_ours_go() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join(".kube/config");
        let theirs = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "work", "preferences": {"colors": true},
            "clusters": [{"name": "work", "cluster": {"server": "https://work.example"}}],
            "users": [], "contexts": [{"name": "work", "context": {"cluster": "work", "user": ""}}],
        });
        write(&path, &theirs).expect("written");
        merge(&path, &ours()).expect("merged");
        merge(&path, &ours()).expect("merged again");
        let merged = read(&path).expect("read").expect("there");
        assert_eq!(merged["current-context"], CONTEXT);
        assert_eq!(merged["clusters"].as_array().map(Vec::len), Some(2));
        assert_eq!(merged["preferences"], theirs["preferences"]);
        unmerge(&path).expect("unmerged");
        let left = read(&path).expect("read").expect("there");
        assert_eq!(left["clusters"], theirs["clusters"]);
        assert_eq!(left["current-context"], "");
    }

    #[test]
    fn a_file_of_ours_alone_goes() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("config");
        merge(&path, &ours()).expect("merged");
        unmerge(&path).expect("unmerged");
        assert!(!path.exists());
        unmerge(&path).expect("nothing to do");
    }

    #[test]
    fn a_file_that_is_not_a_kubeconfig_is_left_alone() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("config");
        std::fs::write(&path, "- just\n- a list\n").expect("written");
        assert!(matches!(merge(&path, &ours()), Err(Error::Parse { .. })));
        assert_eq!(std::fs::read_to_string(&path).expect("there"), "- just\n- a list\n");
    }
}
