//! What a pod's status says of claims and of the devices that its containers got (KEP-3063, KEP-4680).

use std::collections::BTreeSet;

use apimachinery::field::{self, ErrorList, Path};
use apimachinery::names;
use serde_json::Value;

use super::super::checks::{dns1123_label, messages, name_is_subdomain};
use crate::read::Read;

/// The longest word on the health of a device.
const LONGEST_MESSAGE: usize = 1024;

/// Claims that were made of templates.
pub(super) fn resource_claims(pod: &Value, path: &Path, errors: &mut ErrorList) {
    let claims = pod["spec"].list("resourceClaims");
    let mut seen = BTreeSet::new();
    for (i, status) in pod["status"].list("resourceClaimStatuses").iter().enumerate() {
        let (path, name) = (path.index(i), status.text("name"));
        if claims.iter().all(|claim| claim.text("name") != name) {
            let message = "must match the name of an entry in `spec.resourceClaims`";
            errors.push(field::invalid(&path.child("name"), name, message));
        }
        if !seen.insert(name) {
            errors.push(field::duplicate(&path.child("name"), name));
        }
        if let Some(claim) = status.set("resourceClaimName").and_then(Value::as_str) {
            messages(name_is_subdomain(claim, false), claim, &path.child("resourceClaimName"), errors);
        }
    }
}

/// The claim that stands for extended resources.
pub(super) fn extended_resources(pod: &Value, path: &Path, errors: &mut ErrorList) {
    let Some(status) = pod["status"].set("extendedResourceClaimStatus") else { return };
    let (spec, at) = (&pod["spec"], path.child("requestMappings"));
    let container = |name: &str| {
        let mut all = spec.list("containers").iter().chain(spec.list("initContainers"));
        all.find(|container| container.text("name") == name)
    };
    if status.list("requestMappings").is_empty() {
        errors.push(field::required(&at, "at least one request mapping is required"));
    }
    let mut seen = BTreeSet::new();
    for (i, mapping) in status.list("requestMappings").iter().enumerate() {
        let at = at.index(i);
        let [holder, resource, request] = ["containerName", "resourceName", "requestName"].map(|f| mapping.text(f));
        match container(holder) {
            Some(found) if found["resources"]["requests"].get(resource).is_none() => {
                let message = "must match the extended resource name of an entry in spec.initContainers.resources.requests or spec.containers.resources.requests";
                errors.push(field::invalid(&at.child("resourceName"), resource, message));
            }
            Some(_) => {}
            None => {
                let message = "must match the name of an entry in spec.initContainers.name or spec.containers.name";
                errors.push(field::invalid(&at.child("containerName"), holder, message));
            }
        }
        dns1123_label(request, &path.child("requestName"), errors);
        if !seen.insert((holder, resource, request)) {
            for (name, value) in [("containerName", holder), ("resourceName", resource), ("requestName", request)] {
                errors.push(field::duplicate(&at.child(name), value));
            }
        }
    }
    let (claim, at) = (status.text("resourceClaimName"), path.child("resourceClaimName"));
    if claim.is_empty() {
        errors.push(field::required(&at, ""));
    } else {
        messages(name_is_subdomain(claim, false), claim, &at, errors);
    }
}

/// As whom containers run.
pub(super) fn users(pod: &Value, list: &'static str, path: &Path, errors: &mut ErrorList) {
    let windows = pod["spec"]["os"].text("name") == "windows";
    for (i, status) in pod["status"].list(list).iter().enumerate() {
        let Some(user) = status["user"].set("linux") else { continue };
        let path = path.index(i).child("user").child("linux");
        if windows {
            errors.push(field::forbidden(&path, "cannot be set for a windows pod"));
            continue;
        }
        let mut id = |value: i64, path: Path| {
            errors.extend(names::user_id(value).into_iter().map(|m| field::invalid(&path, value, m)));
        };
        id(user.num("uid"), path.child("uid"));
        id(user.num("gid"), path.child("gid"));
        for (j, group) in user.list("supplementalGroups").iter().enumerate() {
            id(group.as_i64().unwrap_or_default(), path.child("supplementalGroups").index(j));
        }
    }
}

/// The health of what containers got.
pub(super) fn allocated(pod: &Value, list: &'static str, containers: &str, path: &Path, errors: &mut ErrorList) {
    for (i, status) in pod["status"].list(list).iter().enumerate() {
        let path = path.index(i).child("allocatedResourcesStatus");
        let container = pod["spec"].list(containers).iter().find(|c| c.text("name") == status.text("name"));
        for (j, resource) in status.list("allocatedResourcesStatus").iter().enumerate() {
            let path = path.index(j);
            if let Some(message) = container.and_then(|container| foreign(resource.text("name"), container)) {
                errors.push(field::invalid(&path.child("name"), resource.text("name"), message));
            }
            health(resource.list("resources"), &path.child("resources"), errors);
        }
    }
}

/// Why a container cannot have got a resource.
fn foreign(name: &str, container: &Value) -> Option<&'static str> {
    let resources = &container["resources"];
    if let Some(claim) = name.strip_prefix("claim:") {
        let spelled = |c: &Value| match c.text("request") {
            "" => c.text("name").to_owned(),
            request => format!("{}/{request}", c.text("name")),
        };
        let known = resources.list("claims").iter().any(|c| spelled(c) == claim);
        return (!known).then_some(
            "must match one of the container's resource claims in a format 'claim:<claimName>/<request>' or 'claim:<claimName>' if request is empty",
        );
    }
    resources["requests"].get(name).is_none().then_some("must match one of the container's resource requests")
}

fn health(resources: &[Value], path: &Path, errors: &mut ErrorList) {
    const HEALTH: [&str; 3] = ["Healthy", "Unhealthy", "Unknown"];
    let mut seen = BTreeSet::new();
    for (i, resource) in resources.iter().enumerate() {
        let path = path.index(i);
        if !HEALTH.contains(&resource.text("health")) {
            errors.push(field::not_supported(&path.child("health"), resource.text("health"), &HEALTH));
        }
        match resource.set("message").and_then(Value::as_str) {
            Some("") => errors.push(field::required(&path.child("message"), "must be non-empty if specified")),
            Some(text) if text.len() > LONGEST_MESSAGE => {
                errors.push(field::too_long(&path.child("message"), LONGEST_MESSAGE));
            }
            _ => {}
        }
        if !seen.insert(resource.text("resourceID")) {
            errors.push(field::duplicate(&path.child("resourceID"), resource.text("resourceID")));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(pod: &Value, rule: fn(&Value, &Path, &mut ErrorList)) -> Vec<String> {
        let mut errors = ErrorList::new();
        rule(pod, &Path::new("status"), &mut errors);
        errors.iter().map(|error| format!("{}: {}", error.field, error.body())).collect()
    }

    #[test]
    fn claims_are_those_of_the_spec() {
        let pod = json!({
            "spec": {"resourceClaims": [{"name": "a"}]},
            "status": {"resourceClaimStatuses": [{"name": "a"}, {"name": "a", "resourceClaimName": "A"}, {"name": "b"}]},
        });
        let wrong = check(&pod, resource_claims);
        assert_eq!(wrong[0], "status[1].name: Duplicate value: \"a\"");
        assert!(
            wrong[1].starts_with("status[1].resourceClaimName: Invalid value: \"A\": a lowercase RFC 1123 subdomain")
        );
        assert_eq!(
            wrong[2],
            "status[2].name: Invalid value: \"b\": must match the name of an entry in `spec.resourceClaims`"
        );
    }

    #[test]
    fn containers_have_what_they_asked_for() {
        let pod = json!({
            "spec": {"containers": [{"name": "c", "resources": {"requests": {"x/y": "1"}, "claims": [{"name": "k", "request": "r"}]}}]},
            "status": {"containerStatuses": [{"name": "c", "allocatedResourcesStatus": [
                {"name": "x/y", "resources": [{"resourceID": "1", "health": "Healthy"}, {"resourceID": "1", "health": "Ill"}]},
                {"name": "claim:k/r"},
                {"name": "claim:k"},
                {"name": "z"},
            ]}]},
        });
        let rule = |pod: &Value, path: &Path, errors: &mut ErrorList| {
            allocated(pod, "containerStatuses", "containers", path, errors);
        };
        assert_eq!(
            check(&pod, rule),
            [
                "status[0].allocatedResourcesStatus[0].resources[1].health: Unsupported value: \"Ill\": supported values: \"Healthy\", \"Unhealthy\", \"Unknown\"",
                "status[0].allocatedResourcesStatus[0].resources[1].resourceID: Duplicate value: \"1\"",
                "status[0].allocatedResourcesStatus[2].name: Invalid value: \"claim:k\": must match one of the container's resource claims in a format 'claim:<claimName>/<request>' or 'claim:<claimName>' if request is empty",
                "status[0].allocatedResourcesStatus[3].name: Invalid value: \"z\": must match one of the container's resource requests",
            ]
        );
    }
}
