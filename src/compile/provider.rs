//! The cryptography of every TLS connection, to clients and to backends. Knows nothing else.

use std::sync::{Arc, LazyLock};

use rustls::crypto::{CryptoProvider, aws_lc_rs};

/// AEAD suites with forward secrecy only (RFC 9325 §4.2), and the hybrid X25519MLKEM768 first.
///
/// Explicit rather than the process default, so that no other crate's features decide it. With the feature `fips`, only
/// what the validated module approves is left of it: no ChaCha20-Poly1305, and X25519 only in the hybrid.
pub fn provider() -> &'static Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
        use aws_lc_rs::{cipher_suite as suite, kx_group as group};
        let mut provider = CryptoProvider {
            cipher_suites: vec![
                suite::TLS13_AES_128_GCM_SHA256,
                suite::TLS13_AES_256_GCM_SHA384,
                suite::TLS13_CHACHA20_POLY1305_SHA256,
                suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
                suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
                suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
                suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
                suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
                suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
            ],
            kx_groups: vec![group::X25519MLKEM768, group::X25519, group::SECP256R1, group::SECP384R1],
            ..aws_lc_rs::default_provider()
        };
        if cfg!(feature = "fips") {
            provider.cipher_suites.retain(rustls::SupportedCipherSuite::fips);
            provider.kx_groups.retain(|group| group.fips());
        }
        Arc::new(provider)
    });
    &PROVIDER
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_aead_suites_with_forward_secrecy_are_offered() {
        for suite in &provider().cipher_suites {
            let name = format!("{:?}", suite.suite());
            assert!(name.starts_with("TLS13_") || name.starts_with("TLS_ECDHE_"), "{name}");
            assert!(name.contains("_GCM_") || name.contains("CHACHA20_POLY1305"), "{name}");
        }
        assert_eq!(provider().kx_groups[0].name(), rustls::NamedGroup::X25519MLKEM768);
    }

    #[test]
    fn all_of_it_is_of_the_validated_module_or_nothing_claims_to_be() {
        assert_eq!(provider().fips(), cfg!(feature = "fips"));
        let chacha20 = provider().cipher_suites.iter().any(|suite| format!("{suite:?}").contains("CHACHA20"));
        assert_eq!(chacha20, !cfg!(feature = "fips"));
    }

    /// The README names the suites and groups in the order of preference.
    #[test]
    fn the_readme_names_the_suites_and_groups() {
        let readme = include_str!("../../README.md");
        let section = readme.split("## TLS\n").nth(1).and_then(|rest| rest.split("\n## ").next()).unwrap_or_default();
        let named = |prefix: &str| -> Vec<String> {
            let words = section.split('`').skip(1).step_by(2);
            words.filter(|word| word.starts_with(prefix)).map(str::to_owned).collect()
        };
        for prefix in ["TLS13_", "TLS_ECDHE_"] {
            let suites = provider().cipher_suites.iter().map(|suite| format!("{:?}", suite.suite()));
            let suites: Vec<String> = suites.filter(|suite| suite.starts_with(prefix)).collect();
            assert!(suites.iter().all(|suite| named(prefix).contains(suite)), "{suites:?}");
            assert!(cfg!(feature = "fips") || suites == named(prefix), "{suites:?}");
        }
        let groups = provider().kx_groups.iter().map(|group| format!("`{:?}`", group.name()));
        let places: Vec<Option<usize>> = groups.map(|group| section.find(&group)).collect();
        assert!(places.is_sorted() && places.iter().all(Option::is_some), "{places:?}");
    }
}
