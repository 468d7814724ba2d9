//! The README's first command and its table "See a policy bite": what a newcomer meets.

use std::net::TcpListener;
use std::sync::Arc;

use crate::harness::{Client, Frame, Gateway, Head, Manifests, Options, PATIENCE, until};
use crate::root;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

/// A verifier for the look at a certificate that is trusted afterwards.
#[derive(Debug)]
struct Looking;

impl ServerCertVerifier for Looking {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256, SignatureScheme::ED25519]
    }
}

fn builder() -> rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap()
}

/// The quickstart as the README runs it, on free ports; and its route.
async fn quickstart() -> (Gateway, String) {
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    let command = readme.lines().find(|line| line.starts_with("cargo run --release -- run ")).unwrap();
    assert!(command.ends_with("run --manifests manifests/quickstart --dev --echo 127.0.0.1:9000"), "{command}");
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    let mut manifests = Manifests::default();
    for entry in std::fs::read_dir(root().join("manifests/quickstart")).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap().replace("9000", &port);
        manifests.files.insert(path.file_name().unwrap().to_str().unwrap().to_owned(), text);
    }
    let route = manifests.files["route.yaml"].clone();
    let args = ["--dev", "--echo", &format!("127.0.0.1:{port}")].map(ToOwned::to_owned).to_vec();
    (Gateway::start_with(&manifests, &Options { args, ..Options::default() }).await, route)
}

/// A client that trusts exactly the certificate that the gateway shows, as the README's example in Python does.
async fn client(gateway: &Gateway) -> Client {
    let looking = builder().dangerous().with_custom_certificate_verifier(Arc::new(Looking)).with_no_client_auth();
    let client = Client { address: gateway.wss, config: Arc::new(looking), name: "localhost".into() };
    let shown = client.connect().await.certificate().unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(shown).unwrap();
    client.configured(builder().with_root_certificates(roots).with_no_client_auth())
}

fn head() -> Head {
    Head::upgrade("/").set("Host", "localhost")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_command_echoes_and_every_policy_of_the_readme_bites() {
    let (gateway, route) = quickstart().await;
    let client = client(&gateway).await;
    let mut peer = client.open(&head()).await;
    peer.echo(&Frame::text("hello")).await;
    let edit = async |from: &str, to: &str| {
        assert!(route.contains(from), "the route has no {from:?} any more");
        gateway.edit("route.yaml", &route.replace(from, to)).await;
    };

    edit("maxSize: 64Ki", "maxSize: 16").await;
    peer.echo(&Frame::text("sixteen bytes...")).await;
    peer.send(&Frame::text("seventeen bytes..")).await;
    assert_eq!(peer.close_code().await.map(|(code, _)| code), Some(1009));

    let mut peer = client.open(&head()).await;
    edit("# types: [Binary]", "types: [Binary]").await;
    peer.send(&Frame::text("text")).await;
    assert_eq!(peer.close_code().await.map(|(code, _)| code), Some(1003));

    edit("# origins: {allow", "origins: {allow").await;
    assert_eq!(client.ask(&head()).await.0.status(), 403);
    let allowed = head().add("Origin", "https://app.example.com");
    let mut peer = client.open(&allowed).await;
    edit("# networks: {deny", "networks: {deny").await;
    assert_eq!(client.ask(&head()).await.0.status(), 403);
    assert_eq!(peer.close_code().await.map(|(code, _)| code), Some(1008));

    gateway.edit("route.yaml", &route).await;
    let mut peer = client.open(&head()).await;
    let said = gateway.log_text().len();
    gateway.write("route.yaml", &route.replace("heartbeat:", "hartbeat:"));
    until(PATIENCE, "the log to name the typing error", async || {
        gateway.log_text()[said..].contains("spec.connection.hartbeat").then_some(())
    })
    .await;
    peer.echo(&Frame::text("the last good version keeps serving")).await;
    client.open(&head()).await.echo(&Frame::text("for new connections too")).await;
}
