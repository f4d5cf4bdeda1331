//! Reads the facts out of Go API packages: structs, their tags and markers, named types, constants.
//!
//! Line based, for gofmt'ed `types.go` files only: one declaration per line, one field per line. That
//! is all the API packages use, and a full Go parser would not know more about markers.

use std::collections::BTreeMap;

use regex::Regex;

/// One package, named `core/v1`.
#[derive(Default, Debug)]
pub struct Package {
    pub types: BTreeMap<String, Declaration>,
    /// Constant name → (type name or empty, value).
    pub constants: BTreeMap<String, (String, Constant)>,
}

/// The value of a string constant.
#[derive(Debug)]
pub enum Constant {
    Text(String),
    /// Another package's constant, `core/v1.IPv4Protocol`.
    Other(String),
}

/// `type X …`.
#[derive(Debug)]
pub struct Declaration {
    pub markers: Vec<String>,
    pub body: Body,
}

/// What a type is declared as.
#[derive(Clone, Debug)]
pub enum Body {
    Struct(Vec<GoField>),
    /// Any other type expression, already with full package names (`core/v1.ResourceName`).
    /// `alias` is `type X = Y`, which is Y itself; without it X is a type of its own.
    Expression {
        ty: String,
        alias: bool,
    },
}

/// One field line of a struct.
#[derive(Clone, Debug)]
pub struct GoField {
    /// Type expression with full package names.
    pub ty: String,
    pub json: String,
    pub omitempty: bool,
    pub omitzero: bool,
    pub inline: bool,
    /// Protobuf number, 0 when the field is JSON only.
    pub number: u32,
    pub patch_strategy: String,
    pub patch_merge_key: String,
    pub markers: Vec<String>,
}

/// Value of the first marker that starts with `+name=`, quotes kept.
pub fn marker<'a>(markers: &'a [String], name: &str) -> Option<&'a str> {
    markers.iter().find_map(|m| m.strip_prefix('+')?.strip_prefix(name)?.strip_prefix('='))
}

/// True when the bare marker `+name` is present.
pub fn has_marker(markers: &[String], name: &str) -> bool {
    markers.iter().any(|m| m.strip_prefix('+') == Some(name))
}

/// `k8s.io/api/core/v1` → `core/v1`.
pub fn short_package(import: &str) -> String {
    for (prefix, replacement) in [
        ("k8s.io/apimachinery/pkg/apis/", ""),
        ("k8s.io/apiextensions-apiserver/pkg/apis/", ""),
        ("k8s.io/kube-aggregator/pkg/apis/", ""),
        ("k8s.io/metrics/pkg/apis/", ""),
        ("k8s.io/apimachinery/pkg/api/", ""),
        ("k8s.io/apimachinery/pkg/util/", ""),
        ("k8s.io/apimachinery/pkg/", ""),
        ("k8s.io/api/", ""),
    ] {
        if let Some(rest) = import.strip_prefix(prefix) {
            return format!("{replacement}{rest}");
        }
    }
    import.to_owned()
}

/// The patterns, compiled once.
pub struct Parser {
    import: Regex,
    type_line: Regex,
    named: Regex,
    embedded: Regex,
    constant: Regex,
    tag: Regex,
    name: Regex,
}

impl Parser {
    pub fn new() -> Self {
        let re = |text: &str| Regex::new(text).expect("patterns are literals, tried by every run");
        Self {
            import: re(r#"^\s*(?:import\s+)?(?:(\w+)\s+)?"([\w./-]+)"$"#),
            type_line: re(r"^type (\w+) (=\s*)?(.+?)\s*(?://.*)?$"),
            named: re(r"^\s+(\w+)\s+([\w.*\[\]{}/]+)\s+`([^`]*)`"),
            embedded: re(r"^\s+(\*?[\w.]+)\s+`([^`]*)`"),
            constant: re(r#"^\s*(?:const\s+)?(\w+)(?:\s+([\w.]+))?\s*=\s*(?:([\w.]+)\()?(?:"([^"]*)"|(\w+\.\w+))\)?"#),
            tag: re(r#"(\w+):"([^"]*)""#),
            name: re(r"[A-Za-z_][\w.]*"),
        }
    }

    /// Adds one file's declarations to `package`, which is called `own`.
    pub fn file(&self, source: &str, own: &str, package: &mut Package) {
        let mut imports: BTreeMap<String, String> = BTreeMap::new();
        let mut older: Vec<String> = Vec::new();
        let mut markers: Vec<String> = Vec::new();
        let mut open: Option<(String, Vec<String>, Vec<GoField>)> = None;
        let mut importing = false;
        for line in source.lines() {
            let trimmed = line.trim();
            if trimmed.starts_with("//") {
                let text = trimmed.trim_start_matches('/').trim();
                if text.starts_with('+') {
                    markers.push(text.to_owned());
                }
                continue;
            }
            if trimmed.is_empty() {
                if !markers.is_empty() {
                    older = std::mem::take(&mut markers);
                }
                continue;
            }
            if trimmed == "import (" {
                importing = true;
            } else if importing && trimmed == ")" {
                importing = false;
            } else if importing || trimmed.starts_with("import ") {
                if let Some(found) = self.import.captures(trimmed) {
                    let path = found[2].to_owned();
                    let alias = found.get(1).map_or_else(
                        || path.rsplit('/').next().unwrap_or_default().to_owned(),
                        |alias| alias.as_str().to_owned(),
                    );
                    imports.insert(alias, short_package(&path));
                }
            } else if let Some((name, type_markers, fields)) = &mut open {
                if line.starts_with('}') {
                    let declaration = Declaration {
                        markers: std::mem::take(type_markers),
                        body: Body::Struct(std::mem::take(fields)),
                    };
                    package.types.insert(std::mem::take(name), declaration);
                    open = None;
                } else if let Some(found) = self.named.captures(line) {
                    fields.extend(self.field(&found[2], &found[3], own, &imports, &markers));
                } else if let Some(found) = self.embedded.captures(line) {
                    fields.extend(self.field(&found[1], &found[2], own, &imports, &markers));
                }
            } else if let Some(found) = self.type_line.captures(line) {
                let mut all = std::mem::take(&mut older);
                all.append(&mut markers);
                let name = found[1].to_owned();
                match &found[3] {
                    "struct {" => open = Some((name, all, Vec::new())),
                    "struct{}" => {
                        let body = Body::Struct(Vec::new());
                        package.types.insert(name, Declaration { markers: all, body });
                    }
                    expression => {
                        let alias = found.get(2).is_some();
                        let body = Body::Expression { ty: self.qualify(expression, own, &imports), alias };
                        package.types.insert(name, Declaration { markers: all, body });
                    }
                }
            } else if let Some(found) = self.constant.captures(line) {
                let ty = found.get(2).or(found.get(3)).map_or("", |m| m.as_str()).to_owned();
                let value = match (found.get(4), found.get(5)) {
                    (Some(text), _) => Constant::Text(text.as_str().to_owned()),
                    (None, Some(other)) => Constant::Other(self.qualify(other.as_str(), own, &imports)),
                    (None, None) => continue,
                };
                package.constants.insert(found[1].to_owned(), (ty, value));
            }
            older.clear();
            markers.clear();
        }
    }

    fn field(
        &self,
        ty: &str,
        tags: &str,
        own: &str,
        imports: &BTreeMap<String, String>,
        markers: &[String],
    ) -> Option<GoField> {
        let tags: BTreeMap<&str, &str> = self
            .tag
            .captures_iter(tags)
            .map(|found| (found.get(1).map_or("", |m| m.as_str()), found.get(2).map_or("", |m| m.as_str())))
            .collect();
        let json = tags.get("json")?;
        let mut parts = json.split(',');
        let name = parts.next().unwrap_or_default();
        let options: Vec<&str> = parts.collect();
        if name == "-" {
            return None;
        }
        let number = tags.get("protobuf").and_then(|tag| tag.split(',').nth(1)?.parse().ok()).unwrap_or(0);
        Some(GoField {
            ty: self.qualify(ty, own, imports),
            json: name.to_owned(),
            omitempty: options.contains(&"omitempty"),
            omitzero: options.contains(&"omitzero"),
            inline: options.contains(&"inline"),
            number,
            patch_strategy: tags.get("patchStrategy").copied().unwrap_or_default().to_owned(),
            patch_merge_key: tags.get("patchMergeKey").copied().unwrap_or_default().to_owned(),
            markers: markers.to_vec(),
        })
    }

    /// Puts the package's short path before every name that is not built into Go.
    fn qualify(&self, expression: &str, own: &str, imports: &BTreeMap<String, String>) -> String {
        const BASIC: &[&str] = &[
            "string",
            "bool",
            "byte",
            "int",
            "int8",
            "int16",
            "int32",
            "int64",
            "uint8",
            "uint32",
            "uint64",
            "float32",
            "float64",
            "map",
            "interface",
        ];
        self.name
            .replace_all(expression, |found: &regex::Captures<'_>| {
                let name = &found[0];
                if BASIC.contains(&name) {
                    return name.to_owned();
                }
                match name.split_once('.') {
                    Some((alias, name)) => {
                        let package = imports.get(alias).map_or(alias, String::as_str);
                        format!("{package}.{name}")
                    }
                    None => format!("{own}.{name}"),
                }
            })
            .into_owned()
    }
}
