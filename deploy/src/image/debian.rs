//! Root file systems from Debian packages. Packages are downloaded and unpacked, never installed: the
//! host gets no running web server from it.

use std::path::Path;

use super::Error;
use crate::command;

/// nginx with everything it links to. The C library's conversions, documents and translations stay
/// out: they are most of its size and nginx reads none.
const NGINX: &[&str] = &["nginx", "nginx-common", "libc6", "libcrypt1", "libpcre2-8-0", "libssl3", "zlib1g"];
const LEFT_OUT: &[&str] = &[
    "usr/lib/x86_64-linux-gnu/gconv",
    "usr/lib/aarch64-linux-gnu/gconv",
    "usr/share/doc",
    "usr/share/lintian",
    "usr/share/locale",
    "usr/share/man",
    "usr/share/vim",
    "usr/share/apport",
    "lib/systemd",
    "etc/init.d",
    "etc/logrotate.d",
    "etc/ufw",
];
/// The server that image users expect: it listens on 80 and serves this folder.
const NGINX_SITE: &str = "\
server {
    listen 80;
    server_name localhost;
    location / {
        root /usr/share/nginx/html;
        index index.html index.htm;
    }
}
";
const NGINX_CONFIG: &str = "\
user nginx;
worker_processes auto;
error_log /var/log/nginx/error.log notice;
pid /run/nginx.pid;
events {
    worker_connections 1024;
}
http {
    include /etc/nginx/mime.types;
    default_type application/octet-stream;
    access_log /var/log/nginx/access.log;
    sendfile on;
    keepalive_timeout 65;
    include /etc/nginx/conf.d/*.conf;
}
";
const USERS: &str = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n";
const GROUPS: &str = "root:x:0:\nnobody:x:65534:\n";

/// `busybox-static` with a link for each of its programs.
pub async fn busybox(root: &Path) -> Result<(), Error> {
    unpack(root, &["busybox-static"]).await?;
    remove(&root.join("usr"))?;
    for dir in ["dev", "etc", "home", "proc", "root", "sys", "tmp", "usr/bin", "usr/sbin", "var"] {
        make_dir(&root.join(dir))?;
    }
    let program = root.join("bin/busybox");
    let list = command::run(&program.display().to_string(), ["--list-full"]).await?;
    for applet in list.lines().filter(|applet| *applet != "bin/busybox") {
        let path = root.join(applet);
        if let Some(dir) = path.parent() {
            make_dir(dir)?;
        }
        if let Err(source) = std::os::unix::fs::symlink("/bin/busybox", &path)
            && source.kind() != std::io::ErrorKind::AlreadyExists
        {
            return Err(Error::File { path, source });
        }
    }
    world_writable(&root.join("tmp"))?;
    accounts(root, "", "")
}

/// nginx as its users know it: pages in /usr/share/nginx/html, logs on the container's outputs.
pub async fn nginx(root: &Path) -> Result<(), Error> {
    unpack(root, NGINX).await?;
    for path in LEFT_OUT {
        remove(&root.join(path))?;
    }
    // Debian's layout is merged: the libraries of /lib are found by the loader's fixed path there.
    for dir in
        ["dev", "etc/nginx/conf.d", "proc", "root", "run", "sys", "tmp", "var/cache", "var/lib/nginx", "var/log/nginx"]
    {
        make_dir(&root.join(dir))?;
    }
    for path in ["etc/nginx/sites-enabled", "etc/nginx/sites-available", "etc/nginx/modules-enabled"] {
        remove(&root.join(path))?;
    }
    for (path, text) in [("etc/nginx/nginx.conf", NGINX_CONFIG), ("etc/nginx/conf.d/default.conf", NGINX_SITE)] {
        let path = root.join(path);
        std::fs::write(&path, text).map_err(Error::file(path))?;
    }
    for (log, output) in [("access.log", "/dev/stdout"), ("error.log", "/dev/stderr")] {
        let path = root.join("var/log/nginx").join(log);
        std::os::unix::fs::symlink(output, &path).map_err(Error::file(path))?;
    }
    // A shell to look around with, and for `kubectl exec`.
    let tools = tempfile::tempdir().map_err(Error::file("/tmp"))?;
    unpack(tools.path(), &["busybox-static"]).await?;
    make_dir(&root.join("bin"))?;
    let busybox = root.join("bin/busybox");
    std::fs::copy(tools.path().join("bin/busybox"), &busybox).map_err(Error::file(&busybox))?;
    for applet in ["sh", "ls", "cat", "wget", "ps", "hostname", "id", "env", "sleep", "kill", "touch", "echo"] {
        let path = root.join("bin").join(applet);
        std::os::unix::fs::symlink("busybox", &path).map_err(Error::file(path))?;
    }
    world_writable(&root.join("tmp"))?;
    accounts(root, "nginx:x:101:101:nginx:/nonexistent:/bin/false\n", "nginx:x:101:\n")
}

/// Downloads packages by name and unpacks them into `root`.
async fn unpack(root: &Path, packages: &[&str]) -> Result<(), Error> {
    make_dir(root)?;
    let downloads = tempfile::tempdir().map_err(Error::file("/tmp"))?;
    // apt reads packages as its own user, which cannot enter a private folder.
    world_writable(downloads.path())?;
    let mut apt = tokio::process::Command::new("apt-get");
    apt.args(["--quiet", "download"]).args(packages).current_dir(downloads.path());
    command::output(apt).await?;
    let entries = std::fs::read_dir(downloads.path()).map_err(Error::file(downloads.path()))?;
    for package in entries.flatten() {
        let (package, root) = (package.path().display().to_string(), root.display().to_string());
        command::run("dpkg-deb", ["--extract", &package, &root]).await?;
    }
    Ok(())
}

fn accounts(root: &Path, users: &str, groups: &str) -> Result<(), Error> {
    make_dir(&root.join("etc"))?;
    for (file, text) in [("passwd", format!("{USERS}{users}")), ("group", format!("{GROUPS}{groups}"))] {
        let path = root.join("etc").join(file);
        std::fs::write(&path, text).map_err(Error::file(path))?;
    }
    Ok(())
}

fn make_dir(path: &Path) -> Result<(), Error> {
    std::fs::create_dir_all(path).map_err(Error::file(path))
}

fn remove(path: &Path) -> Result<(), Error> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::file(path)(error)),
        _ => Ok(()),
    }
}

fn world_writable(path: &Path) -> Result<(), Error> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o1777)).map_err(Error::file(path))
}
