//! Who may fetch now: there are so many places, and namespaces have equal parts of them. While there is room each
//! namespace has as many as it asks for. When there is none, a namespace with more than its part gives way: its newest
//! fetch is put back, and a namespace with less gets the place. Pure: knows names and numbers, neither time nor sockets.

use std::collections::HashMap;
use std::hash::Hash;

use crate::proxy::limits::turns::Turns;

/// The places, who has them, and who waits.
#[derive(Debug)]
pub(crate) struct Places<T> {
    most: usize,
    turns: Turns<Box<str>, T>,
    waiting: HashMap<T, Vec<Asker>>,
    /// Who has a place, by whose part; the newest is the last.
    placed: Vec<(Box<str>, T, Vec<Asker>)>,
}

/// A namespace that waits for something.
#[derive(Debug)]
struct Asker {
    namespace: Box<str>,
    /// Whether it goes before what else the namespace waits for.
    urgent: bool,
}

/// What is to be done now.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step<T> {
    /// It has a place.
    Begin(T),
    /// It has lost its place, and waits again.
    GiveWay(T),
}

impl<T: Clone + Eq + Hash> Places<T> {
    /// So many places.
    pub(crate) fn new(most: usize) -> Self {
        Self { most, turns: Turns::default(), waiting: HashMap::new(), placed: Vec::new() }
    }

    /// Something waits for a place, by the part of any of these namespaces; it is not here yet.
    pub(crate) fn wait<'a>(&mut self, one: &T, namespaces: impl IntoIterator<Item = &'a str>) {
        let ask = |namespace: &str| Asker { namespace: namespace.into(), urgent: false };
        let askers: Vec<Asker> = namespaces.into_iter().map(ask).collect();
        for asker in &askers {
            self.turns.push_back(asker.namespace.clone(), one.clone());
        }
        self.waiting.insert(one.clone(), askers);
    }

    /// Somebody of this namespace waits for it: if it has no place yet, it is the next of the namespace.
    pub(crate) fn hurry(&mut self, one: &T, namespace: &str) {
        let Some(askers) = self.waiting.get_mut(one) else { return };
        match askers.iter_mut().find(|asker| &*asker.namespace == namespace) {
            Some(asker) if asker.urgent => return,
            Some(asker) => {
                asker.urgent = true;
                self.turns.remove(&asker.namespace, |waits| waits == one);
            }
            None => askers.push(Asker { namespace: namespace.into(), urgent: true }),
        }
        self.turns.push_front(namespace.into(), one.clone());
    }

    /// The next step, until there is none.
    pub(crate) fn step(&mut self) -> Option<Step<T>> {
        // Of those with equally few, the first in turn.
        let namespace = self.turns.keys().min_by_key(|namespace| self.held(namespace))?.clone();
        if self.placed.len() < self.most {
            return self.begin(namespace);
        }
        let (largest, most) =
            self.placed.iter().map(|(owner, _, _)| (owner, self.held(owner))).max_by_key(|(_, held)| *held)?;
        // Otherwise the two would only change places.
        if self.held(&namespace) + 1 >= most {
            return None;
        }
        let newest = self.placed.iter().rposition(|(owner, _, _)| owner == largest)?;
        let (_, one, askers) = self.placed.remove(newest);
        for asker in &askers {
            self.turns.push_front(asker.namespace.clone(), one.clone());
        }
        self.waiting.insert(one.clone(), askers);
        Some(Step::GiveWay(one))
    }

    fn begin(&mut self, namespace: Box<str>) -> Option<Step<T>> {
        let one = self.turns.next_of(&namespace)?;
        let askers = self.waiting.remove(&one).unwrap_or_default();
        for other in askers.iter().filter(|asker| asker.namespace != namespace) {
            self.turns.remove(&other.namespace, |waits| *waits == one);
        }
        self.placed.push((namespace, one.clone(), askers));
        Some(Step::Begin(one))
    }

    /// Places by the part of a namespace.
    fn held(&self, namespace: &str) -> usize {
        self.placed.iter().filter(|(owner, _, _)| &**owner == namespace).count()
    }

    /// It needs no place any longer, whether it has one or waits.
    pub(crate) fn remove(&mut self, one: &T) {
        self.placed.retain(|(_, placed, _)| placed != one);
        for asker in self.waiting.remove(one).unwrap_or_default() {
            self.turns.remove(&asker.namespace, |waits| waits == one);
        }
    }

    #[cfg(test)]
    fn is_empty(&self) -> bool {
        self.turns.is_empty() && self.waiting.is_empty() && self.placed.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: usize = 16;

    fn begun(places: &mut Places<u32>) -> Vec<Step<u32>> {
        std::iter::from_fn(|| places.step()).collect()
    }

    #[test]
    fn while_there_is_room_one_namespace_has_it_all_and_another_gets_its_part_at_once() {
        let mut places = Places::new(MOST);
        for one in 0..320 {
            places.wait(&one, ["greedy"]);
        }
        assert_eq!(begun(&mut places), (0..16).map(Step::Begin).collect::<Vec<_>>());
        places.wait(&1000, ["modest"]);
        assert_eq!(begun(&mut places), [Step::GiveWay(15), Step::Begin(1000)]);
        // What gave way is the next of its namespace, and nothing of the other waits behind it.
        places.remove(&1000);
        assert_eq!(begun(&mut places), [Step::Begin(15)]);
        for one in 2000..2010 {
            places.wait(&one, ["modest"]);
        }
        let steps = begun(&mut places);
        assert_eq!(steps.iter().filter(|step| matches!(step, Step::GiveWay(_))).count(), 8, "{steps:?}");
        assert_eq!((places.held("greedy"), places.held("modest")), (8, 8));
    }

    #[test]
    fn what_two_namespaces_name_waits_for_the_better_of_their_turns() {
        let mut places = Places::new(2);
        for one in 0..3 {
            places.wait(&one, ["greedy"]);
        }
        assert_eq!(begun(&mut places), [0, 1].map(Step::Begin));
        places.wait(&9, ["greedy", "modest"]);
        assert_eq!(begun(&mut places), [Step::GiveWay(1), Step::Begin(9)], "by the part of the one that has none");
        places.remove(&9);
        assert_eq!(begun(&mut places), [Step::Begin(1)], "nothing waits for it any longer");
        for one in [0, 1, 2] {
            places.remove(&one);
        }
        assert!(places.is_empty(), "{places:?}");
    }

    #[test]
    fn what_somebody_waits_for_is_the_next_of_its_namespace() {
        let mut places = Places::new(1);
        for one in 0..4 {
            places.wait(&one, ["a"]);
        }
        begun(&mut places);
        places.hurry(&3, "a");
        places.hurry(&3, "a");
        places.hurry(&2, "b");
        places.hurry(&0, "a");
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
    fn whatever_is_asked_for_a_namespace_with_less_than_its_part_never_waits() {
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
                        places.wait(&one, [&*first].into_iter().chain(both.then_some(&*second)));
                        live.push(one);
                    }
                    3 if !live.is_empty() => {
                        let at = usize::try_from(pick(live.len() as u64)).unwrap();
                        places.hurry(&live[at], &name(pick(namespaces)));
                    }
                    _ if !live.is_empty() => {
                        let at = usize::try_from(pick(live.len() as u64)).unwrap();
                        places.remove(&live.swap_remove(at));
                    }
                    _ => {}
                }
                assert!(begun(&mut places).len() <= 2 * most + 2, "{round}: it comes to rest");
                let held = |namespace: &str| places.held(namespace);
                let largest = places.placed.iter().map(|(owner, _, _)| held(owner)).max().unwrap_or(0);
                for waits in places.turns.keys() {
                    assert!(places.placed.len() == most && held(waits) + 1 >= largest, "{round}: {waits} {places:?}");
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
            assert!(places.is_empty(), "{round}: {places:?}");
        }
    }
}
