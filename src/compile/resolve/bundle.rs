//! What ConfigMaps hold for TLS: CA bundles and revocation lists, as text or as bytes.

use std::sync::Arc;

use k8s_openapi::api::core::v1::ConfigMap;

/// The key of a CA bundle in its ConfigMap.
pub const CA: &str = "ca.crt";

/// The value of a key in `data` or else in `binaryData`; empty where there is none.
pub fn value<'a>(map: &'a ConfigMap, key: &str) -> &'a [u8] {
    let text = map.data.as_ref().and_then(|data| data.get(key)).map(String::as_bytes);
    text.or_else(|| map.binary_data.as_ref().and_then(|data| data.get(key)).map(|value| value.0.as_slice()))
        .unwrap_or_default()
}

/// Whether two versions of a ConfigMap hold the same.
pub fn same(old: &Arc<ConfigMap>, new: &Arc<ConfigMap>) -> bool {
    Arc::ptr_eq(old, new) || (old.data == new.data && old.binary_data == new.binary_data)
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::ByteString;

    fn map(text: Option<&str>, bytes: Option<&str>) -> Arc<ConfigMap> {
        let entry = |value: &str| (CA.to_owned(), value.to_owned());
        Arc::new(ConfigMap {
            data: text.map(|text| [entry(text)].into()),
            binary_data: bytes.map(|bytes| [(CA.to_owned(), ByteString(bytes.as_bytes().to_vec()))].into()),
            ..ConfigMap::default()
        })
    }

    #[test]
    fn text_and_bytes_are_read_and_compared_alike() {
        assert_eq!(value(&map(Some("a"), None), CA), b"a");
        assert_eq!(value(&map(None, Some("b")), CA), b"b");
        assert_eq!(value(&map(None, None), CA), b"");
        assert!(same(&map(None, Some("b")), &map(None, Some("b"))));
        assert!(!same(&map(None, Some("b")), &map(None, Some("c"))));
        assert!(!same(&map(Some("a"), None), &map(Some("b"), None)));
    }
}
