//! `/statusz` and `/flagz`: what a component tells of itself (KEP-4827 and KEP-4828), for people as text and for
//! programs in versions of `config.k8s.io`.
//!
//! A component hands in its name, its flags and the paths that it serves. Upstream: `apiserver/pkg/server/statusz` and
//! `flagz`, which all components share, too.

mod flagz;
mod negotiate;
mod statusz;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::routing::any;
use http::header::{CONTENT_TYPE, WARNING};
use http::{HeaderMap, HeaderValue, Response};
use jiff::Timestamp;
use serde_json::Value;

use crate::clock::SharedClock;
use crate::featuregate::{FeatureGates, Gate, Stage};
use crate::flags::Parsed;
use negotiate::{Answer, Form};

/// Where a component tells how it is doing.
pub const STATUSZ: &str = "/statusz";
/// Where it tells which flags it runs with.
pub const FLAGZ: &str = "/flagz";

/// KEP-4828: [`FLAGZ`].
pub const COMPONENT_FLAGZ: &str = "ComponentFlagz";
/// KEP-4827: [`STATUSZ`].
pub const COMPONENT_STATUSZ: &str = "ComponentStatusz";
/// Both gates, with upstream's stages and defaults of 1.36.
pub const GATES: [Gate; 2] = [
    Gate { name: COMPONENT_FLAGZ, default: true, stage: Stage::Beta, locked: false },
    Gate { name: COMPONENT_STATUSZ, default: true, stage: Stage::Beta, locked: false },
];

/// Names of flags and what they are set to, as pflag writes it.
pub type Flags = BTreeMap<String, String>;

const GROUP: &str = "config.k8s.io";
/// The version whose answers carry a warning.
const DEPRECATED: &str = "v1alpha1";
/// What stands between names and values: another one each time, so that nobody parses the text.
const DELIMITERS: [&str; 4] = [":", ": ", "=", " "];

/// What decides which pages a component has.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Its flags; a component that was not started with any has no page of them.
    pub flags: Option<Flags>,
    gates: FeatureGates,
}

impl Default for Settings {
    fn default() -> Self {
        Self { flags: None, gates: FeatureGates::new(&GATES) }
    }
}

impl Settings {
    /// Of a command line, with what its configuration file says of gates, which flags override.
    pub fn from_flags(parsed: &Parsed, file: &BTreeMap<String, String>) -> Self {
        let mut settings = Self { flags: Some(parsed.shown()), ..Self::default() };
        let known = |name: &String| name == "AllBeta" || GATES.iter().any(|gate| gate.name == *name);
        for switches in [file.clone(), parsed.map("feature-gates")] {
            let switches = switches.into_iter().filter(|(name, _)| known(name)).collect();
            if let Err(error) = settings.gates.set(&switches) {
                tracing::error!(%error, "a feature gate keeps its default");
            }
        }
        settings
    }

    /// The pages of a component that serves these paths.
    pub fn pages(
        &self,
        component: &'static str,
        clock: SharedClock,
        paths: impl IntoIterator<Item = impl AsRef<str>>,
    ) -> ZPages {
        ZPages::new(component, clock, |gate| self.gates.enabled(gate), self.flags.clone(), paths)
    }
}

/// The pages of one component. Clones share them.
#[derive(Clone)]
pub struct ZPages(Arc<Pages>);

struct Pages {
    component: &'static str,
    clock: SharedClock,
    started: Timestamp,
    /// `None` while the page is off.
    flags: Option<Flags>,
    /// The text of the flags, made once.
    flags_text: OnceLock<String>,
    /// The first parts of the paths that are served; `None` while the page is off.
    paths: Option<Vec<String>>,
}

impl ZPages {
    /// The pages of a component: of its flags if it has any and the gate is on, and of its status if that gate is.
    pub fn new(
        component: &'static str,
        clock: SharedClock,
        enabled: impl Fn(&str) -> bool,
        flags: Option<Flags>,
        paths: impl IntoIterator<Item = impl AsRef<str>>,
    ) -> Self {
        let flags = flags.filter(|_| enabled(COMPONENT_FLAGZ));
        let mut paths = statusz::folders(paths);
        if flags.is_some() && !paths.iter().any(|path| path == FLAGZ) {
            paths.push(FLAGZ.to_string());
            paths.sort();
        }
        let paths = enabled(COMPONENT_STATUSZ).then_some(paths);
        let started = crate::metrics::process_start().unwrap_or_else(|| clock.now());
        Self(Arc::new(Pages { component, clock, started, flags, flags_text: OnceLock::new(), paths }))
    }

    /// The pages that are on.
    pub fn served(&self) -> impl Iterator<Item = &'static str> {
        [(FLAGZ, self.0.flags.is_some()), (STATUSZ, self.0.paths.is_some())]
            .into_iter()
            .filter_map(|(path, on)| on.then_some(path))
    }

    /// Answers a request for one of the pages, by whatever method; `None` for any other path.
    pub fn answer(&self, path: &str, headers: &HeaderMap, pretty: Option<&str>) -> Option<Response<Body>> {
        let kind = match path {
            STATUSZ if self.0.paths.is_some() => "Statusz",
            FLAGZ if self.0.flags.is_some() => "Flagz",
            _ => return None,
        };
        let form = match negotiate::negotiate(headers, pretty, kind) {
            Ok(form) => form,
            Err(refusal) => return Some(respond(refusal)),
        };
        let answer = match form {
            Form::Text => Answer::ok("text/plain; charset=utf-8", self.text(kind).into()),
            Form::Structured { version, encoding, pretty } => {
                let media_type = format!("{};g={GROUP};v={version};as={kind}", encoding.media_type());
                let mut answer = Answer::ok(&media_type, encoding.write(&self.object(kind, version), pretty));
                if version == DEPRECATED {
                    let page = kind.to_ascii_lowercase();
                    answer.warning = Some(format!(
                        "299 - \"This version of the {page} endpoint is deprecated. Please use a newer version.\""
                    ));
                }
                answer
            }
        };
        Some(respond(answer))
    }

    /// Routes of the pages that are on.
    pub fn router(&self) -> Router {
        self.served().fold(Router::new(), |router, path| {
            let pages = self.clone();
            let page = async move |State(pages): State<ZPages>, headers: HeaderMap, RawQuery(query): RawQuery| {
                let query = query.unwrap_or_default();
                let pretty = query.split('&').find_map(|pair| pair.strip_prefix("pretty="));
                pages.answer(path, &headers, pretty).unwrap_or_default()
            };
            router.merge(Router::new().route(path, any(page)).with_state(pages))
        })
    }

    fn text(&self, kind: &str) -> String {
        match kind {
            "Statusz" => statusz::text(&self.0),
            _ => self.0.flags_text.get_or_init(|| flagz::text(&self.0)).clone(),
        }
    }

    fn object(&self, kind: &str, version: &str) -> Value {
        let mut object = match kind {
            "Statusz" => statusz::object(&self.0),
            _ => flagz::object(&self.0),
        };
        object["kind"] = kind.into();
        object["apiVersion"] = format!("{GROUP}/{version}").into();
        object["metadata"] = serde_json::json!({"name": self.0.component});
        object
    }
}

/// The first lines of a page for people.
fn heading(component: &str, page: &str) -> String {
    format!(
        "\n{component} {page}\nWarning: This endpoint is not meant to be machine parseable, has no formatting compatibility guarantees and is for debugging purposes only.\n"
    )
}

fn delimiter(pages: &Pages) -> &'static str {
    DELIMITERS[pages.clock.now().subsec_microsecond() as usize % DELIMITERS.len()]
}

fn respond(answer: Answer) -> Response<Body> {
    let mut response = Response::new(Body::from(answer.body));
    *response.status_mut() = answer.code;
    let headers = response.headers_mut();
    for (name, value) in [(CONTENT_TYPE, Some(answer.media_type)), (WARNING, answer.warning)] {
        if let Some(value) = value.and_then(|value| HeaderValue::try_from(value).ok()) {
            headers.insert(name, value);
        }
    }
    response
}
