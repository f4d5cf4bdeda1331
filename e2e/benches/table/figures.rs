//! The rows of the table, in order: what is measured, in what unit, in which part, and the budget (DESIGN §9).

use Budget::{AtLeast, AtMost, Nothing, Times};

/// What a figure should reach.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Budget {
    AtMost(f64),
    AtLeast(f64),
    /// This many times better than upstream in the same run.
    Times(f64),
    /// Nobody set one: the figure is for the reader.
    Nothing,
}

/// One row.
#[derive(Debug)]
pub struct Figure {
    pub part: &'static str,
    pub what: &'static str,
    pub unit: &'static str,
    pub budget: Budget,
}

impl Figure {
    /// Whether a larger figure is the better one.
    pub fn more_is_better(&self) -> bool {
        self.unit == "/s"
    }

    /// Whether a value reaches the budget; `None` where that cannot be said.
    pub fn reached(&self, value: f64, ratio: Option<f64>) -> Option<bool> {
        match self.budget {
            AtMost(most) => Some(value <= most),
            AtLeast(least) => Some(value >= least),
            Times(times) => ratio.map(|ratio| ratio >= times),
            Nothing => None,
        }
    }
}

const fn row(part: &'static str, what: &'static str, unit: &'static str, budget: Budget) -> Figure {
    Figure { part, what, unit, budget }
}

pub const API_READY: &str = "start to API ready";
pub const CONTROL_PLANE_READY: &str = "start to control plane ready";
pub const NODE_READY: &str = "start to node Ready";
pub const FIRST_POD: &str = "start to first pod Running";
pub const WARM_POD: &str = "warm pod, created to Running";
pub const IDLE_CONTROL_PLANE: &str = "idle memory, whole control plane";
pub const IDLE_API: &str = "idle memory, kube-apiserver (and etcd)";
pub const IDLE_CONTROLLERS: &str = "idle memory, kube-controller-manager";
pub const IDLE_SCHEDULER: &str = "idle memory, kube-scheduler";
pub const IDLE_KUBELET: &str = "idle memory, kubelet";
pub const IDLE_PROXY: &str = "idle memory, kube-proxy";
pub const FULL_CONTROL_PLANE: &str = "memory with 10,000 pods, whole control plane";
pub const FULL_API: &str = "memory with 10,000 pods, kube-apiserver (and etcd)";
pub const CONFIG_MAPS: [(usize, &str); 3] = [
    (1, "create ConfigMap, durable, 1 client"),
    (16, "create ConfigMap, durable, 16 clients"),
    (64, "create ConfigMap, durable, 64 clients"),
];
pub const PODS: [(usize, &str); 2] = [(16, "create Pod, 16 clients"), (64, "create Pod, 64 clients")];
pub const GET: &str = "GET ConfigMap, 64 clients";
pub const GET_CPU: &str = "GET ConfigMap, server CPU";
pub const LIST_JSON: &str = "LIST 10,000 pods, JSON";
pub const LIST_PRETTY: &str = "LIST 10,000 pods, JSON as curl asks for it";
pub const LIST_PROTOBUF: &str = "LIST 10,000 pods, protobuf";
pub const LIST_PAGE: &str = "LIST 10,000 pods, page of 500";
pub const WATCH_P50: &str = "watch, 1,000 watchers × 100 events/s, p50";
pub const WATCH_P99: &str = "watch, 1,000 watchers × 100 events/s, p99";
pub const DELETE_COLLECTION: &str = "deletecollection of 5,000 pods";
pub const SCHEDULE_DEFAULT: &str = "schedule 1,000 pods on 100 nodes, default limits";
pub const SCHEDULE_RAISED: &str = "schedule 1,000 pods on 100 nodes, limits raised";
pub const SCHEDULE_SERVER: &str = "schedule 1,000 pods on 100 nodes, one process";
pub const REPLICAS_DEFAULT: &str = "Deployment of 3,000 replicas to Pods, default limits (at the pace of 15 s)";
pub const REPLICAS_RAISED: &str = "Deployment of 3,000 replicas to Pods, limits raised";
pub const REPLICAS_SERVER: &str = "Deployment of 3,000 replicas to Pods, one process";
pub const DEFINITION: &str = "memory per idle CustomResourceDefinition";
pub const AUTHORIZATION: &str = "authorization at 10,000 bindings, per request";

/// Every row of the table.
pub static FIGURES: &[Figure] = &[
    row("start", API_READY, "s", AtMost(0.2)),
    row("start", CONTROL_PLANE_READY, "s", AtMost(0.2)),
    row("cluster", NODE_READY, "s", AtMost(1.0)),
    row("cluster", FIRST_POD, "s", AtMost(2.0)),
    row("cluster", WARM_POD, "s", AtMost(0.25)),
    row("memory", IDLE_CONTROL_PLANE, "MiB", AtMost(50.0)),
    row("memory", IDLE_API, "MiB", AtMost(25.0)),
    row("memory", IDLE_CONTROLLERS, "MiB", AtMost(25.0)),
    row("memory", IDLE_SCHEDULER, "MiB", AtMost(25.0)),
    row("cluster", IDLE_KUBELET, "MiB", AtMost(25.0)),
    row("cluster", IDLE_PROXY, "MiB", AtMost(25.0)),
    row("memory", FULL_CONTROL_PLANE, "MiB", AtMost(150.0)),
    row("lists", FULL_API, "MiB", Nothing),
    row("writes", CONFIG_MAPS[0].1, "/s", Times(5.0)),
    row("writes", CONFIG_MAPS[1].1, "/s", Times(5.0)),
    row("writes", CONFIG_MAPS[2].1, "/s", Times(5.0)),
    row("pods", PODS[0].1, "/s", Times(5.0)),
    row("pods", PODS[1].1, "/s", Times(5.0)),
    row("reads", GET, "/s", Times(5.0)),
    row("reads", GET_CPU, "µs", Times(10.0)),
    row("lists", LIST_JSON, "ms", AtMost(40.0)),
    row("lists", LIST_PRETTY, "ms", Nothing),
    row("lists", LIST_PROTOBUF, "ms", AtMost(20.0)),
    row("lists", LIST_PAGE, "ms", AtMost(2.0)),
    row("watch", WATCH_P50, "ms", AtMost(10.0)),
    row("watch", WATCH_P99, "ms", AtMost(25.0)),
    row("delete", DELETE_COLLECTION, "s", AtMost(0.5)),
    row("schedule", SCHEDULE_DEFAULT, "/s", AtLeast(5_000.0)),
    row("schedule", SCHEDULE_RAISED, "/s", AtLeast(5_000.0)),
    row("schedule", SCHEDULE_SERVER, "/s", AtLeast(5_000.0)),
    row("replicas", REPLICAS_DEFAULT, "s", Nothing),
    row("replicas", REPLICAS_RAISED, "s", AtMost(1.0)),
    row("replicas", REPLICAS_SERVER, "s", AtMost(1.0)),
    row("definitions", DEFINITION, "KiB", AtMost(100.0)),
    row("authorization", AUTHORIZATION, "µs", AtMost(20.0)),
];

/// The parts, in the order of the table.
pub fn parts() -> Vec<&'static str> {
    let mut parts: Vec<&str> = Vec::new();
    for figure in FIGURES {
        if !parts.contains(&figure.part) {
            parts.push(figure.part);
        }
    }
    parts
}
