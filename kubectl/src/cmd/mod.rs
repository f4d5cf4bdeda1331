//! Every command, in one list.

mod api_resources;
mod get;

use crate::command::Command;

/// The tree of commands.
pub static ROOT: Command = Command::group(
    "kubectl",
    "kubectl controls the Kubernetes cluster manager.\n\n Find more information at: https://kubernetes.io/docs/reference/kubectl/",
    COMMANDS,
);

const COMMANDS: &[Command] = &[api_resources::COMMAND, api_resources::VERSIONS, get::COMMAND];
