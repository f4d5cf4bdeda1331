//! Writes the table of every built-in type and resource: `cargo run -p api --bin generate -- …`.
//!
//! Run by a person when the facts change; its output (`api/src/table/kubernetes.txt`) is committed and
//! reviewed as a diff. It holds facts only: names, numbers, markers; descriptions come at build time.
//!
//! ```text
//! generate --source DIR… --definitions FILE --output FILE
//! ```
//! - `--source`: a `k8s.io` folder of Go sources, several times: Debian's `golang-k8s-api-dev`,
//!   `golang-k8s-apimachinery-dev`, `golang-k8s-apiextensions-apiserver-dev`, `golang-k8s-metrics-dev`.
//!   Tags, protobuf numbers and markers come from their `types.go`.
//! - `--definitions`: `v1.36.0-local/_definitions.json` of PyPI's `kubernetes-validate`: what OpenAPI
//!   says is required, list and map types, unions; also checked against the markers.
//! - `resources.txt` beside this file: names, verbs, storage; `apiregistration.txt`: the types of
//!   kube-aggregator, which no package carries.

mod go;

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use go::{Body, Constant, Declaration, GoField, Package, has_marker, marker};
use serde_json::Value;

/// Import path below `k8s.io/`, API group, version. `core` is the group of `v1`.
const PACKAGES: &[(&str, &str)] = &[
    ("api/admission/v1", "admission.k8s.io"),
    ("api/admission/v1beta1", "admission.k8s.io"),
    ("api/admissionregistration/v1", "admissionregistration.k8s.io"),
    ("api/admissionregistration/v1alpha1", "admissionregistration.k8s.io"),
    ("api/admissionregistration/v1beta1", "admissionregistration.k8s.io"),
    ("api/apidiscovery/v2", "apidiscovery.k8s.io"),
    ("api/apidiscovery/v2beta1", "apidiscovery.k8s.io"),
    ("api/apiserverinternal/v1alpha1", "internal.apiserver.k8s.io"),
    ("api/apps/v1", "apps"),
    ("api/apps/v1beta1", "apps"),
    ("api/apps/v1beta2", "apps"),
    ("api/authentication/v1", "authentication.k8s.io"),
    ("api/authentication/v1alpha1", "authentication.k8s.io"),
    ("api/authentication/v1beta1", "authentication.k8s.io"),
    ("api/authorization/v1", "authorization.k8s.io"),
    ("api/authorization/v1beta1", "authorization.k8s.io"),
    ("api/autoscaling/v1", "autoscaling"),
    ("api/autoscaling/v2", "autoscaling"),
    ("api/batch/v1", "batch"),
    ("api/batch/v1beta1", "batch"),
    ("api/certificates/v1", "certificates.k8s.io"),
    ("api/certificates/v1alpha1", "certificates.k8s.io"),
    ("api/certificates/v1beta1", "certificates.k8s.io"),
    ("api/coordination/v1", "coordination.k8s.io"),
    ("api/coordination/v1alpha2", "coordination.k8s.io"),
    ("api/coordination/v1beta1", "coordination.k8s.io"),
    ("api/core/v1", "core"),
    ("api/discovery/v1", "discovery.k8s.io"),
    ("api/discovery/v1beta1", "discovery.k8s.io"),
    ("api/events/v1", "events.k8s.io"),
    ("api/events/v1beta1", "events.k8s.io"),
    ("api/extensions/v1beta1", "extensions"),
    ("api/flowcontrol/v1", "flowcontrol.apiserver.k8s.io"),
    ("api/flowcontrol/v1beta1", "flowcontrol.apiserver.k8s.io"),
    ("api/flowcontrol/v1beta2", "flowcontrol.apiserver.k8s.io"),
    ("api/flowcontrol/v1beta3", "flowcontrol.apiserver.k8s.io"),
    ("api/imagepolicy/v1alpha1", "imagepolicy.k8s.io"),
    ("api/networking/v1", "networking.k8s.io"),
    ("api/networking/v1beta1", "networking.k8s.io"),
    ("api/node/v1", "node.k8s.io"),
    ("api/node/v1alpha1", "node.k8s.io"),
    ("api/node/v1beta1", "node.k8s.io"),
    ("api/policy/v1", "policy"),
    ("api/policy/v1beta1", "policy"),
    ("api/rbac/v1", "rbac.authorization.k8s.io"),
    ("api/rbac/v1alpha1", "rbac.authorization.k8s.io"),
    ("api/rbac/v1beta1", "rbac.authorization.k8s.io"),
    ("api/resource/v1", "resource.k8s.io"),
    ("api/resource/v1alpha3", "resource.k8s.io"),
    ("api/resource/v1beta1", "resource.k8s.io"),
    ("api/resource/v1beta2", "resource.k8s.io"),
    ("api/scheduling/v1", "scheduling.k8s.io"),
    ("api/scheduling/v1alpha2", "scheduling.k8s.io"),
    ("api/scheduling/v1beta1", "scheduling.k8s.io"),
    ("api/storage/v1", "storage.k8s.io"),
    ("api/storage/v1alpha1", "storage.k8s.io"),
    ("api/storage/v1beta1", "storage.k8s.io"),
    ("api/storagemigration/v1beta1", "storagemigration.k8s.io"),
    ("apiextensions-apiserver/pkg/apis/apiextensions/v1", "apiextensions.k8s.io"),
    ("apiextensions-apiserver/pkg/apis/apiextensions/v1beta1", "apiextensions.k8s.io"),
    ("apimachinery/pkg/apis/meta/v1", "meta.k8s.io"),
    ("apimachinery/pkg/apis/meta/v1beta1", "meta.k8s.io"),
    ("apimachinery/pkg/version", "-"),
    ("metrics/pkg/apis/metrics/v1beta1", "metrics.k8s.io"),
];

/// Types whose JSON is not what their Go fields say.
const SPECIAL: &[(&str, &str)] = &[
    ("meta/v1.Time", "time"),
    ("meta/v1.MicroTime", "microtime"),
    ("meta/v1.Duration", "duration"),
    ("meta/v1.FieldsV1", "fieldsv1"),
    ("resource.Quantity", "quantity"),
    ("intstr.IntOrString", "intorstring"),
    ("runtime.RawExtension", "raw"),
    ("runtime.Unknown", "unknown"),
    ("apiextensions/v1.JSON", "json"),
    ("apiextensions/v1.JSONSchemaPropsOrArray", "schemaorarray<apiextensions/v1.JSONSchemaProps>"),
    ("apiextensions/v1.JSONSchemaPropsOrBool", "schemaorbool<apiextensions/v1.JSONSchemaProps>"),
    ("apiextensions/v1.JSONSchemaPropsOrStringArray", "schemaorstrings<apiextensions/v1.JSONSchemaProps>"),
    ("apiextensions/v1beta1.JSON", "json"),
    ("apiextensions/v1beta1.JSONSchemaPropsOrArray", "schemaorarray<apiextensions/v1beta1.JSONSchemaProps>"),
    ("apiextensions/v1beta1.JSONSchemaPropsOrBool", "schemaorbool<apiextensions/v1beta1.JSONSchemaProps>"),
    ("apiextensions/v1beta1.JSONSchemaPropsOrStringArray", "schemaorstrings<apiextensions/v1beta1.JSONSchemaProps>"),
];

/// Go types that never travel.
const LEFT_OUT: &[&str] = &["meta/v1.InternalEvent", "meta/v1.TableOptions"];

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    let mut sources: Vec<PathBuf> = Vec::new();
    let mut definitions = None;
    let mut output = None;
    let mut args = std::env::args().skip(1);
    while let Some(flag) = args.next() {
        let value = args.next().ok_or_else(|| format!("{flag} needs a value"))?;
        match flag.as_str() {
            "--source" => sources.push(value.into()),
            "--definitions" => definitions = Some(PathBuf::from(value)),
            "--output" => output = Some(PathBuf::from(value)),
            other => return Err(format!("unknown flag {other}").into()),
        }
    }
    let definitions: Value = serde_json::from_slice(&std::fs::read(definitions.ok_or("--definitions is required")?)?)?;
    let generator = Generator { packages: read_packages(&sources)?, definitions };
    let text = generator.table()?;
    std::fs::write(output.ok_or("--output is required")?, text)?;
    Ok(())
}

/// Reads every package of [`PACKAGES`] from whichever source folder has it.
fn read_packages(sources: &[PathBuf]) -> Result<BTreeMap<String, Package>> {
    let parser = go::Parser::new();
    let mut packages = BTreeMap::new();
    for (path, _) in PACKAGES {
        let folder = sources
            .iter()
            .map(|source| source.join(path))
            .find(|folder| folder.is_dir())
            .ok_or_else(|| format!("no source folder has {path}"))?;
        let own = go::short_package(&format!("k8s.io/{path}"));
        let mut package = Package::default();
        for file in type_files(&folder)? {
            parser.file(&std::fs::read_to_string(file)?, &own, &mut package);
        }
        packages.insert(own, package);
    }
    Ok(packages)
}

/// The hand-written files of a package: no tests, nothing generated.
fn type_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let generated = name.starts_with("zz_generated") || name.contains("generated") || name.ends_with("_test.go");
        if name.ends_with(".go") && !generated {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

struct Generator {
    packages: BTreeMap<String, Package>,
    definitions: Value,
}

impl Generator {
    fn table(&self) -> Result<String> {
        let mut out = String::new();
        out.push_str(HEADER);
        for (path, group) in PACKAGES {
            let own = go::short_package(&format!("k8s.io/{path}"));
            let version = own.rsplit('/').next().unwrap_or_default();
            writeln!(out, "P {own} {group} {version} {}", open_api_prefix(path))?;
        }
        out.push_str(
            "P apiregistration/v1 apiregistration.k8s.io v1 io.k8s.kube-aggregator.pkg.apis.apiregistration.v1\n",
        );
        for (own, package) in &self.packages {
            for (name, declaration) in &package.types {
                let full = format!("{own}.{name}");
                let special = SPECIAL.iter().any(|(special, _)| *special == full);
                if special || LEFT_OUT.contains(&full.as_str()) || !name.starts_with(char::is_uppercase) {
                    continue;
                }
                if let Some(fields) = self.own_fields(declaration) {
                    self.write_type(&mut out, own, name, declaration, &fields)?;
                }
            }
        }
        out.push_str(include_str!("apiregistration.txt"));
        for line in include_str!("resources.txt").lines() {
            if !line.is_empty() && !line.starts_with('#') {
                writeln!(out, "R {line}")?;
            }
        }
        Ok(out)
    }

    /// The fields of a struct, or of the struct that `type X other.Y` copies.
    fn own_fields(&self, declaration: &Declaration) -> Option<Vec<GoField>> {
        match &declaration.body {
            Body::Struct(fields) => Some(fields.clone()),
            Body::Expression { alias: true, .. } => None,
            Body::Expression { ty, .. } => self.own_fields(self.find(ty)?),
        }
    }

    fn find(&self, full: &str) -> Option<&Declaration> {
        let (package, name) = full.rsplit_once('.')?;
        self.packages.get(package)?.types.get(name)
    }

    fn write_type(
        &self,
        out: &mut String,
        own: &str,
        name: &str,
        declaration: &Declaration,
        fields: &[GoField],
    ) -> Result<()> {
        let path =
            PACKAGES.iter().map(|(path, _)| path).find(|path| go::short_package(&format!("k8s.io/{path}")) == own);
        let prefix = path.map_or_else(String::new, |path| open_api_prefix(path));
        let definition = &self.definitions["$defs"][format!("{prefix}.{name}").as_str()];
        let known = definition.is_object();
        let mut line = format!("T {own}.{name}");
        let atomic = definition["x-kubernetes-map-type"] == "atomic"
            || (!known && marker(&declaration.markers, "structType") == Some("atomic"));
        if atomic {
            line.push_str(" atomic");
        }
        if fields.iter().any(|field| field.inline && field.ty == "meta/v1.TypeMeta") {
            line.push_str(" kind");
        }
        writeln!(out, "{line}")?;
        for union in definition["x-kubernetes-unions"].as_array().into_iter().flatten() {
            let discriminator = union["discriminator"].as_str().unwrap_or("-");
            let members: Vec<String> = union["fields-to-discriminateBy"]
                .as_object()
                .into_iter()
                .flatten()
                .map(|(field, value)| format!("{field}={}", value.as_str().unwrap_or_default()))
                .collect();
            writeln!(out, "u {discriminator} {}", members.join(","))?;
        }
        let required: BTreeSet<&str> =
            definition["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        for field in fields {
            if field.inline || field.json.is_empty() {
                if field.inline {
                    writeln!(out, "e {} {}", self.resolved(&field.ty), field.number)?;
                }
                continue;
            }
            let property = &definition["properties"][field.json.as_str()];
            let is_required = if known {
                required.contains(field.json.as_str())
            } else {
                !field.omitempty && !has_marker(&field.markers, "optional")
            };
            self.write_field(out, own, field, property, is_required)?;
        }
        Ok(())
    }

    fn write_field(
        &self,
        out: &mut String,
        own: &str,
        field: &GoField,
        property: &Value,
        required: bool,
    ) -> Result<()> {
        let (ty, pointer) = match field.ty.strip_prefix('*') {
            Some(ty) => (ty, true),
            None => (field.ty.as_str(), false),
        };
        let strategies: Vec<&str> = if property.is_object() {
            property["x-kubernetes-patch-strategy"].as_str().unwrap_or_default().split(',').collect()
        } else {
            field.patch_strategy.split(',').collect()
        };
        let mut flags = String::new();
        for (letter, on) in [
            ('o', field.omitempty),
            ('z', field.omitzero),
            ('p', pointer),
            ('r', required),
            ('m', strategies.contains(&"merge")),
            ('R', strategies.contains(&"replace")),
            ('k', strategies.contains(&"retainKeys")),
            ('a', ty == "[]byte" && marker(&field.markers, "listType") == Some("atomic")),
        ] {
            if on {
                flags.push(letter);
            }
        }
        if flags.is_empty() {
            flags.push('-');
        }
        let expression = self.expression(ty, &field.markers, property);
        write!(out, "f {} {expression} {} {flags}", field.json, field.number)?;
        if !field.patch_merge_key.is_empty() {
            write!(out, " key={}", field.patch_merge_key)?;
        }
        if let Some(default) = marker(&field.markers, "default") {
            write!(out, " default={}", self.default_value(default, own)?)?;
        }
        out.push('\n');
        Ok(())
    }

    /// `ref(Name)` is a constant of the package; anything else is JSON.
    fn default_value(&self, text: &str, own: &str) -> Result<Value> {
        let Some(name) = text.strip_prefix("ref(").and_then(|rest| rest.strip_suffix(')')) else {
            return Ok(serde_json::from_str(text)?);
        };
        let constant = self.packages[own].constants.get(name).ok_or_else(|| format!("no constant {name} in {own}"))?;
        Ok(Value::String(self.text(&constant.1).ok_or_else(|| format!("{name} has no value"))?.to_owned()))
    }

    /// Follows aliases to the type that carries the fields.
    fn resolved(&self, ty: &str) -> String {
        match self.find(ty).map(|declaration| &declaration.body) {
            Some(Body::Expression { ty: target, alias: true }) => self.resolved(target),
            _ => ty.to_owned(),
        }
    }

    /// The table's notation for a Go type.
    fn expression(&self, ty: &str, markers: &[String], property: &Value) -> String {
        let ty = ty.trim_start_matches('*');
        if ty == "[]byte" {
            return "bytes".to_owned();
        }
        if let Some(item) = ty.strip_prefix("[]") {
            let kind = property["x-kubernetes-list-type"]
                .as_str()
                .or_else(|| marker(markers, "listType").filter(|_| !property.is_object()));
            let keys: Vec<&str> = match property["x-kubernetes-list-map-keys"].as_array() {
                Some(keys) => keys.iter().filter_map(Value::as_str).collect(),
                None => markers.iter().filter_map(|m| m.strip_prefix("+listMapKey=")).collect(),
            };
            let prefix = match kind {
                Some("map") => format!("[m:{}]", keys.join(",")),
                Some("set") => "[s]".to_owned(),
                Some("atomic") => "[a]".to_owned(),
                _ => "[]".to_owned(),
            };
            return format!("{prefix}{}", self.expression(item, &[], &Value::Null));
        }
        if let Some(rest) = ty.strip_prefix("map[") {
            let value = rest.split_once(']').map_or(rest, |(_, value)| value);
            let kind = property["x-kubernetes-map-type"]
                .as_str()
                .or_else(|| marker(markers, "mapType").filter(|_| !property.is_object()));
            let prefix = match kind {
                Some("atomic") => "{a}",
                Some("granular") => "{g}",
                _ => "{}",
            };
            return format!("{prefix}{}", self.expression(value, &[], &Value::Null));
        }
        if let Some((_, special)) = SPECIAL.iter().find(|(name, _)| *name == ty) {
            return (*special).to_owned();
        }
        match ty {
            "string" => return "string".to_owned(),
            "bool" => return "bool".to_owned(),
            "int" | "int8" | "int16" | "int32" | "uint8" => return "i32".to_owned(),
            "int64" | "uint32" | "uint64" => return "i64".to_owned(),
            "float64" | "float32" => return "f64".to_owned(),
            "interface{}" => return "json".to_owned(),
            _ if ty.starts_with("types.") => return format!("string@{ty}"),
            _ => {}
        }
        let Some(declaration) = self.find(ty) else {
            // A type from a package that is not read would be a hole in the table.
            panic!("unknown type {ty}");
        };
        match &declaration.body {
            Body::Struct(_) => match property["x-kubernetes-map-type"].as_str() {
                Some("granular") => format!("{{g}}{ty}"),
                Some("atomic") => format!("{{a}}{ty}"),
                _ => ty.to_owned(),
            },
            Body::Expression { ty: target, alias } => {
                if !alias && self.own_fields(declaration).is_some() {
                    return ty.to_owned();
                }
                let inner = self.expression(target, markers, property);
                if inner == "string" {
                    let plain = has_marker(&declaration.markers, "enum").then(|| self.enumeration(ty)).flatten();
                    // Go prints the last part of the package's path.
                    return format!("{}@{}", plain.unwrap_or(inner), ty.rsplit('/').next().unwrap_or(ty));
                }
                if inner.starts_with('[') && has_marker(&declaration.markers, "protobuf.nullable=true") {
                    return format!("w{inner}");
                }
                inner
            }
        }
    }

    /// A constant's text, through other packages' constants.
    fn text<'a>(&'a self, constant: &'a Constant) -> Option<&'a str> {
        match constant {
            Constant::Text(text) => Some(text),
            Constant::Other(name) => {
                let (package, name) = name.rsplit_once('.')?;
                self.text(&self.packages.get(package)?.constants.get(name)?.1)
            }
        }
    }

    /// `string(A|B)`: every constant of the named string type.
    fn enumeration(&self, ty: &str) -> Option<String> {
        let (package, name) = ty.rsplit_once('.')?;
        let values: BTreeSet<&str> = self
            .packages
            .get(package)?
            .constants
            .values()
            .filter(|(constant_type, _)| constant_type == name)
            .filter_map(|(_, value)| self.text(value))
            .collect();
        (!values.is_empty())
            .then(|| format!("string({})", values.into_iter().collect::<Vec<_>>().join("|").replace(' ', "~")))
    }
}

/// `api/core/v1` → `io.k8s.api.core.v1`.
fn open_api_prefix(path: &str) -> String {
    format!("io.k8s.{}", path.replace('/', "."))
}

const HEADER: &str = "\
# Every type and resource of Kubernetes 1.36 (facts from Kubernetes, Apache-2.0; see NOTICE).
# Written by `cargo run -p api --bin generate`; do not edit.
#
# P package group version open-api-prefix
# T type [atomic] [kind]         a struct; kind: it carries apiVersion and kind
# u discriminator field=value,…  a union among its fields
# f name type number flags       a field; number 0: JSON only
#   flags: o omitempty, z omitzero, p pointer, r required; patch strategy m merge, R replace, k retainKeys; a bytes marked atomic
# e type number                  a struct inlined in JSON, message field `number` in protobuf
# R …                            a resource, as in bin/generate/resources.txt
# type: [kind]item list ([a]tomic, [s]et, [m:keys]), {kind}value map ({a}tomic, {g}ranular),
#   w[…]: wrapped in a message in protobuf, string(A|B)@v1.Name: enum (~ for a space) and Go's name
";
