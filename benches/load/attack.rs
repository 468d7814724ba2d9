//! What an attack costs those who do no harm: round trips on open connections and new handshakes with a valid token,
//! while one address guesses tokens or begins TLS handshakes as fast as it can.
//!
//! The attacker is this program again ([`crate::attacker`]), in a process of its own that gets the load core only while
//! nobody else wants it (`chrt --idle`), so that what is measured waits for the gateway and not for the attacker.

use std::cell::RefCell;
use std::io::{Read as _, Write as _};
use std::net::Ipv4Addr;
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use crate::Failure;
use crate::cell::{Place, Value};
use crate::client::{Dial, Message, Socket, Tally, record};
use crate::gateway::Running;
use crate::method::{Fixture, Method};
use crate::tls::{Groups, Source, client_config};

/// Open connections, and how often each sends a message.
pub(crate) const OPEN: u8 = 20;
const PACE: Duration = Duration::from_millis(50);
/// How often somebody else connects.
pub(crate) const ARRIVALS: Duration = Duration::from_millis(20);

/// What the attacker does.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Attack {
    /// Nothing: what the others are compared with.
    Nothing,
    /// Whole handshakes, each with a token that nobody has signed, from one address.
    Guesses,
    /// A ClientHello on each connection and nothing after the gateway's answer, from one address.
    Hellos,
    /// The same from eight addresses, each with as many under way.
    Crowd,
    /// Whole handshakes on a route that takes no more connections: not a row of the table of attacks.
    Flood,
    /// Connections to a route of another tenant whose echo is never read. This and the next are the rows of
    /// [`crate::shares`].
    Unread,
    /// Key sets of another tenant that hang.
    Keys,
    /// Tickets of one subject.
    Tickets,
    /// Handshakes on a route of another tenant that leads back to the gateway.
    Loop,
    /// ClientHellos on connections that are held, from three addresses.
    Three,
    /// The same from eight.
    Eight,
    /// Half requests at the admin port.
    Halves,
    /// Connections to the plain port that say nothing, from four addresses.
    Plain,
    /// All sockets that one client of a route of another tenant gets.
    Sockets,
    /// Handshakes that a route of another tenant refuses.
    Refusals,
}

impl Attack {
    /// The rows, each of a median and a 99th percentile: of round trips and of handshakes.
    pub(crate) fn rows(self) -> [[&'static str; 2]; 2] {
        match self {
            Self::Nothing => [["attack-none-echo", "attack-none-echo-99"], ["attack-none-open", "attack-none-open-99"]],
            Self::Guesses => {
                [["attack-guesses-echo", "attack-guesses-echo-99"], ["attack-guesses-open", "attack-guesses-open-99"]]
            }
            Self::Hellos => {
                [["attack-hellos-echo", "attack-hellos-echo-99"], ["attack-hellos-open", "attack-hellos-open-99"]]
            }
            Self::Crowd => {
                [["attack-crowd-echo", "attack-crowd-echo-99"], ["attack-crowd-open", "attack-crowd-open-99"]]
            }
            _ => [[""; 2]; 2],
        }
    }
}

/// The route of these cells: tokens in a cookie, and attempts limited as a sign-in page would.
pub(crate) fn fixture() -> Result<Fixture, Failure> {
    let mut fixture = Fixture::new(Method::Cookie(jsonwebtoken::Algorithm::ES256))?;
    fixture.attempts = Some(json!({"count": 20, "interval": "1s", "burst": 40}));
    Ok(fixture)
}

impl Place<'_> {
    /// Medians and 99th percentiles, in milliseconds, while the attack goes on.
    pub(crate) async fn attacked(
        &self,
        running: &Running,
        attack: Attack,
        fixture: &Fixture,
    ) -> Result<Vec<Value>, Failure> {
        let config = client_config(&self.identity.der, Groups::Classic, false, None)?;
        let dial = Dial { fields: fixture.fields.as_str().into(), ..Dial::new(running.address, config) };
        let others = Others::open(&dial).await?;
        let (tally, opens) = (others.tally.clone(), Rc::new(Times::default()));
        let window = 2 * self.scale.window;
        let attacker = self.attacker(running, attack, self.scale.warm_up + window, "")?;
        sleep(self.scale.warm_up).await;
        others.trips.clear();
        let arrivals = {
            let (tally, opens) = (tally.clone(), opens.clone());
            async move {
                let mut ticks = interval(ARRIVALS);
                ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
                for number in (1..=100).cycle() {
                    ticks.tick().await;
                    let dial = Dial { source: from(Ipv4Addr::new(127, 0, 2, number)), ..dial.clone() };
                    let opens = opens.clone();
                    let visit = async move {
                        let began = Instant::now();
                        let socket = Socket::open(&dial).await?;
                        opens.add(began);
                        socket.close().await
                    };
                    tokio::task::spawn_local(record(tally.clone(), visit));
                }
            }
        };
        // The arrivals have no end of their own.
        let _over = timeout(window, arrivals).await;
        let rate = match attacker {
            Some(attacker) => attacker.report(window).await?,
            None => 0.0,
        };
        others.are_well()?;
        let [echo, open] = attack.rows();
        Ok(others.trips.values(echo, rate)?.into_iter().chain(opens.values(open, rate)?).collect())
    }

    /// Starts the attacker, whose requests have these fields; `None` where the attack needs no process.
    pub(crate) fn attacker(
        &self,
        running: &Running,
        attack: Attack,
        time: Duration,
        fields: &str,
    ) -> Result<Option<Attacker>, Failure> {
        let target = match attack {
            Attack::Nothing | Attack::Keys => return Ok(None),
            Attack::Halves => running.admin,
            Attack::Plain => running.http,
            _ => running.address,
        };
        let name = attack.to_possible_value().ok_or("an attack without a name")?;
        let child = Command::new("chrt")
            .args(["--idle", "0"])
            .arg(std::env::current_exe()?)
            .args(["--bench", "--attack", name.get_name(), "--target", &target.to_string()])
            .args(["--seconds", &time.as_secs_f64().to_string(), "--fields", fields])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("chrt (util-linux) does not start: {error}"))?;
        let mut attacker = Attacker(child);
        let mut certificate = attacker.0.stdin.take().ok_or("no standard input")?;
        certificate.write_all(&self.identity.der)?;
        Ok(Some(attacker))
    }
}

/// An end of a connection at this address.
pub(crate) fn from(address: Ipv4Addr) -> Source {
    Source { address: Some(address), ..Source::default() }
}

/// The attacker's process; dropped, it is ended.
pub(crate) struct Attacker(Child);

impl Attacker {
    /// What it says that it did, in attempts per second.
    pub(crate) async fn report(mut self, limit: Duration) -> Result<f64, Failure> {
        let deadline = Instant::now() + limit;
        while self.0.try_wait()?.is_none() {
            if Instant::now() > deadline {
                return Err("the attacker did not end".into());
            }
            sleep(Duration::from_millis(20)).await;
        }
        let mut said = String::new();
        self.0.stdout.take().ok_or("no standard output")?.read_to_string(&mut said)?;
        Ok(said.trim().parse().map_err(|_| format!("the attacker failed: {said}"))?)
    }
}

impl Drop for Attacker {
    fn drop(&mut self) {
        let _ended = self.0.kill();
        let _status = self.0.wait();
    }
}

/// Those who do no harm: open connections that send a message each [`PACE`], each from an address of its own.
pub(crate) struct Others {
    /// How long their messages took to come back.
    pub(crate) trips: Rc<Times>,
    tally: Rc<Tally>,
    _tasks: JoinSet<()>,
}

impl Others {
    /// Opens all [`OPEN`] of them.
    pub(crate) async fn open(dial: &Dial) -> Result<Self, Failure> {
        let (tally, trips) = (Rc::new(Tally::default()), Rc::new(Times::default()));
        let mut tasks = JoinSet::new();
        for number in 0..OPEN {
            let dial = Dial { source: from(Ipv4Addr::new(127, 0, 1, number + 1)), ..dial.clone() };
            let mut socket = Socket::open(&dial).await?;
            let trips = trips.clone();
            tasks.spawn_local(record(tally.clone(), async move {
                let message = Message::new(64, u64::from(number) + 1);
                let mut ticks = interval(PACE);
                ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
                loop {
                    ticks.tick().await;
                    let began = Instant::now();
                    socket.echo(&message, 1, Some(1), &Tally::default()).await?;
                    trips.add(began);
                }
            }));
        }
        Ok(Self { trips, tally, _tasks: tasks })
    }

    /// Fails if one of them failed.
    pub(crate) fn are_well(&self) -> Result<(), Failure> {
        self.tally.failure.borrow_mut().take().map_or(Ok(()), |failure| Err(failure.into()))
    }
}

/// How long each of a kind took.
#[derive(Default)]
pub(crate) struct Times(RefCell<Vec<Duration>>);

impl Times {
    /// One more, that began then and is over now.
    pub(crate) fn add(&self, began: Instant) {
        self.0.borrow_mut().push(began.elapsed());
    }

    /// Forgets what was measured.
    pub(crate) fn clear(&self) {
        self.0.borrow_mut().clear();
    }

    /// A percentile, in milliseconds.
    pub(crate) fn percentile(&self, part: usize) -> Option<f64> {
        let mut times = self.0.borrow_mut();
        times.sort();
        times.get(times.len() * part / 100).map(|time| time.as_secs_f64() * 1e3)
    }

    /// Median and 99th percentile, in milliseconds.
    fn values(&self, rows: [&'static str; 2], rate: f64) -> Result<[Value; 2], Failure> {
        let (median, tail) = self.percentile(50).zip(self.percentile(99)).ok_or("nothing was measured")?;
        let count = self.0.borrow().len();
        let value = |row, value| Value { row, value, rate, note: format!("ms, of {count}") };
        Ok([value(rows[0], median), value(rows[1], tail)])
    }
}
