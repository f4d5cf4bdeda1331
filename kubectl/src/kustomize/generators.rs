//! ConfigMaps and Secrets out of files, environment files and literals, and the hash in their names.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::kustomization::{GeneratorArgs, GeneratorOptions};
use super::loader::Loader;
use super::resource::{Behavior, Resource};
use super::{Error, Result};
use crate::codec;

/// Characters of base64 in a line; longer values are broken.
const LINE: usize = 70;
/// Hexadecimal digits of the hash that a name carries.
const HASH_LENGTH: usize = 10;

/// A ConfigMap.
///
/// # Errors
/// When a source cannot be read, or a key is given twice.
pub fn config_map(loader: &Loader, args: &GeneratorArgs, global: Option<&GeneratorOptions>) -> Result<Resource> {
    let options = merged(args.options.clone(), global);
    let mut object = base("ConfigMap", args)?;
    let (mut data, mut binary) = (Map::new(), Map::new());
    for (key, value) in pairs(loader, args)? {
        match String::from_utf8(value) {
            Ok(text) => data.insert(key, Value::String(text)),
            Err(error) => binary.insert(key, Value::String(encode(error.as_bytes()))),
        };
    }
    for (field, map) in [("data", data), ("binaryData", binary)] {
        if !map.is_empty() {
            object[field] = Value::Object(map);
        }
    }
    Ok(finish(object, args, options.as_ref()))
}

/// A Secret.
///
/// # Errors
/// As [`config_map`].
pub fn secret(loader: &Loader, args: &GeneratorArgs, global: Option<&GeneratorOptions>) -> Result<Resource> {
    let options = merged(args.options.clone(), global);
    let mut object = base("Secret", args)?;
    let secret_type = if args.secret_type.is_empty() { "Opaque" } else { &args.secret_type };
    object["type"] = Value::String(secret_type.to_owned());
    let data = pairs(loader, args)?.into_iter().map(|(key, value)| (key, Value::String(encode(&value)))).collect();
    object["data"] = Value::Object(data);
    Ok(finish(object, args, options.as_ref()))
}

/// The generator's own options win, but no false over a true.
fn merged(local: Option<GeneratorOptions>, global: Option<&GeneratorOptions>) -> Option<GeneratorOptions> {
    let Some(global) = global else { return local };
    let mut options = local.unwrap_or_default();
    for (into, from) in [(&mut options.labels, &global.labels), (&mut options.annotations, &global.annotations)] {
        for (key, value) in from {
            into.entry(key.clone()).or_insert_with(|| value.clone());
        }
    }
    options.disable_name_suffix_hash |= global.disable_name_suffix_hash;
    options.immutable |= global.immutable;
    Some(options)
}

fn base(kind: &str, args: &GeneratorArgs) -> Result<Value> {
    if args.name.is_empty() {
        return Err(Error::new("a configmap must have a name"));
    }
    let mut object = json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": args.name}});
    if !args.namespace.is_empty() {
        object["metadata"]["namespace"] = Value::String(args.namespace.clone());
    }
    Ok(object)
}

fn finish(mut object: Value, args: &GeneratorArgs, options: Option<&GeneratorOptions>) -> Resource {
    if let Some(options) = options {
        for (field, texts) in [("labels", &options.labels), ("annotations", &options.annotations)] {
            for (key, value) in texts {
                codec::set(&mut object, &["metadata", field, key], Value::String(value.clone()));
            }
        }
        if options.immutable {
            object["immutable"] = Value::Bool(true);
        }
    }
    let mut resource = Resource::new(object);
    resource.hashed = options.is_none_or(|options| !options.disable_name_suffix_hash);
    resource.behavior = Behavior::parse(&args.behavior);
    resource
}

/// Keys and values: environment files first, then literals, then files.
fn pairs(loader: &Loader, args: &GeneratorArgs) -> Result<BTreeMap<String, Vec<u8>>> {
    let mut found: Vec<(String, Vec<u8>)> = Vec::new();
    let loading = |error: Error, what: &str, sources: &[String]| {
        error.wrap(format!("loading KV pairs: {what} [{}]", sources.join(" ")))
    };
    for path in &args.envs {
        let read = loader.bytes(path).and_then(|bytes| env_lines(&bytes));
        found.extend(read.map_err(|error| loading(error, "env source files:", &args.envs))?);
    }
    for literal in &args.literals {
        let pair = literal_pair(literal).map_err(|error| loading(error, "literal sources", &args.literals))?;
        found.push(pair);
    }
    for source in &args.files {
        let read = file_pair(source).and_then(|(key, path)| Ok((key, loader.bytes(&path)?)));
        found.push(read.map_err(|error| loading(error, "file sources:", &args.files))?);
    }
    let mut pairs = BTreeMap::new();
    for (key, value) in found {
        if pairs.contains_key(&key) {
            return Err(Error::new(format!("configmap {} illegally repeats the key `{key}`", args.name)));
        }
        pairs.insert(key, value);
    }
    Ok(pairs)
}

fn env_lines(bytes: &[u8]) -> Result<Vec<(String, Vec<u8>)>> {
    let mut found = Vec::new();
    let lines = bytes.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    for (number, line) in lines.enumerate() {
        let line = std::str::from_utf8(line).map_err(|_| {
            Error::new(format!("line {line:?} has invalid utf8 bytes : {}", String::from_utf8_lossy(line)))
        })?;
        let line = if number == 0 { line.trim_start_matches('\u{feff}') } else { line }.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (key, value) = line.split_once('=').unwrap_or((line, ""));
        if !key.is_empty() {
            found.push((key.to_owned(), value.as_bytes().to_vec()));
        }
    }
    Ok(found)
}

fn literal_pair(source: &str) -> Result<(String, Vec<u8>)> {
    match source.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), unquoted(value).as_bytes().to_vec())),
        _ => Err(Error::new(format!("invalid literal source {source}, expected key=value"))),
    }
}

fn unquoted(text: &str) -> &str {
    for quote in ['"', '\''] {
        if let Some(inner) = text.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote)) {
            return inner;
        }
    }
    text
}

fn file_pair(source: &str) -> Result<(String, String)> {
    match source.matches('=').count() {
        0 => Ok((source.rsplit('/').next().unwrap_or(source).to_owned(), source.to_owned())),
        1 => match source.split_once('=').unwrap_or_default() {
            ("", path) => Err(Error::new(format!("missing key name for file path {path:?} in source {source:?}"))),
            (key, "") => Err(Error::new(format!("missing file path for key name {key:?} in source {source:?}"))),
            (key, path) => Ok((key.to_owned(), path.to_owned())),
        },
        _ => Err(Error::new(format!("source {source:?} key name or file path contains '='"))),
    }
}

/// Base64, in lines when it is long.
fn encode(bytes: &[u8]) -> String {
    let text = STANDARD.encode(bytes);
    if text.len() < LINE {
        return text;
    }
    let mut out = String::new();
    for line in text.as_bytes().chunks(LINE) {
        out.push_str(&String::from_utf8_lossy(line));
        out.push('\n');
    }
    out
}

/// The hash of an object's content, for its name (which upstream means to hash too, and does not).
pub fn hash(object: &Value) -> String {
    let at = |path: &[&str]| codec::at(object, path).cloned().unwrap_or_else(|| Value::String(String::new()));
    let map = |field: &str| object.get(field).filter(|value| value.is_object()).cloned();
    let mut content = json!({"kind": codec::text(object, &["kind"]), "name": "", "data": at(&["data"])});
    match codec::text(object, &["kind"]) {
        "ConfigMap" => {
            if let Some(binary) = map("binaryData") {
                content["binaryData"] = binary;
            }
        }
        "Secret" => {
            content["type"] = at(&["type"]);
            if let Some(strings) = map("stringData") {
                content["stringData"] = strings;
            }
        }
        _ => content = object.clone(),
    }
    let text = codec::compact(&content);
    let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
    let hex: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    // Digits and vowels that could make words are replaced.
    let replace = |c: char| match c {
        '0' => 'g',
        '1' => 'h',
        '3' => 'k',
        'a' => 'm',
        'e' => 't',
        other => other,
    };
    hex.chars().take(HASH_LENGTH).map(replace).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{encode, env_lines, file_pair, hash, literal_pair};

    #[test]
    fn sources() {
        let text = |pair: (String, Vec<u8>)| (pair.0, String::from_utf8(pair.1).expect("text"));
        assert_eq!(literal_pair("a='b=c'").map(text), Ok(("a".into(), "b=c".into())));
        assert_eq!(literal_pair("=b").expect_err("no key").0, "invalid literal source =b, expected key=value");
        assert_eq!(file_pair("dir/name.txt"), Ok(("name.txt".into(), "dir/name.txt".into())));
        assert_eq!(file_pair("k=p"), Ok(("k".into(), "p".into())));
        assert!(file_pair("a=b=c").is_err() && file_pair("=b").is_err() && file_pair("a=").is_err());
        let lines = env_lines(b"\xef\xbb\xbfA=1\n# no\n\n  B\nC=x=y\r\n").expect("text");
        let lines: Vec<_> = lines.into_iter().map(text).collect();
        assert_eq!(lines, [("A", "1"), ("B", ""), ("C", "x=y")].map(|(k, v)| (k.to_owned(), v.to_owned())));
    }

    #[test]
    fn long_values_are_broken() {
        assert_eq!(encode(b"abc"), "YWJj");
        assert_eq!(encode(&[b'a'; 60]).matches('\n').count(), 2);
    }

    #[test]
    fn hashes_are_upstreams() {
        let map = json!({"kind": "ConfigMap", "metadata": {"name": ""}, "data": {}});
        assert_eq!(hash(&map), "42745tchd9");
        let map = json!({"kind": "ConfigMap", "metadata": {"name": ""}, "data": {"one": ""}});
        assert_eq!(hash(&map), "9g67k2htb6");
        let secret = json!({"kind": "Secret", "metadata": {"name": ""}, "type": "my-type", "data": {}});
        assert_eq!(hash(&secret), "t75bgf6ctb");
    }
}
