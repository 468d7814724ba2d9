//! Which endpoint serves a connection: backends by weight, endpoints by the route's balance. Knows the snapshot and
//! counts; connects to nothing.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, SocketAddr};

use crate::proxy::shared::Shared;
use crate::snapshot::{Balance, Route};

/// The endpoints to try, in order, at most so many.
pub(crate) fn candidates(shared: &Shared, route: &Route, address: IpAddr, most: usize) -> Vec<SocketAddr> {
    let snapshot = shared.live.load();
    let mut backends: Vec<_> = route
        .backends
        .iter()
        .filter(|(_, weight)| *weight > 0)
        .filter_map(|(id, weight)| Some((snapshot.backends.get(id)?, u64::from(*weight))))
        .filter(|(backend, _)| !backend.endpoints.is_empty())
        .collect();
    if backends.is_empty() {
        return Vec::new();
    }
    let weights: Vec<u64> = backends.iter().map(|(_, weight)| *weight).collect();
    let (first, turn) = visit(shared.turns.next(&route.id) as u64, &weights);
    backends.rotate_left(first);
    let mut all = Vec::new();
    for (backend, _) in backends {
        let mut endpoints = backend.endpoints.clone();
        match route.balance {
            Balance::RoundRobin => {
                let len = endpoints.len();
                endpoints.rotate_left(turn % len);
            }
            Balance::LeastConnections => {
                let len = endpoints.len();
                endpoints.rotate_left(turn % len);
                endpoints.sort_by_cached_key(|endpoint| shared.connections.of_endpoint(*endpoint));
            }
            // Rendezvous hashing: an endpoint that comes or goes moves only its own clients.
            Balance::SourceIp => endpoints.sort_by_cached_key(|endpoint| {
                // Without random keys: every replica chooses alike.
                let mut hasher = DefaultHasher::new();
                (address, endpoint).hash(&mut hasher);
                std::cmp::Reverse(hasher.finish())
            }),
        }
        all.extend(endpoints);
    }
    all.truncate(most);
    all
}

/// The backend whose turn it is, and how many turns it had before: its endpoints take turns by that number. By the turns of
/// all, endpoints of two backends that alternate would see every other turn only.
fn visit(turn: u64, weights: &[u64]) -> (usize, usize) {
    let common = weights.iter().fold(0, |common, weight| divisor(common, *weight));
    let total = weights.iter().sum::<u64>() / common;
    let mut share = share(turn, total);
    for (index, weight) in weights.iter().map(|weight| weight / common).enumerate() {
        if share < weight {
            return (index, (turn / total * weight + share) as usize);
        }
        share -= weight;
    }
    unreachable!("a share is less than the total")
}

/// The share of `total` whose turn it is: every run of `total` turns visits each share once, well mixed, by steps of
/// about the golden ratio that have no divisor in common with the whole.
fn share(turn: u64, total: u64) -> u64 {
    let mut step = (total * 618 / 1000).max(1);
    while divisor(step, total) != 1 {
        step += 1;
    }
    turn % total * step % total
}

/// The greatest common divisor.
fn divisor(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { divisor(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_run_of_turns_visits_each_share_once() {
        for total in [1, 2, 3, 4, 6, 7, 100, 1000] {
            for start in [0, 1, 12_345] {
                let mut seen: Vec<u64> = (start..start + total).map(|turn| share(turn, total)).collect();
                // A tenth of the shares gets a tenth of any part of the run, give or take three: the most from any start.
                let first = seen[..seen.len() / 2].iter().filter(|share| **share < total / 10).count() as u64;
                assert!(first.abs_diff(total / 20) <= 3, "{first} of {total} from {start}");
                seen.sort_unstable();
                assert!(seen.into_iter().eq(0..total), "{total} from {start}");
            }
        }
    }

    #[test]
    fn endpoints_of_every_backend_take_turns() {
        for weights in [&[1, 1][..], &[3, 1], &[9, 1], &[1, 2, 3], &[50, 50], &[7]] {
            for endpoints in [1, 2, 3, 4] {
                let mut seen = vec![vec![0_u64; endpoints]; weights.len()];
                let turns = weights.iter().sum::<u64>() * endpoints as u64;
                for turn in 0..turns {
                    let (backend, count) = visit(turn, weights);
                    seen[backend][count % endpoints] += 1;
                }
                for (weight, seen) in weights.iter().zip(seen) {
                    assert!(seen.iter().all(|count| count == weight), "{weights:?}, {endpoints}: {seen:?} of {weight}");
                }
            }
        }
    }
}
