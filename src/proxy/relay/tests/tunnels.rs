//! Raw protocols in the first messages of a direction.

use super::fixture::{Fixture, Options, down, unfinished, up};
use super::judged::options as judged;
use crate::content::protocol::{Protocol, Protocols};
use crate::policy::{TunnelRule, Tunnels};
use crate::reason::Reason;
use crate::telemetry::access::fields::Detail;
use crate::ws::frame::Opcode::{Binary, Continuation, Text};

const SSH: &str = "SSH-2.0-OpenSSH_9.2\r\n";
pub(super) const DENY: TunnelRule = TunnelRule { audits: false, allowed: Protocols::NONE };

pub(super) fn watched(rule: TunnelRule) -> Options {
    Options { tunnels: Tunnels { from_client: Some(rule), from_backend: Some(rule) }, ..Options::default() }
}

fn counted(fixture: &Fixture) -> Vec<String> {
    let text = fixture.all.encode();
    text.lines().filter(|line| line.starts_with("wssgate_tunnels_total{")).map(str::to_owned).collect()
}

#[test]
fn a_tunnel_of_a_client_ends_before_its_line_is_whole() {
    let mut fixture = Fixture::with(watched(DENY));
    for part in ["SSH-2", ".0-OpenSSH_9.2", "\r\n"] {
        fixture.client.sends(up(Binary, part));
        fixture.poll();
    }
    assert_eq!(fixture.ending().map(|(reason, code, _)| (reason, code)), Some((Reason::TunnelDetected, Some(1008))));
    assert_eq!(fixture.backend.frames(), ["binary SSH-2", "binary .0-OpenSSH_9.2", "close 1001"]);
    assert_eq!(fixture.detail(), Some(Detail { protocol: Some("ssh"), ..Detail::default() }));
    let expected = r#"wssgate_tunnels_total{route="shop/chat",direction="from_client",protocol="ssh"} 1"#;
    assert_eq!(counted(&fixture), [expected]);
    assert_eq!((fixture.metrics.from_client.messages.get(), fixture.metrics.from_client.bytes.get()), (2, 19));
}

#[test]
fn a_tunnel_of_a_backend_ends_the_connection_with_1011() {
    let mut fixture = Fixture::with(watched(DENY));
    fixture.backend.sends([down(Text, "RFB 003.008\n"), down(Text, "late")].concat());
    fixture.poll();
    let ending = fixture.ending().map(|(reason, code, _)| (reason, code));
    assert_eq!(ending, Some((Reason::BackendTunnelDetected, Some(1011))));
    assert_eq!(fixture.client.frames(), ["close 1011"]);
}

#[test]
fn a_frame_that_is_cut_by_the_end_is_never_finished() {
    let mut fixture = Fixture::with(watched(DENY));
    let frame = up(Binary, SSH);
    fixture.client.sends(frame[..10].to_vec());
    fixture.client.sends(frame[10..].to_vec());
    fixture.poll();
    assert_eq!(fixture.ending().map(|ending| ending.0), Some(Reason::TunnelDetected));
    assert!(fixture.backend.received().len() <= 10, "{:?}", fixture.backend.received());
}

#[test]
fn what_the_route_is_for_passes_and_so_does_what_is_no_tunnel() {
    let mut allowed = Protocols::NONE;
    allowed.insert(Protocol::Ssh);
    for (rule, first) in [(TunnelRule { allowed, ..DENY }, SSH), (DENY, "{\"type\":\"say\"}"), (DENY, "")] {
        let mut fixture = Fixture::with(watched(rule));
        fixture.client.sends([unfinished(up(Text, first)), up(Continuation, ""), up(Binary, "more")].concat());
        fixture.backend.sends(down(Text, "hello"));
        fixture.poll();
        assert_eq!((fixture.ending(), counted(&fixture)), (None, vec![]), "{first}");
        let sent = format!("text+ {first}");
        assert_eq!(fixture.backend.frames(), [sent.trim_end(), "more", "binary more"].map(str::to_owned), "{first}");
        assert_eq!(fixture.client.frames(), ["text hello"]);
    }
}

#[test]
fn only_the_beginning_of_a_direction_is_looked_at() {
    let mut fixture = Fixture::with(watched(DENY));
    fixture.client.sends([up(Text, "{}"), up(Text, SSH)].concat());
    fixture.poll();
    assert_eq!((fixture.ending(), counted(&fixture)), (None, vec![]));
}

#[test]
fn audit_lets_a_tunnel_through_and_counts_it_once() {
    let audits = TunnelRule { audits: true, ..DENY };
    for options in [watched(audits), Options { audits: true, ..watched(DENY) }] {
        let mut fixture = Fixture::with(options);
        fixture.client.sends([up(Binary, SSH), up(Binary, SSH)].concat());
        fixture.poll();
        assert_eq!(fixture.ending(), None);
        assert_eq!(fixture.backend.packets(), 1);
        let text = fixture.all.encode();
        let audited = r#"wssgate_audit_violations_total{route="shop/chat",reason="tunnel_detected"} 1"#;
        assert!(text.contains(audited) && counted(&fixture).len() == 1, "{text}");
    }
}

#[test]
fn messages_that_are_held_are_watched_too() {
    let tunnels = watched(DENY).tunnels;
    let mut fixture = Fixture::with(Options { tunnels, ..judged(5) });
    fixture.client.sends([unfinished(up(Text, "SSH-2.0")), up(Continuation, "-x\r\n")].concat());
    fixture.poll();
    assert_eq!(fixture.ending().map(|ending| ending.0), Some(Reason::TunnelDetected));
    assert_eq!((fixture.backend.frames(), fixture.held.get()), (vec!["close 1001".to_owned()], 0));
}
