//! Who has a place now: there are so many, and keys have equal parts of them. While there is room each key has as many as
//! it asks for. When there is none, a key with more than its part gives way: it loses its newest place, and a key with less
//! gets it. Within its part, what somebody waits for goes first: for its sake the key gives up a place that nobody waits
//! for. Pure: knows keys and numbers, neither time nor what a place is for.

use std::collections::HashMap;
use std::hash::Hash;

use crate::proxy::limits::turns::Turns;

/// The places, who has them, and who waits.
#[derive(Debug)]
pub(crate) struct Places<K, T> {
    most: usize,
    turns: Turns<K, T>,
    waiting: HashMap<T, Vec<Asker<K>>>,
    /// Who has a place; the newest is the last.
    placed: Vec<Placed<K, T>>,
    /// How many places each key has; keys without one are not in it.
    held: HashMap<K, usize>,
    /// Whose the place is that was given up for something of the same key.
    kept: Option<K>,
}

/// A key by whose part something waits.
#[derive(Debug)]
struct Asker<K> {
    key: K,
    /// Whether it goes before what else waits by this key.
    urgent: bool,
}

/// What has a place, by the part of one of those that asked.
#[derive(Debug)]
struct Placed<K, T> {
    one: T,
    key: K,
    askers: Vec<Asker<K>>,
}

impl<K, T> Placed<K, T> {
    fn is_urgent(&self) -> bool {
        self.askers.iter().any(|asker| asker.urgent)
    }
}

/// What is to be done now.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step<T> {
    /// It has a place.
    Begin(T),
    /// It has lost its place, and waits again.
    GiveWay(T),
}

impl<K: Clone + Eq + Hash, T: Clone + Eq + Hash> Places<K, T> {
    /// So many places.
    pub(crate) fn new(most: usize) -> Self {
        Self {
            most,
            turns: Turns::default(),
            waiting: HashMap::new(),
            placed: Vec::new(),
            held: HashMap::new(),
            kept: None,
        }
    }

    /// Something waits for a place, by the part of any of these keys; it is not here yet.
    pub(crate) fn wait(&mut self, one: &T, keys: impl IntoIterator<Item = K>) {
        let askers: Vec<Asker<K>> = keys.into_iter().map(|key| Asker { key, urgent: false }).collect();
        for asker in &askers {
            self.turns.push_back(asker.key.clone(), one.clone());
        }
        self.waiting.insert(one.clone(), askers);
    }

    /// Somebody waits for it by this key: if it has no place yet, it is the next of the key.
    pub(crate) fn hurry(&mut self, one: &T, key: K) {
        let Some(askers) = self.waiting.get_mut(one) else {
            // It keeps its place for whoever waits.
            if let Some(placed) = self.placed.iter_mut().find(|placed| placed.one == *one) {
                match placed.askers.iter_mut().find(|asker| asker.key == key) {
                    Some(asker) => asker.urgent = true,
                    None => placed.askers.push(Asker { key, urgent: true }),
                }
            }
            return;
        };
        match askers.iter_mut().find(|asker| asker.key == key) {
            Some(asker) if asker.urgent => return,
            Some(asker) => {
                asker.urgent = true;
                self.turns.remove(&key, |waits| waits == one);
            }
            None => askers.push(Asker { key: key.clone(), urgent: true }),
        }
        self.turns.push_front(key, one.clone());
    }

    /// The next step, until there is none.
    pub(crate) fn step(&mut self) -> Option<Step<T>> {
        if let Some(key) = self.kept.take()
            && self.placed.len() < self.most
            && let Some(step) = self.begin(key)
        {
            return Some(step);
        }
        // Of those with equally few, the first in turn.
        let key = self.turns.keys().min_by_key(|key| self.held(key))?.clone();
        if self.placed.len() < self.most {
            return self.begin(key);
        }
        let (largest, most) = self.held.iter().max_by_key(|(_, held)| **held)?;
        // Otherwise the two would only change places.
        if self.held(&key) + 1 < *most {
            let newest = self.placed.iter().rposition(|placed| placed.key == *largest)?;
            return Some(self.give_way(newest));
        }
        let (at, key) = self.turns.keys().find_map(|key| {
            let urgent = self.turns.first(key).and_then(|first| self.waiting.get(first));
            urgent?.iter().any(|asker| asker.urgent && asker.key == *key).then_some(())?;
            let own = self.placed.iter().rposition(|placed| placed.key == *key && !placed.is_urgent());
            Some((own?, key.clone()))
        })?;
        self.kept = Some(key);
        Some(self.give_way(at))
    }

    /// What has this place waits again: behind the others of its keys, for it has had some of its time, unless somebody
    /// waits for it.
    fn give_way(&mut self, at: usize) -> Step<T> {
        let Placed { one, key, askers } = self.placed.remove(at);
        self.free(&key);
        for asker in &askers {
            let key = asker.key.clone();
            if asker.urgent { self.turns.push_front(key, one.clone()) } else { self.turns.push_back(key, one.clone()) }
        }
        self.waiting.insert(one.clone(), askers);
        Step::GiveWay(one)
    }

    fn begin(&mut self, key: K) -> Option<Step<T>> {
        let one = self.turns.next_of(&key)?;
        let askers = self.waiting.remove(&one).unwrap_or_default();
        for other in askers.iter().filter(|asker| asker.key != key) {
            self.turns.remove(&other.key, |waits| *waits == one);
        }
        *self.held.entry(key.clone()).or_default() += 1;
        self.placed.push(Placed { one: one.clone(), key, askers });
        Some(Step::Begin(one))
    }

    /// Places by the part of a key.
    fn held(&self, key: &K) -> usize {
        self.held.get(key).copied().unwrap_or(0)
    }

    fn free(&mut self, key: &K) {
        match self.held.get_mut(key) {
            Some(held) if *held > 1 => *held -= 1,
            _ => drop(self.held.remove(key)),
        }
    }

    /// It needs no place any longer, whether it has one or waits.
    pub(crate) fn remove(&mut self, one: &T) {
        if let Some(at) = self.placed.iter().position(|placed| placed.one == *one) {
            let placed = self.placed.remove(at);
            self.free(&placed.key);
        }
        for asker in self.waiting.remove(one).unwrap_or_default() {
            self.turns.remove(&asker.key, |waits| waits == one);
        }
    }

    /// Whether nothing has a place or waits for one.
    pub(crate) fn is_empty(&self) -> bool {
        self.placed.is_empty() && self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: usize = 16;

    fn begun(places: &mut Places<String, u32>) -> Vec<Step<u32>> {
        std::iter::from_fn(|| places.step()).collect()
    }

    #[test]
    fn while_there_is_room_one_key_has_it_all_and_another_gets_its_part_at_once() {
        let mut places = Places::new(MOST);
        for one in 0..320 {
            places.wait(&one, ["greedy".to_owned()]);
        }
        assert_eq!(begun(&mut places), (0..16).map(Step::Begin).collect::<Vec<_>>());
        places.wait(&1000, ["modest".to_owned()]);
        assert_eq!(begun(&mut places), [Step::GiveWay(15), Step::Begin(1000)]);
        // What gave way has had some of its time: the others of its key go first.
        places.remove(&1000);
        assert_eq!(begun(&mut places), [Step::Begin(16)]);
        for one in 2000..2010 {
            places.wait(&one, ["modest".to_owned()]);
        }
        let steps = begun(&mut places);
        assert_eq!(steps.iter().filter(|step| matches!(step, Step::GiveWay(_))).count(), 8, "{steps:?}");
        assert_eq!((places.held(&"greedy".to_owned()), places.held(&"modest".to_owned())), (8, 8));
    }

    #[test]
    fn what_two_keys_ask_for_waits_for_the_better_of_their_turns() {
        let mut places = Places::new(2);
        for one in 0..3 {
            places.wait(&one, ["greedy".to_owned()]);
        }
        assert_eq!(begun(&mut places), [0, 1].map(Step::Begin));
        places.wait(&9, ["greedy", "modest"].map(str::to_owned));
        assert_eq!(begun(&mut places), [Step::GiveWay(1), Step::Begin(9)], "by the part of the one that has none");
        places.remove(&9);
        assert_eq!(begun(&mut places), [Step::Begin(2)], "nothing waits for it any longer");
        for one in [0, 1, 2] {
            places.remove(&one);
        }
        assert!(places.is_empty(), "{places:?}");
    }

    #[test]
    fn what_somebody_waits_for_is_the_next_of_its_key() {
        let mut places = Places::new(1);
        for one in 0..4 {
            places.wait(&one, ["a".to_owned()]);
        }
        begun(&mut places);
        places.hurry(&3, "a".to_owned());
        places.hurry(&3, "a".to_owned());
        places.hurry(&2, "b".to_owned());
        places.hurry(&0, "a".to_owned());
        let mut order = Vec::new();
        for one in [0, 3, 2, 1] {
            places.remove(&one);
            order.extend(begun(&mut places));
        }
        // b has nothing and comes first in no turn: a's is older.
        assert_eq!(order, [3, 2, 1].map(Step::Begin));
        assert!(places.is_empty(), "{places:?}");
    }

    #[test]
    fn what_somebody_waits_for_takes_a_place_of_its_key_that_nobody_waits_for() {
        let mut places = Places::new(3);
        let key = |name: &str| name.to_owned();
        for (one, name) in [(0, "a"), (1, "a"), (2, "b"), (3, "a"), (4, "a"), (5, "b")] {
            places.wait(&one, [key(name)]);
        }
        assert_eq!(begun(&mut places), [0, 2, 1].map(Step::Begin));
        places.hurry(&4, key("a"));
        assert_eq!(begun(&mut places), [Step::GiveWay(1), Step::Begin(4)]);
        places.hurry(&0, key("a"));
        places.hurry(&3, key("a"));
        assert_eq!(begun(&mut places), [], "somebody waits for each that has a place");
        places.remove(&0);
        assert_eq!(begun(&mut places), [Step::Begin(5)], "it is b's turn, whose part is as large");
        places.hurry(&1, key("b"));
        assert_eq!(begun(&mut places), [Step::GiveWay(5), Step::Begin(1)], "by the part of b");
    }

    #[test]
    fn whatever_is_asked_for_a_key_with_less_than_its_part_never_waits() {
        let mut random: u64 = 17;
        let mut pick = |below: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) % below
        };
        for round in 0..200 {
            let (most, namespaces) = (1 + usize::try_from(pick(20)).unwrap(), 1 + pick(12));
            let (mut places, mut live) = (Places::new(most), Vec::new());
            for one in 0..300 {
                let name = |number: u64| format!("n{number}");
                match pick(5) {
                    // The first has as many as all others together.
                    0..3 => {
                        let (first, second) = (name(pick(2) * pick(namespaces)), name(pick(namespaces)));
                        let both = pick(4) == 0 && first != second;
                        places.wait(&one, [first].into_iter().chain(both.then_some(second)));
                        live.push(one);
                    }
                    3 if !live.is_empty() => {
                        let at = usize::try_from(pick(live.len() as u64)).unwrap();
                        places.hurry(&live[at], name(pick(namespaces)));
                    }
                    _ if !live.is_empty() => {
                        let at = usize::try_from(pick(live.len() as u64)).unwrap();
                        places.remove(&live.swap_remove(at));
                    }
                    _ => {}
                }
                assert!(begun(&mut places).len() <= 4 * most + 2, "{round}: it comes to rest");
                let largest = places.held.values().copied().max().unwrap_or(0);
                for waits in places.turns.keys() {
                    assert!(
                        places.placed.len() == most && places.held(waits) + 1 >= largest,
                        "{round}: {waits} {places:?}"
                    );
                }
                for placed in places.placed.iter().filter(|placed| !placed.is_urgent()) {
                    let first = places.turns.first(&placed.key).and_then(|first| places.waiting.get(first));
                    let urgent = first.is_some_and(|all| all.iter().any(|one| one.urgent && one.key == placed.key));
                    assert!(!urgent, "{round}: {placed:?} {places:?}");
                }
                assert_eq!(
                    places.placed.len() + places.waiting.len(),
                    live.len(),
                    "{round}: nothing is lost or doubled"
                );
            }
            for one in live {
                places.remove(&one);
            }
            assert!(places.is_empty() && places.held.is_empty(), "{round}: {places:?}");
        }
    }
}
