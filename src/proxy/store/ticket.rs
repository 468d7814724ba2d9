//! Tickets in the shared store: each replica issues and redeems them, and exactly one redeems each.
//!
//! A record is kept under the digest of its ticket and sealed with a key that only the ticket yields: who reads the store
//! learns neither a ticket nor whom one stands for. What the handshake that redeems it must say again, its route and origin,
//! is sealed in and not kept. A record carries the **epoch** in which it was stored, the run and
//! the history of the server of that time; it can be redeemed in that epoch only. A server that was restarted, or a
//! replica that was promoted, may know tickets that were redeemed already: it is another epoch.
//!
//! Two counters bound what is outstanding: tickets of a subject, and bytes of a route. Each is a hash with a field for each
//! second in which something of it ends, so that what expires is no longer counted. They only refuse: one that is lost admits
//! more for a minute.

use std::net::IpAddr;
use std::time::Duration;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hmac;
use redis::Script;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::api::route_id::RouteId;
use crate::policy::{Origin, Proof};
use crate::proxy::store::Store;
use crate::proxy::store::record::{Handle, Holder, Record, Redeemable};
use crate::reason::Reason;

/// The longest that a ticket is kept.
const MAX_TTL: Duration = Duration::from_secs(60);
/// The most bytes of a sealed record.
const MAX_RECORD: usize = 64 * 1024;
/// What the form of records is called, sealed in so that another form is never taken for this one.
const FORM: &[u8] = b"wssgate ticket 3";
/// The bytes of a ticket in the store, besides its record, about.
const OVERHEAD: usize = 200;

/// The server's present: which run it is, and which history of writes. Both change where a redemption may be forgotten.
const EPOCH: &str = r"
local function epoch()
  local run = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)')
  local history = string.match(redis.call('INFO', 'replication'), 'master_replid:(%w+)')
  return string.sub(redis.sha1hex(run .. ':' .. history), 1, 16)
end
local function uncount(key, second, much)
  if redis.call('HINCRBY', key, second, -much) <= 0 then redis.call('HDEL', key, second) end
end
";
/// Stores a record under a key that is free: 1, or 0 where it is not; 2: its holder has too many, 3: its route.
const ISSUE: &str = r"
local now = tonumber(redis.call('TIME')[1])
local function counted(key)
  local sum, all = 0, redis.call('HGETALL', key)
  for at = 1, #all, 2 do
    if tonumber(all[at]) < now then redis.call('HDEL', key, all[at]) else sum = sum + tonumber(all[at + 1]) end
  end
  return sum
end
if counted(KEYS[2]) >= tonumber(ARGV[3]) then return 2 end
local size = #ARGV[1] + tonumber(ARGV[5])
if counted(KEYS[3]) + size > tonumber(ARGV[4]) then return 3 end
local last = string.format('%d', now + math.ceil(tonumber(ARGV[2]) / 1000))
if not redis.call('SET', KEYS[1], epoch() .. last .. ' ' .. ARGV[1], 'PX', ARGV[2], 'NX') then return 0 end
redis.call('HINCRBY', KEYS[2], last, 1)
redis.call('HINCRBY', KEYS[3], last, size)
for at = 2, 3 do redis.call('PEXPIRE', KEYS[at], 62000) end
return 1
";
/// What is stored, without its epoch; nothing where there is nothing of this epoch.
const LOOK: &str = r"
local held = redis.call('GET', KEYS[1])
if not held then return false end
if string.sub(held, 1, 16) ~= epoch() then return false end
return string.sub(held, string.find(held, ' ', 17, true) + 1)
";
/// Takes a record away: 1 if there was one of this epoch.
const REDEEM: &str = r"
local held = redis.call('GET', KEYS[1])
if not held then return 0 end
redis.call('DEL', KEYS[1])
local space = string.find(held, ' ', 17, true)
local last = string.sub(held, 17, space - 1)
uncount(KEYS[2], last, 1)
uncount(KEYS[3], last, #held - space + tonumber(ARGV[1]))
if string.sub(held, 1, 16) ~= epoch() then return 0 end
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

/// A record as it is sealed: this as JSON, a line feed, and the claims of the proof as they are.
#[derive(Serialize, Deserialize)]
struct Kept(Option<IpAddr>, Value, Vec<(Box<str>, Box<str>)>, Option<[u8; 16]>);

/// The member of a proof that is kept beside the JSON, where nothing of it is escaped.
const CLAIMS: &str = "claims";

impl Store {
    fn ticket(&self, handle: &Handle) -> String {
        format!("{}ticket:{handle}", self.options.prefix)
    }

    /// The keys of a ticket: its record, and the counters of its holder and its route.
    fn ticket_keys(&self, ticket: &Redeemable, route: &RouteId) -> [String; 3] {
        let count = |holder: Holder| format!("{}tickets:{holder}", self.options.prefix);
        // No identity is empty.
        [self.ticket(&ticket.handle), count(ticket.holder), count(Holder::new(route, ""))]
    }

    /// Keeps a record for as long as it may be redeemed, if its holder has fewer than `most`.
    pub(crate) async fn issue(&self, ticket: &[u8], record: &Record, ttl: Duration, most: u32) -> Result<(), Reason> {
        let sealed = seal(ticket, record)?;
        let ttl = u64::try_from(ttl.min(MAX_TTL).as_millis()).unwrap_or(0);
        let keys = self.ticket_keys(&Redeemable { handle: Handle::of(ticket), holder: record.holder }, &record.route);
        let mut call = scripts().issue.prepare_invoke();
        for key in keys {
            call.key(key);
        }
        let call = call.arg(sealed).arg(ttl).arg(most).arg(self.memory.of_route()).arg(OVERHEAD);
        match self.ask(&record.route, call).await? {
            1 => Ok(()),
            2 => Err(Reason::TicketLimit),
            3 => Err(Reason::TicketsUnavailable),
            // Chance does not give the same ticket twice.
            _ => Err(Reason::Internal),
        }
    }

    /// What a ticket stands for at this route, for a page of this origin; it can still be redeemed.
    pub(crate) async fn look(&self, ticket: &[u8], route: &RouteId, origin: &Origin) -> Result<Option<Record>, Reason> {
        let call = scripts().look.key(self.ticket(&Handle::of(ticket)));
        let sealed: Option<Vec<u8>> = self.ask(route, &call).await?;
        Ok(sealed.and_then(|sealed| open(ticket, sealed, route, origin)))
    }

    /// Redeems a ticket: true for one caller of all replicas only.
    pub(crate) async fn redeem(&self, ticket: &Redeemable, route: &RouteId) -> Result<bool, Reason> {
        let mut call = scripts().redeem.prepare_invoke();
        for key in self.ticket_keys(ticket, route) {
            call.key(key);
        }
        let redeemed: u8 = self.ask(route, call.arg(OVERHEAD)).await?;
        Ok(redeemed == 1)
    }
}

/// The key that a ticket yields, and the one nonce: no ticket seals twice.
fn key(ticket: &[u8]) -> Option<(LessSafeKey, Nonce)> {
    let key = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, ticket), FORM);
    let key = UnboundKey::new(&AES_256_GCM, key.as_ref()).ok()?;
    Some((LessSafeKey::new(key), Nonce::assume_unique_for_key([0; NONCE_LEN])))
}

/// What is sealed in and not kept: the form, the route, and the origin; `None`: no ticket has several.
fn bound(route: &RouteId, origin: &Origin) -> Option<Vec<u8>> {
    let origin = match origin {
        Origin::One(origin) => origin,
        // No origin is empty.
        Origin::Missing => "",
        Origin::Several => return None,
    };
    let mut bound = FORM.to_vec();
    for part in [route.kind.as_str(), &*route.namespace, &*route.name, origin] {
        bound.extend_from_slice(&part.len().to_be_bytes());
        bound.extend_from_slice(part.as_bytes());
    }
    Some(bound)
}

fn seal(ticket: &[u8], record: &Record) -> Result<Vec<u8>, Reason> {
    let bound = bound(&record.route, &record.origin).ok_or(Reason::OriginAmbiguous)?;
    let text = |(name, value): &(Box<str>, Box<[u8]>)| Some((name.clone(), std::str::from_utf8(value).ok()?.into()));
    let headers = record.headers.iter().map(text).collect::<Option<_>>().ok_or(Reason::Internal)?;
    let mut proof = serde_json::to_value(&record.proof).map_err(|_| Reason::Internal)?;
    let claims = proof.as_object_mut().and_then(|proof| proof.remove(CLAIMS)).ok_or(Reason::Internal)?;
    // Most holders are those of their proof.
    let holder = (of_proof(&record.proof, &record.route) != Some(record.holder)).then_some(record.holder.0);
    let kept = Kept(record.address, proof, headers, holder);
    let mut sealed = serde_json::to_vec(&kept).map_err(|_| Reason::Internal)?;
    sealed.push(b'\n');
    sealed.extend_from_slice(claims.as_str().ok_or(Reason::Internal)?.as_bytes());
    let (key, nonce) = key(ticket).ok_or(Reason::Internal)?;
    key.seal_in_place_append_tag(nonce, Aad::from(bound), &mut sealed).map_err(|_| Reason::Internal)?;
    if sealed.len() > MAX_RECORD { Err(Reason::TicketsUnavailable) } else { Ok(sealed) }
}

fn of_proof(proof: &Proof, route: &RouteId) -> Option<Holder> {
    proof.identity().map(|identity| Holder::new(route, &identity))
}

/// What was sealed; `None` for anything else, such as the form of another version.
fn open(ticket: &[u8], mut sealed: Vec<u8>, route: &RouteId, origin: &Origin) -> Option<Record> {
    let (key, nonce) = key(ticket)?;
    let text = key.open_in_place(nonce, Aad::from(bound(route, origin)?), &mut sealed).ok()?;
    // JSON on one line has no line feed in it.
    let end = text.iter().position(|byte| *byte == b'\n')?;
    let (kept, claims) = (text.get(..end)?, std::str::from_utf8(text.get(end + 1..)?).ok()?);
    let Kept(address, mut proof, headers, holder) = serde_json::from_slice(kept).ok()?;
    proof.as_object_mut()?.insert(CLAIMS.to_owned(), claims.into());
    let proof: Box<Proof> = serde_json::from_value(proof).ok()?;
    let holder = holder.map(Holder).or_else(|| of_proof(&proof, route))?;
    let headers = headers.into_iter().map(|(name, value)| (name, value.into_boxed_bytes())).collect();
    Some(Record { route: route.clone(), origin: origin.clone(), address, proof, headers, holder })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::route_id::RouteKind;
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
            recheck: None,
        };
        let holder = Holder::new(&route, "1:sada");
        Record {
            route,
            origin: Origin::One("https://a.test".into()),
            address: None,
            proof: Box::new(external.proof("m", Some("ada"))),
            headers: vec![("x-user".into(), b"ada"[..].into())],
            holder,
        }
    }

    #[test]
    fn a_record_comes_back_whole_at_its_own_route_and_origin_only() {
        let own = RouteId::secure_web_socket("shop", "chat");
        let other = RouteId::new(RouteKind::HttpRoute, "shop", "chat");
        let origin = Origin::One("https://a.test".into());
        for (route, another) in [(&own, &other), (&other, &own)] {
            let record = record(route.clone());
            let sealed = seal(b"ticket", &record).unwrap();
            let open = |ticket: &[u8], route, origin| open(ticket, sealed.clone(), route, origin);
            assert!(open(b"another", route, &origin).is_none() && open(b"ticket", another, &origin).is_none());
            assert!(
                open(b"ticket", route, &Origin::Missing).is_none()
                    && open(b"ticket", route, &Origin::Several).is_none()
            );
            let opened = open(b"ticket", route, &origin).unwrap();
            assert_eq!((&opened.route, &opened.headers), (route, &record.headers));
            assert!(opened.proof == record.proof && opened.holder == record.holder && opened.origin == record.origin);
        }
    }

    #[test]
    fn a_holder_that_its_proof_names_and_what_the_handshake_says_again_take_no_room() {
        let route = RouteId::secure_web_socket("shop", "a-route-with-a-long-name");
        let stranger = record(route.clone());
        let holder = of_proof(&stranger.proof, &route).unwrap();
        let (own, other) = (Record { holder, ..record(route) }, seal(b"ticket", &stranger).unwrap());
        let sealed = seal(b"ticket", &own).unwrap();
        assert!(sealed.len() < other.len() && sealed.len() < 160, "{}", sealed.len());
    }
}
