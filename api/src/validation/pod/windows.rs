//! What only pods on Windows have: user names of a domain, credential specs, host processes.

use apimachinery::field::{self, ErrorList, Path};
use apimachinery::names;
use serde_json::Value;

use super::each_container;
use crate::read::Read;
use crate::validation::capabilities;

/// `windowsOptions` of a pod's or a container's security context.
pub(super) fn options(options: &Value, path: &Path, errors: &mut ErrorList) {
    const LONGEST_SPEC_KIB: usize = 64;
    let text = |name: &str| options.set(name).and_then(Value::as_str);
    if let Some(name) = text("gmsaCredentialSpecName") {
        let wrong = names::dns1123_subdomain(name).into_iter();
        errors.extend(wrong.map(|message| field::invalid(&path.child("gmsaCredentialSpecName"), name, message)));
    }
    if let Some(spec) = text("gmsaCredentialSpec") {
        let path = path.child("gmsaCredentialSpec");
        if spec.is_empty() {
            errors.push(field::invalid(&path, spec, "gmsaCredentialSpec cannot be an empty string"));
        } else if spec.len() > LONGEST_SPEC_KIB * 1024 {
            let message = format!("gmsaCredentialSpec size must be under {LONGEST_SPEC_KIB} KiB");
            errors.push(field::invalid(&path, spec, message));
        }
    }
    if let Some(name) = text("runAsUserName") {
        user_name(name, &path.child("runAsUserName"), errors);
    }
}

fn user_name(name: &str, path: &Path, errors: &mut ErrorList) {
    const LONGEST_DOMAIN: usize = 256;
    const LONGEST_USER: usize = 104;
    let mut wrong = |message: &str| errors.push(field::invalid(path, name, format!("runAsUserName{message}")));
    if name.is_empty() {
        return wrong(" cannot be an empty string");
    }
    if name.chars().any(|c| c.is_ascii_control()) {
        return wrong(" cannot contain control characters");
    }
    if name.matches('\\').count() > 1 {
        return wrong(" cannot contain more than one backslash");
    }
    let (domain, user) = name.split_once('\\').map_or((None, name), |(domain, user)| (Some(domain), user));
    if let Some(domain) = domain {
        if domain.len() >= LONGEST_DOMAIN {
            wrong(&format!("'s Domain length must be under {LONGEST_DOMAIN} characters"));
        }
        if !is_net_bios(domain) && !domain.split('.').all(is_dns_label) {
            wrong("'s Domain doesn't match the NetBios nor the DNS format");
        }
    }
    if user.is_empty() {
        wrong("'s User cannot be empty");
    } else if user.len() > LONGEST_USER {
        wrong(&format!("'s User length must not be longer than {LONGEST_USER} characters"));
    }
    if !user.is_empty() && user.chars().all(|c| matches!(c, '.' | ' ')) {
        wrong("'s User cannot contain only periods or spaces");
    }
    if user.contains(['"', '/', '\\', ':', ';', '|', '=', ',', '+', '*', '?', '<', '>', '@', '[', ']']) {
        wrong("'s User cannot contain the following characters: \"/\\:;|=,+*?<>@[]");
    }
}

/// One to fifteen characters, none of which means something in a path.
fn is_net_bios(domain: &str) -> bool {
    (1..=15).contains(&domain.chars().count())
        && !domain.starts_with('.')
        && !domain.contains(['\\', '/', ':', '*', '?', '"', '<', '>', '|'])
}

fn is_dns_label(label: &str) -> bool {
    (1..=63).contains(&label.len())
        && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        && !label.starts_with('-')
        && !label.ends_with('-')
}

/// Either all containers are processes of the host, in its network, or none is.
pub(super) fn host_process(spec: &Value, path: &Path, errors: &mut ErrorList) {
    let of = |value: &Value| value["securityContext"]["windowsOptions"].set("hostProcess").and_then(Value::as_bool);
    let pod = of(spec);
    let (mut all, mut host) = (0, 0);
    each_container(spec, path, |container, path| {
        let own = of(container);
        all += 1;
        if let (Some(pod), Some(own)) = (pod, own)
            && pod != own
        {
            let path = path.children(&["securityContext", "windowsOptions", "hostProcess"]);
            let message = format!("pod hostProcess value must be identical if both are specified, was {pod}");
            errors.push(field::invalid(&path, own, message));
        }
        host += usize::from(own.or(pod).unwrap_or_default());
    });
    if host == 0 {
        return;
    }
    if host != all {
        let message = "If pod contains any hostProcess containers then all containers must be HostProcess containers";
        errors.push(field::invalid(path, "", message));
    }
    if !spec.flag("hostNetwork") {
        let message = "hostNetwork must be true if pod contains any hostProcess containers";
        errors.push(field::invalid(&path.child("hostNetwork"), false, message));
    }
    if !capabilities::is_privileged_allowed() {
        errors.push(field::forbidden(path, "hostProcess containers are disallowed by cluster policy"));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn user_names() {
        let check = |name: &str, want: &[&str]| {
            let mut errors = ErrorList::new();
            options(&json!({"runAsUserName": name}), &Path::new("w"), &mut errors);
            let got: Vec<String> = errors.iter().map(ToString::to_string).collect();
            let shown = json!(name);
            let want: Vec<String> = want
                .iter()
                .map(|want| format!("w.runAsUserName: Invalid value: {shown}: runAsUserName{want}"))
                .collect();
            assert_eq!(got, want);
        };
        for good in ["a", "NT AUTHORITY\\SYSTEM", "example.com\\user", "x y"] {
            check(good, &[]);
        }
        check("", &[" cannot be an empty string"]);
        check("a\\b\\c", &[" cannot contain more than one backslash"]);
        check("a\\", &["'s User cannot be empty"]);
        check(". .", &["'s User cannot contain only periods or spaces"]);
        check("a@b", &["'s User cannot contain the following characters: \"/\\:;|=,+*?<>@[]"]);
        check("a-longer-name_x\u{e4}yz\\u", &["'s Domain doesn't match the NetBios nor the DNS format"]);
    }

    #[test]
    fn host_processes() {
        let container = |value: Value| json!({"securityContext": {"windowsOptions": {"hostProcess": value}}});
        let check = |network: bool, pod: Value, containers: Value, want: &[&str]| {
            let context = json!({"windowsOptions": {"hostProcess": pod}});
            let spec = json!({"hostNetwork": network, "securityContext": context, "containers": containers});
            let mut errors = ErrorList::new();
            host_process(&spec, &Path::new("spec"), &mut errors);
            let got: Vec<String> = errors.iter().map(ToString::to_string).collect();
            assert_eq!(got, want, "{spec}");
        };
        check(false, Value::Null, json!([{}]), &[]);
        check(true, json!(true), json!([{}, container(json!(true))]), &[]);
        let alone = "spec: Invalid value: \"\": If pod contains any hostProcess containers then all containers must be HostProcess containers";
        check(true, Value::Null, json!([{}, container(json!(true))]), &[alone]);
        let network = "spec.hostNetwork: Invalid value: false: hostNetwork must be true if pod contains any hostProcess containers";
        check(false, json!(true), json!([{}]), &[network]);
        let same = "spec.containers[0].securityContext.windowsOptions.hostProcess: Invalid value: false: pod hostProcess value must be identical if both are specified, was true";
        check(false, json!(true), json!([container(json!(false))]), &[same]);
    }
}
