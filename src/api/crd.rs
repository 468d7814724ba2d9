//! The CustomResourceDefinition: what `wssgate crd` prints and `crds/` holds.

use kube::CustomResourceExt;
use serde_json::{Map, Value, json};

use super::route::SecureWebSocketRoute;

/// Annotation with the hash of the schema, by which a gateway notices a CRD that is older than itself.
pub const SCHEMA_HASH: &str = "wssgate.io/schema-hash";

/// The definition as a tree, keys sorted.
pub fn definition() -> Value {
    let mut crd = serde_json::to_value(<SecureWebSocketRoute as CustomResourceExt>::crd()).unwrap_or_default();
    if let Some(schema) = crd.pointer_mut("/spec/versions/0/schema/openAPIV3Schema") {
        tidy(schema);
    }
    if let Some(conditions) = crd.pointer_mut(CONDITION) {
        bound_condition(conditions);
    }
    let hash = hash(crd.pointer("/spec/versions/0").unwrap_or(&Value::Null));
    crd["metadata"]["annotations"] = json!({SCHEMA_HASH: hash});
    crd
}

const CONDITION: &str =
    "/spec/versions/0/schema/openAPIV3Schema/properties/status/properties/conditions/items/properties";

/// The schema of the whole object.
pub fn schema() -> Value {
    definition().pointer("/spec/versions/0/schema/openAPIV3Schema").cloned().unwrap_or_default()
}

/// The definition as YAML, ready for `kubectl apply -f -`.
pub fn yaml() -> String {
    let body = serde_saphyr::to_string(&definition()).unwrap_or_default();
    format!("# Written by `wssgate crd`; do not edit.\n{body}")
}

/// Makes a derived schema one that a person could have written: an absent value is absent, never `null`, and whole
/// bounds are whole numbers.
fn tidy(schema: &mut Value) {
    match schema {
        Value::Object(members) => {
            members.remove("nullable");
            if let Some(Value::String(text)) = members.get_mut("description") {
                *text = text.replace('\n', " ");
            }
            for key in ["minimum", "maximum"] {
                if let Some(number) = members.get_mut(key)
                    && let Some(float) = number.as_f64()
                    && float.fract() == 0.0
                    && float.abs() < 9e15
                {
                    // Exact: a whole number below 2^53.
                    #[allow(clippy::cast_possible_truncation, reason = "checked in the line above")]
                    let whole = float as i64;
                    *number = json!(whole);
                }
            }
            members.values_mut().for_each(tidy);
        }
        Value::Array(items) => items.iter_mut().for_each(tidy),
        _ => {}
    }
}

/// Bounds of `metav1.Condition`, which the type of the client library does not carry.
fn bound_condition(properties: &mut Value) {
    let mut bound = |name: &str, bounds: Map<String, Value>| {
        if let Some(property) = properties.get_mut(name).and_then(Value::as_object_mut) {
            property.extend(bounds);
        }
    };
    let object = |value: Value| value.as_object().cloned().unwrap_or_default();
    bound("type", object(json!({"maxLength": 316, "minLength": 1})));
    bound("status", object(json!({"enum": ["True", "False", "Unknown"]})));
    bound("reason", object(json!({"maxLength": 1024, "minLength": 1})));
    bound("message", object(json!({"maxLength": 32768})));
    bound("observedGeneration", object(json!({"minimum": 0})));
}

/// FNV-1a over the canonical text: tells two schemas apart, protects nothing.
fn hash(schema: &Value) -> String {
    let text = serde_json::to_string(schema).unwrap_or_default();
    let hash = text
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    format!("{hash:016x}")
}
