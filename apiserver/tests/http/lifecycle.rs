//! Objects from creation to deletion, as clients see them.

use axum::body::Body;
use http::Request;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::Fixture;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[tokio::test]
async fn create_update_delete() {
    let server = Fixture::new().await;
    let created =
        server.post(MAPS, &json!({"metadata": {"generateName": "g-", "labels": {"a": "b"}}, "data": {"k": "v"}})).await;
    assert_eq!(created.code, 201, "{}", created.text);
    let name = created.body["metadata"]["name"].as_str().unwrap().to_string();
    assert_eq!(name.len(), 7);
    assert!(created.body["metadata"]["uid"].is_string());
    assert_eq!(created.body["metadata"]["managedFields"][0]["manager"], "unknown");
    let path = format!("{MAPS}/{name}");

    let mut object = created.body.clone();
    object["data"]["k"] = "w".into();
    let updated = server.ask("PUT", &path, "application/json", object.to_string()).await;
    assert_eq!(updated.code, 200, "{}", updated.text);
    assert_ne!(updated.body["metadata"]["resourceVersion"], created.body["metadata"]["resourceVersion"]);
    // The same again carries an old version now.
    let stale = server.ask("PUT", &path, "application/json", object.to_string()).await;
    assert_eq!(stale.code, 409, "{}", stale.text);

    // A write that changes nothing is not one.
    let same = server.ask("PATCH", &path, "application/merge-patch+json", "{\"data\":{\"k\":\"w\"}}").await;
    assert_eq!(same.body["metadata"]["resourceVersion"], updated.body["metadata"]["resourceVersion"]);

    let held = server
        .ask("PATCH", &path, "application/merge-patch+json", "{\"metadata\":{\"finalizers\":[\"example.com/x\"]}}")
        .await;
    assert_eq!(held.code, 200, "{}", held.text);
    let deleted = server.ask("DELETE", &path, "", Body::empty()).await;
    assert_eq!(deleted.code, 200, "{}", deleted.text);
    assert!(server.get(&path).await.body["metadata"]["deletionTimestamp"].is_string());
    let freed =
        server.ask("PATCH", &path, "application/merge-patch+json", "{\"metadata\":{\"finalizers\":null}}").await;
    assert_eq!(freed.code, 200, "{}", freed.text);
    assert_eq!(server.get(&path).await.code, 404);
}

#[tokio::test]
async fn lists_pages_and_selects() {
    let server = Fixture::new().await;
    for at in 0..7 {
        let object = json!({"metadata": {"name": format!("m{at}"), "labels": {"odd": (at % 2 == 1).to_string()}}});
        assert_eq!(server.post(MAPS, &object).await.code, 201);
    }
    let page = server.get(&format!("{MAPS}?limit=3")).await.body;
    assert_eq!(page["items"].as_array().unwrap().len(), 3);
    assert_eq!(page["metadata"]["remainingItemCount"], 4);
    assert!(page["items"][0].get("kind").is_none(), "items carry no kind");
    let next = page["metadata"]["continue"].as_str().unwrap();
    assert_eq!(server.post(MAPS, &json!({"metadata": {"name": "m9"}})).await.code, 201);
    let rest = server.get(&format!("{MAPS}?limit=10&continue={next}")).await.body;
    let names: Vec<&str> =
        rest["items"].as_array().unwrap().iter().map(|item| item["metadata"]["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["m3", "m4", "m5", "m6"], "a later page shows the first page's moment");
    let odd = server.get(&format!("{MAPS}?labelSelector=odd%3Dtrue")).await.body;
    assert_eq!(odd["items"].as_array().unwrap().len(), 3);
    let one = server.get(&format!("{MAPS}?fieldSelector=metadata.name%3Dm2")).await.body;
    assert_eq!(one["items"][0]["metadata"]["name"], "m2");
    let exact = page["metadata"]["resourceVersion"].as_str().unwrap();
    let then = server.get(&format!("{MAPS}?resourceVersion={exact}&resourceVersionMatch=Exact")).await.body;
    assert_eq!(then["items"].as_array().unwrap().len(), 7);
    let removed = server.ask("DELETE", &format!("{MAPS}?labelSelector=odd%3Dtrue"), "", Body::empty()).await;
    assert_eq!(removed.code, 200, "{}", removed.text);
    assert_eq!(server.get(MAPS).await.body["items"].as_array().unwrap().len(), 5);
}

/// Indented answers are made from the same bytes: nothing but white space may differ, and that as Go writes it.
#[tokio::test]
async fn indents_objects_and_lists() {
    let server = Fixture::new().await;
    let empty = server.get("/api/v1/namespaces/kube-public/secrets?pretty=true").await.text;
    assert!(
        empty.starts_with("{\n  \"kind\": \"SecretList\",\n  \"apiVersion\": \"v1\",\n  \"metadata\": {\n"),
        "{empty}"
    );
    assert!(empty.ends_with("\n  },\n  \"items\": []\n}\n"), "{empty}");
    for name in ["a", "b"] {
        let object = json!({"metadata": {"name": name}, "data": {"text": "a \"b\": {c},\n[d]", "none": ""}});
        assert_eq!(server.post(MAPS, &object).await.code, 201);
    }
    for path in [MAPS.to_string(), format!("{MAPS}/a"), format!("{MAPS}?limit=1")] {
        let separator = if path.contains('?') { '&' } else { '?' };
        // The server's own loops write meanwhile, and a list carries the revision of the store.
        let (plain, pretty) = loop {
            let plain = server.get(&format!("{path}{separator}pretty=false")).await;
            let pretty = server.get(&format!("{path}{separator}pretty=true")).await;
            let again = server.get(&format!("{path}{separator}pretty=false")).await;
            if plain.body == again.body {
                break (plain, pretty);
            }
        };
        assert_eq!(pretty.body, plain.body);
        // What serde writes is what Go writes, but for the order of members at the top.
        let sorted = |text: &str| {
            let mut lines: Vec<String> = text.lines().map(|line| line.trim_end_matches(',').to_string()).collect();
            lines.sort();
            lines
        };
        let wanted = serde_json::to_string_pretty(&plain.body).unwrap();
        assert_eq!(sorted(&pretty.text), sorted(&wanted), "{path}");
    }
}

#[tokio::test]
async fn watches_from_the_state_on() {
    let server = Fixture::new().await;
    assert_eq!(server.post(MAPS, &json!({"metadata": {"name": "old"}})).await.code, 201);
    let path =
        format!("{MAPS}?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true");
    let request = Request::get(path).body(Body::empty()).unwrap();
    let answer = server.handle.admin_router().oneshot(request).await.unwrap();
    assert_eq!(answer.status(), 200);
    let mut body = answer.into_body();
    let mut text = String::new();
    let mut events: Vec<Value> = Vec::new();
    let mut written = false;
    while events.len() < 4 {
        let frame = body.frame().await.unwrap().unwrap().into_data().unwrap();
        text.push_str(std::str::from_utf8(&frame).unwrap());
        while let Some(end) = text.find('\n') {
            let line: String = text.drain(..=end).collect();
            events.push(serde_json::from_str(&line).unwrap());
        }
        if events.len() >= 2 && !written {
            written = true;
            assert_eq!(server.post(MAPS, &json!({"metadata": {"name": "new"}})).await.code, 201);
            assert_eq!(server.ask("DELETE", &format!("{MAPS}/new"), "", Body::empty()).await.code, 200);
        }
    }
    let kinds: Vec<&str> = events.iter().map(|event| event["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["ADDED", "BOOKMARK", "ADDED", "DELETED"]);
    assert_eq!(events[1]["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    assert_eq!(events[2]["object"]["metadata"]["name"], "new");
}

#[tokio::test]
async fn services_get_addresses_and_ports() {
    let server = Fixture::new().await;
    let services = "/api/v1/namespaces/default/services";
    let service = |name: &str, spec: Value| json!({"metadata": {"name": name}, "spec": spec});
    let ports = json!([{"port": 80}]);
    let one = server.post(services, &service("a", json!({"type": "NodePort", "ports": ports}))).await;
    assert_eq!(one.code, 201, "{}", one.text);
    let ip = one.body["spec"]["clusterIP"].as_str().unwrap().to_string();
    assert!(ip.starts_with("10.96."));
    let port = one.body["spec"]["ports"][0]["nodePort"].as_i64().unwrap();
    assert!((30000..=32767).contains(&port));
    let again = server.post(services, &service("b", json!({"clusterIP": ip, "ports": ports}))).await;
    assert_eq!(again.code, 422, "{}", again.text);
    assert!(again.message().contains("provided IP is already allocated"), "{}", again.message());
    let taken = json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": port}]});
    let again = server.post(services, &service("b", taken)).await;
    assert!(again.message().contains("provided port is already allocated"), "{}", again.message());
    assert_eq!(server.ask("DELETE", &format!("{services}/a"), "", Body::empty()).await.code, 200);
    let reused = server.post(services, &service("c", json!({"clusterIP": ip, "ports": ports}))).await;
    assert_eq!(reused.code, 201, "{}", reused.text);
}

#[tokio::test]
async fn namespaces_and_pods_are_admitted() {
    let server = Fixture::new().await;
    let pods = "/api/v1/namespaces/default/pods";
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let refused = server.post(pods, &pod).await;
    assert_eq!(refused.code, 403, "{}", refused.text);
    assert!(refused.message().contains("serviceaccount \"default\" not found"), "{}", refused.message());
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    assert_eq!(server.post(accounts, &json!({"metadata": {"name": "default"}})).await.code, 201);
    let created = server.post(pods, &pod).await;
    assert_eq!(created.code, 201, "{}", created.text);
    let spec = &created.body["spec"];
    assert_eq!(spec["serviceAccountName"], "default");
    assert_eq!(spec["priority"], 0);
    assert_eq!(spec["tolerations"].as_array().unwrap().len(), 2);
    assert!(spec["volumes"][0]["name"].as_str().unwrap().starts_with("kube-api-access-"));
    assert_eq!(created.body["status"]["phase"], "Pending");
    assert_eq!(created.body["status"]["qosClass"], "BestEffort");
    let binding = json!({"metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n"}});
    let bound = server.post(&format!("{pods}/p/binding"), &binding).await;
    assert_eq!(bound.code, 201, "{}", bound.text);
    let twice = server.post(&format!("{pods}/p/binding"), &binding).await;
    assert_eq!(twice.code, 409, "{}", twice.text);
    // Bound pods are given time, unbound ones are not.
    let marked = server.ask("DELETE", &format!("{pods}/p"), "", Body::empty()).await;
    assert_eq!(marked.body["metadata"]["deletionGracePeriodSeconds"], 30, "{}", marked.text);
    assert_eq!(server.get(&format!("{pods}/p")).await.code, 200);
    assert_eq!(server.ask("DELETE", &format!("{pods}/p?gracePeriodSeconds=0"), "", Body::empty()).await.code, 200);
    assert_eq!(server.get(&format!("{pods}/p")).await.code, 404);

    let missing = server.post("/api/v1/namespaces/none/configmaps", &json!({"metadata": {"name": "x"}})).await;
    assert_eq!(missing.message(), "namespaces \"none\" not found");
    let namespaces = "/api/v1/namespaces";
    assert_eq!(server.post(namespaces, &json!({"metadata": {"name": "going"}})).await.code, 201);
    let going = server.ask("DELETE", &format!("{namespaces}/going"), "", Body::empty()).await;
    assert_eq!(going.body["status"]["phase"], "Terminating", "{}", going.text);
    let late = server.post("/api/v1/namespaces/going/configmaps", &json!({"metadata": {"name": "x"}})).await;
    assert!(late.message().contains("because it is being terminated"), "{}", late.message());
    let empty = json!({"metadata": {"name": "going"}, "spec": {"finalizers": []}});
    let done = server.ask("PUT", &format!("{namespaces}/going/finalize"), "application/json", empty.to_string()).await;
    assert_eq!(done.code, 200, "{}", done.text);
    assert_eq!(server.get(&format!("{namespaces}/going")).await.code, 404);
}

#[tokio::test]
async fn every_resource_lists_in_every_form() {
    // Those that are off by default, too.
    let server = Fixture::with(|config| {
        config.runtime_config = vec![("api/all".to_string(), true)];
        config.feature_gates = vec![("AllBeta".to_string(), true)];
    })
    .await;
    let resources: Vec<_> = server.handle.server.registry.all().to_vec();
    let mut seen = 0;
    for served in resources {
        let resource = &served.resource;
        if !resource.has_verb("list") {
            continue;
        }
        let path = if resource.group.is_empty() {
            format!("/api/{}/{}", resource.version, resource.plural)
        } else {
            format!("/apis/{}/{}/{}", resource.group, resource.version, resource.plural)
        };
        for accept in [
            "application/json",
            "application/yaml",
            "application/vnd.kubernetes.protobuf",
            "application/json;as=Table;v=v1;g=meta.k8s.io",
            "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io",
            "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io",
        ] {
            let request = Request::get(&path).header("accept", accept).body(Body::empty()).unwrap();
            let answer = server.send(request).await;
            assert_eq!(answer.code, 200, "{path} {accept}: {}", answer.text);
        }
        seen += 1;
    }
    assert!(seen > 80, "only {seen} resources");
}

#[tokio::test]
async fn every_method_reaches_what_is_behind_a_proxy() {
    let server = Fixture::new().await;
    let service = json!({"metadata": {"name": "lonely"}, "spec": {"ports": [{"port": 80}], "selector": {"a": "b"}}});
    let services = "/api/v1/namespaces/default/services";
    assert_eq!(server.post(services, &service).await.code, 201);
    for path in ["proxy", "proxy/some/where"] {
        for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
            let answer = server.ask(method, &format!("{services}/lonely/{path}"), "", Body::empty()).await;
            // Nobody is there, which is found out once the request has gone all the way.
            assert_eq!(answer.code, 503, "{method} {path}: {}", answer.text);
        }
    }
    let other = server.ask("OPTIONS", &format!("{services}/lonely/status"), "", Body::empty()).await;
    assert_eq!(other.code, 405, "{}", other.text);
}

#[tokio::test]
async fn component_statuses_are_asked_for_when_they_are_read() {
    const PATH: &str = "/api/v1/componentstatuses";
    let server = Fixture::new().await;
    let list = server.get(PATH).await;
    assert_eq!(list.code, 200, "{}", list.text);
    assert_eq!(list.body["metadata"], json!({}));
    let of = |name: &str| list.body["items"].as_array().unwrap().iter().find(|item| item["metadata"]["name"] == name);
    for name in ["controller-manager", "etcd-0", "scheduler"] {
        let item = of(name).unwrap_or_else(|| panic!("{name}: {}", list.text));
        assert_eq!(item["metadata"], json!({"name": name}));
        assert_eq!(item["conditions"][0]["type"], "Healthy");
        let mut object = item.clone();
        object["apiVersion"] = "v1".into();
        object["kind"] = "ComponentStatus".into();
        assert_eq!(server.get(&format!("{PATH}/{name}")).await.body, object);
    }
    let well = json!([{"type": "Healthy", "status": "True", "message": "ok"}]);
    assert_eq!(of("etcd-0").unwrap()["conditions"], well);
    // A scheduler may be running on this machine, or not.
    let scheduler = &of("scheduler").unwrap()["conditions"];
    let refused = "Get \"https://127.0.0.1:10259/healthz\": dial tcp 127.0.0.1:10259: connect: connection refused";
    let ill = json!([{"type": "Healthy", "status": "False", "message": refused}]);
    assert!(*scheduler == well || *scheduler == ill, "{scheduler}");

    let one = server.get(&format!("{PATH}?fieldSelector=metadata.name%3Detcd-0")).await;
    assert_eq!(one.body["items"].as_array().map(Vec::len), Some(1), "{}", one.text);
    let none = server.get(&format!("{PATH}?labelSelector=a")).await;
    assert_eq!(none.body["items"], json!([]));
    let unknown = server.get(&format!("{PATH}/etcd-1")).await;
    assert_eq!((unknown.code, unknown.body["message"].as_str()), (404, Some("componentstatus \"etcd-1\" not found")));
    assert_eq!(server.ask("DELETE", &format!("{PATH}/etcd-0"), "", Body::empty()).await.code, 405);
}
