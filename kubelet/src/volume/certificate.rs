//! Certificates of projected volumes (KEP-4317): a key is made here, the cluster is asked for a certificate that says
//! which pod holds it, and both are renewed when the signer says so. Nothing is kept over a restart.
//!
//! A volume that is made or brought up to date takes one step; what becomes of a request is followed, so that the next
//! step comes as soon as there is one to take. Upstream: `pkg/kubelet/podcertificate`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use apimachinery::gotext::quote;
use component_base::clock::SharedClock;
use component_base::{pki, tls};
use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1beta1::{PodCertificateRequest, PodCertificateRequestSpec};
use k8s_openapi::api::core::v1::{Pod, PodCertificateProjection};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use parking_lot::Mutex;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use super::Error;
use crate::api::{Api, Events, pod_reference};
use crate::pod::PodExt;

/// A request that was made this long ago (and somewhat more, so that not all are given up at once) and is not among
/// those that are followed was deleted.
const DELETED_AFTER: Duration = Duration::from_secs(600);
/// How long after it should have been renewed a certificate is overdue.
const OVERDUE_AFTER: Duration = Duration::from_secs(600);
/// Renewals are put off by up to this much: they must not all come at once.
const JITTER: Duration = Duration::from_secs(300);

/// A key and the certificates that go with it, PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bundle {
    pub key: String,
    pub chain: String,
}

/// One source of one volume of a pod.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    uid: String,
    volume: String,
    source: usize,
}

/// A request that has not come to its end.
#[derive(Clone, Debug)]
struct Request {
    key: String,
    name: String,
    abandon: Timestamp,
}

#[derive(Clone, Debug)]
struct Issued {
    bundle: Bundle,
    refresh: Timestamp,
    not_after: Timestamp,
    /// For the next certificate.
    next: Option<Request>,
    told_overdue: bool,
    told_expired: bool,
}

#[derive(Clone, Debug)]
enum State {
    /// The first certificate was asked for.
    Waiting(Request),
    Issued(Box<Issued>),
    /// There will be none: why.
    Refused(String),
}

/// What became of a request.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    /// It is not among those that are followed, or not yet.
    Unknown,
    Pending,
    Issued {
        chain: String,
        refresh: Timestamp,
        not_after: Timestamp,
    },
    /// `Denied` or `Failed`, the reason and the message.
    Refused(&'static str, String, String),
}

/// The certificates of this node's pods.
#[derive(Clone)]
pub struct Certificates {
    clock: SharedClock,
    events: Arc<dyn Events>,
    states: Arc<Mutex<HashMap<Key, State>>>,
}

/// Up to five minutes.
fn jitter() -> Duration {
    JITTER.mul_f64(rand::random::<f64>())
}

impl Outcome {
    /// Pure: what a request says of itself.
    fn of(request: Option<&PodCertificateRequest>) -> Self {
        let Some(request) = request else { return Self::Unknown };
        let Some(status) = &request.status else { return Self::Pending };
        for condition in status.conditions.iter().flatten() {
            let refused = |what| Self::Refused(what, condition.reason.clone(), condition.message.clone());
            match condition.type_.as_str() {
                "Denied" => return refused("Denied"),
                "Failed" => return refused("Failed"),
                "Issued" => {
                    let time = |time: &Option<k8s_openapi::apimachinery::pkg::apis::meta::v1::Time>| {
                        time.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0)
                    };
                    return Self::Issued {
                        chain: clean(status.certificate_chain.as_deref().unwrap_or_default()),
                        refresh: time(&status.begin_refresh_at),
                        not_after: time(&status.not_after),
                    };
                }
                _ => {}
            }
        }
        Self::Pending
    }
}

/// The certificates alone: neither text between them nor headers.
fn clean(chain: &str) -> String {
    let certificates = CertificateDer::pem_slice_iter(chain.as_bytes());
    tls::certificates_to_pem(certificates.filter_map(|certificate| Some(certificate.ok()?.to_vec())))
}

impl Certificates {
    /// None yet.
    pub fn new(clock: SharedClock, events: Arc<dyn Events>) -> Self {
        Self { clock, events, states: Arc::default() }
    }

    /// The bundle of a projection: the one there is, while the next may be on its way.
    ///
    /// # Errors
    /// There is none yet, or there will be none.
    pub async fn get(
        &self,
        api: &dyn Api,
        pod: &Pod,
        place: (&str, usize),
        projection: &PodCertificateProjection,
    ) -> Result<Bundle, Error> {
        let key = Key { uid: pod.uid().to_owned(), volume: place.0.to_owned(), source: place.1 };
        let before = self.states.lock().get(&key).cloned();
        let has_bundle = matches!(before, Some(State::Issued(_)));
        match self.step(api, pod, projection, before).await {
            Ok(state) => {
                self.states.lock().insert(key.clone(), state);
            }
            Err(error) if has_bundle => {
                tracing::warn!(pod = %pod.described(), volume = place.0, %error, "failed to renew a pod's certificate");
            }
            Err(error) => return Err(Error::SetUp(error)),
        }
        match self.states.lock().get(&key) {
            Some(State::Issued(issued)) => Ok(issued.bundle.clone()),
            Some(State::Refused(why)) => Err(Error::SetUp(why.clone())),
            _ => Err(Error::SetUp("credential bundle is not issued yet".to_owned())),
        }
    }

    /// Drops what belongs to a pod that is gone.
    pub fn forget(&self, uid: &str) {
        self.states.lock().retain(|key, _| key.uid != uid);
    }

    /// How many projections of a signer are in which state, for metrics; `signer` tells a pod's projection's.
    pub fn report<'a>(&self, pods: impl Iterator<Item = &'a Pod>) -> HashMap<(String, &'static str), usize> {
        let (now, states) = (self.clock.now(), self.states.lock());
        let mut report = HashMap::new();
        for pod in pods {
            for volume in pod.pod_spec().volumes.iter().flatten() {
                let sources = volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten());
                for (source, part) in sources.enumerate() {
                    let key = Key { uid: pod.uid().to_owned(), volume: volume.name.clone(), source };
                    if let (Some(projection), Some(state)) = (&part.pod_certificate, states.get(&key)) {
                        *report.entry((projection.signer_name.clone(), state.word(now))).or_default() += 1;
                    }
                }
            }
        }
        report
    }

    async fn step(
        &self,
        api: &dyn Api,
        pod: &Pod,
        projection: &PodCertificateProjection,
        state: Option<State>,
    ) -> Result<State, String> {
        let now = self.clock.now();
        match state {
            None => Ok(State::Waiting(self.ask(api, pod, projection).await?)),
            Some(State::Waiting(request)) => {
                let (name, outcome) = outcome(api, pod, &request).await?;
                match outcome {
                    Outcome::Unknown if now > request.abandon => {
                        let again = self.ask(api, pod, projection).await?;
                        tracing::warn!(request = name, "a PodCertificateRequest appears to have been deleted");
                        Ok(State::Waiting(again))
                    }
                    Outcome::Unknown | Outcome::Pending => Ok(State::Waiting(request)),
                    Outcome::Issued { chain, refresh, not_after } => {
                        Ok(State::issued(request.key, chain, refresh, not_after))
                    }
                    Outcome::Refused(what, reason, message) => Ok(self.refused(pod, &name, what, &reason, &message)),
                }
            }
            Some(State::Issued(mut issued)) if now >= issued.refresh => {
                self.tell(pod, &mut issued, now);
                let Some(next) = issued.next.clone() else {
                    issued.next = Some(self.ask(api, pod, projection).await?);
                    return Ok(State::Issued(issued));
                };
                let (name, outcome) = outcome(api, pod, &next).await?;
                match outcome {
                    Outcome::Unknown if now > next.abandon => issued.next = None,
                    Outcome::Unknown | Outcome::Pending => {}
                    Outcome::Issued { chain, refresh, not_after } => {
                        return Ok(State::issued(next.key, chain, refresh, not_after));
                    }
                    Outcome::Refused(what, reason, message) => {
                        return Ok(self.refused(pod, &name, what, &reason, &message));
                    }
                }
                Ok(State::Issued(issued))
            }
            Some(state) => Ok(state),
        }
    }

    fn refused(&self, pod: &Pod, name: &str, what: &'static str, reason: &str, message: &str) -> State {
        let (reason, message) = (quote(reason), quote(message));
        let (was, permanently) = if what == "Denied" { ("was denied", "denied") } else { ("failed", "failed") };
        let text = format!("PodCertificateRequest {name} {was}, reason={reason}, message={message}");
        self.events.event(&pod_reference(pod, None), "Warning", what, &text);
        State::Refused(format!(
            "PodCertificateRequest was permanently {permanently}: reason={reason} message={message}"
        ))
    }

    /// Says once that a certificate should have been renewed long ago, and once that it has ended.
    fn tell(&self, pod: &Pod, issued: &mut Issued, now: Timestamp) {
        let event = |reason: &str, text: &str| self.events.event(&pod_reference(pod, None), "Warning", reason, text);
        if now > issued.refresh + OVERDUE_AFTER && !issued.told_overdue {
            issued.told_overdue = true;
            event("CertificateOverdueForRefresh", "PodCertificate refresh overdue");
        }
        if now > issued.not_after && !issued.told_expired {
            issued.told_expired = true;
            event("CertificateExpired", "PodCertificate expired");
        }
    }

    /// Makes a key and asks for its certificate.
    async fn ask(&self, api: &dyn Api, pod: &Pod, projection: &PodCertificateProjection) -> Result<Request, String> {
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        let spec = pod.pod_spec();
        let account = text(&spec.service_account_name);
        let account_uid = api.service_account_uid(pod.pod_namespace(), &account).await;
        let account_uid = account_uid.map_err(|error| format!("while fetching service account: {error}"))?;
        let node_name = text(&spec.node_name);
        let node = api.node(&node_name).await.map_err(|error| format!("while getting node object: {error}"))?;
        let made = pki::stub_request(&projection.key_type);
        let (key, proof) = made.map_err(|error| format!("while generating keypair: {error}"))?;
        let request = PodCertificateRequest {
            metadata: ObjectMeta {
                namespace: pod.metadata.namespace.clone(),
                generate_name: Some("req-".to_owned()),
                owner_references: Some(vec![OwnerReference {
                    api_version: "v1".to_owned(),
                    kind: "Pod".to_owned(),
                    name: text(&pod.metadata.name),
                    uid: pod.uid().to_owned(),
                    ..OwnerReference::default()
                }]),
                ..ObjectMeta::default()
            },
            spec: PodCertificateRequestSpec {
                signer_name: projection.signer_name.clone(),
                pod_name: text(&pod.metadata.name),
                pod_uid: pod.uid().to_owned(),
                service_account_name: account,
                service_account_uid: account_uid,
                node_name,
                node_uid: text(&node.metadata.uid),
                max_expiration_seconds: projection.max_expiration_seconds,
                stub_pkc_s10_request: ByteString(proof),
                unverified_user_annotations: projection.user_annotations.clone(),
                ..PodCertificateRequestSpec::default()
            },
            status: None,
        };
        let made = api.request_certificate(pod.pod_namespace(), &request).await;
        let made = made.map_err(|error| format!("while creating PodCertificateRequest: {error}"))?;
        let name = made.metadata.name.unwrap_or_default();
        Ok(Request { key, name, abandon: self.clock.now() + DELETED_AFTER + jitter() })
    }
}

/// What became of a request, and its name with its namespace.
async fn outcome(api: &dyn Api, pod: &Pod, request: &Request) -> Result<(String, Outcome), String> {
    let name = format!("{}/{}", pod.pod_namespace(), request.name);
    let found = api.certificate_request(pod.pod_namespace(), &request.name).await;
    let found = found.map_err(|error| format!("while getting PodCertificateRequest {}: {error}", quote(&name)))?;
    Ok((name, Outcome::of(found.as_deref())))
}

impl State {
    fn issued(key: String, chain: String, refresh: Timestamp, not_after: Timestamp) -> Self {
        Self::Issued(Box::new(Issued {
            bundle: Bundle { key, chain },
            refresh: refresh + jitter(),
            not_after,
            next: None,
            told_overdue: false,
            told_expired: false,
        }))
    }

    /// What metrics call it.
    fn word(&self, now: Timestamp) -> &'static str {
        match self {
            Self::Waiting(_) => "not_yet_issued",
            Self::Issued(issued) if now > issued.not_after => "expired",
            Self::Issued(issued) if now > issued.refresh + OVERDUE_AFTER => "overdue_for_refresh",
            Self::Issued(_) => "fresh",
            Self::Refused(why) if why.contains("permanently denied") => "denied",
            Self::Refused(_) => "failed",
        }
    }
}

#[cfg(test)]
mod tests {
    use component_base::clock::FakeClock;
    use k8s_openapi::api::core::v1::ObjectReference;
    use serde_json::{Value, json};

    use super::*;
    use crate::workers::testing::FakeApi;

    /// Reasons and messages of events.
    #[derive(Default)]
    struct Told(Mutex<Vec<String>>);

    impl Events for Told {
        fn event(&self, _: &ObjectReference, kind: &str, reason: &str, message: &str) {
            self.0.lock().push(format!("{kind} {reason} {message}"));
        }
    }

    struct Bench {
        api: FakeApi,
        clock: FakeClock,
        told: Arc<Told>,
        certificates: Certificates,
        pod: Pod,
    }

    fn bench(key_type: &str) -> Bench {
        let clock = FakeClock::new("2026-01-01T00:00:00Z".parse().unwrap());
        let told = Arc::new(Told::default());
        let source = json!({"podCertificate": {
            "signerName": "example.com/s", "keyType": key_type, "credentialBundlePath": "b",
            "maxExpirationSeconds": 86400, "userAnnotations": {"example.com/k": "v"},
        }});
        let pod = json!({
            "metadata": {"name": "p", "namespace": "ns", "uid": "u"},
            "spec": {
                "nodeName": "n", "serviceAccountName": "a", "containers": [],
                "volumes": [{"name": "v", "projected": {"sources": [source]}}],
            },
        });
        let certificates = Certificates::new(Arc::new(clock.clone()), told.clone());
        let api = FakeApi::default();
        let node = serde_json::from_value(json!({"metadata": {"name": "n", "uid": "uid of n"}})).unwrap();
        api.nodes.lock().insert("n".to_owned(), node);
        Bench { api, clock, told, certificates, pod: serde_json::from_value(pod).unwrap() }
    }

    impl Bench {
        async fn get(&self) -> Result<Bundle, String> {
            let volumes = self.pod.pod_spec().volumes.as_ref().unwrap();
            let source = &volumes[0].projected.as_ref().unwrap().sources.as_ref().unwrap()[0];
            let projection = source.pod_certificate.as_ref().unwrap();
            self.certificates.get(&self.api, &self.pod, ("v", 0), projection).await.map_err(|error| error.to_string())
        }

        /// Sets the status of the newest request.
        fn answer(&self, status: Value) {
            let mut requests = self.api.certificate_requests.lock();
            let request = Arc::make_mut(requests.last_mut().unwrap());
            request.status = serde_json::from_value(status).unwrap();
        }

        fn requests(&self) -> usize {
            self.api.certificate_requests.lock().len()
        }

        fn states(&self) -> Vec<&'static str> {
            self.certificates.report(std::iter::once(&self.pod)).into_keys().map(|(_, state)| state).collect()
        }
    }

    fn chain(name: &str) -> String {
        pki::Ca::new(name).unwrap().cert_pem().to_owned()
    }

    fn issued(chain: &str, refresh: &str, end: &str) -> Value {
        let condition = |kind: &str| json!({"type": kind, "status": "True", "reason": "R", "message": "", "lastTransitionTime": refresh});
        json!({
            "conditions": [condition("Issued")], "certificateChain": format!("about it\n{chain}\nmore\n"),
            "notBefore": "2026-01-01T00:00:00Z", "beginRefreshAt": refresh, "notAfter": end,
        })
    }

    #[tokio::test]
    async fn a_certificate_is_asked_for_and_renewed() {
        let bench = bench("ED25519");
        assert_eq!(bench.get().await.unwrap_err(), "credential bundle is not issued yet");
        assert_eq!(bench.get().await.unwrap_err(), "credential bundle is not issued yet");
        assert_eq!((bench.requests(), bench.states()), (1, vec!["not_yet_issued"]), "it is asked for once");
        let request = bench.api.certificate_requests.lock()[0].clone();
        let owner = &request.metadata.owner_references.as_ref().unwrap()[0];
        assert_eq!((owner.kind.as_str(), owner.uid.as_str()), ("Pod", "u"));
        let spec = &request.spec;
        assert_eq!(
            (spec.node_uid.as_str(), spec.service_account_uid.as_str(), spec.max_expiration_seconds),
            ("uid of n", "uid of a", Some(86400))
        );
        assert!(spec.unverified_user_annotations.as_ref().unwrap().contains_key("example.com/k"));

        let first = chain("first");
        bench.answer(issued(&first, "2026-01-01T12:00:00Z", "2026-01-02T00:00:00Z"));
        let bundle = bench.get().await.unwrap();
        assert_eq!(bundle.chain, clean(&first));
        assert!(bundle.key.starts_with("-----BEGIN PRIVATE KEY-----\n"), "{}", bundle.key);
        assert_eq!(bench.get().await.unwrap(), bundle);
        assert_eq!(bench.requests(), 1);

        // The time to renew comes; the old one is there until the new one is.
        bench.clock.step(Duration::from_secs(13 * 3600));
        assert_eq!(bench.get().await.unwrap(), bundle);
        assert_eq!((bench.requests(), bench.states()), (2, vec!["overdue_for_refresh"]));
        bench.clock.step(Duration::from_secs(12 * 3600));
        assert_eq!(bench.get().await.unwrap(), bundle);
        assert_eq!((bench.requests(), bench.states()), (2, vec!["expired"]));
        bench.get().await.unwrap();
        assert_eq!(
            *bench.told.0.lock(),
            [
                "Warning CertificateOverdueForRefresh PodCertificate refresh overdue",
                "Warning CertificateExpired PodCertificate expired",
            ]
        );
        bench.answer(issued(&chain("second"), "2026-01-02T12:00:00Z", "2026-01-03T00:00:00Z"));
        let renewed = bench.get().await.unwrap();
        assert_ne!((&renewed.chain, &renewed.key), (&bundle.chain, &bundle.key));
        assert_eq!(bench.states(), ["fresh"]);
        bench.certificates.forget("u");
        assert!(bench.states().is_empty());
    }

    #[tokio::test]
    async fn a_refusal_is_for_good() {
        for (kind, event, error) in [
            (
                "Denied",
                "Warning Denied PodCertificateRequest ns/req-0 was denied, reason=\"No\", message=\"not \\\"you\\\"\"",
                "PodCertificateRequest was permanently denied: reason=\"No\" message=\"not \\\"you\\\"\"",
            ),
            (
                "Failed",
                "Warning Failed PodCertificateRequest ns/req-0 failed, reason=\"No\", message=\"not \\\"you\\\"\"",
                "PodCertificateRequest was permanently failed: reason=\"No\" message=\"not \\\"you\\\"\"",
            ),
        ] {
            let bench = bench("ECDSAP384");
            bench.get().await.unwrap_err();
            bench.answer(json!({"conditions": [{
                "type": kind, "status": "True", "reason": "No", "message": "not \"you\"",
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            }]}));
            for _ in 0..2 {
                assert_eq!(bench.get().await.unwrap_err(), error);
            }
            assert_eq!(*bench.told.0.lock(), [event]);
            assert_eq!(
                (bench.requests(), bench.states()),
                (1, vec![if kind == "Denied" { "denied" } else { "failed" }])
            );
        }
    }

    #[tokio::test]
    async fn a_deleted_request_is_made_again() {
        let bench = bench("ECDSAP256");
        bench.get().await.unwrap_err();
        bench.api.certificate_requests.lock().clear();
        bench.clock.step(Duration::from_secs(300));
        bench.get().await.unwrap_err();
        assert_eq!(bench.requests(), 0, "it may only be late");
        bench.clock.step(Duration::from_secs(700));
        bench.get().await.unwrap_err();
        assert_eq!(bench.requests(), 1);
    }

    #[tokio::test]
    async fn keys_that_cannot_be_made_are_told() {
        let error = bench("RSA4096").get().await.unwrap_err();
        assert!(error.starts_with("while generating keypair: "), "{error}");
    }
}
