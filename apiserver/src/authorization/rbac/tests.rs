//! Who is allowed what, by which binding, and what becomes of decisions when roles change.

use super::*;

fn subject(kind: &str, name: &str, namespace: &str) -> Subject {
    let namespace = (!namespace.is_empty()).then(|| namespace.into());
    Subject { kind: kind.into(), name: name.into(), namespace }
}

fn bind(index: &mut Index, namespace: &str, name: &str, role: (&str, &str), subjects: &[Subject]) {
    index.put_binding(Binding {
        namespace: namespace.into(),
        name: name.into(),
        role: RoleRef { kind: role.0.into(), name: role.1.into() },
        subjects: subjects.to_vec(),
    });
}

fn rules(verbs: &str, resources: &str) -> Option<Rules> {
    let list = |text: &str| text.split(' ').map(Into::into).collect();
    let rule = Rule { verbs: list(verbs), api_groups: vec!["".into()], resources: list(resources), ..Rule::default() };
    Some(vec![rule].into())
}

fn ask(user: &UserInfo, verb: &str, resource: &str, namespace: &str) -> Attributes {
    Attributes {
        user: user.clone().into(),
        verb: verb.into(),
        resource: resource.into(),
        namespace: namespace.into(),
        is_resource: true,
        ..Attributes::default()
    }
}

fn fixture() -> Index {
    let mut index = Index::default();
    index.put_role("", "reader", rules("get list", "pods"));
    index.put_role("a", "writer", rules("create", "pods */status"));
    bind(&mut index, "", "all-read", ("ClusterRole", "reader"), &[subject("Group", "dev", "")]);
    bind(&mut index, "a", "write", ("Role", "writer"), &[subject("ServiceAccount", "robot", "")]);
    bind(
        &mut index,
        "a",
        "read",
        ("ClusterRole", "reader"),
        &[subject("User", "eve", ""), subject("User", "alice", "")],
    );
    bind(&mut index, "b", "broken", ("Role", "nowhere"), &[subject("User", "alice", "")]);
    index
}

#[test]
fn allows_by_user_group_and_account() {
    let index = fixture();
    let alice = UserInfo::new("alice", &[]);
    let dev = UserInfo::new("bob", &["dev"]);
    let robot = UserInfo::new("system:serviceaccount:a:robot", &[]);
    let allowed = |user: &UserInfo, verb: &str, resource: &str, namespace: &str| match index
        .judge(&ask(user, verb, resource, namespace))
    {
        Verdict::Allowed(by) => by,
        Verdict::Unknown(errors) => errors.join(","),
    };
    for (user, verb, resource, namespace, want) in [
        (&alice, "get", "pods", "a", "RoleBinding \"read/a\" of ClusterRole \"reader\" to User \"alice\""),
        (&alice, "get", "pods", "", ""),
        (&alice, "get", "pods", "b", "role.rbac.authorization.k8s.io \"nowhere\" not found"),
        (&alice, "create", "pods", "a", ""),
        (&dev, "get", "pods", "a", "ClusterRoleBinding \"all-read\" of ClusterRole \"reader\" to Group \"dev\""),
        (&dev, "list", "pods", "", "ClusterRoleBinding \"all-read\" of ClusterRole \"reader\" to Group \"dev\""),
        (&dev, "list", "secrets", "", ""),
        (&robot, "create", "pods", "a", "RoleBinding \"write/a\" of Role \"writer\" to ServiceAccount \"robot/a\""),
        (&robot, "create", "pods", "b", ""),
    ] {
        assert_eq!(allowed(user, verb, resource, namespace), want, "{} {verb} {resource} {namespace}", user.name);
    }
}

#[test]
fn decisions_follow_changes() {
    let mut index = fixture();
    let alice = UserInfo::new("alice", &[]);
    let asked = ask(&alice, "get", "pods", "a");
    let allowed = |index: &Index| matches!(index.judge(&asked), Verdict::Allowed(_));
    assert!(allowed(&index));
    index.put_role("", "reader", rules("list", "pods"));
    assert!(!allowed(&index), "the role's rules changed");
    index.put_role("", "reader", rules("*", "pods"));
    assert!(allowed(&index));
    index.put_role("", "reader", None);
    assert_eq!(
        index.judge(&asked),
        Verdict::Unknown(vec!["clusterrole.rbac.authorization.k8s.io \"reader\" not found".to_string()])
    );
    index.put_role("", "reader", rules("get", "pods"));
    assert!(allowed(&index));
    index.remove_binding("a", "read");
    assert!(!allowed(&index), "the binding is gone");
    bind(&mut index, "a", "read", ("ClusterRole", "reader"), &[subject("User", "alice", "")]);
    assert!(allowed(&index));
    bind(&mut index, "a", "read", ("ClusterRole", "reader"), &[subject("User", "eve", "")]);
    assert!(!allowed(&index), "the subject was replaced");
}

#[test]
fn nobody_gives_more_than_they_have() {
    let rbac = Rbac::default();
    *rbac.index.write() = fixture();
    let alice = UserInfo::new("alice", &["dev"]);
    let wanted = |verbs: &str| rules(verbs, "pods").expect("given").to_vec();
    assert_eq!(rbac.confirm_no_escalation(&alice, "a", &wanted("get")), Ok(()));
    assert_eq!(
        rbac.confirm_no_escalation(&alice, "b", &wanted("get delete")).expect_err("delete is not held"),
        "user \"alice\" (groups=[\"dev\" \"system:authenticated\"]) is attempting to grant RBAC permissions not \
         currently held:\n{APIGroups:[\"\"], Resources:[\"pods\"], Verbs:[\"delete\"]}; resolution errors: \
         [role.rbac.authorization.k8s.io \"nowhere\" not found]"
    );
}

/// The budget is 20 µs in an optimized build; a debug build of this machine gets some room, but a
/// decision that looked at every binding would take milliseconds.
#[test]
fn ten_thousand_bindings_do_not_slow_a_decision() {
    let mut index = Index::default();
    index.put_role("", "reader", rules("get list", "pods"));
    for number in 0..10_000 {
        let name = format!("binding-{number}");
        let subjects = [subject("User", &format!("user-{number}"), ""), subject("Group", "crowd", "")];
        bind(&mut index, "", &name, ("ClusterRole", "reader"), &subjects);
    }
    let user = UserInfo::new("user-7000", &["crowd"]);
    let refused = ask(&user, "delete", "pods", "a");
    assert_eq!(index.judge(&refused), Verdict::Unknown(Vec::new()));
    let asked = ask(&user, "get", "pods", "a");
    let started = std::time::Instant::now();
    for _ in 0..1000 {
        assert_eq!(index.judge(&refused), Verdict::Unknown(Vec::new()));
        assert!(matches!(index.judge(&asked), Verdict::Allowed(_)));
    }
    let each = started.elapsed() / 2000;
    assert!(each < std::time::Duration::from_micros(200), "a decision took {each:?}");
}

#[test]
fn the_tables_make_valid_objects() {
    let objects = policy::objects(&crate::config::features::defaults());
    assert_eq!(objects.len(), 70 + 51 + 7 + 7);
    for object in &objects {
        let resource = api::table()
            .find_kind(GROUP, "v1", object["kind"].as_str().expect("a kind"))
            .expect("the kind is in the table");
        let mut copy = object.clone();
        api::canonicalize(resource, &mut copy);
        assert_eq!(&copy, object, "{}", object["metadata"]["name"]);
    }
}

#[test]
fn gates_bring_roles_and_rules() {
    let mut gates = crate::config::features::defaults();
    let names = |objects: &[serde_json::Value]| -> std::collections::BTreeSet<String> {
        objects.iter().map(|object| format!("{} {}", object["kind"], object["metadata"]["name"])).collect()
    };
    let before = policy::objects(&gates);
    gates.set(&[("ClusterTrustBundle".to_string(), "true".to_string())].into()).expect("a known gate");
    let after = policy::objects(&gates);
    let added: Vec<String> = names(&after).difference(&names(&before)).cloned().collect();
    assert_eq!(
        added,
        [
            "\"ClusterRole\" \"system:cluster-trust-bundle-discovery\"",
            "\"ClusterRole\" \"system:controller:kube-apiserver-serving-clustertrustbundle-publisher\"",
            "\"ClusterRoleBinding\" \"system:cluster-trust-bundle-discovery\"",
            "\"ClusterRoleBinding\" \"system:controller:kube-apiserver-serving-clustertrustbundle-publisher\"",
        ]
    );
    let node = |objects: &[serde_json::Value]| {
        let role = objects.iter().find(|object| object["metadata"]["name"] == "system:node").expect("there").clone();
        role["rules"].as_array().expect("rules").len()
    };
    assert_eq!(node(&after), node(&before) + 1);
}
