//! `AdmissionReview`: what is asked and what is answered.

use apimachinery::gotext;
use apimachinery::object::ObjectExt as _;
use apimachinery::status::Status;
use serde::Deserialize as _;
use serde_json::{Value, json};

use super::super::expression;
use crate::admission::Attributes;
use crate::registry::Served;

/// Warnings and annotations beyond this are dropped.
const MOST: usize = 100;

/// The only kind of patches.
pub const JSON_PATCH: &str = "JSONPatch";

/// A verified answer.
pub struct Answer {
    pub allowed: bool,
    /// Why not.
    pub status: Option<Status>,
    /// A JSON patch, as the webhook wrote it.
    pub patch: Vec<u8>,
    /// How the patch is to be read.
    pub patch_type: String,
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

/// Why an answer is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unusable {
    /// It cannot be read.
    Unreadable(String),
    /// It says what it must not.
    Invalid(String),
}

/// The document that an answer is, in JSON or YAML.
fn document(answer: &crate::webhook::Answer) -> Result<Value, String> {
    let unparsable = |error: &dyn std::fmt::Display| format!("couldn't get version/kind; json parse error: {error}");
    if answer.body.is_empty() {
        let (code, kind) = (answer.code.as_u16(), &answer.content_type);
        return Err(format!("0-length response with status code: {code} and content type: {kind}"));
    }
    let text = answer.body.trim_ascii_start();
    let tree = if text.starts_with(b"{") {
        apimachinery::json::parse(&answer.body).map_err(|error| unparsable(&error))?
    } else {
        let text = String::from_utf8_lossy(&answer.body);
        apimachinery::yaml::parse(&text).map_err(|error| unparsable(&error))?
    };
    if !tree.is_object() {
        let found = gotext::json_kind(&tree);
        return Err(unparsable(&format!(
            "json: cannot unmarshal {found} into Go value of type struct {{ APIVersion string \"json:\\\"apiVersion,omitempty\\\"\"; Kind string \"json:\\\"kind,omitempty\\\"\" }}"
        )));
    }
    Ok(tree)
}

/// The fields of a response, each of its Go type.
fn check_types(response: &Value) -> Result<(), String> {
    type Is = fn(&Value) -> bool;
    let texts: Is = |value| value.as_array().is_some_and(|list| list.iter().all(Value::is_string));
    let map: Is = |value| value.as_object().is_some_and(|map| map.values().all(Value::is_string));
    let fields: [(&str, &str, Is); 7] = [
        ("uid", "types.UID", Value::is_string),
        ("allowed", "bool", Value::is_boolean),
        ("status", "v1.Status", Value::is_object),
        ("patch", "[]uint8", Value::is_string),
        ("patchType", "v1.PatchType", Value::is_string),
        ("auditAnnotations", "map[string]string", map),
        ("warnings", "[]string", texts),
    ];
    for (name, go, is) in fields {
        if let Some(value) = response.get(name).filter(|value| !value.is_null() && !is(value)) {
            let found = gotext::json_kind(value);
            return Err(format!(
                "json: cannot unmarshal {found} into Go struct field AdmissionResponse.response.{name} of type {go}"
            ));
        }
    }
    Ok(())
}

/// Checks that a document is a review of this version, as far as reading it tells.
fn check_kind(version: &str, review: &Value) -> Result<(), String> {
    let (have, kind) = (review.api_version(), review.kind());
    // What is missing is taken for the expected.
    let own = format!("admission.k8s.io/{version}");
    let (have, kind) =
        (if have.is_empty() { &own } else { have }, if kind.is_empty() { "AdmissionReview" } else { kind });
    let known = matches!(have, "admission.k8s.io/v1" | "admission.k8s.io/v1beta1") && kind == "AdmissionReview";
    if !known {
        return Err(format!(
            "no kind {kind:?} is registered for version {have:?} in scheme \"k8s.io/apiserver/pkg/util/webhook/client.go:71\""
        ));
    }
    if have != own {
        let other = have.trim_start_matches("admission.k8s.io/");
        return Err(format!("converting ({other}.AdmissionReview) to ({version}.AdmissionReview): unknown conversion"));
    }
    Ok(())
}

/// Reads an answer.
///
/// # Errors
/// In upstream's words, when it is none.
pub fn verify(version: &str, uid: &str, answer: &crate::webhook::Answer, mutating: bool) -> Result<Answer, Unusable> {
    let unreadable = Unusable::Unreadable;
    let invalid = |text: &str| Err(Unusable::Invalid(text.to_string()));
    let review = document(answer).map_err(unreadable)?;
    check_kind(version, &review).map_err(unreadable)?;
    let response = match review.get("response") {
        None | Some(Value::Null) => return invalid("webhook response was absent"),
        Some(response @ Value::Object(_)) => response,
        Some(other) => {
            let text = format!(
                "json: cannot unmarshal {} into Go struct field AdmissionReview.response of type {version}.AdmissionResponse",
                gotext::json_kind(other)
            );
            return Err(unreadable(text));
        }
    };
    check_types(response).map_err(unreadable)?;
    let status = match response.get("status") {
        None | Some(Value::Null) => None,
        // Webhooks rarely write the kind of the status, and need not.
        Some(status) => {
            Some(Status::deserialize(without_nulls(status)).map_err(|error| unreadable(error.to_string()))?)
        }
    };
    let patch = apimachinery::go_base64::decode(response.str_at(&["patch"]).unwrap_or_default())
        .map_err(|at| unreadable(format!("illegal base64 data at input byte {at}")))?;
    let patch_type = response.get("patchType").and_then(Value::as_str);
    if version == "v1" {
        let found = response.str_at(&["uid"]).unwrap_or_default();
        if found != uid {
            return invalid(&format!("expected response.uid={uid:?}, got {found:?}"));
        }
        let kind = format!("{}, Kind={}", review.api_version(), review.kind());
        let want = "admission.k8s.io/v1, Kind=AdmissionReview";
        if kind != want {
            let slash = if review.api_version().is_empty() { "/" } else { "" };
            return invalid(&format!("expected webhook response of {want}, got {slash}{kind}"));
        }
        match (mutating, patch.is_empty(), patch_type) {
            (true, false, None) => return invalid("webhook returned response.patch but not response.patchType"),
            (true, true, Some(_)) => return invalid("webhook returned response.patchType but not response.patch"),
            (true, _, Some("")) => return invalid("webhook returned invalid response.patchType of \"\""),
            (false, false, _) => return invalid("validating webhook may not return response.patch"),
            (false, _, Some(_)) => return invalid("validating webhook may not return response.patchType"),
            _ => {}
        }
    }
    let annotations = response.map_at(&["auditAnnotations"]).into_iter().flatten();
    Ok(Answer {
        allowed: response.bool_at(&["allowed"]).unwrap_or(false),
        status,
        patch_type: if version == "v1" { patch_type.unwrap_or_default().to_string() } else { JSON_PATCH.to_string() },
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

/// A value in which what is null is missing, as it counts in Go.
fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let told = map.iter().filter(|(_, value)| !value.is_null());
            Value::Object(told.map(|(key, value)| (key.clone(), without_nulls(value))).collect())
        }
        other => other.clone(),
    }
}

/// The status of a refusal: the webhook's own, made sure to be no success and to name the webhook.
pub fn refusal(name: &str, status: Option<Status>) -> Status {
    let denied_by = format!("admission webhook {name:?} denied the request");
    let mut status = status.unwrap_or_default();
    status.code = status.code.max(400);
    if matches!(status.status.as_str(), "" | "Success") {
        status.status = "Failure".to_string();
    }
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

    fn check(body: &str, mutating: bool) -> String {
        let (code, content_type) = (http::StatusCode::OK, "application/json".to_string());
        let answer = crate::webhook::Answer { code, content_type, body: body.as_bytes().to_vec() };
        match verify("v1", "u", &answer, mutating) {
            Ok(_) => String::new(),
            Err(Unusable::Unreadable(text)) => format!("failed to call webhook: {text}"),
            Err(Unusable::Invalid(text)) => format!("received invalid webhook response: {text}"),
        }
    }

    /// The words are those that upstream was seen to answer each of these with.
    #[test]
    fn answers_are_verified() {
        let review = |response: Value| {
            json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}).to_string()
        };
        let call = |text: &str| format!("failed to call webhook: {text}");
        let invalid = |text: &str| format!("received invalid webhook response: {text}");
        let ok = json!({"uid": "u", "allowed": true});
        let with = |more: Value| {
            let mut response = ok.clone();
            response.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap());
            review(response)
        };
        let version_kind = "couldn't get version/kind; json parse error: ";
        let no_object = "into Go value of type struct { APIVersion string \"json:\\\"apiVersion,omitempty\\\"\"; Kind string \"json:\\\"kind,omitempty\\\"\" }";
        for (body, mutating, want) in [
            (review(ok.clone()), true, String::new()),
            (review(Value::Null), true, invalid("webhook response was absent")),
            (review(json!({"uid": "x"})), true, invalid("expected response.uid=\"u\", got \"x\"")),
            (String::new(), false, call("0-length response with status code: 200 and content type: application/json")),
            ("{\"a\":".into(), false, call(&format!("{version_kind}unexpected end of JSON input"))),
            ("[]".into(), false, call(&format!("{version_kind}json: cannot unmarshal array {no_object}"))),
            (
                "<html>hi</html>".into(),
                false,
                call(&format!("{version_kind}json: cannot unmarshal string {no_object}")),
            ),
            (
                with(json!({"allowed": "yes"})),
                false,
                call(
                    "json: cannot unmarshal string into Go struct field AdmissionResponse.response.allowed of type bool",
                ),
            ),
            (
                with(json!({"patch": "!!!", "patchType": "JSONPatch"})),
                true,
                call("illegal base64 data at input byte 0"),
            ),
            (
                json!({"response": ok}).to_string(),
                true,
                invalid("expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview, got /, Kind="),
            ),
            (
                json!({"apiVersion": "admission.k8s.io/v1beta1", "kind": "AdmissionReview", "response": ok})
                    .to_string(),
                true,
                call("converting (v1beta1.AdmissionReview) to (v1.AdmissionReview): unknown conversion"),
            ),
            (
                json!({"apiVersion": "admission.k8s.io/v1", "kind": "Pod", "response": ok}).to_string(),
                true,
                call(
                    "no kind \"Pod\" is registered for version \"admission.k8s.io/v1\" in scheme \"k8s.io/apiserver/pkg/util/webhook/client.go:71\"",
                ),
            ),
            (with(json!({"patch": "W10=", "patchType": "JSONPatch"})), true, String::new()),
            (
                with(json!({"patch": "W10=", "patchType": "JSONPatch"})),
                false,
                invalid("validating webhook may not return response.patch"),
            ),
            (with(json!({"patchType": ""})), false, invalid("validating webhook may not return response.patchType")),
            (
                with(json!({"patch": "W10="})),
                true,
                invalid("webhook returned response.patch but not response.patchType"),
            ),
            (
                with(json!({"patchType": "JSONPatch"})),
                true,
                invalid("webhook returned response.patchType but not response.patch"),
            ),
            (
                with(json!({"patch": "W10=", "patchType": ""})),
                true,
                invalid("webhook returned invalid response.patchType of \"\""),
            ),
        ] {
            assert_eq!(check(&body, mutating), want, "{body}");
        }
    }

    #[test]
    fn a_status_needs_no_kind() {
        let refused = json!({"uid": "u", "allowed": false, "status": {"message": "no", "code": 403}});
        let body =
            json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": refused}).to_string();
        let (code, content_type) = (http::StatusCode::OK, String::new());
        let answer = crate::webhook::Answer { code, content_type, body: body.into_bytes() };
        let status = verify("v1", "u", &answer, false).ok().and_then(|answer| answer.status).unwrap_or_default();
        assert_eq!((status.code, status.message.as_str()), (403, "no"));
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
