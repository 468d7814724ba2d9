//! Shares: a bounded number of places for holders that compete. While there is room everybody gets what he asks for. When
//! all places are held, the holder that asks is compared with the holder that has most, level by level: first
//! namespaces, within one namespace its routes, and so on. If that holder has more than one place beyond what the asking
//! holder has, it loses a place and the asking holder gets it. Otherwise the asking holder is refused. So a holder with
//! less than an equal part is never refused.
//!
//! Taking and giving back cost the same however many hold places, and nothing is kept of a holder without a place.
//! Knows keys and numbers; not what they stand for.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use tokio::sync::oneshot;

/// The node above all holders.
const ROOT: u64 = 0;
/// From which size on a table gives memory back after a flood.
const LARGE: usize = 1024;

/// Which place a holder loses that has more than its part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Loses {
    /// The one that it took last: what has lasted goes on.
    Newest,
    /// The one that it took first, also to itself: for what is over within a moment unless something is wrong with it.
    Oldest,
}

/// Places that holders share. A holder is named by `N` keys, the widest first.
#[derive(Debug)]
pub(crate) struct Shares<K, const N: usize> {
    capacity: usize,
    loses: Loses,
    table: Mutex<Table<K>>,
}

/// What is held now.
#[derive(Debug)]
struct Table<K> {
    nodes: HashMap<u64, Node<K>>,
    children: HashMap<(u64, K), u64>,
    places: HashMap<u64, Place>,
    /// Places that can no longer be lost.
    kept: usize,
    /// The next number of a node or place.
    next: u64,
}

/// A holder, or all holders that share the first of their keys.
#[derive(Debug)]
struct Node<K> {
    parent: u64,
    key: Option<K>,
    /// Places of it and of all below it.
    count: usize,
    /// Where it stands among the children of its parent that have as many.
    at: usize,
    /// Its children, by how many places they have.
    equals: HashMap<usize, Vec<u64>>,
    /// The most places of a child.
    most: usize,
    newest: Option<u64>,
    oldest: Option<u64>,
}

/// One place of a holder.
#[derive(Debug)]
struct Place {
    holder: u64,
    newer: Option<u64>,
    older: Option<u64>,
    /// Dropped with the place, which tells the holder.
    _revoke: oneshot::Sender<()>,
}

impl<K> Node<K> {
    fn new(parent: u64, key: Option<K>) -> Self {
        Self { parent, key, count: 0, at: 0, equals: HashMap::new(), most: 0, newest: None, oldest: None }
    }
}

impl<K: Hash + Eq + Clone> Table<K> {
    fn new() -> Self {
        let nodes = HashMap::from([(ROOT, Node::new(ROOT, None))]);
        Self { nodes, children: HashMap::new(), places: HashMap::new(), kept: 0, next: ROOT + 1 }
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn held(&self) -> usize {
        self.places.len() + self.kept
    }

    fn child(&self, parent: u64, key: &K) -> Option<u64> {
        self.children.get(&(parent, key.clone())).copied()
    }

    /// The child with the most places.
    fn largest(&self, parent: u64) -> Option<u64> {
        let node = self.nodes.get(&parent)?;
        node.equals.get(&node.most)?.last().copied()
    }

    /// Who gives way to this holder: the lowest node, which has places of its own.
    fn gives_way(&self, path: &[K], loses: Loses) -> Option<u64> {
        let mut node = ROOT;
        for key in path {
            let own = self.child(node, key);
            let count = own.and_then(|own| self.nodes.get(&own)).map_or(0, |own| own.count);
            if self.nodes.get(&node)?.most > count + 1 {
                let mut lowest = node;
                while let Some(largest) = self.largest(lowest) {
                    lowest = largest;
                }
                return Some(lowest);
            }
            node = own?;
        }
        (loses == Loses::Oldest).then_some(node)
    }

    /// Counts one more or one less for a node and all above it; a node without places goes.
    fn count(&mut self, mut id: u64, more: bool) {
        loop {
            let Some(node) = self.nodes.get_mut(&id) else { return };
            let (parent, before, at) = (node.parent, node.count, node.at);
            let after = if more { before + 1 } else { before - 1 };
            node.count = after;
            if id == ROOT {
                return;
            }
            let Some(above) = self.nodes.get_mut(&parent) else { return };
            let mut moved = None;
            if let Some(equals) = above.equals.get_mut(&before) {
                equals.swap_remove(at);
                moved = equals.get(at).copied();
                if equals.is_empty() {
                    above.equals.remove(&before);
                }
            }
            let mut place = 0;
            if after > 0 {
                let equals = above.equals.entry(after).or_default();
                equals.push(id);
                place = equals.len() - 1;
            }
            // A count changes by one, so the most does.
            if after > above.most || (before == above.most && !above.equals.contains_key(&before)) {
                above.most = after;
            }
            if let Some(moved) = moved.and_then(|moved| self.nodes.get_mut(&moved)) {
                moved.at = at;
            }
            if let Some(node) = self.nodes.get_mut(&id) {
                node.at = place;
            }
            if after == 0
                && let Some(Node { key: Some(key), .. }) = self.nodes.remove(&id)
            {
                self.children.remove(&(parent, key));
            }
            id = parent;
        }
    }

    fn insert(&mut self, place: u64, path: &[K], revoke: oneshot::Sender<()>) {
        let mut holder = ROOT;
        for key in path {
            holder = match self.child(holder, key) {
                Some(child) => child,
                None => {
                    let id = self.number();
                    self.nodes.insert(id, Node::new(holder, Some(key.clone())));
                    self.children.insert((holder, key.clone()), id);
                    id
                }
            };
        }
        let mut older = None;
        if let Some(node) = self.nodes.get_mut(&holder) {
            older = node.newest.replace(place);
            node.oldest.get_or_insert(place);
        }
        if let Some(older) = older.and_then(|older| self.places.get_mut(&older)) {
            older.newer = Some(place);
        }
        self.places.insert(place, Place { holder, newer: None, older, _revoke: revoke });
        self.count(holder, true);
    }

    fn remove(&mut self, place: u64) -> Option<Place> {
        let removed = self.places.remove(&place)?;
        if let Some(newer) = removed.newer.and_then(|newer| self.places.get_mut(&newer)) {
            newer.older = removed.older;
        }
        if let Some(older) = removed.older.and_then(|older| self.places.get_mut(&older)) {
            older.newer = removed.newer;
        }
        if let Some(node) = self.nodes.get_mut(&removed.holder) {
            if node.newest == Some(place) {
                node.newest = removed.older;
            }
            if node.oldest == Some(place) {
                node.oldest = removed.newer;
            }
        }
        self.count(removed.holder, false);
        if self.places.capacity() > LARGE && self.places.len() < self.places.capacity() / 8 {
            self.places.shrink_to_fit();
            self.nodes.shrink_to_fit();
            self.children.shrink_to_fit();
        }
        Some(removed)
    }
}

impl<K: Hash + Eq + Clone, const N: usize> Shares<K, N> {
    /// So many places, all free.
    pub(crate) fn new(capacity: usize, loses: Loses) -> Self {
        Self { capacity, loses, table: Mutex::new(Table::new()) }
    }

    /// One place for a holder; `None`: all are held, and nobody has more than its part.
    pub(crate) fn acquire(self: &Arc<Self>, path: &[K; N]) -> Option<Share<K, N>> {
        let mut table = self.table();
        let lost = if table.held() < self.capacity {
            None
        } else {
            let holder = table.gives_way(path, self.loses)?;
            let node = table.nodes.get(&holder)?;
            let place = if self.loses == Loses::Newest { node.newest } else { node.oldest };
            Some(table.remove(place?)?)
        };
        let (revoke, revoked) = oneshot::channel();
        let place = table.number();
        table.insert(place, path, revoke);
        drop(table);
        // Wakes the holder.
        drop(lost);
        Some(Share { claim: Claim { shares: Arc::clone(self), place }, revoked, kept: false })
    }

    /// Places that are held.
    pub(crate) fn held(&self) -> usize {
        self.table().held()
    }

    /// The most places.
    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }

    fn table(&self) -> MutexGuard<'_, Table<K>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a place is called by, apart from holding it.
#[derive(Debug)]
pub(crate) struct Claim<K: Hash + Eq + Clone, const N: usize> {
    shares: Arc<Shares<K, N>>,
    place: u64,
}

impl<K: Hash + Eq + Clone, const N: usize> Claim<K, N> {
    /// The place is another holder's from now on, as its newest. A place that is kept or lost stays what it is.
    pub(crate) fn rename(&self, path: &[K; N]) {
        let mut table = self.shares.table();
        if let Some(Place { _revoke: revoke, .. }) = table.remove(self.place) {
            table.insert(self.place, path, revoke);
        }
    }
}

/// A place, until it is dropped or lost to a holder that has less.
#[derive(Debug)]
pub(crate) struct Share<K: Hash + Eq + Clone, const N: usize> {
    claim: Claim<K, N>,
    revoked: oneshot::Receiver<()>,
    kept: bool,
}

impl<K: Hash + Eq + Clone, const N: usize> Share<K, N> {
    /// Waits until the place is lost; for ever if it never is.
    pub(crate) async fn revoked(&mut self) {
        std::future::poll_fn(|cx| self.poll_revoked(cx)).await;
    }

    /// As [`Share::revoked`].
    pub(crate) fn poll_revoked(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.kept {
            return Poll::Pending;
        }
        std::pin::Pin::new(&mut self.revoked).poll(cx).map(drop)
    }

    /// Whether the place is lost.
    pub(crate) fn is_revoked(&self) -> bool {
        !self.kept && !self.claim.shares.table().places.contains_key(&self.claim.place)
    }

    /// What the place is called by.
    pub(crate) fn claim(&self) -> Claim<K, N> {
        Claim { shares: Arc::clone(&self.claim.shares), place: self.claim.place }
    }

    /// The place cannot be lost any more. It counts for nobody then, only among all. A place that is lost already is one
    /// beyond the capacity from now on.
    pub(crate) fn keep(&mut self) {
        if !std::mem::replace(&mut self.kept, true) {
            let mut table = self.claim.shares.table();
            table.remove(self.claim.place);
            table.kept += 1;
        }
    }
}

impl<K: Hash + Eq + Clone, const N: usize> Drop for Share<K, N> {
    fn drop(&mut self) {
        let mut table = self.claim.shares.table();
        if self.kept {
            table.kept -= 1;
        } else {
            table.remove(self.claim.place);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Two = Shares<u8, 2>;

    /// All counts, computed anew from the places.
    fn consistent<const N: usize>(shares: &Shares<u8, N>) {
        let table = shares.table();
        assert!(table.held() <= shares.capacity);
        for (id, node) in &table.nodes {
            let children: Vec<u64> =
                table.children.iter().filter(|((parent, _), _)| parent == id).map(|(_, child)| *child).collect();
            let counts = children.iter().map(|child| table.nodes[child].count);
            let own = table.places.values().filter(|place| place.holder == *id).count();
            assert_eq!(node.count, counts.clone().sum::<usize>() + own);
            assert_eq!(node.most, counts.max().unwrap_or(0));
            assert!(node.count > 0 || *id == ROOT, "nothing is kept of a holder without a place");
            for child in children {
                let child_node = &table.nodes[&child];
                assert_eq!(node.equals[&child_node.count][child_node.at], child);
            }
        }
        assert_eq!(table.children.len() + 1, table.nodes.len());
    }

    /// Places of a namespace, or of one route of it, that are not lost.
    fn count(held: &[([u8; 2], Share<u8, 2>)], wanted: impl Fn(&[u8; 2]) -> bool) -> usize {
        held.iter().filter(|(path, share)| wanted(path) && !share.is_revoked() && !share.kept).count()
    }

    /// Those that hold places, the asking one among them.
    fn holders<T: Ord>(held: &[([u8; 2], Share<u8, 2>)], name: impl Fn(&[u8; 2]) -> Option<T>, own: T) -> usize {
        let live = held.iter().filter(|(_, share)| !share.is_revoked() && !share.kept);
        let mut names: Vec<T> = live.filter_map(|(path, _)| name(path)).chain([own]).collect();
        names.sort();
        names.dedup();
        names.len()
    }

    #[derive(Debug, Clone)]
    enum Step {
        Take([u8; 2]),
        Drop(prop::sample::Index),
        Rename(prop::sample::Index, [u8; 2]),
        Keep(prop::sample::Index),
    }

    fn step() -> impl Strategy<Value = Step> {
        let path = || [0..4u8, 0..3u8];
        prop_oneof![
            // One holder asks for more than all others together.
            6 => Just(Step::Take([0, 0])),
            6 => path().prop_map(Step::Take),
            3 => any::<prop::sample::Index>().prop_map(Step::Drop),
            1 => (any::<prop::sample::Index>(), path()).prop_map(|(at, path)| Step::Rename(at, path)),
            1 => any::<prop::sample::Index>().prop_map(Step::Keep),
        ]
    }

    proptest! {
        #[test]
        fn a_holder_with_less_than_its_part_is_never_refused(
            capacity in 1..24usize,
            oldest: bool,
            steps in prop::collection::vec(step(), 0..200),
        ) {
            let loses = if oldest { Loses::Oldest } else { Loses::Newest };
            let shares = Arc::new(Two::new(capacity, loses));
            let mut held: Vec<([u8; 2], Share<u8, 2>)> = Vec::new();
            for step in steps {
                match step {
                    Step::Take(path) => {
                        let rest = capacity - shares.table().kept;
                        let namespaces = holders(&held, |held| Some(held[0]), path[0]);
                        let of_namespace = count(&held, |held| held[0] == path[0]);
                        let routes = holders(&held, |held| (held[0] == path[0]).then_some(held[1]), path[1]);
                        let of_route = count(&held, |held| *held == path);
                        let full = shares.held() == capacity;
                        match shares.acquire(&path) {
                            Some(share) => held.push((path, share)),
                            None => {
                                prop_assert!(full, "refused although there is room");
                                prop_assert!(of_namespace >= rest / namespaces, "{of_namespace} of {rest}");
                                prop_assert!(of_route >= of_namespace / routes, "{of_route} of {of_namespace}");
                            }
                        }
                    }
                    Step::Drop(at) if !held.is_empty() => drop(held.swap_remove(at.index(held.len()))),
                    Step::Rename(at, path) if !held.is_empty() => {
                        let at = at.index(held.len());
                        held[at].1.claim().rename(&path);
                        if !held[at].1.kept {
                            held[at].0 = path;
                        }
                    }
                    Step::Keep(at) if !held.is_empty() => {
                        let at = at.index(held.len());
                        if !held[at].1.is_revoked() {
                            held[at].1.keep();
                        }
                    }
                    _ => {}
                }
                consistent(&shares);
                let live = held.iter().filter(|(_, share)| !share.is_revoked()).count();
                prop_assert_eq!(live, shares.held());
            }
            drop(held);
            consistent(&shares);
            prop_assert_eq!((shares.held(), shares.table().nodes.len()), (0, 1));
        }
    }

    #[tokio::test]
    async fn who_has_most_loses_his_newest_and_hears_of_it() {
        let shares = Arc::new(Shares::<_, 1>::new(3, Loses::Newest));
        let mut held: Vec<_> = (0..3).map(|_| shares.acquire(&["many"]).unwrap()).collect();
        assert!(shares.acquire(&["many"]).is_none());
        let one = shares.acquire(&["one"]).unwrap();
        held[2].revoked().await;
        assert_eq!(held.iter().map(Share::is_revoked).collect::<Vec<_>>(), [false, false, true]);
        // Two and one: an equal part is not taken from.
        assert!(shares.acquire(&["one"]).is_none() && !one.is_revoked());
        assert!(held.pop().is_some() && shares.held() == 3);
    }

    #[test]
    fn what_is_over_in_a_moment_replaces_the_oldest_of_its_own() {
        let shares = Arc::new(Shares::<_, 1>::new(2, Loses::Oldest));
        let held = [0, 1, 2].map(|_| shares.acquire(&["one"]).unwrap());
        assert_eq!(held.each_ref().map(Share::is_revoked), [true, false, false]);
    }

    #[test]
    fn a_place_that_is_kept_is_never_lost() {
        let shares = Arc::new(Shares::<_, 1>::new(2, Loses::Newest));
        let mut held = [0, 1].map(|_| shares.acquire(&["many"]).unwrap());
        held.iter_mut().for_each(Share::keep);
        assert!(shares.acquire(&["one"]).is_none() && shares.held() == 2);
        drop(held);
        assert!(shares.acquire(&["one"]).is_some() && shares.held() == 0);
    }
}
