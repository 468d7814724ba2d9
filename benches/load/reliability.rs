//! What clients that mean harm take from the others, and what they leave behind: rows R12, R13 and R15 of the threats.
//!
//! Readers that never read, a flood over a limit, and connections that stop half-way in each of four layers. Beside them
//! twenty open connections send a message each 50 ms.

use std::rc::Rc;
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::Failure;
use crate::attack::{Attack, OPEN, Others};
use crate::cell::{Place, Value, wait_for};
use crate::client::{self, Dial, Message, Socket, Tally};
use crate::gateway::Running;
use crate::method::Fixture;
use crate::process;
use crate::tls::{Groups, HOST, Source, client_config};

/// Connections that stop half-way, in each layer.
const SLOW: usize = 1000;
/// How many of them are opened at one time.
const OPENING: usize = 64;
/// How long the gateway may take to end those of the slowest layer: a message may pause for 30 s.
const LONGEST: Duration = Duration::from_secs(45);

/// What is done to the gateway.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Harm {
    /// R12: clients that send to an echo and never read.
    Readers,
    /// R13: handshakes without a pause on a route whose `limits.total` is reached.
    Flood,
    /// R15: connections that stop after TCP.
    Tcp,
    /// R15: in the middle of the ClientHello.
    Tls,
    /// R15: in the middle of the request.
    Http,
    /// R15: in the middle of a frame.
    Frame,
}

impl Harm {
    /// The rows of a cell, in the order of its values.
    pub(crate) fn rows(self) -> &'static [&'static str] {
        match self {
            Self::Readers => &[
                "reliability-readers-first",
                "reliability-readers-last",
                "reliability-readers-alone",
                "reliability-readers",
            ],
            Self::Flood => &["reliability-flood-cost", "reliability-flood-alone", "reliability-flood"],
            Self::Tcp => &["reliability-tcp", "reliability-tcp-left"],
            Self::Tls => &["reliability-tls", "reliability-tls-left"],
            Self::Http => &["reliability-http", "reliability-http-left"],
            Self::Frame => &["reliability-frame", "reliability-frame-left"],
        }
    }

    /// The route: open to everybody, and full with the others where it is flooded.
    pub(crate) fn fixture(self) -> Fixture {
        let mut fixture = Fixture::default();
        if self == Self::Flood {
            fixture.connection = json!({"limits": {"total": OPEN}});
        }
        fixture
    }
}

impl Place<'_> {
    /// The values of the cell's rows.
    pub(crate) async fn harmed(&self, running: &Running, harm: Harm) -> Result<Vec<Value>, Failure> {
        let values = match harm {
            Harm::Readers => self.readers(running).await?,
            Harm::Flood => self.flood(running).await?,
            Harm::Tcp | Harm::Tls | Harm::Http | Harm::Frame => self.half_way(running, harm).await?,
        };
        let named = harm.rows().iter().zip(values);
        Ok(named.map(|(row, (value, note))| Value { row, value, rate: 0.0, note }).collect())
    }

    fn to(&self, running: &Running) -> Result<Dial, Failure> {
        Ok(Dial::new(running.address, client_config(&self.identity.der, Groups::Classic, false, None)?))
    }

    async fn readers(&self, running: &Running) -> Result<Vec<(f64, String)>, Failure> {
        let dial = self.to(running)?;
        let others = Others::open(&dial).await?;
        let alone = self.tail(&others).await?;
        let before = running.family.resident()?;
        let (count, tally) = (self.scale.readers, Rc::new(Tally::default()));
        // Small buffers of the client's kernel, so that it is the gateway's memory that fills.
        let source = Source { buffer: Some(32 * 1024), ..Source::default() };
        let (dial, message) = (Dial { source, ..dial }, Rc::new(Message::new(4096, 1)));
        let (start, _) = watch::channel(false);
        let doors = Rc::new(tokio::sync::Semaphore::new(OPENING));
        let mut tasks = JoinSet::new();
        for _ in 0..count {
            let (dial, counted, message, mut started) =
                (dial.clone(), tally.clone(), message.clone(), start.subscribe());
            let doors = doors.clone();
            // One that the gateway ends because it takes nothing has what it deserves.
            tasks.spawn_local(async move {
                let door = doors.acquire().await;
                let opened = Socket::open(&dial).await;
                drop(door);
                match opened {
                    Ok(mut socket) => {
                        counted.ready.set(counted.ready.get() + 1);
                        let _ = started.wait_for(|started| *started).await;
                        let _ended = socket.write_only(&message, &counted).await;
                    }
                    Err(error) => counted.fail(&error),
                }
            });
        }
        wait_for(&tally, count, Duration::from_secs(60)).await?;
        start.send_replace(true);
        settled(&tally).await?;
        let beside = self.tail(&others).await?;
        let each = |resident: f64| (resident - before) / count as f64;
        let first = each(running.family.resident()?);
        sleep(self.scale.fall).await;
        let last = each(running.family.resident()?);
        others.are_well()?;
        let after = format!("{count} clients, {:.0} s later", self.scale.fall.as_secs_f64());
        Ok(vec![
            (first, format!("KiB resident each, of {count}")),
            (last, after),
            (alone, "ms".into()),
            (beside, "ms".into()),
        ])
    }

    async fn flood(&self, running: &Running) -> Result<Vec<(f64, String)>, Failure> {
        let others = Others::open(&self.to(running)?).await?;
        let alone = self.tail(&others).await?;
        let window = 2 * self.scale.window;
        let attacker = self.attacker(running, Attack::Flood, self.scale.warm_up + window, "")?;
        sleep(self.scale.warm_up).await;
        let (cpu, began) = (running.family.cpu()?, Instant::now());
        let beside = self.tail(&others).await?;
        let (cpu, time) = (running.family.cpu()? - cpu, began.elapsed().as_secs_f64());
        let rate = attacker.ok_or("no attacker")?.report(window).await?;
        others.are_well()?;
        let note = format!("us CPU for each of {rate:.0} refused in a second");
        Ok(vec![(cpu * 1e6 / (rate * time), note), (alone, "ms".into()), (beside, "ms".into())])
    }

    /// The 99th percentile of the others' round trips over a window, in milliseconds.
    async fn tail(&self, others: &Others) -> Result<f64, Failure> {
        others.trips.clear();
        sleep(2 * self.scale.window).await;
        others.trips.percentile(99).ok_or_else(|| "nothing was measured".into())
    }

    async fn half_way(&self, running: &Running, harm: Harm) -> Result<Vec<(f64, String)>, Failure> {
        let dial = self.to(running)?;
        let others = Others::open(&dial).await?;
        // The first round is to allocate what is kept for the next.
        let mut left = 0.0;
        let mut longest = Duration::ZERO;
        for round in 0..2 {
            let before = running.family.resident()?;
            let count = SLOW.min(process::open_files().saturating_sub(200) / 2);
            let doors = Rc::new(tokio::sync::Semaphore::new(OPENING));
            let mut tasks = JoinSet::new();
            for _ in 0..count {
                let (dial, doors) = (dial.clone(), doors.clone());
                tasks.spawn_local(async move { stop_half_way(&dial, harm, &doors).await });
            }
            while let Some(ended) = tasks.join_next().await {
                longest = longest.max(ended??);
            }
            sleep(Duration::from_secs(2)).await;
            if round == 1 {
                left = 100.0 * (running.family.resident()? / before - 1.0);
            }
        }
        others.are_well()?;
        Ok(vec![
            (longest.as_secs_f64(), format!("s until the last of {SLOW} was ended")),
            (left, "% more resident than before".into()),
        ])
    }
}

/// Waits until all buffers on the way are full, so that nothing more is written.
async fn settled(tally: &Tally) -> Result<(), Failure> {
    let (began, mut last) = (Instant::now(), 0);
    loop {
        sleep(Duration::from_secs(1)).await;
        let more = tally.done.get() - last;
        last += more;
        // The kernel's buffers go on growing by a trickle for a while.
        if more * 100 < last {
            return Ok(());
        }
        if began.elapsed() > Duration::from_secs(60) {
            return Err("the gateway went on reading from clients that do not read".into());
        }
    }
}

/// Opens a connection, stops half-way, and waits until the gateway ends it: how long that took.
async fn stop_half_way(dial: &Dial, harm: Harm, doors: &tokio::sync::Semaphore) -> Result<Duration, Failure> {
    let door = doors.acquire().await?;
    if matches!(harm, Harm::Tcp | Harm::Tls) {
        let mut tcp = dial.source.connect(dial.address).await?;
        let began = Instant::now();
        if harm == Harm::Tls {
            let mut hello = Vec::new();
            rustls::ClientConnection::new(dial.config.clone(), ServerName::try_from(HOST)?)?.write_tls(&mut hello)?;
            tcp.write_all(&hello[..hello.len() / 2]).await?;
        }
        drop(door);
        // The end may be an alert before it, or a reset.
        let mut rest = Vec::new();
        let _ended = timeout(LONGEST, tcp.read_to_end(&mut rest)).await.map_err(|_| "it was never ended")?;
        return Ok(began.elapsed());
    }
    let began;
    let mut stream = if harm == Harm::Http {
        let mut stream = crate::tls::Stream::connect(dial).await?;
        began = Instant::now();
        let request = client::upgrade(dial);
        stream.write(&request.as_bytes()[..request.len() / 2]).await?;
        stream
    } else {
        let (mut stream, _) = client::ask(dial, &client::upgrade(dial), b"\r\n\r\n").await?;
        began = Instant::now();
        let message = Message::new(64, 1);
        stream.write(&message.frame()[..20]).await?;
        stream
    };
    drop(door);
    timeout(LONGEST, stream.until_it_ends()).await.map_err(|_| "it was never ended")?;
    Ok(began.elapsed())
}
