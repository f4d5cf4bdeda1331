//! The OpenAPI documents of extension servers: their index of v3 documents, and their part of v2; v3 made of v2 where
//! there is no v3.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, ETAG, IF_NONE_MATCH};
use serde_json::{Map, Value, json};

use super::routes::ApiService;
use super::{available, converted};
use crate::request::UserInfo;

/// Upstream waits as long for a whole Swagger document.
const TIMEOUT: Duration = Duration::from_secs(60);

/// What is known of one APIService.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Known {
    /// `paths` of the server's `/openapi/v3`; `None` when it has none.
    pub index: Option<Map<String, Value>>,
    /// The paths of the group version and what they refer to, out of the server's `/openapi/v2`:
    /// compact JSON, because it is read only when the merged document is made.
    pub swagger: Option<Bytes>,
    /// Its OpenAPI v3 document, made from v2 because the server has no v3 itself.
    pub converted: Option<Converted>,
    etag: String,
}

/// A document, and the hash that it is asked for under.
#[derive(Clone, Debug, PartialEq)]
pub struct Converted {
    pub json: Bytes,
    pub hash: String,
}

impl Converted {
    fn of(swagger: &Value) -> Self {
        let json = Bytes::from(converted::convert(swagger).to_string());
        let hash = api::discovery::etag(&json).trim_matches('"').to_string();
        Self { json, hash }
    }
}

fn user() -> UserInfo {
    UserInfo { name: "system:aggregator".to_string(), ..UserInfo::default() }
}

/// Asks for the documents again; what cannot be had keeps its last form.
pub async fn refresh(remote: &ApiService, authority: &str, before: &Known) -> Known {
    let mut known = before.clone();
    match index(remote, authority).await {
        Ok(index) => {
            if index.is_some() {
                known.converted = None;
            } else if known.converted.is_none() {
                // Asked for anew, because it is needed whole.
                known.etag = String::new();
            }
            known.index = index;
        }
        Err(error) => tracing::info!(name = remote.name, %error, "no OpenAPI v3 of an extension server"),
    }
    if let Err(error) = swagger(remote, authority, &mut known).await {
        tracing::info!(name = remote.name, %error, "no OpenAPI v2 of an extension server");
    }
    known
}

async fn get(remote: &ApiService, url: &str, etag: &str) -> Result<available::Answer, String> {
    let mut headers = vec![(ACCEPT, "application/json")];
    if !etag.is_empty() {
        headers.push((IF_NONE_MATCH, etag));
    }
    match tokio::time::timeout(TIMEOUT, available::get(remote, url, &user(), &headers)).await {
        Ok(answer) => answer,
        Err(_) => Err("request timed out".to_string()),
    }
}

async fn index(remote: &ApiService, authority: &str) -> Result<Option<Map<String, Value>>, String> {
    let answer = get(remote, &format!("https://{authority}/openapi/v3"), "").await?;
    match answer.code {
        200 => {
            let mut document: Value = serde_json::from_slice(&answer.body).map_err(|error| error.to_string())?;
            match document.get_mut("paths").map(Value::take) {
                Some(Value::Object(paths)) => Ok(Some(paths)),
                _ => Ok(Some(Map::new())),
            }
        }
        404 => Ok(None),
        code => Err(format!("failed to retrieve openAPI spec, http error: {code}")),
    }
}

async fn swagger(remote: &ApiService, authority: &str, known: &mut Known) -> Result<(), String> {
    let answer = get(remote, &format!("https://{authority}/openapi/v2"), &known.etag).await?;
    match answer.code {
        304 => Ok(()),
        404 => {
            known.swagger = None;
            known.converted = None;
            known.etag = String::new();
            Ok(())
        }
        200 => {
            let document: Value = serde_json::from_slice(&answer.body).map_err(|error| error.to_string())?;
            let prefix = format!("/apis/{}/{}/", remote.group, remote.version);
            let part = filtered(&document, &prefix);
            known.swagger = Some(serde_json::to_vec(&part).map_err(|error| error.to_string())?.into());
            known.converted = known.index.is_none().then(|| Converted::of(&document));
            known.etag = answer.headers.get(ETAG).and_then(|etag| etag.to_str().ok()).unwrap_or_default().to_string();
            Ok(())
        }
        code => Err(format!("failed to retrieve openAPI spec, http error: {code}")),
    }
}

/// The paths below `prefix`, and the definitions and parameters that these need.
fn filtered(document: &Value, prefix: &str) -> Value {
    let member = |name: &str| document.get(name).and_then(Value::as_object);
    let paths: Map<String, Value> = member("paths")
        .into_iter()
        .flatten()
        .filter(|(path, _)| path.starts_with(prefix))
        .map(|(path, item)| (path.clone(), item.clone()))
        .collect();
    let mut wanted: Vec<String> = Vec::new();
    paths.values().for_each(|item| references(item, &mut wanted));
    let mut seen: BTreeSet<String> = BTreeSet::new();
    let mut kept: BTreeMap<&str, Map<String, Value>> = BTreeMap::new();
    while let Some(reference) = wanted.pop() {
        if !seen.insert(reference.clone()) {
            continue;
        }
        for section in ["definitions", "parameters", "responses"] {
            let Some(name) = reference.strip_prefix(&format!("#/{section}/")) else { continue };
            if let Some(value) = member(section).and_then(|members| members.get(name)) {
                references(value, &mut wanted);
                kept.entry(section).or_default().insert(name.to_string(), value.clone());
            }
        }
    }
    let mut out = json!({"paths": paths});
    for (section, members) in kept {
        out[section] = Value::Object(members);
    }
    out
}

/// Every `$ref` in a tree.
fn references(value: &Value, out: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                match value {
                    Value::String(reference) if key == "$ref" => out.push(reference.clone()),
                    _ => references(value, out),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| references(item, out)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_paths_need() {
        let reference = |name: &str| json!({"$ref": format!("#/definitions/{name}")});
        let document = json!({
            "paths": {
                "/apis/a/v1/things": {"get": {"responses": {"200": {"schema": reference("a")}}}},
                "/apis/b/v1/things": {"get": {"responses": {"200": {"schema": reference("b")}}}},
            },
            "definitions": {
                "a": {"properties": {"x": reference("shared"), "self": reference("a")}},
                "b": {}, "shared": {"type": "object"},
            },
        });
        let got = filtered(&document, "/apis/a/v1/");
        let names = |section: &str| got[section].as_object().map(|map| map.keys().cloned().collect::<Vec<_>>());
        assert_eq!(names("paths"), Some(vec!["/apis/a/v1/things".to_string()]));
        assert_eq!(names("definitions"), Some(vec!["a".to_string(), "shared".to_string()]));
    }
}
