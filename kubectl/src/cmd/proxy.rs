//! `kubectl proxy`: the API on a local port, with this user's credentials put on every request.

use std::convert::Infallible;
use std::path::PathBuf;
use std::rc::Rc;

use bytes::Bytes;
use futures::FutureExt;
use http::{Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use kube::client::Body;
use regex::Regex;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::command::{Command, Context};
use crate::error::{Error, Result};
use crate::flags::Flag;
use crate::rest::Rest;

const FLAGS: &[Flag] = &[
    Flag::string("accept-hosts", "Regular expression for hosts that the proxy should accept.")
        .default("^localhost$,^127\\.0\\.0\\.1$,^\\[::1\\]$"),
    Flag::string("accept-paths", "Regular expression for paths that the proxy should accept.").default("^.*"),
    Flag::string("address", "The IP address on which to serve on.").default("127.0.0.1"),
    Flag::string("api-prefix", "Prefix to serve the proxied API under.").default("/"),
    Flag::bool("append-server-path", "If true, enables automatic path appending of the kube context server path to each request."),
    Flag::bool("disable-filter", "If true, disable request filtering in the proxy. This is dangerous, and can leave you vulnerable to XSRF attacks, when used with an accessible port."),
    Flag::duration("keepalive", "0s", "keepalive specifies the keep-alive period for an active network connection. Set to 0 to disable keepalive."),
    Flag::int("port", "8001", "The port on which to run the proxy. Set to 0 to pick a random port.").short('p'),
    Flag::string("reject-methods", "Regular expression for HTTP methods that the proxy should reject (example --reject-methods='POST,PUT,PATCH').").default("^$"),
    Flag::string("reject-paths", "Regular expression for paths that the proxy should reject. Paths specified here will be rejected even accepted by --accept-paths.")
        .default("^/api/.*/pods/.*/exec,^/api/.*/pods/.*/attach"),
    Flag::string("unix-socket", "Unix socket on which to run the proxy.").short('u'),
    Flag::string("www", "Also serve static files from the given directory under the specified prefix.").short('w'),
    Flag::string("www-prefix", "Prefix to serve static files under, if static file directory is specified.").short('P').default("/static/"),
];

/// `kubectl proxy`.
pub const COMMAND: Command = Command::new(
    "proxy",
    "Run a proxy to the Kubernetes API server.",
    "[--port=PORT] [--www=static-dir] [--www-prefix=prefix] [--api-prefix=prefix]",
    &[FLAGS],
    |ctx| proxy(ctx).boxed_local(),
);

/// What may pass: a page of somebody else's in the user's browser must not reach the API by this door.
struct Filter {
    accept_hosts: Vec<Regex>,
    accept_paths: Vec<Regex>,
    reject_paths: Vec<Regex>,
    reject_methods: Vec<Regex>,
}

impl Filter {
    fn from_flags(ctx: &Context) -> Result<Option<Self>> {
        if ctx.parsed.bool("disable-filter") {
            return Ok(None);
        }
        let list = |name: &str| -> Result<Vec<Regex>> {
            let each = ctx.parsed.str(name).split(',').map(|text| {
                Regex::new(text).map_err(|error| Error::message(format!("error parsing regexp {text:?}: {error}")))
            });
            each.collect()
        };
        Ok(Some(Filter {
            accept_hosts: list("accept-hosts")?,
            accept_paths: list("accept-paths")?,
            reject_paths: list("reject-paths")?,
            reject_methods: list("reject-methods")?,
        }))
    }

    fn accepts(&self, method: &str, host: &str, path: &str) -> bool {
        let any = |list: &[Regex], text: &str| list.iter().any(|regex| regex.is_match(text));
        // The port is not part of who is asked.
        let host = match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
            _ => host,
        };
        !any(&self.reject_methods, method)
            && !any(&self.reject_paths, path)
            && any(&self.accept_paths, path)
            && any(&self.accept_hosts, host)
    }
}

/// What every connection shares.
struct Shared {
    rest: Rc<Rest>,
    filter: Option<Filter>,
    prefix: String,
    files: Option<(String, PathBuf)>,
}

type Reply = Response<UnsyncBoxBody<Bytes, std::io::Error>>;

async fn proxy(ctx: &Context) -> Result<()> {
    ctx.no_arguments()?;
    let slashed = |text: &str| {
        let text = text.trim_matches('/');
        if text.is_empty() { "/".to_owned() } else { format!("/{text}/") }
    };
    let flags = &ctx.parsed;
    let files = (!flags.str("www").is_empty()).then(|| (slashed(flags.str("www-prefix")), flags.str("www").into()));
    if ctx.parsed.bool("disable-filter") && ctx.parsed.str("unix-socket").is_empty() {
        ctx.streams.err.line("Request filter disabled, your proxy is vulnerable to XSRF attacks, please be cautious");
    }
    let shared = Rc::new(Shared {
        rest: ctx.factory.rest().await?,
        filter: Filter::from_flags(ctx)?,
        prefix: slashed(flags.str("api-prefix")),
        files,
    });
    if !flags.str("unix-socket").is_empty() {
        let path = flags.str("unix-socket");
        // A socket that an earlier proxy left behind is in the way.
        let _ = std::fs::remove_file(path);
        let listener = tokio::net::UnixListener::bind(path)?;
        ctx.streams.out.line(&format!("Starting to serve on {path}"));
        return serve(shared, async || listener.accept().await.map(|(stream, _)| stream)).await;
    }
    let port = u16::try_from(flags.int("port")).map_err(|_| Error::message("--port must be between 0 and 65535"))?;
    let listener = tokio::net::TcpListener::bind((flags.str("address"), port)).await?;
    ctx.streams.out.line(&format!("Starting to serve on {}", listener.local_addr()?));
    serve(shared, async || listener.accept().await.map(|(stream, _)| stream)).await
}

async fn serve<S>(shared: Rc<Shared>, mut accept: impl AsyncFnMut() -> std::io::Result<S>) -> Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let mut connections = futures::stream::FuturesUnordered::new();
    loop {
        tokio::select! {
            stream = accept() => {
                let (stream, shared) = (stream?, shared.clone());
                connections.push(async move {
                    let service = service_fn(|request| answer(shared.clone(), request));
                    let http = hyper::server::conn::http1::Builder::new();
                    if let Err(error) = http.serve_connection(TokioIo::new(stream), service).await {
                        tracing::debug!(%error, "a connection ended");
                    }
                });
            }
            _ = futures::StreamExt::next(&mut connections), if !connections.is_empty() => {}
        }
    }
}

fn text(code: StatusCode, text: impl Into<Bytes>) -> Reply {
    let mut reply = Response::new(Full::new(text.into()).map_err(|never| match never {}).boxed_unsync());
    *reply.status_mut() = code;
    reply
}

async fn answer(shared: Rc<Shared>, request: Request<Incoming>) -> std::result::Result<Reply, Infallible> {
    let path = request.uri().path().to_owned();
    let host = request.headers().get("host").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let allowed = shared.filter.as_ref().is_none_or(|filter| filter.accepts(request.method().as_str(), host, &path));
    if !allowed {
        return Ok(text(StatusCode::FORBIDDEN, "Forbidden"));
    }
    if let Some((prefix, folder)) = &shared.files
        && let Some(rest) = path.strip_prefix(prefix.as_str())
    {
        return Ok(file(folder, rest));
    }
    let Some(rest) = path.strip_prefix(shared.prefix.as_str()) else {
        return Ok(text(StatusCode::NOT_FOUND, "404 page not found\n"));
    };
    let query = request.uri().query().map(|query| format!("?{query}")).unwrap_or_default();
    let target = format!("/{rest}{query}");
    Ok(forward(&shared.rest, request, &target)
        .await
        .unwrap_or_else(|error| text(StatusCode::BAD_GATEWAY, format!("{error}\n"))))
}

async fn forward(rest: &Rest, request: Request<Incoming>, target: &str) -> Result<Reply> {
    const HOP: [&str; 8] = [
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "te",
        "trailer",
        "transfer-encoding",
        "host",
    ];
    let (parts, body) = request.into_parts();
    let mut onwards = Request::builder().method(parts.method).uri(target);
    for (name, value) in &parts.headers {
        if !HOP.contains(&name.as_str()) && name != "upgrade" {
            onwards = onwards.header(name, value);
        }
    }
    let body = body.collect().await.map_err(|error| Error::message(error.to_string()))?.to_bytes();
    let onwards = onwards.body(Body::from(body.to_vec())).map_err(|error| Error::message(error.to_string()))?;
    let answer = rest.client().send(onwards).await.map_err(|error| rest.failure(&error))?;
    let (mut parts, body) = answer.into_parts();
    for name in HOP {
        parts.headers.remove(name);
    }
    Ok(Response::from_parts(parts, body.map_err(std::io::Error::other).boxed_unsync()))
}

/// A file of the folder; a folder's `index.html`.
fn file(folder: &std::path::Path, rest: &str) -> Reply {
    let path = std::path::Path::new(rest);
    let inside = path.components().all(|part| matches!(part, std::path::Component::Normal(_)));
    let mut path = folder.join(path);
    if path.is_dir() {
        path.push("index.html");
    }
    match std::fs::read(&path) {
        Ok(bytes) if inside => text(StatusCode::OK, bytes),
        _ => text(StatusCode::NOT_FOUND, "404 page not found\n"),
    }
}

#[cfg(test)]
mod tests {
    use regex::Regex;

    use super::{Filter, file};

    #[test]
    fn strangers_do_not_pass() {
        let list = |texts: &[&str]| texts.iter().map(|text| Regex::new(text).expect("valid")).collect::<Vec<_>>();
        let filter = Filter {
            accept_hosts: list(&["^localhost$", r"^127\.0\.0\.1$", r"^\[::1\]$"]),
            accept_paths: list(&["^.*"]),
            reject_paths: list(&["^/api/.*/pods/.*/exec", "^/api/.*/pods/.*/attach"]),
            reject_methods: list(&["^$"]),
        };
        for (method, host, path, expected) in [
            ("GET", "localhost:8001", "/api/v1/pods", true),
            ("GET", "[::1]:8001", "/api/v1/pods", true),
            ("DELETE", "127.0.0.1", "/api/v1/namespaces/x", true),
            ("GET", "evil.example:8001", "/api/v1/pods", false),
            ("POST", "localhost", "/api/v1/namespaces/n/pods/p/exec", false),
        ] {
            assert_eq!(filter.accepts(method, host, path), expected, "{host} {path}");
        }
    }

    #[test]
    fn files_stay_in_their_folder() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(folder.path().join("www")).expect("made");
        std::fs::write(folder.path().join("secret"), "x").expect("written");
        std::fs::write(folder.path().join("www/index.html"), "x").expect("written");
        assert_eq!(file(&folder.path().join("www"), "").status(), 200);
        assert_eq!(file(&folder.path().join("www"), "../secret").status(), 404);
        assert_eq!(file(&folder.path().join("www"), "none").status(), 404);
    }
}
