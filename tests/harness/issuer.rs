//! An issuer of tokens in the hands of a test: good tokens, and every wrong one.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey};
use rcgen::KeyPair;
use serde_json::{Value, json};

use super::setup::manifests;
use super::{Answer, Authority, Behaviour, Gateway, Head, Options, Recorder, Setup};

/// The issuer of every token that does not say otherwise.
pub const ISSUER: &str = "https://idp.example.com";

/// A key that signs.
pub struct Key {
    id: String,
    name: &'static str,
    algorithm: Algorithm,
    key: EncodingKey,
    /// The public half of an Edwards key, which is not read back from the private one.
    edwards: Option<String>,
}

impl Key {
    /// An elliptic key on P-256.
    pub fn es256(id: &str) -> Self {
        let pair = KeyPair::generate().unwrap();
        let key = EncodingKey::from_ec_pem(pair.serialize_pem().as_bytes()).unwrap();
        Self { id: id.to_owned(), name: "ES256", algorithm: Algorithm::ES256, key, edwards: None }
    }

    /// An elliptic key on P-384.
    pub fn es384(id: &str) -> Self {
        let pair = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
        let key = EncodingKey::from_ec_pem(pair.serialize_pem().as_bytes()).unwrap();
        Self { id: id.to_owned(), name: "ES384", algorithm: Algorithm::ES384, key, edwards: None }
    }

    /// A key on Ed25519.
    pub fn eddsa(id: &str) -> Self {
        let pair = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let public = URL_SAFE_NO_PAD.encode(pair.public_key_raw());
        let key = EncodingKey::from_ed_pem(pair.serialize_pem().as_bytes()).unwrap();
        Self { id: id.to_owned(), name: "EdDSA", algorithm: Algorithm::EdDSA, key, edwards: Some(public) }
    }

    /// An RSA key of 2048 bits with one of the RSA algorithms.
    pub fn rsa(id: &str, name: &'static str) -> Self {
        let pair = KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
        let key = EncodingKey::from_rsa_pem(pair.serialize_pem().as_bytes()).unwrap();
        Self { id: id.to_owned(), name, algorithm: name.parse().unwrap(), key, edwards: None }
    }

    /// A symmetric key.
    pub fn hs256(id: &str, secret: &[u8]) -> Self {
        let key = EncodingKey::from_secret(secret);
        super::canary::note(&String::from_utf8_lossy(secret));
        super::canary::note(&URL_SAFE_NO_PAD.encode(secret));
        Self { id: id.to_owned(), name: "HS256", algorithm: Algorithm::HS256, key, edwards: None }
    }

    /// The same key signing with another algorithm of its family.
    pub fn with(&self, name: &'static str) -> Self {
        Self { id: self.id.clone(), name, algorithm: name.parse().unwrap(), key: self.key.clone(), edwards: None }
    }

    /// Its public half (of a symmetric key: the key) as a member of a set.
    pub fn jwk(&self) -> Value {
        if let Some(public) = &self.edwards {
            return json!({"kty": "OKP", "crv": "Ed25519", "x": public, "kid": self.id});
        }
        let mut jwk = serde_json::to_value(Jwk::from_encoding_key(&self.key, self.algorithm).unwrap()).unwrap();
        jwk.as_object_mut().unwrap().remove("alg");
        jwk["kid"] = json!(self.id);
        jwk
    }

    /// The header of its tokens.
    pub fn header(&self) -> Value {
        json!({"alg": self.name, "kid": self.id, "typ": "JWT"})
    }

    /// A token with these claims.
    pub fn sign(&self, claims: &Value) -> String {
        self.sign_as(&self.header(), claims)
    }

    /// A token with a header of the test's own.
    pub fn sign_as(&self, header: &Value, claims: &Value) -> String {
        self.sign_text(&header.to_string(), &claims.to_string())
    }

    /// A token of any two texts.
    pub fn sign_text(&self, header: &str, claims: &str) -> String {
        let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
        let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &self.key, self.algorithm).unwrap();
        let token = format!("{message}.{signature}");
        super::canary::note(token.split_once('.').unwrap().1);
        token
    }
}

/// A key set (RFC 7517).
pub fn set(keys: &[&Key]) -> Value {
    json!({"keys": keys.iter().map(|key| key.jwk()).collect::<Vec<_>>()})
}

/// Seconds since the Unix epoch.
pub fn now() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap()
}

/// Claims that the usual method takes, with others over them; `null` removes.
pub fn claims(others: &Value) -> Value {
    let mut claims = json!({"iss": ISSUER, "aud": "chat", "sub": "ada", "iat": now(), "exp": now() + 300});
    super::manifests::merge(&mut claims, others);
    claims
}

/// A ConfigMap of namespace shop with a key set.
pub fn config_map(name: &str, set: &Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "shop"},
        "data": {"jwks.json": set.to_string()},
    })
}

/// A Secret of namespace shop with a key set.
pub fn secret(name: &str, set: &Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Secret", "type": "wssgate.io/jwks",
        "metadata": {"name": name, "namespace": "shop"}, "stringData": {"jwks.json": set.to_string()},
    })
}

/// The method of the usual issuer, its keys in the ConfigMap `idp`; `others` is laid over its jwt.
pub fn method(others: &Value) -> Value {
    let mut jwt = json!({
        "issuer": ISSUER, "audiences": ["chat"],
        "jwks": {"type": "Local", "local": {"ref": {"name": "idp", "key": "jwks.json"}}},
    });
    super::manifests::merge(&mut jwt, others);
    json!({"name": "idp", "type": "JWT", "jwt": jwt})
}

/// The method that asks the Service `sessions` by the cookie; `others` is laid over its external.
pub fn external(others: &Value) -> Value {
    let mut external = json!({
        "backendRef": {"name": "sessions", "port": 8080}, "path": "/check", "allowedHeaders": ["cookie"],
    });
    super::manifests::merge(&mut external, others);
    json!({"name": "sessions", "type": "External", "external": external})
}

/// A spec with these methods.
pub fn any_of(methods: &[Value]) -> Value {
    json!({"handshake": {"authentication": {"mode": "AnyOf", "methods": methods}}})
}

/// The usual fixture with one method, whose keys are these in a ConfigMap; `jwt` is laid over the method.
pub async fn fixture(keys: &[&Key], jwt: &Value) -> Setup {
    fixture_with(&any_of(&[method(jwt)]), &[config_map("idp", &set(keys))]).await
}

/// The usual fixture with more objects, in the file `keys.yaml`.
pub async fn fixture_with(spec: &Value, objects: &[Value]) -> Setup {
    fixture_of(spec, objects, &Options::default()).await
}

/// The same with options.
pub async fn fixture_of(spec: &Value, objects: &[Value], options: &Options) -> Setup {
    let authority = Authority::new();
    let recorder = Recorder::start(Behaviour::Echo).await;
    let manifests = manifests(&authority, &recorder, spec).with("keys.yaml", objects);
    let gateway = Gateway::start_with(&manifests, options).await;
    Setup { authority, recorder, gateway }
}

/// A handshake with a token in the Authorization header.
pub fn bearer(token: &str) -> Head {
    Head::upgrade("/").add("Authorization", format!("Bearer {token}"))
}

/// A 401 with its challenge, counted under the reason; the answer has nothing of the token.
pub async fn unauthorized(setup: &Setup, case: &str, head: &Head, reason: &str) -> Answer {
    let answer = setup.refused(case, head, &[401], &[reason]).await;
    let challenge = answer.field("www-authenticate").unwrap_or_default();
    assert!(challenge.starts_with("Bearer"), "{case}: {answer:?}");
    assert_eq!(answer.body, b"unauthorized\n", "{case}");
    answer
}

/// Nothing that the gateway has said or measured so far holds any of these; each was long enough to be found.
pub async fn holds_nothing_of(gateway: &Gateway, secrets: &[&str]) {
    let said = [gateway.log_text(), gateway.access_text(), gateway.get("/metrics").await.1];
    for secret in secrets {
        // A signature alone, or claims alone, would be a leak too.
        for part in secret.split('.').filter(|part| part.len() > 12) {
            let leak = said.iter().find_map(|text| text.lines().find(|line| line.contains(part)));
            assert_eq!(leak, None, "a secret was written");
        }
    }
}
