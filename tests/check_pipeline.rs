//! `wssgate check` as a step of a pipeline: what it takes, when it fails, and the forms in which it reports.

use std::fs;
use std::io::Write as _;
use std::process::{Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::root;

/// Exit code, standard output, standard error.
type Said = (i32, String, String);

fn check_with(arguments: &[&str], input: &str) -> Said {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wssgate"));
    command.env_clear().current_dir(root()).arg("check").args(arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn check(arguments: &[&str]) -> Said {
    check_with(arguments, "")
}

/// A directory with these files.
fn directory(files: &[(&str, &str)]) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(directory.path().join(name), text).unwrap();
    }
    directory
}

const ROUTE: &str = "\
# A route whose Secret and Service are not among the manifests.
apiVersion: wssgate.io/v1alpha1
kind: SecureWebSocketRoute
metadata: {name: chat, namespace: shop}
spec:
  hostnames: [chat.example.com]
  tls: {certificateRefs: [{name: chat-tls}]}
  rules: [{name: all, backendRefs: [{name: chat, port: 8080}]}]
  handshake: {authentication: {mode: Anonymous}}
";

#[test]
fn the_quickstart_is_green_as_it_is_run() {
    let (exit, said, errors) = check(&["--dev", "--strict", "manifests/quickstart"]);
    assert_eq!(exit, 0, "{said}{errors}");
    assert!(!said.contains("  False  "), "{said}");
    // Without --dev its certificate is missing: accepted, but not Ready.
    assert_eq!(check(&["manifests/quickstart"]).0, 0);
    let (exit, said, _) = check(&["--strict", "manifests/quickstart"]);
    assert!(exit == 1 && said.contains("CertificateReady"), "{said}");
}

#[test]
fn what_a_chart_renders_is_read_from_standard_input() {
    let (exit, said, errors) = check_with(&["-"], ROUTE);
    assert!(exit == 0 && said.contains("shop/chat") && said.contains("1 routes, 1 accepted"), "{said}{errors}");
    let (exit, _, errors) = check_with(&["-"], "kind: [");
    assert!(exit == 1 && errors.starts_with("standard input:1:"), "{errors}");
}

#[test]
fn files_and_directories_are_read_together() {
    // Given by its name a file is read, whatever its name ends with.
    let parts = directory(&[("route.tmpl", ROUTE)]);
    let service =
        "apiVersion: v1\nkind: Service\nmetadata: {name: chat, namespace: shop}\nspec: {ports: [{port: 8080}]}\n";
    let others = directory(&[("service.yaml", service)]);
    let (file, folder) = (parts.path().join("route.tmpl"), others.path().to_str().unwrap().to_owned());
    let (_, alone, _) = check(&[file.to_str().unwrap()]);
    assert!(alone.contains("BackendNotFound"), "{alone}");
    let (exit, both, _) = check(&[file.to_str().unwrap(), &folder]);
    assert!(exit == 0 && !both.contains("BackendNotFound"), "{both}");
}

#[test]
fn input_without_a_route_is_an_error_that_names_it() {
    let empty = directory(&[]);
    let name = empty.path().to_str().unwrap();
    let (exit, said, errors) = check(&[name]);
    assert!(
        exit == 2 && said.is_empty() && errors.contains(name) && errors.contains("no SecureWebSocketRoute"),
        "{errors}"
    );
    let (exit, _, errors) = check_with(&["-"], "");
    assert!(exit == 2 && errors.contains("no SecureWebSocketRoute"), "{errors}");
    let (exit, _, errors) = check(&["there/is/none"]);
    assert!(exit == 2 && errors.contains("there/is/none"), "{errors}");
}

#[test]
fn findings_name_the_file_and_line_of_their_route() {
    let wrong = ROUTE.replace("hostnames: [chat.example.com]", "hostnames: [chat.example.com]\n  colour: red");
    let folder = directory(&[("a.yaml", &wrong), ("broken.yaml", "kind: Service\nmetadata: [\n")]);
    let name = folder.path().to_str().unwrap();
    let (exit, github, _) = check(&["--output", "github", name]);
    let at = |file: &str| format!("::error file={name}/{file},line=");
    let errors: Vec<&str> = github.lines().filter(|line| line.starts_with("::error")).collect();
    assert!(exit == 1 && errors.len() == 2 && errors[0].starts_with(&at("broken.yaml")), "{github}");
    let route = format!("{}2,title=shop/chat%3A UnknownField::Accepted is False: ", at("a.yaml"));
    assert!(errors[1].starts_with(&route) && errors[1].contains("colour"), "{github}");
    // With --strict what is missing counts too.
    let lenient = github.lines().filter(|line| line.starts_with("::warning")).count();
    let (_, strict, _) = check(&["--strict", "--output", "github", name]);
    assert!(strict.lines().filter(|line| line.starts_with("::error")).count() > 2 && lenient > 0, "{strict}");

    let (exit, sarif, _) = check(&["--output", "sarif", name]);
    let report: Value = serde_json::from_str(&sarif).unwrap();
    let results = report["runs"][0]["results"].as_array().unwrap();
    let accepted = results.iter().find(|result| result["ruleId"] == "UnknownField").unwrap();
    assert_eq!((exit, report["version"].as_str(), accepted["level"].as_str()), (1, Some("2.1.0"), Some("error")));
    let place = &accepted["locations"][0]["physicalLocation"]["artifactLocation"]["uri"];
    assert_eq!(place.as_str().unwrap(), format!("{name}/a.yaml"));

    let (exit, junit, _) = check(&["--output", "junit", name]);
    assert!(exit == 1 && junit.contains("tests=\"2\" failures=\"2\""), "{junit}");
    assert!(junit.contains("name=\"shop/chat\"") && junit.contains("<failure type=\"UnknownField\""), "{junit}");
}
