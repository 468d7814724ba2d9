//! Which key sets changed since when, so that a connection can be judged by the key that admitted it. Knows sets that were
//! read: one that cannot be fetched or read changes nothing.
//!
//! Replicas learn of a rotation at different times. A ticket may be of a key that this replica has not seen yet, so a key
//! has left only by a change of the set that came after the handshake.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::policy::authentication::KeySource;
use crate::policy::keys::KeySet;

/// The sets that routes name. Clones are the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rotation(Arc<State>);

#[derive(Debug, Default)]
struct State {
    sets: Mutex<HashMap<KeySource, Set>>,
    /// Counts the changes of all sets.
    changes: watch::Sender<u64>,
}

#[derive(Debug)]
struct Set {
    keys: Arc<KeySet>,
    /// The number of its last change.
    change: u64,
}

impl Rotation {
    fn sets(&self) -> MutexGuard<'_, HashMap<KeySource, Set>> {
        self.0.sets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of the last change.
    pub(crate) fn last(&self) -> u64 {
        *self.0.changes.borrow()
    }

    /// Tells each change.
    pub(crate) fn changed(&self) -> watch::Receiver<u64> {
        self.0.changes.subscribe()
    }

    /// A set is this one by now.
    pub(crate) fn read(&self, source: &KeySource, keys: &Arc<KeySet>) {
        let mut sets = self.sets();
        if sets.get(source).is_some_and(|set| Arc::ptr_eq(&set.keys, keys) || set.keys == *keys) {
            return;
        }
        let change = self.last() + 1;
        sets.insert(source.clone(), Set { keys: Arc::clone(keys), change });
        // Under the lock, so that whoever has seen the number finds the set.
        self.0.changes.send_replace(change);
    }

    /// These are the sets of objects by now, and what routes name besides.
    pub(crate) fn follow(&self, local: &BTreeMap<KeySource, Arc<KeySet>>, is_named: impl Fn(&str) -> bool) {
        self.sets().retain(|source, _| match source {
            KeySource::Local { .. } => local.contains_key(source),
            KeySource::Remote(uri) => is_named(uri),
        });
        local.iter().for_each(|(source, keys)| self.read(source, keys));
    }

    /// Whether a change after the one with the number `seen` took the key of this thumbprint out of its set.
    pub(crate) fn has_left(&self, source: &KeySource, key: &str, seen: u64) -> bool {
        self.sets().get(source).is_some_and(|set| set.change > seen && !set.keys.has(key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POINTS: [&str; 2] =
        ["11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo", "O2onvM62pC1io6jQKm8Nc2UyFXcd4kOmOsBIoYtZ2ik"];

    /// A set of these points, and the thumbprint of the first.
    fn set(points: &[&str]) -> (Arc<KeySet>, String) {
        let keys: Vec<_> = points.iter().map(|x| format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{x}"}}"#)).collect();
        let set = KeySet::parse(format!(r#"{{"keys":[{}]}}"#, keys.join(",")).as_bytes(), false).unwrap();
        let key = set.find(jsonwebtoken::Algorithm::EdDSA, None).next().map(|(_, key)| key.to_owned()).unwrap();
        (Arc::new(set), key)
    }

    fn local() -> KeySource {
        let name = |name: &str| name.into();
        KeySource::Local { namespace: Some(name("shop")), name: name("idp"), key: name("jwks.json"), secret: false }
    }

    #[test]
    fn a_key_has_left_by_a_change_that_came_after_the_handshake() {
        let (rotation, source) = (Rotation::default(), KeySource::Remote("https://idp.test/jwks".into()));
        let ((both, first), (second, _)) = (set(&POINTS), set(&POINTS[1..]));
        let mut changed = rotation.changed();
        rotation.read(&source, &both);
        let seen = rotation.last();
        assert!(changed.has_changed().unwrap() && !rotation.has_left(&source, &first, 0));
        changed.borrow_and_update();
        rotation.read(&source, &set(&POINTS).0);
        assert!(!changed.has_changed().unwrap(), "the same keys are no change");
        rotation.read(&source, &second);
        assert!(changed.has_changed().unwrap() && rotation.has_left(&source, &first, seen));
        // A handshake by a ticket of a replica that knows a newer set.
        assert!(!rotation.has_left(&source, &first, rotation.last()));
        rotation.read(&local(), &second);
        assert!(!rotation.has_left(&source, &first, rotation.last() - 1), "a change of another set says nothing");
    }

    #[test]
    fn a_set_that_cannot_be_read_removes_no_key_until_it_can() {
        let rotation = Rotation::default();
        let ((both, first), (second, _)) = (set(&POINTS), set(&POINTS[1..]));
        rotation.follow(&[(local(), both)].into(), |_| false);
        let seen = rotation.last();
        rotation.follow(&BTreeMap::new(), |_| false);
        assert!(!rotation.has_left(&local(), &first, seen));
        rotation.follow(&[(local(), second)].into(), |_| false);
        assert!(rotation.has_left(&local(), &first, seen));
        rotation.follow(&BTreeMap::new(), |_| false);
        assert!(rotation.sets().is_empty(), "what nobody names is forgotten");
    }
}
