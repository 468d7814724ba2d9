//! WHAT USERS WRITE: the custom resource, its status, and the Kubernetes objects that a compile reads. Plain data with
//! serde and schemas, no behaviour beyond reading values. Knows nothing of what is done with them.

pub mod ceilings;
pub mod certificate;
pub mod crd;
pub mod objects;
pub mod route;
pub mod route_id;
pub mod scalar;
pub mod schema;
pub mod status;
pub mod violation;
pub mod yaml;

use std::time::Duration;

/// API group of [`route::SecureWebSocketRoute`].
pub const GROUP: &str = "wssgate.io";
/// Version of [`route::SecureWebSocketRoute`].
pub const VERSION: &str = "v1alpha1";
/// `spec.controller` of the IngressClasses that belong to this gateway, unless the settings name another.
pub const CONTROLLER: &str = "wssgate.io/ingress-controller";
/// How long the last good certificate of a host stands in while no Secret has one, by default: a day to issue another.
pub const CERTIFICATE_GRACE: Duration = Duration::from_secs(24 * 3600);
