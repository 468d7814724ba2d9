//! Key sets that objects of the cluster hold: ConfigMaps for public keys, Secrets of one type for symmetric ones too.
//!
//! An object, entry or grant that is gone takes the route's authority to admit with it, so the route refuses. A set that
//! cannot be read whole counts as it last could. Without a last good one it has no keys: nobody new gets in by it, and
//! nobody who is in is closed for a typing error. The same holds for a set that is read whole and has no key that verifies:
//! its keys were withdrawn.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::Arc;

use crate::api::objects::{Key, Objects};
use crate::api::status::ConditionReason as Reason;
use crate::compile::guard::guarded;
use crate::compile::problem::{Problem, quote};
use crate::compile::resolve::reference::{Grants, absent};
use crate::compile::resolve::resolution::Resolution;
use crate::policy::authentication::{Authentication, KeySource, Kind};
use crate::policy::keys::{KeySet, Unread};

/// The type of Secrets that hold keys.
const TYPE: &str = "wssgate.io/jwks";

/// What an entry is read as.
#[derive(Debug)]
struct Read {
    /// The set that counts.
    set: Option<Arc<KeySet>>,
    /// Why it is not the set of now.
    broken: Option<&'static str>,
}

/// Key sets by where they stand.
pub type Sets = BTreeMap<KeySource, Arc<KeySet>>;

/// Reads the key sets of one compile.
#[derive(Debug)]
pub struct Reader<'a> {
    objects: &'a Objects,
    grants: &'a Grants<'a>,
    before: Option<&'a Sets>,
    read: BTreeMap<KeySource, Read>,
}

impl<'a> Reader<'a> {
    /// A reader over the objects, with the sets of the compile before.
    pub fn new(objects: &'a Objects, grants: &'a Grants<'a>, before: Option<&'a Sets>) -> Self {
        Self { objects, grants, before, read: BTreeMap::new() }
    }

    /// The sets that routes name and that can be read; equal ones are those of the compile before.
    pub fn finish(self) -> Sets {
        self.read.into_iter().filter_map(|(source, read)| Some((source, read.set?))).collect()
    }

    /// Reads what the methods of a route in the namespace `home` name.
    pub fn route(&mut self, home: &str, authentication: &Authentication) -> Resolution {
        let mut resolution = Resolution::default();
        for (index, method) in authentication.methods().iter().enumerate() {
            let Kind::Jwt(jwt) = &method.kind else { continue };
            let field = format!("spec.handshake.authentication.methods[{index}].jwt.jwks.local.ref");
            match self.source(&field, home, &jwt.keys) {
                Ok(None) => {}
                // No keys admit nobody new, and end nobody's connection.
                Ok(Some(unreadable)) => resolution.problems.push(unreadable),
                Err(lost) => resolution.refuse(lost),
            }
        }
        resolution
    }

    /// Reads one source. `Some` is the problem of a key set that cannot be read; an error takes authority away.
    fn source(&mut self, field: &str, home: &str, source: &KeySource) -> Result<Option<Problem>, Problem> {
        let KeySource::Local { namespace, name, key: entry, secret } = source else { return Ok(None) };
        let kind = if *secret { "Secret" } else { "ConfigMap" };
        let key = self.grants.resolve(field, home, kind, namespace.as_deref(), name)?;
        let bytes = self.bytes(field, &key, entry, *secret)?;
        let read = self.read.entry(source.within(home)).or_insert_with_key(|source| {
            let before = self.before.and_then(|before| before.get(source)).cloned();
            match guarded(Unread::Broken, || KeySet::parse(bytes, *secret)) {
                Ok(set) => {
                    let same = before.filter(|before| **before == set);
                    Read { set: Some(same.unwrap_or_else(|| Arc::new(set))), broken: None }
                }
                Err(Unread::Broken(why)) if !bytes.trim_ascii().is_empty() => Read { set: before, broken: Some(why) },
                Err(Unread::Broken(why) | Unread::NoKeys(why)) => Read { set: None, broken: Some(why) },
            }
        });
        let problem = |text: &dyn Display| {
            Problem::new(Reason::InvalidKeySet, field, format_args!("key {} of {kind} {key} {text}", quote(entry)))
        };
        Ok(match (read.broken, &read.set) {
            (Some(why), None) => Some(problem(&format_args!("{why}; handshakes get 503 until it is fixed"))),
            (Some(why), Some(_)) => Some(problem(&format_args!(
                "{why}; the last good key set is still used; a replica that starts now has none"
            ))),
            (None, None) => None,
            (None, Some(set)) => set.unusable().first().map(|first| {
                let more = match set.unusable().len() {
                    1 => String::new(),
                    several => format!(" (and {} more)", several - 1),
                };
                problem(&format_args!("has a key that verifies no token: {first}{more}; correct or remove it"))
            }),
        })
    }

    fn bytes(&self, field: impl Display, key: &Key, entry: &str, secret: bool) -> Result<&'a [u8], Problem> {
        let kind = if secret { "Secret" } else { "ConfigMap" };
        let absent = || absent(self.objects, &field, kind, key, "the key set");
        let found = if secret {
            let object = self.objects.secrets.get(key);
            let object = object.ok_or_else(absent)?;
            if object.type_.as_deref() != Some(TYPE) {
                let text =
                    format_args!("Secret {key} must have the type {TYPE}; delete it and create it with that type");
                return Err(Problem::new(Reason::InvalidKeySet, field, text));
            }
            let text = object.string_data.as_ref().and_then(|data| data.get(entry)).map(String::as_bytes);
            text.or_else(|| object.data.as_ref().and_then(|data| data.get(entry)).map(|value| value.0.as_slice()))
        } else {
            let object = self.objects.config_maps.get(key);
            let object = object.ok_or_else(absent)?;
            object.data.as_ref().and_then(|data| data.get(entry)).map(String::as_bytes)
        };
        found.ok_or_else(|| {
            let text = format_args!("key {} of {kind} {key} does not exist; add it or correct its name", quote(entry));
            Problem::new(Reason::RefNotFound, &field, text)
        })
    }
}
