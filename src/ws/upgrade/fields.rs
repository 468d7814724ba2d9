//! Which fields of the client go on to the backend: end-to-end ones that say nothing about who the client is or how it
//! came. All that does is the gateway's to say.

/// Hop-by-hop fields (RFC 9110 §7.6.1), those that the gateway writes itself, and those that have no meaning without a
/// body. `proxy` alone is no field of HTTP, but CGI backends turn it into `HTTP_PROXY`.
const OURS: &[&str] = &[
    "cdn-loop",
    "connection",
    "expect",
    "forwarded",
    "host",
    "http2-settings",
    "keep-alive",
    "origin",
    "proxy",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Families of the same.
const OUR_FAMILIES: &[&str] = &["content-", "proxy-", "sec-websocket-", "x-forwarded-", "x-wssgate-"];

/// Fields that backends and other proxies believe when they ask who the client is, how it came or what it wanted.
const CLAIMS: &[&str] = &[
    "cf-connecting-ip",
    "cf-connecting-ipv6",
    "cf-pseudo-ipv4",
    "fastly-client-ip",
    "front-end-https",
    "true-client-ip",
    "x-azure-clientip",
    "x-azure-socketip",
    "x-client-dn",
    "x-client-ip",
    "x-cluster-client-ip",
    "x-forwarded",
    "x-host",
    "x-http-host-override",
    "x-http-method",
    "x-http-method-override",
    "x-id-token",
    "x-method-override",
    "x-originating-ip",
    "x-real-ip",
    "x-real-port",
    "x-rewrite-url",
    "x-scheme",
    "x-url-scheme",
    "x-user",
];

/// Families of the same.
const CLAIM_FAMILIES: &[&str] = &[
    "cf-access-",
    "client-cert",
    "impersonate-",
    "remote-",
    "ssl-client-",
    "tailscale-",
    "tls-client-",
    "x-accel-",
    "x-amzn-mtls-",
    "x-amzn-oidc-",
    "x-arr-clientcert",
    "x-auth-",
    "x-authenticated-",
    "x-authentik-",
    "x-client-cert",
    "x-client-s-dn",
    "x-client-spiffe",
    "x-client-subject",
    "x-client-verify",
    "x-consumer-",
    "x-envoy-",
    "x-goog-authenticated-",
    "x-goog-iap-",
    "x-jwt-",
    "x-middleware-",
    "x-ms-client-principal",
    "x-original-",
    "x-pomerium-",
    "x-remote-",
    "x-spiffe-",
    "x-ssl-",
    "x-tls-",
    "x-user-",
    "x-webauth-",
];

/// Whether a field is the protocol's or the gateway's own, so that nobody else may read or set it. `name` is lower case.
pub fn is_ours(name: &str) -> bool {
    OURS.contains(&name) || OUR_FAMILIES.iter().any(|family| name.starts_with(family))
}

/// Families of fields that the gateway writes for the backend, beside `x-real-ip`: no route lets those of a client pass.
const WRITTEN_FAMILIES: &[&str] = &["client-cert", "x-forwarded"];

/// Whether no route may let a field of the client pass: it is the protocol's, or the gateway writes it. `name` is lower case.
pub fn never_passes(name: &str) -> bool {
    is_ours(name) || name == "x-real-ip" || WRITTEN_FAMILIES.iter().any(|family| name.starts_with(family))
}

/// The end-to-end fields that stay here unless a route lets them pass: names, and families whose names begin so, with a star.
pub fn withheld() -> impl Iterator<Item = String> {
    let names = CLAIMS.iter().map(ToString::to_string);
    let families = CLAIM_FAMILIES.iter().map(|family| format!("{family}*"));
    names.chain(families).filter(|name| !never_passes(name.trim_end_matches('*')))
}

/// Whether a field of the client goes on. `name` is lower case.
pub(super) fn goes_on(name: &str) -> bool {
    // Many backends read `_`, and some any other mark, as `-` (CGI's variables), so `x_auth_user` would arrive as
    // `x-auth-user`. Without them the lists below need no second spelling, and other names that alias ours are covered too.
    name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !is_ours(name)
        && !CLAIMS.contains(&name)
        && !CLAIM_FAMILIES.iter().any(|family| name.starts_with(family))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_client_says_about_itself_or_the_connection_stays_here() {
        for name in [
            "connection",
            "keep-alive",
            "te",
            "proxy-authorization",
            "content-type",
            "sec-websocket-extensions",
            "sec-websocket-foo",
            "forwarded",
            "x-forwarded-for",
            "x-forwarded-client-cert",
            "x-forwarded-prefix",
            "x_forwarded_for",
            "x-real-ip",
            "x_real_ip",
            "x-auth-user",
            "x_auth_user",
            "x-auth_user",
            "client-cert",
            "client-cert-chain",
            "x-original-url",
            "x-envoy-original-path",
            "x-user",
            "x-remote-user",
            "harmless_name",
            "x.auth.user",
            "x-auth!user",
            "remote-groups",
            "x-authentik-username",
            "cf-access-jwt-assertion",
            "x-pomerium-claim-email",
            "tailscale-user-login",
        ] {
            assert!(!goes_on(name), "{name}");
        }
        for name in
            ["cookie", "authorization", "user-agent", "accept-language", "sec-fetch-site", "traceparent", "x-tenant"]
        {
            assert!(goes_on(name), "{name}");
        }
    }
}
