//! Every fixed number of the data plane stands on one page, docs/numbers.md, which is made of the code: what it is by the
//! comment of its constant, its value by the constant itself, and here why it is so and what changes it. A constant without
//! a row fails, and so does a row without its constant.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use crate::{drift, root};

/// Where the data plane and its defaults are.
const ROOTS: [&str; 6] = ["proxy", "ws", "policy", "snapshot", "compile/spec", "api/ceilings.rs"];

/// One constant: its file below `src/`, its name, the unit of its value, why it is so, and the field or setting that changes
/// it; `-` where nothing does.
type Row = (&'static str, &'static str, &'static str, &'static str, &'static str);

/// The parts of the page.
#[rustfmt::skip]
const PARTS: &[(&str, &[Row])] = &[
("Before the 101", &[
    ("proxy/handshake/proxy_protocol.rs", "TIME", "", "A proxy sends it at once.", "-"),
    ("proxy/io/client_hello.rs", "MAX_HELLO", "bytes", "Memory that a client takes before it is known.", "-"),
    ("proxy/handshake/connection.rs", "TLS", "", "A slow client must not keep a place.", "-"),
    ("proxy/limits/fair_queue.rs", "QUEUE", "clients", "More would wait longer than the time for TLS.", "-"),
    ("proxy/handshake/connection.rs", "HEAD", "", "A client that sends its head slowly must not keep a place (slowloris).", "-"),
    ("ws/upgrade/bounds.rs", "MAX_HEAD", "bytes", "Memory that a client takes before it is known.", "`handshake.maxHeadSize`; of a response: -"),
    ("ws/upgrade/bounds.rs", "LARGEST_HEAD", "bytes", "The same.", "-"),
    ("compile/spec/policy.rs", "LEAST_HEAD", "bytes", "Browsers send about half of it.", "-"),
    ("ws/upgrade/bounds.rs", "MAX_FIELDS", "fields", "Each is compared with the others.", "-"),
    ("ws/upgrade/bounds.rs", "MAX_SUBPROTOCOLS", "names", "Each is compared with the others.", "-"),
    ("ws/proxy_protocol.rs", "MAX", "bytes", "Senders need less than 536.", "-"),
    ("policy/certificate.rs", "MAX_CHAIN", "bytes", "It is kept while the connection lives.", "-"),
    ("policy/certificate.rs", "MAX_SUBJECT", "bytes", "It goes to the backend in a header.", "-"),
    ("policy/certificate.rs", "MAX_SPIFFE", "bytes", "It goes to the backend in a header.", "-"),
    ("proxy/handshake/connection.rs", "OVERALL", "", "No handshake keeps its place for ever. `rules[].timeouts` add what they exceed their defaults.", "`rules[].timeouts`"),
    ("proxy/handshake/connection.rs", "FAREWELL", "", "An answer of a few hundred bytes fits into the kernel.", "-"),
]),
("Limits and rates", &[
    ("compile/spec/policy.rs", "TOTAL", "connections", "One route must not take a whole replica unasked.", "`connection.limits.total`"),
    ("api/ceilings.rs", "MOST", "connections", "More is no limit.", "-"),
    ("compile/spec/rate.rs", "MOST", "handshakes", "More is no limit.", "-"),
    ("compile/spec/rate.rs", "INTERVALS", "", "Shorter is no rate, longer is a quota.", "-"),
    ("proxy/limits/connections.rs", "OF_ADDRESS", "times", "Free sockets are left to others ([shares](operations/shares.md)).", "`connection.limits.perAddress`"),
    ("proxy/limits/connections.rs", "OF_ROUTE", "times", "The same.", "`connection.limits.total`"),
    ("proxy/limits/connections.rs", "OF_NAMESPACE", "times", "The same.", "-"),
    ("proxy/limits/permits.rs", "MAX_KEYS", "keys", "Memory of counts.", "-"),
    ("proxy/limits/handshake_rate.rs", "MAX_KEYS", "addresses", "Memory of counts.", "-"),
    ("proxy/limits/handshake_rate.rs", "MAX_ROUTE_KEYS", "addresses", "A flood on one route leaves the others their room.", "-"),
    ("proxy/limits/subject_rate.rs", "MAX_KEYS", "subjects", "Memory of counts.", "-"),
    ("proxy/limits/subject_rate.rs", "QUEUE", "questions", "Memory while the store is slow.", "-"),
    ("proxy/limits/borrowed.rs", "LAPSE", "", "What a replica borrowed is used soon or given up.", "-"),
    ("proxy/limits/borrowed.rs", "SPAN", "", "A busy subject asks the store four times a second, not for each message.", "-"),
    ("proxy/limits/borrowed.rs", "ALONE", "", "A store that is gone is not asked for each message.", "-"),
    ("proxy/limits/capacity.rs", "LOOK", "", "A flood is noticed before it fills memory.", "-"),
    ("proxy/limits/capacity.rs", "RESERVED", "descriptors", "Listeners, logs and probes work when clients take the rest.", "-"),
    ("proxy/limits/capacity.rs", "ENTRY", "bytes", "Connections that begin are counted before memory shows them.", "`memoryBudget`"),
    ("proxy/limits/capacity.rs", "PORTS", "ports", "The default of Linux.", "`net.ipv4.ip_local_port_range`"),
    ("proxy/acceptor.rs", "QUEUE", "connections", "A worker that is stuck takes no more.", "-"),
    ("proxy/io/socket_buffers.rs", "MIN", "bytes", "Less is slower for everyone.", "-"),
    ("proxy/io/socket_buffers.rs", "MAX", "bytes", "More would let few sockets fill memory.", "-"),
]),
("Credentials", &[
    ("policy/credential.rs", "MAX_COOKIES", "cookies", "Each costs a verification.", "-"),
    ("policy/token.rs", "MAX_ID", "bytes", "It is looked up before anything is verified.", "-"),
    ("policy/token.rs", "MAX_HEADER", "bytes", "Backends bound their heads.", "-"),
    ("policy/keys.rs", "MAX_SET", "bytes", "Memory that an issuer takes.", "-"),
    ("policy/keys.rs", "MAX_KEYS", "keys", "The same.", "-"),
    ("policy/keys.rs", "RSA_MODULUS", "bytes", "Shorter is weak (RFC 7518 §3.3), longer is slow.", "-"),
    ("policy/keys.rs", "MAX_TRIED", "keys", "Each costs a verification.", "-"),
    ("compile/spec/authentication.rs", "SKEW", "", "Clocks differ.", "`jwt.clockSkew`"),
    ("compile/spec/authentication.rs", "MAX_SKEW", "", "An expired token must not go on for long.", "-"),
    ("compile/spec/authentication.rs", "EXTERNAL", "", "A handshake waits for it.", "`external.timeout`"),
    ("compile/spec/authentication.rs", "SHORTEST", "", "Less is a mistake.", "-"),
    ("compile/spec/authentication.rs", "LONGEST", "", "Handshakes that wait keep places.", "-"),
    ("compile/spec/authentication.rs", "TTL", "", "A page uses its ticket at once.", "`ticket.ttl`"),
    ("compile/spec/authentication.rs", "MIN_TTL", "", "Less would expire on the way.", "-"),
    ("compile/spec/authentication.rs", "MAX_TTL", "", "A ticket that leaks must be worthless soon.", "-"),
    ("compile/spec/authentication.rs", "RECHECK", "", "A shorter one asks the Service about each connection all the time.", "`external.recheck`"),
    ("proxy/relay/recheck.rs", "PATIENCE", "times", "A Service that restarts ends nobody.", "-"),
    ("proxy/auth/external.rs", "KEPT", "", "A page that opens many connections asks once.", "`Cache-Control: no-store` of the Service"),
    ("proxy/auth/external.rs", "MAX_KEPT", "answers", "Memory.", "-"),
    ("proxy/auth/external.rs", "ATTEMPTS", "endpoints", "One may just have gone.", "-"),
    ("proxy/auth/calls.rs", "OF_SERVICE", "handshakes", "A Service that hangs takes no one else's places.", "-"),
    ("proxy/auth/calls.rs", "OF_NAMESPACE", "handshakes", "The same.", "-"),
    ("proxy/auth/fetch.rs", "LIMIT", "", "A handshake waits for it.", "-"),
    ("proxy/auth/fetch.rs", "ADDRESSES", "addresses", "Some may be dead.", "-"),
    ("proxy/auth/jwks.rs", "FRESH", "", "New keys are known before they sign much.", "-"),
    ("proxy/auth/jwks.rs", "TOO_OLD", "", "Withdrawn keys must not verify for ever.", "-"),
    ("proxy/auth/jwks.rs", "RETRY", "", "An issuer that is down is not flooded.", "-"),
    ("proxy/auth/jwks.rs", "MOST_REACHED", "", "The same.", "-"),
    ("proxy/auth/jwks.rs", "MOST_UNREACHED", "", "The same.", "-"),
    ("proxy/auth/jwks.rs", "COOL_DOWN", "", "The same.", "-"),
    ("proxy/auth/jwks.rs", "PATIENCE", "", "A little more than a fetch takes.", "-"),
    ("proxy/auth/jwks.rs", "WAITERS", "handshakes", "An issuer that hangs takes no one else's places.", "-"),
    ("proxy/auth/jwks.rs", "PLACES", "fetches", "The same.", "-"),
    ("proxy/auth/tickets.rs", "MOST", "", "Memory of a replica without a shared store.", "-"),
    ("api/ceilings.rs", "TICKETS_PER_SUBJECT", "tickets", "Nobody needs more at once.", "`ticketsPerSubject` of [ceilings](operations/ceilings.md)"),
    ("proxy/store/record.rs", "OF_ADDRESS", "tickets", "Many clients have one address.", "-"),
    ("proxy/store/ticket.rs", "MAX_TTL", "", "See `ticket.ttl`.", "-"),
    ("proxy/store/ticket.rs", "MAX_RECORD", "bytes", "Memory of the store.", "-"),
    ("proxy/store/memory.rs", "OF_ROUTE", "bytes", "One route must not fill the store.", "-"),
    ("proxy/store/memory.rs", "PART", "parts", "Tickets must not fill the store.", "-"),
    ("proxy/store/mod.rs", "WAITING", "handshakes", "A store that hangs takes no one else's places.", "-"),
    ("proxy/store/mod.rs", "PAUSES", "", "A store that is down is not flooded.", "-"),
    ("proxy/store/mod.rs", "MAX_PASSWORD", "bytes", "A longer one is another file.", "-"),
]),
("The backend", &[
    ("snapshot/mod.rs", "CONNECT", "", "A network answers within it, even after a lost packet.", "`rules[].timeouts.connect`"),
    ("snapshot/mod.rs", "UPGRADE", "", "Backends answer within it, unless they start at the first request.", "`rules[].timeouts.upgrade`"),
    ("snapshot/mod.rs", "LONGEST", "", "Handshakes that wait keep places.", "-"),
    ("snapshot/mod.rs", "SHORTEST", "", "Less is a mistake.", "-"),
    ("proxy/handshake/backend.rs", "TLS", "", "As for clients.", "-"),
    ("proxy/handshake/backend.rs", "ENDPOINTS", "endpoints", "More would take longer than clients wait.", "-"),
    ("ws/upgrade/response.rs", "MAX_RETRY_AFTER", "bytes", "A date has 29.", "-"),
    ("ws/upgrade/response.rs", "MAX_CHALLENGES", "fields", "Servers send one or two.", "-"),
    ("ws/upgrade/response.rs", "MAX_CHALLENGE", "bytes", "Clients bound their heads.", "-"),
    ("proxy/io/http.rs", "HEAD", "", "Memory that a Service takes.", "-"),
    ("compile/spec/rule.rs", "MAX_PATH", "bytes", "It is compared for each handshake.", "-"),
    ("proxy/dependency_health.rs", "HOLD", "", "One failure among answers is no outage.", "-"),
    ("proxy/dependency_health.rs", "CALM", "", "One answer among failures is no end of it.", "-"),
    ("proxy/dependency_health.rs", "FORGET", "", "What nobody asks has no state.", "-"),
    ("proxy/dependency_health.rs", "LOOPED", "", "A loop that goes on is told as one.", "-"),
    ("proxy/dependency_health.rs", "MAX_LOOPS", "routes", "Memory.", "-"),
]),
("Messages and time", &[
    ("compile/spec/message_limits.rs", "CLIENT_SIZE", "bytes", "Messages of clients are small.", "`fromClient.maxSize`"),
    ("compile/spec/message_limits.rs", "MAX_CLIENT_SIZE", "bytes", "A message that is judged whole is held.", "-"),
    ("compile/spec/message_limits.rs", "BACKEND_SIZE", "bytes", "Backends send larger ones.", "`fromBackend.maxSize`"),
    ("compile/spec/message_limits.rs", "MAX_BACKEND_SIZE", "bytes", "The same.", "-"),
    ("compile/spec/message_limits.rs", "CLIENT_FRAGMENTS", "frames", "Each costs work, however small.", "`fromClient.maxFragments`"),
    ("compile/spec/message_limits.rs", "BACKEND_FRAGMENTS", "frames", "The same.", "`fromBackend.maxFragments`"),
    ("compile/spec/message_limits.rs", "FRAGMENT", "bytes", "Small devices send pieces of this size.", "`maxFragments`"),
    ("policy/message_rate.rs", "MESSAGE_TIMEOUT", "", "A message that is never finished keeps memory at the backend.", "`messageTimeout`"),
    ("compile/spec/message_rate.rs", "TIMEOUTS", "", "Less than a second is a mistake.", "-"),
    ("proxy/relay/activity.rs", "FRAME_PACE", "bytes a second", "A large message on a slow line is not slow.", "-"),
    ("proxy/relay/session.rs", "STALL_TICKS", "ticks", "A peer that does not read keeps memory.", "-"),
    ("proxy/relay/activity.rs", "READ_PACE", "bytes a second", "A slow reader is no stalled one.", "-"),
    ("proxy/relay/session.rs", "CLOSE_TICKS", "ticks", "An answer to a Close needs one round trip.", "-"),
    ("compile/spec/policy.rs", "HEARTBEAT", "", "Dead clients are found in 90 s, and most load balancers wait 60 s.", "`connection.heartbeat`"),
    ("compile/spec/number.rs", "SHORTEST", "", "Timers are looked at once a second.", "-"),
    ("compile/spec/number.rs", "LONGEST", "", "More is a mistake.", "-"),
    ("proxy/clock.rs", "TICKS", "a second", "Timers of connections need no more.", "-"),
    ("ws/message.rs", "MAX_CONTROL_PER_SECOND", "frames", "A flood of pings costs more than it carries.", "-"),
    ("ws/frame.rs", "MAX_CONTROL", "bytes", "RFC 6455 §5.5.", "-"),
    ("ws/frame.rs", "MAX_HEADER", "bytes", "RFC 6455 §5.2.", "-"),
    ("ws/deflate.rs", "MIN", "bytes", "A smaller message gains less than it costs.", "-"),
    ("ws/deflate.rs", "MAX", "bytes", "It is held until it is whole.", "-"),
    ("ws/deflate.rs", "FREE", "bytes", "It is too little for an attack.", "-"),
    ("ws/deflate.rs", "RATIO", "times", "Text rarely reaches 50; a bomb reaches 1,032.", "-"),
    ("ws/deflate.rs", "MIN_WINDOW", "bits", "zlib keeps to no smaller one.", "-"),
    ("ws/deflate.rs", "MAX_WINDOW", "bits", "RFC 7692 §7.1.2.1.", "-"),
    ("ws/deflate.rs", "MAX_FINAL", "blocks", "Each begins a new stream.", "-"),
    ("compile/spec/content.rs", "MAX_VALUE", "bytes", "Selectors are compared for each message.", "-"),
    ("proxy/io/buffers.rs", "READ", "bytes", "What one wake-up moves, and a throttled client can leave unread.", "-"),
    ("proxy/io/buffers.rs", "BACKEND_READ", "bytes", "What a client that does not read can leave unsent.", "-"),
]),
("The plain port", &[
    ("proxy/plain/http.rs", "CONNECTIONS", "requests", "It serves redirects and challenges alone.", "-"),
    ("proxy/plain/http.rs", "HEAD", "", "As on the TLS port.", "-"),
    ("proxy/plain/http.rs", "TIME", "", "The same.", "-"),
    ("proxy/plain/acme.rs", "TIME", "", "Authorities wait about ten seconds.", "-"),
    ("proxy/plain/acme.rs", "MAX_ANSWER", "bytes", "A key authorization has less than 100.", "-"),
    ("proxy/plain/acme.rs", "OF_SOLVER", "requests", "A solver that hangs takes no one else's places.", "-"),
    ("proxy/plain/acme.rs", "ALL", "requests", "Redirects keep the rest.", "-"),
]),
];

/// How the gateway does its work: numbers that no peer meets.
const INNER: &[(&str, &str)] = &[
    ("proxy/limits/control_group.rs", "UNLIMITED"),
    ("proxy/store/record.rs", "OF_SUBJECT"),
    ("proxy/limits/subject_rate.rs", "SHARDS"),
    ("proxy/limits/handshake_rate.rs", "SHARDS"),
    ("proxy/limits/borrowed.rs", "BUSY"),
    ("proxy/limits/round_robin.rs", "MAX_ROUTES"),
    ("proxy/auth/jwks.rs", "LOOK"),
    ("proxy/auth/tickets.rs", "RANDOM"),
    ("proxy/relay/mod.rs", "ROUNDS"),
    ("proxy/relay/throttle.rs", "TICK"),
    ("proxy/worker.rs", "JUDGING"),
    ("proxy/store/lending.rs", "ASKING"),
    ("proxy/store/mod.rs", "LOOK"),
    ("proxy/store/mod.rs", "LOOK_AGAIN"),
    ("proxy/store/mod.rs", "BATCH"),
    ("proxy/store/memory.rs", "LOOK"),
    ("proxy/store/leases.rs", "QUEUE"),
    ("proxy/store/leases.rs", "RENEWING"),
    ("proxy/store/ticket.rs", "OVERHEAD"),
    ("proxy/dependency_health.rs", "LOOK"),
    ("proxy/io/buffers.rs", "HEADROOM"),
    ("proxy/io/buffers.rs", "RECORD"),
    ("proxy/io/client_tls.rs", "READS"),
    ("ws/message.rs", "MAX_KEPT"),
    ("ws/message.rs", "BLOCK"),
    ("ws/proxy_protocol.rs", "FIXED"),
    ("ws/deflate.rs", "RSV1"),
    ("ws/deflate.rs", "LEVEL"),
];

/// A constant as the code has it.
struct Constant {
    what: String,
    kind: String,
    value: String,
}

fn sources(below: &Path, out: &mut Vec<PathBuf>) {
    if below.is_file() {
        out.push(below.to_owned());
        return;
    }
    for entry in fs::read_dir(below).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            if !path.ends_with("tests") {
                sources(&path, out);
            }
        } else if path.extension().is_some_and(|one| one == "rs") && !path.ends_with("tests.rs") {
            out.push(path);
        }
    }
}

/// Every constant that is a number, a time or made of them, by file and name.
fn constants() -> BTreeMap<(String, String), Constant> {
    let src = root().join("src");
    let mut files = Vec::new();
    ROOTS.iter().for_each(|root| sources(&src.join(root), &mut files));
    let mut found = BTreeMap::new();
    for path in files {
        let file = path.strip_prefix(&src).unwrap().to_str().unwrap().to_owned();
        let text = fs::read_to_string(&path).unwrap();
        let product = text.split("\n#[cfg(test)]\nmod tests {").next().unwrap();
        let mut what: Vec<&str> = Vec::new();
        for line in product.lines().map(str::trim) {
            if let Some(comment) = line.strip_prefix("///") {
                what.push(comment.trim());
                continue;
            }
            let line = line.strip_prefix("pub(crate) ").or(line.strip_prefix("pub(super) ")).unwrap_or(line);
            let line = line.strip_prefix("pub ").unwrap_or(line);
            let declared = line.strip_prefix("const ").filter(|rest| !rest.starts_with("fn "));
            if let Some((name, rest)) = declared.and_then(|rest| rest.split_once(": ")) {
                let (kind, value) = rest.split_once(" = ").unwrap_or((rest, ""));
                let counts = !kind.starts_with(['&', '[', '(']) || kind.starts_with("(u") || kind.starts_with("(D");
                let other = ["bool", "IpAddr", "GeneralPurpose"].contains(&kind);
                let made = kind == "Self" && !what.join(" ").contains("that may be set");
                if counts && !other && !made {
                    let (kind, value) = (kind.to_owned(), value.trim_end_matches(';').to_owned());
                    found.insert((file.clone(), name.to_owned()), Constant { what: what.join(" "), kind, value });
                }
            }
            what.clear();
        }
    }
    found
}

/// The number of a product or a shift of numbers.
fn number(text: &str) -> Option<u64> {
    let text = text.trim();
    if let Some((left, right)) = text.split_once("<<") {
        return Some(number(left)? << number(right)?);
    }
    if let Some((left, right)) = text.split_once(" + ") {
        return Some(number(left)? + number(right)?);
    }
    text.split('*').map(|part| part.trim().replace('_', "").parse::<u64>().ok()).product()
}

/// A time as people write it.
fn time(text: &str) -> Option<String> {
    let inner = |begins: &str| number(text.strip_prefix(begins)?.strip_suffix(')')?);
    if let Some(seconds) = inner("Duration::from_secs(") {
        return Some(match seconds {
            _ if seconds > 86_400 => format!("{} days", seconds / 86_400),
            86_400 => "24 h".to_owned(),
            _ if seconds >= 120 && seconds % 60 == 0 => format!("{} min", seconds / 60),
            _ => format!("{seconds} s"),
        });
    }
    inner("Duration::from_millis(").map(|millis| format!("{millis} ms"))
}

/// A value as the page shows it.
fn shown(constant: &Constant, unit: &str) -> String {
    let text = constant.value.as_str();
    // Tests have a smaller one.
    let text = text.split_once(" else { ").and_then(|(_, other)| other.strip_suffix(" }")).unwrap_or(text);
    let whole = |text: &str| -> Option<String> {
        if let Some(time) = time(text) {
            return Some(time);
        }
        let ticks = text.strip_suffix(" * TICKS").filter(|_| unit == "ticks");
        if let Some(seconds) = ticks.and_then(number) {
            return Some(format!("{seconds} s"));
        }
        let number = number(text)?;
        Some(match unit {
            "bytes" if number >= 1 << 20 && number % (1 << 20) == 0 => format!("{} MiB", number >> 20),
            "bytes" if number >= 1 << 10 && number % (1 << 10) == 0 => format!("{} KiB", number >> 10),
            _ => format!("{number} {unit}").trim_end().to_owned(),
        })
    };
    if let Some(value) = whole(text) {
        return value;
    }
    let pair = text.strip_prefix('(').and_then(|rest| rest.strip_suffix(')')).and_then(|rest| rest.split_once(", "));
    let pair = pair.or_else(|| text.split_once("..="));
    if let Some((Some(one), Some(other))) = pair.map(|(one, other)| (whole(one), whole(other))) {
        return format!("{one}; {other}");
    }
    assert!(!text.is_empty(), "a value on its own line: {}", constant.kind);
    format!("`{text}`")
}

fn page(constants: &BTreeMap<(String, String), Constant>) -> String {
    let mut page = "# Fixed numbers of the data plane\n\nThis page is made of the constants in the code; `tests/numbers.rs` fails \
                    if one is not here. `-` means that\nno field or setting changes it. Limits that routes set are in \
                    [routes.md](routes.md), the numbers of schemas in\n[messages.md](messages.md).\n"
        .to_owned();
    for (title, rows) in PARTS {
        page.push_str(&format!(
            "\n## {title}\n\n| what | value | why | changed by | constant |\n|---|---|---|---|---|\n"
        ));
        for (file, name, unit, why, by) in *rows {
            let constant = &constants[&((*file).to_owned(), (*name).to_owned())];
            // Links of the code lead nowhere here.
            let what = constant.what.replace("[`", "`").replace("`]", "`").replace('|', "\\|");
            let value = shown(constant, unit);
            page.push_str(&format!("| {what} | {value} | {why} | {by} | `{file}` `{name}` |\n"));
        }
    }
    page
}

#[test]
fn every_fixed_number_has_a_row_and_every_row_its_number() {
    let constants = constants();
    let outer = PARTS.iter().flat_map(|(_, rows)| rows.iter().map(|(file, name, ..)| (*file, *name)));
    let rows: Vec<(&str, &str)> = outer.chain(INNER.iter().copied()).collect();
    let listed: BTreeSet<(String, String)> = rows.iter().map(|(f, n)| ((*f).to_owned(), (*n).to_owned())).collect();
    assert_eq!(listed.len(), rows.len(), "a number is listed twice");
    let found: BTreeSet<(String, String)> = constants.keys().cloned().collect();
    let missing: Vec<_> = found.difference(&listed).collect();
    assert!(missing.is_empty(), "give these a row in tests/numbers.rs: {missing:?}");
    let gone: Vec<_> = listed.difference(&found).collect();
    assert!(gone.is_empty(), "these are constants no more; take their rows away: {gone:?}");
    for (key, constant) in &constants {
        assert!(!constant.what.is_empty(), "{key:?} has no comment that says what it is");
    }
}

#[test]
fn the_page_of_numbers_is_made_of_the_code() {
    drift("docs/numbers.md", &page(&constants()));
}

#[test]
fn values_are_read_as_people_write_them() {
    let said = |kind: &str, value: &str, unit: &str| {
        shown(&Constant { what: String::new(), kind: kind.into(), value: value.into() }, unit)
    };
    assert_eq!(said("usize", "16 * 1024", "bytes"), "16 KiB");
    assert_eq!(said("u64", "16 << 20", "bytes"), "16 MiB");
    assert_eq!(said("usize", "65_536", "keys"), "65536 keys");
    assert_eq!(said("Duration", "Duration::from_secs(5 * 60)", ""), "5 min");
    assert_eq!(said("u32", "30 * TICKS", "ticks"), "30 s");
    assert_eq!(said("(u32, u32)", "(1024, 1_000_000)", "frames"), "1024 frames; 1000000 frames");
    assert_eq!(said("Taken", "Taken { tickets: 1 }", ""), "`Taken { tickets: 1 }`");
}
