//! The container images of a local cluster, built on the spot: no registry is asked for anything.
//!
//! Root file systems come from Debian packages (`busybox-static`, `nginx` and its libraries) and from
//! our own static programs (`pause`, `serve-hostname`). Each becomes an OCI image layout in one tar
//! archive (OCI image-spec 1.1), which containerd imports. An archive is built once and kept.

mod debian;
mod oci;

use std::path::{Path, PathBuf};

use crate::command::{self, Error as CommandError};
use crate::node::PAUSE_IMAGE;
use crate::state::{NodeName, State};

/// An image that could not be built or imported.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Command(#[from] CommandError),
    #[error("cannot use {}", path.display())]
    File { path: PathBuf, source: std::io::Error },
    /// The program is built with the project: `make` puts it beside `keelson`.
    #[error("{0} is not beside keelson: build it with `make build`")]
    Missing(String),
}

impl Error {
    fn file(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Error {
        let path = path.into();
        move |source| Error::File { path, source }
    }
}

/// Where an image's root file system comes from.
#[derive(Clone, Copy, Debug)]
enum Source {
    /// One of our own static programs, at the root.
    Program(&'static str),
    Busybox,
    Nginx,
}

/// One image that every node gets.
#[derive(Clone, Copy, Debug)]
struct Image {
    name: &'static str,
    source: Source,
}

/// The images of every node. Names are whole, as containerd expands the short ones that manifests use.
const IMAGES: &[Image] = &[
    Image { name: PAUSE_IMAGE, source: Source::Program("pause") },
    Image { name: "docker.io/library/serve-hostname:1.0", source: Source::Program("serve-hostname") },
    Image { name: "docker.io/library/busybox:1.37", source: Source::Busybox },
    Image { name: "docker.io/library/nginx:1.27", source: Source::Nginx },
];

impl Image {
    /// `nginx-1.27.tar`
    fn archive(&self) -> String {
        let short = self.name.rsplit('/').next().unwrap_or(self.name);
        format!("{}.tar", short.replace(':', "-"))
    }

    fn config(&self) -> oci::Config {
        let mut config = oci::Config::default();
        match self.source {
            Source::Program(program) => config.entrypoint = vec![format!("/{program}")],
            Source::Busybox => config.cmd = vec!["sh".into()],
            Source::Nginx => {
                config.cmd = ["nginx", "-g", "daemon off;"].map(String::from).to_vec();
                config.stop_signal = Some("SIGQUIT".into());
                config.exposed_ports = vec!["80/tcp".into()];
            }
        }
        config
    }
}

/// Builds the archives that are not there yet.
pub async fn build(state: &State) -> Result<(), Error> {
    let dir = state.images();
    std::fs::create_dir_all(&dir).map_err(Error::file(&dir))?;
    futures::future::try_join_all(IMAGES.iter().map(|image| build_one(&dir, image))).await?;
    Ok(())
}

async fn build_one(dir: &Path, image: &Image) -> Result<(), Error> {
    let archive = dir.join(image.archive());
    let program = match image.source {
        Source::Program(program) => Some(find_program(program)?),
        _ => None,
    };
    if is_fresh(&archive, program.as_deref()) {
        return Ok(());
    }
    // Built beside the archive and moved over it: an interrupted build leaves no half archive.
    let work = tempfile::Builder::new().prefix(".build-").tempdir_in(dir).map_err(Error::file(dir))?;
    let root = work.path().join("root");
    match image.source {
        Source::Program(name) => {
            std::fs::create_dir_all(&root).map_err(Error::file(&root))?;
            let from = program.expect("a program's path was found above");
            std::fs::copy(&from, root.join(name)).map_err(Error::file(from))?;
        }
        Source::Busybox => debian::busybox(&root).await?,
        Source::Nginx => debian::nginx(&root).await?,
    }
    let draft = oci::archive(work.path(), &root, image.name, &image.config()).await?;
    std::fs::rename(&draft, &archive).map_err(Error::file(archive))
}

/// An archive is kept unless the program inside has been built again since.
fn is_fresh(archive: &Path, program: Option<&Path>) -> bool {
    let modified = |path: &Path| std::fs::metadata(path).and_then(|m| m.modified()).ok();
    match (modified(archive), program) {
        (Some(archive), Some(program)) => modified(program).is_some_and(|program| program <= archive),
        (archive, None) => archive.is_some(),
        (None, _) => false,
    }
}

/// The static program, in the folder `images` beside this executable.
fn find_program(name: &str) -> Result<PathBuf, Error> {
    let exe = std::env::current_exe().map_err(Error::file("/proc/self/exe"))?;
    let beside = exe.parent().unwrap_or(Path::new("/")).join("images").join(name);
    if beside.is_file() { Ok(beside) } else { Err(Error::Missing(beside.display().to_string())) }
}

/// Imports every image into a node's containerd, for the kubelet's namespace of it.
pub async fn import(state: &State, node: &NodeName) -> Result<(), Error> {
    let socket = state.containerd_socket(&node.name);
    let ctr = |args: &[&str]| {
        let mut words: Vec<String> = vec!["--address".into(), socket.display().to_string()];
        words.extend(["--namespace", "k8s.io", "images"].map(String::from));
        words.extend(args.iter().map(|arg| (*arg).to_owned()));
        words
    };
    let there = command::run("ctr", ctr(&["list", "--quiet"])).await?;
    let there: Vec<&str> = there.lines().collect();
    // One after the other: containerd unpacks archives under a lock of their index's name.
    for image in IMAGES.iter().filter(|image| !there.contains(&image.name)) {
        let archive = state.images().join(image.archive());
        command::run("ctr", ctr(&["import", "--snapshotter", "overlayfs", &archive.display().to_string()])).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archives_are_named_after_images() {
        let names: Vec<String> = IMAGES.iter().map(Image::archive).collect();
        assert_eq!(names, ["pause-1.tar", "serve-hostname-1.0.tar", "busybox-1.37.tar", "nginx-1.27.tar"]);
    }

    #[test]
    fn a_program_that_is_newer_makes_an_archive_stale() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let (archive, program) = (dir.path().join("a.tar"), dir.path().join("p"));
        assert!(!is_fresh(&archive, None));
        let write = |path: &Path, seconds| {
            let file = std::fs::File::create(path).expect("created");
            let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
            file.set_modified(time).expect("set");
        };
        write(&archive, 100);
        write(&program, 200);
        assert!(is_fresh(&archive, None));
        assert!(!is_fresh(&archive, Some(&program)));
        write(&archive, 300);
        assert!(is_fresh(&archive, Some(&program)));
    }
}
