//! `kubectl cp`: files and folders to and from containers, as archives through `tar` in the container.

mod tar;

use std::cell::RefCell;
use std::io::{Seek, SeekFrom};
use std::path::{Path, PathBuf};

use futures::FutureExt;

use crate::command::{Command, Context};
use crate::error::{Error, Result};
use crate::flags::Flag;
use crate::mapper;
use crate::pods;
use crate::remote::{self, Wanted};
use crate::resource::Info;
use crate::streams::{Output, Streams};

const FLAGS: &[Flag] = &[
    Flag::string("container", "Container name. If omitted, use the kubectl.kubernetes.io/default-container annotation for selecting the container to be attached or the first container in the pod will be chosen").short('c'),
    Flag::bool("no-preserve", "The copied file/directory's ownership and permissions will not be preserved in the container"),
    Flag::int("retries", "0", "Set number of retries to complete a copy operation from a container. Specify 0 to disable or any negative value for infinite retrying. The default is 0 (no retry)."),
];

/// `kubectl cp`.
pub const COMMAND: Command = Command::new(
    "cp",
    "Copy files and directories to and from containers.",
    "<file-spec-src> <file-spec-dest>",
    &[FLAGS],
    |ctx| cp(ctx).boxed_local(),
);

/// One end of a copy.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    Local(PathBuf),
    Pod { namespace: String, name: String, path: String },
}

/// Reads `PATH`, `POD:PATH` or `NAMESPACE/POD:PATH`.
fn place(text: &str, namespace: &str) -> Result<Place> {
    let malformed = || Error::message("filespec must match the canonical format: [[namespace/]pod:]file/path");
    let Some((pod, path)) = text.split_once(':') else {
        return if text.is_empty() { Err(malformed()) } else { Ok(Place::Local(text.into())) };
    };
    if pod.is_empty() {
        return Err(malformed());
    }
    let (namespace, name) = match pod.split('/').collect::<Vec<_>>().as_slice() {
        [name] => (namespace.to_owned(), (*name).to_owned()),
        [namespace, name] => ((*namespace).to_owned(), (*name).to_owned()),
        // `./a/b:c` is a local path with a colon in it.
        _ => return Err(malformed()),
    };
    Ok(Place::Pod { namespace, name, path: path.to_owned() })
}

async fn cp(ctx: &Context) -> Result<()> {
    let [source, destination] = ctx.parsed.args.as_slice() else {
        return Err(ctx.usage_error("source and destination are required"));
    };
    let (namespace, _) = ctx.factory.namespace()?;
    match (place(source, &namespace)?, place(destination, &namespace)?) {
        (Place::Pod { .. }, Place::Pod { .. }) => {
            Err(Error::message("one of src or dest must be a local file specification"))
        }
        (Place::Local(_), Place::Local(_)) => {
            Err(Error::message("one of src or dest must be a remote file specification"))
        }
        (Place::Local(from), Place::Pod { namespace, name, path }) => {
            upload(ctx, &from, &pod(ctx, &namespace, &name).await?, &path).await
        }
        (Place::Pod { namespace, name, path }, Place::Local(to)) => {
            download(ctx, &pod(ctx, &namespace, &name).await?, &path, &to).await
        }
    }
}

async fn pod(ctx: &Context, namespace: &str, name: &str) -> Result<Info> {
    let mapping = mapper::resolve(&ctx.factory, "pods").await?;
    let mut info = Info {
        mapping,
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        object: serde_json::Value::Null,
        source: String::new(),
    };
    info.object = info.get(&ctx.factory).await?;
    Ok(info)
}

async fn upload(ctx: &Context, from: &Path, pod: &Info, path: &str) -> Result<()> {
    if path.is_empty() {
        return Err(Error::message("filepath can not be empty"));
    }
    if !from.exists() {
        return Err(Error::message(format!("{} doesn't exist in local filesystem", from.display())));
    }
    let base = from.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    // Into a folder that is there, under its own name; otherwise as what the destination says.
    let into = path.ends_with('/') || run(ctx, pod, &["test", "-d", path], None, None).await.is_ok();
    let target = if into { format!("{}/{base}", path.trim_end_matches('/')) } else { path.to_owned() };
    let (folder, name) = target.rsplit_once('/').map_or((".", target.as_str()), |(folder, name)| (folder, name));
    let mut archive = tempfile::tempfile()?;
    tar::write(&mut archive, from, name)?;
    archive.seek(SeekFrom::Start(0))?;
    let mut command = vec!["tar"];
    command.extend(if ctx.parsed.bool("no-preserve") {
        ["--no-same-permissions", "--no-same-owner", "-xmf", "-"].as_slice()
    } else {
        ["-xmf", "-"].as_slice()
    });
    let folder = if folder.is_empty() { "/" } else { folder };
    command.extend(["-C", folder]);
    run(ctx, pod, &command, Some(archive), None).await
}

async fn download(ctx: &Context, pod: &Info, path: &str, to: &Path) -> Result<()> {
    if path.is_empty() {
        return Err(Error::message("filepath can not be empty"));
    }
    let base = path.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    let target = if to.is_dir() && !base.is_empty() && base != "." { to.join(base) } else { to.to_owned() };
    let mut archive = tempfile::tempfile()?;
    let mut tries = ctx.parsed.int("retries");
    loop {
        match run(ctx, pod, &["tar", "cf", "-", path], None, Some(archive.try_clone()?)).await {
            Ok(()) => break,
            Err(error) if tries == 0 => return Err(error),
            Err(_) => {
                ctx.streams.err.line("Resuming copy: starting over");
                archive.set_len(0)?;
                archive.seek(SeekFrom::Start(0))?;
                tries -= 1;
            }
        }
    }
    archive.seek(SeekFrom::Start(0))?;
    let mut reader = std::io::BufReader::new(archive);
    let count = tar::unpack(&mut reader, path, &target, |text| ctx.streams.err.line(&text))?;
    if count == 0 {
        return Err(Error::message(format!("{path}: no such file or directory")));
    }
    Ok(())
}

/// Runs a command in the pod's container, from one file and into another.
async fn run(
    ctx: &Context,
    pod: &Info,
    command: &[&str],
    input: Option<std::fs::File>,
    output: Option<std::fs::File>,
) -> Result<()> {
    let container = match ctx.parsed.str("container") {
        "" => pods::default_container(&ctx.streams, &pod.object, true)?,
        name => name.to_owned(),
    };
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    command.iter().for_each(|word| {
        query.append_pair("command", word);
    });
    query.append_pair("container", &container);
    if input.is_some() {
        query.append_pair("stdin", "true");
    }
    query.append_pair("stdout", "true").append_pair("stderr", "true");
    let stdin = input.is_some();
    let quiet = command.first() == Some(&"test");
    let streams = Streams {
        out: output.map_or_else(|| Output::new(std::io::sink()), Output::new),
        err: if quiet { Output::new(std::io::sink()) } else { ctx.streams.err.clone() },
        stdin: match input {
            Some(file) => RefCell::new(Box::new(file)),
            None => RefCell::new(Box::new(std::io::empty())),
        },
        out_is_terminal: false,
        in_is_terminal: false,
    };
    let uri = format!("{}?{}", pod.path("exec"), query.finish());
    let rest = ctx.factory.rest().await?;
    remote::stream(&rest, &uri, &streams, Wanted { stdin, tty: false }).await
}

#[cfg(test)]
mod tests {
    use super::{Place, place};

    #[test]
    fn places() {
        let pod = |namespace: &str, name: &str, path: &str| Place::Pod {
            namespace: namespace.into(),
            name: name.into(),
            path: path.into(),
        };
        assert_eq!(place("/tmp/a", "d").expect("local"), Place::Local("/tmp/a".into()));
        assert_eq!(place("p:/a", "d").expect("a pod"), pod("d", "p", "/a"));
        assert_eq!(place("n/p:a", "d").expect("a pod"), pod("n", "p", "a"));
        assert!(place(":/a", "d").is_err() && place("a/b/c:/x", "d").is_err() && place("", "d").is_err());
    }
}
