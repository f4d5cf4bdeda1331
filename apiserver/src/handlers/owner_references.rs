//! Owners that are listed twice are listed once, and the client is told.

use apimachinery::object::ObjectExt as _;
use serde_json::Value;

use crate::request::notes::Warnings;

/// Takes repeated owners out; `admitted` after mutating admission had its turn.
pub fn dedup(warnings: &Warnings, object: &mut Value, admitted: bool) {
    let repeated = repeated(object);
    if repeated.is_empty() {
        return;
    }
    let when = if admitted { " after mutating admission happens" } else { "" };
    warnings.push(format!(
        ".metadata.ownerReferences contains duplicate entries{when}; API server dedups owner references in 1.20+, and may reject such requests as early as 1.24; please fix your requests; duplicate UID(s) observed: {}",
        repeated.join(", ")
    ));
}

/// Takes out what equals an earlier owner, and answers the UIDs of that.
fn repeated(object: &mut Value) -> Vec<String> {
    let owners = object.list_at(&["metadata", "ownerReferences"]);
    let is_repeated = |at: usize| owners[..at].contains(&owners[at]);
    let mut at = 0;
    if !(1..owners.len()).any(is_repeated) {
        return Vec::new();
    }
    let keep: Vec<bool> = (0..owners.len()).map(|at| !is_repeated(at)).collect();
    let uids = owners.iter().zip(&keep).filter(|(_, keep)| !**keep);
    let uids = uids.map(|(owner, _)| owner.str_at(&["uid"]).unwrap_or_default().to_string()).collect();
    if let Some(Value::Array(owners)) = object.pointer_mut("/metadata/ownerReferences") {
        owners.retain(|_| {
            at += 1;
            keep[at - 1]
        });
    }
    uids
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_equals_go() {
        let check = |owners: Value, uids: &[&str], left: Value| {
            let mut object = json!({"metadata": {"ownerReferences": owners}});
            assert_eq!(repeated(&mut object), uids);
            assert_eq!(object["metadata"]["ownerReferences"], left);
        };
        let owner = |uid: &str, name: &str| json!({"uid": uid, "name": name});
        check(json!([owner("1", "a"), owner("2", "a")]), &[], json!([owner("1", "a"), owner("2", "a")]));
        check(json!([owner("1", "a"), owner("1", "b")]), &[], json!([owner("1", "a"), owner("1", "b")]));
        check(
            json!([owner("1", "a"), owner("2", "b"), owner("1", "a")]),
            &["1"],
            json!([owner("1", "a"), owner("2", "b")]),
        );
    }
}
