//! Small requests that would cost much: expressions that multiply, documents that nest, users of very many
//! groups. Every answer here is one that upstream's kube-apiserver 1.36 gave to the same request.

use serde_json::{Value, json};

use crate::Fixture;

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps?dryRun=All";
const REVIEWS: &str = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
const POLICIES: &str = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies";
const BINDINGS: &str = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings";
const WEBHOOKS: &str = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations?dryRun=All";
const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions?dryRun=All";

fn config_map(data: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "d"}, "data": {"a": data}})
}

#[tokio::test]
async fn documents_nest_ten_thousand_deep_and_no_deeper() {
    let server = Fixture::new().await;
    // What is kept may not be as deep as what is dropped: this server's own bound, far below upstream's.
    for (field, open, inner, close, depth, code) in [
        ("data", "[", "", "]", 900, 400),
        ("x", "{\"a\":", "1", "}", 9_990, 201),
        ("data", "[", "", "]", 10_001, 400),
        ("x", "{\"a\":", "1", "}", 10_001, 400),
        ("data", "[", "", "]", 200_000, 400),
        ("x", "{\"a\":", "1", "}", 200_000, 400),
    ] {
        let head = r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"d"},""#;
        let body = format!("{head}{field}\":{}{inner}{}}}", open.repeat(depth), close.repeat(depth));
        let answer = server.ask("POST", CONFIG_MAPS, "application/json", body).await;
        assert_eq!(answer.code, code, "{field} {depth}: {}", answer.message());
        let want = match (depth > 10_000, field) {
            (true, _) => format!(
                "the object provided is unrecognized (must be of type ConfigMap): couldn't get version/kind; \
                 json parse error: invalid character '{}' exceeded max depth \
                 ({{\"apiVersion\":\"v1\",\"kind\":\"Con ...)",
                &open[..1]
            ),
            (false, "data") => "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: json: cannot \
                 unmarshal array into Go struct field ConfigMap.data of type map[string]string"
                .to_owned(),
            _ => continue,
        };
        assert_eq!(answer.message(), want, "{field} {depth}");
    }
}

#[tokio::test]
async fn groups_are_many_as_long_as_the_request_is_small() {
    let server = Fixture::new().await;
    let review = |count: usize| {
        let groups: Vec<String> = (0..count).map(|n| format!("g{n}")).collect();
        json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
            "spec": {"groups": groups, "resourceAttributes": {"verb": "get", "resource": "pods"}}})
    };
    let answer = server.post(REVIEWS, &review(50_000)).await;
    assert_eq!((answer.code, &answer.body["status"]["allowed"]), (201, &json!(false)), "{}", answer.message());
    let answer = server.post(REVIEWS, &review(400_000)).await;
    assert_eq!((answer.code, answer.message()), (413, "Request entity too large: limit is 3145728"));
}

fn policy(name: &str, expressions: &[String], conditions: usize) -> Value {
    let validations: Vec<Value> = expressions.iter().map(|text| json!({"expression": text})).collect();
    let conditions: Vec<Value> =
        (0..conditions).map(|n| json!({"name": format!("c{n}"), "expression": "true"})).collect();
    json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": name}, "spec": {
            "matchConstraints": {"resourceRules": [{"apiGroups": [""], "apiVersions": ["v1"],
                "resources": ["configmaps"], "operations": ["CREATE"]}]},
            "validations": validations, "matchConditions": conditions}})
}

/// Ten to the eighth steps in one line.
fn nested() -> String {
    format!("{}true{}", "[0,1,2,3,4,5,6,7,8,9].all(a,".repeat(8), ")".repeat(8))
}

/// On a stack as serving threads have: what is nested as deep as may be does not fit a test's, without optimization.
#[test]
fn expressions_of_policies_are_taken_but_stop_when_they_cost_too_much() {
    let run = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(expressions());
    };
    std::thread::Builder::new().stack_size(apiserver::STACK).spawn(run).unwrap().join().unwrap();
}

async fn expressions() {
    let server = Fixture::new().await;
    let row = format!("[{}]", vec!["1"; 5000].join(","));
    let taken = [
        ("nested", vec![nested()]),
        ("lists", vec![format!("{row}.all(x, {row}.all(y, x==y))")]),
        ("long", vec![format!("\"{}\".contains(\"b\")", "a".repeat(20_000))]),
        ("regex", vec![format!("'{}'.matches('(a*)*b')", "a".repeat(100))]),
        ("many", vec!["true".to_owned(); 2000]),
    ];
    for (name, expressions) in &taken {
        let answer = server.post(&format!("{POLICIES}?dryRun=All"), &policy(name, expressions, 1)).await;
        assert_eq!(answer.code, 201, "{name}: {}", answer.message());
    }
    let deep = format!("{}1{}==1", "(".repeat(400), ")".repeat(400));
    let answer = server.post(POLICIES, &policy("deep", &[deep], 0)).await;
    assert_eq!(answer.code, 422, "{}", answer.message());
    let answer = server.post(POLICIES, &policy("mc", &["true".to_owned()], 70)).await;
    assert_eq!(
        (answer.code, answer.message()),
        (
            422,
            "ValidatingAdmissionPolicy.admissionregistration.k8s.io \"mc\" is invalid: \
             spec.matchConditions: Too many: 70: must have at most 64 items"
        )
    );

    let costly =
        "object.data.a.split('').all(x, object.data.a.split('').all(y, object.data.a.split('').exists(z, z == y)))";
    assert_eq!(server.post(POLICIES, &policy("run", &[costly.to_owned()], 0)).await.code, 201);
    let binding = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": "run"}, "spec": {"policyName": "run", "validationActions": ["Deny"]}});
    assert_eq!(server.post(BINDINGS, &binding).await.code, 201);
    // Policies are read a moment later.
    let answer = loop {
        let answer = server.post(CONFIG_MAPS, &config_map(&"x".repeat(3000))).await;
        if answer.code != 201 {
            break answer;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    };
    let want = format!(
        "configmaps \"d\" is forbidden: ValidatingAdmissionPolicy 'run' with binding 'run' denied request: \
         expression '{costly}' resulted in error: operation cancelled: actual cost limit exceeded"
    );
    assert_eq!((answer.code, answer.message()), (422, want.as_str()));
    let answer = server.post(CONFIG_MAPS, &config_map("xx")).await;
    assert_eq!(answer.code, 201, "{}", answer.message());
}

#[tokio::test]
async fn conditions_of_webhooks_are_counted() {
    let server = Fixture::new().await;
    let webhook = |conditions: Vec<Value>| {
        json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
            "metadata": {"name": "w"}, "webhooks": [{"name": "w.example.com",
                "clientConfig": {"url": "https://127.0.0.1:1/"}, "sideEffects": "None",
                "admissionReviewVersions": ["v1"], "rules": [{"apiGroups": ["x"], "apiVersions": ["v1"],
                    "resources": ["y"], "operations": ["CREATE"]}], "matchConditions": conditions}]})
    };
    let many = (0..65).map(|n| json!({"name": format!("c{n}"), "expression": "true"})).collect();
    let head = "ValidatingWebhookConfiguration.admissionregistration.k8s.io \"w\" is invalid: ";
    for (conditions, code, want) in [
        (many, 422, "webhooks[0].matchConditions: Too many: 65: must have at most 64 items"),
        (
            vec![json!({"name": "c", "expression": "1"})],
            422,
            "webhooks[0].matchConditions[0].expression: Invalid value: \"1\": must evaluate to bool but got int",
        ),
        (vec![json!({"name": "c", "expression": nested()})], 201, ""),
    ] {
        let answer = server.post(WEBHOOKS, &webhook(conditions)).await;
        assert_eq!(answer.code, code, "{}", answer.message());
        if code != 201 {
            assert_eq!(answer.message(), format!("{head}{want}"));
        }
    }
}

#[tokio::test]
async fn rules_of_definitions_that_may_cost_too_much_are_refused() {
    let server = Fixture::new().await;
    let definition = |schema: Value| {
        json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": "bombs.example.com"}, "spec": {"group": "example.com", "scope": "Namespaced",
                "names": {"plural": "bombs", "singular": "bomb", "kind": "Bomb", "listKind": "BombList"},
                "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema":
                    {"type": "object", "properties": {"spec": schema}}}}]}})
    };
    let text = json!({"type": "string"});
    let unbounded = json!({"type": "array", "items": text,
        "x-kubernetes-validations": [{"rule": "self.all(x, self.all(y, x == y))"}]});
    let within: Vec<Value> = (0..40).map(|n| json!({"rule": format!("self.all(x, x != \"{n}\")")})).collect();
    let sum = json!({"type": "object", "properties": {"a":
        {"type": "array", "items": text, "maxItems": 10000, "x-kubernetes-validations": within}}});
    let long = json!({"type": "string",
        "x-kubernetes-validations": [{"rule": format!("self == \"{}\"", "a".repeat(30_000))}]});
    let deep = (0..60).fold(text, |inner, _| json!({"type": "object", "properties": {"a": inner}}));
    let answer = server.post(DEFINITIONS, &definition(unbounded)).await;
    assert_eq!(answer.code, 422, "{}", answer.message());
    let rule = "spec.validation.openAPIV3Schema.properties[spec].x-kubernetes-validations[0].rule";
    for want in [
        format!(
            "{rule}: Forbidden: estimated rule cost exceeds budget by factor of more than 100x (try simplifying \
             the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and strings are declared)"
        ),
        format!(
            "{rule}: Forbidden: contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema"
        ),
        "spec.validation.openAPIV3Schema: Forbidden: x-kubernetes-validations estimated rule cost total for entire \
         OpenAPIv3 schema exceeds budget by factor of more"
            .to_owned(),
    ] {
        assert!(answer.message().contains(&want), "{want} is not in {}", answer.message());
    }
    for (name, schema) in [("sum", sum), ("long", long), ("deep", deep)] {
        let answer = server.post(DEFINITIONS, &definition(schema)).await;
        assert_eq!(answer.code, 201, "{name}: {}", answer.message());
    }
}
