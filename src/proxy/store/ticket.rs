//! Tickets in the shared store: each replica issues and redeems them, and exactly one redeems each.
//!
//! A record is kept under the digest of its ticket and sealed with a key that only the ticket yields: who reads the store
//! learns neither a ticket nor whom one stands for. A record carries the **epoch** in which it was stored, the run and
//! the history of the server of that time; it can be redeemed in that epoch only. A server that was restarted, or a
//! replica that was promoted, may know tickets that were redeemed already: it is another epoch.

use std::net::IpAddr;
use std::time::Duration;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hmac;
use redis::Script;
use serde::{Deserialize, Serialize};

use crate::api::route_id::{RouteId, RouteKind};
use crate::policy::{Origin, Proof};
use crate::proxy::store::Store;
use crate::proxy::store::record::{Handle, Record};
use crate::reason::Reason;

/// The longest that a ticket is kept.
const MAX_TTL: Duration = Duration::from_secs(60);
/// The most bytes of a sealed record.
const MAX_RECORD: usize = 64 * 1024;
/// What the form of records is called, sealed in so that another form is never taken for this one.
const FORM: &[u8] = b"wssgate ticket 2";

/// The server's present: which run it is, and which history of writes. Both change where a redemption may be forgotten.
const EPOCH: &str = r"
local function epoch()
  local run = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)')
  local history = string.match(redis.call('INFO', 'replication'), 'master_replid:(%w+)')
  return run .. ':' .. history
end
";
/// Stores a record under a key that is free: 1, or 0 where it is not.
const ISSUE: &str = r"
if redis.call('SET', KEYS[1], epoch() .. ' ' .. ARGV[1], 'PX', ARGV[2], 'NX') then return 1 end
return 0
";
/// What is stored, without its epoch; nothing where there is nothing of this epoch.
const LOOK: &str = r"
local held = redis.call('GET', KEYS[1])
if not held then return false end
local now = epoch() .. ' '
if string.sub(held, 1, #now) ~= now then return false end
return string.sub(held, #now + 1)
";
/// Takes a record away: 1 if there was one of this epoch.
const REDEEM: &str = r"
local held = redis.call('GET', KEYS[1])
if not held then return 0 end
redis.call('DEL', KEYS[1])
local now = epoch() .. ' '
if string.sub(held, 1, #now) ~= now then return 0 end
return 1
";

/// The scripts that are run.
struct Scripts {
    issue: Script,
    look: Script,
    redeem: Script,
}

fn scripts() -> &'static Scripts {
    static SCRIPTS: std::sync::OnceLock<Scripts> = std::sync::OnceLock::new();
    SCRIPTS.get_or_init(|| {
        let script = |text: &str| Script::new(&format!("{EPOCH}{text}"));
        Scripts { issue: script(ISSUE), look: script(LOOK), redeem: script(REDEEM) }
    })
}

/// A record as it is sealed.
#[derive(Serialize, Deserialize)]
struct Kept {
    route: (RouteKind, Box<str>, Box<str>),
    origin: Option<Box<str>>,
    address: Option<IpAddr>,
    proof: Box<Proof>,
    headers: Vec<(Box<str>, Box<str>)>,
}

impl Store {
    fn ticket(&self, handle: &Handle) -> String {
        format!("{}ticket:{handle}", self.options.prefix)
    }

    /// Keeps a record for as long as it may be redeemed.
    pub(crate) async fn issue(&self, ticket: &[u8], record: &Record, ttl: Duration) -> Result<(), Reason> {
        let sealed = seal(ticket, record)?;
        let ttl = u64::try_from(ttl.min(MAX_TTL).as_millis()).unwrap_or(0);
        let mut call = scripts().issue.key(self.ticket(&Handle::of(ticket)));
        match self.ask(&record.route, call.arg(sealed).arg(ttl)).await? {
            1 => Ok(()),
            // Chance does not give the same ticket twice.
            _ => Err(Reason::Internal),
        }
    }

    /// What a ticket stands for; it can still be redeemed.
    pub(crate) async fn look(&self, ticket: &[u8], route: &RouteId) -> Result<Option<Record>, Reason> {
        let call = scripts().look.key(self.ticket(&Handle::of(ticket)));
        let sealed: Option<Vec<u8>> = self.ask(route, &call).await?;
        Ok(sealed.and_then(|sealed| open(ticket, sealed)))
    }

    /// Redeems a ticket: true for one caller of all replicas only.
    pub(crate) async fn redeem(&self, handle: &Handle, route: &RouteId) -> Result<bool, Reason> {
        let redeemed: u8 = self.ask(route, &scripts().redeem.key(self.ticket(handle))).await?;
        Ok(redeemed == 1)
    }
}

/// The key that a ticket yields, and the one nonce: no ticket seals twice.
fn key(ticket: &[u8]) -> Option<(LessSafeKey, Nonce)> {
    let key = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, ticket), FORM);
    let key = UnboundKey::new(&AES_256_GCM, key.as_ref()).ok()?;
    Some((LessSafeKey::new(key), Nonce::assume_unique_for_key([0; NONCE_LEN])))
}

fn seal(ticket: &[u8], record: &Record) -> Result<Vec<u8>, Reason> {
    let origin = match &record.origin {
        Origin::One(origin) => Some(origin.clone()),
        Origin::Missing => None,
        Origin::Several => return Err(Reason::OriginAmbiguous),
    };
    let text = |(name, value): &(Box<str>, Box<[u8]>)| Some((name.clone(), std::str::from_utf8(value).ok()?.into()));
    let kept = Kept {
        route: (record.route.kind, record.route.namespace.clone(), record.route.name.clone()),
        origin,
        address: record.address,
        proof: record.proof.clone(),
        headers: record.headers.iter().map(text).collect::<Option<_>>().ok_or(Reason::Internal)?,
    };
    let mut sealed = serde_json::to_vec(&kept).map_err(|_| Reason::Internal)?;
    let (key, nonce) = key(ticket).ok_or(Reason::Internal)?;
    key.seal_in_place_append_tag(nonce, Aad::from(FORM), &mut sealed).map_err(|_| Reason::Internal)?;
    if sealed.len() > MAX_RECORD { Err(Reason::TicketsUnavailable) } else { Ok(sealed) }
}

/// What was sealed; `None` for anything else, such as the form of another version.
fn open(ticket: &[u8], mut sealed: Vec<u8>) -> Option<Record> {
    let (key, nonce) = key(ticket)?;
    let text = key.open_in_place(nonce, Aad::from(FORM), &mut sealed).ok()?;
    let kept: Kept = serde_json::from_slice(text).ok()?;
    let (kind, namespace, name) = kept.route;
    Some(Record {
        route: RouteId::new(kind, &namespace, &name),
        origin: kept.origin.map_or(Origin::Missing, Origin::One),
        address: kept.address,
        proof: kept.proof,
        headers: kept.headers.into_iter().map(|(name, value)| (name, value.into_boxed_bytes())).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::authentication::External;

    fn record(route: RouteId) -> Record {
        let external = External {
            namespace: None,
            service: "s".into(),
            port: 80,
            path: "/".into(),
            headers: vec![],
            answers: vec![],
            timeout: Duration::from_secs(1),
        };
        Record {
            route,
            origin: Origin::One("https://a.test".into()),
            address: None,
            proof: Box::new(external.proof("m", Some("ada"))),
            headers: vec![("x-user".into(), b"ada"[..].into())],
        }
    }

    #[test]
    fn a_record_comes_back_whole_with_the_kind_of_its_route() {
        let own = RouteId::secure_web_socket("shop", "chat");
        let other = RouteId::new(RouteKind::HttpRoute, "shop", "chat");
        for route in [own, other] {
            let sealed = seal(b"ticket", &record(route.clone())).unwrap();
            assert!(open(b"another", sealed.clone()).is_none());
            let opened = open(b"ticket", sealed).unwrap();
            assert_eq!(opened.route, route);
            assert_eq!(opened.headers, record(route).headers);
        }
    }
}
