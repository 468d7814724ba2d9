//! Our image, as pods of a whole node.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;

use super::Test;
use super::clusters::Clusters;
use super::image;
use super::node::story;
use super::process::until;
use super::release::backend;
use super::sandbox::call;

const LIMIT: Duration = Duration::from_secs(60);

fn pods_of_our_image_are_ready_and_reached_through_a_service(clusters: &Clusters) {
    let node = clusters.node();
    let labels = "pod-security.kubernetes.io/enforce: restricted";
    let kubectl = node.kubectl().make_namespace_with("echo", labels);
    kubectl.apply(&backend("echo"));
    let said = kubectl.run(&["rollout", "status", "deployment/echo", "--timeout=60s"]);
    assert!(said.ok, "{}\n{}", said.err, story(&kubectl));

    let slices = kubectl.get(&["endpointslices", "-l", "kubernetes.io/service-name=echo"]);
    let endpoints = slices["items"][0]["endpoints"].as_array().unwrap();
    assert_eq!(endpoints.len(), 2, "{slices:#}");
    let service = kubectl.get(&["service", "echo"])["spec"]["clusterIP"].as_str().unwrap().to_owned();
    let answer = until(LIMIT, "an answer through the Service", || upgrade(&format!("{service}:80")).ok());
    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
}

fn the_image_is_one_small_binary_that_belongs_to_nobody_and_its_licence(_: &Clusters) {
    let archive = image::archive(image::WSSGATE).display().to_string();
    let size = std::fs::metadata(&archive).unwrap().len();
    // The tests run the trial profile, which goes without link-time optimisation; scripts/image holds both bounds.
    assert!(size < 30_000_000, "{size} bytes");
    let member = |name: &str| serde_json::from_str::<Value>(&call(&["tar", "-xOf", &archive, name]).unwrap()).unwrap();
    let manifest = &member("manifest.json")[0];
    let config = &member(manifest["Config"].as_str().unwrap())["config"];
    assert_eq!(config["User"], "65532:65532", "{config:#}");
    assert_eq!(config["Entrypoint"], serde_json::json!(["/wssgate"]), "{config:#}");
    let mut files = BTreeMap::new();
    for layer in manifest["Layers"].as_array().unwrap() {
        let list = format!("tar -xOf '{archive}' '{}' | tar -tv --numeric-owner", layer.as_str().unwrap());
        for line in call(&["sh", "-c", &list]).unwrap().lines() {
            let fields: Vec<&str> = line.split_whitespace().collect();
            files.insert(fields[5].to_owned(), fields[0].to_owned());
        }
    }
    let modes: Vec<_> = files.iter().map(|(name, mode)| (name.as_str(), mode.as_str())).collect();
    assert_eq!(modes, [("LICENSE", "-r--r--r--"), ("wssgate", "-r-xr-xr-x")]);
}

/// The first bytes of the answer to a handshake.
fn upgrade(address: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(
        b"GET / HTTP/1.1\r\nHost: echo\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
          Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    )?;
    let mut head = [0; 512];
    let length = stream.read(&mut head)?;
    Ok(String::from_utf8_lossy(&head[..length]).into_owned())
}

pub fn tests() -> Vec<Test> {
    crate::tests![node sandbox:
        the_image_is_one_small_binary_that_belongs_to_nobody_and_its_licence,
        pods_of_our_image_are_ready_and_reached_through_a_service,
    ]
}
