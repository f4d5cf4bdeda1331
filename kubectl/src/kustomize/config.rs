//! Which fields each transformer touches: upstream's defaults, and what `configurations` add.

use serde::Deserialize;

use super::fieldspec::{FieldSpec, merge_all};
use super::id::Gvk;
use super::loader::Loader;
use super::references::{self, BackReference};
use super::{Error, Result};

/// The fields of every transformer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    pub name_prefix: Vec<FieldSpec>,
    pub name_suffix: Vec<FieldSpec>,
    pub namespace: Vec<FieldSpec>,
    pub common_labels: Vec<FieldSpec>,
    pub labels: Vec<FieldSpec>,
    pub template_labels: Vec<FieldSpec>,
    pub common_annotations: Vec<FieldSpec>,
    pub name_reference: Vec<BackReference>,
    pub var_reference: Vec<FieldSpec>,
    pub images: Vec<FieldSpec>,
    pub replicas: Vec<FieldSpec>,
}

/// A file of `configurations`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct File {
    name_prefix: Vec<FieldSpec>,
    name_suffix: Vec<FieldSpec>,
    namespace: Vec<FieldSpec>,
    common_labels: Vec<FieldSpec>,
    labels: Vec<FieldSpec>,
    template_labels: Vec<FieldSpec>,
    common_annotations: Vec<FieldSpec>,
    name_reference: Vec<FileReference>,
    var_reference: Vec<FieldSpec>,
    images: Vec<FieldSpec>,
    replicas: Vec<FieldSpec>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct FileReference {
    group: String,
    version: String,
    kind: String,
    field_specs: Vec<FieldSpec>,
}

/// Group, version, kind, path; all are created.
type Row = (&'static str, &'static str, &'static str, &'static str);

const TEMPLATE_METADATA: &[Row] = &[
    ("", "v1", "ReplicationController", "spec/template/metadata"),
    ("", "", "Deployment", "spec/template/metadata"),
    ("", "", "ReplicaSet", "spec/template/metadata"),
    ("", "", "DaemonSet", "spec/template/metadata"),
    ("apps", "", "StatefulSet", "spec/template/metadata"),
    ("apps", "", "StatefulSet", "spec/volumeClaimTemplates[]/metadata"),
    ("batch", "", "Job", "spec/template/metadata"),
    ("batch", "", "CronJob", "spec/jobTemplate/metadata"),
    ("batch", "", "CronJob", "spec/jobTemplate/spec/template/metadata"),
];

/// Selectors that get the labels even where there are none.
const SELECTORS: &[Row] = &[
    ("", "v1", "Service", "spec/selector"),
    ("", "v1", "ReplicationController", "spec/selector"),
    ("", "", "Deployment", "spec/selector/matchLabels"),
    ("", "", "ReplicaSet", "spec/selector/matchLabels"),
    ("", "", "DaemonSet", "spec/selector/matchLabels"),
    ("apps", "", "StatefulSet", "spec/selector/matchLabels"),
];

/// Selectors that get the labels where they are.
const EXISTING_SELECTORS: &[Row] = &[
    ("batch", "", "Job", "spec/selector/matchLabels"),
    ("batch", "", "CronJob", "spec/jobTemplate/spec/selector/matchLabels"),
    ("policy", "", "PodDisruptionBudget", "spec/selector/matchLabels"),
    ("networking.k8s.io", "", "NetworkPolicy", "spec/podSelector/matchLabels"),
    ("networking.k8s.io", "", "NetworkPolicy", "spec/ingress/from/podSelector/matchLabels"),
    ("networking.k8s.io", "", "NetworkPolicy", "spec/egress/to/podSelector/matchLabels"),
];

/// Selectors within the pods of Deployments and StatefulSets.
const POD_SELECTORS: &[&str] = &[
    "affinity/podAffinity/preferredDuringSchedulingIgnoredDuringExecution/podAffinityTerm/labelSelector/matchLabels",
    "affinity/podAffinity/requiredDuringSchedulingIgnoredDuringExecution/labelSelector/matchLabels",
    "affinity/podAntiAffinity/preferredDuringSchedulingIgnoredDuringExecution/podAffinityTerm/labelSelector/matchLabels",
    "affinity/podAntiAffinity/requiredDuringSchedulingIgnoredDuringExecution/labelSelector/matchLabels",
    "topologySpreadConstraints/labelSelector/matchLabels",
];

const IMAGES: &[&str] = &[
    "spec/containers[]/image",
    "spec/initContainers[]/image",
    "spec/volumes[]/image/reference",
    "spec/template/spec/containers[]/image",
    "spec/template/spec/initContainers[]/image",
    "spec/template/spec/volumes[]/image/reference",
];

/// The kinds within whose pods `vars` are replaced, and where those are.
const VARS: &[(&str, &str)] = &[
    ("CronJob", "spec/jobTemplate/spec/template/spec/"),
    ("DaemonSet", "spec/template/spec/"),
    ("Deployment", "spec/template/spec/"),
    ("Job", "spec/template/spec/"),
    ("Pod", "spec/"),
    ("ReplicaSet", "spec/template/spec/"),
    ("StatefulSet", "spec/template/spec/"),
];

const VAR_FIELDS: &[&str] = &[
    "containers/args",
    "containers/command",
    "containers/env/value",
    "containers/volumeMounts/mountPath",
    "initContainers/args",
    "initContainers/command",
    "initContainers/env/value",
    "initContainers/volumeMounts/mountPath",
];

fn row(row: &Row, suffix: &str, create: bool) -> FieldSpec {
    let (group, version, kind, path) = row;
    FieldSpec {
        group: (*group).to_owned(),
        version: (*version).to_owned(),
        kind: (*kind).to_owned(),
        path: format!("{path}{suffix}"),
        create,
    }
}

fn metadata_labels() -> Vec<FieldSpec> {
    let mut specs = vec![FieldSpec::anywhere("metadata/labels", true)];
    specs.extend(TEMPLATE_METADATA.iter().map(|at| row(at, "/labels", true)));
    specs
}

fn common_labels() -> Vec<FieldSpec> {
    let mut specs: Vec<FieldSpec> = SELECTORS.iter().map(|at| row(at, "", true)).collect();
    for kind in ["Deployment", "StatefulSet"] {
        specs.extend(POD_SELECTORS.iter().map(|path| row(&("apps", "", kind, "spec/template/spec/"), path, false)));
    }
    specs.extend(EXISTING_SELECTORS.iter().map(|at| row(at, "", false)));
    specs.extend(metadata_labels());
    specs
}

fn common_annotations() -> Vec<FieldSpec> {
    let mut specs = vec![FieldSpec::anywhere("metadata/annotations", true)];
    for at in TEMPLATE_METADATA.iter().filter(|at| !at.3.contains("volumeClaimTemplates")) {
        let mut spec = row(at, "/annotations", true);
        if spec.kind == "StatefulSet" {
            spec.group.clear();
        }
        specs.push(spec);
    }
    specs
}

fn var_references() -> Vec<FieldSpec> {
    let mut specs = Vec::new();
    for (kind, prefix) in VARS {
        specs.extend(VAR_FIELDS.iter().map(|field| row(&("", "", kind, prefix), field, false)));
    }
    let others: &[(&str, &str)] = &[
        ("CronJob", "spec/jobTemplate/spec/template/volumes/nfs/server"),
        ("DaemonSet", "spec/template/spec/volumes/nfs/server"),
        ("Deployment", "spec/template/spec/volumes/nfs/server"),
        ("Deployment", "spec/template/metadata/annotations"),
        ("Job", "spec/template/spec/volumes/nfs/server"),
        ("Pod", "spec/volumes/nfs/server"),
        ("ReplicaSet", "spec/template/spec/volumes/nfs/server"),
        ("Ingress", "spec/rules/host"),
        ("Ingress", "spec/tls/hosts"),
        ("Ingress", "spec/tls/secretName"),
        ("Service", "spec/ports/port"),
        ("Service", "spec/ports/targetPort"),
        ("StatefulSet", "spec/volumeClaimTemplates/spec/nfs/server"),
        ("PersistentVolume", "spec/nfs/server"),
    ];
    specs.extend(others.iter().map(|(kind, path)| row(&("", "", kind, path), "", false)));
    specs.push(FieldSpec::anywhere("metadata/labels", false));
    specs.push(FieldSpec::anywhere("metadata/annotations", false));
    specs
}

impl Default for Config {
    fn default() -> Self {
        let replicas = ["Deployment", "StatefulSet", "ReplicaSet", "ReplicationController"];
        Config {
            name_prefix: vec![FieldSpec::anywhere("metadata/name", false)],
            name_suffix: vec![FieldSpec::anywhere("metadata/name", false)],
            namespace: vec![
                row(&("", "", "Namespace", "metadata/name"), "", true),
                row(&("apiregistration.k8s.io", "", "APIService", "spec/service/namespace"), "", true),
                row(
                    &(
                        "apiextensions.k8s.io",
                        "",
                        "CustomResourceDefinition",
                        "spec/conversion/webhook/clientConfig/service/namespace",
                    ),
                    "",
                    false,
                ),
            ],
            common_labels: common_labels(),
            labels: Vec::new(),
            template_labels: metadata_labels(),
            common_annotations: common_annotations(),
            name_reference: references::defaults(),
            var_reference: var_references(),
            images: IMAGES.iter().map(|path| FieldSpec::anywhere(path, true)).collect(),
            replicas: replicas.iter().map(|kind| row(&("", "", kind, "spec/replicas"), "", true)).collect(),
        }
    }
}

impl Config {
    /// The defaults with what files of `configurations` say.
    ///
    /// # Errors
    /// When a file cannot be read, or disagrees with the defaults.
    pub fn load(loader: &Loader, paths: &[String]) -> Result<Self> {
        let mut config = Config::default();
        for path in paths {
            let text = loader.text(path)?;
            let tree = apimachinery::yaml::parse(&text).map_err(|error| Error::new(error.to_string()))?;
            let file: File = serde_json::from_value(tree).map_err(|error| Error::new(error.to_string()))?;
            config.merge(&file.into_config())?;
        }
        Ok(config)
    }

    /// Adds what another has and this one has not.
    ///
    /// # Errors
    /// When they disagree.
    pub fn merge(&mut self, other: &Config) -> Result<()> {
        let lists = [
            (&mut self.name_prefix, &other.name_prefix, "NamePrefix"),
            (&mut self.name_suffix, &other.name_suffix, "NameSuffix"),
            (&mut self.namespace, &other.namespace, "NameSpace"),
            (&mut self.common_annotations, &other.common_annotations, "CommonAnnotations"),
            (&mut self.common_labels, &other.common_labels, "CommonLabels"),
            (&mut self.labels, &other.labels, "Labels"),
            (&mut self.template_labels, &other.template_labels, "TemplateLabels"),
            (&mut self.var_reference, &other.var_reference, "VarReference"),
            (&mut self.images, &other.images, "Images"),
            (&mut self.replicas, &other.replicas, "Replicas"),
        ];
        for (into, more, name) in lists {
            merge_all(into, more).map_err(|error| error.wrap(format!("failed to merge {name} fieldSpec")))?;
        }
        for reference in &other.name_reference {
            match self.name_reference.iter_mut().find(|known| known.target == reference.target) {
                Some(known) => merge_all(&mut known.referrers, &reference.referrers)
                    .map_err(|error| error.wrap("failed to merge NameReference fieldSpec"))?,
                None => self.name_reference.push(reference.clone()),
            }
        }
        Ok(())
    }
}

impl File {
    fn into_config(self) -> Config {
        let name_reference = self
            .name_reference
            .into_iter()
            .map(|of| BackReference { target: Gvk::new(&of.group, &of.version, &of.kind), referrers: of.field_specs })
            .collect();
        Config {
            name_prefix: self.name_prefix,
            name_suffix: self.name_suffix,
            namespace: self.namespace,
            common_labels: self.common_labels,
            labels: self.labels,
            template_labels: self.template_labels,
            common_annotations: self.common_annotations,
            name_reference,
            var_reference: self.var_reference,
            images: self.images,
            replicas: self.replicas,
        }
    }
}
