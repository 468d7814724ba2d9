//! What each way to authenticate costs a handshake: the route, the objects and the client of each, and the service that
//! judges. Everything is made for the run; nothing is asked of anybody else.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey};
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpSocket;

use crate::Failure;

/// The path that sells tickets, and where they are redeemed.
pub(crate) const TICKETS: &str = "/load/ticket";
const ISSUER: &str = "https://idp.example.com";

/// How a client says who it is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Method {
    /// Not at all.
    Anonymous,
    /// A token in a cookie, signed so.
    Cookie(Algorithm),
    /// A token (ES256) among the offered subprotocols.
    Subprotocol,
    /// A session cookie that a service judges; the gateway remembers the verdict for seconds.
    Remembered,
    /// The same, and the service forbids to remember it: it is asked each time.
    Asked,
    /// A ticket, issued for a cookie (HS256) on a connection of its own and redeemed on the next.
    Ticket,
    /// A client certificate (ECDSA P-256) of an authority of the route's own.
    Certificate,
}

/// A client's certificate and key.
pub(crate) type Shown = (CertificateDer<'static>, PrivateKeyDer<'static>);

/// What a gateway and its clients need for one method.
pub(crate) struct Fixture {
    /// `handshake.authentication` of the route.
    pub(crate) authentication: Value,
    /// `handshake.rateLimit` of the route.
    pub(crate) attempts: Option<Value>,
    /// `connection` of the route.
    pub(crate) connection: Value,
    /// `messages` of the route.
    pub(crate) messages: Value,
    /// Members of the route's `tls` besides the certificate.
    pub(crate) tls: Value,
    /// Objects besides the usual.
    pub(crate) objects: Vec<Value>,
    /// Fields of the client's requests, each with its line end.
    pub(crate) fields: String,
    /// The same of the attacker's.
    pub(crate) attacker: String,
    /// Where key sets are fetched from.
    pub(crate) issuer: Option<SocketAddr>,
    /// What the client shows in TLS.
    pub(crate) shown: Option<Shown>,
    /// The gateway's limit of open files, if not the one of this program.
    pub(crate) files: Option<u64>,
    /// Whom the gateway trusts when it fetches key sets, PEM.
    pub(crate) trusted: Option<String>,
}

impl Default for Fixture {
    fn default() -> Self {
        let authentication = json!({"mode": "Anonymous"});
        let (objects, fields) = (Vec::new(), String::new());
        let messages =
            json!({"fromClient": {"types": ["Text"], "maxSize": "64Ki"}, "fromBackend": {"maxSize": "16Mi"}});
        Self {
            authentication,
            attempts: None,
            connection: json!({}),
            messages,
            tls: json!({}),
            objects,
            fields,
            attacker: String::new(),
            issuer: None,
            shown: None,
            files: None,
            trusted: None,
        }
    }
}

impl Fixture {
    /// Makes keys, tokens and certificates, and starts the service if the method asks one.
    pub(crate) fn new(method: Method) -> Result<Self, Failure> {
        let fixture = match method {
            Method::Anonymous => Self::default(),
            Method::Cookie(algorithm) => {
                let signer = Signer::new(algorithm)?;
                let ((jwt, object), fields) = (signer.method(&cookies()), signer.cookie("ada")?);
                Self { authentication: any_of(json!([jwt])), objects: vec![object], fields, ..Self::default() }
            }
            Method::Subprotocol => {
                let places = json!([{"type": "Subprotocol", "valuePrefix": "bearer."}]);
                let signer = Signer::new(Algorithm::ES256)?;
                let ((jwt, object), token) = (signer.method(&places), signer.token("ada")?);
                let fields = format!("Sec-WebSocket-Protocol: load, bearer.{token}\r\n");
                Self { authentication: any_of(json!([jwt])), objects: vec![object], fields, ..Self::default() }
            }
            Method::Remembered | Method::Asked => {
                let external = json!({
                    "backendRef": {"name": "sessions", "port": 80}, "path": "/check",
                    "allowedHeaders": ["cookie"], "allowedResponseHeaders": ["x-user"],
                });
                let authentication = any_of(json!([{"name": "sessions", "type": "External", "external": external}]));
                let service = judge(method == Method::Remembered)?;
                let fields = "Cookie: session=c2Vzc2lvbg\r\n".to_owned();
                Self { authentication, objects: sessions(service.port()).into(), fields, ..Self::default() }
            }
            Method::Ticket => Signer::new(Algorithm::HS256)?.tickets("ada")?,
            Method::Certificate => {
                let (authority, shown) = certificates()?;
                let tls = json!({"clientValidation": {"caCertificateRefs": [{"name": "clients"}]}});
                let objects = vec![config_map("clients", "ca.crt", &authority)];
                Self { tls, objects, shown: Some(shown), ..Self::default() }
            }
        };
        Ok(fixture)
    }
}

fn config_map(name: &str, key: &str, value: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "load"}, "data": {key: value}})
}

/// A key that signs tokens of an hour.
pub(crate) struct Signer {
    algorithm: Algorithm,
    key: EncodingKey,
    /// Its public half, or itself where it is symmetric, as a key set.
    pub(crate) set: String,
}

impl Signer {
    /// A new one.
    pub(crate) fn new(algorithm: Algorithm) -> Result<Self, Failure> {
        let pair = KeyPair::generate()?;
        let key = match algorithm {
            Algorithm::HS256 => EncodingKey::from_secret(pair.serialized_der()),
            Algorithm::ES256 => EncodingKey::from_ec_pem(pair.serialize_pem().as_bytes())?,
            _ => EncodingKey::from_rsa_pem(KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256)?.serialize_pem().as_bytes())?,
        };
        let mut jwk = serde_json::to_value(Jwk::from_encoding_key(&key, algorithm)?)?;
        jwk["kid"] = json!("load");
        Ok(Self { algorithm, key, set: json!({"keys": [jwk]}).to_string() })
    }

    /// The field of a request with a token of this subject in a cookie, and its line end.
    pub(crate) fn cookie(&self, subject: &str) -> Result<String, Failure> {
        Ok(format!("Cookie: session={}\r\n", self.token(subject)?))
    }

    fn token(&self, subject: &str) -> Result<String, Failure> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        let claims = json!({"iss": ISSUER, "aud": "load", "sub": subject, "iat": now, "exp": now + 3600});
        let header = json!({"alg": self.algorithm, "kid": "load", "typ": "JWT"});
        let text = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!("{}.{}", text(header), text(claims));
        let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &self.key, self.algorithm)?;
        Ok(format!("{message}.{signature}"))
    }

    /// A method that takes its tokens from these places, and the object with the key set.
    fn method(&self, places: &Value) -> (Value, Value) {
        let (kind, object) = match self.algorithm {
            // Whoever can read a symmetric key can sign with it: a Secret.
            Algorithm::HS256 => (
                "Secret",
                json!({
                    "apiVersion": "v1", "kind": "Secret", "type": "wssgate.io/jwks",
                    "metadata": {"name": "idp", "namespace": "load"}, "stringData": {"jwks.json": self.set},
                }),
            ),
            _ => ("ConfigMap", config_map("idp", "jwks.json", &self.set)),
        };
        let local = json!({"type": "Local", "local": {"ref": {"kind": kind, "name": "idp", "key": "jwks.json"}}});
        (jwt("idp", &local, places), object)
    }

    /// Its tokens in cookies, or tickets for them; the fields are those of one subject.
    pub(crate) fn tickets(&self, subject: &str) -> Result<Fixture, Failure> {
        let (method, object) = self.method(&cookies());
        let ticket = json!({"name": "ticket", "type": "Ticket", "ticket": {"path": TICKETS}});
        // Only the purchase shows it.
        let fields = self.cookie(subject)?;
        Ok(Fixture {
            authentication: any_of(json!([method, ticket])),
            objects: vec![object],
            fields,
            ..Fixture::default()
        })
    }
}

/// Where a token in a cookie is.
pub(crate) fn cookies() -> Value {
    json!([{"type": "Cookie", "name": "session"}])
}

/// Any of these methods.
pub(crate) fn any_of(methods: Value) -> Value {
    json!({"mode": "AnyOf", "methods": methods})
}

/// A method that takes tokens from these places.
pub(crate) fn jwt(name: &str, jwks: &Value, places: &Value) -> Value {
    let jwt = json!({"issuer": ISSUER, "audiences": ["load"], "extractFrom": places, "jwks": jwks});
    json!({"name": name, "type": "JWT", "jwt": jwt})
}

/// An authority, as PEM, and a client's certificate of it.
fn certificates() -> Result<(String, Shown), Failure> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(vec![])?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(rcgen::DnType::CommonName, "load clients");
    let authority = params.self_signed(&key)?.pem();
    let issuer = Issuer::new(params, key);
    let own = KeyPair::generate()?;
    let mut params = CertificateParams::new(vec![])?;
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.distinguished_name.push(rcgen::DnType::CommonName, "ada");
    let leaf = params.signed_by(&own, &issuer)?;
    let key = PrivateKeyDer::try_from(own.serialize_der())?;
    Ok((authority, (leaf.der().clone(), key)))
}

fn sessions(port: u16) -> [Value; 2] {
    service(("load", "sessions"), ("http", 80), &json!(port), "http")
}

/// A Service with one port, and its endpoint on the loopback: `target`.
pub(crate) fn service(
    (namespace, name): (&str, &str),
    (port_name, port): (&str, u16),
    target: &Value,
    protocol: &str,
) -> [Value; 2] {
    [
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": namespace},
            "spec": {"ports": [{"name": port_name, "port": port, "targetPort": target, "appProtocol": protocol}]},
        }),
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {
                "name": format!("{name}-1"), "namespace": namespace, "labels": {"kubernetes.io/service-name": name},
            },
            "ports": [{"name": port_name, "port": target, "protocol": "TCP"}],
            "endpoints": [{"addresses": ["127.0.0.1"], "conditions": {"ready": true}}],
        }),
    ]
}

/// A service that knows every session, on the load generator's thread, until the runtime ends.
fn judge(may_remember: bool) -> Result<SocketAddr, Failure> {
    let control = if may_remember { "" } else { "Cache-Control: no-store\r\n" };
    let reply = format!("HTTP/1.1 200 OK\r\n{control}X-User: ada\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    let socket = TcpSocket::new_v4()?;
    socket.bind((Ipv4Addr::LOCALHOST, 0).into())?;
    let listener = socket.listen(4096)?;
    let address = listener.local_addr()?;
    tokio::task::spawn_local(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let reply = reply.clone();
            // A question that fails is a handshake that fails, and the client says so.
            tokio::task::spawn_local(async move { answer(tcp, &reply).await.ok() });
        }
    });
    Ok(address)
}

/// Reads one request without a body, and answers it so.
pub(crate) async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin, reply: &str) -> Result<(), Failure> {
    let mut head = Vec::with_capacity(2048);
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() > 16 * 1024 || stream.read_buf(&mut head).await? == 0 {
            return Err("not a request".into());
        }
    }
    stream.write_all(reply.as_bytes()).await?;
    stream.shutdown().await?;
    Ok(())
}
