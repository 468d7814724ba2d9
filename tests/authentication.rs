//! Group E, tokens: who gets in and who does not. The oracle of every refusal is an upstream that saw nothing, and at
//! the end of each test nothing that was written holds a token.

use crate::harness::issuer::{
    ISSUER, any_of, bearer, claims, config_map, fixture, fixture_with, holds_nothing_of, method, now, secret, set,
    unauthorized,
};
use crate::harness::{self, Key, json};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_valid_token_gets_in_and_everything_else_does_not() {
    let key = Key::es256("one");
    let setup = fixture(&[&key], &json!({})).await;
    let good = key.sign(&claims(&json!({})));
    setup.admitted("a good token", &bearer(&good)).await;
    let lower = harness::Head::upgrade("/").add("authorization", format!("bearer {good}"));
    setup.admitted("the scheme in lower case", &lower).await;
    let answer = unauthorized(&setup, "no token", &harness::Head::upgrade("/"), "credential_missing").await;
    assert_eq!(answer.field("www-authenticate").as_deref(), Some("Bearer"));
    let foreign = Key::es256("one").sign(&claims(&json!({})));
    let answer = unauthorized(&setup, "another key", &bearer(&foreign), "token_untrusted").await;
    assert_eq!(answer.field("www-authenticate").as_deref(), Some("Bearer error=\"invalid_token\""));
    holds_nothing_of(&setup.gateway, &[&good, &foreign]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_algorithm_verifies_with_the_key_of_its_type_and_id() {
    let (es256, es384, eddsa) = (Key::es256("a"), Key::es384("b"), Key::eddsa("c"));
    let rsa = Key::rsa("d", "RS256");
    let setup = fixture(&[&es256, &es384, &eddsa, &rsa], &json!({})).await;
    for key in [&es256, &es384, &eddsa, &rsa, &rsa.with("RS512"), &rsa.with("PS256"), &rsa.with("PS384")] {
        setup.admitted(&key.header().to_string(), &bearer(&key.sign(&claims(&json!({}))))).await;
        let mut nameless = key.header();
        nameless.as_object_mut().unwrap().remove("kid");
        // One key of each type: no id is needed.
        setup.admitted("no kid", &bearer(&key.sign_as(&nameless, &claims(&json!({}))))).await;
    }
    let mut other = es256.header();
    other["kid"] = json!("c");
    let token = es256.sign_as(&other, &claims(&json!({})));
    unauthorized(&setup, "the id of a key of another type", &bearer(&token), "token_untrusted").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_chooses_neither_its_algorithm_nor_its_key() {
    let rsa = Key::rsa("one", "RS256");
    let setup = fixture(&[&rsa], &json!({})).await;
    let claims = claims(&json!({}));
    let good = rsa.sign(&claims);
    setup.admitted("good", &bearer(&good)).await;
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let body = signed.split_once('.').unwrap().1;
    for alg in ["none", "None", "nOnE", "NONE", "", "RS257", "ES512"] {
        let head = URL_SAFE_NO_PAD.encode(json!({"alg": alg, "kid": "one"}).to_string());
        for token in [format!("{head}.{body}."), format!("{head}.{body}.{signature}")] {
            unauthorized(&setup, &format!("E1 alg {alg}"), &bearer(&token), "token_algorithm").await;
        }
        let token = format!("{head}.{body}");
        unauthorized(&setup, &format!("E1 alg {alg}, two parts"), &bearer(&token), "token_malformed").await;
    }
    unauthorized(&setup, "E1 no signature", &bearer(&format!("{signed}.")), "token_malformed").await;
    // E2: what is public of the key as a shared secret, in every spelling that a library might take.
    let jwk = rsa.jwk();
    let modulus = URL_SAFE_NO_PAD.decode(jwk["n"].as_str().unwrap()).unwrap();
    for public in [modulus, jwk.to_string().into_bytes(), jwk["n"].as_str().unwrap().as_bytes().to_vec()] {
        let confused = Key::hs256("one", &public);
        unauthorized(&setup, "E2 confusion", &bearer(&confused.sign(&claims)), "token_untrusted").await;
    }
    for kid in ["../../etc/passwd", "' OR 1=1 --", "ONE", "one ", "https://evil.test/k", "\u{0}"] {
        let mut header = rsa.header();
        header["kid"] = json!(kid);
        unauthorized(&setup, "E3 kid", &bearer(&rsa.sign_as(&header, &claims)), "token_untrusted").await;
    }
    for kid in [json!("k".repeat(4000)), json!(1), json!(["one"])] {
        let mut header = rsa.header();
        header["kid"] = kid;
        unauthorized(&setup, "E3 no kid at all", &bearer(&rsa.sign_as(&header, &claims)), "token_malformed").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_token_names_is_never_fetched_and_what_is_critical_is_refused() {
    let (key, evil) = (Key::es256("one"), Key::es256("evil"));
    let setup = fixture(&[&key], &json!({})).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = format!("https://{}/jwks", listener.local_addr().unwrap());
    let with = |key: &Key, name: &str, value: Value| {
        let mut header = key.header();
        header[name] = value;
        key.sign_as(&header, &claims(&json!({})))
    };
    for (name, value) in [("jku", json!(uri)), ("x5u", json!(uri)), ("jwk", evil.jwk()), ("x5c", json!(["MIIB"]))] {
        let token = with(&evil, name, value.clone());
        unauthorized(&setup, &format!("E4 {name}"), &bearer(&token), "token_untrusted").await;
        setup.admitted("beside a good key it is nothing", &bearer(&with(&key, name, value))).await;
    }
    for (name, value) in
        [("crit", json!(["exp"])), ("crit", json!([])), ("b64", json!(false)), ("typ", json!("dpop+jwt"))]
    {
        let token = with(&key, name, value);
        let reason = if name == "typ" { "token_type" } else { "token_malformed" };
        unauthorized(&setup, &format!("E4 {name}"), &bearer(&token), reason).await;
    }
    setup.admitted("RFC 9068", &bearer(&with(&key, "typ", json!("application/AT+JWT")))).await;
    let nobody = tokio::time::timeout(std::time::Duration::from_millis(1), listener.accept()).await;
    assert!(nobody.is_err(), "the gateway asked for what a token names");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn times_are_numbers_and_judged_with_the_skew() {
    let key = Key::es256("one");
    let setup = fixture(&[&key], &json!({})).await;
    let now = now();
    for (case, change) in [
        ("E6 expired within the skew", json!({"exp": now - 20})),
        ("begun within the skew", json!({"nbf": now + 25})),
        ("issued within the skew", json!({"iat": now + 25})),
        ("no iat", json!({"iat": null})),
        ("E5 exp as a fraction", json!({"exp": f64::from(2_000_000_000) + 0.5})),
    ] {
        setup.admitted(case, &bearer(&key.sign(&claims(&change)))).await;
    }
    for (case, change, reason) in [
        ("E5 no exp", json!({"exp": null}), "token_claims"),
        ("E5 exp as text", json!({"exp": (now + 300).to_string()}), "token_claims"),
        ("E5 exp as a list", json!({"exp": [now + 300]}), "token_claims"),
        ("E5 a negative exp", json!({"exp": -1}), "token_claims"),
        ("E5 nbf as text", json!({"nbf": "0"}), "token_claims"),
        ("E5 iat as text", json!({"iat": "0"}), "token_claims"),
        ("E5 exp at 0", json!({"exp": 0}), "token_expired"),
        ("E6 expired beyond the skew", json!({"exp": now - 31}), "token_expired"),
        ("E5 nbf in the future", json!({"nbf": now + 90}), "token_not_yet_valid"),
        ("E5 iat in the future", json!({"iat": now + 90}), "token_not_yet_valid"),
    ] {
        unauthorized(&setup, case, &bearer(&key.sign(&claims(&change))), reason).await;
    }
    let header = key.header().to_string();
    let text = claims(&json!({"exp": 12345})).to_string().replace("12345", "1e10");
    setup.admitted("E5 1e10", &bearer(&key.sign_text(&header, &text))).await;
    for (case, number, reason) in [("E5 1e400", "1e400", "token_malformed"), ("E5 1e20", "1e20", "token_claims")] {
        let text = claims(&json!({"exp": 12345})).to_string().replace("12345", number);
        unauthorized(&setup, case, &bearer(&key.sign_text(&header, &text)), reason).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn issuer_and_audience_are_compared_whole() {
    let key = Key::es256("one");
    let setup = fixture(&[&key], &json!({"audiences": ["chat", "https://chat.example.com"]})).await;
    for aud in [json!("chat"), json!(["x", "chat"]), json!(["https://chat.example.com"])] {
        setup.admitted("E7", &bearer(&key.sign(&claims(&json!({"aud": aud}))))).await;
    }
    for (case, change) in [
        ("E7 no aud", json!({"aud": null})),
        ("E7 another aud", json!({"aud": "other"})),
        ("E7 a part of aud", json!({"aud": "cha"})),
        ("E7 case", json!({"aud": "Chat"})),
        ("E7 words", json!({"aud": "chat other"})),
        ("E7 an empty list", json!({"aud": []})),
        ("E7 a number", json!({"aud": 1})),
        ("E7 no iss", json!({"iss": null})),
        ("E7 another iss", json!({"iss": "https://evil.test"})),
        ("E7 iss with a slash", json!({"iss": format!("{ISSUER}/")})),
        ("E7 iss as a list", json!({"iss": [ISSUER]})),
        ("a sub that is no text", json!({"sub": 7})),
    ] {
        unauthorized(&setup, case, &bearer(&key.sign(&claims(&change))), "token_claims").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_compact_form_in_its_one_spelling_is_a_token() {
    let key = Key::es256("one");
    let setup = fixture(&[&key], &json!({})).await;
    let good = key.sign(&claims(&json!({})));
    let parts: Vec<&str> = good.split('.').collect();
    let [head, body, signature] = parts[..] else { panic!("three parts") };
    let json = json!({"protected": head, "payload": body, "signature": signature}).to_string();
    let two = |text: &str| key.sign_text(&key.header().to_string(), text);
    let doubled = claims(&json!({})).to_string().replacen('{', "{\"sub\":\"root\",", 1);
    for (case, token) in [
        ("E8 JSON serialisation", json),
        ("E8 two parts", format!("{head}.{body}")),
        ("E8 four parts", format!("{good}.{signature}")),
        ("E8 five parts", format!("{head}.{body}.{signature}.{signature}.{signature}")),
        ("E8 an empty part", format!("{head}..{signature}")),
        ("E8 padding", format!("{head}.{body}=.{signature}")),
        ("E8 other alphabet", format!("{head}.{body}.{}+/", &signature[2..])),
        ("E8 duplicate claims", two(&doubled)),
        ("E8 no object", two("[]")),
        ("E8 no JSON", two("sub=ada")),
        ("E8 trailing bytes", two(&format!("{} {{}}", claims(&json!({}))))),
        (
            "E8 a doubled header",
            key.sign_text(r#"{"alg":"none","alg":"ES256","kid":"one"}"#, &claims(&json!({})).to_string()),
        ),
        ("spaces", format!("{good} {good}")),
        ("two in one", format!("{good},{good}")),
    ] {
        unauthorized(&setup, case, &bearer(&token), "token_malformed").await;
    }
    let long = format!("{good}{}", "A".repeat(8192));
    unauthorized(&setup, "long and not signed so", &bearer(&long), "token_untrusted").await;
    unauthorized(&setup, "a scheme without a token", &bearer(""), "credential_missing").await;
    // The last character of 64 bytes in base64 has four bits that count for nothing: they must be 0.
    let last = signature.chars().last().unwrap();
    let next = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_".chars().filter(|c| *c != last);
    for other in next.take(8) {
        let token = format!("{head}.{body}.{}{other}", &signature[..signature.len() - 1]);
        let reason = if "AQgw".contains(other) { "token_untrusted" } else { "token_malformed" };
        unauthorized(&setup, "E8 a signature spelled otherwise", &bearer(&token), reason).await;
    }
    holds_nothing_of(&setup.gateway, &[&good]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn claims_that_a_route_requires_are_met_or_the_answer_is_403() {
    let key = Key::es256("one");
    let required = json!({"requiredClaims": [{"name": "scope", "contains": "chat"}, {"name": "tenant"}]});
    let setup = fixture(&[&key], &required).await;
    let token = |change: Value| bearer(&key.sign(&claims(&change)));
    setup.admitted("a word", &token(json!({"scope": "read chat", "tenant": 7}))).await;
    setup.admitted("an entry", &token(json!({"scope": ["chat"], "tenant": false}))).await;
    for (case, change) in [
        ("no claim", json!({"tenant": 7})),
        ("another word", json!({"scope": "chatter", "tenant": 7})),
        ("a null", json!({"scope": "chat", "tenant": null})),
        ("words in an entry", json!({"scope": ["read chat"], "tenant": 7})),
    ] {
        let answer = setup.refused(case, &token(change), &[403], &["claims_not_met"]).await;
        assert_eq!(answer.field("www-authenticate").as_deref(), Some("Bearer error=\"insufficient_scope\""), "{case}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_issuer_of_a_token_chooses_the_method_and_that_one_decides() {
    let (ours, theirs) = (Key::es256("one"), Key::es256("one"));
    let other = json!({
        "name": "partners", "type": "JWT", "jwt": {
            "issuer": "https://partners.example.com", "audiences": ["chat"],
            "jwks": {"type": "Local", "local": {"ref": {"name": "partners", "key": "jwks.json"}}},
            "requiredClaims": [{"name": "partner"}],
        },
    });
    let objects = [config_map("idp", &set(&[&ours])), config_map("partners", &set(&[&theirs]))];
    let setup = fixture_with(&any_of(&[method(&json!({})), other]), &objects).await;
    let partner = json!({"iss": "https://partners.example.com", "partner": true});
    setup.admitted("ours", &bearer(&ours.sign(&claims(&json!({}))))).await;
    setup.admitted("theirs", &bearer(&theirs.sign(&claims(&partner)))).await;
    for (case, token) in [
        ("E3 their key for our issuer", theirs.sign(&claims(&json!({})))),
        ("E3 our key for their issuer", ours.sign(&claims(&partner))),
    ] {
        unauthorized(&setup, case, &bearer(&token), "token_untrusted").await;
    }
    let lacking = theirs.sign(&claims(&json!({"iss": "https://partners.example.com"})));
    setup.refused("their own demands", &bearer(&lacking), &[403], &["claims_not_met"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_symmetric_key_counts_only_in_a_secret_of_its_type() {
    let key = Key::hs256("one", b"0123456789abcdef0123456789abcdef");
    let (es256, keys) = (Key::es256("two"), [&key]);
    let secret_ref = json!({"jwks": {"local": {"ref": {"kind": "Secret"}}}});
    let setup = fixture_with(&any_of(&[method(&secret_ref)]), &[secret("idp", &set(&keys))]).await;
    let good = key.sign(&claims(&json!({})));
    setup.admitted("from a Secret", &bearer(&good)).await;
    let wrong = Key::hs256("one", b"0123456789abcdef0123456789abcdeX").sign(&claims(&json!({})));
    unauthorized(&setup, "another secret", &bearer(&wrong), "token_untrusted").await;
    let setup = fixture(&[&key, &es256], &json!({})).await;
    unauthorized(&setup, "from a ConfigMap", &bearer(&good), "token_untrusted").await;
    setup.admitted("its neighbour", &bearer(&es256.sign(&claims(&json!({}))))).await;
    let setup = fixture(&[&key], &json!({})).await;
    setup.refused("nothing else in the set", &bearer(&good), &[503], &["keys_unavailable"]).await;
}
