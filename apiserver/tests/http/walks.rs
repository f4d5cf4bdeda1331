//! Rules that a comparison of whole life cycles with upstream's answers brought up: one table or a few steps each.

use axum::body::Body;
use http::Request;
use serde_json::{Value, json};

use super::Fixture;

const JSON: &str = "application/json";
const MERGE: &str = "application/merge-patch+json";
const PATCH: &str = "application/json-patch+json";
const APPLY: &str = "application/apply-patch+yaml";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn object(version: &str, kind: &str, name: &str) -> Value {
    json!({"apiVersion": version, "kind": kind, "metadata": {"name": name}})
}

/// What a body calls itself decides whether it is refused as unreadable, as something else or as another version.
#[tokio::test]
async fn other_versions_and_kinds() {
    let server = Fixture::new().await;
    const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
    const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let mismatch = |data: &str, expected: &str| {
        format!("the API version in the data ({data}) does not match the expected API version ({expected})")
    };
    let definition = "apiextensions-apiserver/pkg/apiserver/apiserver.go:55";
    for (path, version, kind, message) in [
        (MAPS, "a/b/c", "ConfigMap", "the object provided is unrecognized (must be of type ConfigMap): unexpected GroupVersion string: a/b/c ({\"apiVersion\":\"a/b/c\",\"kind\":\" ...)".to_owned()),
        (DEPLOYMENTS, "apps/v1beta1", "Deployment", mismatch("apps/v1beta1", "apps/v1")),
        (DEPLOYMENTS, "extensions/v1beta1", "Deployment", mismatch("extensions/v1beta1", "apps/v1")),
        (DEPLOYMENTS, "apps/v1", "List", "no kind \"List\" is registered for version \"apps/v1\" in scheme \"pkg/api/legacyscheme/scheme.go:30\"".to_owned()),
        ("/apis/events.k8s.io/v1/namespaces/default/events", "v1", "Event", mismatch("v1", "events.k8s.io/v1")),
        (DEFINITIONS, "v1", "ConfigMap", format!("no kind \"ConfigMap\" is registered for version \"v1\" in scheme \"k8s.io/{definition}\"")),
        (DEFINITIONS, "v1", "Status", "converting (v1.Status) to (apiextensions.CustomResourceDefinition): unknown conversion".to_owned()),
        ("/apis/apiregistration.k8s.io/v1/apiservices", "x.y/v1", "APIService", "no kind \"APIService\" is registered for version \"x.y/v1\" in scheme \"k8s.io/kube-aggregator/pkg/apiserver/scheme/scheme.go:28\"".to_owned()),
    ] {
        let answer = server.post(path, &object(version, kind, "x")).await;
        assert_eq!(answer.code, 400, "{path} {version} {kind}: {}", answer.text);
        // A version that is known is refused as such, everything else as what it is not.
        let whole = message.starts_with("the ");
        let found = if whole { answer.message() == message } else { answer.message().ends_with(&message) };
        assert!(found, "{path} {version} {kind}: {}", answer.message());
    }
}

/// A patch that takes the version away leaves nothing that could be named.
#[tokio::test]
async fn patches_without_a_version() {
    let server = Fixture::new().await;
    assert_eq!(server.post(MAPS, &object("v1", "ConfigMap", "x")).await.code, 201);
    let one = format!("{MAPS}/x");
    for (content_type, body) in [
        (MERGE, json!({"apiVersion": null})),
        (MERGE, json!({"apiVersion": null, "kind": null})),
        (PATCH, json!([{"op": "replace", "path": "", "value": {"metadata": {"name": "x"}}}])),
    ] {
        let answer = server.ask("PATCH", &one, content_type, body.to_string()).await;
        assert_eq!(answer.code, 400, "{body}: {}", answer.text);
        assert_eq!(
            answer.message(),
            "the name of the object (x based on URL) was undeterminable: name must be provided"
        );
        assert_eq!(answer.warnings, ["299 - \"unknown field \\\"metadata\\\"\""], "{body}");
    }
    // Applied, it is refused before; and what is made by applying it needs a name.
    let other = object("a/b/c", "ConfigMap", "x").to_string();
    let answer = server.ask("PATCH", &format!("{one}?fieldManager=a"), APPLY, other).await;
    assert_eq!(answer.message(), "invalid object type: /, Kind=");
    let nameless = json!({"apiVersion": "v1", "kind": "ConfigMap"}).to_string();
    let answer = server.ask("PATCH", &format!("{MAPS}/new?fieldManager=a"), APPLY, nameless).await;
    assert_eq!((answer.code, server.get(&format!("{MAPS}/new")).await.code), (400, 404), "{}", answer.text);
}

#[tokio::test]
async fn deletions() {
    let server = Fixture::new().await;
    let one = format!("{MAPS}/x");
    server.post(MAPS, &object("v1", "ConfigMap", "x")).await;
    // What is wrong with the options is said without naming them.
    for (body, message) in [
        ("{", "couldn't get version/kind; json parse error: unexpected end of JSON input"),
        (
            "[]",
            "couldn't get version/kind; json parse error: json: cannot unmarshal array into Go value of type struct",
        ),
    ] {
        let answer = server.ask("DELETE", &one, JSON, body).await;
        assert_eq!(answer.code, 400);
        assert!(answer.message().starts_with(message), "{}", answer.message());
    }
    // A dry run that would take a finalizer away shows that an object was written.
    let finalizers = json!({"metadata": {"finalizers": ["orphan"]}}).to_string();
    server.ask("PATCH", &one, MERGE, finalizers).await;
    let answer = server.ask("DELETE", &format!("{one}?dryRun=All&propagationPolicy=Background"), JSON, "").await;
    assert_eq!(answer.body["kind"], "ConfigMap", "{}", answer.text);
    assert_eq!(server.get(&one).await.code, 200);

    // A namespace that is being emptied stays as it is, whatever is asked of its dependents.
    server.post("/api/v1/namespaces", &object("v1", "Namespace", "n")).await;
    server.ask("DELETE", "/api/v1/namespaces/n?propagationPolicy=Foreground", JSON, "").await;
    let answer = server.ask("DELETE", "/api/v1/namespaces/n?propagationPolicy=Orphan", JSON, "").await;
    assert_eq!(answer.body["metadata"]["finalizers"], json!(["foregroundDeletion"]), "{}", answer.text);
}

/// What a plugin refuses is named as far as it has a name.
#[tokio::test]
async fn refusals_name_the_object() {
    let server = Fixture::new().await;
    let pod = |metadata: Value| {
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {
            "automountServiceAccountToken": false, "priorityClassName": "system-node-critical", "priority": 5,
            "containers": [{"name": "c", "image": "i"}],
        }})
    };
    for (metadata, name) in [(json!({"name": "a"}), "a"), (json!({"generateName": "b-"}), "b-"), (json!({}), "Unknown")]
    {
        let answer = server.post("/api/v1/namespaces/default/pods", &pod(metadata)).await;
        assert_eq!((answer.code, answer.body["details"]["name"].as_str()), (403, Some(name)), "{}", answer.text);
    }
}

/// Names that are generated: an address is not, and only the name counts where upstream checks it afterwards.
#[tokio::test]
async fn generated_names() {
    let server = Fixture::new().await;
    let reference = json!({"parentRef": {"resource": "services", "namespace": "default", "name": "x"}});
    let mut address = object("networking.k8s.io/v1", "IPAddress", "x");
    address["metadata"] = json!({"generateName": "gen-"});
    address["spec"] = reference;
    let answer = server.post("/apis/networking.k8s.io/v1/ipaddresses", &address).await;
    assert_eq!((answer.code, answer.body["details"]["name"].as_str()), (422, Some("gen-")), "{}", answer.text);
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let controller = json!({
        "apiVersion": "v1", "kind": "ReplicationController", "metadata": {"generateName": "Gen_"},
        "spec": {"replicas": 1, "selector": {"a": "b"}, "template": template},
    });
    let answer = server.post("/api/v1/namespaces/default/replicationcontrollers", &controller).await;
    let causes = answer.body["details"]["causes"].as_array().cloned().unwrap_or_default();
    let fields: Vec<_> = causes.iter().filter_map(|cause| cause["field"].as_str()).collect();
    assert_eq!(fields, ["metadata.name"], "{}", answer.text);
}

/// Bindings are checked with the name first; their errors are upstream's bare ones.
#[tokio::test]
async fn bindings() {
    let server = Fixture::new().await;
    const POD: &str = "/api/v1/namespaces/default/pods/none/binding";
    const BINDINGS: &str = "/api/v1/namespaces/default/bindings";
    let binding = |name: &str, target: Value| json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name}, "target": target});
    let node = json!({"name": "n"});
    for (path, body, code, message) in [
        (POD, binding("other", node.clone()), 400, "name in URL does not match name in Binding object"),
        (POD, binding("none", json!({})), 500, "target.name: Required value"),
        (POD, binding("none", node.clone()), 404, "pods \"none\" not found"),
        (BINDINGS, binding("none", json!({})), 500, "target.name: Required value"),
        (BINDINGS, binding("", node), 400, "Name parameter required."),
    ] {
        let answer = server.post(path, &body).await;
        assert_eq!((answer.code, answer.message()), (code, message), "{body}");
    }
}

/// Who may be asked in which way: group documents and OpenAPI by any method, unknown groups by none.
#[tokio::test]
async fn paths_and_methods() {
    let server = Fixture::new().await;
    let warned = "v1 Endpoints is deprecated in v1.33+";
    for (method, path, code) in [
        ("POST", "/apis/apps", 200),
        ("OPTIONS", "/openapi/v3", 200),
        ("POST", "/apis/none/v1", 404),
        ("POST", "/apis/apps/v1", 405),
        ("GET", "/apis/authorization.k8s.io/v1/subjectaccessreviews/x", 404),
        ("GET", "/openapi/v3/apis/", 404),
        ("GET", "/api/v1/namespaces/default/pods?limit=", 400),
        ("GET", "/apis/apiregistration.k8s.io/v1/apiservices/v1./status", 200),
    ] {
        assert_eq!(server.ask(method, path, JSON, "").await.code, code, "{method} {path}");
    }
    // Nobody is warned of what there is no route to.
    let routed = server.get("/api/v1/namespaces/default/endpoints").await;
    let elsewhere = server.post("/api/v1/endpoints", &object("v1", "Endpoints", "x")).await;
    assert!(routed.warnings.iter().any(|warning| warning.contains(warned)), "{:?}", routed.warnings);
    assert_eq!((elsewhere.code, elsewhere.warnings.len()), (405, 0));
    // A limit holds for a list from anywhere but a cache, which upstream has for everything but events.
    for name in ["a", "b"] {
        server.post(MAPS, &object("v1", "ConfigMap", name)).await;
        let mut event = object("v1", "Event", name);
        event["involvedObject"] = json!({"kind": "Pod", "name": "p", "namespace": "default"});
        assert_eq!(server.post("/api/v1/namespaces/default/events", &event).await.code, 201);
    }
    for (plural, count) in [("configmaps", 2), ("events", 1)] {
        let path = format!("/api/v1/namespaces/default/{plural}?limit=1&resourceVersion=0");
        let items = server.get(&path).await.body["items"].as_array().map_or(0, Vec::len);
        assert_eq!(items, count, "{plural}");
    }
    // The token is looked at before what does not go with it.
    let answer = server.get("/api/v1/namespaces/default/pods?continue=abc&resourceVersion=5").await;
    assert!(answer.message().starts_with("invalid continue token"), "{}", answer.message());
}

/// The checks of a server that is ready, by upstream's names and in its order.
#[tokio::test]
async fn health_checks() {
    let server = Fixture::new().await;
    let names = |text: &str| -> Vec<String> {
        let name = |line: &str| Some(line.strip_prefix("[+]")?.split(' ').next()?.to_owned());
        text.lines().filter_map(name).collect()
    };
    let live = names(&server.get("/livez?verbose").await.text);
    let ready = names(&server.get("/readyz?verbose").await.text);
    assert_eq!(
        live[..6],
        [
            "ping",
            "log",
            "loopback-serving-certificate",
            "etcd",
            "poststarthook/start-apiserver-admission-initializer",
            "poststarthook/generic-apiserver-start-informers"
        ]
    );
    assert_eq!(live.last().map(String::as_str), Some("poststarthook/apiservice-openapiv3-controller"));
    assert_eq!(ready[..4], ["ping", "log", "informer-sync", "poststarthook/start-apiserver-admission-initializer"]);
    assert_eq!(ready.last().map(String::as_str), Some("shutdown"));
    assert_eq!(live[4..], ready[3..ready.len() - 1], "what is started is the same");
    assert_eq!(server.get("/readyz/etcd").await.code, 404);
    let index = server.get("/").await;
    assert!(index.body["paths"].as_array().is_some_and(|paths| paths.contains(&json!("/livez/etcd"))));
}

/// What kinds keep, drop, default and warn of.
#[tokio::test]
async fn kinds() {
    let server = Fixture::new().await;
    let mut slice = object("discovery.k8s.io/v1", "EndpointSlice", "s");
    slice["addressType"] = "IPv4".into();
    slice["endpoints"] = json!([{"addresses": ["10.0.0.1"], "deprecatedTopology": {"x": "y"}}]);
    let answer = server.post("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices", &slice).await;
    assert_eq!((answer.code, &answer.body["endpoints"][0]["deprecatedTopology"]), (201, &Value::Null));

    let mut node = object("v1", "Node", "n");
    node["status"] = json!({"capacity": {"cpu": "4"}, "allocatable": {}});
    let answer = server.post("/api/v1/nodes", &node).await;
    assert_eq!((answer.code, &answer.body["status"]["allocatable"]), (201, &json!({"cpu": "4"})));

    let mut quota = object("v1", "ResourceQuota", "q");
    quota["spec"] = json!({"hard": {"cpu": "1500m", "limits.cpu": "1", "requests.storage": "1Gi"}});
    let answer = server.post("/api/v1/namespaces/default/resourcequotas", &quota).await;
    let warning = "299 - \"ResourceQuota cpu (1500m) should be less than limits.cpu (1)\"";
    assert_eq!((answer.code, answer.warnings.as_slice()), (201, &[warning.to_owned()][..]));

    let mut class = object("resource.k8s.io/v1", "DeviceClass", "c");
    class["spec"] = json!({});
    assert_eq!(server.post("/apis/resource.k8s.io/v1/deviceclasses", &class).await.code, 201);
    class["metadata"]["finalizers"] = json!(["bad"]);
    class["metadata"]["resourceVersion"] =
        server.get("/apis/resource.k8s.io/v1/deviceclasses/c").await.body["metadata"]["resourceVersion"].clone();
    let answer = server.ask("PUT", "/apis/resource.k8s.io/v1/deviceclasses/c", JSON, class.to_string()).await;
    let causes = answer.body["details"]["causes"].as_array().map_or(0, Vec::len);
    assert_eq!((answer.code, causes), (422, 2), "{}", answer.text);
}

/// What is liked best decides, and what is not understood is refused as upstream's handlers or its router do.
#[tokio::test]
async fn accepted_forms() {
    let server = Fixture::new().await;
    const MAPS_WATCH: &str = "/api/v1/namespaces/default/configmaps?watch=1&timeoutSeconds=1";
    for (path, accept, code, details) in [
        ("/version", "application/yaml", 406, true),
        ("/version", "*/*", 200, false),
        ("/apis", "text/html", 406, false),
        ("/apis", "application/*", 200, false),
        ("/apis/apps", "application/xml", 406, false),
        (MAPS, "application/json;as=\"Table\";v=v1;g=meta.k8s.io", 406, false),
        (MAPS_WATCH, "application/yaml;q=0.9, application/json;q=0.1", 406, false),
        (MAPS_WATCH, "application/json, application/yaml;q=0.1", 200, false),
        (
            "/apis/apiregistration.k8s.io/v1/apiservices/v1./status",
            "application/json;as=Table;v=v1;g=meta.k8s.io",
            406,
            false,
        ),
    ] {
        let request = Request::get(path).header("accept", accept).body(Body::empty()).unwrap();
        let answer = server.send(request).await;
        let told = answer.text.contains("details");
        assert_eq!((answer.code, told), (code, details), "{path} {accept}: {}", answer.text);
    }
}

/// Messages show structs as upstream holds them, and say no more than upstream does.
#[tokio::test]
async fn validation() {
    let server = Fixture::new().await;
    let pods = json!({"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}});
    let job = |spec: Value| {
        let mut job = json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "j"}, "spec": spec});
        job["spec"]["template"] = pods.clone();
        job
    };
    let rules = json!({"rules": [{"succeededIndexes": "0-1", "succeededCount": 1}]});
    let mut range = object("networking.k8s.io/v1", "ServiceCIDR", "r");
    range["spec"] = json!({"cidrs": ["10.1.0.0/16", "fd00::/112", "10.2.0.0/16"]});
    let mut node = object("v1", "Node", "n");
    node["spec"] = json!({"podCIDR": "10.3.0.0/24", "podCIDRs": ["10.3.0.0/24", "x"]});
    let mut policy = object("admissionregistration.k8s.io/v1", "MutatingAdmissionPolicy", "m");
    let constraints = json!({"resourceRules": [{"apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"], "operations": ["DELETE"]}]});
    let expression = json!({"expression": "Object{metadata: Object.metadata{labels: {'a': variables.x}}}"});
    policy["spec"] = json!({"matchConstraints": constraints, "reinvocationPolicy": "Never", "mutations": [{"patchType": "ApplyConfiguration", "applyConfiguration": expression}]});
    const JOBS: &str = "/apis/batch/v1/namespaces/default/jobs";
    for (path, body, part, causes) in [
        (
            JOBS,
            job(json!({"successPolicy": rules})),
            "{\"Rules\":[{\"SucceededIndexes\":\"0-1\",\"SucceededCount\":1}]}: requires indexed completion mode",
            1,
        ),
        (JOBS, job(json!({"completionMode": "Indexed", "completions": -1})), "must be greater than or equal to 0", 1),
        (
            "/apis/networking.k8s.io/v1/servicecidrs",
            range,
            "{\"CIDRs\":[\"10.1.0.0/16\",\"fd00::/112\",\"10.2.0.0/16\"]}: may only hold up to 2 values",
            1,
        ),
        ("/api/v1/nodes", node, "may specify no more than one CIDR for each IP family", 3),
        (
            "/apis/admissionregistration.k8s.io/v1/mutatingadmissionpolicies",
            policy.clone(),
            "supported values: \"*\", \"CONNECT\", \"CREATE\", \"UPDATE\"",
            2,
        ),
        ("/apis/admissionregistration.k8s.io/v1/mutatingadmissionpolicies", policy, "undefined field 'x'", 2),
    ] {
        let answer = server.post(path, &body).await;
        let count = answer.body["details"]["causes"].as_array().map_or(0, Vec::len);
        assert!(answer.message().contains(part), "{path}: {}", answer.message());
        assert_eq!((answer.code, count), (422, causes), "{path}: {}", answer.message());
    }
    // A review keeps what it was sent where nothing is found out; a service without an address has no policy for it.
    let mut review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": "x"}});
    review["status"] = json!({"audiences": ["a"], "authenticated": true});
    let answer = server.post("/apis/authentication.k8s.io/v1/tokenreviews", &review).await;
    assert_eq!(answer.body["status"]["audiences"], json!(["a"]), "{}", answer.text);
    assert_eq!(answer.body["status"]["authenticated"], Value::Null, "{}", answer.text);
    // Who writes the status of an APIService writes nothing else.
    let patch = json!({"metadata": {"annotations": {"a": "b"}, "labels": {"c": "d"}}}).to_string();
    let answer =
        server.ask("PATCH", "/apis/apiregistration.k8s.io/v1/apiservices/v1./status?dryRun=All", MERGE, patch).await;
    let metadata = &answer.body["metadata"];
    assert_eq!((answer.code, &metadata["annotations"], &metadata["labels"]["c"]), (200, &Value::Null, &Value::Null));
    // A token is asked for in the name of one account only.
    const TOKEN: &str = "/api/v1/namespaces/default/serviceaccounts/a/token";
    server.post("/api/v1/namespaces/default/serviceaccounts", &object("v1", "ServiceAccount", "a")).await;
    for (metadata, code) in [
        // This server signs none: the name alone is fine.
        (json!({"name": "a", "namespace": "default"}), 404),
        (json!({"name": "x"}), 422),
        (json!({"namespace": "x", "name": "x"}), 400),
        (json!({"uid": "x"}), 409),
    ] {
        let mut request = object("authentication.k8s.io/v1", "TokenRequest", "a");
        request["metadata"] = metadata;
        request["spec"] = json!({"audiences": ["x"]});
        assert_eq!(server.post(TOKEN, &request).await.code, code, "{request}");
    }
    const SERVICES: &str = "/api/v1/namespaces/default/services";
    let mut service = object("v1", "Service", "s");
    service["spec"] = json!({"ports": [{"port": 80}]});
    assert_eq!(server.post(SERVICES, &service).await.code, 201);
    let patch = json!({"spec": {"type": "ExternalName", "externalName": "a.b"}}).to_string();
    let answer = server.ask("PATCH", &format!("{SERVICES}/s"), MERGE, patch).await;
    assert_eq!((answer.code, &answer.body["spec"]["internalTrafficPolicy"]), (200, &Value::Null), "{}", answer.text);
}

fn named(object: &Value, name: &str) -> Value {
    let mut object = object.clone();
    object["metadata"]["name"] = name.into();
    object
}

/// An eviction finds out in upstream's order what keeps it from happening.
#[tokio::test]
async fn evictions() {
    let server = Fixture::new().await;
    let account = object("v1", "ServiceAccount", "default");
    server.post("/api/v1/namespaces/default/serviceaccounts", &account).await;
    let mut pod = object("v1", "Pod", "p");
    pod["spec"] = json!({"containers": [{"name": "c", "image": "i"}]});
    let made = server.post("/api/v1/namespaces/default/pods", &pod).await;
    assert_eq!(made.code, 201, "{}", made.text);
    assert_eq!(made.body["status"], json!({"phase": "Pending", "qosClass": "BestEffort"}));
    pod["status"] = json!({"phase": "Running", "qosClass": "Guaranteed", "podIP": "10.0.0.1"});
    let claimed = server.post("/api/v1/namespaces/default/pods?dryRun=All", &named(&pod, "claimed")).await;
    assert_eq!(claimed.body["status"], json!({"phase": "Pending", "qosClass": "Guaranteed"}), "as upstream has it");
    assert!(!claimed.body["metadata"]["managedFields"].to_string().contains("f:status"), "{}", claimed.text);
    let evict = async |pod: &str, named: &str, query: &str, options: Value| {
        let mut eviction = object("policy/v1", "Eviction", named);
        eviction["deleteOptions"] = options;
        server.post(&format!("/api/v1/namespaces/default/pods/{pod}/eviction{query}"), &eviction).await
    };
    let bad = || json!({"propagationPolicy": "Bad"});
    for (pod, named, query, options, code) in [
        ("nope", "nope", "", bad(), 404),
        ("nope", "nope", "", json!({"dryRun": ["Bad"]}), 404),
        ("nope", "nope", "", json!({"ignoreStoreReadErrorWithClusterBreakingPotential": true}), 422),
        ("nope", "other", "", bad(), 400),
        ("nope", "nope", "?dryRun=All", json!({"dryRun": ["Bad", "x"]}), 500),
        ("p", "p", "?dryRun=All", bad(), 422),
        ("p", "p", "", json!({"dryRun": ["Bad"]}), 422),
        ("p", "p", "", bad(), 422),
    ] {
        let answer = evict(pod, named, query, options.clone()).await;
        assert_eq!(answer.code, code, "{pod} {named} {query} {options}: {}", answer.text);
        if code == 500 {
            assert_eq!(answer.message(), "Non-matching dry-run options in request and content: [All] and [Bad x]");
        }
    }
    // The last of them has marked the pod before it failed.
    let left = server.get("/api/v1/namespaces/default/pods/p").await.body;
    let marked = left["status"]["conditions"]
        .as_array()
        .is_some_and(|conditions| conditions.iter().any(|condition| condition["type"] == "DisruptionTarget"));
    assert!(marked && left["metadata"]["deletionTimestamp"].is_null(), "{left}");
    assert_eq!(evict("p", "p", "", Value::Null).await.code, 201);
    assert_eq!(server.get("/api/v1/namespaces/default/pods/p").await.code, 404);
}
