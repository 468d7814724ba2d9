//! What a spec says of raw protocols in messages.

use crate::api::route::Messages;
use crate::api::route::messages::{self as api, Tunnels as Mode};
use crate::api::status::ConditionType as Type;
use crate::compile::spec::diagnostics::Diagnostics;
use crate::compile::spec::direction::Direction;
use crate::compile::spec::layers::Layers;
use crate::content::protocol::{Protocol, Protocols};
use crate::policy::{TunnelRule, Tunnels};

/// Reads what a spec says of both directions.
pub(super) fn read(layers: &Layers<'_, Messages>, diagnostics: &mut Diagnostics) -> Tunnels {
    Tunnels {
        from_client: rule(&Direction::from_client(layers), diagnostics),
        from_backend: rule(&Direction::from_backend(layers), diagnostics),
    }
}

fn rule(direction: &Direction<'_>, diagnostics: &mut Diagnostics) -> Option<TunnelRule> {
    let Direction { tunnels, allow_protocols, .. } = direction;
    let mode = tunnels.map_or(Mode::Allow, |set| *set.value);
    if mode == Mode::Allow {
        if let Some(set) = allow_protocols
            && set.layer == "spec"
        {
            let field = set.field(&direction.below("allowProtocols"));
            diagnostics.invalid(field, "needs tunnels: Deny or Audit; set it or remove allowProtocols");
        }
        return None;
    }
    if let Some(set) = tunnels
        && mode == Mode::Audit
    {
        let text = "Audit: tunnels are logged, not refused";
        diagnostics.warn(Type::AuditMode, set.field(&direction.below("tunnels")), text);
    }
    let mut allowed = Protocols::default();
    let listed = allow_protocols.map_or(&[][..], |set| set.value);
    listed.iter().filter_map(|protocol| known(*protocol)).for_each(|protocol| allowed.insert(protocol));
    Some(TunnelRule { audits: mode == Mode::Audit, allowed })
}

/// The protocol that a name of the API stands for; `None`: one that is never taken for a tunnel.
fn known(protocol: api::Protocol) -> Option<Protocol> {
    Some(match protocol {
        api::Protocol::Mqtt | api::Protocol::Stomp => return None,
        api::Protocol::Amqp => Protocol::Amqp,
        api::Protocol::Ftp => Protocol::Ftp,
        api::Protocol::Http1 => Protocol::Http1,
        api::Protocol::Http2 => Protocol::Http2,
        api::Protocol::Imap => Protocol::Imap,
        api::Protocol::Mongodb => Protocol::Mongodb,
        api::Protocol::Mysql => Protocol::Mysql,
        api::Protocol::Openvpn => Protocol::Openvpn,
        api::Protocol::Pop3 => Protocol::Pop3,
        api::Protocol::Postgresql => Protocol::Postgresql,
        api::Protocol::Rdp => Protocol::Rdp,
        api::Protocol::Redis => Protocol::Redis,
        api::Protocol::Rfb => Protocol::Rfb,
        api::Protocol::Smb => Protocol::Smb,
        api::Protocol::Smtp => Protocol::Smtp,
        api::Protocol::Smux => Protocol::Smux,
        api::Protocol::Socks4 => Protocol::Socks4,
        api::Protocol::Socks5 => Protocol::Socks5,
        api::Protocol::Ssh => Protocol::Ssh,
        api::Protocol::Tls => Protocol::Tls,
        api::Protocol::Wireguard => Protocol::Wireguard,
        api::Protocol::Yamux => Protocol::Yamux,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(yaml: &str) -> (Tunnels, Diagnostics) {
        let messages: Messages = serde_saphyr::from_str(yaml).unwrap();
        let mut diagnostics = Diagnostics::default();
        let tunnels = super::read(&Layers { route: Some(&messages), default: None }, &mut diagnostics);
        (tunnels, diagnostics)
    }

    #[test]
    fn a_direction_is_watched_where_tunnels_says_so() {
        let (tunnels, diagnostics) = read("{fromClient: {tunnels: Allow}}");
        assert_eq!((tunnels, diagnostics.problems), (Tunnels::default(), vec![]));
        let (tunnels, diagnostics) =
            read("{fromClient: {tunnels: Deny, allowProtocols: [mqtt, rfb]}, fromBackend: {tunnels: Audit}}");
        let (client, backend) = (tunnels.from_client.unwrap(), tunnels.from_backend.unwrap());
        assert!(!client.audits && client.allowed.contains(Protocol::Rfb) && !client.allowed.contains(Protocol::Ssh));
        assert!(backend.audits && !backend.allowed.contains(Protocol::Rfb));
        let warned: Vec<_> = diagnostics.warnings.iter().map(|(_, problem)| problem.field.as_str()).collect();
        assert_eq!(warned, ["spec.messages.fromBackend.tunnels"]);
    }

    #[test]
    fn protocols_are_allowed_only_where_others_are_not() {
        let (_, diagnostics) = read("{fromBackend: {allowProtocols: [rfb]}}");
        let expected = "spec.messages.fromBackend.allowProtocols: needs tunnels: Deny or Audit";
        assert!(diagnostics.problems[0].to_string().starts_with(expected), "{:?}", diagnostics.problems);
    }

    #[test]
    fn every_protocol_that_is_recognised_has_a_name_in_routes() {
        for protocol in Protocol::ALL {
            let written: api::Protocol = serde_json::from_value(protocol.name().into()).unwrap();
            assert_eq!(known(written), Some(*protocol));
        }
    }
}
