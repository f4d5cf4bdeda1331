//! The arrows between the rooms: who may depend on whom. Cargo forbids cycles; this test forbids shortcuts.

use std::collections::BTreeSet;

/// Each room with the rooms that it may use.
const ARROWS: &[(&str, &[&str])] = &[
    ("proto", &[]),
    ("apimachinery", &[]),
    ("cel", &["apimachinery"]),
    ("api", &["proto", "apimachinery", "cel"]),
    ("component-base", &["apimachinery"]),
    ("client", &["apimachinery", "api", "component-base"]),
    ("apiserver", &["proto", "apimachinery", "cel", "api", "client", "component-base"]),
    ("controller-manager", &["apimachinery", "cel", "api", "client", "component-base"]),
    ("scheduler", &["apimachinery", "api", "client", "component-base"]),
    ("kubelet", &["proto", "apimachinery", "api", "client", "component-base"]),
    ("proxy", &["apimachinery", "api", "client", "component-base"]),
    ("kubectl", &["proto", "apimachinery", "api", "client", "component-base"]),
    ("dns", &["client", "component-base"]),
    (
        "deploy",
        &[
            "apimachinery",
            "api",
            "client",
            "component-base",
            "apiserver",
            "controller-manager",
            "scheduler",
            "proxy",
            "kubectl",
        ],
    ),
    ("images", &[]),
    // Over the wire only: it knows no component.
    ("e2e", &["proto", "apimachinery", "client", "component-base"]),
];

#[test]
fn arrows_point_one_way() {
    let metadata = cargo_metadata::MetadataCommand::new().no_deps().exec().expect("cargo metadata");
    let rooms: BTreeSet<&str> = metadata.packages.iter().map(|package| package.name.as_str()).collect();
    let listed: BTreeSet<&str> = ARROWS.iter().map(|(room, _)| *room).collect();
    assert_eq!(rooms, listed, "every room has its line in the list");
    for package in &metadata.packages {
        let (_, allowed) = ARROWS.iter().find(|(room, _)| *room == package.name.as_str()).expect("listed");
        for dependency in &package.dependencies {
            let name = dependency.name.as_str();
            assert!(
                !rooms.contains(name) || allowed.contains(&name),
                "{} may not use {name}: see the arrows in ARCHITECTURE.md",
                package.name
            );
        }
    }
}
