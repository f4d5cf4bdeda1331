//! The kubectl program.

use std::process::ExitCode;

fn main() -> ExitCode {
    kubectl::main(std::env::args().skip(1).collect())
}
