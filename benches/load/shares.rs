//! What a victim loses beside an attacker that asks for all of a thing that they share (`docs/operations/shares.md`): how
//! many of its visits succeed and how long they take, first alone and then beside the attack.
//!
//! The victim is the usual route in namespace `load`; what the attacker owns lies in namespace `other`
//! ([`crate::tenants`]). Asserts nothing: the tests do that by counting.

use std::cell::{Cell, RefCell};
use std::fs;
use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use crate::Failure;
use crate::attack::{ARRIVALS, Attack, Times, from};
use crate::attacker::ATTACKER;
use crate::cell::{Place, Value};
use crate::client::{self, Dial, Socket};
use crate::gateway::Running;
use crate::method::{Fixture, TICKETS};
use crate::tenants;
use crate::tls::{Groups, Source, client_config};

/// How long an attack lasts before the victim's visits count: a key set that hangs is given up after 3 s.
const SETTLE: Duration = Duration::from_secs(4);
/// How long the buffers of clients that do not read may take to fill.
const FILL: Duration = Duration::from_secs(20);
/// How long a visit may take; a probe of the kubelet has a second.
const VISIT: Duration = Duration::from_secs(5);
const PROBE: Duration = Duration::from_secs(1);
/// How long a new route may take until it serves, and how many there are.
const NEW_ROUTE: Duration = Duration::from_secs(15);
const NEW_ROUTES: usize = 5;

/// A row of the table.
pub(crate) struct Row {
    pub(crate) attack: Attack,
    /// What a reader calls the attack, the victim's visit, and what the attacker holds.
    pub(crate) label: &'static str,
    pub(crate) victim: &'static str,
    pub(crate) held: &'static str,
    /// The names of its values: success in percent and the 99th percentile in milliseconds, alone and beside the attack,
    /// and what the attacker holds.
    pub(crate) values: [&'static str; 5],
}

macro_rules! row {
    ($attack:ident, $name:literal, $label:literal, $victim:literal, $held:literal) => {
        Row {
            attack: Attack::$attack,
            label: $label,
            victim: $victim,
            held: $held,
            values: [
                concat!($name, "-alone"),
                concat!($name, "-alone-99"),
                concat!($name, "-beside"),
                concat!($name, "-beside-99"),
                concat!($name, "-held"),
            ],
        }
    };
}

/// All rows, in the table's order.
pub(crate) const ROWS: [Row; 10] = [
    row!(Unread, "attack-unread", "60 clients that do not read", "handshake", "KiB of kernel memory for each"),
    row!(
        Keys,
        "attack-keys",
        "320 key sets of one namespace that hang",
        "new route, until it serves",
        "fetches given up"
    ),
    row!(
        Tickets,
        "attack-tickets",
        "one credential that requests tickets",
        "ticket and handshake",
        "tickets outstanding"
    ),
    row!(Loop, "attack-loop", "a route that leads back to the gateway", "handshake", "client sockets"),
    row!(Three, "attack-tls-3", "TLS handshakes without end from 3 addresses", "handshake", "client sockets"),
    row!(Eight, "attack-tls-8", "TLS handshakes without end from 8 addresses", "handshake", "client sockets"),
    row!(Halves, "attack-admin", "half requests at the admin port", "`/livez` within 1 s", "open files"),
    row!(Plain, "attack-plain", "the plain port, from 4 addresses", "redirect", "open files"),
    row!(Sockets, "attack-sockets", "one client that takes all sockets of 320", "handshake", "connections"),
    row!(
        Refusals,
        "attack-refusals",
        "a flood of refusals on one route",
        "refusal with its line in the access log",
        "refusals"
    ),
];

/// Asks for a page in plain HTTP; the status, and the whole answer.
async fn get(address: SocketAddr, source: Source, target: &str, host: &str) -> Result<(u16, String), Failure> {
    let mut tcp = source.connect(address).await?;
    tcp.write_all(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").as_bytes()).await?;
    let mut answer = String::new();
    tcp.read_to_string(&mut answer).await?;
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or("no answer")?;
    Ok((status, answer))
}

/// The sum of the samples of a family with this label.
async fn metric(admin: SocketAddr, family: &str, label: &str) -> Result<f64, Failure> {
    let (_, text) = get(admin, Source::default(), "/metrics", "localhost").await?;
    let samples = text.lines().filter(|line| {
        line.strip_prefix(family).is_some_and(|rest| rest.starts_with([' ', '{'])) && line.contains(label)
    });
    Ok(samples.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
}

/// Who looks what the attacker holds.
#[derive(Clone, Copy)]
struct Look {
    attack: Attack,
    wss: SocketAddr,
    admin: SocketAddr,
    backend: SocketAddr,
    pid: u32,
}

impl Look {
    async fn held(&self) -> Result<f64, Failure> {
        let of = async |family: &str, label: &str| metric(self.admin, family, label).await;
        match self.attack {
            Attack::Keys => of("wssgate_jwks_fetches_total", "outcome=\"failure\"").await,
            Attack::Tickets => {
                let label = "route=\"load/load\"";
                let redeemed = of("wssgate_tickets_redeemed_total", label).await?;
                Ok(of("wssgate_tickets_issued_total", label).await? - redeemed)
            }
            Attack::Halves | Attack::Plain => Ok(fs::read_dir(format!("/proc/{}/fd", self.pid))?.count() as f64),
            Attack::Sockets => of("wssgate_connections", "route=\"other/own\"").await,
            Attack::Refusals => of("wssgate_handshakes_total", "route=\"other/own\"").await,
            _ => of("wssgate_client_sockets", "").await,
        }
    }

    /// What waits in the gateway's sockets toward the attacker and toward the backend, in KiB for each connection of the
    /// attacker.
    fn kernel_memory(&self) -> Result<f64, Failure> {
        let table = fs::read_to_string("/proc/net/tcp")?;
        let port = |address: &str| u16::from_str_radix(address.rsplit(':').next()?, 16).ok();
        let attacker = format!("{:08X}:", u32::from_le_bytes(ATTACKER.octets()));
        let (mut bytes, mut connections) = (0, 0u64);
        for row in table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>()) {
            let [_, local, peer, state, queues, ..] = row.as_slice() else { continue };
            let to_attacker = port(local) == Some(self.wss.port()) && peer.starts_with(&attacker);
            // 01: established.
            if *state == "01" && (to_attacker || port(peer) == Some(self.backend.port())) {
                connections += u64::from(to_attacker);
                for queue in queues.split(':') {
                    bytes += u64::from_str_radix(queue, 16)?;
                }
            }
        }
        Ok(bytes as f64 / 1024.0 / connections.max(1) as f64)
    }
}

/// How the victim fared.
#[derive(Default)]
struct Fared {
    times: Times,
    visits: Cell<usize>,
    succeeded: Cell<usize>,
    failure: RefCell<Option<String>>,
}

impl Fared {
    async fn visit(&self, limit: Duration, visit: impl Future<Output = Result<(), Failure>>) {
        let began = Instant::now();
        let failure = match timeout(limit, visit).await {
            Ok(Ok(())) => {
                self.times.add(began);
                self.succeeded.set(self.succeeded.get() + 1);
                return;
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("nothing within {limit:?}"),
        };
        self.failure.borrow_mut().get_or_insert(failure);
    }

    /// Success in percent and, if there was one, the 99th percentile in milliseconds.
    fn values(&self, rows: [&'static str; 2], rate: f64) -> Vec<Value> {
        let (visits, succeeded) = (self.visits.get(), self.succeeded.get());
        let failure = self.failure.borrow().as_ref().map_or(String::new(), |failure| format!("; {failure}"));
        let note = format!("% of {visits} visits{failure}");
        let success = Value { row: rows[0], value: 100.0 * succeeded as f64 / visits.max(1) as f64, rate, note };
        let tail = self.times.percentile(99);
        let tail = tail.map(|value| Value { row: rows[1], value, rate, note: "ms, the 99th percentile".into() });
        [Some(success), tail].into_iter().flatten().collect()
    }
}

impl Place<'_> {
    /// The values of a row.
    pub(crate) async fn shared(
        &self,
        running: &Running,
        attack: Attack,
        fixture: &Fixture,
    ) -> Result<Vec<Value>, Failure> {
        let row = ROWS.iter().find(|row| row.attack == attack).ok_or("an attack without a row")?;
        let [alone, alone_tail, beside, beside_tail, held] = row.values;
        let mut values = self.victim(running, attack, fixture, 0).await?.values([alone, alone_tail], 0.0);

        // Connections to it stay in the kernel's queue: nobody ever answers.
        let hanging = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        if attack == Attack::Keys {
            running.write("other.yaml", &tenants::hanging(self.identity, hanging.local_addr()?))?;
        }
        let unread = attack == Attack::Unread;
        let settle = if unread { FILL } else { SETTLE };
        let time = settle + 2 * self.scale.window + Duration::from_secs(1);
        let attacker = self.attacker(running, attack, time, &fixture.attacker)?;
        let most = Rc::new(Cell::new(0.0f64));
        let mut looking = JoinSet::new();
        let look = Look {
            attack,
            wss: running.address,
            admin: running.admin,
            backend: self.backend,
            pid: running.family.pids()[0],
        };
        if unread {
            // Once, and not beside the visits: the kernel's table takes longer to read than a handshake.
            most.set(filled(&look).await?);
        } else {
            let seen = most.clone();
            looking.spawn_local(async move {
                loop {
                    // One that gets no answer sees nothing.
                    if let Ok(Ok(held)) = timeout(PROBE, look.held()).await {
                        seen.set(seen.get().max(held));
                    }
                    sleep(Duration::from_millis(250)).await;
                }
            });
            sleep(SETTLE).await;
        }
        let fared = self.victim(running, attack, fixture, NEW_ROUTES).await?;
        looking.shutdown().await;
        let rate = match attacker {
            // It has made all its connections long ago.
            Some(attacker) if !unread => attacker.report(2 * time).await?,
            _ => 0.0,
        };
        values.extend(fared.values([beside, beside_tail], rate));
        values.push(Value { row: held, value: most.get(), rate: 0.0, note: row.held.into() });
        Ok(values)
    }

    /// The victim's visits over a window; new routes are counted from `first`.
    async fn victim(
        &self,
        running: &Running,
        attack: Attack,
        fixture: &Fixture,
        first: usize,
    ) -> Result<Rc<Fared>, Failure> {
        let config = client_config(&self.identity.der, Groups::Classic, false, None)?;
        let dial = Dial { fields: fixture.fields.as_str().into(), ..Dial::new(running.address, config) };
        let fared = Rc::new(Fared::default());
        if let Some(issuer) = fixture.issuer {
            for number in first..first + NEW_ROUTES {
                let name = format!("fresh{number}");
                let dial = Dial { host: format!("{name}.example.com").into(), target: "/".into(), ..dial.clone() };
                fared.visits.set(fared.visits.get() + 1);
                fared.visit(NEW_ROUTE, new_route(running, &dial, &name, issuer)).await;
            }
            return Ok(fared);
        }
        let lines = own_lines(running)?;
        let (pace, limit) = match attack {
            // Fewer than the lines that a route always has.
            Attack::Refusals => (Duration::from_millis(200), VISIT),
            Attack::Tickets => (Duration::from_millis(50), VISIT),
            Attack::Halves => (ARRIVALS, PROBE),
            _ => (ARRIVALS, VISIT),
        };
        let mut visits = JoinSet::new();
        let arrivals = async {
            let mut ticks = interval(pace);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            for number in (1..=100).cycle() {
                ticks.tick().await;
                let dial = Dial { source: from(Ipv4Addr::new(127, 0, 2, number)), ..dial.clone() };
                let (fared, http, admin) = (fared.clone(), running.http, running.admin);
                fared.visits.set(fared.visits.get() + 1);
                visits.spawn_local(async move { fared.visit(limit, visit(attack, &dial, http, admin)).await });
            }
        };
        // The arrivals have no end of their own.
        let _over = timeout(2 * self.scale.window, arrivals).await;
        while visits.join_next().await.is_some() {}
        if attack == Attack::Refusals {
            // The line of each is what counts.
            let written = async {
                while own_lines(running).is_ok_and(|now| now - lines < fared.succeeded.get()) {
                    sleep(Duration::from_millis(50)).await;
                }
            };
            let _lost = timeout(Duration::from_secs(2), written).await;
            fared.succeeded.set(fared.succeeded.get().min(own_lines(running)? - lines));
        }
        Ok(fared)
    }
}

/// Waits until the kernel takes no more for those that do not read, or [`FILL`] is over; what it holds for each, in KiB.
async fn filled(look: &Look) -> Result<f64, Failure> {
    let (began, mut last, mut still) = (Instant::now(), 0.0, 0);
    // One direction may be full for a moment before the other begins to fill.
    while still < 3 && began.elapsed() < FILL {
        sleep(Duration::from_secs(1)).await;
        let now = look.kernel_memory()?;
        // The buffers go on growing by a trickle for a while.
        still = if now > 1.0 && now < last * 1.01 { still + 1 } else { 0 };
        last = now;
    }
    Ok(last)
}

/// One visit of the victim.
async fn visit(attack: Attack, dial: &Dial, http: SocketAddr, admin: SocketAddr) -> Result<(), Failure> {
    let expected = |status: u16, wanted: u16| {
        if status == wanted { Ok(()) } else { Err(format!("{status} and not {wanted}").into()) }
    };
    match attack {
        // The kubelet's address is the attacker's too.
        Attack::Halves => expected(get(admin, Source::default(), "/livez", "localhost").await?.0, 200),
        Attack::Plain => expected(get(http, dial.source, "/", &dial.host).await?.0, 308),
        Attack::Refusals => {
            let request = client::upgrade(dial).replace("Origin: https://", "Origin: https://not-");
            let (_, answer) = client::ask(dial, &request, b"\r\n\r\n").await?;
            expected(answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0), 403)
        }
        Attack::Tickets => {
            let target = format!("/load?ticket={}", client::ticket(dial, TICKETS).await?);
            let dial = Dial { target: target.into(), fields: "".into(), ..dial.clone() };
            Socket::open(&dial).await?.close().await
        }
        _ => Socket::open(dial).await?.close().await,
    }
}

/// Adds a route whose key set is fetched, and waits until it serves.
async fn new_route(running: &Running, dial: &Dial, name: &str, issuer: SocketAddr) -> Result<(), Failure> {
    let sets = [format!("https://{issuer}/{name}")];
    running.write(&format!("{name}.yaml"), &[tenants::fetching("load", name, "echo", &sets)])?;
    loop {
        if let Ok(socket) = Socket::open(dial).await {
            return socket.close().await;
        }
        sleep(Duration::from_millis(20)).await;
    }
}

/// Lines of the access log that tell a refusal of the victim's route.
fn own_lines(running: &Running) -> Result<usize, Failure> {
    let own = |line: &&str| line.contains("\"event\":\"refused\"") && line.contains("\"route\":\"load/load\"");
    Ok(running.access_log()?.lines().filter(own).count())
}
