//! `make bench`: the performance table. Each load runs against Keelson and, where upstream's programs are on the
//! machine (in the folder that `KEELSON_UPSTREAM` names, or on the path), against upstream in the same run; the
//! ratios are what counts. Nothing here is a test: a figure is printed, never asserted.
//!
//! `KEELSON_BENCH=pods,watch` runs only those parts; the parts are listed in `figures`. `KEELSON_PROGRAMS` names a folder
//! with other programs of ours than the release ones, to compare two builds. A part that fails, hangs or
//! panics costs its own rows only, and an interrupt ends the load but not the table: what was measured is printed.

mod fan_out;
mod figures;
mod load;
mod parts;
mod process;
mod subject;
mod table;

use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use anyhow::bail;
use futures::FutureExt as _;

use subject::{Kind, Subject};
use table::Table;

/// Longer than any part takes on a machine that is merely slow.
const LONGEST_PART: Duration = Duration::from_secs(240);

// One thread: the load is to leave as much of the processors to the servers as it can.
#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let only = std::env::var("KEELSON_BENCH").unwrap_or_default();
    let only: Vec<&str> = only.split(',').filter(|part| !part.is_empty()).collect();
    if let Some(unknown) = only.iter().find(|part| !figures::parts().contains(part)) {
        bail!("no part is called {unknown}; there are {}", figures::parts().join(", "));
    }
    let wanted = |part: &str| only.is_empty() || only.contains(&part);
    process::raise_open_files();
    let mut table = Table::default();
    let keelson = Subject::keelson()?;
    let upstream = Subject::upstream(&keelson);
    if upstream.is_none() {
        table.note("Upstream's column is empty: no kube-apiserver in KEELSON_UPSTREAM or on the path.".to_owned());
    }
    let started = Instant::now();
    let interrupted = tokio::signal::ctrl_c();
    tokio::pin!(interrupted);
    'parts: for part in figures::parts().into_iter().filter(|part| wanted(part)) {
        for subject in [Some(&keelson), upstream.as_ref()].into_iter().flatten() {
            println!("# {part}: {}", subject.kind.name());
            let begun = Instant::now();
            let outcome = tokio::select! {
                outcome = measure(part, subject, &mut table) => outcome,
                _ = &mut interrupted => {
                    table.note(format!("Interrupted in {part}."));
                    break 'parts;
                }
            };
            if let Err(error) = outcome {
                table.note(format!("{part}, {}: {error:#}", subject.kind.name()));
            }
            println!("  ({:.0} s)", begun.elapsed().as_secs_f64());
        }
    }
    let column = if upstream.is_some() { Kind::Upstream.name() } else { "upstream (absent)" };
    table.print(wanted, column);
    println!("All of it took {:.0} s.", started.elapsed().as_secs_f64());
    Ok(())
}

/// Runs one part for one subject; whatever becomes of it, the next one can run.
async fn measure(part: &str, subject: &Subject, table: &mut Table) -> anyhow::Result<()> {
    let run = AssertUnwindSafe(parts::run(part, subject, table)).catch_unwind();
    match tokio::time::timeout(LONGEST_PART, run).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(_)) => bail!("the benchmark panicked"),
        Err(_) => bail!("given up after {} s", LONGEST_PART.as_secs()),
    }
}
