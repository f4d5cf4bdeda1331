//! Any text as YAML: trees or an error; and what upstream's layout writes of a tree reads as that tree.
#![no_main]

use apimachinery::yaml;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let _ = yaml::parse_documents_core(text);
    for tree in yaml::parse_documents(text).unwrap_or_default() {
        assert_eq!(yaml::parse(&yaml::emit(&tree)).as_ref(), Ok(&tree));
    }
});
