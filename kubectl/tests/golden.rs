//! Golden command lines. A case is a folder under `tests/cmd`: `in/` holds the manifests the server
//! has, other files are there for `-f`, `cmd` has the command lines, `stdout` what they print
//! (standard error marked by `! `, a failing exit code by `? `).
//!
//! `UPDATE_GOLDEN=1 cargo test -p kubectl --test golden` writes what is printed now. The texts were
//! compared with upstream's kubectl when they were written.

#[allow(dead_code, reason = "each test uses a part")]
mod fake;

use std::cell::RefCell;
use std::fs;
use std::path::{Path, PathBuf};

use fake::{Buffer, Fake};
use kubectl::streams::{Output, Streams};

#[test]
fn cases() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/cmd");
    let mut cases: Vec<PathBuf> =
        fs::read_dir(&root).expect("the cases").map(|entry| entry.expect("an entry").path()).collect();
    cases.sort();
    assert!(!cases.is_empty());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let mut failed = Vec::new();
    for case in cases {
        let got = runtime.block_on(run(&case));
        let golden = case.join("stdout");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&golden, &got).expect("writable");
        }
        let expected = fs::read_to_string(&golden).unwrap_or_default();
        if got != expected {
            failed.push(format!("{}\n--- expected\n{expected}\n--- got\n{got}", case.display()));
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n\n"));
}

async fn run(case: &Path) -> String {
    let server = Fake::default();
    if let Ok(entries) = fs::read_dir(case.join("in")) {
        let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
        files.sort();
        for file in files {
            let text = fs::read_to_string(file).expect("readable");
            for object in kubectl::codec::documents(&text).expect("YAML") {
                server.put(object);
            }
        }
    }
    let mut transcript = String::new();
    for line in fs::read_to_string(case.join("cmd")).expect("the command lines").lines() {
        transcript.push_str(&format!("$ kubectl {line}\n"));
        let here = case.display().to_string();
        let args: Vec<String> = words(line).into_iter().map(|word| word.replace("$CASE", &here)).collect();
        let (out, err) = (Buffer::default(), Buffer::default());
        let streams = Streams {
            out: Output::new(out.clone()),
            err: Output::new(err.clone()),
            stdin: RefCell::new(Box::new(std::io::empty())),
            out_is_terminal: false,
            in_is_terminal: false,
        };
        let code = kubectl::run(&args, streams, Some(server.client())).await;
        transcript.push_str(&out.text());
        for line in err.text().lines() {
            transcript.push_str(&format!("! {}\n", line.replace(&here, "$CASE")));
        }
        if code != 0 {
            transcript.push_str(&format!("? {code}\n"));
        }
    }
    transcript
}

/// Words of a line; single quotes keep spaces.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let (mut quoted, mut started) = (false, false);
    for c in line.chars() {
        match c {
            '\'' => {
                quoted = !quoted;
                started = true;
            }
            ' ' if !quoted => {
                if std::mem::take(&mut started) {
                    words.push(std::mem::take(&mut word));
                }
            }
            c => {
                word.push(c);
                started = true;
            }
        }
    }
    if started {
        words.push(word);
    }
    words
}
