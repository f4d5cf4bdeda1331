//! [`Interned`]: a value that many objects have in common, in memory once.
//!
//! Ten thousand replicas have the same labels, the same owner and the same containers. Informers decode them ten
//! thousand times; each decoded copy is given up for the one that was seen before.
//!
//! What was seen is remembered by each thread, a few values of each type, the newest of equal hash. That needs no
//! lock, holds on to nothing for long, and finds nearly everything where objects come one after another.

use std::any::{Any, TypeId};
use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use ahash::RandomState;
use apimachinery::labels::Labels;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Values remembered of a type: a power of two.
const REMEMBERED: usize = 256;

/// A value that is shared with those equal to it. Changing it makes a copy where it is shared.
#[derive(Debug, Clone)]
pub struct Interned<T>(Arc<T>);

/// What a thread has seen lately of one type.
struct Recent<T> {
    hashes: RandomState,
    slots: Vec<Option<Arc<T>>>,
}

thread_local! {
    static SEEN: RefCell<HashMap<TypeId, Box<dyn Any>, RandomState>> = RefCell::default();
}

impl<T: Hash + Eq> Recent<T> {
    fn new() -> Self {
        Self { hashes: RandomState::new(), slots: (0..REMEMBERED).map(|_| None).collect() }
    }

    fn intern(&mut self, value: T) -> Arc<T> {
        let slot = &mut self.slots[self.hashes.hash_one(&value) as usize % REMEMBERED];
        match slot {
            Some(known) if **known == value => known.clone(),
            _ => slot.insert(Arc::new(value)).clone(),
        }
    }
}

impl<T: Hash + Eq + Send + Sync + 'static> Interned<T> {
    /// `value`, or the equal one that this thread has seen lately.
    pub fn new(value: T) -> Self {
        SEEN.with_borrow_mut(|seen| {
            let recent = seen.entry(TypeId::of::<T>()).or_insert_with(|| Box::new(Recent::<T>::new()));
            let recent = recent.downcast_mut::<Recent<T>>().expect("the key is the type");
            Self(recent.intern(value))
        })
    }

    /// Whether both are the same value in memory.
    pub fn is_shared_with(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl<T> Deref for Interned<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: Clone> DerefMut for Interned<T> {
    fn deref_mut(&mut self) -> &mut T {
        Arc::make_mut(&mut self.0)
    }
}

impl<T: Default + Hash + Eq + Send + Sync + 'static> Default for Interned<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

impl<T: PartialEq> PartialEq for Interned<T> {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0 == other.0
    }
}

impl<T: Eq> Eq for Interned<T> {}

impl<T: PartialEq> PartialEq<T> for Interned<T> {
    fn eq(&self, other: &T) -> bool {
        *self.0 == *other
    }
}

impl<T: Hash> Hash for Interned<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl<T: Hash + Eq + Send + Sync + 'static> From<T> for Interned<T> {
    fn from(value: T) -> Self {
        Self::new(value)
    }
}

impl<I, T: FromIterator<I> + Hash + Eq + Send + Sync + 'static> FromIterator<I> for Interned<T> {
    fn from_iter<It: IntoIterator<Item = I>>(items: It) -> Self {
        Self::new(items.into_iter().collect())
    }
}

impl<'a, T> IntoIterator for &'a Interned<T>
where
    &'a T: IntoIterator,
{
    type Item = <&'a T as IntoIterator>::Item;
    type IntoIter = <&'a T as IntoIterator>::IntoIter;

    fn into_iter(self) -> Self::IntoIter {
        (&*self.0).into_iter()
    }
}

impl<T: Labels> Labels for Interned<T> {
    fn label(&self, key: &str) -> Option<&str> {
        self.0.label(key)
    }
}

impl<T: Serialize> Serialize for Interned<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de, T: Deserialize<'de> + Hash + Eq + Send + Sync + 'static> Deserialize<'de> for Interned<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self::new(T::deserialize(deserializer)?))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    type Labels = Interned<BTreeMap<String, String>>;

    #[test]
    fn equal_values_are_one_until_they_are_changed() {
        let read = |text: &str| serde_json::from_str::<Labels>(text).expect("a map");
        let (one, mut two) = (read(r#"{"app":"web"}"#), read(r#"{"app":"web"}"#));
        assert!(one.is_shared_with(&two));
        two.insert("tier".into(), "front".into());
        assert!(!one.is_shared_with(&two) && one != two);
        assert_eq!(one.len(), 1, "a change is seen by nobody else");
        assert!(read(r#"{"app":"web"}"#).is_shared_with(&one), "nor by what is remembered");
        assert_eq!(serde_json::to_string(&two).expect("a map"), r#"{"app":"web","tier":"front"}"#);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let first: Interned<usize> = Interned::new(0);
        for number in 1..100 * REMEMBERED {
            let other = Interned::new(number);
            assert_eq!(*other, number);
        }
        assert_eq!(*first, 0);
        SEEN.with_borrow(|seen| {
            let recent = seen[&TypeId::of::<usize>()].downcast_ref::<Recent<usize>>().expect("the key is the type");
            assert_eq!(recent.slots.len(), REMEMBERED);
        });
    }
}
