//! What is wrong with the member `ceilings` of the settings file beyond its types.

use std::collections::BTreeSet;

use crate::api::ceilings::Ceilings;
use crate::api::scalar::is_label;

/// The key below `ceilings`, and the fix.
pub(super) fn check(ceilings: &Ceilings) -> Option<(String, String)> {
    let mut seen = BTreeSet::new();
    for (index, entry) in ceilings.namespaces.iter().enumerate() {
        if entry.names.is_empty() == entry.match_labels.is_empty() {
            let fix = "must have either names or matchLabels, with at least one of them";
            return Some((format!("namespaces[{index}]"), fix.to_owned()));
        }
        for (position, name) in entry.names.iter().enumerate() {
            let at = format!("namespaces[{index}].names[{position}]");
            if name.len() > 63 || !is_label(name) {
                return Some((at, "write the name of a namespace in lower case".to_owned()));
            }
            if !seen.insert(name) {
                return Some((at, format!("{name:?} is named twice; remove one")));
            }
        }
    }
    None
}
