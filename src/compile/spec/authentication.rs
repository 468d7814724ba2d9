//! `handshake.authentication` as the policy has it: methods with everything that they say, and what does not go together.
//! Knows the spec only; whether keys that it names are there is [`jwks`](crate::compile::resolve::jwks)'s to find out.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::time::Duration;

use crate::api::route::authentication::{
    self as api, AuthenticationMode, ExtractFrom, ExtractFromKind, Jwks, MethodKind, OnKeyRemoval,
};
use crate::api::route::reference::KeyKind;
use crate::api::status::ConditionType as Type;
use crate::compile::problem::quote;
use crate::compile::spec::diagnostics::Diagnostics;
use crate::compile::spec::header::is_token;
use crate::compile::spec::number::within;
use crate::policy::authentication::{
    Authentication, Carrier, ClaimHeader, External, Jwt, KeySource, Kind, Method, Place, Required, Ticket,
};
use crate::policy::token::plain_type;
use crate::ws::upgrade;

/// Where authentication is written. The defaults of the class have no say in it.
const FIELD: &str = "spec.handshake.authentication";
/// Default: how far clocks may differ.
const SKEW: Duration = Duration::from_secs(30);
/// The most that clocks may be said to differ.
const MAX_SKEW: Duration = Duration::from_secs(300);
/// Default: how long a service may take to judge a handshake.
const EXTERNAL: Duration = Duration::from_secs(2);
/// The shortest time that it may be given, and the longest: the client waits for it.
const SHORTEST: Duration = Duration::from_millis(10);
/// The longest `external.timeout` that may be set.
const LONGEST: Duration = Duration::from_secs(10);
/// How often a service may be asked again about a live connection: the shortest interval and the longest.
const RECHECK: RangeInclusive<Duration> = Duration::from_secs(10)..=Duration::from_secs(24 * 3600);
/// Default: how long a ticket can be redeemed; the least and the most.
const TTL: Duration = Duration::from_secs(30);
/// The shortest that may be set.
const MIN_TTL: Duration = Duration::from_secs(1);
/// The longest that may be set.
const MAX_TTL: Duration = Duration::from_secs(60);
/// The query parameter that has a ticket, and what stands before one among the subprotocols.
const TICKET: &str = "ticket";
const TICKET_PREFIX: &str = "ticket.";
/// Headers that claims may not become: they carry credentials or say something else to every backend.
const NO_CLAIM: [&str; 6] = ["authorization", "cookie", "date", "forwarded", "via", "x-real-ip"];

/// What is said of a method that names no subject where subjects are counted.
pub(super) fn nameless(method: &str) -> String {
    format!(
        "needs the subject of every client; method {} must list the header with the subject first in \
         allowedResponseHeaders",
        quote(method)
    )
}

/// Reads what a route says. What it does not say is a problem.
pub fn read(spec: Option<&api::Authentication>, diagnostics: &mut Diagnostics) -> Authentication {
    let Some(spec) = spec else {
        diagnostics.invalid(FIELD, "must be set; use mode: Anonymous if the application authenticates clients");
        return Authentication::Anonymous;
    };
    match (spec.mode, spec.methods.as_deref()) {
        (AuthenticationMode::Anonymous, None) => {
            let text = "Anonymous: the gateway does not authenticate clients";
            diagnostics.warn(Type::Anonymous, format_args!("{FIELD}.mode"), text);
            Authentication::Anonymous
        }
        (AuthenticationMode::Anonymous, Some(_)) => {
            diagnostics.invalid(
                format_args!("{FIELD}.methods"),
                "cannot be set with mode Anonymous; remove them or use mode AnyOf",
            );
            Authentication::Anonymous
        }
        (AuthenticationMode::AnyOf, None | Some([])) => {
            diagnostics
                .invalid(format_args!("{FIELD}.methods"), "must have at least one method, because the mode is AnyOf");
            Authentication::AnyOf(Vec::new())
        }
        (AuthenticationMode::AnyOf, Some(methods)) => Authentication::AnyOf(self::methods(methods, diagnostics)),
    }
}

fn methods(list: &[api::Method], diagnostics: &mut Diagnostics) -> Vec<Method> {
    let mut methods: Vec<Method> = Vec::with_capacity(list.len());
    for (index, one) in list.iter().enumerate() {
        let field = format!("{FIELD}.methods[{index}]");
        if list.iter().take(index).any(|earlier| earlier.name == one.name) {
            diagnostics.invalid(
                format_args!("{field}.name"),
                format_args!("{} is already the name of another method", quote(&one.name)),
            );
        }
        let members = [one.jwt.is_some(), one.external.is_some(), one.ticket.is_some()];
        let wanted = [MethodKind::Jwt, MethodKind::External, MethodKind::Ticket].map(|kind| kind == one.kind);
        if members != wanted {
            diagnostics.invalid(&field, "must have exactly the member that type names: jwt, external or ticket");
            continue;
        }
        match (&one.jwt, one.kind) {
            (Some(spec), MethodKind::Jwt) => {
                let jwt = jwt(spec, &field, diagnostics);
                let same = |earlier: &&Method| matches!(&earlier.kind, Kind::Jwt(other) if other.issuer == jwt.issuer);
                if let Some(other) = methods.iter().find(same) {
                    let text = format_args!("duplicates the issuer of method {}; merge the two", quote(&other.name));
                    diagnostics.invalid(format_args!("{field}.jwt.issuer"), text);
                }
                methods.push(Method { name: one.name.as_str().into(), kind: Kind::Jwt(jwt) });
            }
            (_, MethodKind::External) => {
                if let Some(spec) = &one.external {
                    let kind = Kind::External(external(spec, &field, diagnostics));
                    methods.push(Method { name: one.name.as_str().into(), kind });
                }
            }
            (_, _) => {
                if let Some(spec) = &one.ticket {
                    let kind = Kind::Ticket(ticket(spec, &field, diagnostics));
                    methods.push(Method { name: one.name.as_str().into(), kind });
                }
            }
        }
    }
    let tickets = methods.iter().filter(|method| matches!(method.kind, Kind::Ticket(_)));
    match tickets.count() {
        0 => {}
        1 if methods.len() == 1 => {
            let text = "a ticket is issued for the credential of another method; add a method of type JWT or External";
            diagnostics.invalid(format_args!("{FIELD}.methods"), text);
        }
        1 => check_places(&methods, diagnostics),
        _ => {
            diagnostics.invalid(
                format_args!("{FIELD}.methods"),
                "a route can have one method of type Ticket; remove the others",
            );
        }
    }
    methods
}

/// A credential is either a ticket or not: no other method may look where a ticket is.
fn check_places(methods: &[Method], diagnostics: &mut Diagnostics) {
    for (number, method) in methods.iter().enumerate() {
        let Kind::Jwt(jwt) = &method.kind else { continue };
        let shared = jwt.places.iter().any(|place| match &place.carrier {
            Carrier::Query(name) => **name == *TICKET,
            Carrier::Subprotocol => {
                TICKET_PREFIX.starts_with(&*place.prefix) || place.prefix.starts_with(TICKET_PREFIX)
            }
            Carrier::SubprotocolPair(_) | Carrier::Header(_) | Carrier::Cookie(_) => false,
        });
        if shared {
            let text = "must not read the query parameter ticket or subprotocols that begin with ticket., because tickets are there";
            diagnostics.invalid(format_args!("{FIELD}.methods[{number}].jwt.extractFrom"), text);
        }
    }
}

fn ticket(spec: &api::Ticket, field: &str, diagnostics: &mut Diagnostics) -> Ticket {
    let field = format!("{field}.ticket");
    path(&spec.path, &field, diagnostics);
    let ttl = spec.ttl.as_ref().and_then(|ttl| {
        let field = format_args!("{field}.ttl");
        within(ttl, MIN_TTL..=MAX_TTL, "must be from 1s to 60s", field, diagnostics)
    });
    let places = vec![
        Place { carrier: Carrier::Query(TICKET.into()), prefix: "".into() },
        Place { carrier: Carrier::Subprotocol, prefix: TICKET_PREFIX.into() },
    ];
    Ticket {
        path: spec.path.as_str().into(),
        ttl: ttl.unwrap_or(TTL),
        bind_address: spec.bind_address.unwrap_or(false),
        places,
    }
}

/// A path that is asked or answered as it stands, without query and without anything encoded.
fn path(path: &str, field: &str, diagnostics: &mut Diagnostics) {
    if !upgrade::check_path(path) || !upgrade::readings::is_plain(path) {
        let text =
            format_args!("{} must be a plain path such as /check, without query, dot segments and %", quote(path));
        diagnostics.invalid(format_args!("{field}.path"), text);
    }
}

fn jwt(spec: &api::Jwt, field: &str, diagnostics: &mut Diagnostics) -> Jwt {
    let field = format!("{field}.jwt");
    if spec.issuer.is_empty() {
        diagnostics.invalid(format_args!("{field}.issuer"), "must not be empty; write the iss claim of the tokens");
    }
    if spec.audiences.is_empty() || spec.audiences.iter().any(String::is_empty) {
        diagnostics.invalid(
            format_args!("{field}.audiences"),
            "must not be empty or have an empty entry; write the aud claim of the tokens",
        );
    }
    let places = match spec.extract_from.as_deref() {
        None => vec![Place { carrier: Carrier::Header("authorization".into()), prefix: "Bearer ".into() }],
        Some([]) => {
            diagnostics.invalid(
                format_args!("{field}.extractFrom"),
                "must not be empty; remove it for the Authorization header",
            );
            Vec::new()
        }
        Some(list) => places(list, &field, diagnostics),
    };
    let forward = spec.forward_credential.unwrap_or(false);
    let subprotocol = |place: &Place| matches!(place.carrier, Carrier::Subprotocol | Carrier::SubprotocolPair(_));
    if forward && places.iter().any(subprotocol) {
        let text =
            "a token in a subprotocol cannot be forwarded; remove forwardCredential or that entry of extractFrom";
        diagnostics.invalid(format_args!("{field}.forwardCredential"), text);
    }
    let required = spec.required_claims.iter().flatten();
    Jwt {
        issuer: spec.issuer.as_str().into(),
        audiences: spec.audiences.iter().map(|audience| audience.as_str().into()).collect(),
        keys: keys(&spec.jwks, &field, diagnostics),
        types: types(spec.types.as_deref(), &field, diagnostics),
        places,
        required: required
            .map(|claim| Required {
                name: claim.name.as_str().into(),
                contains: claim.contains.as_deref().map(Into::into),
            })
            .collect(),
        headers: headers(spec.claim_to_headers.as_deref().unwrap_or_default(), &field, diagnostics),
        skew: skew(spec, &field, diagnostics),
        forward,
        binds_key: spec.on_key_removal == Some(OnKeyRemoval::Close),
    }
}

fn types(list: Option<&[String]>, field: &str, diagnostics: &mut Diagnostics) -> Vec<Box<str>> {
    let list = list.unwrap_or_default();
    for (number, one) in list.iter().enumerate().filter(|(_, one)| !is_token(&plain_type(one))) {
        let text =
            format_args!("{} is not a type of tokens; write the typ of their header, such as at+jwt", quote(one));
        diagnostics.invalid(format_args!("{field}.types[{number}]"), text);
    }
    list.iter().map(|one| plain_type(one)).collect()
}

fn external(spec: &api::External, field: &str, diagnostics: &mut Diagnostics) -> External {
    let field = format!("{field}.external");
    let service = &spec.backend_ref;
    diagnostics.core_group(&service.group, format_args!("{field}.backendRef"));
    let port = u16::try_from(service.port).ok().filter(|port| *port > 0);
    if port.is_none() {
        diagnostics.invalid(format_args!("{field}.backendRef.port"), "must be from 1 to 65535");
    }
    path(&spec.path, &field, diagnostics);
    let mut headers: Vec<Box<str>> = Vec::new();
    let listed = spec.allowed_headers.as_deref().unwrap_or_default();
    if listed.is_empty() {
        let text = "must not be empty; list the headers that the service judges, such as cookie";
        diagnostics.invalid(format_args!("{field}.allowedHeaders"), text);
    }
    for (number, name) in listed.iter().enumerate() {
        let header = name.to_ascii_lowercase();
        let mut invalid = |why: &str| {
            diagnostics
                .invalid(format_args!("{field}.allowedHeaders[{number}]"), format_args!("{} {why}", quote(name)));
        };
        if !is_token(&header) {
            invalid("is not a header name (RFC 9110)");
        } else if upgrade::is_ours(&header) {
            invalid("is set by the protocol or the gateway, which always sends Origin; remove it");
        } else if headers.iter().any(|earlier| **earlier == *header) {
            invalid("is listed twice; remove one");
        }
        headers.push(header.into());
    }
    let mut answers: Vec<Box<str>> = Vec::new();
    for (number, name) in spec.allowed_response_headers.iter().flatten().enumerate() {
        let field = format_args!("{field}.allowedResponseHeaders[{number}]").to_string();
        answers.push(header(name, &field, answers.iter().map(|earlier| &**earlier), diagnostics).into());
    }
    let timeout = spec.timeout.as_ref().and_then(|timeout| {
        let field = format_args!("{field}.timeout");
        within(timeout, SHORTEST..=LONGEST, "must be from 10ms to 10s", field, diagnostics)
    });
    let recheck = spec.recheck.as_ref().and_then(|interval| {
        within(interval, RECHECK, "must be from 10s to 24h", format_args!("{field}.recheck"), diagnostics)
    });
    External {
        namespace: service.namespace.as_deref().map(Into::into),
        service: service.name.as_str().into(),
        port: port.unwrap_or(1),
        path: spec.path.as_str().into(),
        headers,
        answers,
        timeout: timeout.unwrap_or(EXTERNAL),
        recheck,
    }
}

/// The lower-case name of a header that says to the backend who the client is.
fn header<'a>(
    name: &str,
    field: &str,
    mut earlier: impl Iterator<Item = &'a str>,
    diagnostics: &mut Diagnostics,
) -> String {
    let header = name.to_ascii_lowercase();
    let mut invalid = |why: &dyn Display| diagnostics.invalid(field, format_args!("{} {why}", quote(name)));
    if !is_token(&header) {
        invalid(&"is not a header name (RFC 9110)");
    } else if header.contains('_') {
        invalid(&"must not have an underscore, because many backends read it as a hyphen; write a hyphen");
    } else if upgrade::is_ours(&header) || NO_CLAIM.contains(&&*header) {
        invalid(&"is reserved for the protocol, the gateway or credentials; choose another name");
    } else if earlier.any(|earlier| *earlier == *header) {
        invalid(&"is set twice; remove one");
    }
    header
}

fn skew(spec: &api::Jwt, field: &str, diagnostics: &mut Diagnostics) -> Duration {
    let Some(skew) = &spec.clock_skew else { return SKEW };
    match skew.parse() {
        Ok(skew) if skew <= MAX_SKEW => return skew,
        Ok(_) => {
            diagnostics.invalid(format_args!("{field}.clockSkew"), "must be at most 5m; correct the clocks instead")
        }
        Err(error) => diagnostics.invalid(format_args!("{field}.clockSkew"), error),
    }
    SKEW
}

fn places(list: &[ExtractFrom], field: &str, diagnostics: &mut Diagnostics) -> Vec<Place> {
    let mut places: Vec<Place> = Vec::with_capacity(list.len());
    for (number, one) in list.iter().enumerate() {
        let field = format_args!("{field}.extractFrom[{number}]").to_string();
        let name = one.name.as_deref();
        let carrier = match (one.kind, name) {
            (ExtractFromKind::Subprotocol, None) if one.value_prefix.as_deref().is_some_and(is_token) => {
                Carrier::Subprotocol
            }
            (ExtractFromKind::Subprotocol, Some(name)) if one.value_prefix.is_none() && is_token(name) => {
                Carrier::SubprotocolPair(name.into())
            }
            (ExtractFromKind::Subprotocol, _) => {
                let text = "type Subprotocol needs either a valuePrefix such as \"bearer.\", or the name of the \
                            subprotocol that stands before the token, such as Bearer";
                diagnostics.invalid(&field, text);
                continue;
            }
            (_, None) => {
                diagnostics.invalid(&field, "needs the name of the header, parameter or cookie");
                continue;
            }
            (_, Some(name)) if !is_token(name) => {
                diagnostics
                    .invalid(format_args!("{field}.name"), format_args!("{} is not a token (RFC 9110)", quote(name)));
                continue;
            }
            (ExtractFromKind::Header, Some(name)) => {
                let name = name.to_ascii_lowercase();
                if name == "cookie" || upgrade::is_ours(&name) {
                    let text =
                        format_args!("{} cannot carry a token; use another header, or type Cookie", quote(&name));
                    diagnostics.invalid(format_args!("{field}.name"), text);
                }
                Carrier::Header(name.into())
            }
            (ExtractFromKind::Query, Some(name)) => Carrier::Query(name.into()),
            (ExtractFromKind::Cookie, Some(name)) => Carrier::Cookie(name.into()),
        };
        let place = Place { carrier, prefix: one.value_prefix.as_deref().unwrap_or_default().into() };
        if places.iter().any(|earlier| earlier.carrier == place.carrier) {
            diagnostics.invalid(&field, "duplicates an earlier entry; remove one");
        }
        places.push(place);
    }
    places
}

fn headers(list: &[api::ClaimToHeader], field: &str, diagnostics: &mut Diagnostics) -> Vec<ClaimHeader> {
    let mut headers: Vec<ClaimHeader> = Vec::with_capacity(list.len());
    for (number, one) in list.iter().enumerate() {
        let field = format_args!("{field}.claimToHeaders[{number}].header").to_string();
        let header = header(&one.header, &field, headers.iter().map(|earlier| &*earlier.header), diagnostics);
        let required = one.required.unwrap_or(false);
        headers.push(ClaimHeader { claim: one.claim.as_str().into(), header: header.into(), required });
    }
    headers
}

fn keys(jwks: &Jwks, field: &str, diagnostics: &mut Diagnostics) -> KeySource {
    match (&jwks.local, &jwks.remote) {
        (Some(local), None) if jwks.kind == api::JwksKind::Local => {
            let reference = &local.reference;
            diagnostics.core_group(&reference.group, format_args!("{field}.jwks.local.ref"));
            KeySource::Local {
                namespace: reference.namespace.as_deref().map(Into::into),
                name: reference.name.as_str().into(),
                key: reference.key.as_str().into(),
                secret: reference.kind == KeyKind::Secret,
            }
        }
        (None, Some(remote)) if jwks.kind == api::JwksKind::Remote => {
            if let Err(why) = check_uri(&remote.uri) {
                diagnostics.invalid(format_args!("{field}.jwks.remote.uri"), why);
            }
            KeySource::Remote(remote.uri.as_str().into())
        }
        _ => {
            let text = "must have exactly the member that type names: local for Local, remote for Remote";
            diagnostics.invalid(format_args!("{field}.jwks"), text);
            KeySource::Remote("".into())
        }
    }
}

/// What the gateway can fetch. The messages do not repeat the URI: a mistaken one may hold a password.
fn check_uri(uri: &str) -> Result<(), &'static str> {
    let form = "must be an https URL such as https://idp.example.com/jwks";
    let uri: http::Uri = uri.parse().map_err(|_| form)?;
    if uri.scheme() != Some(&http::uri::Scheme::HTTPS) {
        return Err(form);
    }
    match uri.authority() {
        None => Err(form),
        Some(authority) if authority.as_str().contains('@') => Err("must not have a user name or password; remove it"),
        Some(authority) if authority.host().is_empty() => Err(form),
        Some(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_fetched_over_https_alone() {
        assert_eq!(check_uri("https://idp.example.com:8443/jwks?tenant=a"), Ok(()));
        for uri in [
            "http://idp.example.com/jwks",
            "file:///etc/passwd",
            "ftp://idp.example.com/jwks",
            "//idp.example.com/jwks",
            "idp.example.com",
            "https:///jwks",
            "https://ada:secret@idp.example.com/jwks",
            "https://ada@idp.example.com/jwks",
            "",
        ] {
            let problem = check_uri(uri).unwrap_err();
            assert!(!problem.contains("ada") && !problem.contains("secret"), "{uri}: {problem}");
        }
    }
}
