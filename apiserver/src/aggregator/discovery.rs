//! What extension servers say they serve, in the aggregated form.

use std::time::Duration;

use apimachinery::object::ObjectExt as _;
use http::header::{ACCEPT, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use serde_json::{Value, json};

use super::available::{self, Answer};
use super::routes::ApiService;
use crate::request::UserInfo;

const ACCEPTED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,\
    application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList";
const TIMEOUT: Duration = Duration::from_secs(5);

/// The last document of a group version.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Known {
    /// An element of `versions`, without freshness; `None` when there never was an answer.
    pub version: Option<Value>,
    /// The server's tag of the document it came from.
    etag: String,
    /// The last attempt failed.
    pub stale: bool,
}

/// Asks for the document again; what is known stays when the server does not answer.
pub async fn refresh(remote: &ApiService, authority: &str, before: &Known) -> Known {
    match fetch(remote, authority, before).await {
        Ok(known) => known,
        Err(error) => {
            tracing::info!(name = remote.name, %error, "discovery of an extension server is stale");
            Known { stale: true, ..before.clone() }
        }
    }
}

async fn get(
    remote: &ApiService,
    url: &str,
    user: &UserInfo,
    headers: &[(http::HeaderName, &str)],
) -> Result<Answer, String> {
    match tokio::time::timeout(TIMEOUT, available::get(remote, url, user, headers)).await {
        Ok(answer) => answer,
        Err(_) => Err("request timed out".to_string()),
    }
}

async fn fetch(remote: &ApiService, authority: &str, before: &Known) -> Result<Known, String> {
    let mut headers = vec![(ACCEPT, ACCEPTED)];
    if !before.etag.is_empty() && before.version.is_some() {
        headers.push((IF_NONE_MATCH, before.etag.as_str()));
    }
    let url = format!("https://{authority}/apis");
    let answer = get(remote, &url, &available::aggregator_user(), &headers).await?;
    match answer.code {
        304 => return Ok(Known { stale: false, ..before.clone() }),
        503 => return Err(format!("service returned non-success response code: {}", answer.code)),
        200 if is_aggregated(&answer) => {
            let document: Value = serde_json::from_slice(&answer.body).map_err(|error| error.to_string())?;
            let etag = answer.headers.get(ETAG).and_then(|etag| etag.to_str().ok()).unwrap_or_default().to_string();
            return Ok(Known { version: Some(picked(&document, remote)), etag, stale: false });
        }
        _ => {}
    }
    let url = if remote.group.is_empty() {
        format!("https://{authority}/api/{}", remote.version)
    } else {
        format!("https://{authority}/apis/{}/{}", remote.group, remote.version)
    };
    let user = UserInfo { name: available::aggregator_user().name, ..UserInfo::default() };
    let answer = get(remote, &url, &user, &[(ACCEPT, "application/json")]).await?;
    if answer.code != 200 {
        return Err(format!("failed to download legacy discovery for {url}: {}", answer.code));
    }
    let list: Value = serde_json::from_slice(&answer.body).map_err(|error| error.to_string())?;
    let resources = converted(list.list_at(&["resources"]));
    let version = json!({"version": remote.version, "resources": resources});
    Ok(Known { version: Some(version), etag: String::new(), stale: false })
}

fn is_aggregated(answer: &Answer) -> bool {
    let content_type = answer.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let has = |wanted: &str| content_type.split(';').any(|part| part.trim() == wanted);
    has("g=apidiscovery.k8s.io") && has("as=APIGroupDiscoveryList") && (has("v=v2") || has("v=v2beta1"))
}

/// The group version out of a server's whole document; an empty one when it does not list it.
fn picked(document: &Value, remote: &ApiService) -> Value {
    let group = document.list_at(&["items"]).iter().find(|group| group.name() == remote.group);
    let version = group
        .map_or(&[][..], |group| group.list_at(&["versions"]))
        .iter()
        .find(|version| version.str_at(&["version"]) == Some(&remote.version));
    let Some(version) = version else { return json!({"version": remote.version}) };
    let mut version = version.clone();
    let kind = |entry: &mut Value| {
        // Clients of some releases panic without it.
        if entry.get("responseKind").is_none_or(Value::is_null) {
            entry["responseKind"] = json!({"group": "", "version": "", "kind": ""});
        }
    };
    for resource in version.get_mut("resources").and_then(Value::as_array_mut).into_iter().flatten() {
        kind(resource);
        resource.get_mut("subresources").and_then(Value::as_array_mut).into_iter().flatten().for_each(kind);
    }
    version
}

/// The plain list of resources in the aggregated form.
fn converted(resources: &[Value]) -> Vec<Value> {
    let text = |resource: &Value, name: &str| resource.str_at(&[name]).unwrap_or_default().to_string();
    let kind = |resource: &Value| {
        json!({
            "group": text(resource, "group"),
            "version": text(resource, "version"),
            "kind": text(resource, "kind"),
        })
    };
    let mut out: Vec<Value> = Vec::new();
    for resource in resources.iter().filter(|resource| !text(resource, "name").contains('/')) {
        let scope = if resource.bool_at(&["namespaced"]).unwrap_or(false) { "Namespaced" } else { "Cluster" };
        let mut entry = json!({
            "resource": text(resource, "name"),
            "responseKind": kind(resource),
            "scope": scope,
            "singularResource": text(resource, "singularName"),
            "verbs": resource.list_at(&["verbs"]),
        });
        for name in ["shortNames", "categories"] {
            if !resource.list_at(&[name]).is_empty() {
                entry[name] = resource[name].clone();
            }
        }
        out.push(entry);
    }
    for resource in resources {
        let name = text(resource, "name");
        let Some((parent, name)) = name.split_once('/') else { continue };
        let entry = json!({
            "subresource": name,
            "responseKind": kind(resource),
            "verbs": resource.list_at(&["verbs"]),
        });
        let at = out.iter().position(|known| known.str_at(&["resource"]) == Some(parent)).unwrap_or_else(|| {
            // A subresource without a resource: the parent is only a name.
            out.push(json!({
                "resource": parent,
                "responseKind": {"group": "", "version": "", "kind": ""},
                "scope": if resource.bool_at(&["namespaced"]).unwrap_or(false) { "Namespaced" } else { "Cluster" },
            }));
            out.len() - 1
        });
        match out[at].get_mut("subresources").and_then(Value::as_array_mut) {
            Some(list) => list.push(entry),
            None => out[at]["subresources"] = json!([entry]),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_lists_are_converted() {
        let list = json!([
            {"name": "flunders", "singularName": "flunder", "namespaced": true, "kind": "Flunder",
             "verbs": ["get", "list"], "shortNames": ["fl"]},
            {"name": "flunders/status", "singularName": "", "namespaced": true, "kind": "Flunder", "verbs": ["get"]},
            {"name": "lonely/scale", "namespaced": false, "group": "autoscaling", "version": "v1", "kind": "Scale",
             "verbs": ["get"]},
        ]);
        let got = converted(list.as_array().expect("a list"));
        assert_eq!(got[0]["resource"], "flunders");
        assert_eq!(got[0]["scope"], "Namespaced");
        assert_eq!(got[0]["shortNames"], json!(["fl"]));
        assert_eq!(got[0]["subresources"][0]["subresource"], "status");
        assert_eq!(got[1]["resource"], "lonely");
        assert_eq!(got[1]["subresources"][0]["responseKind"]["group"], "autoscaling");
    }
}
