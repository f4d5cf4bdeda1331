//! Every scenario, in the order in which they run. A file each for samples and workloads, cluster DNS, kubectl,
//! streams, other clients, operators, bad input, quotas, trust bundles, certificates of pods,
//! bootstrap tokens, certificates, and failures.

mod bad_input;
mod bootstrap;
mod certificates;
mod clients;
mod dns;
mod failures;
mod kubectl;
mod operators;
mod pod_certificates;
mod quota;
mod samples;
mod streams;
mod trust;

use crate::runner::{Needs, Scenario};

/// Writes a scenario's line: its function becomes a boxed future.
macro_rules! scenario {
    ($name:literal, $needs:expr, $run:path) => {
        Scenario { name: $name, needs: $needs, run: |cluster| Box::pin($run(cluster)) }
    };
}

/// The table of contents.
pub const ALL: &[Scenario] = &[
    scenario!("samples/applied-and-running", Needs::Api, samples::applied_and_running),
    scenario!("samples/every-replica-answers-the-host", Needs::Machine, samples::every_replica_answers_the_host),
    scenario!("samples/every-replica-answers-a-pod", Needs::Api, samples::every_replica_answers_a_pod),
    scenario!("samples/a-deleted-replica-comes-back", Needs::Api, samples::a_deleted_replica_comes_back),
    scenario!("samples/edit-to-5-0-3", Needs::Api, samples::edit_replicas),
    scenario!("samples/a-new-image-rolls", Needs::Api, samples::a_new_image_rolls),
    scenario!("samples/a-daemon-set-goes-back", Needs::Api, samples::a_daemon_set_goes_back),
    scenario!("dns/names-of-services-and-pods", Needs::Api, dns::names_of_services_and_pods),
    scenario!("dns/names-that-do-not-exist", Needs::Api, dns::names_that_do_not_exist),
    scenario!("dns/resolver-files", Needs::Api, dns::resolver_files),
    scenario!("kubectl/output-formats", Needs::Api, kubectl::output_formats),
    scenario!("kubectl/logs-and-exec", Needs::Api, kubectl::logs_and_exec),
    scenario!("kubectl/describe-explain-and-discovery", Needs::Api, kubectl::describe_explain_and_discovery),
    scenario!("kubectl/create-scale-delete", Needs::Api, kubectl::create_scale_delete),
    scenario!("kubectl/removed-versions-name-their-successor", Needs::Api, kubectl::removed_version),
    scenario!("streams/terminal", Needs::Api, streams::terminal),
    scenario!("streams/pipes", Needs::Api, streams::pipes),
    scenario!("streams/attach-and-run", Needs::Api, streams::attach_and_run),
    scenario!("streams/logs-and-copies", Needs::Api, streams::logs_and_copies),
    scenario!("streams/port-forward", Needs::Api, streams::port_forward),
    scenario!("streams/debug", Needs::Api, streams::debug),
    scenario!("streams/spdy-exec", Needs::Api, streams::spdy_exec),
    scenario!("streams/spdy-port-forward", Needs::Api, streams::spdy_port_forward),
    scenario!("clients/kube-rs", Needs::Api, clients::kube_rs),
    scenario!("clients/python", Needs::Api, clients::python),
    scenario!("clients/javascript", Needs::Api, clients::javascript),
    scenario!("operators/kube-rs", Needs::Api, operators::kube_rs),
    scenario!("operators/kopf", Needs::Api, operators::kopf),
    scenario!("bad-input/answers", Needs::Api, bad_input::answers),
    scenario!("quota/extended-resources", Needs::Api, quota::extended_resources_are_counted),
    scenario!("pod-certificates/reach-pods", Needs::Extras, pod_certificates::certificates_reach_pods),
    scenario!("trust/bundles-reach-pods", Needs::Extras, trust::bundles_reach_pods),
    scenario!("bootstrap/tokens-sign-cluster-info", Needs::Extras, bootstrap::tokens_sign_cluster_info),
    scenario!(
        "certificates/a-kubelet-rotates",
        Needs::Machine,
        certificates::a_kubelet_rotates_while_everything_goes_on
    ),
    scenario!("failures/node-processes-disturb-no-pod", Needs::Machine, failures::node_processes_disturb_no_pod),
    scenario!("failures/any-process-killed-mid-rollout", Needs::Machine, failures::any_process_killed_mid_rollout),
];
