//! The custom rows of one moment.

use std::sync::Arc;

use super::super::{Path, Served, path};
use super::Definition;

/// A definition and the rows it has.
#[derive(Clone)]
pub struct Row {
    pub definition: Arc<Definition>,
    /// One for each served version.
    pub served: Vec<Arc<Served>>,
    /// Discovery shows it.
    pub established: bool,
    /// It is being deleted.
    pub terminating: bool,
}

/// All custom rows. Cheap to clone: a change copies little more than what it changes.
#[derive(Clone, Default)]
pub struct Rows {
    by_path: imbl::HashMap<Path, Arc<Served>>,
    by_name: imbl::OrdMap<String, Row>,
    next_ordinal: u32,
    generation: u64,
}

impl Rows {
    /// No rows; ordinals begin after the built-in ones.
    pub fn new(built_in: usize) -> Rows {
        Rows { next_ordinal: u32::try_from(built_in).unwrap_or_default(), ..Rows::default() }
    }

    pub(in super::super) fn find(&self, path: &Path) -> Option<&Arc<Served>> {
        self.by_path.get(path)
    }

    /// Whether anything of the group and version is served.
    pub fn serves(&self, group: &str, version: &str) -> bool {
        self.served().any(|served| served.resource.group == group && served.resource.version == version)
    }

    /// Changes with every change of the rows.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Every row, by definition.
    pub fn rows(&self) -> impl Iterator<Item = &Row> {
        self.by_name.values()
    }

    /// The rows of a definition, by its name (`plural.group`).
    pub fn row(&self, name: &str) -> Option<&Row> {
        self.by_name.get(name)
    }

    fn served(&self) -> impl Iterator<Item = &Arc<Served>> {
        self.by_name.values().flat_map(|row| &row.served)
    }

    /// What discovery shows, in its order.
    pub fn discovered(&self) -> Vec<Arc<Served>> {
        let established = self.by_name.values().filter(|row| row.established);
        let mut rows: Vec<Arc<Served>> = established.flat_map(|row| row.served.iter().cloned()).collect();
        rows.sort_by(|a, b| {
            let (a, b) = (&a.resource, &b.resource);
            a.group
                .cmp(&b.group)
                .then_with(|| api::discovery::compare_versions(&a.version, &b.version))
                .then_with(|| a.plural.cmp(&b.plural))
        });
        rows
    }

    /// A number that no row ever had.
    pub fn ordinal(&mut self) -> u32 {
        let ordinal = self.next_ordinal;
        self.next_ordinal += 1;
        ordinal
    }

    /// Puts the rows of a definition in the place of those it had.
    pub fn put(&mut self, row: Row) {
        self.remove(&row.definition.name.clone());
        for served in &row.served {
            let resource = &served.resource;
            self.by_path.insert(path(&resource.group, &resource.version, &resource.plural), served.clone());
        }
        self.by_name.insert(row.definition.name.clone(), row);
        self.generation += 1;
    }

    /// Takes the rows of a definition out.
    pub fn remove(&mut self, name: &str) -> Option<Row> {
        let row = self.by_name.remove(name)?;
        for served in &row.served {
            let resource = &served.resource;
            self.by_path.remove(&path(&resource.group, &resource.version, &resource.plural));
        }
        self.generation += 1;
        Some(row)
    }
}
