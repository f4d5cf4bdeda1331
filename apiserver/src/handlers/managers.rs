//! Field managers: what each endpoint lets its writers own, and the two ways in which ownership is booked.

use std::sync::Arc;

use api::conversion;
use apimachinery::gvk::GroupVersion;
use apimachinery::managed::{self, Filter, Versions};
use apimachinery::object::ObjectExt as _;
use apimachinery::schema::TypeRef;
use apimachinery::status::{Status, reason};
use parking_lot::Mutex;
use serde_json::Value;

use crate::registry::Served;
use crate::registry::custom::convert;
use crate::registry::rules::{StatusRule, StatusUpdate};
use crate::server::walk::Context;

/// The fields that an endpoint takes from nobody (`GetResetFields` of upstream's strategies).
fn reset_fields(served: &Served, subresource: &str) -> Filter {
    let rules = &served.rules;
    match (served.resource.group.as_ref(), served.resource.plural.as_ref(), subresource) {
        ("", "pods", "status") => {
            Filter::without(&[&["spec"], &["metadata", "deletionTimestamp"], &["metadata", "ownerReferences"]])
        }
        ("", "pods", "ephemeralcontainers") => Filter::only(&[&["spec", "ephemeralContainers"]]),
        ("", "pods", "resize") => Filter::only(&[
            &["spec", "containers", "*", "resources"],
            &["spec", "containers", "*", "resizePolicy"],
            &["spec", "initContainers", "*", "resources"],
            &["spec", "initContainers", "*", "resizePolicy"],
        ]),
        ("", "namespaces", "finalize") => Filter::without(&[&["status"]]),
        ("certificates.k8s.io", "certificatesigningrequests", "") => Filter::without(&[&["spec"], &["status"]]),
        ("certificates.k8s.io", "certificatesigningrequests", "status") => {
            Filter::without(&[&["spec"], &["status", "conditions"]])
        }
        ("certificates.k8s.io", "certificatesigningrequests", "approval") => {
            Filter::without(&[&["spec"], &["status", "certificate"]])
        }
        ("certificates.k8s.io", "podcertificaterequests", "") => Filter::all(),
        ("certificates.k8s.io", "podcertificaterequests", "status")
        | ("apiextensions.k8s.io", "customresourcedefinitions", "status") => Filter::without(&[&["spec"]]),
        ("apiregistration.k8s.io", "apiservices", "status") => Filter::without(&[&["spec"], &["metadata"]]),
        (_, _, "") if rules.status != StatusRule::Plain => Filter::without(&[&["status"]]),
        (_, _, "status") => match rules.status_update {
            StatusUpdate::KeepSpec => Filter::without(&[&["spec"]]),
            StatusUpdate::KeepSpecAndLabels => Filter::without(&[&["spec"], &["metadata", "labels"]]),
            StatusUpdate::ResetMetadata => Filter::without(&[&["spec"], &["metadata"]]),
        },
        _ => Filter::all(),
    }
}

/// Conversions by webhook that booking ownership asks for. It is done in one go, and a webhook is asked in between:
/// what is not there yet is noted, and once it is there everything is done anew.
#[derive(Debug, Default)]
pub struct Conversions(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    /// Objects, the versions wanted of them, and what came.
    done: Vec<(Value, String, Result<Value, String>)>,
    wanted: Vec<(Value, String)>,
}

impl Conversions {
    fn get(&self, object: &Value, api_version: &str) -> Result<Value, String> {
        let mut known = self.0.lock();
        let found = known.done.iter().find(|(from, to, _)| to == api_version && from == object);
        match found.map(|(_, _, result)| result.clone()) {
            Some(result) => result,
            None => {
                known.wanted.push((object.clone(), api_version.to_owned()));
                Err(format!("not converted to {api_version} yet"))
            }
        }
    }

    /// Has conversions made that were asked for in vain; answers whether there were any.
    pub async fn make(&self, cx: &Context, served: &Served) -> bool {
        let wanted = std::mem::take(&mut self.0.lock().wanted);
        let any = !wanted.is_empty();
        for (object, version) in wanted {
            let rows = cx.server.registry.versions(&served.resource.group, &served.resource.plural);
            let row = rows.iter().find(|row| row.api_version() == version);
            let result = match row.and_then(|row| row.custom()) {
                Some(custom) => convert::convert(&custom.definition, vec![object.clone()], custom.at)
                    .await
                    .map_err(|status| status.message)
                    .and_then(|mut converted| converted.pop().ok_or_else(|| "nothing came back".to_owned())),
                None => Err(format!("{version} is not served")),
            };
            self.0.lock().done.push((object, version, result));
        }
        any
    }
}

/// The versions of a kind: rows of the table, or of its CustomResourceDefinition.
struct Rows<'a> {
    served: &'a Served,
    conversions: &'a Conversions,
    /// The versions of a custom kind that entries may name, found beforehand.
    custom: Vec<Arc<Served>>,
}

impl<'a> Rows<'a> {
    fn new(cx: &'a Context, served: &'a Served) -> Self {
        let mut custom = Vec::new();
        if served.custom().is_some() {
            let (group, plural) = (&served.resource.group, &served.resource.plural);
            custom = cx.server.registry.versions(group, plural);
        }
        Self { served, custom, conversions: &cx.conversions }
    }

    fn row(&self, api_version: &str) -> Option<&'static api::Resource> {
        let version = GroupVersion::parse(api_version).ok()?;
        // Upstream has no way from a kind to its twin of another group: Events of either forget those of the other.
        if version.group != self.served.resource.group {
            return None;
        }
        api::table().find_resource(&version.group, &version.version, &self.served.resource.plural)
    }
}

impl Versions for Rows<'_> {
    fn type_of(&self, api_version: &str) -> Option<TypeRef<'_>> {
        if self.served.custom().is_some() {
            return self.custom.iter().find(|row| row.api_version() == api_version).map(|row| row.schema());
        }
        self.row(api_version)?.type_ref()
    }

    fn convert(&self, object: &Value, api_version: &str) -> Result<Value, String> {
        if let Some(custom) = self.served.custom() {
            let converted = if custom.definition.webhook.is_some() {
                self.conversions.get(object, api_version)?
            } else {
                // As with the conversion strategy `None`: fields are owned under the names they have here.
                let mut object = object.clone();
                object.set_api_version(api_version);
                object
            };
            // Nothing is pruned on this way: a field that only one of the versions has ends it, as upstream's does.
            let row = self.custom.iter().find(|row| row.api_version() == api_version);
            row.map_or(Ok(()), |row| apimachinery::fieldset::validate(&converted, row.schema(), false))?;
            return Ok(converted);
        }
        let unknown = |version: &str| format!("no kind is registered for version {version:?}");
        let from = match object.api_version() {
            "" => &*self.served.resource,
            version => self.row(version).ok_or_else(|| unknown(version))?,
        };
        let to = self.row(api_version).ok_or_else(|| unknown(api_version))?;
        Ok(conversion::convert(object.clone(), from, to))
    }
}

/// A writer at one endpoint: whose fields they become, and which can.
pub struct Owner<'a> {
    subresource: &'a str,
    manager: &'a str,
    kind: Kind<'a>,
}

enum Kind<'a> {
    Resource(&'a Served),
    /// A kind of its own, without other versions: Scale.
    Own {
        api_version: &'a str,
        kind: &'a str,
        ty: TypeRef<'a>,
    },
}

impl<'a> Owner<'a> {
    /// A writer of a resource or of a subresource of the same kind.
    pub fn of(served: &'a Served, subresource: &'a str, manager: &'a str) -> Self {
        Self { subresource, manager, kind: Kind::Resource(served) }
    }

    /// A writer of a subresource with a kind of its own.
    pub fn of_kind(
        (api_version, kind, ty): (&'a str, &'a str, TypeRef<'a>),
        subresource: &'a str,
        manager: &'a str,
    ) -> Self {
        Self { subresource, manager, kind: Kind::Own { api_version, kind, ty } }
    }

    fn with_request<T>(&self, cx: &Context, work: impl FnOnce(&managed::Request<'_>) -> T) -> T {
        let (manager, subresource, now) = (self.manager, self.subresource, cx.server.clock.now());
        match self.kind {
            Kind::Resource(served) => work(&managed::Request {
                manager,
                api_version: &served.api_version(),
                kind: &served.resource.kind,
                subresource,
                ty: served.schema(),
                reset: &reset_fields(served, subresource),
                versions: &Rows::new(cx, served),
                now,
            }),
            Kind::Own { api_version, kind, ty } => work(&managed::Request {
                manager,
                api_version,
                kind,
                subresource,
                ty,
                reset: &Filter::all(),
                versions: &managed::OneVersion,
                now,
            }),
        }
    }

    /// Books who owns what of `new`, which replaces `old`; both in the served version.
    pub fn track(&self, cx: &Context, old: Option<&Value>, new: &mut Value) {
        if let Kind::Resource(served) = self.kind
            && served.custom().is_some()
            && apimachinery::fieldset::validate(new, served.schema(), true).is_err()
        {
            // Of an object that does not fit its schema nobody owns anything; validation may not see all of it.
            new.remove_at(managed::PATH);
            return;
        }
        if let Kind::Resource(served) = self.kind
            && served.custom().is_none()
            && !served.is_storage_version()
        {
            // Upstream compares what comes back from its internal form, in which one field may become two.
            let mut read_back = served.from_storage(served.to_storage(new.clone()));
            self.with_request(cx, |request| managed::update(old, &mut read_back, request));
            match read_back.remove_at(managed::PATH) {
                Some(entries) => new.set_at(managed::PATH, entries),
                None => drop(new.remove_at(managed::PATH)),
            }
            return;
        }
        self.with_request(cx, |request| managed::update(old, new, request));
    }

    /// Server-side apply of `config` to `live` (`None`: create); in the served version.
    ///
    /// # Errors
    /// 409 for conflicts with other managers, 400 for managed fields or another type in the
    /// configuration, 500 without a reason for configurations that do not fit.
    pub fn apply(&self, cx: &Context, live: Option<&Value>, config: &Value, force: bool) -> Result<Value, Status> {
        self.with_request(cx, |request| managed::apply(live, config, force, request)).map_err(|error| match error {
            managed::ApplyError::Conflict(status) => *status,
            managed::ApplyError::BadRequest(text) => Status::bad_request(text),
            managed::ApplyError::Invalid(text) => Status::failure(500, reason::UNKNOWN, text),
        })
    }
}

/// Books who owns what of `new`, which replaces `old`; both in the served version.
pub fn track(cx: &Context, served: &Served, subresource: &str, manager: &str, old: Option<&Value>, new: &mut Value) {
    Owner::of(served, subresource, manager).track(cx, old, new);
}
