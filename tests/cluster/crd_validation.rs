//! What the API server itself refuses of a route, and in which words: a bad route never reaches a gateway.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use wssgate::api::crd;

use super::Test;
use super::clusters::Clusters;
use super::harness::manifests::merge;

/// A route that uses every field.
pub const COMPLETE: &str = include_str!("complete.yaml");

/// A change of the complete route, as a JSON merge patch of its spec, and words of the refusal.
type Bad = (Value, &'static str);

fn bad() -> Vec<Bad> {
    let rule = |change: Value| {
        let mut rule = json!({"name": "chat", "backendRefs": [{"name": "chat", "port": 8080}]});
        merge(&mut rule, &change);
        json!({"rules": [rule]})
    };
    let path = |value: &str| rule(json!({"matches": [{"path": {"value": value}}]}));
    let method = |method: Value| json!({"handshake": {"authentication": {"methods": [method]}}});
    let jwt = |change: Value| {
        let mut method = json!({"name": "idp", "type": "JWT", "jwt": {"issuer": "https://idp.example.com",
            "audiences": ["chat"], "jwks": {"type": "Remote", "remote": {"uri": "https://idp.example.com/jwks"}}}});
        merge(&mut method["jwt"], &change);
        json!({"handshake": {"authentication": {"methods": [method]}}})
    };
    let ticket = |name: &str, ttl: &str| json!({"name": name, "type": "Ticket", "ticket": {"path": "/t", "ttl": ttl}});
    let idp = jwt(json!({}))["handshake"]["authentication"]["methods"][0].clone();
    let methods = |methods: Value| json!({"handshake": {"authentication": {"methods": methods}}});
    let origins = |allow: Value| json!({"allow": allow, "missing": null});
    vec![
        // Hosts and TLS.
        (json!({"hostnames": ["203.0.113.7"]}), "hostnames are names, not addresses"),
        (json!({"hostnames": ["a.example.com", "a.example.com"]}), "Duplicate value"),
        (json!({"hostnames": ["*.*.example.com"]}), "should match"),
        (json!({"hostnames": []}), "should have at least 1 items"),
        (json!({"hostnames": null}), "spec.hostnames: Required value"),
        (
            json!({"tls": {"certificateRefs": [{"name": "a"}, {"name": "b"}]}}),
            "issuerRef writes the certificate to exactly one Secret of the route's own namespace",
        ),
        (json!({"tls": {"certificateRefs": null}}), "give one certificateRefs entry without namespace"),
        (
            json!({"tls": {"certificateRefs": [{"name": "a", "namespace": "other"}]}}),
            "give one certificateRefs entry without namespace",
        ),
        (json!({"tls": {"minVersion": "1.1"}}), "supported values: \"1.2\", \"1.3\""),
        (json!({"tls": {"certificateRefs": [{"name": "a", "kind": "ConfigMap"}]}}), "supported values: \"Secret\""),
        // Rules.
        (path("chat"), "a path starts with /"),
        (path("/a//b"), "a path has no empty and no dot segments: remove //, /. and /.."),
        (path("/a/./b"), "a path has no empty and no dot segments"),
        (path("/a/../b"), "a path has no empty and no dot segments"),
        (path("/a/.."), "a path has no empty and no dot segments"),
        (path("/a/."), "a path has no empty and no dot segments"),
        (
            path("/a%2fb"),
            "a path has no #, ? or %: query and fragment are never matched, and encoded paths are refused",
        ),
        (path("/a?b"), "a path has no #, ? or %"),
        (path("/a#b"), "a path has no #, ? or %"),
        (
            rule(json!({"loadBalancer": {"type": "ConsistentHash"}})),
            "consistentHash belongs to type ConsistentHash: set both or neither",
        ),
        (
            rule(json!({"loadBalancer": {"type": "RoundRobin", "consistentHash": {"type": "SourceIP"}}})),
            "consistentHash belongs to type ConsistentHash: set both or neither",
        ),
        (
            rule(json!({"loadBalancer": {"type": "ConsistentHash", "consistentHash": {"type": "Cookie"}}})),
            "name is the name of the cookie or header: set it for Cookie and Header, leave it out for SourceIP",
        ),
        (
            rule(
                json!({"loadBalancer": {"type": "ConsistentHash", "consistentHash": {"type": "SourceIP", "name": "a"}}}),
            ),
            "name is the name of the cookie or header",
        ),
        (
            rule(json!({"backendTLS": {"hostname": "chat.shop.svc"}})),
            "set either caCertificateRefs (with at least one entry) or wellKnownCACertificates: System",
        ),
        (
            rule(json!({"backendTLS": {"hostname": "chat.shop.svc", "caCertificateRefs": []}})),
            "set either caCertificateRefs (with at least one entry) or wellKnownCACertificates: System",
        ),
        (
            rule(json!({"backendTLS": {"hostname": "chat.shop.svc", "caCertificateRefs": [{"name": "ca"}],
                "wellKnownCACertificates": "System"}})),
            "set either caCertificateRefs (with at least one entry) or wellKnownCACertificates: System",
        ),
        (
            rule(json!({"backendTLS": {"hostname": "*.shop.svc", "wellKnownCACertificates": "System"}})),
            "hostname is one name, without a star",
        ),
        (rule(json!({"backendRefs": [{"name": "chat", "kind": "Pod", "port": 1}]})), "supported values: \"Service\""),
        (rule(json!({"backendRefs": [{"name": "chat", "port": 65536}]})), "less than or equal to 65535"),
        (rule(json!({"backendRefs": []})), "should have at least 1 items"),
        // The handshake.
        (json!({"handshake": {"authentication": null}}), "spec.handshake.authentication: Required value"),
        (json!({"handshake": null}), "spec.handshake: Required value"),
        (
            json!({"handshake": {"authentication": {"methods": null}}}),
            "methods belong to mode AnyOf: give at least one, or write mode: Anonymous without methods",
        ),
        (
            json!({"handshake": {"authentication": {"mode": "Anonymous"}}}),
            "methods belong to mode AnyOf: give at least one, or write mode: Anonymous without methods",
        ),
        (
            methods(json!([ticket("one", "30s")])),
            "a ticket is issued for the credential of another method: add a method of type JWT or External",
        ),
        (
            methods(json!([idp, ticket("one", "30s"), ticket("two", "30s")])),
            "a route can have one method of type Ticket: remove the others",
        ),
        (methods(json!([idp, ticket("one", "61s")])), "ttl is between 1s and 60s"),
        (methods(json!([idp, ticket("one", "900ms")])), "ttl is between 1s and 60s"),
        (
            methods(json!([{"name": "s", "type": "External", "external": {"backendRef": {"name": "s", "port": 80},
                "path": "/check", "allowedHeaders": ["x-session"], "recheck": "9s"}}])),
            "recheck is between 10s and 24h",
        ),
        (methods(json!([idp, idp])), "Duplicate value"),
        (
            method(json!({"name": "idp", "type": "JWT"})),
            "set exactly the member that type names: jwt for JWT, external for External, ticket for Ticket",
        ),
        (
            method(json!({"name": "idp", "type": "External", "jwt": idp["jwt"]})),
            "set exactly the member that type names: jwt for JWT, external for External, ticket for Ticket",
        ),
        (jwt(json!({"audiences": []})), "should have at least 1 items"),
        (
            jwt(json!({"jwks": {"type": "Local"}})),
            "set exactly the member that type names: local for Local, remote for Remote",
        ),
        (jwt(json!({"jwks": {"remote": {"uri": "http://idp.example.com/jwks"}}})), "uri is an https URL"),
        (jwt(json!({"jwks": {"remote": {"uri": "not a URL"}}})), "uri is an https URL"),
        (jwt(json!({"extractFrom": [{"type": "Subprotocol"}]})), EXTRACT),
        (jwt(json!({"extractFrom": [{"type": "Subprotocol", "name": "a", "valuePrefix": "b."}]})), EXTRACT),
        (jwt(json!({"extractFrom": [{"type": "Header"}]})), EXTRACT),
        (
            json!({"tls": {"clientValidation": null}, "handshake": {"origins": origins(json!(["*"]))}}),
            "origin * is refused where cookies authenticate, because any page could then use them: list the origins",
        ),
        (
            json!({"tls": {"clientValidation": null}, "handshake": {"origins": origins(json!(["*"])), "authentication":
                {"methods": [{"name": "sessions", "type": "External", "external": {"backendRef": {"name": "s", "port": 80},
                "path": "/check", "allowedHeaders": ["Cookie"]}}]}}}),
            "origin * is refused where cookies authenticate",
        ),
        (
            json!({"handshake": {"origins": origins(json!(["*"])), "authentication": {"mode": "Anonymous", "methods": null}}}),
            "origin * is refused where client certificates authenticate, because any page could then use them: list the \
             origins in handshake.origins.allow",
        ),
        (
            json!({"handshake": {"origins": {"allow": ["*", "https://app.example.com"]}}}),
            "* allows every origin already: remove it or the other entries",
        ),
        (json!({"handshake": {"origins": {"allow": ["https://app.example.com/path"]}}}), "should match"),
        (json!({"handshake": {"networks": {"allow": ["203.0.113.0"]}}}), "spec.handshake.networks.allow"),
        (
            json!({"handshake": {"networks": {"allow": ["203.0.113.0/33"]}}}),
            "each entry is an address range such as 203.0.113.0/24 or 2001:db8::/32",
        ),
        (json!({"handshake": {"networks": {"deny": ["2001:db8::/129"]}}}), "each entry is an address range such as"),
        (
            json!({"handshake": {"rateLimit": {"count": 20, "burst": 10}}}),
            "burst is smaller than count: leave it out or raise it",
        ),
        (json!({"handshake": {"rateLimit": {"interval": "2h"}}}), "interval is between 1s and 1h"),
        (json!({"handshake": {"responseHeaders": {"set": [{"name": "Set-Cookie", "value": "a=b"}]}}}), HEADER),
        (
            json!({"rules": [{"name": "a", "backendRefs": [{"name": "a", "port": 1}], "timeouts": {"upgrade": "61s"}}]}),
            "a timeout of a backend is between 100ms and 60s",
        ),
        (json!({"handshake": {"maxHeadSize": "65Ki"}}), "maxHeadSize is between 1Ki and 64Ki"),
        (json!({"handshake": {"maxHeadSize": 1023}}), "maxHeadSize is between 1Ki and 64Ki"),
        (json!({"handshake": {"responseHeaders": {"fromBackend": ["Set Cookie"]}}}), "should match"),
        (json!({"handshake": {"requestHeaders": {"allow": ["x auth"]}}}), "should match"),
        (json!({"handshake": {"responseHeaders": {"set": [{"name": "Upgrade", "value": "h2c"}]}}}), HEADER),
        (json!({"handshake": {"responseHeaders": {"set": [{"name": "SEC-WebSocket-Accept", "value": "a"}]}}}), HEADER),
        (json!({"handshake": {"responseHeaders": {"set": [{"name": "x-a", "value": "a\r\nb: c"}]}}}), "should match"),
        // The connection.
        (
            json!({"tls": {"clientValidation": null}, "handshake": {"authentication": {"mode": "Anonymous", "methods": null}}}),
            "connection.limits.perSubject needs an authenticated client: use mode AnyOf or tls.clientValidation, \
             or remove it",
        ),
        (json!({"connection": {"maxDuration": "12 hours"}}), "should match"),
        (json!({"connection": {"onCredentialExpiry": "Ignore"}}), "supported values: \"Close\", \"Keep\""),
        // Messages.
        (
            json!({"messages": {"fromClient": {"maxSize": "17Mi"}}}),
            "maxSize of messages from clients is at least 1 byte and at most 16Mi",
        ),
        (json!({"messages": {"fromClient": {"maxSize": 16_777_217}}}), "at most 16Mi"),
        (json!({"messages": {"fromClient": {"maxSize": 0}}}), "at least 1 byte"),
        (json!({"messages": {"fromClient": {"maxSize": "100m"}}}), "should match"),
        (
            json!({"messages": {"fromBackend": {"maxSize": "2Gi"}}}),
            "maxSize of messages from backends is at least 1 byte and at most 1Gi",
        ),
        (
            json!({"messages": {"fromClient": {"rateLimit": {"count": 20, "burst": 19}}}}),
            "burst is smaller than count: leave it out or raise it",
        ),
        (json!({"messages": {"fromClient": {"rateLimit": {"interval": "500ms"}}}}), "interval is between 1s and 1h"),
        (json!({"messages": {"fromClient": {"byteRateLimit": {"interval": "2h"}}}}), "interval is between 1s and 1h"),
        (json!({"messages": {"fromClient": {"byteRateLimit": {"size": 0}}}}), "a size is at least 1 byte"),
        (
            json!({"messages": {"fromClient": {"byteRateLimit": {"burst": "512Ki"}}}}),
            "burst is smaller than size: leave it out or raise it",
        ),
        (
            json!({"messages": {"fromBackend": {"byteRateLimit": {"burst": 1_048_575}}}}),
            "burst is smaller than size: leave it out or raise it",
        ),
        (json!({"messages": {"fromBackend": {"rateLimit": {"burst": 199}}}}), "burst is smaller than count"),
        (json!({"messages": {"fromBackend": {"rateLimit": {"onExceeded": "Slow"}}}}), "supported values"),
        (json!({"messages": {"fromClient": {"messageTimeout": "0s"}}}), "messageTimeout is between 1s and 1h"),
        (json!({"messages": {"fromBackend": {"messageTimeout": "61m"}}}), "messageTimeout is between 1s and 1h"),
        (json!({"messages": {"fromClient": {"maxFragments": 0}}}), "greater than or equal to 1"),
        (json!({"messages": {"fromClient": {"types": ["Ping"]}}}), "supported values"),
    ]
}

const EXTRACT: &str = "Header, Query and Cookie need the name of the header, parameter or cookie; Subprotocol needs either valuePrefix or name";
const HEADER: &str = "this header belongs to the protocol or the application and cannot be set here: remove it";

fn complete() -> Value {
    serde_saphyr::from_str(COMPLETE).unwrap()
}

fn a_route_with_every_field_is_accepted_and_kept_whole(clusters: &Clusters) {
    let kubectl = clusters.api().make_namespace("complete");
    let route = complete();
    kubectl.put(vec![route.clone()]);
    let kept = kubectl.get(&["swsr", "chat"]);
    // Nothing was pruned: merging what was written into what is kept changes nothing.
    let mut lost = Vec::new();
    compare("spec", &route["spec"], &kept["spec"], &mut lost);
    assert!(lost.is_empty(), "{lost:#?}");
}

/// The complete route, whose list entries leave out everything that has a default.
fn without_defaults(name: &str, namespace: &str) -> Value {
    let mut route = complete();
    route["metadata"] = json!({"name": name, "namespace": namespace});
    let mut leave_out = |object: &str, member: &str| {
        let object = route.pointer_mut(&format!("/spec/{object}")).unwrap().as_object_mut().unwrap();
        assert!(object.remove(member).is_some(), "{object:?} has no {member}");
    };
    leave_out("rules/0/matches/0/path", "type");
    leave_out("rules/1/matches/0/path", "type");
    leave_out("handshake/authentication/methods/1/jwt/jwks/local/ref", "kind");
    leave_out("messages/fromClient/schemas/0/ref", "kind");
    route
}

/// What kubectl, a second field manager and the diff of a GitOps tool compare: the file and the live object.
fn what_is_applied_stays_as_it_was_written(clusters: &Clusters) {
    let kubectl = clusters.api().make_namespace("applied");
    let route = without_defaults("client-side", kubectl.namespace());
    let text = route.to_string();
    assert!(kubectl.apply(&text).contains("created"));
    let again = kubectl.apply(&text);
    assert!(again.contains("unchanged"), "{again}");
    assert_eq!(kubectl.get(&["swsr", "client-side"])["spec"], route["spec"]);
    let diff = kubectl.run_with(&["diff", "-f", "-"], &text);
    assert!(diff.ok, "{}{}", diff.out, diff.err);

    let route = without_defaults("server-side", kubectl.namespace());
    let text = route.to_string();
    for manager in ["--field-manager=one", "--field-manager=two", "--field-manager=one"] {
        let applied = kubectl.run_with(&["apply", "--server-side", manager, "-f", "-"], &text);
        assert!(applied.ok, "{manager}: {}", applied.err);
        let diff = kubectl.run_with(&["diff", "--server-side", manager, "-f", "-"], &text);
        assert!(diff.ok, "{manager}: {}{}", diff.out, diff.err);
    }
    let live = kubectl.get(&["swsr", "server-side", "--show-managed-fields"]);
    assert_eq!(live["spec"], route["spec"]);
    let managers = live["metadata"]["managedFields"].as_array().unwrap();
    let managers: Vec<_> = managers.iter().filter(|one| one["operation"] == "Apply").collect();
    assert!(managers.len() == 2 && managers[0]["fieldsV1"] == managers[1]["fieldsV1"], "{managers:#?}");
}

/// What of `written` is not in `kept`.
fn compare(path: &str, written: &Value, kept: &Value, lost: &mut Vec<String>) {
    match (written, kept) {
        (Value::Object(written), Value::Object(kept)) => {
            for (key, value) in written {
                compare(&format!("{path}.{key}"), value, kept.get(key).unwrap_or(&Value::Null), lost);
            }
        }
        (Value::Array(written), Value::Array(kept)) if written.len() == kept.len() => {
            for (at, (written, kept)) in written.iter().zip(kept).enumerate() {
                compare(&format!("{path}[{at}]"), written, kept, lost);
            }
        }
        _ if written == kept => {}
        _ => lost.push(format!("{path}: {written} became {kept}")),
    }
}

fn the_complete_route_names_every_field_of_the_schema(_: &Clusters) {
    fn walk(path: &str, schema: &Value, route: &[&Value], missing: &mut Vec<String>) {
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            let path = format!("{path}.{name}");
            let found: Vec<&Value> = route.iter().filter_map(|value| value.get(name)).collect();
            if found.is_empty() {
                missing.push(path);
                continue;
            }
            let entries: Vec<&Value> = found.iter().filter_map(|value| value.as_array()).flatten().collect();
            walk(&path, property, &found, missing);
            walk(&format!("{path}[]"), &property["items"], &entries, missing);
        }
    }
    let mut missing = Vec::new();
    walk("spec", &crd::schema()["properties"]["spec"], &[&complete()["spec"]], &mut missing);
    // Of references every route takes the defaults, or stays in its namespace.
    missing.retain(|path| !["group", "kind", "namespace", "key"].iter().any(|end| path.ends_with(&format!(".{end}"))));
    assert!(missing.is_empty(), "tests/cluster/complete.yaml does not use {missing:#?}");
}

fn every_bad_route_is_refused_in_words_that_help(clusters: &Clusters) {
    let kubectl = &clusters.api().make_namespace("bad");
    let wrong: Vec<String> = std::thread::scope(|scope| {
        let rows = bad();
        let rows: Vec<_> = rows.chunks(rows.len().div_ceil(4)).map(<[Bad]>::to_vec).collect();
        let judges: Vec<_> = rows
            .into_iter()
            .map(|rows| {
                scope.spawn(move || {
                    let mut wrong = Vec::new();
                    for (change, words) in rows {
                        let mut route = complete();
                        route["metadata"]["namespace"] = kubectl.namespace().into();
                        merge(&mut route["spec"], &change);
                        let said = kubectl.run_with(&["apply", "--dry-run=server", "-f", "-"], &route.to_string());
                        if said.ok {
                            wrong.push(format!("accepted: {change}"));
                        } else if !said.err.contains(words) {
                            wrong.push(format!("{change}: {} instead of {words}", said.err));
                        }
                    }
                    wrong
                })
            })
            .collect();
        judges.into_iter().flat_map(|judge| judge.join().unwrap()).collect()
    });
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn every_rule_of_the_definition_has_a_route_that_breaks_it(_: &Clusters) {
    fn collect(schema: &Value, messages: &mut BTreeSet<String>) {
        for rule in schema["x-kubernetes-validations"].as_array().into_iter().flatten() {
            messages.insert(rule["message"].as_str().unwrap().to_owned());
        }
        match schema {
            Value::Object(members) => members.values().for_each(|member| collect(member, messages)),
            Value::Array(items) => items.iter().for_each(|item| collect(item, messages)),
            _ => {}
        }
    }
    let mut messages = BTreeSet::new();
    collect(&crd::schema()["properties"]["spec"], &mut messages);
    assert!(messages.len() > 20, "{messages:#?}");
    let words: BTreeSet<&str> = bad().iter().map(|(_, words)| *words).collect();
    messages.retain(|message| !words.iter().any(|words| message.starts_with(words)));
    assert!(messages.is_empty(), "no bad route for {messages:#?}");
}

fn an_unknown_field_is_named(clusters: &Clusters) {
    let kubectl = clusters.api().make_namespace("unknown");
    let mut route = complete();
    route["metadata"]["namespace"] = kubectl.namespace().into();
    route["spec"]["handshake"]["origin"] = json!({"allow": []});
    assert!(kubectl.refused(&route.to_string()).contains("unknown field \"spec.handshake.origin\""));
}

pub fn tests() -> Vec<Test> {
    crate::tests![api anywhere:
        a_route_with_every_field_is_accepted_and_kept_whole,
        what_is_applied_stays_as_it_was_written,
        the_complete_route_names_every_field_of_the_schema,
        every_bad_route_is_refused_in_words_that_help,
        every_rule_of_the_definition_has_a_route_that_breaks_it,
        an_unknown_field_is_named,
    ]
}
