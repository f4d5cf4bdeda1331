//! Every command, in one list.

mod api_resources;
mod apply;
mod create;
mod delete;
mod describe;
mod edit;
mod exec;
mod get;
mod logs;
mod ops;
mod rollout;
mod scale;
mod version;

use crate::command::Command;

/// The tree of commands.
pub static ROOT: Command = Command::group(
    "kubectl",
    "kubectl controls the Kubernetes cluster manager.\n\n Find more information at: https://kubernetes.io/docs/reference/kubectl/",
    COMMANDS,
);

const COMMANDS: &[Command] = &[
    api_resources::COMMAND,
    api_resources::VERSIONS,
    apply::COMMAND,
    exec::ATTACH,
    create::COMMAND,
    delete::COMMAND,
    describe::COMMAND,
    edit::COMMAND,
    exec::COMMAND,
    get::COMMAND,
    logs::COMMAND,
    version::OPTIONS,
    rollout::COMMAND,
    scale::COMMAND,
    version::COMMAND,
];
