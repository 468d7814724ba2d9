//! An External service that is asked again about a live connection: when, and what its answers and its silence mean.

use std::sync::Arc;
use std::time::Duration;

use super::fixture::{Fixture, Options, authentication, up};
use crate::policy::authentication::External;
use crate::policy::question::{KeptQuestion, Question, Verdict};
use crate::policy::{Handshake, Policy};
use crate::reason::Reason;
use crate::snapshot::RouteState;
use crate::telemetry::initiator::Initiator;
use crate::ws::frame::Opcode::Text;

fn external(recheck: Option<u64>) -> External {
    External {
        namespace: None,
        service: "sessions".into(),
        port: 80,
        path: "/check".into(),
        headers: vec!["cookie".into()],
        answers: vec!["x-user".into()],
        timeout: Duration::from_secs(1),
        recheck: recheck.map(Duration::from_secs),
    }
}

fn kept() -> Option<KeptQuestion> {
    let question = Question { authority: "a.test", hops: None, headers: vec![("cookie".into(), b"sid=1")] };
    Some(KeptQuestion::from(&question))
}

/// A connection whose service is asked again each 160 s.
fn fixture(kept: Option<KeptQuestion>) -> Fixture {
    Fixture::with(Options { external: Some(external(Some(160))), kept, ..Options::default() })
}

/// The seconds until the service is asked, for so long at the most.
fn asked_within(fixture: &mut Fixture, seconds: u32) -> Option<u32> {
    (1..=seconds).find(|_| {
        fixture.pass(1);
        fixture.session.begin_recheck(fixture.now()).is_some()
    })
}

fn answer(fixture: &mut Fixture, verdict: Verdict) {
    fixture.session.rechecked(verdict, fixture.now());
    fixture.poll();
}

/// The route has this interval from now on.
fn respec(fixture: &mut Fixture, recheck: Option<u64>) {
    let before = match &fixture.session.lease.borrow().route.state {
        RouteState::Serving(policy) => Policy::clone(policy),
        RouteState::Refusing(reason) => panic!("{reason:?}"),
    };
    let handshake = Handshake { authentication: authentication(Some(external(recheck))), ..before.handshake };
    fixture.publish(Some(RouteState::Serving(Arc::new(Policy { handshake, ..before }))));
}

#[track_caller]
fn ended(fixture: &Fixture, reason: Reason) {
    assert_eq!(fixture.ending(), Some((reason, reason.close_code(), Initiator::Gateway)));
}

#[test]
fn a_service_is_asked_again_at_its_interval_and_a_no_closes_with_1008() {
    let mut fixture = fixture(kept());
    // Connections that began together ask within the second half of the first interval; this one has no spread.
    assert_eq!(asked_within(&mut fixture, 200), Some(80));
    assert_eq!(asked_within(&mut fixture, 20), None, "one question at a time");
    answer(&mut fixture, Verdict::Admitted);
    for _ in 0..5 {
        assert_eq!(asked_within(&mut fixture, 200), Some(160));
        answer(&mut fixture, Verdict::Admitted);
    }
    fixture.client.sends(up(Text, "hello"));
    fixture.poll();
    assert_eq!(fixture.frames().1, ["text hello"], "it goes on meanwhile");
    assert_eq!(asked_within(&mut fixture, 200), Some(160));
    answer(&mut fixture, Verdict::Denied);
    ended(&fixture, Reason::ExternalWithdrawn);
    assert_eq!(fixture.frames().0, ["close 1008"]);
    assert_eq!(asked_within(&mut fixture, 3), None, "what ends is not asked about");
}

#[test]
fn without_an_answer_it_is_asked_sooner_and_less_and_less_and_ends_after_three_intervals() {
    let mut fixture = fixture(kept());
    assert_eq!(asked_within(&mut fixture, 200), Some(80));
    for pause in [10, 20, 40, 80] {
        answer(&mut fixture, Verdict::Unavailable);
        assert_eq!(asked_within(&mut fixture, 200), Some(pause));
    }
    // One yes, and everything begins anew.
    answer(&mut fixture, Verdict::Admitted);
    assert_eq!(asked_within(&mut fixture, 200), Some(160));
    answer(&mut fixture, Verdict::Unavailable);
    assert_eq!(asked_within(&mut fixture, 200), Some(10));
    // It is 170 s since the last yes; and a question that is never answered keeps nobody.
    fixture.pass(309);
    assert_eq!(fixture.ending(), None);
    fixture.pass(1);
    ended(&fixture, Reason::RecheckMissed);
    assert_eq!(fixture.frames().0, ["close 1013"]);
}

#[test]
fn a_connection_that_keeps_nothing_to_ask_with_ends_when_it_would_be_asked_about() {
    let mut fixture = fixture(None);
    assert_eq!(asked_within(&mut fixture, 79), None);
    assert_eq!(fixture.ending(), None);
    fixture.pass(1);
    ended(&fixture, Reason::RecheckMissed);
}

#[test]
fn an_interval_that_the_route_sets_later_counts_from_then_on() {
    let mut off = Fixture::with(Options { external: Some(external(None)), kept: kept(), ..Options::default() });
    assert_eq!(asked_within(&mut off, 1000), None);
    respec(&mut off, Some(60));
    assert_eq!(asked_within(&mut off, 100), Some(30));
    answer(&mut off, Verdict::Admitted);
    // A shorter one is not waited for longer than it says, and a longer one takes nothing away.
    respec(&mut off, Some(20));
    assert_eq!(asked_within(&mut off, 100), Some(10));
    answer(&mut off, Verdict::Admitted);
    respec(&mut off, Some(600));
    assert_eq!(asked_within(&mut off, 100), Some(20));
    answer(&mut off, Verdict::Unavailable);
    respec(&mut off, None);
    assert_eq!(asked_within(&mut off, 2000), None);
    assert_eq!(off.ending(), None);
}
