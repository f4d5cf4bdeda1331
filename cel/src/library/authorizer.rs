//! Kubernetes' authorizer: `authorizer.group('apps').resource('deployments').namespace('x').check('create').allowed()`.
//! Who answers is given by the caller ([`Authorize`]).

use std::fmt;
use std::sync::Arc;

use apimachinery::names;

use super::{Functions, text};
use crate::cost::Cost;
use crate::error::Error;
use crate::types::Type;
use crate::value::Value;

/// Who may do what. The subject is the request's user unless the expression names a service account.
pub trait Authorize: Sync {
    /// Answers whether the subject may do this. It must not block for long: it is called within an evaluation.
    fn authorize(&self, subject: Subject<'_>, request: &Request<'_>) -> Decision;
}

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject<'s> {
    /// The user of the request under evaluation.
    User,
    /// A service account.
    ServiceAccount {
        /// Its namespace.
        namespace: &'s str,
        /// Its name.
        name: &'s str,
    },
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request<'r> {
    /// A path that is no resource.
    Path {
        /// The path.
        path: &'r str,
        /// The HTTP method in lower case.
        verb: &'r str,
    },
    /// A resource, of any version.
    Resource {
        /// What is checked.
        check: &'r ResourceCheck<'r>,
        /// The verb.
        verb: &'r str,
    },
}

/// The answer.
#[derive(Clone, Debug, Default)]
pub struct Decision {
    /// Whether it is allowed.
    pub allowed: bool,
    /// Why.
    pub reason: String,
    /// What went wrong while deciding.
    pub error: Option<String>,
}

/// `authorizer`, or what `serviceAccount` makes of it.
#[derive(Clone)]
pub struct Authorizer<'a> {
    decider: &'a dyn Authorize,
    service_account: Option<Arc<(String, String)>>,
}

impl fmt::Debug for Authorizer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authorizer").field("service_account", &self.service_account).finish_non_exhaustive()
    }
}

impl<'a> Authorizer<'a> {
    /// The authorizer of the request's user.
    pub fn new(decider: &'a dyn Authorize) -> Self {
        Authorizer { decider, service_account: None }
    }

    fn decide(&self, request: &Request<'_>) -> Decision {
        let subject = match &self.service_account {
            None => Subject::User,
            Some(account) => Subject::ServiceAccount { namespace: &account.0, name: &account.1 },
        };
        self.decider.authorize(subject, request)
    }

    /// `authorizer.requestResource`: the check of what the request itself is about.
    pub fn resource(&self, group: &str, resource: &str, subresource: &str, namespace: &str, name: &str) -> Value<'a> {
        Value::ResourceCheck(Arc::new(ResourceCheck {
            authorizer: self.clone(),
            group: group.into(),
            resource: resource.into(),
            subresource: subresource.into(),
            namespace: namespace.into(),
            name: name.into(),
            field_selector: String::new(),
            label_selector: String::new(),
        }))
    }
}

/// `authorizer.path(p)`
#[derive(Clone, Debug)]
pub struct PathCheck<'a> {
    authorizer: Authorizer<'a>,
    path: String,
}

/// `authorizer.group(g)`
#[derive(Clone, Debug)]
pub struct GroupCheck<'a> {
    authorizer: Authorizer<'a>,
    group: String,
}

/// `authorizer.group(g).resource(r)…`
#[derive(Clone, Debug)]
pub struct ResourceCheck<'a> {
    authorizer: Authorizer<'a>,
    /// The API group.
    pub group: String,
    /// The resource.
    pub resource: String,
    /// The subresource, or empty.
    pub subresource: String,
    /// The namespace, or empty.
    pub namespace: String,
    /// The name, or empty.
    pub name: String,
    /// A field selector as it was written, or empty.
    pub field_selector: String,
    /// A label selector as it was written, or empty.
    pub label_selector: String,
}

impl PartialEq for ResourceCheck<'_> {
    fn eq(&self, other: &Self) -> bool {
        (&self.group, &self.resource, &self.subresource, &self.namespace, &self.name)
            == (&other.group, &other.resource, &other.subresource, &other.namespace, &other.name)
    }
}

impl Eq for ResourceCheck<'_> {}

/// The type of `authorizer`.
pub fn authorizer_type() -> Type {
    Type::named("kubernetes.authorization.Authorizer")
}

/// The type of `authorizer.requestResource`.
pub fn resource_check_type() -> Type {
    Type::named("kubernetes.authorization.ResourceCheck")
}

/// Declares them.
pub fn declare(f: &mut Functions) {
    use Type::String;
    let authorizer = authorizer_type();
    let path_check = Type::named("kubernetes.authorization.PathCheck");
    let group_check = Type::named("kubernetes.authorization.GroupCheck");
    let resource_check = resource_check_type();
    let decision = Type::named("kubernetes.authorization.Decision");
    f.member("path", "authorizer_path", &[authorizer.clone(), String], path_check.clone(), Cost::Nominal, |args| {
        let path = not_empty(text(&args[1])?, "path must not be empty")?;
        match &args[0] {
            Value::Authorizer(authorizer) => {
                Ok(Value::PathCheck(Arc::new(PathCheck { authorizer: authorizer.clone(), path })))
            }
            _ => Err(Error::no_such_overload()),
        }
    });
    f.member("group", "authorizer_group", &[authorizer.clone(), String], group_check.clone(), Cost::Nominal, |args| {
        match &args[0] {
            Value::Authorizer(authorizer) => {
                let group = text(&args[1])?.to_owned();
                Ok(Value::GroupCheck(Arc::new(GroupCheck { authorizer: authorizer.clone(), group })))
            }
            _ => Err(Error::no_such_overload()),
        }
    });
    let args = [authorizer.clone(), String, String];
    f.member("serviceAccount", "authorizer_serviceaccount", &args, authorizer, Cost::Nominal, |args| {
        let (namespace, name) = (text(&args[1])?, text(&args[2])?);
        if !names::dns1123_subdomain(name).is_empty() {
            return Err(Error::new("Invalid service account name"));
        }
        if !names::dns1123_label(namespace).is_empty() {
            return Err(Error::new("Invalid service account namespace"));
        }
        match &args[0] {
            Value::Authorizer(authorizer) => Ok(Value::Authorizer(Authorizer {
                decider: authorizer.decider,
                service_account: Some(Arc::new((namespace.to_owned(), name.to_owned()))),
            })),
            _ => Err(Error::no_such_overload()),
        }
    });
    f.member(
        "resource",
        "groupcheck_resource",
        &[group_check, String],
        resource_check.clone(),
        Cost::Nominal,
        |args| {
            let resource = not_empty(text(&args[1])?, "resource must not be empty")?;
            match &args[0] {
                Value::GroupCheck(group) => Ok(group.authorizer.resource(&group.group, &resource, "", "", "")),
                _ => Err(Error::no_such_overload()),
            }
        },
    );
    refinements(f, &resource_check);
    f.member(
        "check",
        "pathcheck_check",
        &[path_check, String],
        decision.clone(),
        Cost::Authorize,
        |args| match &args[0] {
            Value::PathCheck(check) => {
                let request = Request::Path { path: &check.path, verb: text(&args[1])? };
                Ok(Value::Decision(Arc::new(check.authorizer.decide(&request))))
            }
            _ => Err(Error::no_such_overload()),
        },
    );
    f.member("check", "resourcecheck_check", &[resource_check, String], decision.clone(), Cost::Authorize, |args| {
        match &args[0] {
            Value::ResourceCheck(check) => {
                let request = Request::Resource { check, verb: text(&args[1])? };
                Ok(Value::Decision(Arc::new(check.authorizer.decide(&request))))
            }
            _ => Err(Error::no_such_overload()),
        }
    });
    let one = std::slice::from_ref(&decision);
    f.member("errored", "decision_errored", one, Type::Bool, Cost::Nominal, |args| {
        Ok(Value::Bool(decided(&args[0])?.error.is_some()))
    });
    f.member("error", "decision_error", one, String, Cost::Nominal, |args| {
        Ok(Value::text(decided(&args[0])?.error.as_deref().unwrap_or_default()))
    });
    f.member("allowed", "decision_allowed", one, Type::Bool, Cost::Nominal, |args| {
        Ok(Value::Bool(decided(&args[0])?.allowed))
    });
    f.member("reason", "decision_reason", one, String, Cost::Nominal, |args| {
        Ok(Value::text(decided(&args[0])?.reason.as_str()))
    });
}

/// What narrows a check of a resource.
macro_rules! refinement {
    ($f:expr, $of:expr, $function:literal, $id:literal, $cost:ident, $field:ident) => {
        $f.member($function, $id, &[$of.clone(), Type::String], $of.clone(), Cost::$cost, |args| match &args[0] {
            Value::ResourceCheck(check) => {
                let mut check = ResourceCheck::clone(check);
                check.$field = text(&args[1])?.to_owned();
                Ok(Value::ResourceCheck(Arc::new(check)))
            }
            _ => Err(Error::no_such_overload()),
        });
    };
}

fn refinements(f: &mut Functions, of: &Type) {
    refinement!(f, of, "subresource", "resourcecheck_subresource", Nominal, subresource);
    refinement!(f, of, "namespace", "resourcecheck_namespace", Nominal, namespace);
    refinement!(f, of, "name", "resourcecheck_name", Nominal, name);
    refinement!(f, of, "fieldSelector", "authorizer_fieldselector", Selector, field_selector);
    refinement!(f, of, "labelSelector", "authorizer_labelselector", Selector, label_selector);
}

fn not_empty(text: &str, message: &'static str) -> Result<String, Error> {
    if text.trim().is_empty() { Err(Error::new(message)) } else { Ok(text.to_owned()) }
}

fn decided<'v>(value: &'v Value<'_>) -> Result<&'v Decision, Error> {
    match value {
        Value::Decision(decision) => Ok(decision),
        _ => Err(Error::no_such_overload()),
    }
}
