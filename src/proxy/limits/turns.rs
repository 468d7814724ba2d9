//! A queue in which keys take turns: however many wait for one key, another key waits for one of them. Knows keys and
//! what waits; not what they stand for, and no bound: whoever puts something in has one.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

/// What waits, by key.
#[derive(Debug)]
pub(crate) struct Turns<K, T> {
    /// The keys that something waits for, in the order in which they come.
    order: VecDeque<K>,
    waiting: HashMap<K, VecDeque<T>>,
}

impl<K, T> Default for Turns<K, T> {
    fn default() -> Self {
        Self { order: VecDeque::new(), waiting: HashMap::new() }
    }
}

impl<K: Hash + Eq + Clone, T> Turns<K, T> {
    /// Something more waits, behind the others of its key.
    pub(crate) fn push_back(&mut self, key: K, one: T) {
        self.of(key).push_back(one);
    }

    /// Something more waits, before the others of its key.
    pub(crate) fn push_front(&mut self, key: K, one: T) {
        self.of(key).push_front(one);
    }

    fn of(&mut self, key: K) -> &mut VecDeque<T> {
        if !self.waiting.contains_key(&key) {
            self.order.push_back(key.clone());
        }
        self.waiting.entry(key).or_default()
    }

    /// How many wait for this key.
    pub(crate) fn count(&self, key: &K) -> usize {
        self.waiting.get(key).map_or(0, VecDeque::len)
    }

    /// The first of the key whose turn it is.
    pub(crate) fn next(&mut self) -> Option<T> {
        let key = self.order.pop_front()?;
        self.first_of(key)
    }

    /// The keys that something waits for, in the order of their turns.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &K> {
        self.order.iter()
    }

    /// The first that waits for this key.
    pub(crate) fn first(&self, key: &K) -> Option<&T> {
        self.waiting.get(key)?.front()
    }

    /// The first of this key, which gives its turn up for it.
    pub(crate) fn next_of(&mut self, key: &K) -> Option<T> {
        let at = self.order.iter().position(|one| one == key)?;
        let key = self.order.remove(at)?;
        self.first_of(key)
    }

    /// The first that waits for a key that is not in `order`; the key goes to the end, if more waits for it.
    fn first_of(&mut self, key: K) -> Option<T> {
        let Entry::Occupied(mut own) = self.waiting.entry(key) else { return None };
        let next = own.get_mut().pop_front();
        if own.get().is_empty() {
            own.remove();
            self.shrink();
        } else {
            self.order.push_back(own.key().clone());
        }
        next
    }

    /// Nothing that is one of these waits for the key any longer.
    pub(crate) fn remove(&mut self, key: &K, gone: impl Fn(&T) -> bool) {
        let Some(own) = self.waiting.get_mut(key) else { return };
        own.retain(|one| !gone(one));
        if own.is_empty() {
            self.waiting.remove(key);
            self.order.retain(|one| one != key);
            self.shrink();
        }
    }

    /// Whether nothing waits.
    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// After a flood the memory goes back.
    fn shrink(&mut self) {
        if self.waiting.is_empty() {
            self.waiting.shrink_to_fit();
            self.order.shrink_to_fit();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turns(waiting: &[(&'static str, u32)]) -> Turns<&'static str, u32> {
        let mut turns = Turns::default();
        for (key, one) in waiting {
            turns.push_back(*key, *one);
        }
        turns
    }

    fn rest(mut turns: Turns<&'static str, u32>) -> Vec<u32> {
        std::iter::from_fn(|| turns.next()).collect()
    }

    #[test]
    fn keys_take_turns_and_what_waits_for_one_keeps_its_order() {
        assert_eq!(rest(turns(&[("a", 1), ("a", 2), ("a", 3), ("b", 4), ("c", 5), ("b", 6)])), [1, 4, 5, 2, 6, 3]);
        let mut turns = turns(&[("a", 1), ("b", 2)]);
        turns.push_front("b", 3);
        assert_eq!(rest(turns), [1, 3, 2]);
    }

    #[test]
    fn a_key_can_be_served_out_of_turn_and_what_is_removed_is_gone() {
        let mut turns = turns(&[("a", 1), ("a", 2), ("b", 3), ("b", 4), ("c", 5)]);
        assert_eq!((turns.next_of(&"b"), turns.next_of(&"x")), (Some(3), None));
        assert_eq!(turns.keys().copied().collect::<Vec<_>>(), ["a", "c", "b"]);
        turns.remove(&"c", |one| *one == 5);
        turns.remove(&"a", |one| *one == 1);
        assert_eq!(rest(turns), [2, 4]);
        assert!(turns_are_empty_after(&[("a", 1)]));
    }

    fn turns_are_empty_after(waiting: &[(&'static str, u32)]) -> bool {
        let mut turns = turns(waiting);
        while turns.next().is_some() {}
        turns.is_empty() && turns.waiting.is_empty()
    }
}
