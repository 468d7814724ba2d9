//! Readers of keys, certificates and revocations: each reads all that it is given, or nothing.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use jsonwebtoken::Algorithm;
use proptest::prelude::*;
use proptest::sample::Index;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use wssgate::compile::resolve::backend_tls;
use wssgate::compile::tls::certificate::Certificate;
use wssgate::compile::tls::client_trust::read_lists;
use wssgate::policy::keys::KeySet;

use crate::harness::{Authority, Key, json};

/// How a text of whole parts is spoilt.
#[derive(Debug, Clone)]
enum Spoilt {
    /// A range of bytes is gone.
    Cut(Index, Index),
    /// Two parts share a line.
    Joined(Index),
}

impl Spoilt {
    fn text(&self, parts: &[String], between: &str) -> String {
        let mut text = String::new();
        let joined = match self {
            Self::Joined(at) => at.index(parts.len()),
            Self::Cut(..) => parts.len(),
        };
        for (at, part) in parts.iter().enumerate() {
            text += if at == joined { part.trim_end() } else { part };
            text += if at + 1 == parts.len() || at == joined { "" } else { between };
        }
        if let Self::Cut(from, size) = self {
            let from = from.index(text.len());
            let size = 1 + size.index(text.len() - from);
            text.replace_range(from..from + size, "");
        }
        text
    }
}

fn spoilt() -> impl Strategy<Value = Spoilt> {
    prop_oneof![
        4 => any::<(Index, Index)>().prop_map(|(from, size)| Spoilt::Cut(from, size)),
        1 => any::<Index>().prop_map(Spoilt::Joined),
    ]
}

struct Parts {
    authorities: Vec<String>,
    lists: Vec<String>,
    /// A leaf, its issuer, and the key.
    chain: (Vec<String>, String),
    keys: Vec<String>,
    symmetric: Vec<String>,
}

static PARTS: LazyLock<Parts> = LazyLock::new(|| {
    let authorities: Vec<Authority> = (0..4).map(|_| Authority::new()).collect();
    let leaf = authorities[0].leaf(&["a.test"]);
    let end = leaf.chain.find("-----BEGIN").and_then(|start| leaf.chain[start + 1..].find("-----BEGIN")).unwrap() + 1;
    let (first, rest) = leaf.chain.split_at(end);
    Parts {
        lists: authorities.iter().map(|authority| authority.crl(&[1, 2], 2090)).collect(),
        chain: (vec![first.to_owned(), rest.to_owned()], leaf.key),
        authorities: authorities.iter().map(|authority| authority.pem().to_owned()).collect(),
        keys: (0..4).map(|at| Key::es256(&format!("k{at}")).jwk().to_string()).collect(),
        symmetric: (0..4)
            .map(|at| json!({"kty": "oct", "kid": format!("s{at}"), "k": "A".repeat(43)}).to_string())
            .collect(),
    }
});

/// What was read are whole parts, and as many as the text has blocks.
fn whole(read: &[Vec<u8>], parts: &[Vec<u8>], text: &str) {
    let known: BTreeSet<&Vec<u8>> = parts.iter().collect();
    assert!(read.iter().all(|one| known.contains(one)), "{text}");
    let counted = (text.matches("-----BEGIN ").count(), text.matches("-----END ").count());
    assert_eq!(counted, (read.len(), read.len()), "{text}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn a_bundle_of_authorities_is_read_whole_or_not_at_all(count in 1usize..4, spoilt in spoilt()) {
        let parts = &PARTS.authorities[..count];
        let text = spoilt.text(parts, "");
        if backend_tls::add(&mut RootCertStore::empty(), text.as_bytes()).is_ok() {
            let read = backend_tls::read(text.as_bytes()).unwrap();
            let der = |pem: &String| CertificateDer::from_pem_slice(pem.as_bytes()).unwrap().to_vec();
            whole(&read.iter().map(|der| der.to_vec()).collect::<Vec<_>>(), &parts.iter().map(der).collect::<Vec<_>>(), &text);
        }
    }

    #[test]
    fn a_file_of_revocation_lists_is_read_whole_or_not_at_all(count in 1usize..4, spoilt in spoilt()) {
        let parts = &PARTS.lists[..count];
        let text = spoilt.text(parts, "");
        if let Ok(read) = read_lists(text.as_bytes()) {
            let der = |pem: &String| read_lists(pem.as_bytes()).unwrap()[0].0.to_vec();
            let read: Vec<Vec<u8>> = read.iter().map(|(der, _)| der.to_vec()).collect();
            whole(&read, &parts.iter().map(der).collect::<Vec<_>>(), &text);
        }
    }

    #[test]
    fn a_chain_and_its_key_are_read_whole_or_not_at_all(spoilt in spoilt(), of_key: bool) {
        let (parts, key) = &PARTS.chain;
        let whole_chain = parts.concat();
        let (text, key) = if of_key {
            (whole_chain, spoilt.text(&[key.clone(), key.clone()], ""))
        } else {
            (spoilt.text(parts, ""), key.clone())
        };
        if let Ok(read) = Certificate::parse("shop/tls", text.as_bytes(), key.as_bytes()) {
            let der = |pem: &String| CertificateDer::from_pem_slice(pem.as_bytes()).unwrap().to_vec();
            let read: Vec<Vec<u8>> = read.key.cert.iter().map(|der| der.to_vec()).collect();
            whole(&read, &parts.iter().map(der).collect::<Vec<_>>(), &text);
            assert_eq!(key.matches("-----BEGIN ").count(), 1, "one of several keys was taken");
        }
    }

    #[test]
    fn a_key_set_is_read_whole_or_not_at_all(count in 1usize..4, spoilt in spoilt(), symmetric: bool) {
        let parts = if symmetric { &PARTS.symmetric[..count] } else { &PARTS.keys[..count] };
        let text = format!("{{\"keys\":[{}]}}", spoilt.text(parts, ","));
        if let Ok(read) = KeySet::parse(text.as_bytes(), symmetric) {
            let list: serde_json::Value = serde_json::from_str(&text).unwrap();
            // A key of a type that nobody here knows is for others (RFC 7517 section 5).
            let known = |key: &&serde_json::Value| {
                key["kty"].as_str().is_none_or(|kind| ["RSA", "EC", "OKP", "oct"].contains(&kind))
                    && key["crv"].as_str().is_none_or(|curve| curve == "P-256")
            };
            let given = list["keys"].as_array().unwrap().iter().filter(known).count();
            let usable = read.find(if symmetric { Algorithm::HS256 } else { Algorithm::ES256 }, None).count();
            assert!(usable + read.unusable().len() >= given, "{text}");
        }
    }
}
