use super::*;

#[test]
fn kind_and_kubeadm_files_are_read() {
    let config = Config::from_yaml(
        r#"
apiVersion: kubeproxy.config.k8s.io/v1alpha1
bindAddress: 0.0.0.0
bindAddressHardFail: false
clientConnection:
  acceptContentTypes: ""
  burst: 0
  contentType: ""
  kubeconfig: /var/lib/kube-proxy/kubeconfig.conf
  qps: 0
clusterCIDR: 10.244.0.0/16,fd00:10:244::/56
configSyncPeriod: 0s
conntrack:
  maxPerCore: 0
  min: null
  tcpBeLiberal: false
  tcpCloseWaitTimeout: 0s
  tcpEstablishedTimeout: null
  udpStreamTimeout: 0s
  udpTimeout: 0s
detectLocal:
  bridgeInterface: ""
  interfaceNamePrefix: ""
detectLocalMode: ""
enableProfiling: false
healthzBindAddress: ""
hostnameOverride: "Kind-Worker"
iptables:
  localhostNodePorts: null
  masqueradeAll: false
  masqueradeBit: null
  minSyncPeriod: 1s
  syncPeriod: 0s
ipvs:
  excludeCIDRs: null
  minSyncPeriod: 0s
  scheduler: ""
  strictARP: false
  syncPeriod: 0s
  tcpFinTimeout: 0s
  tcpTimeout: 0s
  udpTimeout: 0s
kind: KubeProxyConfiguration
logging:
  flushFrequency: 0
  verbosity: 0
metricsBindAddress: "0.0.0.0"
mode: iptables
nodePortAddresses: null
oomScoreAdj: null
portRange: ""
showHiddenMetricsForVersion: ""
winkernel:
  enableDSR: false
"#,
    )
    .expect("reads");
    assert_eq!(config.conntrack.max_per_core, 0);
    assert_eq!(config.conntrack.min, 128 * 1024);
    assert_eq!(config.conntrack.tcp_close_wait_timeout, Duration::ZERO);
    assert_eq!(config.conntrack.tcp_established_timeout, Duration::from_secs(86_400));
    assert_eq!(config.cluster_cidrs.len(), 2);
    assert_eq!(config.hostname_override.as_deref(), Some("kind-worker"));
    assert_eq!(config.sync_period, Duration::from_secs(30));
    assert_eq!(config.metrics_bind_address.unwrap().to_string(), "0.0.0.0:10249");
    assert_eq!(config.healthz_bind_address.unwrap().to_string(), "0.0.0.0:10256");
    assert_eq!(config.client_rate, (5.0, 10));
}

#[test]
fn flags_stand_in_for_a_file() {
    let config = Config::from_args([
        "--kubeconfig=/k",
        "--hostname-override=N1",
        "--cluster-cidr=10.244.0.0/16",
        "--nodeport-addresses=primary",
        "--iptables-min-sync-period=500ms",
        "--metrics-bind-address=",
        "--healthz-port=0",
        "--masquerade-all",
    ])
    .expect("parses");
    assert_eq!(config.hostname_override.as_deref(), Some("n1"));
    assert_eq!(config.min_sync_period, Duration::from_millis(500));
    assert!(config.metrics_bind_address.is_none() && config.healthz_bind_address.is_none());
    assert!(config.node_port_addresses_primary && config.masquerade_all);
}

#[test]
fn nonsense_is_refused() {
    for args in [
        vec!["--iptables-masquerade-bit=32"],
        vec!["--cluster-cidr=10.0.0"],
        vec!["--detect-local-mode=x"],
        vec!["--iptables-sync-period=1s", "--iptables-min-sync-period=2s"],
        vec!["--oom-score-adj=2000"],
        vec!["--proxy-mode=userspace"],
        vec!["--no-such-flag"],
        vec!["--detect-local-mode=BridgeInterface"],
    ] {
        assert!(Config::from_args(args.clone()).is_err(), "{args:?}");
    }
    assert!(Config::from_yaml("apiVersion: v1\nkind: Pod\n").is_err());
}

#[test]
fn flags_are_told() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let text = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\nfeatureGates:\n  ComponentStatusz: false\n";
    std::fs::write(file.path(), text).unwrap();
    let config = Config::from_args([format!("--config={}", file.path().display())]).unwrap();
    let clock = component_base::clock::RealClock::shared();
    let served: Vec<_> = config.zpages.pages("kube-proxy", clock, ["/proxyMode"]).served().collect();
    assert_eq!(served, [component_base::zpages::FLAGZ]);
    assert_eq!(config.zpages.flags.unwrap()["ipvs-sync-period"], "30s");
}
