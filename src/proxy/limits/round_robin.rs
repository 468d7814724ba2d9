//! Whose turn it is, by route: connections of two routes that always come in pairs would otherwise each meet every other
//! backend only.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use crate::api::route_id::RouteId;

/// Routes that are known at the most.
const MAX_ROUTES: usize = 1 << 20;

/// A number for each route that counts up with every use.
#[derive(Debug, Default)]
pub(crate) struct RoundRobin(Mutex<HashMap<RouteId, usize>>);

impl RoundRobin {
    /// The number of this use among those of the route, from 0 on.
    pub(crate) fn next(&self, route: &RouteId) -> usize {
        let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(turn) = turns.get_mut(route) {
            *turn = turn.wrapping_add(1);
            return *turn;
        }
        // Full of routes that no longer exist: whose turn it is may be forgotten.
        if turns.len() >= MAX_ROUTES {
            turns.clear();
        }
        turns.insert(route.clone(), 0);
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::route_id::RouteKind;

    #[test]
    fn each_route_counts_for_itself() {
        let turns = RoundRobin::default();
        let route = |name: &str| RouteId::secure_web_socket("shop", name);
        let seen = ["a", "b", "a", "b", "a"].map(|name| turns.next(&route(name)));
        assert_eq!(seen, [0, 0, 1, 1, 2]);
        assert_eq!(turns.next(&RouteId::new(RouteKind::HttpRoute, "shop", "a")), 0, "another kind");
    }
}
