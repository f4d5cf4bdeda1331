//! Server-side printing: the columns and rows of `Table` responses, for every built-in kind.
//!
//! A client that asks for `as=Table` gets cells computed by the server, so that any `kubectl` prints
//! any kind. Each file here holds one kind or one family: its columns and the pure function that
//! turns an object's tree into cells. Ages depend on `now`, which is passed in.
//!
//! Reads: object trees in any served version. Writes: nothing. Upstream's counterpart is
//! `pkg/printers/internalversion/printers.go`.

mod admission;
mod autoscaling;
pub mod cells;
mod certificates;
mod config;
mod coordination;
mod daemon_set;
mod deployment;
mod device;
pub mod duration;
mod endpoints;
mod event;
mod flow_control;
mod generic;
mod job;
mod namespace;
mod network;
mod node;
mod persistent_volume;
mod pod;
mod pod_disruption_budget;
mod quota;
mod rbac;
mod registration;
mod replica_set;
mod scheduling;
mod service;
mod stateful_set;
mod storage;
#[cfg(test)]
mod tests;

use jiff::Timestamp;
use serde_json::{Value, json};

/// Where a column's description comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Description {
    /// Upstream serves an empty description.
    Empty,
    /// The column has a text of its own.
    Text(&'static str),
    /// The text of a field in the published schema: definition name, JSON field name.
    Field(&'static str, &'static str),
}

/// One column of a Table, as `TableColumnDefinition` describes it.
#[derive(Debug, Clone, Copy)]
pub struct Column {
    /// Human readable name, as served ("Nominated Node").
    pub name: &'static str,
    /// OpenAPI type: `string`, `integer`, `boolean`, `date`.
    pub r#type: &'static str,
    /// OpenAPI format: `name` marks the primary identifier.
    pub format: &'static str,
    /// 0 is shown always, 1 only with `-o wide`.
    pub priority: i32,
    /// What the column means.
    pub description: Description,
}

/// The definition that `metadata` fields are described by.
const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
/// The `Name` column nearly every kind starts with.
const NAME: Column = Column::string("Name").of(META, "name").name_format();
/// The `Age` column.
const AGE: Column = Column::string("Age").of(META, "creationTimestamp");

impl Column {
    const fn new(name: &'static str, r#type: &'static str) -> Self {
        Column { name, r#type, format: "", priority: 0, description: Description::Empty }
    }
    const fn string(name: &'static str) -> Self {
        Self::new(name, "string")
    }
    const fn integer(name: &'static str) -> Self {
        Self::new(name, "integer")
    }
    const fn boolean(name: &'static str) -> Self {
        Self::new(name, "boolean")
    }
    const fn date(name: &'static str) -> Self {
        Self::new(name, "date")
    }
    const fn about(mut self, text: &'static str) -> Self {
        self.description = Description::Text(text);
        self
    }
    const fn of(mut self, definition: &'static str, field: &'static str) -> Self {
        self.description = Description::Field(definition, field);
        self
    }
    const fn wide(mut self) -> Self {
        self.priority = 1;
        self
    }
    const fn name_format(mut self) -> Self {
        self.format = "name";
        self
    }

    /// The served `TableColumnDefinition`. `field_text` looks a field's published description up by
    /// definition and JSON name; a description it does not know is served empty.
    pub fn to_value(&self, field_text: impl Fn(&str, &str) -> Option<String>) -> Value {
        let description = match self.description {
            Description::Empty => String::new(),
            Description::Text(text) => text.to_owned(),
            Description::Field(definition, field) => field_text(definition, field).unwrap_or_default(),
        };
        json!({
            "name": self.name,
            "type": self.r#type,
            "format": self.format,
            "description": description,
            "priority": self.priority,
        })
    }
}

/// How one kind is printed.
#[derive(Debug, Clone, Copy)]
pub struct Printer {
    /// API group, "" for the core group.
    pub group: &'static str,
    /// Plural resource name.
    pub resource: &'static str,
    /// The columns in served order, wide ones included.
    pub columns: &'static [Column],
    /// One cell for every column; upstream's quirks (a cell too many) are kept.
    pub row: fn(&Value, Timestamp) -> Vec<Value>,
    /// `TableRow.conditions`, empty for most kinds.
    pub conditions: fn(&Value) -> Vec<Value>,
}

const fn printer(
    group: &'static str,
    resource: &'static str,
    columns: &'static [Column],
    row: fn(&Value, Timestamp) -> Vec<Value>,
) -> Printer {
    Printer { group, resource, columns, row, conditions: no_conditions }
}

fn no_conditions(_: &Value) -> Vec<Value> {
    Vec::new()
}

/// What a kind without a printer of its own gets: its name and when it was created.
pub static DEFAULT: Printer = printer("", "", generic::COLUMNS, generic::row);

/// Every kind with a printer, sorted by group and resource.
static PRINTERS: &[Printer] = &[
    printer("", "componentstatuses", registration::COMPONENT_STATUS_COLUMNS, registration::component_status_row),
    printer("", "configmaps", config::CONFIG_MAP_COLUMNS, config::config_map_row),
    printer("", "endpoints", endpoints::ENDPOINTS_COLUMNS, endpoints::endpoints_row),
    printer("", "events", event::COLUMNS, event::row),
    printer("", "namespaces", namespace::COLUMNS, namespace::row),
    printer("", "nodes", node::COLUMNS, node::row),
    printer("", "persistentvolumeclaims", persistent_volume::CLAIM_COLUMNS, persistent_volume::claim_row),
    printer("", "persistentvolumes", persistent_volume::COLUMNS, persistent_volume::row),
    Printer { conditions: pod::conditions, ..printer("", "pods", pod::COLUMNS, pod::row) },
    printer("", "podtemplates", pod::TEMPLATE_COLUMNS, pod::template_row),
    printer("", "replicationcontrollers", replica_set::CONTROLLER_COLUMNS, replica_set::controller_row),
    printer("", "resourcequotas", quota::COLUMNS, quota::row),
    printer("", "secrets", config::SECRET_COLUMNS, config::secret_row),
    printer("", "serviceaccounts", config::SERVICE_ACCOUNT_COLUMNS, config::service_account_row),
    printer("", "services", service::COLUMNS, service::row),
    printer(
        "admissionregistration.k8s.io",
        "mutatingadmissionpolicies",
        admission::MUTATING_POLICY_COLUMNS,
        admission::mutating_policy_row,
    ),
    printer(
        "admissionregistration.k8s.io",
        "mutatingadmissionpolicybindings",
        admission::BINDING_COLUMNS,
        admission::binding_row,
    ),
    printer(
        "admissionregistration.k8s.io",
        "mutatingwebhookconfigurations",
        admission::WEBHOOK_COLUMNS,
        admission::webhook_row,
    ),
    printer(
        "admissionregistration.k8s.io",
        "validatingadmissionpolicies",
        admission::VALIDATING_POLICY_COLUMNS,
        admission::validating_policy_row,
    ),
    printer(
        "admissionregistration.k8s.io",
        "validatingadmissionpolicybindings",
        admission::BINDING_COLUMNS,
        admission::binding_row,
    ),
    printer(
        "admissionregistration.k8s.io",
        "validatingwebhookconfigurations",
        admission::WEBHOOK_COLUMNS,
        admission::webhook_row,
    ),
    printer("apiregistration.k8s.io", "apiservices", registration::API_SERVICE_COLUMNS, registration::api_service_row),
    printer("apps", "controllerrevisions", stateful_set::REVISION_COLUMNS, stateful_set::revision_row),
    printer("apps", "daemonsets", daemon_set::COLUMNS, daemon_set::row),
    printer("apps", "deployments", deployment::COLUMNS, deployment::row),
    printer("apps", "replicasets", replica_set::COLUMNS, replica_set::row),
    printer("apps", "statefulsets", stateful_set::COLUMNS, stateful_set::row),
    printer("autoscaling", "horizontalpodautoscalers", autoscaling::COLUMNS, autoscaling::row),
    printer("batch", "cronjobs", job::CRON_JOB_COLUMNS, job::cron_job_row),
    printer("batch", "jobs", job::COLUMNS, job::row),
    printer(
        "certificates.k8s.io",
        "certificatesigningrequests",
        certificates::REQUEST_COLUMNS,
        certificates::request_row,
    ),
    printer(
        "certificates.k8s.io",
        "clustertrustbundles",
        certificates::TRUST_BUNDLE_COLUMNS,
        certificates::trust_bundle_row,
    ),
    printer(
        "certificates.k8s.io",
        "podcertificaterequests",
        certificates::POD_REQUEST_COLUMNS,
        certificates::pod_request_row,
    ),
    printer("coordination.k8s.io", "leasecandidates", coordination::CANDIDATE_COLUMNS, coordination::candidate_row),
    printer("coordination.k8s.io", "leases", coordination::LEASE_COLUMNS, coordination::lease_row),
    printer("discovery.k8s.io", "endpointslices", endpoints::SLICE_COLUMNS, endpoints::slice_row),
    printer("events.k8s.io", "events", event::COLUMNS, event::row),
    printer("flowcontrol.apiserver.k8s.io", "flowschemas", flow_control::SCHEMA_COLUMNS, flow_control::schema_row),
    printer(
        "flowcontrol.apiserver.k8s.io",
        "prioritylevelconfigurations",
        flow_control::LEVEL_COLUMNS,
        flow_control::level_row,
    ),
    printer(
        "internal.apiserver.k8s.io",
        "storageversions",
        registration::STORAGE_VERSION_COLUMNS,
        registration::storage_version_row,
    ),
    printer("networking.k8s.io", "ingressclasses", network::INGRESS_CLASS_COLUMNS, network::ingress_class_row),
    printer("networking.k8s.io", "ingresses", network::INGRESS_COLUMNS, network::ingress_row),
    printer("networking.k8s.io", "ipaddresses", network::IP_ADDRESS_COLUMNS, network::ip_address_row),
    printer("networking.k8s.io", "networkpolicies", network::POLICY_COLUMNS, network::policy_row),
    printer("networking.k8s.io", "servicecidrs", network::SERVICE_CIDR_COLUMNS, network::service_cidr_row),
    printer("node.k8s.io", "runtimeclasses", node::RUNTIME_CLASS_COLUMNS, node::runtime_class_row),
    printer("policy", "poddisruptionbudgets", pod_disruption_budget::COLUMNS, pod_disruption_budget::row),
    printer("rbac.authorization.k8s.io", "clusterrolebindings", rbac::CLUSTER_BINDING_COLUMNS, rbac::binding_row),
    printer("rbac.authorization.k8s.io", "rolebindings", rbac::BINDING_COLUMNS, rbac::binding_row),
    printer("resource.k8s.io", "deviceclasses", device::CLASS_COLUMNS, cells::name_and_age),
    printer("resource.k8s.io", "devicetaintrules", device::TAINT_COLUMNS, device::taint_row),
    printer("resource.k8s.io", "resourceclaims", device::CLAIM_COLUMNS, device::claim_row),
    printer("resource.k8s.io", "resourceclaimtemplates", device::CLAIM_TEMPLATE_COLUMNS, cells::name_and_age),
    printer("resource.k8s.io", "resourcepoolstatusrequests", device::POOL_STATUS_COLUMNS, device::pool_status_row),
    printer("resource.k8s.io", "resourceslices", device::SLICE_COLUMNS, device::slice_row),
    printer("scheduling.k8s.io", "podgroups", scheduling::POD_GROUP_COLUMNS, scheduling::pod_group_row),
    printer("scheduling.k8s.io", "priorityclasses", scheduling::COLUMNS, scheduling::row),
    printer("scheduling.k8s.io", "workloads", scheduling::WORKLOAD_COLUMNS, cells::name_and_age),
    printer("storage.k8s.io", "csidrivers", storage::DRIVER_COLUMNS, storage::driver_row),
    printer("storage.k8s.io", "csinodes", storage::NODE_COLUMNS, storage::node_row),
    printer("storage.k8s.io", "storageclasses", storage::CLASS_COLUMNS, storage::class_row),
    printer("storage.k8s.io", "volumeattachments", storage::ATTACHMENT_COLUMNS, storage::attachment_row),
    printer(
        "storage.k8s.io",
        "volumeattributesclasses",
        storage::ATTRIBUTES_CLASS_COLUMNS,
        storage::attributes_class_row,
    ),
    printer(
        "storagemigration.k8s.io",
        "storageversionmigrations",
        registration::MIGRATION_COLUMNS,
        registration::migration_row,
    ),
];

/// The printer of a resource; [`DEFAULT`] when it has none of its own.
pub fn find(group: &str, resource: &str) -> &'static Printer {
    PRINTERS.binary_search_by(|p| (p.group, p.resource).cmp(&(group, resource))).map_or(&DEFAULT, |i| &PRINTERS[i])
}

pub use node::roles as node_roles;
pub use persistent_volume::access_modes;

/// The printer of the `scale` subresource, which has a kind of its own.
pub static SCALE: Printer = printer("autoscaling", "scale", autoscaling::SCALE_COLUMNS, autoscaling::scale_row);
