//! The rule until RBAC arrives: the control plane's own users may do anything, everybody may see
//! health and version (as upstream's `system:public-info-viewer` allows), nobody else gets in.

use super::{Attributes, Authorizer, Decision};
use crate::request::user::AUTHENTICATED;

/// Users that control-plane components and nodes' proxies authenticate as.
const USERS: [&str; 7] = [
    "system:apiserver",
    "system:kube-controller-manager",
    "system:kube-proxy",
    "system:kube-scheduler",
    "kube-apiserver-kubelet-client",
    "kubernetes-admin",
    "system:volume-scheduler",
];

/// Groups whose members run the cluster. Controllers authenticate as service accounts of
/// `kube-system` under `--use-service-account-credentials`.
const GROUPS: [&str; 3] = ["system:nodes", "kubeadm:cluster-admins", "system:serviceaccounts:kube-system"];

/// Paths that `system:public-info-viewer` opens to everybody.
const PUBLIC: [&str; 5] = ["/healthz", "/livez", "/readyz", "/version", "/version/"];

/// What `system:discovery` adds for everybody with a name.
const DISCOVERY: [&str; 6] = ["/api", "/apis", "/openapi", "/healthz", "/livez", "/readyz"];

/// See the module.
pub struct ControlPlane;

impl Authorizer for ControlPlane {
    fn authorize(&self, attributes: &Attributes) -> Decision {
        let user = &attributes.user;
        if USERS.contains(&user.name.as_str()) || GROUPS.iter().any(|group| user.in_group(group)) {
            return Decision::Allow(String::new());
        }
        if !attributes.is_resource && attributes.verb == "get" {
            let path = attributes.path.as_str();
            let below = |root: &str| path == root || path.strip_prefix(root).is_some_and(|rest| rest.starts_with('/'));
            if PUBLIC.contains(&path) || (user.in_group(AUTHENTICATED) && DISCOVERY.iter().any(|root| below(root))) {
                return Decision::Allow(String::new());
            }
        }
        Decision::NoOpinion(String::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::UserInfo;

    #[test]
    fn lets_in_only_the_control_plane() {
        let allowed = |user: UserInfo, path: &str| {
            let attributes = Attributes {
                user,
                verb: "get".into(),
                path: path.into(),
                is_resource: path.starts_with("/api/"),
                ..Attributes::default()
            };
            matches!(ControlPlane.authorize(&attributes), Decision::Allow(_))
        };
        for (user, path, want) in [
            (UserInfo::anonymous(), "/livez", true),
            (UserInfo::anonymous(), "/livez/ping", false),
            (UserInfo::anonymous(), "/apis", false),
            (UserInfo::anonymous(), "/metrics", false),
            (UserInfo::new("alice", &[]), "/apis/apps", true),
            (UserInfo::new("alice", &[]), "/api/v1/pods", false),
            (UserInfo::new("system:node:n1", &["system:nodes"]), "/api/v1/pods", true),
            (UserInfo::new("system:kube-scheduler", &[]), "/api/v1/pods", true),
        ] {
            assert_eq!(allowed(user.clone(), path), want, "{} {path}", user.name);
        }
    }
}
