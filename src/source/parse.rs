//! Documents to objects: what each document of a manifest holds, and what is wrong with it. Knows no file and no path.

use std::fmt;
use std::sync::Arc;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::{Ingress, IngressClass};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_saphyr::Spanned;

use super::document::is_content;
use crate::api::certificate::Certificate;
use crate::api::objects::{Key, Object, ReferenceGrant};
use crate::api::route::SecureWebSocketRoute;
use crate::api::scalar::is_object_name;
use crate::api::violation::{self, SchemaViolation, Violation};
use crate::api::yaml::{self, Fault, Tree};
use crate::api::{GROUP, VERSION};

/// What is wrong with a text that does not begin as an object does.
const NO_HEAD: &str = "is not a Kubernetes object: apiVersion, kind and metadata do not have the expected form";

/// Kind and key of an object.
pub(crate) type Identity = (&'static str, Key);

/// One object that was read.
#[derive(Debug, Clone)]
pub(crate) struct Parsed {
    /// The object.
    pub(crate) object: Object,
    /// What an API server would have refused or dropped; routes only.
    pub(crate) violations: Option<Arc<[SchemaViolation]>>,
    /// Its line within the document, from 1.
    pub(crate) line: u64,
}

impl Parsed {
    /// Kind and key.
    pub(crate) fn identity(&self) -> Identity {
        (self.object.kind(), self.object.key())
    }
}

/// What is wrong with a document, or with one entry of its list.
#[derive(Debug)]
pub(crate) struct Broken {
    /// The place within the document, and what is wrong.
    pub(crate) fault: Fault,
    /// The object it would have been, if that much could be read.
    pub(crate) identity: Option<Identity>,
}

impl fmt::Display for Broken {
    /// The object and what is wrong with it, without the place.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((kind, key)) = &self.identity {
            write!(f, "{kind} {key}: ")?;
        }
        self.fault.kind.fmt(f)
    }
}

/// What a document holds.
#[derive(Debug, Default)]
pub(crate) struct Content {
    /// Objects of the kinds that a compile reads.
    pub(crate) objects: Vec<Parsed>,
    /// Objects of other kinds.
    pub(crate) skipped: usize,
    /// What could not be read.
    pub(crate) broken: Vec<Broken>,
}

/// What every object begins with.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head {
    api_version: Option<String>,
    kind: Option<String>,
    metadata: Option<HeadMeta>,
}

#[derive(Deserialize)]
struct HeadMeta {
    name: Option<String>,
    namespace: Option<String>,
}

#[derive(Deserialize)]
struct List {
    #[serde(default)]
    items: Vec<Spanned<Value>>,
}

/// Kinds that a compile reads.
#[derive(Clone, Copy)]
enum Kind {
    Route,
    IngressClass,
    Secret,
    Service,
    EndpointSlice,
    ConfigMap,
    ReferenceGrant,
    Ingress,
    Namespace,
    Certificate,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Route => "SecureWebSocketRoute",
            Self::IngressClass => "IngressClass",
            Self::Secret => "Secret",
            Self::Service => "Service",
            Self::EndpointSlice => "EndpointSlice",
            Self::ConfigMap => "ConfigMap",
            Self::ReferenceGrant => "ReferenceGrant",
            Self::Ingress => "Ingress",
            Self::Namespace => "Namespace",
            Self::Certificate => "Certificate",
        }
    }
}

enum Sort {
    Read(Kind),
    List,
    Other,
}

/// What a document is, by its first two fields.
fn sort(head: &Head) -> Result<Sort, String> {
    let (Some(version), Some(kind)) = (&head.api_version, &head.kind) else {
        return Err("is not a Kubernetes object: apiVersion and kind are missing".to_owned());
    };
    let group = version.split_once('/').map_or("", |(group, _)| group);
    Ok(match (version.as_str(), kind.as_str()) {
        ("v1", "Secret") => Sort::Read(Kind::Secret),
        ("v1", "Service") => Sort::Read(Kind::Service),
        ("v1", "Namespace") => Sort::Read(Kind::Namespace),
        ("v1", "ConfigMap") => Sort::Read(Kind::ConfigMap),
        ("v1", "List") => Sort::List,
        ("networking.k8s.io/v1", "IngressClass") => Sort::Read(Kind::IngressClass),
        ("networking.k8s.io/v1", "Ingress") => Sort::Read(Kind::Ingress),
        ("cert-manager.io/v1", "Certificate") => Sort::Read(Kind::Certificate),
        ("discovery.k8s.io/v1", "EndpointSlice") => Sort::Read(Kind::EndpointSlice),
        ("gateway.networking.k8s.io/v1" | "gateway.networking.k8s.io/v1beta1", "ReferenceGrant") => {
            Sort::Read(Kind::ReferenceGrant)
        }
        ("wssgate.io/v1alpha1", "SecureWebSocketRoute") => Sort::Read(Kind::Route),
        _ if group == GROUP => {
            return Err(format!(
                "this version of wssgate reads {GROUP}/{VERSION} SecureWebSocketRoute only; correct apiVersion and kind"
            ));
        }
        _ => Sort::Other,
    })
}

/// Reads one document.
pub(crate) fn read(text: &str) -> Content {
    let mut content = Content::default();
    let head = match yaml::read::<Option<Head>>(text) {
        Ok(Some(head)) => head,
        Ok(None) => return content,
        Err(fault) => {
            // A fault of form shows nothing of the text; one of type could.
            let fault = Tree::read(text).err().unwrap_or(fault.replaced_by(NO_HEAD));
            content.broken.push(Broken { fault, identity: None });
            return content;
        }
    };
    match sort(&head) {
        Ok(Sort::Other) => content.skipped += 1,
        Ok(Sort::Read(kind)) => {
            let first = text.lines().position(is_first).unwrap_or(0) as u64 + 1;
            match object(kind, &head, &Text(text)) {
                Ok((object, violations)) => content.objects.push(Parsed { object, violations, line: first }),
                Err(mut broken) => {
                    if broken.fault.line == 0 {
                        (broken.fault.line, broken.fault.column) = (first, 1);
                    }
                    content.broken.push(broken);
                }
            }
        }
        Ok(Sort::List) => match yaml::read::<List>(text) {
            Ok(list) => list.items.into_iter().for_each(|item| entry(item, &mut content)),
            // A list may hold Secrets: nothing of a fault of type is shown.
            Err(fault) => content
                .broken
                .push(Broken { fault: fault.replaced_by("items must be a list of objects"), identity: None }),
        },
        Err(message) => {
            let (line, column) = Tree::read(text).map_or((1, 1), |tree| tree.locate("apiVersion"));
            content.broken.push(Broken { fault: Fault::new(line, column, message), identity: None });
        }
    }
    content
}

/// Whether a line is the first of a document's object.
fn is_first(row: &str) -> bool {
    is_content(row.strip_prefix("---").unwrap_or(row))
}

/// Reads one entry of a list.
fn entry(item: Spanned<Value>, content: &mut Content) {
    let (line, column) = (item.referenced.line(), item.referenced.column());
    let head = serde_json::from_value::<Head>(item.value.clone());
    let head = head.map_err(|_| NO_HEAD.to_owned());
    let broken = match head.and_then(|head| sort(&head).map(|sort| (head, sort))) {
        Ok((_, Sort::Other | Sort::List)) => {
            content.skipped += 1;
            return;
        }
        Ok((head, Sort::Read(kind))) => match object(kind, &head, &Plain(item.value)) {
            Ok((object, violations)) => {
                content.objects.push(Parsed { object, violations, line });
                return;
            }
            Err(broken) => broken,
        },
        Err(message) => Broken { fault: Fault::new(0, 0, message), identity: None },
    };
    let fault = Fault { line, column, ..broken.fault };
    content.broken.push(Broken { fault, ..broken });
}

/// Where an object is read from: its text, or a value where only that is left.
trait Input {
    fn read<T: DeserializeOwned>(&self) -> Result<T, Fault>;

    /// Line and column of a field; zeros where that is not known.
    fn locate(&self, field: &str) -> (u64, u64);
}

struct Text<'a>(&'a str);

impl Input for Text<'_> {
    fn read<T: DeserializeOwned>(&self) -> Result<T, Fault> {
        yaml::read(self.0)
    }

    fn locate(&self, field: &str) -> (u64, u64) {
        Tree::read(self.0).map_or((0, 0), |tree| tree.locate(field))
    }
}

struct Plain(Value);

impl Input for Plain {
    fn read<T: DeserializeOwned>(&self) -> Result<T, Fault> {
        T::deserialize(&self.0).map_err(|error| Fault::new(0, 0, error.to_string()))
    }

    fn locate(&self, _: &str) -> (u64, u64) {
        (0, 0)
    }
}

type Read = (Object, Option<Arc<[SchemaViolation]>>);

/// What the schema says of a route that its type refuses: the schema knows names and fixes, the type words of its own.
fn refused(violations: &[SchemaViolation], input: &impl Input) -> Option<Fault> {
    let first = violations.iter().find(|violation| violation.kind != Violation::UnknownField)?;
    let (line, column) = input.locate(&first.field);
    let message = violations.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
    Some(Fault::new(line, column, message))
}

fn object(kind: Kind, head: &Head, input: &impl Input) -> Result<Read, Broken> {
    let key = key(kind, head).map_err(|text| Broken { fault: Fault::new(0, 0, text), identity: None })?;
    let read = match kind {
        Kind::Route => route(input, &key),
        Kind::Secret => secret(input, &key).map(|object| (object, None)),
        _ => plain(kind, input, &key).map(|object| (object, None)),
    };
    read.map_err(|fault| Broken { fault, identity: Some((kind.name(), key)) })
}

/// The key of an object, if the API server would take it.
fn key(kind: Kind, head: &Head) -> Result<Key, &'static str> {
    let name = head.metadata.as_ref().and_then(|metadata| metadata.name.as_deref()).unwrap_or_default();
    let namespace = match kind {
        Kind::IngressClass | Kind::Namespace => "",
        _ => head.metadata.as_ref().and_then(|metadata| metadata.namespace.as_deref()).unwrap_or("default"),
    };
    if !is_object_name(name) {
        return Err("metadata.name: write a name of lower-case letters, digits, hyphens and dots");
    }
    if !namespace.is_empty() && (!is_object_name(namespace) || namespace.contains('.')) {
        return Err("metadata.namespace: write a name of lower-case letters, digits and hyphens");
    }
    Ok(Key::new(namespace, name))
}

/// Reads a route, with what its schema refuses.
fn route(input: &impl Input, key: &Key) -> Result<Read, Fault> {
    let violations = violation::of_route(&input.read()?);
    let mut route: SecureWebSocketRoute = input.read().map_err(|fault| refused(&violations, input).unwrap_or(fault))?;
    name(&mut route.metadata, key);
    let violations = Some(violations.into()).filter(|violations: &Arc<[_]>| !violations.is_empty());
    Ok((Object::Route(Arc::new(route)), violations))
}

/// Reads a Secret; no fault shows anything of it.
fn secret(input: &impl Input, key: &Key) -> Result<Object, Fault> {
    let mut secret: Secret = input.read().map_err(|fault: Fault| {
        fault.replaced_by("the Secret does not have the expected form: text in stringData, base64 in data")
    })?;
    name(&mut secret.metadata, key);
    // As the API server does it: stringData over data.
    for (name, text) in secret.string_data.take().into_iter().flatten() {
        secret.data.get_or_insert_default().insert(name, ByteString(text.into_bytes()));
    }
    Ok(Object::Secret(Arc::new(secret)))
}

/// Reads an object of which nothing but the type is checked.
fn plain(kind: Kind, input: &impl Input, key: &Key) -> Result<Object, Fault> {
    macro_rules! read {
        ($type:ident) => {{
            let mut object: $type = input.read()?;
            name(&mut object.metadata, key);
            Object::$type(Arc::new(object))
        }};
    }
    Ok(match kind {
        Kind::IngressClass => read!(IngressClass),
        Kind::Service => read!(Service),
        Kind::EndpointSlice => read!(EndpointSlice),
        Kind::ConfigMap => read!(ConfigMap),
        Kind::ReferenceGrant => read!(ReferenceGrant),
        Kind::Ingress => read!(Ingress),
        Kind::Namespace => read!(Namespace),
        Kind::Certificate => read!(Certificate),
        Kind::Route => return route(input, key).map(|(object, _)| object),
        Kind::Secret => return secret(input, key),
    })
}

/// Writes the key into an object, without an empty namespace.
fn name(metadata: &mut ObjectMeta, key: &Key) {
    metadata.name = Some(key.name.clone());
    metadata.namespace = Some(key.namespace.clone()).filter(|namespace| !namespace.is_empty());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespaces_default_and_classes_have_none() {
        let content = read("apiVersion: v1\nkind: Service\nmetadata: {name: a}\n");
        assert_eq!(content.objects[0].object.key(), Key::new("default", "a"));
        let content = read("apiVersion: networking.k8s.io/v1\nkind: IngressClass\nmetadata: {name: a, namespace: x}\n");
        assert_eq!(content.objects[0].object.key(), Key::new("", "a"));
    }

    #[test]
    fn string_data_of_a_secret_wins_over_data() {
        let text =
            "apiVersion: v1\nkind: Secret\nmetadata: {name: a}\ndata: {k: b2xk, o: b2xk}\nstringData: {k: new}\n";
        let Object::Secret(secret) = read(text).objects.remove(0).object else { panic!("not a Secret") };
        let data = secret.data.as_ref().unwrap();
        assert_eq!((data["k"].0.as_slice(), data["o"].0.as_slice()), (&b"new"[..], &b"old"[..]));
        assert_eq!(secret.string_data, None);
    }

    #[test]
    fn no_fault_shows_the_content_of_a_secret() {
        let head = "apiVersion: v1\nkind: Secret\nmetadata: {name: a}\n";
        let list = "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Secret\n  metadata: {name: a}\n";
        for text in [
            format!("{head}data: {{k: 'hunter2 is not base64'}}\n"),
            format!("{head}data: hunter2\n"),
            format!("{head}type: [hunter2]\n"),
            format!("{head}stringData: {{k: hunter2\n"),
            format!("{head}stringData:\n  k: hunter2\n x: 1\n"),
            format!("{list}  data: {{k: 'hunter2!'}}\n"),
            format!("{list}  data: hunter2\n"),
            "apiVersion: v1\nkind: List\nitems: hunter2\n".to_owned(),
            "hunter2\n".to_owned(),
            "-----BEGIN hunter2-----\nhunter2\n".to_owned(),
            "apiVersion: v1\nkind: Secret\nmetadata: hunter2\n".to_owned(),
            "apiVersion: [hunter2]\nkind: Secret\n".to_owned(),
        ] {
            let content = read(&text);
            assert_eq!((content.objects.len(), content.broken.len()), (0, 1), "{text}");
            let fault = &content.broken[0].fault;
            assert!(!fault.to_string().contains("hunter2"), "{fault}");
            assert!(fault.line > 0, "{text}: {fault}");
        }
    }

    #[test]
    fn unknown_fields_of_a_route_are_violations() {
        let text = "apiVersion: wssgate.io/v1alpha1\nkind: SecureWebSocketRoute\nmetadata: {name: a}\nspec:\n  \
                    hostnames: [a.example.com]\n  rules: [{name: a, backendRefs: [{name: a, port: 1}]}]\n  \
                    handshake: {authentication: {mode: Anonymous}, orgins: {allow: []}}\n";
        let content = read(text);
        assert_eq!(content.broken.len(), 0, "{:?}", content.broken);
        let violations = content.objects[0].violations.clone().unwrap();
        assert_eq!(violations.len(), 1);
        assert_eq!(violations[0].field, "spec.handshake.orgins");
        assert!(read(&text.replace(", orgins: {allow: []}", "")).objects[0].violations.is_none());
    }

    #[test]
    fn lists_are_opened_and_other_kinds_are_counted() {
        let content = read(
            "kind: List\napiVersion: v1\nitems:\n- {apiVersion: v1, kind: Service, metadata: {name: a}}\n\
             - {apiVersion: apps/v1, kind: Deployment, metadata: {name: a}}\n- {apiVersion: v1, kind: Service}\n- 5\n",
        );
        assert_eq!((content.objects.len(), content.skipped, content.broken.len()), (1, 1, 2));
        assert_eq!(content.objects[0].line, 4);
        assert_eq!(content.broken[0].fault.line, 6);
        assert_eq!(read("apiVersion: apps/v1\nkind: Deployment\n").skipped, 1);
    }

    #[test]
    fn what_is_no_object_is_reported_with_its_place() {
        let fault = |text: &str| {
            let mut content = read(text);
            assert_eq!(content.broken.len(), 1, "{text}");
            content.broken.remove(0)
        };
        let text = |text: &str| fault(text).to_string();
        assert!(text("a: 1\n").contains("apiVersion and kind"));
        assert!(text("apiVersion: v1\nkind: Service\nmetadata: {}\n").contains("metadata.name"));
        assert!(text("apiVersion: v1\nkind: Service\nmetadata: {name: A_B}\n").contains("metadata.name"));
        let version = fault("kind: SecureWebSocketRoute\napiVersion: wssgate.io/v1\n");
        assert!(version.to_string().contains("wssgate.io/v1alpha1"));
        assert_eq!(version.fault.line, 2);
        let port = fault("apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec:\n  ports:\n  - port: http\n");
        assert_eq!((port.fault.line, port.fault.column), (6, 11), "{port}");
        assert!(port.to_string().starts_with("Service default/a: "), "{port}");
    }
}
