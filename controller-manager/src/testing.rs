//! Builders for table tests.

use client::{ObjectMeta, Timestamp};
use serde_json::json;

use crate::types::{Condition, Container, ContainerPort, ContainerStatus, Pod, PodIp, ReplicaSet};

pub struct PodBuilder(Pod);

/// A pod in namespace `ns` whose uid is its name.
pub fn pod(name: &str) -> PodBuilder {
    PodBuilder(Pod {
        metadata: ObjectMeta {
            name: name.into(),
            namespace: "ns".into(),
            uid: name.into(),
            creation_timestamp: Some(Timestamp::UNIX_EPOCH),
            ..Default::default()
        },
        ..Default::default()
    })
}

impl PodBuilder {
    pub fn node(mut self, node: &str) -> Self {
        self.0.spec.node_name = node.into();
        self
    }

    pub fn phase(mut self, phase: &str) -> Self {
        self.0.status.phase = phase.into();
        self
    }

    pub fn running(self) -> Self {
        self.phase("Running")
    }

    pub fn ready(mut self, since: i64) -> Self {
        self.0.status.conditions.push(Condition {
            kind: "Ready".into(),
            status: "True".into(),
            last_transition_time: Some(Timestamp::from_second(since).unwrap()),
            ..Default::default()
        });
        self
    }

    pub fn label(mut self, key: &str, value: &str) -> Self {
        self.0.metadata.labels.insert(key.into(), value.into());
        self
    }

    pub fn annotation(mut self, key: &str, value: &str) -> Self {
        self.0.metadata.annotations.insert(key.into(), value.into());
        self
    }

    pub fn created(mut self, at: i64) -> Self {
        self.0.metadata.creation_timestamp = Some(Timestamp::from_second(at).unwrap());
        self
    }

    pub fn deleting(mut self) -> Self {
        self.0.metadata.deletion_timestamp = Some(Timestamp::UNIX_EPOCH);
        self
    }

    pub fn restarts(mut self, count: i64) -> Self {
        self.0.status.container_statuses.push(ContainerStatus {
            name: "c".into(),
            restart_count: count,
            ..Default::default()
        });
        self
    }

    pub fn ip(mut self, ip: &str) -> Self {
        self.0.status.pod_ip = ip.into();
        self.0.status.pod_ips.push(PodIp { ip: ip.into() });
        self
    }

    pub fn port(mut self, name: &str, port: i64) -> Self {
        self.0.spec.containers.push(Container {
            name: "c".into(),
            ports: vec![ContainerPort { name: name.into(), container_port: port, protocol: "TCP".into() }],
            restart_policy: None,
        });
        self
    }

    pub fn build(self) -> Pod {
        self.0
    }
}

/// A ReplicaSet in namespace `ns` whose uid is its name.
pub fn replica_set(name: &str, replicas: i64) -> ReplicaSet {
    let metadata = ObjectMeta {
        name: name.into(),
        namespace: "ns".into(),
        uid: name.into(),
        generation: 1,
        creation_timestamp: Some(Timestamp::UNIX_EPOCH),
        ..Default::default()
    };
    let mut set = ReplicaSet { metadata, ..ReplicaSet::default() };
    set.spec.replicas = replicas;
    set.spec.selector = json!({ "matchLabels": { "app": "a" } });
    set.spec.template = json!({ "metadata": { "labels": { "app": "a" } }, "spec": {} });
    set
}
