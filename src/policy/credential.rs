//! Credentials of a request: found once, never guessed. Two that could count are refused, so that gateway and backend
//! cannot take different ones. Cookies of one name are the exception: a browser sends those of a parent domain beside
//! those of the host (RFC 6265 §5.4), and no page can hold it back.

use std::fmt;

use crate::policy::authentication::{Authentication, Carrier, External};
use crate::reason::Reason;
use crate::ws::upgrade::Request;

/// The most cookies of one name that are verified for one handshake.
pub const MAX_COOKIES: usize = 4;

/// A credential as it was presented, and who may take it.
pub struct Credential {
    carrier: Carrier,
    raw: Box<[u8]>,
    /// Places of methods whose carrier it is and whose prefix it has, with the length of the prefix.
    takers: Vec<(usize, usize)>,
}

impl fmt::Debug for Credential {
    /// Never its value.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential").field("carrier", &self.carrier).finish_non_exhaustive()
    }
}

/// What a request presents.
#[derive(Debug, Default)]
pub struct Presented {
    /// The one credential; or cookies of one name, at most [`MAX_COOKIES`], of which exactly one must be valid.
    pub credentials: Vec<Credential>,
    /// There is more than that.
    pub ambiguous: bool,
    /// A subprotocol was a credential and is no longer among those that are offered.
    pub by_subprotocol: bool,
    /// The subprotocol that stood before a credential: an offer that can be answered without saying anything of it.
    pub answer: Option<Box<str>>,
}

impl Credential {
    /// The methods that may take it, each with the credential less what stands before it for this method.
    pub fn takers(&self) -> impl Iterator<Item = (usize, &[u8])> {
        let text = unquoted(&self.carrier, &self.raw);
        self.takers.iter().map(|(method, prefix)| (*method, text.get(*prefix..).unwrap_or_default()))
    }

    /// Sees to it that the backend gets it, also where a header of its name would otherwise stay here.
    pub fn keep(&self, request: &mut Request) {
        let (name, value) = match &self.carrier {
            Carrier::Header(name) => (&**name, self.raw.clone()),
            Carrier::Cookie(name) => ("cookie", [name.as_bytes(), b"=", &self.raw].concat().into()),
            Carrier::Query(_) | Carrier::Subprotocol | Carrier::SubprotocolPair(_) => return,
        };
        if !request.headers.iter().any(|(field, _)| **field == *name) {
            request.headers.push((name.into(), value));
        }
    }
}

/// Takes every carrier that a method of the route names out of a request, in every spelling that a backend could read as
/// it, whether there was a credential in it or not: the backend gets nothing there that was not verified. `kept` is the
/// verified credential, where the backend is to get it.
pub fn cleanse(authentication: &Authentication, kept: Option<&Credential>, request: &mut Request) {
    for (carrier, _) in carriers(authentication) {
        let kept = kept.filter(|kept| kept.carrier == *carrier);
        match carrier {
            // The verified one is the only header of its name, or there would be two credentials.
            Carrier::Header(name) if kept.is_none() => request.headers.retain(|(field, _)| field != name),
            Carrier::Header(_) => {}
            Carrier::Query(name) => {
                let Some(query) = request.query.take() else { continue };
                let stays = |parameter: &&str| match kept {
                    Some(kept) if named(parameter) == **name => value(parameter) == kept.raw,
                    _ => !is_read_as(parameter, name),
                };
                let left: Vec<&str> = query.split('&').filter(stays).collect();
                if !left.is_empty() {
                    request.query = Some(left.join("&").into());
                }
            }
            Carrier::Cookie(name) => {
                let stays = |pair: &&[u8]| match (kept, split(pair)) {
                    (Some(kept), (own, raw)) if own == name.as_bytes() => *raw == *kept.raw,
                    // Readers of the older RFC 2109 §4.3.2 take a comma for a semicolon.
                    _ => {
                        !pair.split(|byte| *byte == b',').any(|one| split(one).0.eq_ignore_ascii_case(name.as_bytes()))
                    }
                };
                for (_, cookies) in request.headers.iter_mut().filter(|(field, _)| **field == *"cookie") {
                    let pairs = cookies.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
                    let left: Vec<&[u8]> = pairs.filter(|pair| !pair.is_empty()).filter(stays).collect();
                    *cookies = left.join(&b"; "[..]).into();
                }
                request.headers.retain(|(field, value)| **field != *"cookie" || !value.is_empty());
            }
            // They left the list of offers when they were taken.
            Carrier::Subprotocol | Carrier::SubprotocolPair(_) => {}
        }
    }
}

/// Whether some backend reads a parameter of the query as the one of this name: without regard to case (ASP.NET), after a
/// semicolon (the older advice of HTML 4.01 appendix B.2.2), as a list (`name[]`), or with spaces around.
fn is_read_as(parameter: &str, name: &str) -> bool {
    parameter.split(';').any(|part| {
        let own = named(part);
        own.split(['[', '\0']).next().unwrap_or_default().trim().eq_ignore_ascii_case(name)
    })
}

/// Finds the credential of a request. Subprotocols that carry one leave the request at once, whatever becomes of them:
/// they are never offered, answered, forwarded or kept.
pub fn take(authentication: &Authentication, request: &mut Request) -> Presented {
    let mut found: Vec<Credential> = Vec::new();
    let mut ambiguous = false;
    let mut answer = None;
    for (carrier, takers) in carriers(authentication) {
        let values: Vec<Box<[u8]>> = match carrier {
            Carrier::Header(name) => fields(request, name).map(Into::into).collect(),
            Carrier::Query(name) => {
                let query = request.query.as_deref().unwrap_or_default();
                query.split('&').filter(|parameter| named(parameter) == **name).map(value).collect()
            }
            Carrier::Cookie(name) => fields(request, "cookie")
                .flat_map(|cookies| cookies.split(|byte| *byte == b';'))
                .map(split)
                .filter(|(cookie, _)| *cookie == name.as_bytes())
                .map(|(_, value)| value.into())
                .collect(),
            Carrier::Subprotocol => {
                // One that has the prefix in another case is no credential, and no offer either.
                let marked = |offer: &str| {
                    takers.iter().any(|(_, prefix)| {
                        offer.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
                    })
                };
                let (tokens, others): (Vec<_>, Vec<_>) =
                    request.subprotocols.iter().cloned().partition(|offer| marked(offer));
                request.subprotocols = others.into();
                let token = |offer: &str| takers.iter().any(|(_, prefix)| offer.starts_with(*prefix));
                tokens.into_iter().filter(|offer| token(offer)).map(|offer| offer.into_boxed_bytes()).collect()
            }
            Carrier::SubprotocolPair(name) => {
                let (mut tokens, mut others) = (Vec::new(), Vec::new());
                let mut offers = request.subprotocols.iter();
                while let Some(offer) = offers.next() {
                    if !offer.eq_ignore_ascii_case(name) {
                        others.push(offer.clone());
                    } else if let Some(token) = offers.next() {
                        tokens.push(token.as_bytes().into());
                        answer = Some(offer.clone());
                    }
                }
                request.subprotocols = others.into();
                tokens
            }
        };
        let most = if matches!(carrier, Carrier::Cookie(_)) { MAX_COOKIES } else { 1 };
        let several = values.len() > most;
        for raw in values {
            // Authentication schemes are compared without case (RFC 9110 §11.1).
            let starts = |prefix: &str| match carrier {
                Carrier::Header(_) => {
                    raw.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix.as_bytes()))
                }
                _ => unquoted(carrier, &raw).starts_with(prefix.as_bytes()),
            };
            let takers: Vec<(usize, usize)> = takers
                .iter()
                .filter(|(_, prefix)| starts(prefix))
                .map(|(method, prefix)| (*method, prefix.len()))
                .collect();
            if !takers.is_empty() {
                ambiguous |= several;
                found.push(Credential { carrier: carrier.clone(), raw, takers });
            }
        }
    }
    let one_name = |first: &Credential| {
        matches!(first.carrier, Carrier::Cookie(_)) && found.iter().all(|other| other.carrier == first.carrier)
    };
    ambiguous |= found.len() > 1 && !found.first().is_some_and(one_name);
    let by_subprotocol =
        found.iter().any(|credential| matches!(credential.carrier, Carrier::Subprotocol | Carrier::SubprotocolPair(_)));
    let credentials = if ambiguous { Vec::new() } else { found };
    Presented { credentials, ambiguous, by_subprotocol, answer }
}

impl Presented {
    /// The credentials of which exactly one must be valid: one, or cookies of one name.
    ///
    /// # Errors
    /// [`Reason::CredentialMissing`] or [`Reason::CredentialAmbiguous`].
    pub fn candidates(&self) -> Result<&[Credential], Reason> {
        match &self.credentials[..] {
            _ if self.ambiguous => Err(Reason::CredentialAmbiguous),
            [] => Err(Reason::CredentialMissing),
            candidates => Ok(candidates),
        }
    }
}

/// Headers by their lower-case names.
pub type Shown<'a> = Vec<(Box<str>, &'a [u8])>;

/// What a service is asked with: the headers that it gets, and none of them twice.
///
/// # Errors
/// [`Reason::CredentialMissing`] where the handshake has none of them, [`Reason::CredentialAmbiguous`] where it has one
/// twice, or two cookies of one name: the service and the backend could read different ones.
pub fn shown<'a>(external: &External, request: &'a Request) -> Result<Shown<'a>, Reason> {
    let mut shown = Vec::new();
    for name in &external.headers {
        let values: Vec<&[u8]> = fields(request, name).collect();
        match values[..] {
            [] => {}
            [value] => shown.push((name.clone(), value)),
            _ => return Err(Reason::CredentialAmbiguous),
        }
    }
    if let Some((_, cookies)) = shown.iter().find(|(name, _)| **name == *"cookie") {
        let pairs = cookies.split(|byte| *byte == b';').filter(|pair| !pair.trim_ascii().is_empty());
        let mut names: Vec<&[u8]> = pairs.map(|pair| split(pair).0).collect();
        names.sort_unstable();
        if names.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(Reason::CredentialAmbiguous);
        }
    }
    if shown.is_empty() { Err(Reason::CredentialMissing) } else { Ok(shown) }
}

/// Every carrier once, with the methods that look there and their prefixes.
fn carriers(authentication: &Authentication) -> Vec<(&Carrier, Vec<(usize, &str)>)> {
    let mut carriers: Vec<(&Carrier, Vec<(usize, &str)>)> = Vec::new();
    for (index, method) in authentication.methods().iter().enumerate() {
        for place in method.kind.places() {
            let taker = (index, &*place.prefix);
            match carriers.iter_mut().find(|(carrier, _)| **carrier == place.carrier) {
                Some((_, takers)) => takers.push(taker),
                None => carriers.push((&place.carrier, vec![taker])),
            }
        }
    }
    carriers
}

/// Every value of a field, whether it may go on or not.
fn fields<'a>(request: &'a Request, name: &str) -> impl Iterator<Item = &'a [u8]> {
    let all = request.headers.iter().chain(&request.withheld);
    all.filter(move |(field, _)| **field == *name).map(|(_, value)| &**value)
}

/// Name and value of a cookie pair (RFC 6265 §5.2, step by step as browsers and servers do: white space around both is
/// none of theirs).
fn split(pair: &[u8]) -> (&[u8], &[u8]) {
    match pair.iter().position(|byte| *byte == b'=') {
        Some(at) => (pair[..at].trim_ascii(), pair[at + 1..].trim_ascii()),
        // RFC 6265bis: a pair without `=` is a value without name.
        None => (b"", pair.trim_ascii()),
    }
}

/// A credential without the quotes that a cookie may have around its value (RFC 6265 §4.1.1): no token has any.
fn unquoted<'a>(carrier: &Carrier, raw: &'a [u8]) -> &'a [u8] {
    let inner = raw.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\""));
    inner.filter(|_| matches!(carrier, Carrier::Cookie(_))).unwrap_or(raw)
}

/// The name of a query parameter, decoded as `application/x-www-form-urlencoded` is, so that no other spelling of it
/// reaches the backend beside ours.
fn named(parameter: &str) -> String {
    let name = parameter.split('=').next().unwrap_or_default().as_bytes();
    let mut decoded = Vec::with_capacity(name.len());
    let mut at = 0;
    while let Some(&byte) = name.get(at) {
        let digits = name.get(at + 1..at + 3).and_then(|digits| std::str::from_utf8(digits).ok());
        let escaped = digits.filter(|digits| !digits.starts_with('+')).and_then(|d| u8::from_str_radix(d, 16).ok());
        match (byte, escaped) {
            (b'%', Some(escaped)) => {
                decoded.push(escaped);
                at += 2;
            }
            (b'+', _) => decoded.push(b' '),
            (byte, _) => decoded.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

/// The value of a query parameter as it stands: a token needs no escapes, so one that has them is none.
fn value(parameter: &str) -> Box<[u8]> {
    parameter.split_once('=').map_or("", |(_, value)| value).as_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::authentication::tests::{any_of, jwt};
    use crate::policy::authentication::{Jwt, Place};
    use crate::ws::upgrade::{MAX_HEAD, parse_request};

    fn request(target: &str, fields: &[&str]) -> Request {
        let mut text =
            format!("GET {target} HTTP/1.1\r\nHost: a.test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n");
        text += "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n";
        for field in fields {
            text += &format!("{field}\r\n");
        }
        parse_request(format!("{text}\r\n").as_bytes(), MAX_HEAD).unwrap().unwrap().0
    }

    fn everywhere() -> Jwt {
        let place = |carrier, prefix: &str| Place { carrier, prefix: prefix.into() };
        Jwt {
            places: vec![
                place(Carrier::Header("authorization".into()), "Bearer "),
                place(Carrier::Header("x-id-token".into()), ""),
                place(Carrier::Query("token".into()), ""),
                place(Carrier::Cookie("session".into()), ""),
                place(Carrier::Subprotocol, "bearer."),
            ],
            ..jwt("https://idp.test")
        }
    }

    fn one(presented: &Presented) -> Result<&Credential, Reason> {
        let candidates = presented.candidates()?;
        assert_eq!(candidates.len(), 1);
        Ok(&candidates[0])
    }

    fn taken(target: &str, fields: &[&str]) -> (Presented, Request) {
        let mut request = request(target, fields);
        let presented = take(&any_of(vec![("idp", everywhere())]), &mut request);
        (presented, request)
    }

    /// The credential's value and the request for the backend.
    fn stripped(target: &str, fields: &[&str]) -> (String, Request) {
        let (presented, mut request) = taken(target, fields);
        let credential = one(&presented).unwrap();
        let (_, token) = credential.takers().next().unwrap();
        let token = String::from_utf8(token.to_vec()).unwrap();
        cleanse(&any_of(vec![("idp", everywhere())]), None, &mut request);
        (token, request)
    }

    fn cookie(request: &Request) -> Option<String> {
        let (_, value) = request.headers.iter().find(|(name, _)| **name == *"cookie")?;
        Some(String::from_utf8(value.to_vec()).unwrap())
    }

    #[test]
    fn a_credential_is_found_in_its_place_and_taken_out_whole() {
        let (token, request) = stripped("/", &["Authorization: bearer T", "User-Agent: x"]);
        assert_eq!((token.as_str(), request.headers.len()), ("T", 1));
        assert_eq!(stripped("/", &["X-ID-Token: T"]).0, "T");
        for (target, left) in [
            ("/?token=T", None),
            ("/?a=1&token=T&b=2", Some("a=1&b=2")),
            ("/?to%6ben=T&&", Some("&")),
            ("/?%74oken=T&x", Some("x")),
        ] {
            let (token, request) = stripped(target, &[]);
            assert_eq!((token.as_str(), request.query.as_deref()), ("T", left), "{target}");
        }
        for (line, left) in [
            ("Cookie: session=T", None),
            ("Cookie: a=1; session=T; b=2", Some("a=1; b=2")),
            ("Cookie: session = T ;a=1", Some("a=1")),
            ("Cookie: Session=x; session=T; sessions=y", Some("sessions=y")),
            ("Cookie: a=1; session=\"T\"", Some("a=1")),
        ] {
            let (token, request) = stripped("/", &[line]);
            assert_eq!((token.as_str(), cookie(&request).as_deref()), ("T", left), "{line}");
        }
        let (token, request) = stripped("/", &["Sec-WebSocket-Protocol: chat.v2, bearer.T, other"]);
        assert_eq!(token, "T");
        assert_eq!(*request.subprotocols, [Box::<str>::from("chat.v2"), Box::from("other")]);
    }

    #[test]
    fn two_credentials_are_refused_wherever_they_are() {
        for (target, fields) in [
            ("/", &["Authorization: Bearer T", "Authorization: Bearer T"][..]),
            ("/", &["Authorization: Basic x", "Authorization: Bearer T"]),
            ("/?token=T", &["Authorization: Bearer T"]),
            ("/?token=T&token=T", &[]),
            ("/?token=T&t%6Fken=x", &[]),
            ("/?token=T&token", &[]),
            ("/", &["Cookie: session=1; session=2; session=3; session=4; session=5"]),
            ("/", &["Cookie: session=T; session=U", "X-Id-Token: T"]),
            ("/", &["Cookie: session=T", "Authorization: Bearer T"]),
            ("/", &["Sec-WebSocket-Protocol: bearer.T, bearer.U"]),
            ("/", &["Sec-WebSocket-Protocol: bearer.T", "X-Id-Token: T"]),
        ] {
            let (presented, request) = taken(target, fields);
            assert_eq!(one(&presented).err(), Some(Reason::CredentialAmbiguous), "{target} {fields:?}");
            assert!(request.subprotocols.is_empty());
        }
    }

    #[test]
    fn cookies_of_one_name_are_candidates_and_only_one_of_them_goes_on() {
        let route = any_of(vec![("idp", everywhere())]);
        for fields in [&["Cookie: session=T; session=U; a=1"][..], &["Cookie: session=T", "Cookie: a=1; session=U"]] {
            let (presented, request) = taken("/", fields);
            let candidates = presented.candidates().unwrap();
            let raw: Vec<_> = candidates.iter().map(|one| one.takers().next().unwrap().1).collect();
            assert_eq!(raw, [b"T", b"U"], "{fields:?}");
            for (kept, left) in [(None, "a=1"), (candidates.last(), "session=U")] {
                let mut request = request.clone();
                cleanse(&route, kept, &mut request);
                let lines = request.headers.iter().filter(|(name, _)| **name == *"cookie");
                let left_over: Vec<_> = lines.map(|(_, value)| String::from_utf8_lossy(value).into_owned()).collect();
                let left_over = left_over.join("; ");
                assert!(left_over.contains(left) && !left_over.contains("=T"), "{fields:?}: {left_over}");
                assert_eq!(left_over.contains("=U"), kept.is_some(), "{fields:?}: {left_over}");
            }
        }
        let values = ["T"; MAX_COOKIES].map(|value| format!("session={value}")).join("; ");
        assert_eq!(taken("/", &[&format!("Cookie: {values}")]).0.candidates().unwrap().len(), MAX_COOKIES);
    }

    #[test]
    fn what_is_no_credential_of_a_method_is_left_alone() {
        for (target, fields) in [
            ("/", &[][..]),
            ("/?Token=T&x=token", &["Authorization: Basic dTpw", "Cookie: Session=x; a=session=T"]),
            ("/", &["Sec-WebSocket-Protocol: chat, bearer"]),
        ] {
            let (presented, request) = taken(target, fields);
            assert_eq!(one(&presented).err(), Some(Reason::CredentialMissing), "{target} {fields:?}");
            assert_eq!(request, self::request(target, fields));
        }
    }

    #[test]
    fn a_carrier_that_holds_no_verified_credential_never_goes_on() {
        for forged in [
            "Authorization: Bearer\tforged",
            "Authorization: Basic forged",
            "Authorization: forged",
            "Authorization: \"Bearer forged\"",
            "Authorization: Bearer",
            "Authorization: BearerX forged",
            "Cookie: Session=forged",
            "Cookie: a=1,session=forged",
            "Cookie: a=1, SESSION = forged",
        ] {
            let (token, request) = stripped("/?token=T", &[forged, "Cookie: b=2"]);
            assert_eq!((token.as_str(), request.headers.len()), ("T", 1), "{forged}");
            assert_eq!(cookie(&request).as_deref(), Some("b=2"), "{forged}");
        }
        for forged in [
            "Token=forged",
            "x;token=forged",
            "token[]=forged",
            "+token=forged",
            "%54oken=f",
            "token%00=f",
            "x=1;TOKEN",
        ] {
            let (token, request) = stripped(&format!("/?a=1&{forged}"), &["Authorization: Bearer T"]);
            assert_eq!((token.as_str(), request.query.as_deref()), ("T", Some("a=1")), "{forged}");
        }
        let (_, request) = stripped("/?token=T", &["Sec-WebSocket-Protocol: chat, Bearer.forged"]);
        assert_eq!(*request.subprotocols, [Box::<str>::from("chat")]);
    }

    #[test]
    fn a_credential_that_is_kept_is_the_only_one_in_its_carrier() {
        let route = any_of(vec![("idp", everywhere())]);
        for (target, field, query, left) in [
            ("/?token=T&Token=x&a=1", "X: y", Some("token=T&a=1"), None),
            ("/?Token=x", "Cookie: Session=x; session=T; a=1", None, Some("session=T; a=1")),
        ] {
            let (presented, mut request) = taken(target, &[field, "Authorization: Basic x"]);
            let credential = one(&presented).unwrap();
            cleanse(&route, Some(credential), &mut request);
            credential.keep(&mut request);
            assert_eq!((request.query.as_deref(), cookie(&request).as_deref()), (query, left), "{target} {field}");
            assert!(request.headers.iter().all(|(name, _)| **name != *"authorization"), "{target} {field}");
        }
    }

    #[test]
    fn a_pair_of_subprotocols_is_a_name_and_its_credential() {
        let pair = Jwt {
            places: vec![Place { carrier: Carrier::SubprotocolPair("Bearer".into()), prefix: "".into() }],
            ..jwt("https://idp.test")
        };
        let route = any_of(vec![("idp", pair)]);
        let take = |offers: &str| {
            let mut request = request("/", &[&format!("Sec-WebSocket-Protocol: {offers}")]);
            let presented = take(&route, &mut request);
            let token = one(&presented).map(|one| one.takers().next().map(|(_, raw)| raw.to_vec()).unwrap());
            (token, request.subprotocols.join(" "), presented.answer)
        };
        let bearer = Some(Box::<str>::from("Bearer"));
        assert_eq!(take("Bearer, T"), (Ok(b"T".to_vec()), String::new(), bearer.clone()));
        assert_eq!(take("chat, Bearer, T, v2"), (Ok(b"T".to_vec()), "chat v2".to_owned(), bearer.clone()));
        assert_eq!(take("chat, Bearer").0, Err(Reason::CredentialMissing));
        assert_eq!(take("T, chat"), (Err(Reason::CredentialMissing), "T chat".to_owned(), None));
        assert_eq!(take("Bearer, T, bearer, U").0, Err(Reason::CredentialAmbiguous));
    }

    #[test]
    fn methods_share_a_place_and_each_sees_its_own_prefix() {
        let second = |prefix: &str| Jwt {
            places: vec![Place { carrier: Carrier::Header("authorization".into()), prefix: prefix.into() }],
            ..jwt("https://other.test")
        };
        let both = any_of(vec![("a", jwt("https://idp.test")), ("b", second("Bearer ")), ("c", second("Token "))]);
        let mut request = request("/", &["Authorization: Bearer T"]);
        let presented = take(&both, &mut request);
        let takers: Vec<_> = one(&presented).unwrap().takers().collect();
        assert_eq!(takers, [(0, &b"T"[..]), (1, &b"T"[..])]);
        assert!(!format!("{presented:?}").contains("T\""));
    }
}
