//! Which routes and Ingresses are ours: by IngressClass. Knows classes, not what routes want.

use std::sync::Arc;

use k8s_openapi::api::networking::v1::IngressClass;

use crate::api::objects::{Key, Objects};
use crate::api::route::SecureWebSocketRoute;
use crate::api::status::ConditionReason as Reason;
use crate::compile::options::Options;
use crate::compile::problem::{Problem, quote};

/// Marks the class of routes that name none.
const DEFAULT: &str = "ingressclass.kubernetes.io/is-default-class";
/// The class that needs no IngressClass object where objects come from files.
const NAME: &str = "wssgate";

/// Whose a route is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Class {
    /// Ours.
    Ours,
    /// Another controller's, or nobody's: its status is not ours to write.
    Foreign,
    /// Of a class that does not exist, where objects come from files and no other controller would say so.
    Lost(Problem),
}

/// The class of a route.
pub fn of(route: &SecureWebSocketRoute, objects: &Objects, options: &Options) -> Class {
    named(route.spec.ingress_class_name.as_deref(), objects, options)
}

/// The class of an object that names it so in `spec.ingressClassName`, or names none.
pub fn named(name: Option<&str>, objects: &Objects, options: &Options) -> Class {
    let ours = |key: &Key| objects.ingress_classes.get(key).is_some_and(|class| is_ours(key, class, options));
    let Some(name) = name else {
        let default = objects.ingress_classes.iter().any(|(key, class)| is_default(class) && ours(key));
        return if default || options.standalone { Class::Ours } else { Class::Foreign };
    };
    let key = Key::new("", name);
    if ours(&key) {
        Class::Ours
    } else if objects.ingress_classes.contains_key(&key) || !options.standalone {
        Class::Foreign
    } else if name == options.ingress_class_name.as_deref().unwrap_or(NAME) {
        Class::Ours
    } else {
        let text = format_args!(
            "IngressClass {} does not exist; add its manifest, correct the name or remove it",
            quote(name)
        );
        Class::Lost(Problem::new(Reason::NoMatchingClass, "spec.ingressClassName", text))
    }
}

fn is_ours(key: &Key, class: &IngressClass, options: &Options) -> bool {
    let controller = class.spec.as_ref().and_then(|spec| spec.controller.as_deref());
    options.ingress_class_name.as_ref().is_none_or(|only| *only == key.name)
        && controller == Some(options.controller_name.as_str())
}

/// The gateway's own name among those that a request came through (RFC 8586). In a cluster all replicas of a class have
/// one, by the UID of its IngressClass, which no other cluster has: of two gateways of one configuration in two clusters,
/// each may be the other's backend.
pub fn hop(objects: &Objects, options: &Options) -> Arc<str> {
    let uids = objects.ingress_classes.iter().filter(|(key, class)| is_ours(key, class, options));
    let uid = uids.filter_map(|(_, class)| class.metadata.uid.as_deref()).min();
    uid.filter(|_| !options.standalone).map_or_else(|| Arc::clone(&options.hop), |uid| format!("wssgate-{uid}").into())
}

/// Whether a class is that of routes that name none.
pub fn is_default(class: &IngressClass) -> bool {
    let annotations = class.metadata.annotations.as_ref();
    annotations.and_then(|all| all.get(DEFAULT)).is_some_and(|mark| mark == "true")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(class: Option<&str>) -> SecureWebSocketRoute {
        let mut spec: crate::api::route::RouteSpec =
            serde_saphyr::from_str("{hostnames: [a.test], rules: [], handshake: {}}").unwrap();
        spec.ingress_class_name = class.map(ToOwned::to_owned);
        SecureWebSocketRoute::new("r", spec)
    }

    fn objects(name: &str, controller: &str, default: bool) -> Objects {
        let class = serde_saphyr::from_str(&format!(
            "{{apiVersion: networking.k8s.io/v1, kind: IngressClass, spec: {{controller: {controller}}},
              metadata: {{name: {name}, annotations: {{ingressclass.kubernetes.io/is-default-class: '{default}'}}}}}}"
        ))
        .unwrap();
        let mut objects = Objects::default();
        objects.ingress_classes.insert(Key::new("", name), Arc::new(class));
        objects
    }

    #[test]
    fn a_named_class_is_ours_by_its_controller() {
        let options = Options::default();
        let ours = objects("edge", "wssgate.io/ingress-controller", false);
        assert_eq!(of(&route(Some("edge")), &ours, &options), Class::Ours);
        let other = objects("edge", "example.com/nginx", false);
        for standalone in [false, true] {
            let options = Options { standalone, ..Options::default() };
            assert_eq!(of(&route(Some("edge")), &other, &options), Class::Foreign);
        }
        let only = Options { ingress_class_name: Some("inner".into()), ..Options::default() };
        assert_eq!(of(&route(Some("edge")), &ours, &only), Class::Foreign);
    }

    #[test]
    fn without_a_class_the_default_one_decides_and_files_need_none() {
        let options = Options::default();
        let plain = objects("edge", "wssgate.io/ingress-controller", false);
        let default = objects("edge", "wssgate.io/ingress-controller", true);
        let foreign = objects("edge", "example.com/nginx", true);
        assert_eq!(of(&route(None), &plain, &options), Class::Foreign);
        assert_eq!(of(&route(None), &default, &options), Class::Ours);
        assert_eq!(of(&route(None), &foreign, &options), Class::Foreign);
        let files = Options { standalone: true, ..Options::default() };
        assert_eq!(of(&route(None), &Objects::default(), &files), Class::Ours);
    }

    #[test]
    fn a_class_that_does_not_exist_is_reported_among_files_only() {
        let files = Options { standalone: true, ..Options::default() };
        let none = Objects::default();
        assert_eq!(of(&route(Some("wssgate")), &none, &files), Class::Ours);
        assert!(
            matches!(of(&route(Some("nginx")), &none, &files), Class::Lost(problem) if problem.text.contains("\"nginx\""))
        );
        assert_eq!(of(&route(Some("wssgate")), &none, &Options::default()), Class::Foreign);
    }
}
