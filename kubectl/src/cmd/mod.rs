//! Every command, in one list.

mod api_resources;
mod apply;
mod create;
mod delete;
mod describe;
mod edit;
mod exec;
mod explain;
mod get;
mod label;
mod logs;
mod node;
mod ops;
mod patch;
mod rollout;
mod scale;
mod set;
mod version;
mod wait;

use crate::command::Command;

/// The tree of commands.
pub static ROOT: Command = Command::group(
    "kubectl",
    "kubectl controls the Kubernetes cluster manager.\n\n Find more information at: https://kubernetes.io/docs/reference/kubectl/",
    COMMANDS,
);

const COMMANDS: &[Command] = &[
    label::ANNOTATE,
    api_resources::COMMAND,
    api_resources::VERSIONS,
    apply::COMMAND,
    exec::ATTACH,
    node::CORDON,
    create::COMMAND,
    delete::COMMAND,
    describe::COMMAND,
    node::DRAIN,
    edit::COMMAND,
    exec::COMMAND,
    explain::COMMAND,
    get::COMMAND,
    label::COMMAND,
    logs::COMMAND,
    version::OPTIONS,
    patch::COMMAND,
    patch::REPLACE,
    rollout::COMMAND,
    scale::COMMAND,
    set::COMMAND,
    node::TAINT,
    node::UNCORDON,
    version::COMMAND,
    wait::COMMAND,
];
