//! Who may do what, over the wire: bootstrap roles, grants, reviews, impersonation.

use apiserver::UserInfo;
use axum::body::Body;
use http::Request;
use serde_json::{Value, json};

use crate::{Answer, Fixture};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const ROLES: &str = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/roles";
const BINDINGS: &str = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings";

/// Roles are followed by watch: what was written is law a moment later.
async fn eventually(mut ask: impl AsyncFnMut() -> Answer, code: u16) -> Answer {
    for _ in 0..200 {
        let answer = ask().await;
        if answer.code == code {
            return answer;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    let answer = ask().await;
    assert_eq!(answer.code, code, "{}", answer.message());
    answer
}

#[tokio::test]
async fn users() {
    let server = Fixture::new().await;
    for (user, path, code, message) in [
        (UserInfo::anonymous(), "/livez", 200, "ok"),
        (UserInfo::anonymous(), "/version", 200, ""),
        (UserInfo::anonymous(), "/", 403, "forbidden: User \"system:anonymous\" cannot get path \"/\""),
        (
            UserInfo::anonymous(),
            MAPS,
            403,
            "configmaps is forbidden: User \"system:anonymous\" cannot list resource \"configmaps\" in API group \"\" in the namespace \"default\"",
        ),
        (UserInfo::anonymous(), "/apis", 403, "cannot get path"),
        (UserInfo::new("alice", &[]), "/apis", 200, ""),
        (UserInfo::new("alice", &[]), "/livez/ping", 403, "cannot get path"),
        (UserInfo::new("alice", &["system:monitoring"]), "/livez/ping", 200, "ok"),
        (UserInfo::new("alice", &[]), MAPS, 403, "User \"alice\" cannot list"),
        (UserInfo::new("system:kube-scheduler", &[]), "/api/v1/nodes", 200, ""),
        (UserInfo::new("system:kube-scheduler", &[]), MAPS, 403, "cannot list"),
        (UserInfo::new("system:kube-controller-manager", &[]), MAPS, 200, ""),
        (UserInfo::new("system:serviceaccount:kube-system:namespace-controller", &[]), MAPS, 200, ""),
        (UserInfo::new("system:serviceaccount:default:namespace-controller", &[]), MAPS, 403, "cannot list"),
        (UserInfo::new("system:node:n", &["system:nodes"]), "/api/v1/services", 200, ""),
        (
            UserInfo::new("system:node:n", &["system:nodes"]),
            "/api/v1/namespaces/default/configmaps/x",
            403,
            "cannot get resource \"configmaps\" in API group \"\" in the namespace \"default\": no relationship found between node 'n' and this object",
        ),
    ] {
        let answer = server.get_as(user.clone(), path).await;
        assert_eq!(answer.code, code, "{} {path}: {}", user.name, answer.message());
        assert!(answer.message().contains(message), "{} {path}: {}", user.name, answer.message());
    }
}

fn review(user: &str, groups: &[&str], verb: &str, group: &str, resource: &str, namespace: &str, name: &str) -> Value {
    let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
    json!({
        "apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
        "spec": {"user": user, "groups": groups, "resourceAttributes": {
            "verb": verb, "group": group, "resource": resource, "subresource": subresource,
            "namespace": namespace, "name": name,
        }},
    })
}

/// Rows and columns are facts of upstream's bootstrap roles.
#[tokio::test]
async fn the_matrix_of_bootstrap_roles() {
    const CASES: [(&str, &str, &str, &str, &str, &str); 14] = [
        // verb, group, resource, namespace, name, letter in the rows below
        ("get", "", "pods", "a", "p", "a"),
        ("create", "", "pods", "a", "", "b"),
        ("create", "", "pods/exec", "a", "p", "c"),
        ("get", "", "secrets", "a", "s", "d"),
        ("list", "", "nodes", "", "", "e"),
        ("update", "", "nodes/status", "", "n1", "f"),
        ("patch", "apps", "deployments/scale", "a", "d", "g"),
        ("create", "rbac.authorization.k8s.io", "rolebindings", "a", "", "h"),
        ("escalate", "rbac.authorization.k8s.io", "clusterroles", "", "x", "i"),
        ("create", "authentication.k8s.io", "tokenreviews", "", "", "j"),
        ("update", "coordination.k8s.io", "leases", "kube-system", "kube-scheduler", "k"),
        ("approve", "certificates.k8s.io", "signers", "", "kubernetes.io/kube-apiserver-client-kubelet", "l"),
        ("delete", "example.com", "widgets", "a", "w", "m"),
        ("impersonate", "", "serviceaccounts", "a", "default", "n"),
    ];
    let server = Fixture::new().await;
    for (role, subject) in [("admin", "nadmin"), ("edit", "neditor"), ("view", "nviewer")] {
        // The aggregated roles are filled by a controller that does not run here.
        let role = format!("system:aggregate-to-{role}");
        let binding = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": subject},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
            "subjects": [{"kind": "User", "name": subject, "apiGroup": "rbac.authorization.k8s.io"}],
        });
        server.post("/api/v1/namespaces", &json!({"metadata": {"name": "a"}})).await;
        let answer = server.post("/apis/rbac.authorization.k8s.io/v1/namespaces/a/rolebindings", &binding).await;
        assert_eq!(answer.code, 201, "{}", answer.message());
    }
    eventually(async || server.get_as(UserInfo::new("nviewer", &[]), "/api/v1/namespaces/a/pods").await, 200).await;
    for (user, groups, allowed) in [
        ("root", &["system:masters"][..], "abcdefghijklmn"),
        ("system:anonymous", &["system:unauthenticated"], ""),
        ("alice", &["system:authenticated"], ""),
        ("nadmin", &[], "h"),
        ("neditor", &[], "bcdgn"),
        ("nviewer", &[], "a"),
        ("system:kube-scheduler", &[], "aejk"),
        ("system:kube-controller-manager", &[], "dejk"),
        ("system:kube-proxy", &[], "e"),
        ("system:serviceaccount:kube-system:clusterrole-aggregation-controller", &[], "i"),
        ("system:serviceaccount:kube-system:generic-garbage-collector", &[], "adefgkm"),
        ("system:serviceaccount:kube-system:certificate-controller", &[], "l"),
        ("system:serviceaccount:kube-system:node-controller", &[], "aef"),
        ("system:node:n1", &["system:nodes"], "bfj"),
    ] {
        let mut got = String::new();
        for (verb, group, resource, namespace, name, letter) in CASES {
            let question = review(user, groups, verb, group, resource, namespace, name);
            let answer = server.post("/apis/authorization.k8s.io/v1/subjectaccessreviews", &question).await;
            assert_eq!(answer.code, 201, "{}", answer.message());
            if answer.body["status"]["allowed"] == true {
                got.push_str(letter);
            }
        }
        assert_eq!(got, allowed, "{user}");
    }
}

#[tokio::test]
async fn reviews_say_why() {
    let server = Fixture::new().await;
    let question = review("system:kube-proxy", &[], "list", "", "services", "", "");
    let answer = server.post("/apis/authorization.k8s.io/v1/subjectaccessreviews", &question).await;
    assert_eq!(
        answer.body["status"],
        json!({
            "allowed": true,
            "reason": "RBAC: allowed by ClusterRoleBinding \"system:node-proxier\" of ClusterRole \"system:node-proxier\" to User \"system:kube-proxy\"",
        })
    );
    let question = json!({
        "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectRulesReview", "spec": {"namespace": "default"},
    });
    let alice = UserInfo::new("alice", &[]);
    let path = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews";
    let answer = server.ask_as(alice, "POST", path, &question).await;
    assert_eq!(answer.code, 201, "{}", answer.message());
    let status = &answer.body["status"];
    assert_eq!(status["incomplete"], false);
    let resources = status["resourceRules"].as_array().unwrap();
    assert!(
        resources.contains(&json!({
            "verbs": ["create"], "apiGroups": ["authentication.k8s.io"], "resources": ["selfsubjectreviews"],
        })),
        "{resources:?}"
    );
    assert_eq!(answer.body["spec"], json!({}));
}

#[tokio::test]
async fn nobody_grants_what_they_lack() {
    let server = Fixture::new().await;
    let rules = |verbs: &[&str]| json!([{"apiGroups": [""], "resources": ["configmaps"], "verbs": verbs}]);
    let role = |name: &str, verbs: &[&str]| {
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
            "metadata": {"name": name, "namespace": "default"}, "rules": rules(verbs),
        })
    };
    let binding = |name: &str, role: &str, user: &str| {
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
            "metadata": {"name": name, "namespace": "default"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": role},
            "subjects": [{"kind": "User", "name": user, "apiGroup": "rbac.authorization.k8s.io"}],
        })
    };
    let mut grants = role("grants", &["get", "list"]);
    grants["rules"].as_array_mut().unwrap().push(json!({
        "apiGroups": ["rbac.authorization.k8s.io"], "resources": ["roles", "rolebindings"], "verbs": ["*"],
    }));
    // `*` covers `escalate` and `bind`; alice gets the plain verbs only.
    grants["rules"][1]["verbs"] = json!(["create", "update", "get"]);
    assert_eq!(server.post(ROLES, &grants).await.code, 201);
    assert_eq!(server.post(ROLES, &role("strong", &["delete"])).await.code, 201);
    assert_eq!(server.post(BINDINGS, &binding("alice", "grants", "alice")).await.code, 201);
    let alice = || UserInfo::new("alice", &[]);
    eventually(async || server.get_as(alice(), MAPS).await, 200).await;
    let answer = server.ask_as(alice(), "POST", ROLES, &role("fine", &["get"])).await;
    assert_eq!(answer.code, 201, "{}", answer.message());
    let answer = server.ask_as(alice(), "POST", ROLES, &role("more", &["get", "delete", "patch"])).await;
    assert_eq!(answer.code, 403);
    assert_eq!(
        answer.message(),
        "roles.rbac.authorization.k8s.io \"more\" is forbidden: user \"alice\" (groups=[\"system:authenticated\"]) is \
         attempting to grant RBAC permissions not currently held:\n\
         {APIGroups:[\"\"], Resources:[\"configmaps\"], Verbs:[\"delete\" \"patch\"]}"
    );
    let answer = server.ask_as(alice(), "POST", BINDINGS, &binding("bob", "strong", "bob")).await;
    assert_eq!(answer.code, 403, "{}", answer.message());
    let answer = server.ask_as(alice(), "POST", BINDINGS, &binding("bob", "nowhere", "bob")).await;
    assert_eq!(answer.code, 404, "{}", answer.message());
    assert_eq!(answer.message(), "rolebindings.rbac.authorization.k8s.io \"nowhere\" not found");
    let answer = server.ask_as(alice(), "POST", BINDINGS, &binding("bob", "fine", "bob")).await;
    assert_eq!(answer.code, 201, "{}", answer.message());
    let allows_bind = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "binder"},
        "rules": [{"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["roles"], "resourceNames": ["strong"], "verbs": ["bind"]}],
    });
    assert_eq!(server.post(ROLES, &allows_bind).await.code, 201);
    assert_eq!(server.post(BINDINGS, &binding("binder", "binder", "alice")).await.code, 201);
    eventually(async || server.ask_as(alice(), "POST", BINDINGS, &binding("carol", "strong", "carol")).await, 201)
        .await;
}

#[tokio::test]
async fn impersonation_is_a_right() {
    let server = Fixture::new().await;
    let send = async |router: axum::Router, headers: &[(&str, &str)], path: &str| {
        let mut request = Request::get(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        Fixture::send_to(router, request.body(Body::empty()).unwrap()).await
    };
    let admin = || server.handle.admin_router();
    let answer = send(admin(), &[("impersonate-user", "alice")], MAPS).await;
    assert_eq!(answer.code, 403);
    assert!(answer.message().contains("User \"alice\" cannot list"), "{}", answer.message());
    let scheduler = [("impersonate-user", "system:kube-scheduler")];
    assert_eq!(send(admin(), &scheduler, "/api/v1/nodes").await.code, 200);
    let alice = server.handle.router(UserInfo::new("alice", &[]));
    let answer = send(alice, &scheduler, "/api/v1/nodes").await;
    assert_eq!(answer.code, 403);
    assert!(answer.message().contains("cannot impersonate-on:user-info:list"), "{}", answer.message());
    let answer = send(admin(), &[("impersonate-group", "dev")], MAPS).await;
    assert_eq!(answer.code, 400, "{}", answer.message());
}
