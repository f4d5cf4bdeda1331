//! `AdmissionReview`: what is asked and what is answered.

use apimachinery::object::ObjectExt as _;
use apimachinery::status::Status;
use serde::Deserialize as _;
use serde_json::{Value, json};

use super::super::expression;
use crate::admission::Attributes;
use crate::registry::Served;

/// Warnings and annotations beyond this are dropped.
const MOST: usize = 100;

/// A verified answer.
pub struct Answer {
    pub allowed: bool,
    /// Why not.
    pub status: Option<Status>,
    /// A JSON patch, as the webhook wrote it.
    pub patch: Vec<u8>,
    pub warnings: Vec<String>,
    pub annotations: Vec<(String, String)>,
}

/// The uid of a review, and the review.
pub fn request(
    version: &str,
    attributes: &Attributes<'_>,
    matched: &Served,
    object: &Value,
    old: &Value,
) -> (String, Vec<u8>) {
    let uid = uuid::Uuid::new_v4().to_string();
    let mut request = expression::request(attributes, matched, true);
    request["uid"] = uid.clone().into();
    request["object"] = object.clone();
    request["oldObject"] = old.clone();
    let review = json!({
        "kind": "AdmissionReview",
        "apiVersion": format!("admission.k8s.io/{version}"),
        "request": request,
    });
    (uid, review.to_string().into_bytes())
}

/// Reads an answer.
///
/// # Errors
/// In upstream's words, when it is none.
pub fn verify(version: &str, uid: &str, body: &[u8], mutating: bool) -> Result<Answer, String> {
    let review = apimachinery::json::parse(body).map_err(|error| error.to_string())?;
    let Some(response) = review.get("response").filter(|response| response.is_object()) else {
        return Err("webhook response was absent".to_string());
    };
    let patch = match response.get("patch") {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::String(text)) => {
            base64::Engine::decode(&base64::engine::general_purpose::STANDARD, text).map_err(|e| e.to_string())?
        }
        Some(_) => return Err("json: cannot unmarshal response.patch into Go value of type []uint8".to_string()),
    };
    let patch_type = response.get("patchType").filter(|value| !value.is_null());
    if version == "v1" {
        let found = response.str_at(&["uid"]).unwrap_or_default();
        if found != uid {
            return Err(format!("expected response.uid={uid:?}, got {found:?}"));
        }
        let kind = format!("{}, Kind={}", review.api_version(), review.kind());
        if kind != "admission.k8s.io/v1, Kind=AdmissionReview" {
            let want = "admission.k8s.io/v1, Kind=AdmissionReview";
            return Err(format!("expected webhook response of {want}, got {kind}"));
        }
        match (mutating, patch.is_empty(), patch_type) {
            (true, false, None) => {
                return Err("webhook returned response.patch but not response.patchType".to_string());
            }
            (true, true, Some(_)) => {
                return Err("webhook returned response.patchType but not response.patch".to_string());
            }
            (true, _, Some(Value::String(of))) if of.is_empty() => {
                return Err("webhook returned invalid response.patchType of \"\"".to_string());
            }
            (true, false, Some(of)) if of != "JSONPatch" => {
                return Err(format!("unsupported patch type {:?}", of.as_str().unwrap_or_default()));
            }
            (false, false, _) => return Err("validating webhook may not return response.patch".to_string()),
            (false, _, Some(_)) => return Err("validating webhook may not return response.patchType".to_string()),
            _ => {}
        }
    }
    let annotations = response.map_at(&["auditAnnotations"]).into_iter().flatten();
    Ok(Answer {
        allowed: response.bool_at(&["allowed"]).unwrap_or(false),
        // Webhooks rarely write the kind of the status, and need not.
        status: match response.get("status") {
            None | Some(Value::Null) => None,
            Some(status) => Some(Status::deserialize(status).map_err(|error| error.to_string())?),
        },
        patch: if mutating { patch } else { Vec::new() },
        warnings: response
            .list_at(&["warnings"])
            .iter()
            .filter_map(Value::as_str)
            .take(MOST)
            .map(str::to_string)
            .collect(),
        annotations: annotations
            .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_string())))
            .take(MOST)
            .collect(),
    })
}

/// The status of a refusal: the webhook's own, made sure to be a failure that names it.
pub fn refusal(name: &str, status: Option<Status>) -> Status {
    let denied_by = format!("admission webhook {name:?} denied the request");
    let mut status = status.unwrap_or_default();
    status.code = status.code.max(400);
    status.status = "Failure".to_string();
    status.message = match (status.message.as_str(), status.reason.as_ref()) {
        ("", "") => format!("{denied_by} without explanation"),
        ("", reason) => format!("{denied_by}: {reason}"),
        (message, _) => format!("{denied_by}: {message}"),
    };
    status
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_verified() {
        let review = |response: Value| {
            json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}).to_string()
        };
        let check = |body: &str, mutating| verify("v1", "u", body.as_bytes(), mutating).err().unwrap_or_default();
        assert_eq!(check(&review(Value::Null), true), "webhook response was absent");
        assert_eq!(check(&review(json!({"uid": "x"})), true), "expected response.uid=\"u\", got \"x\"");
        let patch = json!({"uid": "u", "allowed": true, "patch": "W10=", "patchType": "JSONPatch"});
        assert_eq!(check(&review(patch.clone()), true), "");
        assert_eq!(check(&review(patch), false), "validating webhook may not return response.patch");
        let refused = json!({"uid": "u", "allowed": false, "status": {"message": "no", "code": 403}});
        let answer = verify("v1", "u", review(refused).as_bytes(), false).unwrap_or_else(|error| panic!("{error}"));
        let status = answer.status.unwrap_or_default();
        assert_eq!((status.code, status.message.as_str()), (403, "no"), "a status needs no kind");
        let untyped = json!({"uid": "u", "allowed": true, "patch": "W10="});
        assert_eq!(check(&review(untyped), true), "webhook returned response.patch but not response.patchType");
        assert_eq!(
            check(r#"{"apiVersion":"admission.k8s.io/v1beta1","kind":"AdmissionReview","response":{"uid":"u"}}"#, true),
            "expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview, got admission.k8s.io/v1beta1, Kind=AdmissionReview"
        );
    }

    #[test]
    fn refusals_name_the_webhook() {
        let text = |status: Option<Status>| {
            let status = refusal("a.b.c", status);
            (status.code, status.message)
        };
        assert_eq!(text(None), (400, "admission webhook \"a.b.c\" denied the request without explanation".to_string()));
        let status = Status { message: "no".to_string(), code: 403, ..Status::default() };
        assert_eq!(text(Some(status)), (403, "admission webhook \"a.b.c\" denied the request: no".to_string()));
    }
}
