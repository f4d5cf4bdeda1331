//! The verbs of the API on lean types: get, list, create, update, patch, delete and their kin.

use bytes::Bytes;
use http::{Method, Request, header};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::error::{Error, Result};
use crate::meta::List;
use crate::resources::{Resource, escape};
use crate::transport::Client;

/// What a list or a collection delete selects.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct ListParams {
    pub label_selector: String,
    pub field_selector: String,
    /// Page size; zero asks for everything at once.
    pub limit: u32,
    pub continue_token: String,
    pub resource_version: String,
    pub resource_version_match: String,
    /// Asks for `PartialObjectMetadata` only.
    pub metadata_only: bool,
}

impl ListParams {
    pub fn labels(mut self, selector: &str) -> Self {
        self.label_selector = selector.to_string();
        self
    }

    pub fn fields(mut self, selector: &str) -> Self {
        self.field_selector = selector.to_string();
        self
    }

    pub fn metadata_only(mut self) -> Self {
        self.metadata_only = true;
        self
    }
}

/// What happens to the dependents of a deleted object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Propagation {
    Orphan,
    Background,
    Foreground,
}

/// Delete only this very object.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Preconditions {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource_version: Option<String>,
}

/// How to delete.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DeleteOptions {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grace_period_seconds: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub propagation_policy: Option<Propagation>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preconditions: Option<Preconditions>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dry_run: Vec<String>,
}

impl DeleteOptions {
    /// Deletes only the object of this uid.
    pub fn uid(uid: &str) -> Self {
        Self {
            preconditions: Some(Preconditions { uid: Some(uid.to_string()), resource_version: None }),
            ..Self::default()
        }
    }

    pub fn grace(mut self, seconds: i64) -> Self {
        self.grace_period_seconds = Some(seconds);
        self
    }

    pub fn propagation(mut self, policy: Propagation) -> Self {
        self.propagation_policy = Some(policy);
        self
    }
}

/// A patch and its content type.
#[derive(Debug, Clone)]
pub enum Patch {
    Json(Value),
    Merge(Value),
    Strategic(Value),
    /// Server-side apply; the body is the applied configuration.
    Apply {
        body: Value,
        manager: String,
        force: bool,
    },
}

impl Patch {
    fn content_type(&self) -> &'static str {
        match self {
            Patch::Json(_) => "application/json-patch+json",
            Patch::Merge(_) => "application/merge-patch+json",
            Patch::Strategic(_) => "application/strategic-merge-patch+json",
            Patch::Apply { .. } => "application/apply-patch+yaml",
        }
    }

    fn body(&self) -> &Value {
        match self {
            Patch::Json(body) | Patch::Merge(body) | Patch::Strategic(body) | Patch::Apply { body, .. } => body,
        }
    }
}

/// A query string under construction.
#[derive(Default)]
pub(crate) struct Query(String);

impl Query {
    pub(crate) fn push(&mut self, key: &str, value: &str) -> &mut Self {
        if !value.is_empty() {
            self.0.push(if self.0.is_empty() { '?' } else { '&' });
            self.0.push_str(key);
            self.0.push('=');
            escape(value, &mut self.0);
        }
        self
    }

    pub(crate) fn append_to(&self, mut path: String) -> String {
        path.push_str(&self.0);
        path
    }
}

pub(crate) const ACCEPT_JSON: &str = "application/json";
const ACCEPT_METADATA_LIST: &str = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json";
pub(crate) const ACCEPT_METADATA: &str =
    "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json";

impl Client {
    /// Sends a JSON body and decodes the answer.
    pub async fn json<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        accept: &str,
        content_type: &str,
        body: Bytes,
    ) -> Result<T> {
        let mut request = Request::builder().method(method).uri(path).header(header::ACCEPT, accept);
        if !body.is_empty() {
            request = request.header(header::CONTENT_TYPE, content_type);
        }
        let answer = self.request(request.body(body)?).await?;
        serde_json::from_slice(&answer).map_err(|source| Error::Decode { path: path.to_string(), source })
    }

    pub async fn get<T: DeserializeOwned>(
        &self,
        resource: &Resource,
        namespace: Option<&str>,
        name: &str,
    ) -> Result<T> {
        let path = resource.path(namespace, Some(name), None);
        self.json(Method::GET, &path, ACCEPT_JSON, "", Bytes::new()).await
    }

    /// Only an object's metadata, in a `PartialObjectMetadata`.
    pub async fn get_metadata<T: DeserializeOwned>(
        &self,
        resource: &Resource,
        namespace: Option<&str>,
        name: &str,
    ) -> Result<T> {
        let path = resource.path(namespace, Some(name), None);
        self.json(Method::GET, &path, ACCEPT_METADATA, "", Bytes::new()).await
    }

    pub async fn get_sub<T: DeserializeOwned>(
        &self,
        resource: &Resource,
        namespace: Option<&str>,
        name: &str,
        sub: &str,
    ) -> Result<T> {
        let path = resource.path(namespace, Some(name), Some(sub));
        self.json(Method::GET, &path, ACCEPT_JSON, "", Bytes::new()).await
    }

    /// One page, or everything when `params.limit` is zero.
    pub async fn list<T: DeserializeOwned>(
        &self,
        resource: &Resource,
        namespace: Option<&str>,
        params: &ListParams,
    ) -> Result<List<T>> {
        let path = list_path(resource, namespace, params);
        let accept = if params.metadata_only { ACCEPT_METADATA_LIST } else { ACCEPT_JSON };
        self.json(Method::GET, &path, accept, "", Bytes::new()).await
    }

    /// Everything, by pages of 500; the list's resource version is the first page's.
    pub async fn list_all<T: DeserializeOwned>(
        &self,
        resource: &Resource,
        namespace: Option<&str>,
        params: &ListParams,
    ) -> Result<List<T>> {
        let mut params = ListParams { limit: 500, ..params.clone() };
        let mut all: List<T> = self.list(resource, namespace, &params).await?;
        let mut token = std::mem::take(&mut all.metadata.continue_token);
        while !token.is_empty() {
            params.continue_token = token;
            // A continued list must not name a version: the token does.
            params.resource_version.clear();
            params.resource_version_match.clear();
            let mut page: List<T> = self.list(resource, namespace, &params).await?;
            all.items.append(&mut page.items);
            token = page.metadata.continue_token;
        }
        all.metadata.remaining_item_count = None;
        Ok(all)
    }

    pub async fn create<U: DeserializeOwned>(
        &self,
        resource: &Resource,
        namespace: Option<&str>,
        object: &impl Serialize,
    ) -> Result<U> {
        let path = resource.path(namespace, None, None);
        self.json(Method::POST, &path, ACCEPT_JSON, ACCEPT_JSON, encode(object)?).await
    }

    /// POSTs to a subresource, such as `binding`, `eviction` or `token`.
    pub async fn create_sub<U: DeserializeOwned>(
        &self,
        resource: &Resource,
        namespace: Option<&str>,
        name: &str,
        sub: &str,
        object: &impl Serialize,
    ) -> Result<U> {
        let path = resource.path(namespace, Some(name), Some(sub));
        self.json(Method::POST, &path, ACCEPT_JSON, ACCEPT_JSON, encode(object)?).await
    }

    pub async fn update<U: DeserializeOwned>(
        &self,
        resource: &Resource,
        namespace: Option<&str>,
        name: &str,
        object: &impl Serialize,
    ) -> Result<U> {
        let path = resource.path(namespace, Some(name), None);
        self.json(Method::PUT, &path, ACCEPT_JSON, ACCEPT_JSON, encode(object)?).await
    }

    pub async fn update_status<U: DeserializeOwned>(
        &self,
        resource: &Resource,
        namespace: Option<&str>,
        name: &str,
        object: &impl Serialize,
    ) -> Result<U> {
        self.update_sub(resource, namespace, name, "status", object).await
    }

    pub async fn update_sub<U: DeserializeOwned>(
        &self,
        resource: &Resource,
        namespace: Option<&str>,
        name: &str,
        sub: &str,
        object: &impl Serialize,
    ) -> Result<U> {
        let path = resource.path(namespace, Some(name), Some(sub));
        self.json(Method::PUT, &path, ACCEPT_JSON, ACCEPT_JSON, encode(object)?).await
    }

    pub async fn patch<U: DeserializeOwned>(
        &self,
        resource: &Resource,
        namespace: Option<&str>,
        name: &str,
        sub: Option<&str>,
        patch: &Patch,
    ) -> Result<U> {
        let mut query = Query::default();
        if let Patch::Apply { manager, force, .. } = patch {
            query.push("fieldManager", manager);
            query.push("force", if *force { "true" } else { "" });
        }
        let path = query.append_to(resource.path(namespace, Some(name), sub));
        self.json(Method::PATCH, &path, ACCEPT_JSON, patch.content_type(), encode(patch.body())?).await
    }

    pub async fn delete(
        &self,
        resource: &Resource,
        namespace: Option<&str>,
        name: &str,
        options: &DeleteOptions,
    ) -> Result<()> {
        let path = resource.path(namespace, Some(name), None);
        self.json::<serde::de::IgnoredAny>(Method::DELETE, &path, ACCEPT_JSON, ACCEPT_JSON, delete_body(options)?)
            .await?;
        Ok(())
    }

    pub async fn delete_collection(
        &self,
        resource: &Resource,
        namespace: Option<&str>,
        params: &ListParams,
        options: &DeleteOptions,
    ) -> Result<()> {
        let path = list_path(resource, namespace, params);
        self.json::<serde::de::IgnoredAny>(Method::DELETE, &path, ACCEPT_JSON, ACCEPT_JSON, delete_body(options)?)
            .await?;
        Ok(())
    }
}

fn encode(object: &impl Serialize) -> Result<Bytes> {
    serde_json::to_vec(object).map(Bytes::from).map_err(Error::Encode)
}

fn delete_body(options: &DeleteOptions) -> Result<Bytes> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Body<'a> {
        api_version: &'static str,
        kind: &'static str,
        #[serde(flatten)]
        options: &'a DeleteOptions,
    }
    encode(&Body { api_version: "v1", kind: "DeleteOptions", options })
}

fn list_path(resource: &Resource, namespace: Option<&str>, params: &ListParams) -> String {
    let mut query = Query::default();
    query
        .push("labelSelector", &params.label_selector)
        .push("fieldSelector", &params.field_selector)
        .push("continue", &params.continue_token)
        .push("resourceVersion", &params.resource_version)
        .push("resourceVersionMatch", &params.resource_version_match);
    if params.limit > 0 {
        query.push("limit", &params.limit.to_string());
    }
    query.append_to(resource.path(namespace, None, None))
}
