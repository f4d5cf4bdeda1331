//! Whole builds against what upstream's `kubectl kustomize` prints: a case is a folder under
//! `tests/kustomize`, built from its `overlay` when it has one; `stdout` is what upstream printed,
//! or the error after `error: `.

use std::path::{Path, PathBuf};

use super::{Options, build, yaml};

fn run(folder: &Path) -> String {
    let overlay = folder.join("overlay");
    let root = if overlay.exists() { overlay } else { folder.to_owned() };
    match build(&root, Options::default(), &mut |_| {}) {
        Ok(objects) => yaml(&objects),
        Err(error) => {
            let here = folder.canonicalize().expect("a folder");
            let cases = here.parent().expect("the cases").display().to_string();
            format!("error: {}\n", error.0.replace(&here.display().to_string(), "$CASE").replace(&cases, "$CASES"))
        }
    }
}

#[test]
fn cases() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kustomize");
    let mut cases: Vec<PathBuf> =
        std::fs::read_dir(root).expect("the cases").map(|entry| entry.expect("an entry").path()).collect();
    cases.sort();
    assert!(cases.len() > 10, "{} cases", cases.len());
    let mut failed = Vec::new();
    for case in &cases {
        let expected = std::fs::read_to_string(case.join("stdout")).expect("what upstream prints");
        let got = run(case);
        if got != expected {
            failed.push(format!("{}\n--- expected\n{expected}\n--- got\n{got}", case.display()));
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n\n"));
}
