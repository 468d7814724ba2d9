//! The objects of two tenants for the rows of [`crate::shares`], and the issuer of the victim's keys.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use jsonwebtoken::Algorithm;
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::{Value, json};
use tokio::net::TcpSocket;
use tokio_rustls::TlsAcceptor;

use crate::Failure;
use crate::attack::Attack;
use crate::gateway::Identity;
use crate::method::{self, Fixture, Signer, service};
use crate::tls::OTHER_HOST;

/// Routes of the attacker with key sets that hang, and sets of each.
const HANGING: (usize, usize) = (40, 8);

/// What the gateway has, and what both clients show.
pub(crate) fn fixture(attack: Attack, identity: &Identity) -> Result<Fixture, Failure> {
    let mut fixture = Fixture::default();
    match attack {
        Attack::Unread | Attack::Sockets => {
            let limits = json!({"connection": {"limits": {"total": 10_000_000}}});
            fixture.objects = other(identity, own(&json!("@BACKEND@"), "kubernetes.io/ws"), &limits);
        }
        Attack::Refusals => {
            let nobody = json!({"handshake": {"origins": {"allow": ["https://nobody.example.com"]}}});
            fixture.objects = other(identity, own(&json!("@BACKEND@"), "kubernetes.io/ws"), &nobody);
        }
        Attack::Loop => {
            let rules = json!([{
                "name": "all", "backendRefs": [{"name": "own", "port": 8080}],
                "backendTLS": {"hostname": OTHER_HOST, "caCertificateRefs": [{"name": "gateway"}]},
            }]);
            fixture.objects = other(identity, own(&json!("@LISTEN@"), "kubernetes.io/wss"), &json!({"rules": rules}));
            fixture.objects.push(json!({
                "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "gateway", "namespace": "other"},
                "data": {"ca.crt": identity.certificate},
            }));
        }
        Attack::Tickets => {
            let signer = Signer::new(Algorithm::HS256)?;
            fixture = Fixture { attacker: signer.cookie("mallory")?, ..signer.tickets("ada")? };
        }
        Attack::Keys => {
            let signer = Signer::new(Algorithm::ES256)?;
            let served = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()])?;
            fixture.trusted = Some(served.cert.pem());
            let key = PrivateKeyDer::from_pem_slice(served.signing_key.serialize_pem().as_bytes())?;
            let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
                .with_safe_default_protocol_versions()?
                .with_no_client_auth()
                .with_single_cert(vec![served.cert.der().clone()], key)?;
            fixture.issuer = Some(issuer(config, &signer.set)?);
            fixture.fields = signer.cookie("ada")?;
        }
        _ => {}
    }
    if attack == Attack::Sockets {
        fixture.files = Some(1024);
    }
    Ok(fixture)
}

/// The attacker's Service, and its endpoint on the loopback.
fn own(port: &Value, protocol: &str) -> [Value; 2] {
    service(("other", "own"), ("ws", 8080), port, protocol)
}

/// A route for a host whose certificate is in a Secret of its namespace; `spec` is laid over it.
fn route(namespace: &str, name: &str, host: &str, service: &str, spec: &Value) -> Value {
    let mut route = json!({
        "apiVersion": "wssgate.io/v1alpha1", "kind": "SecureWebSocketRoute",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "ingressClassName": "wssgate", "hostnames": [host],
            "tls": {"certificateRefs": [{"name": "chat-tls"}]},
            "rules": [{"name": "all", "backendRefs": [{"name": service, "port": 8080}]}],
            "handshake": {"authentication": {"mode": "Anonymous"}},
        },
    });
    for (part, members) in spec.as_object().into_iter().flatten() {
        match members.as_object() {
            Some(members) => {
                for (name, value) in members {
                    route["spec"][part][name] = value.clone();
                }
            }
            None => route["spec"][part] = members.clone(),
        }
    }
    route
}

/// What the attacker owns.
fn other(identity: &Identity, service: [Value; 2], spec: &Value) -> Vec<Value> {
    let [service, slice] = service;
    vec![identity.secret("other"), service, slice, route("other", "own", OTHER_HOST, "own", spec)]
}

/// A route whose key sets are fetched from these places.
pub(crate) fn fetching(namespace: &str, name: &str, service: &str, sets: &[String]) -> Value {
    let method = |(number, uri): (usize, &String)| {
        let remote = json!({"type": "Remote", "remote": {"uri": uri}});
        let mut method = method::jwt(&format!("idp{number}"), &remote, &method::cookies());
        if number > 0 {
            method["jwt"]["issuer"] = json!(format!("https://idp{number}.example.com"));
        }
        method
    };
    let methods = sets.iter().enumerate().map(method).collect();
    let host = format!("{name}.example.com");
    let handshake = json!({"handshake": {"authentication": method::any_of(methods)}});
    route(namespace, name, &host, service, &handshake)
}

/// Serves a key set, until the runtime ends.
fn issuer(config: ServerConfig, set: &str) -> Result<SocketAddr, Failure> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((Ipv4Addr::LOCALHOST, 0).into())?;
    let listener = socket.listen(64)?;
    let address = listener.local_addr()?;
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{set}", set.len());
    tokio::task::spawn_local(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let (acceptor, answer) = (acceptor.clone(), answer.clone());
            // A fetch that fails is a route that does not serve, and the client says so.
            tokio::task::spawn_local(async move {
                let mut tls = acceptor.accept(tcp).await.ok()?;
                method::answer(&mut tls, &answer).await.ok()
            });
        }
    });
    Ok(address)
}

/// Routes of the attacker, and sets of each, at a port that never answers.
pub(crate) fn hanging(identity: &Identity, address: SocketAddr) -> Vec<Value> {
    let (routes, sets) = HANGING;
    let [service, slice] = own(&json!(9), "kubernetes.io/ws");
    let mut objects = vec![service, slice, identity.secret("other")];
    for number in 0..routes {
        let sets: Vec<String> = (0..sets).map(|set| format!("https://{address}/{number}/{set}")).collect();
        objects.push(fetching("other", &format!("r{number}"), "own", &sets));
    }
    objects
}
