//! Every command, in one list.

mod api_resources;
mod apply;
mod auth;
mod completion;
mod config;
mod convert;
mod cp;
mod create;
mod debug;
mod delete;
mod describe;
mod diff;
mod edit;
mod events;
mod exec;
mod explain;
mod expose;
mod get;
mod kustomize;
mod label;
mod logs;
mod node;
mod ops;
mod patch;
mod plugin;
mod port_forward;
mod proxy;
mod rollout;
mod run;
mod scale;
mod set;
mod top;
mod version;
mod wait;

use crate::command::Command;
pub use completion::complete;
pub use plugin::run as run_plugin;

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
    auth::COMMAND,
    expose::AUTOSCALE,
    auth::CERTIFICATE,
    auth::CLUSTER_INFO,
    completion::COMMAND,
    config::COMMAND,
    node::CORDON,
    convert::COMMAND,
    cp::COMMAND,
    create::COMMAND,
    debug::COMMAND,
    delete::COMMAND,
    describe::COMMAND,
    diff::COMMAND,
    node::DRAIN,
    edit::COMMAND,
    events::COMMAND,
    exec::COMMAND,
    explain::COMMAND,
    expose::COMMAND,
    get::COMMAND,
    kustomize::COMMAND,
    label::COMMAND,
    logs::COMMAND,
    version::OPTIONS,
    patch::COMMAND,
    plugin::COMMAND,
    port_forward::COMMAND,
    proxy::COMMAND,
    patch::REPLACE,
    rollout::COMMAND,
    run::COMMAND,
    scale::COMMAND,
    set::COMMAND,
    node::TAINT,
    top::COMMAND,
    node::UNCORDON,
    version::COMMAND,
    wait::COMMAND,
];
