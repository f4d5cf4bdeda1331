//! Takes the descriptions of the published API from the `k8s-openapi` crate and packs them for the
//! OpenAPI documents. They are read from its sources, as text: building its 700 schemas for the host
//! would cost more than the rest of this crate.
//!
//! Reads: the crate's sources, which cargo has unpacked (the client depends on them). Writes:
//! `$OUT_DIR/descriptions.deflate`, lines of `T type<TAB>text` and `f field<TAB>text`, types and fields sorted,
//! line ends and tabs escaped.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The folder of the schemas inside the crate, by API version.
const SCHEMAS: &str = "src/v1_36";

type Types = BTreeMap<String, (String, BTreeMap<String, String>)>;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let root = crate_root();
    println!("cargo::rerun-if-changed={}", root.join("Cargo.toml").display());
    let mut types = Types::new();
    visit(&root.join(SCHEMAS), &mut types);
    assert!(types.len() > 500, "k8s-openapi at {} has only {} schemas", root.display(), types.len());
    let mut text = String::new();
    for (name, (description, fields)) in &types {
        text.push_str(&format!("T {name}\t{description}\n"));
        for (field, description) in fields {
            text.push_str(&format!("f {field}\t{description}\n"));
        }
    }
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")).join("descriptions.deflate");
    let file = std::fs::File::create(out).expect("OUT_DIR is writable");
    let mut encoder = flate2::write::DeflateEncoder::new(file, flate2::Compression::best());
    encoder.write_all(text.as_bytes()).expect("OUT_DIR is writable");
    encoder.finish().expect("OUT_DIR is writable");
}

/// Where cargo keeps the sources of `k8s-openapi`: unpacked beside the other crates of this build, or, when it
/// is not (only this crate is built, sources are vendored), wherever `cargo metadata` says after fetching it.
fn crate_root() -> PathBuf {
    unpacked().unwrap_or_else(described)
}

/// The unpacked sources of the version that `Cargo.lock` names.
fn unpacked() -> Option<PathBuf> {
    let lock = Path::new(&std::env::var_os("CARGO_MANIFEST_DIR")?).join("../Cargo.lock");
    println!("cargo::rerun-if-changed={}", lock.display());
    let lock = std::fs::read_to_string(lock).ok()?;
    let version = lock.split("name = \"k8s-openapi\"\nversion = \"").nth(1)?.split('"').next()?;
    let home = std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(Path::new(&std::env::var_os("HOME")?).join(".cargo")))?;
    let registries = std::fs::read_dir(home.join("registry/src")).ok()?;
    registries
        .filter_map(|registry| Some(registry.ok()?.path().join(format!("k8s-openapi-{version}"))))
        .find(|root| root.join(SCHEMAS).is_dir())
}

/// Asks cargo, which fetches what is missing.
fn described() -> PathBuf {
    let cargo = std::env::var_os("CARGO").expect("cargo sets CARGO");
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--locked", "--all-features"])
        .output()
        .expect("cargo runs");
    let text = String::from_utf8_lossy(&output.stdout);
    // Every package has its manifest's path; one string search spares a JSON parser.
    text.split("\"manifest_path\":\"")
        .filter_map(|rest| rest.split('"').next())
        .find(|path| path.contains("/k8s-openapi-0"))
        .and_then(|path| Path::new(path).parent())
        .map(Path::to_owned)
        .unwrap_or_else(|| panic!("cargo metadata names no k8s-openapi: {}", String::from_utf8_lossy(&output.stderr)))
}

fn visit(folder: &Path, types: &mut Types) {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    for entry in entries {
        let path = entry.expect("readable folder").path();
        if path.is_dir() {
            visit(&path, types);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            schema(&std::fs::read_to_string(&path).expect("readable source"), types);
        }
    }
}

/// Reads the generated `json_schema!` block of one file: indentation tells type from field.
fn schema(source: &str, types: &mut Types) {
    let Some(at) = source.find("fn schema_name()") else { return };
    let block = &source[at..];
    let Some(name) = block.lines().nth(1).and_then(|line| line.trim().strip_prefix('"')?.strip_suffix("\".into()"))
    else {
        return;
    };
    let mut description = String::new();
    let mut fields = BTreeMap::new();
    let mut field = String::new();
    for line in block.lines() {
        let indent = line.len() - line.trim_start().len();
        let text = line.trim();
        if indent == 12 && text.starts_with("\"description\": ") {
            description = literal(&text["\"description\": ".len()..]);
        } else if indent == 16 && text.starts_with('"') && (text.ends_with('{') || text.ends_with("({")) {
            field = literal(text);
        } else if indent == 20 && !field.is_empty() {
            let value = text
                .strip_prefix("\"description\": ")
                .or_else(|| text.strip_prefix("schema_obj.ensure_object().insert(\"description\".into(), "));
            if let Some(value) = value {
                fields.insert(std::mem::take(&mut field), literal(value));
            }
        }
    }
    types.insert(name.to_owned(), (description, fields));
}

/// The Rust string literal that `text` starts with; line ends and tabs stay escaped.
fn literal(text: &str) -> String {
    let mut out = String::new();
    let mut chars = text.chars().skip(1);
    while let Some(c) = chars.next() {
        match c {
            '"' => break,
            '\\' => match chars.next() {
                Some('n') => out.push_str("\\n"),
                Some('t') => out.push_str("\\t"),
                Some('r') => {}
                Some('u') => {
                    let code: String = chars.by_ref().skip(1).take_while(|c| *c != '}').collect();
                    out.extend(u32::from_str_radix(&code, 16).ok().and_then(char::from_u32));
                }
                Some('\\') => out.push_str("\\\\"),
                Some(other) => out.push(other),
                None => break,
            },
            other => out.push(other),
        }
    }
    out
}
