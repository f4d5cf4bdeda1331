//! `/livez`, `/readyz`, `/healthz` in upstream's wording, with `?verbose` and `?exclude=`.
//!
//! Checks are named functions that may be added while the server runs; a failing check makes the
//! endpoint answer 500 and shows why only in the log, as upstream does.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, RawQuery, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::{StatusCode, header};
use parking_lot::RwLock;

type CheckFn = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;

/// A growing list of named checks for one endpoint. Clones share the list.
#[derive(Clone)]
pub struct Checks {
    endpoint: &'static str,
    list: Arc<RwLock<Vec<(String, CheckFn)>>>,
}

impl Checks {
    /// A list holding upstream's `ping` and `log`, for the endpoint of this name (`livez`).
    pub fn new(endpoint: &'static str) -> Self {
        let checks = Self { endpoint, list: Arc::default() };
        checks.add("ping", || Ok(()));
        checks.add("log", || Ok(()));
        checks
    }

    /// An empty list.
    pub fn empty(endpoint: &'static str) -> Self {
        Self { endpoint, list: Arc::default() }
    }

    /// Adds a check; one of the same name is replaced.
    pub fn add(&self, name: &str, check: impl Fn() -> Result<(), String> + Send + Sync + 'static) {
        let mut list = self.list.write();
        list.retain(|(known, _)| known != name);
        list.push((name.to_string(), Arc::new(check)));
    }

    /// Runs every check that is not excluded: the status and body upstream would answer.
    pub fn run(&self, query: &str) -> (StatusCode, String) {
        let mut verbose = false;
        let mut unknown: Vec<String> = Vec::new();
        for pair in query.split('&') {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            match key {
                "verbose" => verbose = true,
                "exclude" => unknown.extend(value.split(',').filter(|v| !v.is_empty()).map(String::from)),
                _ => {}
            }
        }
        unknown.sort();
        unknown.dedup();
        let excluded = unknown.clone();
        let list = self.list.read().clone();
        let mut out = String::new();
        let mut failed = Vec::new();
        for (name, check) in &list {
            if excluded.contains(name) {
                unknown.retain(|excluded| excluded != name);
                out += &format!("[+]{name} excluded: ok\n");
                continue;
            }
            match check() {
                Ok(()) => out += &format!("[+]{name} ok\n"),
                Err(reason) => {
                    out += &format!("[-]{name} failed: reason withheld\n");
                    failed.push(format!("{name}: {reason}"));
                }
            }
        }
        if !unknown.is_empty() {
            let names: Vec<_> = unknown.iter().map(|name| format!("{name:?}")).collect();
            out += &format!("warn: some health checks cannot be excluded: no matches for {}\n", names.join(","));
        }
        let endpoint = self.endpoint;
        if !failed.is_empty() {
            tracing::info!(failed = failed.join(", "), "{endpoint} check failed");
            return (StatusCode::INTERNAL_SERVER_ERROR, format!("{out}{endpoint} check failed\n"));
        }
        if verbose {
            (StatusCode::OK, format!("{out}{endpoint} check passed\n"))
        } else {
            (StatusCode::OK, "ok".to_string())
        }
    }

    /// Runs one check by its name, as `/livez/ping` does; `None` when there is no such check.
    pub fn run_one(&self, name: &str) -> Option<(StatusCode, String)> {
        let check = self.list.read().iter().find(|(known, _)| known == name).map(|(_, check)| check.clone())?;
        Some(match check() {
            Ok(()) => (StatusCode::OK, "ok".to_string()),
            Err(reason) => (StatusCode::INTERNAL_SERVER_ERROR, format!("internal server error: {reason}\n")),
        })
    }

    /// The path of every check.
    pub fn paths(&self) -> Vec<String> {
        self.list.read().iter().map(|(name, _)| format!("/{}/{name}", self.endpoint)).collect()
    }

    /// The routes `/<endpoint>` and `/<endpoint>/<check>`.
    pub fn router(&self) -> Router {
        Router::new()
            .route(&format!("/{}", self.endpoint), get(all))
            .route(&format!("/{}/{{check}}", self.endpoint), get(one))
            .with_state(self.clone())
    }
}

async fn all(State(checks): State<Checks>, RawQuery(query): RawQuery) -> Response {
    text(checks.run(query.as_deref().unwrap_or_default()))
}

async fn one(State(checks): State<Checks>, Path(name): Path<String>) -> Response {
    match checks.run_one(&name) {
        Some(answer) => text(answer),
        None => (StatusCode::NOT_FOUND, "404 page not found\n").into_response(),
    }
}

fn text((status, body): (StatusCode, String)) -> Response {
    (status, [(header::CONTENT_TYPE, "text/plain; charset=utf-8"), (header::X_CONTENT_TYPE_OPTIONS, "nosniff")], body)
        .into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_as_upstream_does() {
        let checks = Checks::new("livez");
        checks.add("etcd", || Err("connection refused".into()));
        for (query, code, body) in [
            ("", 500, "[+]ping ok\n[+]log ok\n[-]etcd failed: reason withheld\nlivez check failed\n"),
            ("exclude=etcd", 200, "ok"),
            ("verbose&exclude=etcd", 200, "[+]ping ok\n[+]log ok\n[+]etcd excluded: ok\nlivez check passed\n"),
            (
                "verbose=true&exclude=etcd&exclude=nope",
                200,
                "[+]ping ok\n[+]log ok\n[+]etcd excluded: ok\nwarn: some health checks cannot be excluded: no matches for \"nope\"\nlivez check passed\n",
            ),
        ] {
            assert_eq!(checks.run(query), (StatusCode::from_u16(code).unwrap(), body.to_string()), "{query}");
        }
        assert_eq!(checks.run_one("ping").unwrap().1, "ok");
        assert!(checks.run_one("nope").is_none());
    }
}
