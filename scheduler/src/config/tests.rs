use std::sync::Arc;

use super::*;
use crate::framework::profile::Profile;
use crate::plugins::{Handle, NoListers};

fn profiles(text: &str) -> Result<Vec<Arc<Profile>>, Error> {
    let config = Config::from_yaml(&format!(
        "apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\n{text}"
    ))?;
    build_profiles(&config, &Handle::new(Arc::new(NoListers), None))
}

fn scores(profile: &Profile) -> Vec<(&str, i64)> {
    profile.score.iter().map(|(name, weight, _)| (*name, *weight)).collect()
}

#[test]
fn flags_are_told() {
    let config = Config::from_args(["--leader-elect=false", "--feature-gates=ComponentStatusz=false"]).unwrap();
    let pages = config.serving.unwrap().zpages;
    let clock = component_base::clock::RealClock::shared();
    let served: Vec<_> = pages.pages("kube-scheduler", clock, ["/healthz"]).served().collect();
    assert_eq!(served, [component_base::zpages::FLAGZ]);
    let told = pages.flags.unwrap();
    assert_eq!(
        (told["leader-elect"].as_str(), told["requestheader-group-headers"].as_str()),
        ("false", "[x-remote-group]")
    );
}

#[test]
fn the_default_profile() {
    let profile = &profiles("").unwrap()[0];
    assert_eq!(profile.scheduler_name, "default-scheduler");
    assert_eq!(
        scores(profile),
        [
            ("TaintToleration", 3),
            ("NodeAffinity", 2),
            ("NodeResourcesFit", 1),
            ("PodTopologySpread", 2),
            ("InterPodAffinity", 2),
            ("NodeResourcesBalancedAllocation", 1),
            ("ImageLocality", 1),
        ]
    );
    let filters: Vec<&str> = profile.filter.iter().map(|(name, _)| *name).collect();
    assert_eq!(
        filters,
        [
            "NodeUnschedulable",
            "NodeName",
            "TaintToleration",
            "NodeAffinity",
            "NodePorts",
            "NodeResourcesFit",
            "PodTopologySpread",
            "InterPodAffinity"
        ]
    );
}

#[test]
fn sets_are_merged_as_upstream_does() {
    let all = profiles(
        "
profiles:
- schedulerName: a
  plugins:
    score:
      disabled: [{name: ImageLocality}]
      enabled: [{name: NodeResourcesFit, weight: 7}]
    multiPoint:
      disabled: [{name: NodePorts}, {name: VolumeBinding}]
- schedulerName: b
  plugins:
    score: {disabled: [{name: '*'}], enabled: [{name: TaintToleration}]}
  pluginConfig:
  - {name: NodeResourcesFit, args: {scoringStrategy: {type: MostAllocated}}}
  - {name: VolumeBinding, args: {bindTimeoutSeconds: 5}}
",
    )
    .unwrap();
    assert_eq!(scores(&all[0])[0], ("NodeResourcesFit", 7));
    assert!(!scores(&all[0]).iter().any(|(name, _)| *name == "ImageLocality"));
    assert!(!all[0].filter.iter().any(|(name, _)| *name == "NodePorts"));
    assert_eq!(scores(&all[1]), [("TaintToleration", 1)]);
    assert_eq!(all[1].filter.len(), 8);
}

#[test]
fn nonsense_is_refused() {
    for text in [
        "percentageOfNodesToScore: 101",
        "podInitialBackoffSeconds: 20",
        "profiles: [{schedulerName: a}, {schedulerName: a}]",
        "profiles: [{plugins: {filter: {enabled: [{name: Nope}]}}}]",
        "profiles: [{plugins: {nope: {}}}]",
        "profiles: [{plugins: {queueSort: {disabled: [{name: '*'}]}}}]",
        "profiles: [{pluginConfig: [{name: NodeResourcesFit, args: {scoringStrategy: {type: X}}}]}]",
        "profiles: [{pluginConfig: [{name: NodeAffinity}, {name: NodeAffinity}]}]",
        "extenders: [{urlPrefix: 'http://x'}]",
        "percentageOfNodesToScor: 5",
        "leaderElection: {leaderElects: true}",
    ] {
        assert!(profiles(text).is_err(), "{text}");
    }
    assert!(Config::from_yaml("apiVersion: v1\nkind: Pod\n").is_err());
    assert!(Config::from_args(["--leader-elect-resource-lock=configmaps"]).is_err());
    assert!(Config::from_args(["--no-such-flag"]).is_err());
}

#[test]
fn flags_as_kubeadm_writes_them() {
    let config = Config::from_args([
        "--authentication-kubeconfig=/etc/kubernetes/scheduler.conf",
        "--authorization-kubeconfig=/etc/kubernetes/scheduler.conf",
        "--bind-address=127.0.0.1",
        "--kubeconfig=/etc/kubernetes/scheduler.conf",
        "--leader-elect=true",
    ])
    .unwrap();
    assert_eq!(config.serving.unwrap().bind_address.to_string(), "127.0.0.1");
    assert!(config.leader_election.is_some() && config.client_rate.is_none());
    let config = Config::from_args(["--leader-elect=false", "--secure-port=0", "--kube-api-qps=10"]).unwrap();
    assert!(config.leader_election.is_none() && config.serving.is_none());
    assert_eq!(config.client_rate, Some((10.0, 100)));
}
