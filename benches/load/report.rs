//! From values to tables, on the terminal and in docs/performance.md.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use crate::Failure;
use crate::attack::Attack;
use crate::cell::Value;
use crate::gateway::{Gateway, Kind};
use crate::process;
use crate::reliability::Harm;
use crate::shares;

/// What stands between two markers of docs/performance.md.
#[derive(Clone, Copy)]
pub(crate) enum Section {
    /// Beside the peers.
    Load,
    /// What each way to authenticate costs.
    Authentication,
    /// What an attack costs those who do no harm.
    Attack,
    /// What each way to judge messages costs.
    Judged,
    /// What clients that mean harm take and leave behind.
    Reliability,
}

impl Section {
    fn markers(self) -> (&'static str, &'static str) {
        match self {
            Self::Load => {
                ("<!-- load: begin, written by `cargo bench --bench load -- --write` -->", "<!-- load: end -->")
            }
            Self::Authentication => (
                "<!-- authentication: begin, written by `cargo bench --bench load -- --only auth --write` -->",
                "<!-- authentication: end -->",
            ),
            Self::Judged => (
                "<!-- judged: begin, written by `cargo bench --bench load -- --only judged --write` -->",
                "<!-- judged: end -->",
            ),
            Self::Reliability => (
                "<!-- reliability: begin, written by `cargo bench --bench load -- --only reliability --write` -->",
                "<!-- reliability: end -->",
            ),
            Self::Attack => (
                "<!-- attack: begin, written by `cargo bench --bench load -- --only attack --write` -->",
                "<!-- attack: end -->",
            ),
        }
    }
}

/// The rows in order: name, what a reader calls it, unit, whether it counts for the aim (the others inform).
const ROWS: [(&str, &str, &str, bool); 12] = [
    ("echo-64-x1", "64 B echo, 1 in flight", "us CPU per message", true),
    ("echo-64-x16", "64 B echo, 16 in flight", "us CPU per message", true),
    ("echo-1k-x1", "1 KiB echo, 1 in flight", "us CPU per message", true),
    ("echo-1k-x16", "1 KiB echo, 16 in flight", "us CPU per message", true),
    ("echo-64k-x1", "64 KiB echo, 1 in flight", "us CPU per message", true),
    ("echo-64k-x16", "64 KiB echo, 16 in flight", "us CPU per message", true),
    ("handshake-full", "full handshake, upgrade, close", "us CPU each", true),
    ("handshake-resumed", "resumed handshake, upgrade, close", "us CPU each", true),
    ("handshake-hybrid", "full handshake, client prefers X25519MLKEM768", "us CPU each", false),
    ("memory-idle", "idle connection", "KiB resident", true),
    ("memory-kept", "kept after all have closed", "KiB per connection", true),
    ("unread", "client that never reads", "KiB resident", true),
];

/// The rows of authentication; all compare with the first.
const METHODS: [(&str, &str); 9] = [
    ("auth-none", "none (mode: Anonymous)"),
    ("auth-hs256", "JWT in a cookie, HS256, key in a Secret"),
    ("auth-es256", "JWT in a cookie, ES256, key in a ConfigMap"),
    ("auth-rs256", "JWT in a cookie, RS256 (2048 bits), key in a ConfigMap"),
    ("auth-subprotocol", "JWT in a subprotocol, ES256"),
    ("auth-remembered", "External, the verdict remembered"),
    ("auth-asked", "External, asked each time (`Cache-Control: no-store`)"),
    ("auth-ticket", "Ticket: issued (JWT, HS256) and redeemed, two connections"),
    ("auth-certificate", "client certificate, ECDSA P-256, one authority"),
];

/// The attacks, and what a reader calls them.
const ATTACKS: [(Attack, &str); 4] = [
    (Attack::Nothing, "none"),
    (Attack::Guesses, "handshakes with tokens that nobody signed"),
    (Attack::Hellos, "ClientHellos, and nothing after the answer"),
    (Attack::Crowd, "the same from eight addresses"),
];

/// The ways to judge 1 KiB of JSON, with one message in flight and with sixteen; all compare with the first.
const JUDGEMENTS: [([&str; 2], &str); 4] = [
    (["judged-none-x1", "judged-none-x16"], "size and type"),
    (["judged-rates-x1", "judged-rates-x16"], "rates of messages and bytes"),
    (["judged-schema-x1", "judged-schema-x16"], "a schema of ten properties"),
    (["judged-audit-x1", "judged-audit-x16"], "the schema, `mode: Audit`"),
];

/// The rows of reliability: of which cell, which of its values, what a reader calls it, unit.
const HARMS: [(Harm, usize, &str, &str); 15] = [
    (Harm::Readers, 0, "R12, clients that never read: memory of each at first", "KiB resident"),
    (Harm::Readers, 1, "R12, memory of each later", "KiB resident"),
    (Harm::Readers, 2, "R12, p99 of the others' round trips without them", "ms"),
    (Harm::Readers, 3, "R12, the same with them", "ms"),
    (Harm::Flood, 0, "R13, flood over `limits.total`: each refused handshake", "us CPU"),
    (Harm::Flood, 1, "R13, p99 of the others' round trips without it", "ms"),
    (Harm::Flood, 2, "R13, the same with it", "ms"),
    (Harm::Tcp, 0, "R15, nothing after TCP: the last is ended after", "s"),
    (Harm::Tcp, 1, "R15, memory afterwards", "% more"),
    (Harm::Tls, 0, "R15, half a ClientHello: the last is ended after", "s"),
    (Harm::Tls, 1, "R15, memory afterwards", "% more"),
    (Harm::Http, 0, "R15, half a request: the last is ended after", "s"),
    (Harm::Http, 1, "R15, memory afterwards", "% more"),
    (Harm::Frame, 0, "R15, half a frame: the last is ended after", "s"),
    (Harm::Frame, 1, "R15, memory afterwards", "% more"),
];

struct Sample {
    kind: Kind,
    value: Value,
}

/// Everything that was measured in one run.
#[derive(Default)]
pub(crate) struct Report {
    samples: Vec<Sample>,
    /// Gateways that were looked for and not measured, with the reason.
    pub(crate) missing: Vec<(Kind, String)>,
    /// Cells that failed: these rows have no value, or fewer.
    pub(crate) failures: Vec<String>,
}

/// Median and spread (largest less smallest, as a part of the median).
struct Median {
    value: f64,
    rate: f64,
    spread: f64,
}

impl Report {
    pub(crate) fn add(&mut self, kind: Kind, value: Value) {
        self.samples.push(Sample { kind, value });
    }

    fn median(&self, row: &str, kind: Kind) -> Option<Median> {
        let of = |pick: fn(&Value) -> f64| {
            let samples = self.samples.iter().filter(|sample| sample.kind == kind && sample.value.row == row);
            let mut numbers: Vec<f64> = samples.map(|sample| pick(&sample.value)).collect();
            numbers.sort_by(f64::total_cmp);
            numbers
        };
        let values = of(|value| value.value);
        let value = *values.get(values.len() / 2)?;
        let rate = of(|value| value.rate)[values.len() / 2];
        let spread = (values[values.len() - 1] - values[0]) / value.abs().max(0.01);
        Some(Median { value, rate, spread })
    }

    /// The tables that something was measured for, in Markdown, with what was measured on.
    pub(crate) fn sections(&self, gateways: &[Gateway], repetitions: u8, load: f64) -> Vec<(Section, String)> {
        let of = |names: &[&str]| self.samples.iter().any(|sample| names.contains(&sample.value.row));
        let mut sections = Vec::new();
        if of(&ROWS.map(|(row, ..)| row)) {
            let mut text = circumstances(gateways, repetitions, load);
            let _infallible = self.write(&mut text, gateways);
            sections.push((Section::Load, text));
        }
        let own: Vec<&Gateway> = gateways.iter().filter(|gateway| !gateway.kind.is_peer()).collect();
        let kinds: Vec<Kind> = own.iter().map(|gateway| gateway.kind).collect();
        if of(&METHODS.map(|(row, _)| row)) {
            let mut text = circumstances(own.iter().copied(), repetitions, load);
            let _infallible = self.methods(&mut text, &kinds);
            sections.push((Section::Authentication, text));
        }
        let attacked = ATTACKS.iter().any(|(attack, _)| of(attack.rows().as_flattened()));
        let beside = shares::ROWS.iter().any(|row| of(&row.values));
        if attacked || beside {
            let mut text = circumstances(own.iter().copied(), repetitions, load);
            if attacked {
                let _infallible = self.attacks(&mut text, &kinds);
            }
            if beside {
                let _infallible = self.shares(&mut text, &kinds);
            }
            sections.push((Section::Attack, text));
        }
        if JUDGEMENTS.iter().any(|(rows, _)| of(rows)) {
            let mut text = circumstances(own.iter().copied(), repetitions, load);
            let _infallible = self.judgements(&mut text, &kinds);
            sections.push((Section::Judged, text));
        }
        if HARMS.iter().any(|(harm, ..)| of(harm.rows())) {
            let mut text = circumstances(own.iter().copied(), repetitions, load);
            let _infallible = self.harms(&mut text, &kinds);
            sections.push((Section::Reliability, text));
        }
        sections
    }

    fn harms(&self, out: &mut String, kinds: &[Kind]) -> std::fmt::Result {
        write!(out, "\n| row | unit |")?;
        for kind in kinds {
            write!(out, " {} | spread |", kind.name())?;
        }
        writeln!(out, "\n|---|---|{}", "--:|".repeat(2 * kinds.len()))?;
        for (harm, at, label, unit) in HARMS {
            write!(out, "| {label} | {unit} |")?;
            for kind in kinds {
                match harm.rows().get(at).and_then(|row| self.median(row, *kind)) {
                    Some(Median { value, spread, .. }) => {
                        write!(out, " {} | {:.0} % |", three(value), 100.0 * spread)?;
                    }
                    None => write!(out, " failed | - |")?,
                }
            }
            writeln!(out)?;
        }
        Ok(())
    }

    fn judgements(&self, out: &mut String, kinds: &[Kind]) -> std::fmt::Result {
        let mut head = String::from("| 1 KiB of JSON, judged by | gateway |");
        for in_flight in ["1 in flight", "16 in flight"] {
            write!(head, " us CPU per message, {in_flight} | / size and type | spread |")?;
        }
        writeln!(out, "\n{head}\n|---|---|{}", "--:|".repeat(6))?;
        for (rows, label) in JUDGEMENTS {
            for kind in kinds {
                write!(out, "| {label} | {} |", kind.name())?;
                for (at, row) in rows.into_iter().enumerate() {
                    let plain = self.median(JUDGEMENTS[0].0[at], *kind).map(|median| median.value);
                    match self.median(row, *kind) {
                        Some(Median { value, spread, .. }) => {
                            write!(
                                out,
                                " {} | {} | {:.0} % |",
                                three(value),
                                ratio(Some(value), plain),
                                100.0 * spread
                            )?;
                        }
                        None => write!(out, " failed | - | - |")?,
                    }
                }
                writeln!(out)?;
            }
        }
        Ok(())
    }

    fn attacks(&self, out: &mut String, kinds: &[Kind]) -> std::fmt::Result {
        write!(out, "\n| attack from one address | gateway | attempts/s | round trip, ms: median | p99 | spread |")?;
        write!(out, " handshake, ms: median | p99 | spread |\n|---|---|{}\n", "--:|".repeat(7))?;
        for (attack, label) in ATTACKS {
            for kind in kinds {
                write!(out, "| {label} | {} |", kind.name())?;
                for (at, [row, tail]) in attack.rows().into_iter().enumerate() {
                    let of = |row| self.median(row, *kind);
                    let (Some(median), Some(tail)) = (of(row), of(tail)) else {
                        write!(out, " failed | - | - |")?;
                        continue;
                    };
                    if at == 0 {
                        write!(out, " {:.0} |", median.rate)?;
                    }
                    let spread = 100.0 * median.spread;
                    write!(out, " {} | {} | {spread:.0} % |", three(median.value), three(tail.value))?;
                }
                writeln!(out)?;
            }
        }
        Ok(())
    }

    fn shares(&self, out: &mut String, kinds: &[Kind]) -> std::fmt::Result {
        write!(
            out,
            "\n| attack | gateway | attempts/s | attacker has | visit of the victim | alone: success, % | p99, ms |"
        )?;
        write!(
            out,
            " beside it: success, % | p99, ms | / alone | spread |\n|---|---|--:|---|---|{}\n",
            "--:|".repeat(6)
        )?;
        for row in &shares::ROWS {
            for kind in kinds {
                let [alone, alone_tail, beside, beside_tail, held] = row.values.map(|value| self.median(value, *kind));
                let (Some(alone), Some(beside)) = (alone, beside) else {
                    writeln!(out, "| {} | {} | failed |{}", row.label, kind.name(), " - |".repeat(8))?;
                    continue;
                };
                let held = held.map_or(0.0, |held| held.value);
                write!(out, "| {} | {} | {:.0} | {held:.0} {} |", row.label, kind.name(), beside.rate, row.held)?;
                let [alone_tail, tail] = [&alone_tail, &beside_tail].map(|tail| tail.as_ref().map(|tail| tail.value));
                let shown = |tail: Option<f64>| tail.map_or("-".to_owned(), three);
                write!(out, " {} | {:.0} | {} |", row.victim, alone.value, shown(alone_tail))?;
                write!(out, " {:.0} | {} | {} |", beside.value, shown(tail), ratio(tail, alone_tail))?;
                writeln!(out, " {:.0} % |", 100.0 * beside_tail.map_or(0.0, |tail| tail.spread))?;
            }
        }
        Ok(())
    }

    fn methods(&self, out: &mut String, kinds: &[Kind]) -> std::fmt::Result {
        let mut head = String::from("| authentication |");
        for kind in kinds {
            write!(head, " {}, us CPU per handshake | / none | spread |", kind.name())?;
        }
        writeln!(out, "\n{head}\n|---|{}", "--:|".repeat(3 * kinds.len()))?;
        for (row, label) in METHODS {
            write!(out, "| {label} |")?;
            for kind in kinds {
                let none = self.median("auth-none", *kind).map(|median| median.value);
                match self.median(row, *kind) {
                    Some(Median { value, spread, .. }) => {
                        write!(out, " {} | {} | {:.0} % |", three(value), ratio(Some(value), none), 100.0 * spread)?;
                    }
                    None => write!(out, " failed | - | - |")?,
                }
            }
            writeln!(out)?;
        }
        Ok(())
    }

    fn write(&self, out: &mut String, gateways: &[Gateway]) -> std::fmt::Result {
        for (kind, reason) in &self.missing {
            writeln!(out, "\n{} is not measured: {}.", kind.name(), reason.lines().next().unwrap_or_default())?;
        }
        let kinds: Vec<Kind> = gateways.iter().map(|gateway| gateway.kind).collect();
        let ours = kinds.contains(&Kind::Wssgate);
        let against = ours && kinds.contains(&Kind::Against);
        let peers: Vec<Kind> = kinds.iter().copied().filter(|kind| kind.is_peer()).collect();
        let mut head = String::from("row | unit |");
        for kind in &kinds {
            write!(head, " {} |", kind.name())?;
        }
        if ours && !peers.is_empty() {
            head.push_str(" wssgate / best peer |");
        }
        if against {
            head.push_str(" wssgate / against |");
        }
        head.push_str(" spread |");
        let columns = head.matches('|').count();
        writeln!(out, "\n| {head}\n|---|---|{}", "--:|".repeat(columns - 2))?;
        for (row, label, unit, counts) in ROWS {
            let medians: Vec<(Kind, Option<Median>)> =
                kinds.iter().map(|kind| (*kind, self.median(row, *kind))).collect();
            if medians.iter().all(|(_, median)| median.is_none()) {
                continue;
            }
            write!(out, "| {label}{} | {unit} |", if counts { "" } else { " (for information)" })?;
            for (_, median) in &medians {
                write!(out, " {} |", median.as_ref().map_or("failed".to_owned(), |median| three(median.value)))?;
            }
            let value = |wanted: Kind| {
                medians
                    .iter()
                    .find(|(kind, _)| *kind == wanted)
                    .and_then(|(_, median)| median.as_ref())
                    .map(|m| m.value)
            };
            let own = value(Kind::Wssgate);
            if ours && !peers.is_empty() {
                let best = peers.iter().filter_map(|kind| value(*kind)).min_by(f64::total_cmp);
                write!(out, " {} |", ratio(own, best))?;
            }
            if against {
                write!(out, " {} |", ratio(own, value(Kind::Against)))?;
            }
            let spread = medians.iter().filter_map(|(_, median)| median.as_ref()).map(|m| m.spread).fold(0.0, f64::max);
            writeln!(out, " {:.0} % |", 100.0 * spread)?;
        }
        self.rates(out, &kinds)
    }

    fn rates(&self, out: &mut String, kinds: &[Kind]) -> std::fmt::Result {
        let rows: Vec<_> = ROWS
            .iter()
            .filter(|(row, ..)| self.samples.iter().any(|s| s.value.row == *row && s.value.rate > 0.0))
            .collect();
        if rows.is_empty() {
            return Ok(());
        }
        write!(
            out,
            "\nThroughput, for information (the load generator has one core and is often the limit):\n\n| per second |"
        )?;
        for kind in kinds {
            write!(out, " {} |", kind.name())?;
        }
        writeln!(out, "\n|---|{}", "--:|".repeat(kinds.len()))?;
        for (row, label, ..) in rows {
            write!(out, "| {label} |")?;
            for kind in kinds {
                write!(
                    out,
                    " {} |",
                    self.median(row, *kind).map_or("failed".to_owned(), |median| format!("{:.0}", median.rate))
                )?;
            }
            writeln!(out)?;
        }
        Ok(())
    }
}

/// When, on what, of what, how often.
fn circumstances<'a>(gateways: impl IntoIterator<Item = &'a Gateway>, repetitions: u8, load: f64) -> String {
    let date = jiff::Zoned::now().date();
    let versions: Vec<String> =
        gateways.into_iter().map(|gateway| format!("{} {}", gateway.kind.name(), gateway.version)).collect();
    let mut text = format!(
        "Measured on {date}: {}. {}.\nMedians of {repetitions} interleaved repetitions. Load average when it began: \
         {load:.2}.\n",
        process::machine(),
        versions.join(", ")
    );
    if load > 0.5 {
        text.push_str("\n**The machine was not quiet: read the ratios with care and the rest not at all.**\n");
    }
    text
}

/// Puts tables between their markers in their pages; what is outside stays.
pub(crate) fn write_document(sections: &[(Section, String)]) -> Result<(), Failure> {
    for (section, tables) in sections {
        let page = if matches!(section, Section::Reliability) { "docs/reliability.md" } else { "docs/performance.md" };
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(page);
        let text = fs::read_to_string(&path)?;
        let (begin, end) = section.markers();
        let (before, rest) = text.split_once(begin).ok_or_else(|| format!("{page} has lost {begin}"))?;
        let (_, after) = rest.split_once(end).ok_or_else(|| format!("{page} has lost {end}"))?;
        fs::write(&path, format!("{before}{begin}\n\n{}\n{end}{after}", tables.trim_start()))?;
    }
    Ok(())
}

/// Three significant digits.
fn three(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

fn ratio(own: Option<f64>, other: Option<f64>) -> String {
    match (own, other) {
        (Some(own), Some(other)) if other > 0.05 => format!("{:.2}", own / other),
        _ => "-".to_owned(),
    }
}
