//! The other versions of a kind, under which some of its managers wrote, and what changed in each.

use super::Request;
use crate::fieldset::{self, Comparison};
use crate::object::ObjectExt as _;
use crate::schema::TypeRef;
use serde_json::Value;
use std::borrow::Cow;

/// What managed fields must know of a kind's other versions.
pub trait Versions: Sync {
    /// The type of a version; `None` when it is not served any more: its entries are forgotten.
    fn type_of(&self, api_version: &str) -> Option<TypeRef<'_>>;

    /// An object of whatever version it says it is of in another one.
    ///
    /// # Errors
    /// When the conversion fails.
    fn convert(&self, object: &Value, api_version: &str) -> Result<Value, String>;
}

/// A kind of one version only.
#[derive(Clone, Copy, Debug, Default)]
pub struct OneVersion;

impl Versions for OneVersion {
    fn type_of(&self, _api_version: &str) -> Option<TypeRef<'_>> {
        None
    }

    fn convert(&self, _object: &Value, api_version: &str) -> Result<Value, String> {
        Err(format!("{api_version} is not served"))
    }
}

impl<'a> Request<'a> {
    pub(super) fn type_of(&self, api_version: &str) -> Option<TypeRef<'a>> {
        if api_version == self.api_version { Some(self.ty) } else { self.versions.type_of(api_version) }
    }

    /// The object in another version; the object itself when it is of that version already.
    pub(super) fn view<'v>(&self, object: &'v Value, api_version: &str) -> Result<Cow<'v, Value>, String> {
        let own = object.api_version();
        if own == api_version || (own.is_empty() && api_version == self.api_version) {
            return Ok(Cow::Borrowed(object));
        }
        self.versions.convert(object, api_version).map(Cow::Owned)
    }
}

/// What changed between two objects, in each version that a manager used. Made as far as asked for.
pub(super) struct Changes<'a, 'b> {
    old: &'a Value,
    new: &'a Value,
    request: &'a Request<'b>,
    known: Vec<(String, Option<Comparison>)>,
}

impl<'a, 'b> Changes<'a, 'b> {
    /// `own` is the comparison in the request's version, unfiltered.
    pub(super) fn new(old: &'a Value, new: &'a Value, request: &'a Request<'b>) -> Self {
        let own = fieldset::compare(old, new, request.ty).filtered(request.reset);
        Self { old, new, request, known: vec![(request.api_version.to_owned(), Some(own))] }
    }

    /// The changes in the request's version.
    pub(super) fn own(&self) -> &Comparison {
        self.known[0].1.as_ref().expect("the request's own version is there from the beginning")
    }

    /// As [`Changes::own`], for who asks for no other version.
    pub(super) fn into_own(self) -> Comparison {
        self.known.into_iter().next().and_then(|(_, own)| own).expect("as in `own`")
    }

    /// The changes in a version; `None` when it is not served any more.
    pub(super) fn in_version(&mut self, api_version: &str) -> Result<Option<&Comparison>, String> {
        let at = match self.known.iter().position(|(version, _)| version == api_version) {
            Some(at) => at,
            None => {
                let changes = match self.request.type_of(api_version) {
                    Some(ty) => {
                        let old = self.request.view(self.old, api_version)?;
                        let new = self.request.view(self.new, api_version)?;
                        Some(fieldset::compare(&old, &new, ty).filtered(self.request.reset))
                    }
                    None => None,
                };
                self.known.push((api_version.to_owned(), changes));
                self.known.len() - 1
            }
        };
        Ok(self.known[at].1.as_ref())
    }
}

impl Comparison {
    fn filtered(self, filter: &super::Filter) -> Self {
        Self {
            removed: filter.apply(self.removed),
            modified: filter.apply(self.modified),
            added: filter.apply(self.added),
            unidentified: self.unidentified,
        }
    }
}
