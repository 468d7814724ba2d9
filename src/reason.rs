//! THE TABLE of endings: why a handshake was refused or a connection ended.
//!
//! One closed enum; each face of a reason (HTTP status, close code, label, text) is one exhaustive match, so that a
//! new reason cannot be added without deciding all of them, and no call site ever names a number. Knows nothing of
//! sockets or routes.

use crate::ws::upgrade::{RequestError, ResponseError};

/// Why a handshake was refused or a live connection ended.
///
/// Refusals carry an HTTP status ([`Reason::http_status`]); endings after the 101 carry a close code
/// ([`Reason::close_code`], RFC 6455 §7.4.1). A reason that ends a connection before any HTTP answer is possible has
/// neither.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    // Before HTTP.
    /// A trusted proxy's connection does not begin with a PROXY header of version 2 that can be believed.
    ProxyHeaderInvalid,
    /// A trusted proxy's PROXY header did not arrive in time.
    ProxyHeaderTimeout,
    /// The TLS handshake did not finish in time.
    TlsTimeout,
    /// The TLS handshake failed (no common version or suite, broken record, alert from the peer).
    TlsFailed,
    /// The TLS handshake failed for want of a valid client certificate: there is none where one is required, or it is
    /// expired, revoked, of an unknown authority or too large.
    ClientCertificateInvalid,
    /// No route and no default certificate for the name in the ClientHello (RFC 6066 §3, `unrecognized_name`).
    UnknownServerName,
    /// As many client sockets are open as the limit of open files allows; ended before TLS.
    ConnectionLimit,
    /// Too many clients wait for the turn of their TLS handshake, of everybody or of one address; ended without an answer.
    HandshakeLimit,

    // The form of the request.
    /// The request head did not arrive in time.
    HeadTimeout,
    /// The request is not well-formed HTTP/1.1 (RFC 9112): bare CR or LF, obs-fold, NUL, duplicate singletons ...
    MalformedRequest,
    /// More header bytes or fields than the gateway reads.
    HeadTooLarge,
    /// The request target is longer than the gateway reads.
    TargetTooLong,
    /// A body, `Content-Length` or `Transfer-Encoding` on a handshake.
    BodyNotAllowed,
    /// A method other than GET (RFC 6455 §4.1).
    MethodNotAllowed,
    /// Not an upgrade to WebSocket, or not version 13 (RFC 6455 §4.4).
    UpgradeRequired,
    /// An `Upgrade` to something other than the single token `websocket` (h2c smuggling).
    UpgradeNotAllowed,
    /// `Sec-WebSocket-Key` missing, repeated or not 16 bytes of base64.
    BadKey,
    /// `Host` missing, repeated or not a plain host.
    BadHost,
    /// A path with dot segments, encoded separators, empty segments or forbidden bytes, or an escape that leads to another route.
    BadPath,
    /// A trusted proxy's `X-Forwarded-For` has fewer entries than there are hops, or no address in the client's place.
    ForwardedForInvalid,

    // The judgement.
    /// `Host` differs from the name of the TLS handshake (RFC 9110 §15.5.20).
    Misdirected,
    /// No route for this host and path.
    RouteNotFound,
    /// The route exists but never compiled, or lost the authority to serve.
    RouteUnavailable,
    /// The client's address is denied or not allowed.
    AddressDenied,
    /// The Origin is not allowed.
    OriginDenied,
    /// There is no Origin and the route requires one.
    OriginMissing,
    /// Several Origin headers, or several values in one.
    OriginAmbiguous,
    /// None of the offered subprotocols is allowed, or none was offered where one is required.
    SubprotocolDenied,
    /// Too many handshakes from this address.
    TooManyAttempts,
    /// The client's certificate, or that there is none, is not what the host asks by now.
    ClientCertificateDenied,
    /// No credential where a method of the route looks for one.
    CredentialMissing,
    /// More than one credential, or two cookies of one name.
    CredentialAmbiguous,
    /// Not a signed token in the compact form, or one that can be read in two ways.
    TokenMalformed,
    /// No key of the issuer verifies the token.
    TokenUntrusted,
    /// The token's time is over.
    TokenExpired,
    /// The token's time has not come, or it was issued in the future.
    TokenNotYetValid,
    /// The token is of another issuer or for another audience, or a claim that it must have is missing or of the wrong kind.
    TokenClaims,
    /// The token is good but lacks a claim that the route requires.
    ClaimsNotMet,
    /// The issuer's keys cannot be had: not fetched for too long, or not readable.
    KeysUnavailable,
    /// The service that judges handshakes does not know the credential: it answered 401 or a redirect.
    ExternalUnauthorized,
    /// The service that judges handshakes refused with another status, or the route asks another service by now.
    ExternalDenied,
    /// The service that judges handshakes cannot be asked: no endpoint, no answer in time, one of its own errors, or an
    /// answer with headers that cannot be passed on.
    ExternalUnavailable,
    /// The ticket is not one that this route issued to this origin (and address), or it was redeemed, or its time is over.
    TicketInvalid,
    /// As many tickets are outstanding as can be kept.
    TicketsUnavailable,
    /// The store that replicas share cannot be asked: no connection, no answer in time, an error, or too many of the route
    /// wait for it. A ticket is neither sold nor redeemed, and a subject whose places are limited gets none.
    StoreUnavailable,
    /// `limits.total` of the route is reached.
    TotalLimit,
    /// `limits.perAddress` of the route is reached.
    AddressLimit,
    /// `limits.perSubject` of the route is reached.
    SubjectLimit,
    /// The memory budget is used up: nobody is let in, before TLS, and far beyond it connections whose peer does not
    /// read are ended. Also a backend that could not be dialled for want of a file descriptor.
    Overloaded,
    /// The gateway is shutting down.
    Draining,

    // The upstream, before the 101.
    /// The Service has no endpoint that can take the connection.
    NoEndpoints,
    /// No endpoint could be reached.
    DialFailed,
    /// No endpoint answered the connection attempt in time.
    DialTimeout,
    /// Every endpoint has as many connections of this replica as there are local ports.
    PortsExhausted,
    /// The endpoint accepted the connection but did not answer the handshake in time.
    UpstreamTimeout,
    /// The endpoint refused the upgrade.
    UpstreamRefused,
    /// The endpoint's 101 is not a valid answer to our handshake (RFC 6455 §4.1).
    UpstreamBadHandshake,
    /// The TLS handshake with the endpoint failed.
    UpstreamTlsFailed,

    // After the 101.
    /// The client closed, with its code carried through.
    ClientClosed,
    /// The client's TCP connection ended without a Close frame.
    ClientLost,
    /// The backend closed, with its code carried through.
    BackendClosed,
    /// The backend's connection ended without a Close frame.
    BackendLost,
    /// A frame of the client that RFC 6455 §5 forbids.
    ProtocolError,
    /// A message type that the route does not allow.
    TypeNotAllowed,
    /// Text that is not UTF-8 (RFC 6455 §8.1).
    InvalidUtf8,
    /// A message larger than `maxSize`.
    MessageTooBig,
    /// A message in too many fragments.
    TooManyFragments,
    /// Too many control frames in a second.
    ControlFlood,
    /// A frame or message that was begun did not finish in time.
    FrameTooSlow,
    /// The client did not read for too long.
    ClientStalled,
    /// The backend did not read for too long.
    BackendStalled,
    /// The heartbeat was not answered by the client.
    HeartbeatMissed,
    /// The heartbeat was not answered by the backend.
    BackendHeartbeatMissed,
    /// No data frame for `idleTimeout`.
    IdleTimeout,
    /// The connection reached `maxDuration`.
    MaxDuration,
    /// The client's certificate expired while the connection was open.
    ClientCertificateExpired,
    /// The credential that admitted the connection has expired.
    CredentialExpired,
    /// The route no longer admits this connection.
    AccessWithdrawn,
    /// The route was removed, or its host or path moved.
    RouteRemoved,
    /// The gateway is shutting down (RFC 6455 §7.4.1, 1001).
    Drain,
    /// The backend broke RFC 6455 or its own limits.
    BackendProtocolError,
    /// The backend sent a message larger than `fromBackend.maxSize`.
    BackendMessageTooBig,
    /// A fault of the gateway itself.
    Internal,
}

impl Reason {
    /// Every reason, in the order of the life of a connection.
    pub const ALL: &'static [Reason] = &[
        Self::ProxyHeaderInvalid,
        Self::ProxyHeaderTimeout,
        Self::TlsTimeout,
        Self::TlsFailed,
        Self::ClientCertificateInvalid,
        Self::UnknownServerName,
        Self::ConnectionLimit,
        Self::HandshakeLimit,
        Self::HeadTimeout,
        Self::MalformedRequest,
        Self::HeadTooLarge,
        Self::TargetTooLong,
        Self::BodyNotAllowed,
        Self::MethodNotAllowed,
        Self::UpgradeRequired,
        Self::UpgradeNotAllowed,
        Self::BadKey,
        Self::BadHost,
        Self::BadPath,
        Self::ForwardedForInvalid,
        Self::Misdirected,
        Self::RouteNotFound,
        Self::RouteUnavailable,
        Self::AddressDenied,
        Self::OriginDenied,
        Self::OriginMissing,
        Self::OriginAmbiguous,
        Self::SubprotocolDenied,
        Self::TooManyAttempts,
        Self::ClientCertificateDenied,
        Self::CredentialMissing,
        Self::CredentialAmbiguous,
        Self::TokenMalformed,
        Self::TokenUntrusted,
        Self::TokenExpired,
        Self::TokenNotYetValid,
        Self::TokenClaims,
        Self::ClaimsNotMet,
        Self::KeysUnavailable,
        Self::ExternalUnauthorized,
        Self::ExternalDenied,
        Self::ExternalUnavailable,
        Self::TicketInvalid,
        Self::TicketsUnavailable,
        Self::StoreUnavailable,
        Self::TotalLimit,
        Self::AddressLimit,
        Self::SubjectLimit,
        Self::Overloaded,
        Self::Draining,
        Self::NoEndpoints,
        Self::DialFailed,
        Self::DialTimeout,
        Self::PortsExhausted,
        Self::UpstreamTimeout,
        Self::UpstreamRefused,
        Self::UpstreamBadHandshake,
        Self::UpstreamTlsFailed,
        Self::ClientClosed,
        Self::ClientLost,
        Self::BackendClosed,
        Self::BackendLost,
        Self::ProtocolError,
        Self::TypeNotAllowed,
        Self::InvalidUtf8,
        Self::MessageTooBig,
        Self::TooManyFragments,
        Self::ControlFlood,
        Self::FrameTooSlow,
        Self::ClientStalled,
        Self::BackendStalled,
        Self::HeartbeatMissed,
        Self::BackendHeartbeatMissed,
        Self::IdleTimeout,
        Self::MaxDuration,
        Self::ClientCertificateExpired,
        Self::CredentialExpired,
        Self::AccessWithdrawn,
        Self::RouteRemoved,
        Self::Drain,
        Self::BackendProtocolError,
        Self::BackendMessageTooBig,
        Self::Internal,
    ];

    /// The HTTP status (RFC 9110 §15) that refuses a handshake; `None` where no HTTP answer is sent.
    pub const fn http_status(self) -> Option<u16> {
        Some(match self {
            Self::MalformedRequest
            | Self::BodyNotAllowed
            | Self::UpgradeNotAllowed
            | Self::BadKey
            | Self::BadHost
            | Self::BadPath
            | Self::ForwardedForInvalid
            | Self::SubprotocolDenied => 400,
            Self::CredentialMissing
            | Self::CredentialAmbiguous
            | Self::TokenMalformed
            | Self::TokenUntrusted
            | Self::TokenExpired
            | Self::TokenNotYetValid
            | Self::TokenClaims
            | Self::ExternalUnauthorized
            | Self::TicketInvalid
            // Before the 101 an expired credential is none.
            | Self::CredentialExpired => 401,
            Self::AddressDenied
            | Self::OriginDenied
            | Self::OriginMissing
            | Self::OriginAmbiguous
            | Self::ClaimsNotMet
            | Self::ExternalDenied
            | Self::ClientCertificateDenied => 403,
            Self::RouteNotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::HeadTimeout => 408,
            Self::TargetTooLong => 414,
            Self::Misdirected => 421,
            Self::UpgradeRequired => 426,
            Self::TooManyAttempts | Self::AddressLimit | Self::SubjectLimit => 429,
            Self::HeadTooLarge => 431,
            Self::Internal => 500,
            Self::DialFailed | Self::UpstreamRefused | Self::UpstreamBadHandshake | Self::UpstreamTlsFailed => 502,
            Self::RouteUnavailable
            | Self::KeysUnavailable
            | Self::ExternalUnavailable
            | Self::TicketsUnavailable
            | Self::StoreUnavailable
            | Self::TotalLimit
            | Self::Overloaded
            | Self::Draining
            | Self::NoEndpoints
            | Self::PortsExhausted => 503,
            Self::DialTimeout | Self::UpstreamTimeout => 504,
            Self::ProxyHeaderInvalid
            | Self::ProxyHeaderTimeout
            | Self::TlsTimeout
            | Self::TlsFailed
            | Self::ClientCertificateInvalid
            | Self::UnknownServerName
            | Self::ConnectionLimit
            | Self::HandshakeLimit
            | Self::ClientClosed
            | Self::ClientLost
            | Self::BackendClosed
            | Self::BackendLost
            | Self::ProtocolError
            | Self::TypeNotAllowed
            | Self::InvalidUtf8
            | Self::MessageTooBig
            | Self::TooManyFragments
            | Self::ControlFlood
            | Self::FrameTooSlow
            | Self::ClientStalled
            | Self::BackendStalled
            | Self::HeartbeatMissed
            | Self::BackendHeartbeatMissed
            | Self::IdleTimeout
            | Self::MaxDuration
            | Self::ClientCertificateExpired
            | Self::AccessWithdrawn
            | Self::RouteRemoved
            | Self::Drain
            | Self::BackendProtocolError
            | Self::BackendMessageTooBig => return None,
        })
    }

    /// The close code that the client sees (RFC 6455 §7.4.1 and the IANA registry); `None` for reasons that never
    /// end a live connection, and for those that carry the peer's own code or have no one left to tell.
    ///
    /// 1014 is not used: common clients reject it. 1005, 1006 and 1015 never go on the wire.
    pub const fn close_code(self) -> Option<u16> {
        Some(match self {
            Self::Drain | Self::IdleTimeout | Self::MaxDuration | Self::HeartbeatMissed => 1001,
            Self::ProtocolError => 1002,
            Self::TypeNotAllowed => 1003,
            Self::InvalidUtf8 => 1007,
            Self::TooManyFragments
            | Self::ControlFlood
            | Self::FrameTooSlow
            | Self::ClientStalled
            | Self::ClientCertificateExpired
            | Self::CredentialExpired
            | Self::AccessWithdrawn => 1008,
            Self::MessageTooBig => 1009,
            Self::BackendLost
            | Self::BackendStalled
            | Self::BackendHeartbeatMissed
            | Self::BackendProtocolError
            | Self::BackendMessageTooBig
            | Self::Internal => 1011,
            Self::RouteRemoved => 1012,
            Self::Overloaded => 1013,
            Self::ProxyHeaderInvalid
            | Self::ProxyHeaderTimeout
            | Self::TlsTimeout
            | Self::TlsFailed
            | Self::ClientCertificateInvalid
            | Self::UnknownServerName
            | Self::ConnectionLimit
            | Self::HandshakeLimit
            | Self::HeadTimeout
            | Self::MalformedRequest
            | Self::HeadTooLarge
            | Self::TargetTooLong
            | Self::BodyNotAllowed
            | Self::MethodNotAllowed
            | Self::UpgradeRequired
            | Self::UpgradeNotAllowed
            | Self::BadKey
            | Self::BadHost
            | Self::BadPath
            | Self::ForwardedForInvalid
            | Self::Misdirected
            | Self::RouteNotFound
            | Self::RouteUnavailable
            | Self::AddressDenied
            | Self::OriginDenied
            | Self::OriginMissing
            | Self::OriginAmbiguous
            | Self::SubprotocolDenied
            | Self::TooManyAttempts
            | Self::ClientCertificateDenied
            | Self::CredentialMissing
            | Self::CredentialAmbiguous
            | Self::TokenMalformed
            | Self::TokenUntrusted
            | Self::TokenExpired
            | Self::TokenNotYetValid
            | Self::TokenClaims
            | Self::ClaimsNotMet
            | Self::KeysUnavailable
            | Self::ExternalUnauthorized
            | Self::ExternalDenied
            | Self::ExternalUnavailable
            | Self::TicketInvalid
            | Self::TicketsUnavailable
            | Self::StoreUnavailable
            | Self::TotalLimit
            | Self::AddressLimit
            | Self::SubjectLimit
            | Self::Draining
            | Self::NoEndpoints
            | Self::DialFailed
            | Self::DialTimeout
            | Self::PortsExhausted
            | Self::UpstreamTimeout
            | Self::UpstreamRefused
            | Self::UpstreamBadHandshake
            | Self::UpstreamTlsFailed
            | Self::ClientClosed
            | Self::ClientLost
            | Self::BackendClosed => return None,
        })
    }

    /// The challenge that a refusal carries in `WWW-Authenticate` (RFC 9110 §11.6.1, RFC 6750 §3); `None` for refusals
    /// that no credential would change.
    pub const fn challenge(self) -> Option<&'static str> {
        match self {
            // RFC 6750 §3.1: without a credential no error code.
            Self::CredentialMissing => Some("Bearer"),
            Self::CredentialAmbiguous => Some("Bearer error=\"invalid_request\""),
            Self::TokenMalformed
            | Self::TokenUntrusted
            | Self::TokenExpired
            | Self::TokenNotYetValid
            | Self::TokenClaims
            | Self::ExternalUnauthorized
            | Self::TicketInvalid
            | Self::CredentialExpired => Some("Bearer error=\"invalid_token\""),
            Self::ClaimsNotMet => Some("Bearer error=\"insufficient_scope\""),
            _ => None,
        }
    }

    /// The name in metrics, logs and documentation: lower-case words joined by `_`, stable once released.
    pub const fn label(self) -> &'static str {
        match self {
            Self::ProxyHeaderInvalid => "proxy_header_invalid",
            Self::ProxyHeaderTimeout => "proxy_header_timeout",
            Self::TlsTimeout => "tls_timeout",
            Self::TlsFailed => "tls_failed",
            Self::ClientCertificateInvalid => "client_certificate_invalid",
            Self::UnknownServerName => "unknown_server_name",
            Self::ConnectionLimit => "connection_limit",
            Self::HandshakeLimit => "handshake_limit",
            Self::HeadTimeout => "head_timeout",
            Self::MalformedRequest => "malformed_request",
            Self::HeadTooLarge => "head_too_large",
            Self::TargetTooLong => "target_too_long",
            Self::BodyNotAllowed => "body_not_allowed",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::UpgradeRequired => "upgrade_required",
            Self::UpgradeNotAllowed => "upgrade_not_allowed",
            Self::BadKey => "bad_key",
            Self::BadHost => "bad_host",
            Self::BadPath => "bad_path",
            Self::ForwardedForInvalid => "forwarded_for_invalid",
            Self::Misdirected => "misdirected",
            Self::RouteNotFound => "route_not_found",
            Self::RouteUnavailable => "route_unavailable",
            Self::AddressDenied => "address_denied",
            Self::OriginDenied => "origin_denied",
            Self::OriginMissing => "origin_missing",
            Self::OriginAmbiguous => "origin_ambiguous",
            Self::SubprotocolDenied => "subprotocol_denied",
            Self::TooManyAttempts => "too_many_attempts",
            Self::ClientCertificateDenied => "client_certificate_denied",
            Self::CredentialMissing => "credential_missing",
            Self::CredentialAmbiguous => "credential_ambiguous",
            Self::TokenMalformed => "token_malformed",
            Self::TokenUntrusted => "token_untrusted",
            Self::TokenExpired => "token_expired",
            Self::TokenNotYetValid => "token_not_yet_valid",
            Self::TokenClaims => "token_claims",
            Self::ClaimsNotMet => "claims_not_met",
            Self::KeysUnavailable => "keys_unavailable",
            Self::ExternalUnauthorized => "external_unauthorized",
            Self::ExternalDenied => "external_denied",
            Self::ExternalUnavailable => "external_unavailable",
            Self::TicketInvalid => "ticket_invalid",
            Self::TicketsUnavailable => "tickets_unavailable",
            Self::StoreUnavailable => "store_unavailable",
            Self::TotalLimit => "total_limit",
            Self::AddressLimit => "address_limit",
            Self::SubjectLimit => "subject_limit",
            Self::Overloaded => "overloaded",
            Self::Draining => "draining",
            Self::NoEndpoints => "no_endpoints",
            Self::DialFailed => "dial_failed",
            Self::DialTimeout => "dial_timeout",
            Self::PortsExhausted => "ports_exhausted",
            Self::UpstreamTimeout => "upstream_timeout",
            Self::UpstreamRefused => "upstream_refused",
            Self::UpstreamBadHandshake => "upstream_bad_handshake",
            Self::UpstreamTlsFailed => "upstream_tls_failed",
            Self::ClientClosed => "client_closed",
            Self::ClientLost => "client_lost",
            Self::BackendClosed => "backend_closed",
            Self::BackendLost => "backend_lost",
            Self::ProtocolError => "protocol_error",
            Self::TypeNotAllowed => "type_not_allowed",
            Self::InvalidUtf8 => "invalid_utf8",
            Self::MessageTooBig => "message_too_big",
            Self::TooManyFragments => "too_many_fragments",
            Self::ControlFlood => "control_flood",
            Self::FrameTooSlow => "frame_too_slow",
            Self::ClientStalled => "client_stalled",
            Self::BackendStalled => "backend_stalled",
            Self::HeartbeatMissed => "heartbeat_missed",
            Self::BackendHeartbeatMissed => "backend_heartbeat_missed",
            Self::IdleTimeout => "idle_timeout",
            Self::MaxDuration => "max_duration",
            Self::ClientCertificateExpired => "client_certificate_expired",
            Self::CredentialExpired => "credential_expired",
            Self::AccessWithdrawn => "access_withdrawn",
            Self::RouteRemoved => "route_removed",
            Self::Drain => "drain",
            Self::BackendProtocolError => "backend_protocol_error",
            Self::BackendMessageTooBig => "backend_message_too_big",
            Self::Internal => "internal",
        }
    }
}

impl From<RequestError> for Reason {
    fn from(error: RequestError) -> Self {
        match error {
            RequestError::Syntax | RequestError::Expectation | RequestError::Subprotocols => Self::MalformedRequest,
            RequestError::HeadTooLarge => Self::HeadTooLarge,
            RequestError::TargetTooLong => Self::TargetTooLong,
            RequestError::Method => Self::MethodNotAllowed,
            RequestError::Body => Self::BodyNotAllowed,
            RequestError::Version | RequestError::UpgradeMissing => Self::UpgradeRequired,
            RequestError::TargetForm | RequestError::Path => Self::BadPath,
            RequestError::Host => Self::BadHost,
            RequestError::UpgradeOther => Self::UpgradeNotAllowed,
            RequestError::Key => Self::BadKey,
        }
    }
}

impl From<ResponseError> for Reason {
    /// However an answer of a backend is wrong, it is the backend's fault alone.
    fn from(_: ResponseError) -> Self {
        Self::UpstreamBadHandshake
    }
}

/// The status for a client whose backend refused the upgrade: refusals that tell the client what to do pass as they
/// are; everything else, redirects included, is the gateway's 502.
pub const fn passed_on(status: u16) -> u16 {
    match status {
        401 | 403 | 404 | 410 | 429 | 503 => status,
        _ => 502,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_reason_is_listed_once_and_has_its_own_label() {
        let labels: BTreeSet<_> = Reason::ALL.iter().map(|r| r.label()).collect();
        assert_eq!(labels.len(), Reason::ALL.len());
        // `Internal` is the last variant: its discriminant counts those before it.
        assert_eq!(Reason::ALL.len(), Reason::Internal as usize + 1);
    }

    #[test]
    fn every_401_says_how_to_authenticate() {
        for reason in Reason::ALL.iter().filter(|reason| reason.http_status() == Some(401)) {
            assert!(reason.challenge().is_some(), "{reason:?}");
        }
    }

    #[test]
    fn no_reason_puts_a_reserved_code_on_the_wire() {
        for reason in Reason::ALL {
            let code = reason.close_code();
            assert!(!matches!(code, Some(1004 | 1005 | 1006 | 1014 | 1015)), "{reason:?}");
        }
    }
}
