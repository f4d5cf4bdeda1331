//! Which verb, resource, namespace and name a request is about, or which plain path.
//!
//! The rules are those of upstream's `RequestInfoFactory` (apiserver `pkg/endpoints/request`):
//! authorization, audit and metrics all see the same attributes, whether or not such a resource is
//! served.

use apimachinery::fields;

use super::Query;

/// Verbs that may stand in front of the resource: `/api/v1/watch/pods`.
const SPECIAL_VERBS: [&str; 2] = ["proxy", "watch"];

/// What may follow a namespace's name without being a resource in that namespace.
const NAMESPACE_SUBRESOURCES: [&str; 2] = ["status", "finalize"];

/// The attributes of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestInfo {
    /// Whether this is about a resource, rather than a path such as `/healthz`.
    pub is_resource: bool,
    /// The URL path as sent.
    pub path: String,
    /// `get`, `list`, `create`, …; the lower-case HTTP method for plain paths.
    pub verb: String,
    /// `api` or `apis`.
    pub prefix: String,
    /// Empty for the core group.
    pub group: String,
    /// `v1`.
    pub version: String,
    /// Empty for the whole cluster.
    pub namespace: String,
    /// Plural resource name.
    pub resource: String,
    /// `status`, `scale`, `log`, …
    pub subresource: String,
    /// Empty when the request is about a collection.
    pub name: String,
    /// Resource, name, subresource and whatever follows.
    pub parts: Vec<String>,
    /// Whether the verb came from the path (`/api/v1/watch/…`).
    pub verb_in_path: bool,
}

impl RequestInfo {
    /// Reads the attributes of a request.
    ///
    /// # Errors
    /// The text upstream answers for a path that ends after its special verb.
    pub fn new(method: &http::Method, path: &str, query: &Query) -> Result<Self, String> {
        let mut info =
            RequestInfo { path: path.to_string(), verb: method.as_str().to_ascii_lowercase(), ..Self::default() };
        let trimmed = path.trim_matches('/');
        let mut parts: Vec<&str> = if trimmed.is_empty() { Vec::new() } else { trimmed.split('/').collect() };
        if parts.len() < 3 || !matches!(parts[0], "api" | "apis") {
            return Ok(info);
        }
        info.prefix = parts.remove(0).to_string();
        if info.prefix == "apis" {
            if parts.len() < 3 {
                return Ok(info);
            }
            info.group = parts.remove(0).to_string();
        }
        info.is_resource = true;
        info.version = parts.remove(0).to_string();
        if SPECIAL_VERBS.contains(&parts[0]) {
            if parts.len() < 2 {
                return Err(format!("unable to determine kind and namespace from url, {path}"));
            }
            info.verb = parts.remove(0).to_string();
            info.verb_in_path = true;
        } else {
            info.verb = match method.as_str() {
                "POST" => "create",
                "GET" | "HEAD" => "get",
                "PUT" => "update",
                "PATCH" => "patch",
                "DELETE" => "delete",
                _ => "",
            }
            .to_string();
        }
        if parts[0] == "namespaces" && parts.len() > 1 {
            info.namespace = parts[1].to_string();
            if parts.len() > 2 && !NAMESPACE_SUBRESOURCES.contains(&parts[2]) {
                parts.drain(..2);
            }
        }
        if parts.len() >= 3 && info.verb != "proxy" {
            info.subresource = parts[2].to_string();
        }
        if parts.len() >= 2 {
            info.name = parts[1].to_string();
        }
        info.resource = parts[0].to_string();
        info.parts = parts.into_iter().map(str::to_string).collect();
        if info.name.is_empty() && info.verb == "get" {
            info.verb = if query.flag("watch") { "watch" } else { "list" }.to_string();
            if let Some(selector) = query.get("fieldSelector")
                && let Ok(selector) = fields::Selector::parse(selector)
                && let Some(name) = selector.requires_exact_match("metadata.name")
                && is_path_segment_name(name)
            {
                info.name = name.to_string();
            }
        }
        if info.name.is_empty() && info.verb == "delete" {
            info.verb = "deletecollection".to_string();
        }
        Ok(info)
    }
}

/// Whether a name may be one segment of a path.
pub fn is_path_segment_name(name: &str) -> bool {
    !matches!(name, "." | "..") && !name.contains(['/', '%'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_attributes_as_upstream_does() {
        // method, path, query → verb, group, version, namespace, resource, subresource, name
        let cases: &[(&str, &str, &str, [&str; 7])] = &[
            ("GET", "/api/v1/namespaces", "", ["list", "", "v1", "", "namespaces", "", ""]),
            ("GET", "/api/v1/namespaces/other", "", ["get", "", "v1", "other", "namespaces", "", "other"]),
            ("GET", "/api/v1/namespaces/other/pods", "", ["list", "", "v1", "other", "pods", "", ""]),
            ("GET", "/api/v1/namespaces/other/pods/foo", "", ["get", "", "v1", "other", "pods", "", "foo"]),
            ("HEAD", "/api/v1/namespaces/other/pods/foo", "", ["get", "", "v1", "other", "pods", "", "foo"]),
            ("GET", "/api/v1/pods", "", ["list", "", "v1", "", "pods", "", ""]),
            ("GET", "/api/v1/watch/pods", "", ["watch", "", "v1", "", "pods", "", ""]),
            ("GET", "/api/v1/pods", "watch=true", ["watch", "", "v1", "", "pods", "", ""]),
            ("GET", "/api/v1/pods", "watch=0", ["list", "", "v1", "", "pods", "", ""]),
            ("GET", "/api/v1/watch/namespaces/other/pods", "", ["watch", "", "v1", "other", "pods", "", ""]),
            (
                "GET",
                "/api/v1/namespaces/other/pods/foo/status",
                "",
                ["get", "", "v1", "other", "pods", "status", "foo"],
            ),
            (
                "PUT",
                "/api/v1/namespaces/other/finalize",
                "",
                ["update", "", "v1", "other", "namespaces", "finalize", "other"],
            ),
            (
                "GET",
                "/api/v1/namespaces/other/pods",
                "fieldSelector=metadata.name%3Dfoo",
                ["list", "", "v1", "other", "pods", "", "foo"],
            ),
            (
                "DELETE",
                "/apis/apps/v1/namespaces/other/deployments",
                "",
                ["deletecollection", "apps", "v1", "other", "deployments", "", ""],
            ),
            (
                "POST",
                "/apis/apps/v1/namespaces/other/deployments",
                "",
                ["create", "apps", "v1", "other", "deployments", "", ""],
            ),
            ("OPTIONS", "/apis/apps/v1/deployments", "", ["", "apps", "v1", "", "deployments", "", ""]),
            ("GET", "/api/v1/proxy/namespaces/other/pods/foo", "", ["proxy", "", "v1", "other", "pods", "", "foo"]),
        ];
        for (method, path, query, want) in cases {
            let info = RequestInfo::new(&method.parse().unwrap(), path, &Query::parse(query)).unwrap();
            let got = [
                &info.verb,
                &info.group,
                &info.version,
                &info.namespace,
                &info.resource,
                &info.subresource,
                &info.name,
            ];
            assert!(info.is_resource, "{path}");
            assert_eq!(got, want.map(String::from).each_ref(), "{method} {path}?{query}");
        }
        for path in ["/", "/api", "/api/v1", "/apis/apps", "/apis/apps/v1", "/healthz", "/version/x/y/z"] {
            let info = RequestInfo::new(&http::Method::GET, path, &Query::default()).unwrap();
            assert!(!info.is_resource && info.verb == "get", "{path}");
        }
        assert!(RequestInfo::new(&http::Method::GET, "/api/v1/watch", &Query::default()).is_err());
    }
}
