//! What a spec says of the content of messages: formats, and which schema judges which document. Knows no ConfigMap.

use serde_json::Value;

use crate::api::route::Messages;
use crate::api::route::content as api;
use crate::api::route::messages::MessageType;
use crate::api::route::reference::ConfigMapKeyRef;
use crate::api::status::ConditionType as Type;
use crate::compile::problem::quote;
use crate::compile::spec::diagnostics::Diagnostics;
use crate::compile::spec::direction::Direction;
use crate::compile::spec::layers::Layers;
use crate::content::format::Format;
use crate::content::pointer::Pointer;
use crate::content::rules::Literal;

/// The most characters of a string that a selector compares with.
const MAX_VALUE: usize = 128;

/// What a spec says of the messages of both directions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ContentDraft {
    /// Of clients; `None`: they are not read.
    pub from_client: Option<RulesDraft>,
    /// Of backends.
    pub from_backend: Option<RulesDraft>,
}

/// What a spec says of the messages of one direction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RulesDraft {
    /// How documents stand in a message.
    pub format: Format,
    /// Schemas, in the order in which they are tried.
    pub schemas: Vec<SchemaDraft>,
    /// Whether a document that no selector takes passes.
    pub unmatched: bool,
}

/// One schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SchemaDraft {
    /// Its name.
    pub name: String,
    /// What must stand where.
    pub selector: Vec<(Pointer, Literal)>,
    /// What it judges.
    pub payload: Pointer,
    /// Where it is.
    pub reference: ConfigMapKeyRef,
}

/// Reads what a spec says of the content of messages.
pub(super) fn read(layers: &Layers<'_, Messages>, diagnostics: &mut Diagnostics) -> ContentDraft {
    let (client, backend) = (Direction::from_client(layers), Direction::from_backend(layers));
    let draft = ContentDraft { from_client: rules(&client, diagnostics), from_backend: rules(&backend, diagnostics) };
    let unvalidated = |rules: &Option<RulesDraft>| rules.as_ref().is_none_or(|rules| rules.schemas.is_empty());
    let warning = match (unvalidated(&draft.from_client), unvalidated(&draft.from_backend)) {
        (true, _) => Some((&client, "the backend")),
        (false, true) => Some((&backend, "the client")),
        (false, false) => None,
    };
    if let Some((direction, who)) = warning {
        let field = format!("spec.{}", direction.below("schemas"));
        let text = format_args!("is not set; {who} must validate the content of messages");
        diagnostics.warn(Type::MessagesUnvalidated, field, text);
    }
    draft
}

fn rules(direction: &Direction<'_>, diagnostics: &mut Diagnostics) -> Option<RulesDraft> {
    let Direction { format, schemas, unmatched, types, .. } = direction;
    if let Some(set) = schemas
        && set.layer != "spec"
    {
        let text = "cannot be a default, because it names objects of a namespace; set it in routes";
        diagnostics.invalid(set.field(&direction.below("schemas")), text);
        return None;
    }
    let field = format!("spec.{}", direction.below("schemas"));
    let list = schemas.map_or(&[][..], |set| set.value);
    if let Some(set) = unmatched
        && list.is_empty()
        && set.layer == "spec"
    {
        diagnostics.invalid(set.field(&direction.below("unmatched")), "needs schemas; add them or remove it");
    }
    if format.is_none() && list.is_empty() {
        return None;
    }
    if let Some(types) = types
        && !types.value.contains(&MessageType::Text)
    {
        let text = "must contain Text, because only text messages are judged by format and schemas";
        diagnostics.invalid(types.field(&direction.below("types")), text);
    }
    let mut drafts = Vec::with_capacity(list.len());
    for (index, schema) in list.iter().enumerate() {
        let field = format!("{field}[{index}]");
        if list.iter().take(index).any(|earlier| earlier.name == schema.name) {
            let text = format_args!("{} is used twice; give each schema its own name", quote(&schema.name));
            diagnostics.invalid(format_args!("{field}.name"), text);
        }
        diagnostics.core_group(&schema.reference.group, format_args!("{field}.ref"));
        drafts.extend(self::schema(&field, schema, diagnostics));
    }
    let format = match format.map(|set| set.value) {
        None | Some(api::Format::JSON) => Format::Json,
        Some(api::Format::JSONRecords) => Format::JsonRecords,
        Some(api::Format::EngineIO) => Format::EngineIo,
    };
    let unmatched = unmatched.is_some_and(|set| *set.value == api::Unmatched::Allow);
    Some(RulesDraft { format, schemas: drafts, unmatched })
}

fn schema(field: &str, schema: &api::MessageSchema, diagnostics: &mut Diagnostics) -> Option<SchemaDraft> {
    let api::MessageSchema { name, selector, payload, reference } = schema;
    let before = diagnostics.problems.len();
    let mut read = |field: String, text: &str| match Pointer::read(text) {
        Ok(pointer) => Some(pointer),
        Err(why) => {
            diagnostics.invalid(field, format_args!("{} {why}", quote(text)));
            None
        }
    };
    let payload = read(format!("{field}.payload"), payload.as_deref().unwrap_or_default());
    let mut entries = Vec::new();
    for (index, entry) in selector.iter().flatten().enumerate() {
        let pointer = read(format!("{field}.selector[{index}].pointer"), &entry.pointer);
        entries.push((index, pointer, &entry.value));
    }
    let mut selector = Vec::with_capacity(entries.len());
    for (index, pointer, value) in entries {
        match literal(value) {
            Ok(literal) => selector.extend(pointer.map(|pointer| (pointer, literal))),
            Err(why) => diagnostics.invalid(format_args!("{field}.selector[{index}].value"), why),
        }
    }
    let sound = diagnostics.problems.len() == before;
    let payload = payload.filter(|_| sound)?;
    Some(SchemaDraft { name: name.clone(), selector, payload, reference: reference.clone() })
}

fn literal(value: &Value) -> Result<Literal, String> {
    match value {
        Value::Null => Ok(Literal::Null),
        Value::Bool(value) => Ok(Literal::Boolean(*value)),
        Value::Number(value) => Ok(Literal::Number(value.clone())),
        Value::String(text) if text.chars().count() <= MAX_VALUE => Ok(Literal::String(text.as_str().into())),
        Value::String(_) => Err(format!("must have at most {MAX_VALUE} characters")),
        Value::Array(_) | Value::Object(_) => Err("must be a string, a number, true, false or null".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(yaml: &str) -> (ContentDraft, Diagnostics) {
        let messages: Messages = serde_saphyr::from_str(yaml).unwrap();
        let mut diagnostics = Diagnostics::default();
        let draft = super::read(&Layers { route: Some(&messages), default: None }, &mut diagnostics);
        (draft, diagnostics)
    }

    const REF: &str = "ref: {name: schemas, key: say.json}";

    #[test]
    fn a_direction_is_read_where_it_has_a_format_or_schemas() {
        let (draft, diagnostics) = read("{}");
        assert_eq!((draft, diagnostics.problems), (ContentDraft::default(), vec![]));
        let (draft, _) = read("{fromBackend: {format: EngineIO}}");
        let backend = draft.from_backend.unwrap();
        assert!(draft.from_client.is_none());
        assert_eq!((backend.format, backend.schemas.len(), backend.unmatched), (Format::EngineIo, 0, false));
        let (draft, diagnostics) = read(&format!(
            "{{fromClient: {{unmatched: Allow, schemas: [{{name: say, payload: /data, {REF}, selector: [
                {{pointer: /0, value: 2}}, {{pointer: /a, value: x}}, {{pointer: /b, value: true}},
                {{pointer: /c, value: null}}]}}]}}}}"
        ));
        assert_eq!(diagnostics.problems, []);
        let client = draft.from_client.unwrap();
        assert!(client.unmatched && client.format == Format::Json);
        let literals: Vec<_> = client.schemas[0].selector.iter().map(|(_, literal)| literal.clone()).collect();
        let expected = [Literal::Number(2.into()), Literal::String("x".into()), Literal::Boolean(true), Literal::Null];
        assert_eq!(literals, expected);
        assert_eq!(client.schemas[0].payload.as_str(), "/data");
    }

    #[test]
    fn the_warning_names_the_direction_that_nothing_validates() {
        let fields =
            |yaml: &str| read(yaml).1.warnings.into_iter().map(|(_, problem)| problem.field).collect::<Vec<_>>();
        let schemas = format!("{{schemas: [{{name: a, {REF}}}]}}");
        assert_eq!(fields("{}"), ["spec.messages.fromClient.schemas"]);
        assert_eq!(fields("{fromClient: {format: JSON}}"), ["spec.messages.fromClient.schemas"]);
        assert_eq!(fields(&format!("{{fromClient: {schemas}}}")), ["spec.messages.fromBackend.schemas"]);
        assert!(fields(&format!("{{fromClient: {schemas}, fromBackend: {schemas}}}")).is_empty());
    }

    #[test]
    fn mistakes_are_named_by_their_fields() {
        for (yaml, field) in [
            (format!("schemas: [{{name: a, {REF}}}, {{name: a, {REF}}}]"), "schemas[1].name"),
            (format!("schemas: [{{name: a, payload: data, {REF}}}]"), "schemas[0].payload"),
            (
                format!("schemas: [{{name: a, {REF}, selector: [{{pointer: a, value: 1}}]}}]"),
                "schemas[0].selector[0].pointer",
            ),
            (
                format!("schemas: [{{name: a, {REF}, selector: [{{pointer: /a, value: [1]}}]}}]"),
                "schemas[0].selector[0].value",
            ),
            (format!("types: [Binary], schemas: [{{name: a, {REF}}}]"), "types"),
            ("unmatched: Deny".to_owned(), "unmatched"),
        ] {
            let (_, diagnostics) = read(&format!("{{fromClient: {{{yaml}}}}}"));
            let [problem] = diagnostics.problems.as_slice() else { panic!("{yaml}: {:?}", diagnostics.problems) };
            assert_eq!(problem.field, format!("spec.messages.fromClient.{field}"), "{problem}");
        }
    }

    #[test]
    fn schemas_are_no_default() {
        let messages: Messages =
            serde_saphyr::from_str(&format!("{{fromClient: {{schemas: [{{name: a, {REF}}}]}}}}")).unwrap();
        let mut diagnostics = Diagnostics::default();
        super::read(&Layers { route: None, default: Some(&messages) }, &mut diagnostics);
        assert!(diagnostics.problems[0].to_string().starts_with("defaults.messages.fromClient.schemas: cannot be"));
    }
}
