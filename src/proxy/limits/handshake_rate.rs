//! Who tried how often: one number per route and client address, in a table of bounded size that survives every swap.
//!
//! An address whose burst is free again is as good as unknown, and is forgotten. A table that is full of addresses that
//! still count forgets none of them: addresses that are new to it then share one number per route, so that a flood from
//! ever new addresses gets what one address would.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::api::route_id::RouteId;
use crate::policy::Rate;
use crate::policy::network::limit_key;

/// Parts that are locked apart.
const SHARDS: usize = 16;
/// Addresses that all routes together keep at the most, some 50 bytes each.
const MAX_KEYS: usize = 1 << 20;
/// Addresses of one route at the most, so that a flood of one leaves the others their room.
const MAX_ROUTE_KEYS: usize = 1 << 17;
/// The key that addresses without a number of their own share; no client has it.
const OTHERS: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);

#[derive(Debug, Default)]
struct Shard {
    routes: HashMap<RouteId, HashMap<IpAddr, u64>>,
    keys: usize,
}

impl Shard {
    fn judge(&mut self, route: &RouteId, address: IpAddr, limit: &Rate, now: u64) -> Result<(), Duration> {
        let known = self.routes.get(route);
        let (is_known, of_route) = known.map_or((false, 0), |route| (route.contains_key(&address), route.len()));
        let mut key = address;
        if !is_known && (self.keys >= MAX_KEYS / SHARDS || of_route >= MAX_ROUTE_KEYS / SHARDS) {
            self.sweep(now);
            let of_route = self.routes.get(route).map_or(0, HashMap::len);
            if self.keys >= MAX_KEYS / SHARDS || of_route >= MAX_ROUTE_KEYS / SHARDS {
                key = OTHERS;
            }
        }
        // The shared number has its place whether the table is full or not.
        let pace = self.routes.get(route).and_then(|route| route.get(&key)).copied();
        let judged = limit.judge(pace.unwrap_or(0), now);
        // Who is refused is not counted, but does not wait longer than the limit of today asks either.
        let next = judged.unwrap_or_else(|_| limit.bounded(pace.unwrap_or(0), now));
        let addresses = match self.routes.get_mut(route) {
            Some(addresses) => addresses,
            None => self.routes.entry(route.clone()).or_default(),
        };
        addresses.insert(key, next);
        self.keys += usize::from(pace.is_none());
        judged.map(drop)
    }

    /// Forgets who is free, and gives memory back after a flood.
    fn sweep(&mut self, now: u64) {
        self.routes.retain(|_, addresses| {
            addresses.retain(|_, pace| *pace > now);
            if addresses.capacity() > 256 && addresses.len() < addresses.capacity() / 8 {
                addresses.shrink_to_fit();
            }
            !addresses.is_empty()
        });
        self.keys = self.routes.values().map(HashMap::len).sum();
    }
}

/// The numbers of all routes and addresses.
#[derive(Debug)]
pub(crate) struct HandshakeRates {
    began: Instant,
    hasher: RandomState,
    shards: [Mutex<Shard>; SHARDS],
}

impl Default for HandshakeRates {
    fn default() -> Self {
        Self { began: Instant::now(), hasher: RandomState::new(), shards: Default::default() }
    }
}

impl HandshakeRates {
    /// Counts one handshake of an address (IPv6: of its /64) with a route.
    ///
    /// # Errors
    /// How long until the next one is free.
    pub(crate) fn judge(&self, route: &RouteId, address: IpAddr, limit: &Rate, now: Instant) -> Result<(), Duration> {
        let address = limit_key(address);
        let shard = self.hasher.hash_one(address) as usize % SHARDS;
        let now = self.nanos(now);
        self.shards[shard].lock().unwrap_or_else(PoisonError::into_inner).judge(route, address, limit, now)
    }

    /// Forgets who is free in one part of the table, another one with each `turn`; passed over while it is in use.
    pub(crate) fn tidy(&self, turn: u32, now: Instant) {
        if let Ok(mut shard) = self.shards[turn as usize % SHARDS].try_lock() {
            shard.sweep(self.nanos(now));
        }
    }

    /// Never 0, so that no pace of the past looks like none.
    fn nanos(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.began);
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX - 1) + 1
    }

    #[cfg(test)]
    fn keys(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().unwrap_or_else(PoisonError::into_inner).keys).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::route_id::RouteKind;
    use std::net::Ipv4Addr;

    const LIMIT: Rate = Rate { count: 1, interval: Duration::from_secs(10), burst: 2 };

    fn route(name: &str) -> RouteId {
        RouteId::secure_web_socket("shop", name)
    }

    #[test]
    fn addresses_and_routes_count_apart_and_a_64_counts_as_one() {
        let (table, now) = (HandshakeRates::default(), Instant::now());
        let (chat, other) = (route("chat"), route("other"));
        let judge = |route: &RouteId, address: &str| table.judge(route, address.parse().unwrap(), &LIMIT, now);
        assert!(judge(&chat, "2001:db8::1").is_ok() && judge(&chat, "2001:db8::ffff:2").is_ok());
        assert_eq!(judge(&chat, "2001:db8:0:0:9::3"), Err(Duration::from_secs(10)));
        assert!(judge(&chat, "2001:db8:0:1::3").is_ok());
        assert!(judge(&other, "2001:db8::1").is_ok());
        // An IPv4 client that arrived on an IPv6 socket is the same client.
        assert!(judge(&chat, "192.0.2.1").is_ok() && judge(&chat, "::ffff:192.0.2.1").is_ok());
        assert!(judge(&chat, "192.0.2.1").is_err() && judge(&chat, "192.0.2.2").is_ok());
    }

    #[test]
    fn who_is_free_again_is_forgotten() {
        let (table, now) = (HandshakeRates::default(), Instant::now());
        for last in 0..200 {
            table.judge(&route("chat"), Ipv4Addr::new(192, 0, 2, last).into(), &LIMIT, now).unwrap();
        }
        assert_eq!(table.keys(), 200);
        (0..16).for_each(|turn| table.tidy(turn, now + Duration::from_secs(9)));
        assert_eq!(table.keys(), 200);
        (0..16).for_each(|turn| table.tidy(turn, now + Duration::from_secs(11)));
        assert_eq!(table.keys(), 0);
        assert!(table.shards.iter().all(|shard| shard.lock().unwrap().routes.is_empty()));
    }

    #[test]
    fn a_full_table_keeps_whom_it_knows_and_newcomers_share_what_one_address_has() {
        let (table, now) = (HandshakeRates::default(), Instant::now());
        let chat = route("chat");
        let known: IpAddr = "192.0.2.1".parse().unwrap();
        assert!(table.judge(&chat, known, &LIMIT, now).is_ok());
        let passed = (0..MAX_ROUTE_KEYS * 2)
            .filter(|n| {
                let address = Ipv4Addr::from_bits(0x0A00_0000 + u32::try_from(*n).unwrap());
                table.judge(&chat, address.into(), &LIMIT, now).is_ok()
            })
            .count();
        assert!(table.keys() <= MAX_ROUTE_KEYS + SHARDS, "{}", table.keys());
        assert!(passed <= MAX_ROUTE_KEYS + SHARDS * 2, "{passed}");
        // The known one has its second attempt still, and no third.
        assert!(table.judge(&chat, known, &LIMIT, now).is_ok());
        assert!(table.judge(&chat, known, &LIMIT, now).is_err());
        // Another route has room, and time makes room.
        assert!(table.judge(&route("other"), "203.0.113.1".parse().unwrap(), &LIMIT, now).is_ok());
        let later = now + Duration::from_secs(30);
        for last in 0..50 {
            let address = Ipv4Addr::new(198, 51, 100, last);
            assert!(table.judge(&chat, address.into(), &LIMIT, later).is_ok(), "{address}");
        }
    }

    #[test]
    fn routes_of_two_kinds_and_one_name_count_apart() {
        let (table, now) = (HandshakeRates::default(), Instant::now());
        let (own, other) = (route("chat"), RouteId::new(RouteKind::HttpRoute, "shop", "chat"));
        let judge = |route: &RouteId| table.judge(route, "192.0.2.1".parse().unwrap(), &LIMIT, now);
        assert!(judge(&own).is_ok() && judge(&own).is_ok() && judge(&own).is_err());
        assert!(judge(&other).is_ok());
        assert_eq!(table.keys(), 2);
    }
}
