//! Rows made from CustomResourceDefinitions: what `table.rs` is to built-in kinds, at run time.
//!
//! A [`Definition`] is one object of `apiextensions.k8s.io`, read once and shared by the rows of its
//! versions; schemas are compiled when the first object of a version comes by, so a thousand
//! definitions that nobody uses cost little more than their bytes. [`Rows`] is the snapshot the
//! registry serves from; `crate::extensions` follows the definitions and replaces it.

pub mod convert;
mod decode;
mod definition;
mod rows;
mod strategy;

use std::sync::Arc;

use api::custom::Node;
use api::custom::columns::Columns;
use apimachinery::gotext;
use apimachinery::object::ObjectExt as _;
use apimachinery::schema::TypeRef;
use apimachinery::status::Status;
use bytes::Bytes;
use serde_json::Value;

use super::Served;
use crate::cache::Entry;
use crate::response::encode::{FORM_JSON, form};
pub use convert::Reviewer;
pub use definition::{Definition, Scale, Version, Webhook};
pub use rows::{Row, Rows};
pub use strategy::{CustomResource, nested};

/// What a row made from a definition knows besides its [`api::Resource`].
pub struct Custom {
    pub definition: Arc<Definition>,
    /// Which of the definition's versions this row serves.
    pub at: usize,
    /// The definition is being deleted: nothing new may be created.
    pub terminating: bool,
}

impl Custom {
    /// The version served.
    pub fn version(&self) -> &Version {
        &self.definition.versions[self.at]
    }

    /// The schema of the version; `None` without one.
    pub fn node(&self) -> Option<&Node> {
        self.definition.node(self.at)
    }

    /// The version as a type, for server-side apply.
    pub fn schema(&self) -> TypeRef<'_> {
        self.definition.type_ref(self.at)
    }

    /// The columns of Tables.
    pub fn columns(&self) -> &Columns {
        self.definition.columns(self.at)
    }

    /// Notes that an entry was written through this row, pruned and defaulted as it must be.
    pub fn wrote(&self, served: &Served, entry: &Entry) {
        if self.at == self.definition.storage {
            entry.encodings.put(form(served, FORM_JSON), entry.json().clone());
        }
    }

    /// An entry's JSON in this version, without asking anybody. Entries that a webhook has to
    /// convert are seen to by [`Custom::prepare`] first; if one was not, it is shown as it is stored.
    pub fn local_form(&self, entry: &Entry) -> Bytes {
        let stored = entry.tree();
        let at = self.definition.version_of(&stored);
        let mut tree = decode::settle_stored(&self.definition, at.unwrap_or(self.at), stored.clone());
        if at != Some(self.at) && !self.definition.has_webhook() {
            tree = convert::rename(&self.definition, tree, self.at);
        }
        if tree == stored {
            return entry.json().clone();
        }
        Bytes::from(apimachinery::json::to_vec(&tree))
    }

    /// Converts those of the entries that a webhook has to convert, all at once.
    ///
    /// # Errors
    /// When the webhook fails.
    pub async fn prepare(&self, served: &Served, entries: &[Arc<Entry>]) -> Result<(), Status> {
        if !self.definition.has_webhook() {
            return Ok(());
        }
        let key = form(served, FORM_JSON);
        let mut waiting = Vec::new();
        for entry in entries.iter().filter(|entry| entry.encodings.get(key).is_none()) {
            let stored = entry.tree();
            match self.definition.version_of(&stored) {
                Some(at) if at != self.at => {
                    waiting.push((entry, decode::settle_stored(&self.definition, at, stored)));
                }
                _ => entry.encodings.put(key, self.local_form(entry)),
            }
        }
        if waiting.is_empty() {
            return Ok(());
        }
        let (entries, trees): (Vec<_>, Vec<_>) = waiting.into_iter().unzip();
        let converted = convert::convert(&self.definition, trees, self.at).await?;
        for (entry, tree) in entries.into_iter().zip(converted) {
            entry.encodings.put(key, Bytes::from(apimachinery::json::to_vec(&tree)));
        }
        Ok(())
    }

    /// An object of the pipeline in this version, for a review: without a conversion webhook only its name changes, so
    /// that nothing is lost on the way back.
    ///
    /// # Errors
    /// As [`Custom::read`].
    pub async fn under_review(&self, mut object: Value) -> Result<Value, Status> {
        if self.definition.has_webhook() {
            return self.present(object).await;
        }
        object.set_api_version(&self.definition.api_version(self.at));
        Ok(object)
    }

    /// What a review in whatever version made of an object, in this version: without what its schema does not know.
    ///
    /// # Errors
    /// As [`Custom::read`].
    pub async fn reviewed(&self, object: Value) -> Result<Value, Status> {
        if self.definition.has_webhook() && self.definition.version_of(&object) != Some(self.at) {
            return self.present(object).await;
        }
        Ok(convert::rename(&self.definition, object, self.at))
    }

    /// Checks that what a review made of an object can become one of version `wanted`: of its kind it is judged later.
    ///
    /// # Errors
    /// 500 in upstream's words.
    pub fn still_fits(&self, object: &Value, wanted: &str) -> Result<(), Status> {
        let (api_version, kind) = (object.api_version(), object.kind());
        if kind.is_empty() {
            let text = gotext::json(object);
            return Err(Status::internal(format!("Object 'Kind' is missing in '{text}'")));
        }
        let unfit = |text: String| Err(Status::failure(500, "", text));
        let group = &self.definition.group;
        let (own, version) = api_version.split_once('/').unwrap_or(("", api_version));
        if own != &**group {
            return unfit(format!(
                "{own}/{version}, Kind={kind} is unstructured and is not suitable for converting to \"{group}/{wanted}\""
            ));
        }
        if self.definition.version_of(object).is_none() {
            return unfit(format!("request to convert CR from an invalid group/version: {api_version}"));
        }
        Ok(())
    }

    /// Sets the defaults of this version in what a review made of an object.
    ///
    /// # Errors
    /// When its metadata is malformed.
    pub fn settle_reviewed(&self, object: &mut Value) -> Result<(), String> {
        decode::settle_reviewed(self.node(), object)
    }

    /// A stored object's tree in this version.
    ///
    /// # Errors
    /// When a webhook fails to convert it.
    pub async fn read(&self, served: &Served, entry: &Arc<Entry>) -> Result<Value, Status> {
        self.prepare(served, std::slice::from_ref(entry)).await?;
        Ok(crate::response::encode::entry_tree(served, entry))
    }

    /// A stored tree in this version.
    ///
    /// # Errors
    /// As [`Custom::read`].
    pub async fn present(&self, stored: Value) -> Result<Value, Status> {
        let Some(at) = self.definition.version_of(&stored) else { return Ok(stored) };
        let tree = decode::settle_stored(&self.definition, at, stored);
        self.convert(tree, at, self.at).await
    }

    /// An object of this version as it is to be stored.
    ///
    /// # Errors
    /// As [`Custom::read`].
    pub async fn write(&self, object: Value) -> Result<Value, Status> {
        self.convert(object, self.at, self.definition.storage).await
    }

    async fn convert(&self, object: Value, from: usize, to: usize) -> Result<Value, Status> {
        if from == to {
            return Ok(object);
        }
        if !self.definition.has_webhook() {
            return Ok(convert::rename(&self.definition, object, to));
        }
        let name = object.name().to_string();
        let mut converted = convert::convert(&self.definition, vec![object], to).await?;
        converted.pop().ok_or_else(|| Status::internal(format!("{name} was not converted")))
    }
}
