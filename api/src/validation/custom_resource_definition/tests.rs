use serde_json::{Value, json};

fn definition(version: Value) -> Value {
    let mut definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "foos.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced", "conversion": {"strategy": "None"},
            "names": {"plural": "foos", "singular": "foo", "kind": "Foo", "listKind": "FooList"},
            "versions": [{"name": "v1", "served": true, "storage": true}],
        },
        "status": {"storedVersions": ["v1"]},
    });
    for (key, value) in version.as_object().expect("a version is an object") {
        definition["spec"]["versions"][0][key] = value.clone();
    }
    definition
}

fn with_schema(schema: Value) -> Value {
    definition(json!({"schema": {"openAPIV3Schema": schema}}))
}

fn errors(definition: &Value) -> Vec<String> {
    let resource = crate::table()
        .find_resource("apiextensions.k8s.io", "v1", "customresourcedefinitions")
        .expect("the table has definitions");
    crate::validation::create(resource, resource, definition).iter().map(ToString::to_string).collect()
}

fn changed(change: impl Fn(&mut Value)) -> Vec<String> {
    let mut definition = with_schema(json!({"type": "object"}));
    change(&mut definition);
    errors(&definition)
}

#[test]
fn names_and_versions() {
    assert_eq!(errors(&with_schema(json!({"type": "object"}))), [""; 0]);
    assert_eq!(
        changed(|definition| definition["metadata"]["name"] = "bars.example.com".into()),
        ["metadata.name: Invalid value: \"bars.example.com\": must be spec.names.plural+\".\"+spec.group"]
    );
    assert_eq!(
        changed(|definition| definition["spec"]["scope"] = "Other".into()),
        ["spec.scope: Unsupported value: \"Other\": supported values: \"Cluster\", \"Namespaced\""]
    );
    assert_eq!(
        changed(|definition| definition["spec"]["names"]["listKind"] = "Foo".into()),
        ["spec.names.listKind: Invalid value: \"Foo\": kind and listKind may not be the same"]
    );
    let two = changed(|definition| {
        let mut second = definition["spec"]["versions"][0].clone();
        second["name"] = "v2".into();
        definition["spec"]["versions"] = json!([definition["spec"]["versions"][0], second]);
    });
    assert!(two[0].ends_with("must have exactly one version marked as storage version"), "{two:?}");
    assert_eq!(errors(&definition(json!({}))), ["spec.versions[0].schema.openAPIV3Schema: Required value"]);
    let protected = changed(|definition| {
        definition["spec"]["group"] = "x.k8s.io".into();
        definition["metadata"]["name"] = "foos.x.k8s.io".into();
    });
    assert_eq!(
        protected,
        [
            "metadata.annotations[api-approved.kubernetes.io]: Required value: protected groups must have approval annotation \"api-approved.kubernetes.io\", see https://github.com/kubernetes/enhancements/pull/1111"
        ]
    );
}

#[test]
fn structural_schemas() {
    const ROOT: &str = "spec.validation.openAPIV3Schema";
    for (schema, expected) in [
        (
            json!({"type": "object", "properties": {"a": {}}}),
            vec![format!("{ROOT}.properties[a].type: Required value: must not be empty for specified object fields")],
        ),
        (json!({"properties": {}}), vec![format!("{ROOT}.type: Required value: must not be empty at the root")]),
        (
            json!({"type": "object", "properties": {"a": {"type": "array"}}}),
            vec![format!("{ROOT}.properties[a].items: Required value: must be specified")],
        ),
        (
            json!({"type": "object", "properties": {"a": {"type": "object", "anyOf": [{"properties": {"b": {"type": "string"}}}]}}}),
            vec![format!(
                "{ROOT}.properties[a].anyOf[0].properties[b].type: Forbidden: must be empty to be structural"
            )],
        ),
        (
            json!({"type": "object", "properties": {"a": {"type": "string", "uniqueItems": true}}}),
            vec![format!(
                "{ROOT}.properties[a].uniqueItems: Forbidden: uniqueItems cannot be set to true since the runtime complexity becomes quadratic"
            )],
        ),
        (
            json!({"type": "object", "properties": {"a": {"type": "string", "default": 1}}}),
            vec![format!(
                "{ROOT}.properties[a].default: Invalid value: \"integer\":  in body must be of type string: \"integer\""
            )],
        ),
        (
            json!({"type": "object", "properties": {"a": {"type": "object", "default": {"x": 1}}}}),
            vec![format!("{ROOT}.properties[a].default: Invalid value: {{\"x\":1}}: must not have unknown fields")],
        ),
        (
            json!({"type": "object", "properties": {"a": {"type": "array", "x-kubernetes-list-type": "map", "items": {"type": "object"}}}}),
            vec![format!(
                "{ROOT}.properties[a].x-kubernetes-list-map-keys: Required value: must not be empty if x-kubernetes-list-type is map"
            )],
        ),
        (
            json!({"type": "object", "properties": {"a": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
                "items": {"type": "object", "properties": {"k": {"type": "string"}}}}}}),
            vec![format!(
                "{ROOT}.properties[a].items.properties[k].default: Required value: this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property"
            )],
        ),
        (
            json!({"type": "object", "properties": {"metadata": {"type": "object", "properties": {"labels": {"type": "object"}}}}}),
            vec![format!(
                "{ROOT}.properties[metadata]: Forbidden: must not specify anything other than name and generateName, but metadata is implicitly specified"
            )],
        ),
        (
            json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {"metadata": {"type": "object", "properties": {"name": {"type": "string", "maxLength": 5}}}}}),
            vec![],
        ),
        (
            json!({"type": "object", "properties": {"a": {"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]}}}),
            vec![],
        ),
    ] {
        assert_eq!(errors(&with_schema(schema.clone())), expected, "{schema}");
    }
}

#[test]
fn rules_compile_and_cost_little() {
    let with_rule = |rule: Value| {
        errors(&with_schema(json!({"type": "object", "properties": {"spec": {"type": "object",
            "x-kubernetes-validations": [rule], "properties": {"a": {"type": "string"},
            "list": {"type": "array", "items": {"type": "string"}}}}}})))
    };
    assert_eq!(with_rule(json!({"rule": "has(self.a)"})), [""; 0]);
    let wrong = with_rule(json!({"rule": "self.b == 1"}));
    assert_eq!(wrong.len(), 1);
    assert!(wrong[0].contains("compilation failed: ERROR: <input>:1:5: undefined field 'b'"), "{wrong:?}");
    let costly = with_rule(json!({"rule": "self.list.all(x, self.list.all(y, x == y))"}));
    assert!(costly[0].contains("estimated rule cost exceeds budget by factor of"), "{costly:?}");
    let unused = with_rule(json!({"rule": "has(self.a)", "optionalOldSelf": true}));
    assert!(unused[0].ends_with("may not be set if oldSelf is not used in rule"), "{unused:?}");
    let path = with_rule(json!({"rule": "has(self.a)", "fieldPath": ".x"}));
    assert!(path[0].ends_with("must be a valid path"), "{path:?}");
}

#[test]
fn columns_scale_and_selectable_fields() {
    let schema = json!({"openAPIV3Schema": {"type": "object", "properties": {"spec": {"type": "object", "properties": {"a": {"type": "string"}, "o": {"type": "object"}}}}}});
    assert_eq!(
        errors(&definition(
            json!({"schema": schema, "additionalPrinterColumns": [{"name": "A", "type": "text", "jsonPath": "spec.a"}]})
        )),
        [
            "spec.additionalPrinterColumns[0].type: Invalid value: \"text\": must be one of boolean,date,integer,number,string",
            "spec.additionalPrinterColumns[0].JSONPath: Invalid value: \"spec.a\": must be a simple json path starting with .",
        ]
    );
    assert_eq!(
        errors(&definition(
            json!({"schema": schema, "subresources": {"scale": {"specReplicasPath": ".status.x", "statusReplicasPath": ""}}})
        )),
        [
            "spec.subresources.scale.specReplicasPath: Invalid value: \".status.x\": should be a json path under .spec",
            "spec.subresources.scale.statusReplicasPath: Required value",
        ]
    );
    let found = errors(&definition(
        json!({"schema": schema, "selectableFields": [{"jsonPath": ".spec.o"}, {"jsonPath": ".spec.x"}]}),
    ));
    assert!(found[0].contains("must point to a field of type string, boolean or integer"), "{found:?}");
    assert!(found[1].ends_with("is an invalid path: does not refer to a valid field"), "{found:?}");
}

#[test]
fn a_default_of_the_root_is_a_whole_object() {
    const DEFAULT: &str = "spec.validation.openAPIV3Schema.default";
    assert_eq!(
        errors(&with_schema(json!({"type": "object", "default": {}}))),
        [format!("{DEFAULT}.apiVersion: Required value"), format!("{DEFAULT}.kind: Required value")]
    );
}

#[test]
fn authorities_of_what_is_served_must_be_readable() {
    let resource = crate::table()
        .find_resource("apiextensions.k8s.io", "v1", "customresourcedefinitions")
        .expect("the table has definitions");
    let with = |bundle: &str, established: &str| {
        let mut definition = with_schema(json!({"type": "object"}));
        definition["metadata"]["resourceVersion"] = "1".into();
        definition["spec"]["conversion"] = json!({"strategy": "Webhook", "webhook": {
            "conversionReviewVersions": ["v1"], "clientConfig": {"url": "https://x/", "caBundle": bundle}}});
        definition["status"]["conditions"] = json!([{"type": "Established", "status": established}]);
        definition
    };
    let update = |new: &Value, old: &Value| -> Vec<String> {
        crate::validation::update(resource, resource, new, old).iter().map(ToString::to_string).collect()
    };
    let (none, bad) = ("", "YmFk");
    assert_eq!(
        update(&with(bad, "True"), &with(none, "True")),
        [
            "spec.conversion.webhookClientConfig.caBundle: Invalid value: \"YmFk\": unable to load root certificates: unable to parse bytes as PEM block"
        ]
    );
    assert_eq!(update(&with(bad, "True"), &with(bad, "True")), [""; 0], "it was so before");
    assert_eq!(update(&with(bad, "False"), &with(none, "False")), [""; 0], "it is not served yet");
    assert_eq!(update(&with(none, "True"), &with(none, "True")), [""; 0]);
}
