//! What ConfigMaps hold for TLS: CA bundles and revocation lists, as text or as bytes; and what stands in for one that is
//! broken.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::ConfigMap;

use crate::api::objects::Key;
use crate::compile::guard::guarded;

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

/// The last version of each ConfigMap that could be read whole, for as long as something names it and may.
#[derive(Debug, Default)]
pub struct LastGood {
    by_entry: BTreeMap<(&'static str, Key), Arc<ConfigMap>>,
}

/// The version of a ConfigMap that counts.
#[derive(Debug)]
pub struct Chosen {
    /// The version.
    pub map: Arc<ConfigMap>,
    /// Why the version of now is broken, where the last good one stands in for it.
    pub broken: Option<String>,
}

impl LastGood {
    /// The version of `map`, whose name is `name`, that counts: its own if `read` can read the value of `entry`, else the
    /// last good one of `before`. Nothing stands in for a value that is gone or empty: whoever removed it took away what it
    /// allowed.
    ///
    /// # Errors
    /// What is wrong with the value, where there is no last good one.
    pub fn choose(
        &mut self,
        before: Option<&Self>,
        entry: &'static str,
        (name, map): (&Key, &Arc<ConfigMap>),
        read: impl FnOnce(&[u8]) -> Result<(), String>,
    ) -> Result<Chosen, String> {
        let place = (entry, name.clone());
        let last = before.and_then(|before| before.by_entry.get(&place));
        let own = value(map, entry);
        let read = || guarded(|fault| format!("{entry} {fault}"), || read(own));
        let (map, broken) = match last {
            Some(last) if same(last, map) => (map, None),
            Some(last) if !own.trim_ascii().is_empty() => match read() {
                Ok(()) => (map, None),
                Err(why) => {
                    let kept = "the last good one is still used; a replica that starts now has none";
                    (last, Some(format!("{why}; {kept}")))
                }
            },
            _ => read().map(|()| (map, None))?,
        };
        self.by_entry.insert(place, Arc::clone(map));
        Ok(Chosen { map: Arc::clone(map), broken })
    }

    /// Keeps the last good version of a ConfigMap that did not change.
    pub fn carry(&mut self, before: &Self, entry: &'static str, name: &Key) {
        let place = (entry, name.clone());
        if let Some(last) = before.by_entry.get(&place) {
            self.by_entry.entry(place).or_insert_with(|| Arc::clone(last));
        }
    }
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

    #[test]
    fn a_broken_value_keeps_the_last_good_one_and_one_that_is_gone_keeps_nothing() {
        let name = Key::new("shop", "ca");
        let read = |text: &[u8]| if text.starts_with(b"good") { Ok(()) } else { Err("is bad".to_owned()) };
        let choose = |text: Option<&str>, before: Option<&LastGood>| {
            let mut next = LastGood::default();
            let chosen = next.choose(before, CA, (&name, &map(text, None)), read);
            (chosen.map(|chosen| (value(&chosen.map, CA).to_vec(), chosen.broken.is_some())), next)
        };
        let (first, before) = choose(Some("good"), None);
        assert_eq!(first, Ok((b"good".to_vec(), false)));
        let (broken, after) = choose(Some("bad"), Some(&before));
        assert_eq!(broken, Ok((b"good".to_vec(), true)));
        assert_eq!(choose(Some("worse"), Some(&after)).0, Ok((b"good".to_vec(), true)));
        assert_eq!(choose(Some("good 2"), Some(&after)).0, Ok((b"good 2".to_vec(), false)));
        for gone in [None, Some(""), Some("\n")] {
            let (chosen, after) = choose(gone, Some(&before));
            assert_eq!(chosen, Err("is bad".to_owned()));
            assert!(choose(Some("bad"), Some(&after)).0.is_err(), "it does not come back");
        }
        assert!(choose(Some("bad"), None).0.is_err(), "a replica that starts has none");
        let mut carried = LastGood::default();
        carried.carry(&before, CA, &name);
        assert!(choose(Some("bad"), Some(&carried)).0.is_ok());
    }

    #[test]
    fn a_reader_that_panics_keeps_the_last_good_one() {
        let (name, mut before) = (Key::new("shop", "ca"), LastGood::default());
        before.choose(None, CA, (&name, &map(Some("good"), None)), |_| Ok(())).unwrap();
        let chosen = LastGood::default().choose(Some(&before), CA, (&name, &map(Some("x"), None)), |_| panic!("a bug"));
        assert!(chosen.unwrap().broken.unwrap().contains("bug of the gateway"));
    }
}
