//! Who owns what an apply would change, as the client reads it.

use super::{Entry, Operation};
use crate::fieldset::{PathElement, path_text};
use crate::gotext::quote;
use crate::status::{Cause, Status};

/// The answer to an apply that others stand in the way of.
pub(super) fn status(conflicts: &[(Entry, Vec<PathElement>)]) -> Status {
    let causes = conflicts
        .iter()
        .map(|(entry, path)| {
            Cause::new("FieldManagerConflict", format!("conflict with {}", show_manager(entry)), path_text(path))
        })
        .collect();
    if let [(entry, path)] = conflicts {
        let message =
            format!("Apply failed with 1 conflict: conflict with {}: {}", show_manager(entry), path_text(path));
        return Status::apply_conflict(causes, message);
    }
    let mut by_manager: Vec<(String, String, Vec<String>)> = Vec::new();
    for (entry, path) in conflicts {
        let id = entry.identifier();
        match by_manager.iter_mut().find(|(known, ..)| *known == id) {
            Some((.., paths)) => paths.push(path_text(path)),
            None => by_manager.push((id, show_manager(entry), vec![path_text(path)])),
        }
    }
    by_manager.sort();
    let mut lines = Vec::new();
    for (_, manager, paths) in by_manager {
        lines.push(format!("conflicts with {manager}:"));
        lines.extend(paths.into_iter().map(|p| format!("- {p}")));
    }
    Status::apply_conflict(causes, format!("Apply failed with {} conflicts: {}", conflicts.len(), lines.join("\n")))
}

fn show_manager(entry: &Entry) -> String {
    let mut text = quote(&entry.manager);
    if !entry.subresource.is_empty() {
        text.push_str(&format!(" with subresource {}", quote(&entry.subresource)));
    }
    if entry.operation == Operation::Update {
        text.push_str(&format!(" using {}", entry.api_version));
    }
    text
}
