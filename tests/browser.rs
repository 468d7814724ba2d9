//! A real browser: a page of an allowed origin talks through the gateway, the same page of another origin does not.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod harness;

use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use harness::manifests::{route, secret, service};
use harness::peer::Wire;
use harness::{Authority, Behaviour, Gateway, HOST, Manifests, Peer, Recorder, json, within};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_rustls::{TlsAcceptor, TlsStream};

/// A browser needs longer to start than anything else here.
const BROWSER: Duration = Duration::from_secs(60);

/// Serves the page to every name of the certificate; what it reports comes out of the channel.
struct Page {
    port: u16,
    reports: mpsc::UnboundedReceiver<String>,
    url: Arc<std::sync::OnceLock<String>>,
}

impl Page {
    async fn serve(authority: &Authority) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let pair = authority.leaf(&["app.example.com", "evil.example.net"]);
        let acceptor = TlsAcceptor::from(Arc::new(pair.server()));
        let (sender, reports) = mpsc::unbounded_channel();
        let url = Arc::<std::sync::OnceLock<String>>::default();
        let shared = url.clone();
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let (acceptor, sender, url) = (acceptor.clone(), sender.clone(), shared.clone());
                tokio::spawn(async move {
                    if let Ok(tls) = acceptor.accept(tcp).await {
                        let peer = Peer::new(Wire::Tls(Box::new(TlsStream::Server(tls))), false);
                        answer(peer, &sender, url.get().map_or("", String::as_str)).await;
                    }
                });
            }
        });
        Self { port, reports, url }
    }
}

/// One request of the browser.
async fn answer(mut peer: Peer, reports: &mpsc::UnboundedSender<String>, url: &str) {
    // A browser opens connections in advance and may never use them.
    while harness::Answer::parse(peer.pending()).is_none() {
        if !peer.fill().await {
            return;
        }
    }
    let Some(head) = peer.head().await else { return };
    let (status, body) = if head.line.starts_with("POST /result ") {
        let length: usize = head.field("content-length").and_then(|value| value.parse().ok()).unwrap_or(0);
        while peer.pending().len() < length && peer.fill().await {}
        let _ = reports.send(String::from_utf8_lossy(peer.pending()).into_owned());
        ("204 No Content", String::new())
    } else if head.line.starts_with("GET / ") {
        ("200 OK", include_str!("browser/page.html").replace("WSS_URL", url))
    } else {
        ("404 Not Found", String::new())
    };
    let text = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/html; charset=utf-8\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    peer.write(text.as_bytes()).await;
    let _ = tokio::io::AsyncWriteExt::shutdown(&mut peer.wire).await;
}

/// A browser with a profile of its own.
struct Browser {
    child: Child,
    _profile: TempDir,
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Browser {
    fn open(url: &str) -> Self {
        let program = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"]
            .into_iter()
            .find(|path| std::path::Path::new(path).exists())
            .expect("this test needs Chromium: install it with `apt-get install --yes chromium`");
        let profile = TempDir::new().unwrap();
        let child = Command::new(program)
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
            .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
            .args(["--disable-dev-shm-usage", "--ignore-certificate-errors", "--remote-debugging-port=0"])
            .arg("--host-resolver-rules=MAP *.example.com 127.0.0.1, MAP *.example.net 127.0.0.1, MAP * ~NOTFOUND")
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg(url)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { child, _profile: profile }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chromium_talks_through_it_from_an_allowed_origin_only() {
    let authority = Authority::new();
    let recorder = Recorder::start(Behaviour::Echo).await;
    let mut page = Page::serve(&authority).await;
    let origins = json!({"handshake": {"origins": {"allow": [format!("https://app.example.com:{}", page.port)]}}});
    let manifests = Manifests::default()
        .with("secret.yaml", &[secret("chat-tls", &authority.leaf(&[HOST]))])
        .with("service.yaml", &service("chat", &[recorder.port()]))
        .with("route.yaml", &[route("chat", HOST, "chat-tls", "chat", &origins)]);
    let gateway = Gateway::start(&manifests).await;
    page.url.set(format!("wss://{HOST}:{}/room?x=y", gateway.wss.port())).unwrap();

    let browser = Browser::open(&format!("https://evil.example.net:{}/", page.port));
    let report = within(BROWSER, "the page of another origin to report", page.reports.recv()).await.unwrap();
    assert_eq!(report, "close 1006  false", "the other origin's page must get nothing");
    assert_eq!(recorder.count(), (0, 0), "the backend saw something of a refused page");
    gateway
        .metric_becomes("wssgate_handshakes_total", &[("outcome", "refused"), ("reason", "origin_denied")], 1.0)
        .await;
    drop(browser);

    let browser = Browser::open(&format!("https://app.example.com:{}/", page.port));
    let report = within(BROWSER, "the page of the allowed origin to report", page.reports.recv()).await.unwrap();
    let expected = "open chat.v2 []\ntext grüße €\nbinary 40000 true\nclose 4000 enough true";
    assert_eq!(report, expected);
    assert_eq!(recorder.last().head().field("origin"), Some(format!("https://app.example.com:{}", page.port)));
    gateway.metric_becomes("wssgate_connections", &[("route", "shop/chat")], 0.0).await;
    drop(browser);
}
