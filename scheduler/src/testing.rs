//! Builders for pods and nodes, for tests and benchmarks.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::framework::pod_info::PodInfo;
use crate::objects::{Node, Pod};

/// Builds a pod in the namespace `default`.
pub fn pod(name: &str) -> PodBuilder {
    PodBuilder(json!({
        "metadata": {"name": name, "namespace": "default", "uid": name},
        "spec": {"schedulerName": "default-scheduler", "containers": [{"image": "img"}]},
    }))
}

/// A pod in the making.
#[derive(Clone, Debug)]
pub struct PodBuilder(Value);

#[allow(missing_docs)] // each sets what its name says
impl PodBuilder {
    fn set(mut self, pointer: &[&str], value: Value) -> Self {
        let mut at = &mut self.0;
        for key in pointer {
            at = &mut at[*key];
        }
        *at = value;
        self
    }

    fn push(mut self, pointer: &[&str], value: Value) -> Self {
        let mut at = &mut self.0;
        for key in pointer {
            at = &mut at[*key];
        }
        match at.as_array_mut() {
            Some(list) => list.push(value),
            None => *at = json!([value]),
        }
        self
    }

    pub fn namespace(self, namespace: &str) -> Self {
        self.set(&["metadata", "namespace"], json!(namespace))
    }
    pub fn uid(self, uid: &str) -> Self {
        self.set(&["metadata", "uid"], json!(uid))
    }
    pub fn label(self, key: &str, value: &str) -> Self {
        self.set(&["metadata", "labels", key], json!(value))
    }
    pub fn owner(self, api_version: &str, kind: &str, name: &str) -> Self {
        self.push(
            &["metadata", "ownerReferences"],
            json!({"apiVersion": api_version, "kind": kind, "name": name, "uid": name, "controller": true}),
        )
    }
    pub fn node(self, name: &str) -> Self {
        self.set(&["spec", "nodeName"], json!(name))
    }
    pub fn nominated(self, name: &str) -> Self {
        self.set(&["status", "nominatedNodeName"], json!(name))
    }
    pub fn scheduler(self, name: &str) -> Self {
        self.set(&["spec", "schedulerName"], json!(name))
    }
    pub fn priority(self, priority: i32) -> Self {
        self.set(&["spec", "priority"], json!(priority))
    }
    pub fn preemption_policy(self, policy: &str) -> Self {
        self.set(&["spec", "preemptionPolicy"], json!(policy))
    }
    pub fn start_time(self, time: &str) -> Self {
        self.set(&["status", "startTime"], json!(time))
    }
    pub fn terminating(self) -> Self {
        self.set(&["metadata", "deletionTimestamp"], json!("2024-01-01T00:00:00Z"))
    }
    pub fn requests(mut self, cpu: &str, memory: &str) -> Self {
        let requests = &mut self.0["spec"]["containers"][0]["resources"]["requests"];
        requests["cpu"] = json!(cpu);
        requests["memory"] = json!(memory);
        self
    }
    pub fn scalar(mut self, name: &str, amount: i64) -> Self {
        self.0["spec"]["containers"][0]["resources"]["requests"][name] = json!(amount);
        self
    }
    pub fn image(mut self, image: &str) -> Self {
        self.0["spec"]["containers"][0]["image"] = json!(image);
        self
    }
    pub fn host_port(mut self, port: i32) -> Self {
        self.0["spec"]["containers"][0]["ports"] = json!([{"hostPort": port, "containerPort": port}]);
        self
    }
    pub fn gate(self, name: &str) -> Self {
        self.push(&["spec", "schedulingGates"], json!({"name": name}))
    }
    pub fn node_selector(self, key: &str, value: &str) -> Self {
        self.set(&["spec", "nodeSelector", key], json!(value))
    }
    pub fn node_affinity_in(self, key: &str, values: &[&str]) -> Self {
        self.push(
            &[
                "spec",
                "affinity",
                "nodeAffinity",
                "requiredDuringSchedulingIgnoredDuringExecution",
                "nodeSelectorTerms",
            ],
            json!({"matchExpressions": [{"key": key, "operator": "In", "values": values}]}),
        )
    }
    pub fn node_affinity_name(self, name: &str) -> Self {
        self.push(
            &[
                "spec",
                "affinity",
                "nodeAffinity",
                "requiredDuringSchedulingIgnoredDuringExecution",
                "nodeSelectorTerms",
            ],
            json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": [name]}]}),
        )
    }
    pub fn preferred_node(self, weight: i64, key: &str, values: &[&str]) -> Self {
        self.push(
            &["spec", "affinity", "nodeAffinity", "preferredDuringSchedulingIgnoredDuringExecution"],
            json!({"weight": weight, "preference": {"matchExpressions": [{"key": key, "operator": "In", "values": values}]}}),
        )
    }
    pub fn toleration(self, key: &str, value: &str, effect: &str) -> Self {
        self.push(&["spec", "tolerations"], json!({"key": key, "operator": "Equal", "value": value, "effect": effect}))
    }
    pub fn spread(self, max_skew: i32, key: &str, when: &str, app: &str) -> Self {
        self.push(
            &["spec", "topologySpreadConstraints"],
            json!({"maxSkew": max_skew, "topologyKey": key, "whenUnsatisfiable": when,
                   "labelSelector": {"matchLabels": {"app": app}}}),
        )
    }
    pub fn spread_with(self, constraint: Value) -> Self {
        self.push(&["spec", "topologySpreadConstraints"], constraint)
    }
    fn pod_term(key: &str, value: &str, topology: &str) -> Value {
        json!({"labelSelector": {"matchLabels": {key: value}}, "topologyKey": topology})
    }
    pub fn affinity(self, key: &str, value: &str, topology: &str) -> Self {
        self.push(
            &["spec", "affinity", "podAffinity", "requiredDuringSchedulingIgnoredDuringExecution"],
            Self::pod_term(key, value, topology),
        )
    }
    pub fn anti_affinity(self, key: &str, value: &str, topology: &str) -> Self {
        self.push(
            &["spec", "affinity", "podAntiAffinity", "requiredDuringSchedulingIgnoredDuringExecution"],
            Self::pod_term(key, value, topology),
        )
    }
    pub fn preferred_affinity(self, weight: i64, key: &str, value: &str, topology: &str) -> Self {
        self.push(
            &["spec", "affinity", "podAffinity", "preferredDuringSchedulingIgnoredDuringExecution"],
            json!({"weight": weight, "podAffinityTerm": Self::pod_term(key, value, topology)}),
        )
    }
    pub fn preferred_anti_affinity(self, weight: i64, key: &str, value: &str, topology: &str) -> Self {
        self.push(
            &["spec", "affinity", "podAntiAffinity", "preferredDuringSchedulingIgnoredDuringExecution"],
            json!({"weight": weight, "podAffinityTerm": Self::pod_term(key, value, topology)}),
        )
    }

    /// The object.
    pub fn done(self) -> Arc<Pod> {
        Arc::new(serde_json::from_value(self.0).expect("the builder builds pods"))
    }

    /// The pod, ready for scheduling.
    pub fn info(self) -> Arc<PodInfo> {
        Arc::new(PodInfo::new(self.done()))
    }
}

/// Builds a node with room for 110 pods, labelled with its host name.
pub fn node(name: &str) -> NodeBuilder {
    NodeBuilder(json!({
        "metadata": {"name": name, "uid": name, "labels": {"kubernetes.io/hostname": name}},
        "status": {"allocatable": {"pods": "110"}},
    }))
}

/// A node in the making.
#[derive(Clone, Debug)]
pub struct NodeBuilder(Value);

#[allow(missing_docs)] // each sets what its name says
impl NodeBuilder {
    pub fn allocatable(mut self, cpu: &str, memory: &str) -> Self {
        self.0["status"]["allocatable"]["cpu"] = json!(cpu);
        self.0["status"]["allocatable"]["memory"] = json!(memory);
        self
    }
    pub fn resource(mut self, name: &str, amount: &str) -> Self {
        self.0["status"]["allocatable"][name] = json!(amount);
        self
    }
    pub fn label(mut self, key: &str, value: &str) -> Self {
        self.0["metadata"]["labels"][key] = json!(value);
        self
    }
    pub fn without_label(mut self, key: &str) -> Self {
        if let Some(labels) = self.0["metadata"]["labels"].as_object_mut() {
            labels.remove(key);
        }
        self
    }
    pub fn taint(mut self, key: &str, value: &str, effect: &str) -> Self {
        let taint = json!({"key": key, "value": value, "effect": effect});
        match self.0["spec"]["taints"].as_array_mut() {
            Some(taints) => taints.push(taint),
            None => self.0["spec"]["taints"] = json!([taint]),
        }
        self
    }
    pub fn unschedulable(mut self) -> Self {
        self.0["spec"]["unschedulable"] = json!(true);
        self
    }
    pub fn image(mut self, name: &str, size: i64) -> Self {
        let image = json!({"names": [name], "sizeBytes": size});
        match self.0["status"]["images"].as_array_mut() {
            Some(images) => images.push(image),
            None => self.0["status"]["images"] = json!([image]),
        }
        self
    }

    /// The object.
    pub fn done(self) -> Arc<Node> {
        Arc::new(serde_json::from_value(self.0).expect("the builder builds nodes"))
    }
}
