//! Schemas of messages, which ConfigMaps hold.
//!
//! Reading a schema takes time, so the compile does not do it: it takes those that were read, by their content, and asks for
//! the others. A schema that is being read, broken or gone is replaced by the last good one of the same name of the same
//! route: it judges as strictly as what the author asked for before, and nobody is ended for it. Without one the route takes
//! no new connection.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use aws_lc_rs::digest::{Context, SHA256};
use k8s_openapi::api::core::v1::ConfigMap;

use crate::api::objects::{Key, Objects};
use crate::api::route_id::RouteId;
use crate::api::status::ConditionReason as Reason;
use crate::compile::problem::{Problem, quote};
use crate::compile::resolve::reference::{Grants, absent};
use crate::compile::spec::content::{ContentDraft, RulesDraft, SchemaDraft};
use crate::content::rules::{Rule, Rules};
use crate::content::schema::{Digest, Documents, KnownSchemas, Schema};
use crate::policy::content::Content;

/// A schema that nobody has read yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnreadSchema {
    /// What it is known by once it was read.
    pub digest: Digest,
    /// The namespace of a route that names it.
    pub namespace: Box<str>,
    /// The key that it stands under.
    pub key: String,
    /// Every document of its ConfigMap.
    pub documents: Arc<Documents>,
}

/// Which rule of which route a schema was good for: the direction by its field.
type Place = (RouteId, &'static str, String);
/// The schemas that were good last.
pub type LastGood = BTreeMap<Place, Arc<Schema>>;

/// Finds the schemas of one compile.
#[derive(Debug)]
pub struct Reader<'a> {
    objects: &'a Objects,
    grants: &'a Grants<'a>,
    known: &'a KnownSchemas,
    before: Option<&'a LastGood>,
    /// The next compile's.
    last_good: LastGood,
    used: BTreeSet<Digest>,
    unread: BTreeMap<Digest, UnreadSchema>,
    /// ConfigMaps by name: the digest of all that they hold.
    digests: BTreeMap<Key, Digest>,
}

/// What a compile found of schemas.
#[derive(Debug, Default)]
pub struct Found {
    /// What the next compile takes over.
    pub last_good: LastGood,
    /// The schemas that routes name.
    pub used: BTreeSet<Digest>,
    /// Those of them that must be read.
    pub unread: Vec<UnreadSchema>,
}

impl<'a> Reader<'a> {
    /// A reader over the objects, with the schemas that were read, and those that were good in the compile before.
    pub fn new(
        objects: &'a Objects,
        grants: &'a Grants<'a>,
        known: &'a KnownSchemas,
        before: Option<&'a LastGood>,
    ) -> Self {
        Self {
            objects,
            grants,
            known,
            before,
            last_good: LastGood::new(),
            used: BTreeSet::new(),
            unread: BTreeMap::new(),
            digests: BTreeMap::new(),
        }
    }

    /// What was found.
    pub fn finish(self) -> Found {
        Found { last_good: self.last_good, used: self.used, unread: self.unread.into_values().collect() }
    }

    /// The content rules of a route, and what is wrong with what it names.
    pub fn route(&mut self, id: &RouteId, draft: &ContentDraft) -> (Content, Vec<Problem>) {
        let mut problems = Vec::new();
        let mut incomplete = false;
        let mut rules = |direction, draft: &Option<RulesDraft>| {
            let draft = draft.as_ref()?;
            let mut rules = Vec::with_capacity(draft.schemas.len());
            for (index, schema) in draft.schemas.iter().enumerate() {
                match self.schema(id, direction, index, schema, &mut problems) {
                    Some(read) => rules.push(Rule {
                        name: schema.name.as_str().into(),
                        selector: schema.selector.clone(),
                        payload: schema.payload.clone(),
                        schema: read,
                    }),
                    None => incomplete = true,
                }
            }
            Some(Arc::new(Rules { format: draft.format, rules, unmatched: draft.unmatched }))
        };
        let from_client = rules("fromClient", &draft.from_client);
        let from_backend = rules("fromBackend", &draft.from_backend);
        (Content { from_client, from_backend, incomplete }, problems)
    }

    /// One schema, or the last good one in its place.
    fn schema(
        &mut self,
        id: &RouteId,
        direction: &'static str,
        index: usize,
        draft: &SchemaDraft,
        problems: &mut Vec<Problem>,
    ) -> Option<Arc<Schema>> {
        let field = format!("spec.messages.{direction}.schemas[{index}].ref");
        let place = (id.clone(), direction, draft.name.clone());
        let (schema, problem) = match self.read(&field, &id.namespace, draft) {
            Ok(read) => (Some(read), None),
            // The owner of the ConfigMap does not let the route use it, not even as it was.
            Err(problem) if problem.reason == Reason::RefNotPermitted => (None, Some(problem)),
            Err(problem) => (self.before.and_then(|before| before.get(&place)).cloned(), Some(problem)),
        };
        if let Some(problem) = problem {
            let stands_in = schema.is_some();
            // What takes a moment to read is no problem as long as something judges.
            if !(stands_in && problem.reason == Reason::Pending) {
                problems.push(problem.with(match stands_in {
                    true => "its last good version stays in use",
                    false => "handshakes get 503 until then",
                }));
            }
        }
        if let Some(schema) = &schema {
            self.last_good.insert(place, Arc::clone(schema));
        }
        schema
    }

    fn read(&mut self, field: &str, home: &str, draft: &SchemaDraft) -> Result<Arc<Schema>, Problem> {
        let reference = &draft.reference;
        let key = self.grants.resolve(field, home, "ConfigMap", reference.namespace.as_deref(), &reference.name)?;
        let Some(map) = self.objects.config_maps.get(&key) else {
            return Err(absent(self.objects, field, "ConfigMap", &key, "the schema"));
        };
        let entry = &reference.key;
        let data = map.data.as_ref().filter(|data| data.contains_key(entry));
        let Some(data) = data else {
            let text =
                format_args!("key {} of ConfigMap {key} does not exist; add it or correct its name", quote(entry));
            return Err(Problem::new(Reason::RefNotFound, field, text));
        };
        let whole = *self.digests.entry(key.clone()).or_insert_with(|| digest_of_map(map));
        let digest = digest(&whole, entry);
        self.used.insert(digest);
        match self.known.get(&digest) {
            Some(Ok(schema)) => Ok(Arc::clone(schema)),
            Some(Err(why)) => {
                let text = format_args!("key {} of ConfigMap {key} {why}", quote(entry));
                Err(Problem::new(Reason::InvalidSchema, field, text))
            }
            None => {
                self.unread.entry(digest).or_insert_with(|| UnreadSchema {
                    digest,
                    namespace: home.into(),
                    key: entry.clone(),
                    documents: Arc::new(data.clone()),
                });
                let text = format_args!("key {} of ConfigMap {key} is being read", quote(entry));
                Err(Problem::new(Reason::Pending, field, text))
            }
        }
    }
}

fn digest_of_map(map: &ConfigMap) -> Digest {
    let mut context = Context::new(&SHA256);
    for (key, value) in map.data.iter().flatten() {
        context.update(&(key.len() as u64).to_le_bytes());
        context.update(key.as_bytes());
        context.update(&(value.len() as u64).to_le_bytes());
        context.update(value.as_bytes());
    }
    finish(context)
}

/// The digest of one document among the others of its ConfigMap.
fn digest(whole: &Digest, entry: &str) -> Digest {
    let mut context = Context::new(&SHA256);
    context.update(whole);
    context.update(entry.as_bytes());
    finish(context)
}

fn finish(context: Context) -> Digest {
    let mut digest = Digest::default();
    digest.copy_from_slice(context.finish().as_ref());
    digest
}
