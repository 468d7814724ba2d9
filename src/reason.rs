//! THE TABLE of endings: why a handshake was refused or a connection ended.
//!
//! One row per reason, and every face of a reason (HTTP status, close code, label, text) is a column, so that a new
//! reason cannot be added without deciding all of them, and no call site ever names a number. `docs/reasons.md` is
//! written from it. Knows nothing of sockets or routes.

use crate::ws::upgrade::RequestError;

/// A column that may be empty: `-`, or a number.
macro_rules! number {
    (-) => {
        None
    };
    ($number:literal) => {
        Some($number)
    };
}

/// Whether the last column says `cut`.
macro_rules! cuts {
    () => {
        false
    };
    (cut) => {
        true
    };
}

macro_rules! reasons {
    ($($variant:ident $label:literal $status:tt $code:tt $($cut:ident)?: $text:literal)*) => {
        /// Why a handshake was refused or a live connection ended.
        ///
        /// Refusals carry an HTTP status ([`Reason::http_status`]); endings after the 101 carry a close code
        /// ([`Reason::close_code`], RFC 6455 §7.4.1). A reason that ends a connection before any HTTP answer is possible
        /// has neither.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Reason {
            $(#[doc = $text] $variant,)*
        }

        impl Reason {
            /// Every reason, in the order of the life of a connection.
            pub const ALL: &'static [Reason] = &[$(Self::$variant,)*];

            /// The name in metrics, logs and documentation: lower-case words joined by `_`, stable once released.
            pub const fn label(self) -> &'static str {
                match self { $(Self::$variant => $label,)* }
            }

            /// The HTTP status (RFC 9110 §15) that refuses a handshake; `None` where no HTTP answer is sent.
            pub const fn http_status(self) -> Option<u16> {
                match self { $(Self::$variant => number!($status),)* }
            }

            /// The close code that the client sees (RFC 6455 §7.4.1 and the IANA registry); `None` for reasons that never
            /// end a live connection, and for those that carry the peer's own code or have no one left to tell.
            ///
            /// 1014 is not used: common clients reject it. 1005, 1006 and 1015 never go on the wire.
            pub const fn close_code(self) -> Option<u16> {
                match self { $(Self::$variant => number!($code),)* }
            }

            /// Whether the client is not waited for once it has its Close frame: it broke the protocol, so its next bytes
            /// could mean anything.
            pub const fn cuts(self) -> bool {
                match self { $(Self::$variant => cuts!($($cut)?),)* }
            }

            /// What happened, in one or two sentences for operators.
            pub const fn text(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }
    };
}

#[rustfmt::skip]
reasons! {
// Variant                   label                          status code
    // Before HTTP.
    ProxyHeaderInvalid       "proxy_header_invalid"         -     -: "The connection of a trusted proxy does not begin with a valid PROXY header of version 2."
    ProxyHeaderTimeout       "proxy_header_timeout"         -     -: "The PROXY header of a trusted proxy did not arrive in time."
    TlsTimeout               "tls_timeout"                  -     -: "The TLS handshake did not finish in time."
    TlsFailed                "tls_failed"                   -     -: "The TLS handshake failed: no common version or suite, a broken record, or an alert from the client."
    ClientCertificateInvalid "client_certificate_invalid"   -     -: "The TLS handshake failed because of the client certificate: it is missing where one is required, expired, revoked, issued by an unknown authority, or too large."
    NoCertificate            "no_certificate"               -     -: "A route serves the name in the ClientHello, and no certificate for it is there (alert `unrecognized_name`, RFC 6066 §3). Connections that are open go on."
    UnknownServerName        "unknown_server_name"          -     -: "No route serves the name in the ClientHello and there is no default certificate (alert `unrecognized_name`, RFC 6066 §3)."
    ConnectionLimit          "connection_limit"             -     -: "As many client sockets are open as the limit of open files allows. The connection is closed before TLS."
    TlsQueueFull             "tls_queue_full"               -     -: "Too many clients wait for their TLS handshake, in total or from one address. The connection is closed without an answer."

    // The form of the request.
    HeadTimeout              "head_timeout"                 408   -: "The head of the request did not arrive in time."
    MalformedRequest         "malformed_request"            400   -: "The request is not well-formed HTTP/1.1 (RFC 9112): for example a bare CR or LF, a folded line, a NUL, or a field repeated that must not be."
    HeadTooLarge             "head_too_large"               431   -: "The head of the request is larger than `handshake.maxHeadSize`, or has more fields or subprotocols than the gateway reads."
    TargetTooLong            "target_too_long"              414   -: "The request target is longer than half of `handshake.maxHeadSize`."
    BodyNotAllowed           "body_not_allowed"             400   -: "The handshake has `Transfer-Encoding`, or a `Content-Length` that is not a single 0."
    MethodNotAllowed         "method_not_allowed"           405   -: "The method is not GET (RFC 6455 §4.1)."
    UpgradeRequired          "upgrade_required"             426   -: "The request is not an upgrade to WebSocket, or its version is not 13 (RFC 6455 §4.4)."
    UpgradeNotAllowed        "upgrade_not_allowed"          400   -: "`Upgrade` names something other than the single token `websocket`, which would allow h2c smuggling."
    BadKey                   "bad_key"                      400   -: "`Sec-WebSocket-Key` is missing, repeated, or not 16 bytes of base64."
    BadHost                  "bad_host"                     400   -: "`Host` is missing, repeated, not a plain host, or not the host of a target in absolute form."
    BadPath                  "bad_path"                     400   -: "The path has dot segments, encoded slashes or forbidden bytes, or another reading (an escape, a path parameter, an empty segment) that leads to another rule or to none."
    ForwardedForInvalid      "forwarded_for_invalid"        400   -: "`X-Forwarded-For` of a trusted proxy has fewer entries than the settings name hops, or its entry for the client is not an address."

    // The judgement.
    Misdirected              "misdirected"                  421   -: "`Host` differs from the server name of the TLS handshake (RFC 9110 §15.5.20), or the handshake named no host of a route and this one asks for client certificates or a later TLS version."
    RouteNotFound            "route_not_found"              404   -: "No route matches this host and path."
    LoopDetected             "loop_detected"                508   -: "The request came through this gateway before (`CDN-Loop`, RFC 8586), or the backend answered 508: the endpoint of the route leads back to the gateway, or into another loop. The UID of the IngressClass tells the gateway and its replicas from others."
    RouteUnavailable         "route_unavailable"            503   -: "The route was never valid, or lost the right to its hostname or to what it refers to."
    AddressDenied            "address_denied"               403   -: "`networks` denies the client's address or does not allow it."
    OriginDenied             "origin_denied"                403   -: "`origins` does not allow the Origin."
    OriginMissing            "origin_missing"               403   -: "The request has no Origin and the route requires one."
    OriginAmbiguous          "origin_ambiguous"             403   -: "The request has several Origin fields, or several values in one."
    SubprotocolDenied        "subprotocol_denied"           400   -: "The route allows none of the offered subprotocols, or requires one and none was offered."
    HandshakeRateLimit       "handshake_rate_limit"         429   -: "The client's address exceeds `handshake.rateLimit`."
    ClientCertificateDenied  "client_certificate_denied"    403   -: "The client certificate, or its absence, no longer meets `tls.clientValidation`."
    CredentialMissing        "credential_missing"           401   -: "The request has no credential where a method of the route looks for one."
    CredentialAmbiguous      "credential_ambiguous"         401   -: "The request has more than one credential. Of cookies of one name exactly one must be valid, at most four are verified, and an External service gets none of several."
    TokenMalformed           "token_malformed"              401   -: "The token is not a signed JWT in compact form, or can be read in two ways."
    TokenAlgorithm           "token_algorithm"              401   -: "The token is signed with an algorithm that the gateway does not verify, or with none."
    TokenType                "token_type"                   401   -: "The `typ` of the token is neither JWT, at+jwt nor one of `jwt.types`."
    TokenUntrusted           "token_untrusted"              401   -: "No key of the issuer verifies the token's signature."
    TokenExpired             "token_expired"                401   -: "The token has expired."
    TokenNotYetValid         "token_not_yet_valid"          401   -: "The token is not valid yet, or was issued in the future."
    TokenClaims              "token_claims"                 401   -: "The token has another issuer or audience, or lacks a claim that every token must have or that `claimToHeaders` requires."
    ClaimsNotMet             "claims_not_met"               403   -: "The token is valid but lacks a claim that the route requires."
    KeysUnavailable          "keys_unavailable"             503   -: "The gateway has no keys of the issuer: they could not be fetched for too long, or cannot be read."
    ExternalUnauthorized     "external_unauthorized"        401   -: "The External service does not know the credential: it answered 401 or a redirect."
    ExternalDenied           "external_denied"              403   -: "The External service refused with another status, or the route uses another service now."
    ExternalUnavailable      "external_unavailable"         503   -: "The External service could not be asked: it has no endpoint, did not answer in time, failed, or answered with headers that cannot be passed on."
    TicketInvalid            "ticket_invalid"               401   -: "This route did not issue the ticket to this origin (and address), or the ticket was redeemed or has expired."
    TicketLimit              "ticket_limit"                 429   -: "The subject (or, for a credential that names no subject, the client's address) has as many outstanding tickets of the route as one may have. Tickets that were issued stay good."
    TicketsUnavailable       "tickets_unavailable"          503   -: "As many tickets are outstanding as the gateway keeps, or as the shared store keeps for the route."
    StoreUnavailable         "store_unavailable"            503   -: "The shared store could not be asked: it is not connected, did not answer in time, failed, or too many requests of the route wait for it. Tickets are neither issued nor redeemed, and a subject with a limit is not let in."
    NamespaceLimit           "namespace_limit"              503   -: "The routes of the namespace have as many connections on this replica as `ceilings` of the settings let them (`sockets`)."
    TotalLimit               "total_limit"                  503   -: "The route has `limits.total` connections."
    AddressLimit             "address_limit"                429   -: "The client's address has `limits.perAddress` connections."
    SubjectLimit             "subject_limit"                429   -: "The subject has `limits.perSubject` connections."
    SocketShare              "socket_share"                 503   -: "The client's address, the route or its namespace has its part of the client sockets; those that are free are left to others."
    Overloaded               "overloaded"                   503   1013: "Memory use exceeds the budget. New connections are refused before TLS; far beyond the budget connections whose peer does not read are ended. Also a backend that could not be connected to for lack of a file descriptor."
    Draining                 "draining"                     503   1001: "The gateway shuts down."

    // The backend, before the 101.
    NoEndpoints              "no_endpoints"                 503   -: "The Service has no endpoint that accepts connections."
    BackendConnectFailed     "backend_connect_failed"       502   -: "No endpoint of the backend accepted the TCP connection."
    BackendConnectTimeout    "backend_connect_timeout"      504   -: "No endpoint of the backend accepted the TCP connection within `rules[].timeouts.connect`."
    PortsExhausted           "ports_exhausted"              503   -: "Every endpoint has as many connections of this replica as there are local ports."
    BackendUpgradeTimeout    "backend_upgrade_timeout"      504   -: "The backend accepted the connection but did not answer the handshake within `rules[].timeouts.upgrade`."
    BackendRefused           "backend_refused"              502   -: "The backend refused the upgrade. Its status passes if it is 400 to 499 or 503; `backend_status` in the access log is the status of the backend."
    BackendHandshakeInvalid  "backend_handshake_invalid"    502   -: "The backend's 101 is not a valid answer to the gateway's handshake (RFC 6455 §4.1); `detail` in the access log says what it lacks."
    BackendTlsFailed         "backend_tls_failed"           502   -: "The TLS handshake with the backend failed."

    // After the 101.
    ClientClosed             "client_closed"                -     -: "The client closed. Its close code is passed on."
    ClientLost               "client_lost"                  -     -: "The client's TCP connection ended without a Close frame."
    BackendClosed            "backend_closed"               -     -: "The backend closed. Its close code is passed on."
    BackendLost              "backend_lost"                 -     1011: "The backend's TCP connection ended without a Close frame."
    ProtocolError            "protocol_error"               -     1002 cut: "The client sent a frame that RFC 6455 §5 forbids."
    TypeNotAllowed           "type_not_allowed"             -     1003 cut: "The route does not allow the type of the message."
    InvalidUtf8              "invalid_utf8"                 -     1007 cut: "A text message is not UTF-8 (RFC 6455 §8.1)."
    MessageTooBig            "message_too_big"              -     1009 cut: "A message is larger than `fromClient.maxSize`."
    CompressionInvalid       "compression_invalid"          -     1007 cut: "A compressed message of the client cannot be inflated (RFC 7692 §7.2.2)."
    CompressionRatio         "compression_ratio"            -     1009 cut: "A compressed message of the client would inflate to more than 256 KiB and to more than 128 times its compressed size."
    TooManyFragments         "too_many_fragments"           -     1008 cut: "A message of the client has more frames than `fromClient.maxFragments`."
    ControlFlood             "control_flood"                -     1008 cut: "The client sent too many control frames in one second."
    MessageTimeout           "message_timeout"              -     1008 cut: "A message of the client took longer than `fromClient.messageTimeout`."
    MessageRateExceeded      "message_rate_exceeded"        -     1008 cut: "The client sent more messages than `fromClient.rateLimit` allows. With `onExceeded` Throttle or Drop a label of metrics only."
    TunnelDetected           "tunnel_detected"              -     1008 cut: "The first messages of the client are the beginning of a raw protocol that the route does not allow (`fromClient.tunnels`)."
    ByteRateExceeded         "byte_rate_exceeded"           -     1008 cut: "The client sent more bytes than `fromClient.byteRateLimit` allows. With `onExceeded` Throttle or Drop a label of metrics only."
    MessageMalformed         "message_malformed"            -     1007 cut: "A text message of the client is not JSON in the `format` of the route, or has an object with one name twice."
    MessageTooComplex        "message_too_complex"          -     1009 cut: "A text message of the client has more levels or values than the gateway reads; `malformed` in the access log says which."
    MessageInvalid           "message_invalid"              -     1008 cut: "A message of the client does not satisfy the schema that judges it."
    MessageUnmatched         "message_unmatched"            -     1008 cut: "No selector under `fromClient.schemas` takes a message of the client, and `unmatched` is Deny."
    ClientStalled            "client_stalled"               -     1008: "For 30 seconds the client took less than 1 KiB a second of the bytes that waited for it."
    BackendStalled           "backend_stalled"              -     1011: "For 30 seconds the backend took less than 1 KiB a second of the bytes that waited for it."
    HeartbeatMissed          "heartbeat_missed"             -     1001: "The client did not answer the heartbeat."
    BackendHeartbeatMissed   "backend_heartbeat_missed"     -     1011: "The backend did not answer the heartbeat."
    IdleTimeout              "idle_timeout"                 -     1001: "No data frame passed for `idleTimeout`."
    MaxDuration              "max_duration"                 -     1001: "The connection reached `maxDuration`."
    ClientCertificateExpired "client_certificate_expired"   -     1008: "The client certificate expired while the connection was open."
    CredentialExpired        "credential_expired"           401   1008: "The credential that admitted the connection has expired."
    KeyRemoved               "key_removed"                  -     1008: "The key that verified the token has left its key set (`jwt.onKeyRemoval: Close`)."
    ExternalWithdrawn        "external_withdrawn"           -     1008: "The External service refused the connection when it was asked again (`external.recheck`), or named another subject."
    RecheckMissed            "recheck_missed"               -     1013: "The External service gave no valid answer for three times `external.recheck`, or the gateway kept nothing to ask it with: a ticket admitted the connection, or `recheck` was not set at its handshake."
    AccessWithdrawn          "access_withdrawn"             -     1008: "The route no longer admits this connection."
    RouteRemoved             "route_removed"                -     1012: "The route was removed, or its host or path moved."
    BackendProtocolError     "backend_protocol_error"       -     1011: "The backend sent a frame that RFC 6455 §5 forbids."
    BackendTypeNotAllowed    "backend_type_not_allowed"     -     1011: "The backend sent a message of a type that `fromBackend.types` does not allow."
    BackendInvalidUtf8       "backend_invalid_utf8"         -     1011: "A text message of the backend is not UTF-8 (RFC 6455 §8.1)."
    BackendControlFlood      "backend_control_flood"        -     1011: "The backend sent too many control frames in one second."
    BackendMessageTooBig     "backend_message_too_big"      -     1011: "The backend sent a message larger than `fromBackend.maxSize`."
    BackendTooManyFragments  "backend_too_many_fragments"   -     1011: "The backend sent a message with more frames than `fromBackend.maxFragments`."
    BackendMessageTimeout    "backend_message_timeout"      -     1011: "A message of the backend took longer than `fromBackend.messageTimeout`."
    BackendMessageRateExceeded "backend_message_rate_exceeded" -  1011: "The backend sent more messages than `fromBackend.rateLimit` allows. With `onExceeded` Throttle or Drop a label of metrics only."
    BackendTunnelDetected    "backend_tunnel_detected"      -     1011: "The first messages of the backend are the beginning of a raw protocol that the route does not allow (`fromBackend.tunnels`)."
    BackendByteRateExceeded  "backend_byte_rate_exceeded"   -     1011: "The backend sent more bytes than `fromBackend.byteRateLimit` allows. With `onExceeded` Throttle or Drop a label of metrics only."
    BackendMessageMalformed  "backend_message_malformed"    -     1011: "A text message of the backend is not JSON in the `format` of the route, or has an object with one name twice."
    BackendMessageTooComplex "backend_message_too_complex"  -     1011: "A text message of the backend has more levels or values than the gateway reads."
    BackendMessageInvalid    "backend_message_invalid"      -     1011: "A message of the backend does not satisfy the schema that judges it."
    BackendMessageUnmatched  "backend_message_unmatched"    -     1011: "No selector under `fromBackend.schemas` takes a message of the backend, and `unmatched` is Deny."
    Internal                 "internal"                     500   1011: "A fault of the gateway itself. Please report it."
}

impl Reason {
    /// The challenge that a refusal carries in `WWW-Authenticate` (RFC 9110 §11.6.1, RFC 6750 §3); `None` for refusals
    /// that no credential would change.
    pub const fn challenge(self) -> Option<&'static str> {
        match self {
            // RFC 6750 §3.1: without a credential no error code.
            Self::CredentialMissing => Some("Bearer"),
            Self::CredentialAmbiguous => Some("Bearer error=\"invalid_request\""),
            Self::TokenMalformed
            | Self::TokenAlgorithm
            | Self::TokenType
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
}

impl From<RequestError> for Reason {
    fn from(error: RequestError) -> Self {
        match error {
            RequestError::Syntax | RequestError::Expectation | RequestError::Subprotocols => Self::MalformedRequest,
            RequestError::HeadTooLarge | RequestError::TooManySubprotocols => Self::HeadTooLarge,
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

/// Whether the status of a backend that refused the upgrade reaches the client as it is: those that tell the client what
/// to do. Every other one, redirects included, is the gateway's 502.
pub const fn passes_on(status: u16) -> bool {
    matches!(status, 400..=499 | 503)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_reason_has_its_own_label_and_a_sentence() {
        let labels: BTreeSet<_> = Reason::ALL.iter().map(|r| r.label()).collect();
        assert_eq!(labels.len(), Reason::ALL.len());
        for reason in Reason::ALL {
            let label = reason.label();
            assert!(label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'), "{label}");
            assert!(reason.text().ends_with('.'), "{label}");
        }
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
