//! `make bench`: the performance table. Each load runs against Keelson and, where upstream's programs are on the
//! machine (in the folder that `KEELSON_UPSTREAM` names, or on the path), against upstream in the same run; the
//! ratios are what counts. Nothing here is a test: a figure is printed, never asserted.
//!
//! `KEELSON_BENCH=pods,watch` runs only those parts; the parts are listed in `figures`.

mod fan_out;
mod figures;
mod load;
mod parts;
mod process;
mod subject;
mod table;

use anyhow::bail;

use subject::{Kind, Subject};
use table::Table;

// One thread: the load is to leave as much of the processors to the servers as it can.
#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let only = std::env::var("KEELSON_BENCH").unwrap_or_default();
    let only: Vec<&str> = only.split(',').filter(|part| !part.is_empty()).collect();
    if let Some(unknown) = only.iter().find(|part| !figures::parts().contains(part)) {
        bail!("no part is called {unknown}; there are {}", figures::parts().join(", "));
    }
    let wanted = |part: &str| only.is_empty() || only.contains(&part);
    let mut table = Table::default();
    let keelson = Subject::keelson()?;
    let upstream = Subject::upstream(&keelson);
    if upstream.is_none() {
        table.note("Upstream's column is empty: no kube-apiserver in KEELSON_UPSTREAM or on the path.".to_owned());
    }
    for part in figures::parts().into_iter().filter(|part| wanted(part)) {
        for subject in [Some(&keelson), upstream.as_ref()].into_iter().flatten() {
            println!("# {part}: {}", subject.kind.name());
            if let Err(error) = parts::run(part, subject, &mut table).await {
                table.note(format!("{part}, {}: {error:#}", subject.kind.name()));
            }
        }
    }
    let column = if upstream.is_some() { Kind::Upstream.name() } else { "upstream (absent)" };
    table.print(wanted, column);
    Ok(())
}
