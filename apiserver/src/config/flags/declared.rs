//! Every flag of kube-apiserver, with its default. What is accepted for upstream's sake and does nothing here comes first.

use std::time::Duration;

use component_base::flags::{FlagSet, Kind};

use super::super::Config;
use super::audit;

/// Strings that parse without effect.
const ACCEPTED_STRINGS: &[&str] = &[
    "allow-metric-labels-manifest",
    "authorization-policy-file",
    "debug-socket-path",
    "egress-selector-config-file",
    "peer-ca-file",
    "service-account-signing-endpoint",
    "show-hidden-metrics-for-version",
    "storage-media-type=application/vnd.kubernetes.protobuf",
    "tls-min-version",
    "tracing-config-file",
];

/// Strings that upstream has no more.
const FORMER_STRINGS: &[&str] = &["cloud-config", "cloud-provider", "service-account-api-audiences"];

const ACCEPTED_BOOLS: &[&str] = &[
    "contention-profiling",
    "disable-http2-serving",
    "emulation-forward-compatible",
    "enable-logs-handler",
    "permit-address-sharing",
    "permit-port-sharing",
    "profiling=true",
    "runtime-config-emulation-forward-compatible",
    "send-retry-after-while-not-ready-once",
    "service-account-lookup=true",
    "watch-cache=true",
];

const ACCEPTED_DURATIONS: &[&str] = &[
    "coordinated-leadership-lease-duration=15s",
    "coordinated-leadership-renew-deadline=10s",
    "coordinated-leadership-retry-period=2s",
    "etcd-count-metric-poll-period=1m0s",
    "etcd-db-metric-poll-interval=30s",
    "etcd-healthcheck-timeout=2s",
    "etcd-readycheck-timeout=2s",
    "livez-grace-period",
    "storage-initialization-timeout=1m0s",
];

const ACCEPTED_LISTS: &[&str] = &[
    "admission-control",
    "allow-metric-labels",
    "cors-allowed-origins",
    "disabled-metrics",
    "etcd-servers-overrides",
    "oidc-signing-algs=RS256",
    "strict-transport-security-directives",
    "tls-cipher-suites",
    "tls-curve-preferences",
    "watch-cache-sizes=events#0,events.events.k8s.io#0",
];

const ACCEPTED_INTS: &[&str] = &[
    "apiserver-count=1",
    "default-watch-cache-size=100",
    "kubelet-port=10250",
    "kubelet-read-only-port=10255",
    "delete-collection-workers=1",
    "kubernetes-service-node-port",
    "lease-reuse-duration-seconds=60",
    "max-connection-bytes-per-sec",
];

/// Every flag, with upstream's defaults.
pub fn flag_set() -> FlagSet {
    let d = Config::default();
    let mut f = FlagSet::new(
        "kube-apiserver",
        "The Kubernetes API server validates and configures data for the api objects which include pods, services, replicationcontrollers, and others. The API Server services REST operations and provides the frontend to the cluster's shared state through which all other components interact.",
    );
    f.string("bind-address", "0.0.0.0", "The IP address on which to listen for the --secure-port port.")
        .int("secure-port", 6443, "The port on which to serve HTTPS with authentication and authorization.")
        .string("advertise-address", "", "The IP address on which to advertise the apiserver to members of the cluster.")
        .string("peer-advertise-ip", "", "If set, the IP address at which other API servers reach this one.")
        .string("peer-advertise-port", "", "If set, the port at which other API servers reach this one.")
        .string("external-hostname", "", "The hostname to use when generating externalized URLs for this master.")
        .string("tls-cert-file", "", "File containing the default x509 Certificate for HTTPS.")
        .string("tls-private-key-file", "", "File containing the default x509 private key matching --tls-cert-file.")
        .string("cert-dir", "/var/run/kubernetes", "The directory where the TLS certs are located.")
        .string("client-ca-file", "", "Requests with a client certificate signed by one of these authorities are authenticated with its CommonName.")
        .string("token-auth-file", "", "The file with static tokens: CSV of token,user,uid,\"groups\".")
        .bool("anonymous-auth", true, "Enables anonymous requests to the secure port of the API server.")
        .strings("authorization-mode", &["AlwaysAllow"], "Ordered list of plug-ins to do authorization on secure port.")
        .string("admission-control-config-file", "", "File with admission control configuration.")
        .string("authentication-config", "", "File with Authentication Configuration to configure the JWT Token authenticator or the anonymous authenticator.")
        .string("oidc-issuer-url", "", "The URL of the OpenID issuer, only HTTPS scheme will be accepted. If set, it will be used to verify the OIDC JSON Web Token (JWT).")
        .string("oidc-client-id", "", "The client ID for the OpenID Connect client, must be set if oidc-issuer-url is set.")
        .string("oidc-ca-file", "", "If set, the OpenID server's certificate will be verified by one of the authorities in the oidc-ca-file, otherwise the host's root CA set will be used.")
        .string("oidc-username-claim", "sub", "The OpenID claim to use as the user name.")
        .string("oidc-username-prefix", "", "If provided, all usernames will be prefixed with this value. If not provided, username claims other than 'email' are prefixed by the issuer URL to avoid clashes. To skip any prefixing, provide the value '-'.")
        .string("oidc-groups-claim", "", "If provided, the name of a custom OpenID Connect claim for specifying user groups.")
        .string("oidc-groups-prefix", "", "If provided, all groups will be prefixed with this value to prevent conflicts with other authentication strategies.")
        .string("authorization-config", "", "File with Authorization Configuration to configure the authorizer chain. Requires that --authorization-mode and --authorization-webhook-* are not set.")
        .string("authorization-webhook-config-file", "", "File with webhook configuration in kubeconfig format, used with --authorization-mode=Webhook.")
        .string("authorization-webhook-version", "v1beta1", "The API version of the authorization.k8s.io SubjectAccessReview to send to and expect from the webhook.")
        .duration("authorization-webhook-cache-authorized-ttl", Duration::from_secs(300), "The duration to cache 'authorized' responses from the webhook authorizer.")
        .duration("authorization-webhook-cache-unauthorized-ttl", Duration::from_secs(30), "The duration to cache 'unauthorized' responses from the webhook authorizer.")
        .string("storage-backend", "", "The storage backend for persistence: 'etcd3', or 'embedded' with --data-dir.")
        .string("data-dir", "", "Directory of the embedded store (Keelson only).")
        .strings("etcd-servers", &[], "List of etcd servers to connect with (scheme://ip:port), comma separated.")
        .string("etcd-prefix", &d.etcd_prefix, "The prefix to prepend to all resource paths in etcd.")
        .string("etcd-cafile", "", "SSL Certificate Authority file used to secure etcd communication.")
        .string("etcd-certfile", "", "SSL certification file used to secure etcd communication.")
        .string("etcd-keyfile", "", "SSL key file used to secure etcd communication.")
        .duration("etcd-compaction-interval", d.compaction_interval, "The interval of compaction requests. If 0, the compaction request from apiserver is disabled.")
        .duration("event-ttl", d.event_ttl, "Amount of time to retain events.")
        .array("tls-sni-cert-key", "A pair of x509 certificate and private key file paths, optionally suffixed with a list of domain patterns which are fully qualified domain names, possibly with prefixed wildcard segments. Repeatable; examples: \"example.crt,example.key\" or \"foo.crt,foo.key:*.foo.com,foo.com\".")
        .string("authentication-token-webhook-config-file", "", "File with webhook configuration for token authentication in kubeconfig format. The API server will query the remote service to determine authentication for bearer tokens.")
        .string("authentication-token-webhook-version", "v1beta1", "The API version of the authentication.k8s.io TokenReview to send to and expect from the webhook.")
        .duration("authentication-token-webhook-cache-ttl", Duration::from_secs(120), "The duration to cache responses from the webhook token authenticator.")
        .string("encryption-provider-config", "", "The file containing configuration for encryption providers to be used for storing secrets in etcd")
        .bool("encryption-provider-config-automatic-reload", false, "Determines if the file set by --encryption-provider-config should be automatically reloaded if the disk contents change. Setting this to true disables the ability to uniquely identify distinct KMS plugins via the API server healthz endpoints.")
        .map("runtime-config", "Key=value pairs that enable or disable built-in APIs: <group>/<version>=true|false, api/all, api/ga, api/beta, api/alpha.")
        .strings("enable-admission-plugins", &[], "Admission plugins that should be enabled in addition to default enabled ones.")
        .strings("disable-admission-plugins", &[], "Admission plugins that should be disabled although they are in the default enabled plugins list.")
        .array("service-account-issuer", "Identifier of the service account token issuer. Repeatable: the first one issues.")
        .string("service-account-signing-key-file", "", "Path to the private key that signs issued ID tokens.")
        .array("service-account-key-file", "File with keys that verify ServiceAccount tokens. Repeatable.")
        .string("service-account-jwks-uri", "", "Overrides the URI for the JSON Web Key Set in the discovery document.")
        .duration("service-account-max-token-expiration", Duration::ZERO, "The maximum validity duration of a token created by the service account token issuer.")
        .bool("service-account-extend-token-expiration", true, "Turns on projected service account expiration extension during token generation.")
        .strings("api-audiences", &[], "Identifiers of the API; the issuers when empty.")
        .string("service-cluster-ip-range", "", "A CIDR notation IP range from which to assign service cluster IPs; two for dual stack.")
        .string("service-node-port-range", "30000-32767", "A port range to reserve for services with NodePort visibility, inclusive.")
        .string("endpoint-reconciler-type", "lease", "Use an endpoint reconciler (master-count, lease, none).")
        .string("kubelet-certificate-authority", "", "Path to a cert file for the certificate authority of kubelets.")
        .string("kubelet-client-certificate", "", "Path to a client cert file for TLS to kubelets.")
        .string("kubelet-client-key", "", "Path to a client key file for TLS to kubelets.")
        .strings("kubelet-preferred-address-types", &["Hostname", "InternalDNS", "InternalIP", "ExternalDNS", "ExternalIP"], "List of the preferred NodeAddressTypes to use for kubelet connections.")
        .duration("kubelet-timeout", d.kubelet.timeout, "Timeout for kubelet operations.")
        .string("requestheader-client-ca-file", "", "Root certificate bundle to use to verify client certificates on incoming requests before trusting usernames in headers.")
        .strings("requestheader-allowed-names", &[], "List of client certificate common names to allow to provide usernames in headers. If empty, any client certificate validated by the authorities is allowed.")
        .strings("requestheader-username-headers", &[], "List of request headers to inspect for usernames. X-Remote-User is common.")
        .strings("requestheader-uid-headers", &[], "List of request headers to inspect for UIDs. X-Remote-Uid is suggested.")
        .strings("requestheader-group-headers", &[], "List of request headers to inspect for groups. X-Remote-Group is suggested.")
        .strings("requestheader-extra-headers-prefix", &[], "List of request header prefixes to inspect. X-Remote-Extra- is suggested.")
        .string("proxy-client-cert-file", "", "Client certificate used to prove the identity of the aggregator when it must call out during a request.")
        .string("proxy-client-key-file", "", "Private key for the client certificate of the aggregator.")
        .bool("enable-aggregator-routing", false, "Turns on aggregator routing requests to endpoints IP rather than cluster IP.")
        .bool("aggregator-reject-forwarding-redirect", true, "Aggregator rejects forwarding redirect response back to client.")
        .bool("allow-privileged", false, "If true, allow privileged containers.")
        .duration("request-timeout", d.request_timeout, "How long a handler may keep a request open before timing it out.")
        .int("min-request-timeout", 1800, "Minimum seconds a watch must be kept open before timing it out.")
        .int("max-requests-inflight", 400, "With --max-mutating-requests-inflight, the server's concurrency limit.")
        .int("max-mutating-requests-inflight", 200, "With --max-requests-inflight, the server's concurrency limit.")
        .bool("enable-bootstrap-token-auth", false, "Enable to allow secrets of type 'bootstrap.kubernetes.io/token' in the 'kube-system' namespace to be used for TLS bootstrapping authentication.")
        .bool("enable-priority-and-fairness", true, "If true, replaces the max-in-flight handler with an enhanced one that queues and dispatches with priority and fairness.")
        .int("default-not-ready-toleration-seconds", 300, "tolerationSeconds of the toleration for notReady:NoExecute that every pod gets.")
        .int("default-unreachable-toleration-seconds", 300, "tolerationSeconds of the toleration for unreachable:NoExecute that every pod gets.")
        .int("http2-max-streams-per-connection", 0, "The limit for the maximum number of streams in an HTTP/2 connection. Zero means the default.")
        .bool("enable-garbage-collector", true, "Enables the generic garbage collector.")
        .duration("shutdown-delay-duration", Duration::ZERO, "Time to delay the termination. During that time the server keeps serving requests normally. The endpoints /healthz and /livez will return success, but /readyz immediately returns failure.")
        .duration("shutdown-watch-termination-grace-period", Duration::ZERO, "If set, the time within which active watch requests end, spread, after the server stopped accepting requests.")
        .bool("shutdown-send-retry-after", false, "If true the HTTP Server will continue listening until all non long running request(s) in flight have been drained, during this window all incoming requests will be rejected with a status code 429 and a 'Retry-After' response header.")
        .float("goaway-chance", 0.0, "To prevent HTTP/2 clients from getting stuck on a single apiserver, randomly close a connection (GOAWAY). Min is 0 (off), Max is .02 (1/50 requests); .001 (1/1000) is a recommended starting point.");
    audit::add(&mut f);
    f.accepted(Kind::String, ACCEPTED_STRINGS)
        .former(Kind::String, FORMER_STRINGS)
        .accepted(Kind::Bool, ACCEPTED_BOOLS)
        .accepted(Kind::Duration, ACCEPTED_DURATIONS)
        .accepted(Kind::Strings, ACCEPTED_LISTS)
        .accepted(Kind::Int, ACCEPTED_INTS)
        .accepted(Kind::Map, &["oidc-required-claim"]);
    f.common();
    f
}

/// Whether a flag is accepted for the sake of those who set it, and does nothing here.
pub(super) fn has_no_effect(name: &str) -> bool {
    [ACCEPTED_STRINGS, ACCEPTED_BOOLS, ACCEPTED_DURATIONS, ACCEPTED_LISTS, ACCEPTED_INTS]
        .iter()
        .flat_map(|list| list.iter())
        .any(|flag| flag.split('=').next() == Some(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_without_effect_are_known_by_name() {
        assert!(has_no_effect("contention-profiling") && has_no_effect("watch-cache"));
        assert!(!has_no_effect("watch-cache=true") && !has_no_effect("secure-port"));
        let declared = flag_set();
        assert!(["profiling", "apiserver-count", "oidc-signing-algs"].iter().all(|name| declared.contains(name)));
    }
}
