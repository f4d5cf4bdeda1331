//! Writing an OCI image layout as one tar archive: a single uncompressed layer, its configuration, a
//! manifest and an index that carries the image's name (OCI image-spec 1.1; the name annotation is
//! containerd's).

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::Error;
use crate::command;

/// What a container of the image runs unless its pod says otherwise.
#[derive(Clone, Debug, Default)]
pub struct Config {
    pub entrypoint: Vec<String>,
    pub cmd: Vec<String>,
    pub stop_signal: Option<String>,
    pub exposed_ports: Vec<String>,
}

/// The time that every file gets, so that equal contents give equal digests.
const EPOCH: &str = "1970-01-01T00:00:00Z";
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Packs `root` into `work` and gives the archive's path.
pub async fn archive(work: &Path, root: &Path, name: &str, config: &Config) -> Result<PathBuf, Error> {
    let layout = work.join("layout");
    let blobs = layout.join("blobs/sha256");
    std::fs::create_dir_all(&blobs).map_err(Error::file(&blobs))?;

    let layer = work.join("layer.tar");
    pack(&layer, root).await?;
    let (digest, size) = digest_file(&layer)?;
    let blob = blobs.join(&digest);
    std::fs::rename(&layer, &blob).map_err(Error::file(blob))?;

    let config = put(&blobs, &configuration(config, &digest))?;
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", &(digest, size))],
    });
    let mut manifest = descriptor("application/vnd.oci.image.manifest.v1+json", &put(&blobs, &manifest)?);
    manifest["annotations"] = json!({"io.containerd.image.name": name});
    let index = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [manifest],
    });
    write(&layout.join("index.json"), &index.to_string())?;
    write(&layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;

    let archive = work.join("image.tar");
    pack(&archive, &layout).await?;
    Ok(archive)
}

fn configuration(config: &Config, layer: &str) -> Value {
    let mut container = json!({"Env": [PATH]});
    if !config.entrypoint.is_empty() {
        container["Entrypoint"] = json!(config.entrypoint);
    }
    if !config.cmd.is_empty() {
        container["Cmd"] = json!(config.cmd);
    }
    if let Some(signal) = &config.stop_signal {
        container["StopSignal"] = json!(signal);
    }
    for port in &config.exposed_ports {
        container["ExposedPorts"][port] = json!({});
    }
    json!({
        "architecture": architecture(),
        "os": "linux",
        "created": EPOCH,
        "config": container,
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{layer}")]},
    })
}

/// Go's name of this processor, which image indexes use.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn descriptor(media_type: &str, (digest, size): &(String, u64)) -> Value {
    json!({"mediaType": media_type, "digest": format!("sha256:{digest}"), "size": size})
}

fn put(blobs: &Path, value: &Value) -> Result<(String, u64), Error> {
    let text = value.to_string();
    let digest = hex(&Sha256::digest(text.as_bytes()));
    write(&blobs.join(&digest), &text)?;
    Ok((digest, text.len() as u64))
}

fn digest_file(path: &Path) -> Result<(String, u64), Error> {
    let mut file = std::fs::File::open(path).map_err(Error::file(path))?;
    let mut hasher = Sha256::new();
    let size = std::io::copy(&mut file, &mut hasher).map_err(Error::file(path))?;
    Ok((hex(&hasher.finalize()), size))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn write(path: &Path, text: &str) -> Result<(), Error> {
    std::fs::write(path, text).map_err(Error::file(path))
}

async fn pack(archive: &Path, root: &Path) -> Result<(), Error> {
    let (archive, root) = (archive.display().to_string(), root.display().to_string());
    let flags = ["--sort=name", "--mtime=@0", "--owner=0", "--group=0", "--numeric-owner", "--format=gnu"];
    let args = ["--create", "--file", &archive, "--directory", &root].into_iter().chain(flags).chain(["."]);
    command::run("tar", args).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn equal_roots_give_equal_archives_and_digests_hold() {
        let mut archives = Vec::new();
        for _ in 0..2 {
            let work = tempfile::tempdir().expect("a temporary folder");
            let root = work.path().join("root");
            std::fs::create_dir_all(root.join("bin")).expect("a folder");
            std::fs::write(root.join("bin/x"), "x").expect("a file");
            let config = Config { cmd: vec!["x".into()], ..Config::default() };
            let archive = archive(work.path(), &root, "docker.io/library/x:1", &config).await.expect("packed");
            archives.push(std::fs::read(archive).expect("there"));

            let layout = work.path().join("layout");
            let index: Value = read(&layout.join("index.json"));
            let manifest = follow(&layout, &index["manifests"][0]);
            assert_eq!(index["manifests"][0]["annotations"]["io.containerd.image.name"], "docker.io/library/x:1");
            let config = follow(&layout, &manifest["config"]);
            assert_eq!(config["rootfs"]["diff_ids"][0], manifest["layers"][0]["digest"]);
            assert_eq!(config["config"]["Cmd"], json!(["x"]));
        }
        assert_eq!(archives[0], archives[1]);
    }

    fn follow(layout: &Path, descriptor: &Value) -> Value {
        let digest = descriptor["digest"].as_str().expect("a digest").strip_prefix("sha256:").expect("sha256");
        let blob = layout.join("blobs/sha256").join(digest);
        let (actual, size) = digest_file(&blob).expect("the blob is there");
        assert_eq!((actual.as_str(), Some(size)), (digest, descriptor["size"].as_u64()));
        read(&blob)
    }

    fn read(path: &Path) -> Value {
        serde_json::from_slice(&std::fs::read(path).expect("there")).expect("JSON")
    }
}
