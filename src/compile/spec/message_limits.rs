//! The limits of messages: types, size and frames of each direction.

use crate::api::route::Messages;
use crate::api::route::messages::MessageType;
use crate::api::status::ConditionType as Type;
use crate::compile::spec::ceiling::{Ceiling, NamespaceCeilings};
use crate::compile::spec::diagnostics::Diagnostics;
use crate::compile::spec::direction::Direction;
use crate::compile::spec::layers::{Layers, Set};
use crate::compile::spec::number::{count, size};
use crate::ws::message::Limits;

/// Default: the largest message of a client, in bytes.
pub const CLIENT_SIZE: u64 = 64 << 10;
/// The most that `fromClient.maxSize` may be set to.
pub const MAX_CLIENT_SIZE: u64 = 16 << 20;
/// Default: the largest message of a backend, in bytes.
pub const BACKEND_SIZE: u64 = 16 << 20;
/// The most that `fromBackend.maxSize` may be set to.
pub const MAX_BACKEND_SIZE: u64 = 1 << 30;
/// Default: frames of one message of a client, where its size asks for no more, and the most that may be set.
const CLIENT_FRAGMENTS: (u32, u32) = (1024, 1_000_000);
/// The same of a backend: many servers stream one message in small frames.
const BACKEND_FRAGMENTS: (u32, u32) = (65_536, 10_000_000);
/// Default: a message may have a frame for so many bytes of its largest size.
const FRAGMENT: u64 = 256;

/// The limits of messages of clients and of backends.
pub(super) fn messages(
    layers: &Layers<'_, Messages>,
    ceilings: &NamespaceCeilings,
    diagnostics: &mut Diagnostics,
) -> (Limits, Limits) {
    let ceiling = ceilings.client_size.as_ref();
    let bounds = Bounds { size: (CLIENT_SIZE, MAX_CLIENT_SIZE), ceiling, fragments: CLIENT_FRAGMENTS };
    let from_client = limits(&Direction::from_client(layers), &bounds, diagnostics);
    let ceiling = ceilings.backend_size.as_ref();
    let bounds = Bounds { size: (BACKEND_SIZE, MAX_BACKEND_SIZE), ceiling, fragments: BACKEND_FRAGMENTS };
    (from_client, limits(&Direction::from_backend(layers), &bounds, diagnostics))
}

/// What bounds the messages of a direction.
struct Bounds<'a> {
    /// The default of the largest message, and the most that may be set.
    size: (u64, u64),
    /// The ceiling of the largest message.
    ceiling: Option<&'a Ceiling<u64>>,
    /// The least default of its frames, and the most that may be set.
    fragments: (u32, u32),
}

/// The limits of one direction.
fn limits(direction: &Direction<'_>, bounds: &Bounds<'_>, diagnostics: &mut Diagnostics) -> Limits {
    let (text, binary) = types(direction.types, &direction.below("types"), diagnostics);
    let max_size = size(direction.max_size, &direction.below("maxSize"), bounds.size, bounds.ceiling, diagnostics);
    let field = direction.below("maxFragments");
    let max_fragments = fragments(direction.max_fragments, &field, max_size, bounds.fragments, diagnostics);
    Limits { text, binary, max_size, max_fragments, ..Limits::CONTROL_ONLY }
}

/// Whether text and whether binary messages pass; both where nothing is set.
fn types(set: Option<Set<'_, [MessageType]>>, field: &str, diagnostics: &mut Diagnostics) -> (bool, bool) {
    let Some(set) = set else { return (true, true) };
    if set.value.is_empty() {
        diagnostics.invalid(set.field(field), "must not be empty; list Text, Binary or both");
    }
    (set.value.contains(&MessageType::Text), set.value.contains(&MessageType::Binary))
}

/// Frames of one message: as many as its largest size asks for, unless they are set.
fn fragments(
    set: Option<Set<'_, i32>>,
    field: &str,
    max_size: u64,
    (least, most): (u32, u32),
    diagnostics: &mut Diagnostics,
) -> u32 {
    let default = u32::try_from(max_size.div_ceil(FRAGMENT)).map_or(most, |fragments| fragments.clamp(least, most));
    let Some(set) = set else { return default };
    let at = set.field(field);
    let fragments = count(Some(set), field, most, diagnostics).unwrap_or(default);
    if fragments > default {
        let text = format_args!("{fragments} is more than the default of {default}");
        diagnostics.warn(Type::LimitsRelaxed, at, text);
    }
    fragments
}
