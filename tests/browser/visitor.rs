//! A real browser that visits pages of the test's own, one after another, and says what they saw.

use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::{Mutex as AsyncMutex, mpsc};
use tokio_rustls::{TlsAcceptor, TlsStream};

use crate::harness::peer::Wire;
use crate::harness::{Answer, Authority, Peer, within};

/// A browser needs longer to start than anything else here.
const BROWSER: Duration = Duration::from_secs(60);
/// The names under which the page can be visited.
const NAMES: [&str; 3] = ["app.example.com", "other.example.com", "evil.example.net"];

/// What the page's server and the test share.
struct State {
    page: Mutex<String>,
    /// A header that comes with the page.
    cookie: Mutex<String>,
    /// The cookies that came with the last request for the page.
    sent: Mutex<Option<String>>,
    reports: mpsc::UnboundedSender<String>,
    next: AsyncMutex<mpsc::UnboundedReceiver<String>>,
}

/// A browser, and the server of the page that it visits.
pub struct Visitor {
    /// The port of the page.
    pub port: u16,
    state: Arc<State>,
    reports: mpsc::UnboundedReceiver<String>,
    next: mpsc::UnboundedSender<String>,
    browser: Option<Browser>,
    visits: u32,
}

impl Visitor {
    /// Serves the page to every one of its names; the browser starts with the first visit.
    pub async fn new(authority: &Authority) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let acceptor = TlsAcceptor::from(Arc::new(authority.leaf(&NAMES).server()));
        let (sender, reports) = mpsc::unbounded_channel();
        let (next, receiver) = mpsc::unbounded_channel();
        let state = Arc::new(State {
            page: Mutex::default(),
            cookie: Mutex::default(),
            sent: Mutex::default(),
            reports: sender,
            next: AsyncMutex::new(receiver),
        });
        let shared = state.clone();
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let (acceptor, state) = (acceptor.clone(), shared.clone());
                tokio::spawn(async move {
                    if let Ok(tls) = acceptor.accept(tcp).await {
                        answer(Peer::new(Wire::Tls(Box::new(TlsStream::Server(tls))), false), &state).await;
                    }
                });
            }
        });
        Self { port, state, reports, next, browser: None, visits: 0 }
    }

    /// The origin of the page under a name.
    pub fn origin(&self, name: &str) -> String {
        format!("https://{name}:{}", self.port)
    }

    /// A header `Set-Cookie` that comes with the page from now on, as one line.
    pub fn set_cookie(&self, line: &str) {
        *self.state.cookie.lock().unwrap() = format!("{}\r\n", line.trim());
    }

    /// The cookies that the browser sent when it asked for the page of the last visit.
    pub fn sent_cookies(&self) -> Option<String> {
        self.state.sent.lock().unwrap().clone()
    }

    /// Visits the page under a name, where it runs `code` (which makes a `socket`, with the `token` at hand): what it
    /// reports.
    pub async fn visit(&mut self, name: &str, code: &str, token: &str) -> String {
        let page = include_str!("page.html").replace("CODE", code).replace("TOKEN", token);
        *self.state.page.lock().unwrap() = page;
        self.visits += 1;
        let url = format!("{}/?{}", self.origin(name), self.visits);
        if self.browser.is_some() {
            self.next.send(url).unwrap();
        } else {
            self.browser = Some(Browser::open(&url));
        }
        within(BROWSER, "the page to report", self.reports.recv()).await.unwrap()
    }
}

/// One request of the browser.
async fn answer(mut peer: Peer, state: &State) {
    // A browser opens connections in advance and may never use them.
    while Answer::parse(peer.pending()).is_none() {
        if !peer.fill().await {
            return;
        }
    }
    let Some(head) = peer.head().await else { return };
    let (status, cookie, body) = if head.line.starts_with("POST /result ") {
        let length: usize = head.field("content-length").and_then(|value| value.parse().ok()).unwrap_or(0);
        while peer.pending().len() < length && peer.fill().await {}
        let _ = state.reports.send(String::from_utf8_lossy(peer.pending()).into_owned());
        // The answer is where to go next; the page waits until the test knows.
        let Some(next) = state.next.lock().await.recv().await else { return };
        ("200 OK", String::new(), next)
    } else if head.line.starts_with("GET /?") {
        *state.sent.lock().unwrap() = head.field("cookie");
        ("200 OK", state.cookie.lock().unwrap().clone(), state.page.lock().unwrap().clone())
    } else {
        ("404 Not Found", String::new(), String::new())
    };
    let text = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/html; charset=utf-8\r\nCache-Control: no-store\r\n{cookie}\
         Connection: close\r\nContent-Length: {}\r\n\r\n{body}",
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
