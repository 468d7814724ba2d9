//! Which Secrets and ConfigMaps a route names, wherever in its spec: a pure function, so that only those are kept.

use std::collections::BTreeSet;

use serde::Serialize;
use serde_json::Value;

use crate::api::objects::Key;
use crate::api::route::RouteSpec;

/// Objects by name.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct References {
    /// Secrets.
    pub(super) secrets: BTreeSet<Key>,
    /// ConfigMaps.
    pub(super) config_maps: BTreeSet<Key>,
}

/// What a route in the namespace `home` names.
///
/// Looks at every object of the spec that has a kind and a name, not at a list of fields: a reference that the API gains
/// later cannot be forgotten here. Whether the route may name them is for the compile to say.
pub(super) fn of_route(home: &str, spec: &RouteSpec) -> References {
    of(home, spec)
}

/// What a part of a spec names, for a route in the namespace `home`.
pub(super) fn of(home: &str, part: &impl Serialize) -> References {
    let mut references = References::default();
    walk(home, &serde_json::to_value(part).unwrap_or_default(), &mut references);
    references
}

fn walk(home: &str, value: &Value, references: &mut References) {
    match value {
        Value::Object(members) => {
            let text = |name: &str| members.get(name).and_then(Value::as_str);
            if let (Some(kind), Some(name)) = (text("kind"), text("name")) {
                let key = Key::new(text("namespace").unwrap_or(home), name);
                match kind {
                    "Secret" => drop(references.secrets.insert(key)),
                    "ConfigMap" => drop(references.config_maps.insert(key)),
                    _ => {}
                }
            }
            members.values().for_each(|member| walk(home, member, references));
        }
        Value::Array(items) => items.iter().for_each(|item| walk(home, item, references)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reference_of_a_spec_is_found_and_services_are_none() {
        let spec: RouteSpec = serde_saphyr::from_str(
            "hostnames: [a.example.com]
tls:
  certificateRefs: [{name: rsa}, {name: ecdsa, namespace: infra}]
  clientValidation: {caCertificateRefs: [{name: partners}], crlRefs: [{name: revoked}]}
rules:
- name: r
  backendRefs: [{name: service, port: 80}]
  backendTLS: {hostname: chat.svc, caCertificateRefs: [{name: mesh}]}
handshake:
  authentication:
    mode: AnyOf
    methods:
    - {name: a, type: JWT, jwt: {issuer: i, audiences: [x], jwks: {type: Local, local: {ref: {name: keys, key: k}}}}}
    - {name: b, type: JWT, jwt: {issuer: i, audiences: [x],
       jwks: {type: Local, local: {ref: {kind: Secret, name: symmetric, key: k}}}}}
messages:
  fromClient: {schemas: [{name: m, ref: {name: schema, key: k, namespace: other}}]}
",
        )
        .unwrap();
        let found = of_route("shop", &spec);
        let texts = |keys: &BTreeSet<Key>| keys.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(texts(&found.secrets), ["infra/ecdsa", "shop/rsa", "shop/symmetric"]);
        assert_eq!(
            texts(&found.config_maps),
            ["other/schema", "shop/keys", "shop/mesh", "shop/partners", "shop/revoked"]
        );
    }
}
