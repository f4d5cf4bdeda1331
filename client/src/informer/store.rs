//! What an informer knows: objects by key, and indexes over them.

use std::collections::HashMap;
use std::sync::Arc;

use ahash::RandomState;
use parking_lot::RwLock;

use crate::meta::{Meta, ObjectKey};

type Map<K, V> = HashMap<K, V, RandomState>;
type IndexFn<T> = Arc<dyn Fn(&T) -> Vec<String> + Send + Sync>;

/// A shared, readable cache. Clones share it. No lock is ever held across I/O.
pub struct Store<T> {
    inner: Arc<RwLock<Inner<T>>>,
}

impl<T> Clone for Store<T> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone() }
    }
}

struct Inner<T> {
    /// An object's key is in memory once, however many indexes name it.
    items: Map<Arc<ObjectKey>, Arc<T>>,
    indexes: Map<&'static str, Index<T>>,
}

struct Index<T> {
    function: IndexFn<T>,
    values: Map<String, Map<Arc<ObjectKey>, Arc<T>>>,
}

impl<T> Index<T> {
    fn insert(&mut self, key: &Arc<ObjectKey>, object: &Arc<T>) {
        self.put(key, object, (self.function)(object));
    }

    fn put(&mut self, key: &Arc<ObjectKey>, object: &Arc<T>, values: Vec<String>) {
        for value in values {
            self.values.entry(value).or_default().insert(key.clone(), object.clone());
        }
    }

    fn remove(&mut self, key: &ObjectKey, object: &T) {
        let values = (self.function)(object);
        self.take(key, &values);
    }

    fn take(&mut self, key: &ObjectKey, values: &[String]) {
        for value in values {
            if let Some(members) = self.values.get_mut(value) {
                members.remove(key);
                if members.is_empty() {
                    self.values.remove(value);
                }
            }
        }
    }

    /// Most changes of an object leave it where it was.
    fn replace(&mut self, key: &Arc<ObjectKey>, old: &T, new: &Arc<T>) {
        let (before, after) = ((self.function)(old), (self.function)(new));
        if before != after {
            self.take(key, &before);
            return self.put(key, new, after);
        }
        for value in &after {
            if let Some(member) = self.values.get_mut(value).and_then(|members| members.get_mut(&**key)) {
                *member = new.clone();
            }
        }
    }
}

impl<T: Meta> Default for Store<T> {
    fn default() -> Self {
        Self { inner: Arc::new(RwLock::new(Inner { items: Map::default(), indexes: Map::default() })) }
    }
}

impl<T: Meta> Store<T> {
    pub fn get(&self, key: &ObjectKey) -> Option<Arc<T>> {
        self.inner.read().items.get(key).cloned()
    }

    /// By namespace (empty for cluster-scoped) and name.
    pub fn get_named(&self, namespace: &str, name: &str) -> Option<Arc<T>> {
        self.get(&ObjectKey::new(namespace, name))
    }

    /// All objects, in no order.
    pub fn list(&self) -> Vec<Arc<T>> {
        self.inner.read().items.values().cloned().collect()
    }

    pub fn keys(&self) -> Vec<ObjectKey> {
        self.inner.read().items.keys().map(|key| ObjectKey::clone(key)).collect()
    }

    pub fn len(&self) -> usize {
        self.inner.read().items.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The objects whose index function named this value.
    ///
    /// # Panics
    /// When no such index was added: a programming error.
    pub fn by_index(&self, index: &str, value: &str) -> Vec<Arc<T>> {
        let inner = self.inner.read();
        let index = inner.indexes.get(index).unwrap_or_else(|| panic!("no index {index:?}"));
        index.values.get(value).map(|members| members.values().cloned().collect()).unwrap_or_default()
    }

    /// How many objects the index function named this value for.
    pub fn count_index(&self, index: &str, value: &str) -> usize {
        let inner = self.inner.read();
        inner.indexes.get(index).and_then(|index| index.values.get(value)).map_or(0, Map::len)
    }

    /// All values of an index.
    pub fn index_values(&self, index: &str) -> Vec<String> {
        self.inner.read().indexes.get(index).map(|index| index.values.keys().cloned().collect()).unwrap_or_default()
    }

    /// Adds an index; one of the same name stays as it is, because its function is the same wherever
    /// the name is used.
    pub fn add_index(&self, name: &'static str, function: impl Fn(&T) -> Vec<String> + Send + Sync + 'static) {
        let mut inner = self.inner.write();
        if inner.indexes.contains_key(name) {
            return;
        }
        let mut index = Index { function: Arc::new(function), values: Map::default() };
        for (key, object) in &inner.items {
            index.insert(key, object);
        }
        inner.indexes.insert(name, index);
    }

    /// Puts an object in; answers the one it replaced. Public for tests of readers.
    pub fn insert(&self, object: Arc<T>) -> Option<Arc<T>> {
        let key = object.key();
        let mut inner = self.inner.write();
        let inner = &mut *inner;
        // The key that is there already is shared with the indexes.
        let (key, old) = match inner.items.get_key_value(&key).map(|(key, _)| key.clone()) {
            Some(key) => {
                let old = inner.items.insert(key.clone(), object.clone());
                (key, old)
            }
            None => {
                let key = Arc::new(key);
                inner.items.insert(key.clone(), object.clone());
                (key, None)
            }
        };
        for index in inner.indexes.values_mut() {
            match &old {
                Some(old) => index.replace(&key, old, &object),
                None => index.insert(&key, &object),
            }
        }
        old
    }

    /// Takes an object out. Public for tests of readers.
    pub fn remove(&self, key: &ObjectKey) -> Option<Arc<T>> {
        let mut inner = self.inner.write();
        let old = inner.items.remove(key)?;
        for index in inner.indexes.values_mut() {
            index.remove(key, &old);
        }
        Some(old)
    }
}
