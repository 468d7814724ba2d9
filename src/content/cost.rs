//! What a schema can cost, known before any message is judged by it.
//!
//! A schema is a graph: some keywords apply to the same value again (`allOf`, `anyOf`, `$ref`: *in place*), others to what
//! the value holds (`properties`, `items`). A value is judged once for every path of the graph that leads to its place.
//! That number is computed here for the worst place at every depth, so that a schema in which it doubles from level to
//! level is refused, and a large one lets fewer values pass in one message.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use referencing::{Draft, Resolver};
use serde_json::{Map, Value};

use super::json::MAX_DEPTH;
use super::pattern;

/// The most subschemas that one value may be judged by, counting each as often as it applies.
pub const MAX_WIDTH: u64 = 1_000;
/// The most subschemas of a schema, those of other documents that it refers to included.
pub const MAX_SUBSCHEMAS: usize = 20_000;
/// The longest chain of subschemas that apply to one value, one by the other: it takes stack at every level of a message.
pub const MAX_CHAIN: usize = 32;
/// The most pairs of a place and a subschema that may apply to it that are looked at; it bounds the time of this check to
/// about a second.
const MAX_COMBINATIONS: usize = 2_000_000;

/// Why a schema is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Costly {
    /// Where, as a JSON pointer with the document before it.
    pub place: String,
    /// What is wrong and what to do.
    pub text: String,
}

/// What a schema can cost for one value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cost {
    /// The most subschemas that any value is judged by.
    pub width: u64,
    /// What a byte of a string costs at most, in units of about a nanosecond.
    pub byte: u64,
}

/// What a schema can cost.
///
/// # Errors
/// A schema that could take exponential time or too much stack, that is too large, or that refers to something that is
/// not there.
pub fn of(root: &Value, resolver: &Resolver<'_>, draft: Draft, name: &str) -> Result<Cost, Costly> {
    let mut graph = Graph::default();
    let root = graph.add(root, resolver, draft, name.to_owned())?;
    graph.explore()?;
    graph.cost(root)
}

/// One subschema.
#[derive(Default)]
struct Node {
    place: String,
    /// Values of an `enum` that are compared one by one: each takes the time of a subschema.
    compared: u64,
    /// What a byte of a string or a name costs.
    byte: u64,
    /// What applies to the same value: to which, and whether only under a condition.
    in_place: Vec<(usize, bool)>,
    properties: BTreeMap<String, usize>,
    /// `patternProperties`: any of them may take any name.
    patterns: Vec<usize>,
    /// What takes the names that `properties` does not.
    others: Vec<usize>,
    /// `prefixItems`, or `items` as a list.
    prefix: Vec<usize>,
    /// What takes the items behind the prefix.
    rest: Vec<usize>,
    /// `contains`: takes every item.
    every: Vec<usize>,
    /// It has `unevaluatedProperties` or `unevaluatedItems`, for which conditions are judged once more.
    looks_again: bool,
}

/// A subschema that was found and not read yet.
struct Found<'v, 'r> {
    value: &'v Value,
    resolver: Resolver<'r>,
    draft: Draft,
}

#[derive(Default)]
struct Graph<'v, 'r> {
    nodes: Vec<Node>,
    /// Subschemas by where their value is in memory: one that is referred to twice is one node.
    known: HashMap<*const Value, usize>,
    unread: Vec<(usize, Found<'v, 'r>)>,
}

impl<'v, 'r: 'v> Graph<'v, 'r> {
    /// A subschema that stands in another one.
    fn add(&mut self, value: &'v Value, within: &Resolver<'r>, draft: Draft, place: String) -> Result<usize, Costly> {
        let draft = draft.detect(value);
        match within.in_subresource(draft.create_resource_ref(value)) {
            Ok(resolver) => self.enter(value, resolver, draft, place),
            Err(_) => Err(Costly { place, text: "has an identifier that is not a URI".to_owned() }),
        }
    }

    /// A subschema whose own identifier `resolver` is based at already: a relative one that ends in `/` must not count twice.
    fn enter(
        &mut self,
        value: &'v Value,
        resolver: Resolver<'r>,
        draft: Draft,
        place: String,
    ) -> Result<usize, Costly> {
        if let Some(known) = self.known.get(&std::ptr::from_ref(value)) {
            return Ok(*known);
        }
        if self.nodes.len() == MAX_SUBSCHEMAS {
            return Err(Costly { place, text: format!("the schema has more than {MAX_SUBSCHEMAS} subschemas") });
        }
        let node = self.nodes.len();
        self.known.insert(std::ptr::from_ref(value), node);
        self.nodes.push(Node { place, ..Node::default() });
        self.unread.push((node, Found { value, resolver, draft }));
        Ok(node)
    }

    fn explore(&mut self) -> Result<(), Costly> {
        while let Some((node, found)) = self.unread.pop() {
            if let Value::Object(schema) = found.value {
                let read = self.read(node, schema, &found.resolver, found.draft)?;
                let place = std::mem::take(&mut self.nodes[node].place);
                self.nodes[node] = Node { place, ..read };
            }
        }
        Ok(())
    }

    fn read(
        &mut self,
        node: usize,
        schema: &'v Map<String, Value>,
        resolver: &Resolver<'r>,
        draft: Draft,
    ) -> Result<Node, Costly> {
        let place = self.nodes[node].place.clone();
        let mut read = Node::default();
        let legacy = matches!(draft, Draft::Draft4 | Draft::Draft6 | Draft::Draft7);
        if let Some(Value::String(reference)) = schema.get("$ref") {
            let resolved = resolver.lookup(reference).map_err(|_| Costly {
                place: format!("{place}/$ref"),
                text: format!(
                    "{} is not there; a reference is to this document or to another key of the same ConfigMap, and \
                     nothing is fetched",
                    quoted(reference)
                ),
            })?;
            let (value, within, draft) = resolved.into_inner();
            let target = self.enter(value, within, draft.detect(value), reference.clone())?;
            read.in_place.push((target, false));
            if legacy {
                // What stands beside it does not count in these drafts.
                return Ok(read);
            }
        }
        for (keyword, value) in schema {
            let at = || format!("{place}/{}", escaped(keyword));
            match keyword.as_str() {
                "$dynamicRef" | "$recursiveRef" if !legacy => {
                    let text = "depends on which schema refers to it, so its cost cannot be known; use $ref".to_owned();
                    return Err(Costly { place: at(), text });
                }
                // Strings are looked up in a table.
                "enum"
                    if value.as_array().is_some_and(|all| !all.iter().all(|one| one.is_string() || one.is_null())) =>
                {
                    read.compared = value.as_array().map_or(0, |all| all.len() as u64);
                }
                "allOf" => {
                    for part in self.list(value, resolver, draft, &at())? {
                        read.in_place.push((part, false));
                    }
                }
                "anyOf" | "oneOf" => {
                    for part in self.list(value, resolver, draft, &at())? {
                        read.in_place.push((part, true));
                    }
                }
                "not" | "if" | "then" | "else" => {
                    read.in_place.push((self.add(value, resolver, draft, at())?, true));
                }
                "dependentSchemas" | "dependencies" => {
                    for (name, part) in value.as_object().into_iter().flatten() {
                        if part.is_object() || part.is_boolean() {
                            let part = self.add(part, resolver, draft, format!("{}/{}", at(), escaped(name)))?;
                            read.in_place.push((part, true));
                        }
                    }
                }
                "pattern" => read.byte = read.byte.saturating_add(value.as_str().map_or(0, pattern::cost)),
                "minLength" | "maxLength" | "format" => read.byte = read.byte.saturating_add(1),
                "properties" | "patternProperties" => {
                    for (name, part) in value.as_object().into_iter().flatten() {
                        if keyword == "patternProperties" {
                            read.byte = read.byte.saturating_add(pattern::cost(name));
                        }
                        let part = self.add(part, resolver, draft, format!("{}/{}", at(), escaped(name)))?;
                        match keyword.as_str() {
                            "properties" => drop(read.properties.insert(name.clone(), part)),
                            _ => read.patterns.push(part),
                        }
                    }
                }
                "additionalProperties" => read.others.push(self.add(value, resolver, draft, at())?),
                "unevaluatedProperties" => {
                    read.looks_again = true;
                    read.others.push(self.add(value, resolver, draft, at())?);
                }
                "prefixItems" => read.prefix = self.list(value, resolver, draft, &at())?,
                "items" if value.is_array() => read.prefix = self.list(value, resolver, draft, &at())?,
                "items" | "additionalItems" => read.rest.push(self.add(value, resolver, draft, at())?),
                "unevaluatedItems" => {
                    read.looks_again = true;
                    read.rest.push(self.add(value, resolver, draft, at())?);
                }
                "contains" | "propertyNames" => {
                    let part = self.add(value, resolver, draft, at())?;
                    match keyword.as_str() {
                        "contains" => read.every.push(part),
                        _ => read.patterns.push(part),
                    }
                }
                _ => {}
            }
        }
        Ok(read)
    }

    fn list(
        &mut self,
        value: &'v Value,
        resolver: &Resolver<'r>,
        draft: Draft,
        place: &str,
    ) -> Result<Vec<usize>, Costly> {
        let parts = value.as_array().into_iter().flatten().enumerate();
        parts.map(|(index, part)| self.add(part, resolver, draft, format!("{place}/{index}"))).collect()
    }
}

/// Nodes with how often each applies.
type Weighted = BTreeMap<usize, u64>;

impl Graph<'_, '_> {
    fn cost(&self, root: usize) -> Result<Cost, Costly> {
        let closures = self.closures()?;
        let own: Vec<u64> = closures.iter().map(|closure| self.weight(closure)).collect();
        let mut combinations = 0;
        let mut places = Vec::with_capacity(self.nodes.len());
        for (node, closure) in closures.iter().enumerate() {
            let names = closure.keys().map(|part| self.nodes[*part].properties.len() + self.nodes[*part].prefix.len());
            combinations += (names.sum::<usize>() + 2) * closure.len();
            if combinations > MAX_COMBINATIONS {
                return Err(
                    self.costly(node, "has too many properties in too many alternatives; split it by selectors")
                );
            }
            places.push(self.places(closure));
        }
        let width = widest(root, own, &places, |level, below| {
            if below[root] <= MAX_WIDTH {
                return Ok(());
            }
            let text = match level {
                0 => format!("applies more than {MAX_WIDTH} subschemas to one value; split it by selectors"),
                _ => format!(
                    "applies more than {MAX_WIDTH} subschemas to one value within {level} levels, because parts of it \
                     apply to the same place and lead there again; judge each place by one subschema"
                ),
            };
            Err(self.costly(self.culprit(below, &closures[root], &places[root]), &text))
        })?;
        let of =
            |closure: &Weighted| sum(closure.iter().map(|(node, times)| times.saturating_mul(self.nodes[*node].byte)));
        let byte = widest(root, closures.iter().map(of).collect(), &places, |_, _| Ok(()))?;
        Ok(Cost { width, byte })
    }

    /// The part of the root to blame: the widest of those that apply to it or to what it holds.
    fn culprit(&self, widths: &[u64], closure: &Weighted, places: &[Vec<(usize, u64)>]) -> usize {
        let below = places.iter().flatten().map(|(node, _)| *node);
        let all = closure.keys().copied().chain(below);
        all.max_by_key(|node| (widths[*node], std::cmp::Reverse(*node))).unwrap_or(0)
    }

    fn costly(&self, node: usize, text: &str) -> Costly {
        Costly { place: self.nodes[node].place.clone(), text: text.to_owned() }
    }

    /// For each node: what applies to the value that it applies to, itself included, and how often.
    fn closures(&self) -> Result<Vec<Weighted>, Costly> {
        let mut closures: Vec<Option<(Weighted, usize)>> = vec![None; self.nodes.len()];
        for node in 0..self.nodes.len() {
            self.closure(node, &mut closures, &mut BTreeSet::new())?;
        }
        Ok(closures.into_iter().map(|closure| closure.unwrap_or_default().0).collect())
    }

    /// What a closure costs: how often subschemas apply, and values are compared.
    fn weight(&self, closure: &Weighted) -> u64 {
        sum(closure.iter().map(|(node, times)| times.saturating_mul(self.nodes[*node].compared.saturating_add(1))))
    }

    /// The closure of a node and its longest chain. Recursion ends at [`MAX_CHAIN`].
    fn closure(
        &self,
        node: usize,
        closures: &mut Vec<Option<(Weighted, usize)>>,
        open: &mut BTreeSet<usize>,
    ) -> Result<usize, Costly> {
        if let Some((_, chain)) = &closures[node] {
            return Ok(*chain);
        }
        if !open.insert(node) {
            return Err(self.costly(node, "refers to itself for the same value, without end"));
        }
        let too_long = || {
            let text = format!("more than {MAX_CHAIN} subschemas apply to one value one by the other; refer directly");
            self.costly(node, &text)
        };
        if open.len() > MAX_CHAIN {
            return Err(too_long());
        }
        let (mut all, mut conditional, mut longest) = (Weighted::from([(node, 1)]), Weighted::new(), 0);
        for (part, condition) in &self.nodes[node].in_place {
            longest = longest.max(self.closure(*part, closures, open)?);
            let Some((parts, _)) = &closures[*part] else { continue };
            for (part, times) in parts {
                add(&mut all, *part, *times);
                if *condition {
                    add(&mut conditional, *part, *times);
                }
            }
        }
        if self.nodes[node].looks_again {
            conditional.into_iter().for_each(|(part, times)| add(&mut all, part, times));
        }
        if self.weight(&all) > MAX_WIDTH {
            let text = format!(
                "applies more than {MAX_WIDTH} subschemas to one value; split it by selectors (an enum of more than strings \
                 counts each of its values)"
            );
            return Err(self.costly(node, &text));
        }
        open.remove(&node);
        let chain = longest + 1;
        if chain > MAX_CHAIN {
            return Err(too_long());
        }
        closures[node] = Some((all, chain));
        Ok(chain)
    }

    /// What applies to each place that a value of this closure holds: every name and index that is spelled out, any other
    /// name, and any other index.
    fn places(&self, closure: &Weighted) -> Vec<Vec<(usize, u64)>> {
        let parts = || closure.iter().map(|(node, times)| (&self.nodes[*node], *times));
        let names: BTreeSet<&str> = parts().flat_map(|(node, _)| node.properties.keys().map(String::as_str)).collect();
        // What a pattern takes, `additionalProperties` beside it does not. Where that is so in one part, both are looked at
        // apart; where it is so in several, they are added up, which is never too little.
        let either = parts().filter(|(node, _)| !node.patterns.is_empty() && !node.others.is_empty()).count() == 1;
        let mut places = Vec::new();
        for (name, patterned) in
            names.into_iter().map(Some).chain([None]).flat_map(|name| [(name, true), (name, false)])
        {
            let mut place = Weighted::new();
            for (node, times) in parts() {
                let (patterns, others) = match either && !node.patterns.is_empty() {
                    true => (patterned, !patterned),
                    false => (true, true),
                };
                let patterns = node.patterns.iter().filter(|_| patterns);
                patterns.for_each(|part| add(&mut place, *part, times));
                match name.and_then(|name| node.properties.get(name)) {
                    Some(part) => add(&mut place, *part, times),
                    None => {
                        let others = node.others.iter().filter(|_| others);
                        others.for_each(|part| add(&mut place, *part, times));
                    }
                }
            }
            places.push(place.into_iter().collect());
        }
        let prefix = parts().map(|(node, _)| node.prefix.len()).max().unwrap_or(0);
        for index in 0..=prefix {
            let mut place = Weighted::new();
            for (node, times) in parts() {
                node.every.iter().for_each(|part| add(&mut place, *part, times));
                match node.prefix.get(index) {
                    Some(part) => add(&mut place, *part, times),
                    None => node.rest.iter().for_each(|part| add(&mut place, *part, times)),
                }
            }
            places.push(place.into_iter().collect());
        }
        places.retain(|place: &Vec<_>| !place.is_empty());
        places
    }
}

/// The most that `own` sums up to at one place, over all places at every depth of a value of the root. `check` sees what is
/// so many levels below each node.
fn widest(
    root: usize,
    own: Vec<u64>,
    places: &[Vec<Vec<(usize, u64)>>],
    check: impl Fn(usize, &[u64]) -> Result<(), Costly>,
) -> Result<u64, Costly> {
    let mut below = own;
    let mut widest = below[root];
    for level in 0..=MAX_DEPTH {
        check(level, &below)?;
        let at = |place: &Vec<(usize, u64)>| sum(place.iter().map(|(node, times)| below[*node].saturating_mul(*times)));
        let next: Vec<u64> = places.iter().map(|places| places.iter().map(at).max().unwrap_or(0)).collect();
        if next == below {
            break;
        }
        below = next;
        widest = widest.max(below[root]);
    }
    Ok(widest)
}

fn add(weighted: &mut Weighted, node: usize, times: u64) {
    let sum = weighted.entry(node).or_default();
    *sum = sum.saturating_add(times);
}

fn sum(numbers: impl Iterator<Item = u64>) -> u64 {
    numbers.fold(0, u64::saturating_add)
}

/// A name as a segment of a JSON pointer.
fn escaped(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

/// A text of a schema for a message: bounded, on one line.
fn quoted(text: &str) -> String {
    let short: String = text.chars().take(80).collect();
    format!("{short:?}")
}

#[cfg(test)]
mod tests {
    use referencing::Registry;
    use serde_json::json;

    use super::*;

    fn of(schema: &Value) -> Result<u64, Costly> {
        let draft = Draft::default().detect(schema);
        let registry = Registry::new().draft(draft).add("json-schema:///s", draft.create_resource_ref(schema)).unwrap();
        let registry = registry.prepare().unwrap();
        let uri = referencing::uri::from_str("json-schema:///s").unwrap();
        super::of(schema, &registry.resolver(uri), draft, "#").map(|cost| cost.width)
    }

    /// `anyOf` of three, each `anyOf` of three, so many levels deep.
    fn ladder(levels: usize) -> Value {
        (0..levels).fold(json!({"type": "string"}), |inner, _| json!({"anyOf": [inner, inner, inner]}))
    }

    #[test]
    fn what_doubles_from_level_to_level_is_refused_where_it_does() {
        // In place: 3^6 is under the bound, 3^14 would take a minute for each message.
        assert!(of(&ladder(5)).is_ok());
        assert!(of(&ladder(7)).unwrap_err().text.contains("more than 1000 subschemas to one value"));
        // By references, which write the same ladder in a few bytes.
        let mut defs = Map::new();
        for level in 0..20 {
            let next = json!({"$ref": format!("#/$defs/l{}", level + 1)});
            defs.insert(format!("l{level}"), json!({"allOf": [next, next]}));
        }
        defs.insert("l20".to_owned(), json!(true));
        assert!(of(&json!({"$ref": "#/$defs/l0", "$defs": defs})).is_err());
        // Down the message: each level is judged twice by the one above.
        let twice =
            json!({"anyOf": [{"properties": {"next": {"$ref": "#"}}}, {"properties": {"next": {"$ref": "#"}}}]});
        let refused = of(&twice).unwrap_err();
        assert!(refused.text.contains("lead there again"), "{refused:?}");
        let lists = json!({"oneOf": [{"items": {"$ref": "#"}}, {"prefixItems": [{"$ref": "#"}]}]});
        assert!(of(&lists).unwrap_err().text.contains("lead there again"));
        let looks = json!({"anyOf": [{"properties": {"a": {"$ref": "#"}}}], "unevaluatedProperties": false});
        assert!(of(&looks).is_err());
    }

    #[test]
    fn recursion_that_judges_each_place_once_is_accepted() {
        for tree in [
            json!({"properties": {"left": {"$ref": "#"}, "right": {"$ref": "#"}}}),
            json!({"properties": {"a": {"$ref": "#"}}, "additionalProperties": {"$ref": "#"}}),
            json!({"patternProperties": {"^a": {"$ref": "#"}}, "additionalProperties": {"$ref": "#"}}),
            json!({"prefixItems": [{"$ref": "#"}], "items": {"$ref": "#"}}),
            json!({"anyOf": [{"type": "string"}, {"properties": {"a": {"$ref": "#"}}}, {"items": {"$ref": "#"}}]}),
            json!({"allOf": [{"properties": {"a": {"$ref": "#"}}}], "unevaluatedProperties": false}),
            json!({"$schema": "http://json-schema.org/draft-07/schema#", "$ref": "#/definitions/n",
                "definitions": {"n": {"properties": {"kids": {"items": {"$ref": "#/definitions/n"}}}}}}),
        ] {
            assert!(of(&tree).is_ok(), "{tree}: {:?}", of(&tree));
        }
        // A union of many kinds of messages is wide at its top and nowhere else.
        let kind = |n: usize| json!({"properties": {"kind": {"const": n}, "a": {"type": "string"}, "b": {}}});
        let union = json!({"oneOf": (0..200).map(kind).collect::<Vec<_>>()});
        assert_eq!(of(&union), Ok(201));
    }

    #[test]
    fn what_takes_the_stack_or_cannot_be_known_is_refused() {
        for (schema, text) in [
            (json!({"$ref": "#"}), "refers to itself for the same value"),
            (json!({"allOf": [{"anyOf": [{"$ref": "#"}]}]}), "refers to itself for the same value"),
            ((0..40).fold(json!({}), |inner, _| json!({"not": inner})), "more than 32 subschemas apply"),
            (json!({"$ref": "#/$defs/none"}), "is not there"),
            (json!({"properties": {"a": {"$dynamicRef": "#x"}}}), "use $ref"),
            (json!({"$schema": "https://json-schema.org/draft/2019-09/schema", "$recursiveRef": "#"}), "use $ref"),
        ] {
            let refused = of(&schema).unwrap_err();
            assert!(refused.text.contains(text), "{schema}: {refused:?}");
        }
        let many: Map<String, Value> = (0..MAX_SUBSCHEMAS).map(|n| (n.to_string(), json!({}))).collect();
        assert!(of(&json!({"properties": many})).unwrap_err().text.contains("more than 20000 subschemas"));
    }

    #[test]
    fn an_identifier_counts_once_for_what_a_reference_leads_to() {
        // Counted twice, it would lead to a/a/deep, whose cost is not that of what judges.
        let schema = json!({
            "$ref": "#/$defs/base",
            "$defs": {
                "base": {"$id": "a/", "items": {"$ref": "deep"}},
                "deep": {"$id": "a/deep", "anyOf": [ladder(4), ladder(4)]},
                "flat": {"$id": "a/a/deep"},
            },
        });
        assert!(of(&schema).unwrap() > 200);
    }

    #[test]
    fn values_of_an_enum_count_unless_they_are_looked_up() {
        let strings: Vec<Value> = (0..5_000).map(|number| json!(format!("s{number}"))).chain([json!(null)]).collect();
        assert_eq!(of(&json!({"items": {"enum": strings}})), Ok(1));
        assert_eq!(of(&json!({"items": {"enum": ["a", 1, 2.5]}})), Ok(4));
        let numbers: Vec<u64> = (0..5_000).collect();
        let refused = of(&json!({"items": {"enum": numbers}})).unwrap_err();
        assert_eq!(refused.place, "#/items");
        assert!(refused.text.contains("an enum of more than strings counts each of its values"), "{refused:?}");
    }

    #[test]
    fn the_place_is_named() {
        let schema = json!({"properties": {"a/b": {"items": {"allOf": [{"$ref": "#/nowhere"}]}}}});
        assert_eq!(of(&schema).unwrap_err().place, "#/properties/a~1b/items/allOf/0/$ref");
    }
}
