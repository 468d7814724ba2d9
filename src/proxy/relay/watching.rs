//! What a direction does with its first bytes: whether a raw protocol begins in them.

use crate::content::tunnel::Verdict;
use crate::proxy::relay::flow::Flow;
use crate::proxy::relay::side::{Party, Side};
use crate::proxy::relay::stage::RefusedMessage;
use crate::reason::Reason;
use crate::telemetry::access::fields::Detail;

/// Reads payload of the sender, with which a message `ends`, while its first bytes are watched.
///
/// # Errors
/// A tunnel begins in it that the route does not allow.
pub(super) fn read<P>(from: &mut Side<P>, payload: &[u8], ends: bool, flow: &Flow<'_>) -> Result<(), RefusedMessage> {
    let Some(watching) = &mut from.watching else { return Ok(()) };
    let (verdict, rule) = (watching.watch.read(payload, ends), watching.rule);
    if verdict == Verdict::Undecided {
        return Ok(());
    }
    (from.watching, from.limits.watched) = (None, false);
    let Verdict::Found(protocol) = verdict else { return Ok(()) };
    if rule.allowed.contains(protocol) {
        return Ok(());
    }
    flow.metrics.tunnel(from.party.direction(), protocol.name());
    let reason = match from.party {
        Party::Client => Reason::TunnelDetected,
        Party::Backend => Reason::BackendTunnelDetected,
    };
    let detail = Detail { protocol: Some(protocol.name()), ..Detail::default() };
    if rule.audits {
        flow.audit(reason, &detail);
        return Ok(());
    }
    Err(RefusedMessage { reason, detail })
}
