//! Tokens that somebody else knows: a TokenReview is sent, its answer kept for a while
//! (`--authentication-token-webhook-config-file`).
//!
//! Asked last, for tokens that nobody here accepts. Upstream:
//! `apiserver/plugin/pkg/authenticator/token/webhook`.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use component_base::clock::SharedClock;
use ring::hmac;
use serde_json::{Value, json};

use crate::answers::{Answers, Key};
use crate::remote::{Backoff, Failure, Remote};
use crate::request::UserInfo;

/// Answers kept at a time; upstream's figure.
const CACHED: usize = 32 * 1024;
/// Pauses of a webhook that is asked again.
const BACKOFF: Backoff = Backoff::webhook(Duration::from_millis(500));
/// How long a question may take with all its attempts.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the flags say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// A kubeconfig whose server is asked.
    pub kubeconfig: PathBuf,
    /// Of the TokenReview that is sent: `v1` or `v1beta1`.
    pub version: String,
    /// How long answers are kept; zero keeps none.
    pub ttl: Duration,
}

/// The user a token stands for and its audiences; `None` when it is not accepted.
pub type Verdict = Option<Arc<(UserInfo, Vec<String>)>>;

/// The webhook.
pub struct Webhook {
    remote: Arc<dyn Remote>,
    version: String,
    ttl: Duration,
    /// This server's audiences: what an answer without audiences is good for.
    implicit: Vec<String>,
    /// Tokens are not kept, not even as plain digests.
    key: hmac::Key,
    answers: Answers<Verdict>,
}

impl Webhook {
    /// # Errors
    /// A version that upstream does not speak either.
    pub fn new(
        options: &Options,
        remote: Arc<dyn Remote>,
        implicit: Vec<String>,
        clock: SharedClock,
    ) -> Result<Self, String> {
        if !matches!(options.version.as_str(), "v1" | "v1beta1") {
            return Err(format!(
                "unsupported authentication webhook version {:?}, supported versions are \"v1\", \"v1beta1\"",
                options.version
            ));
        }
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &ring::rand::SystemRandom::new())
            .map_err(|_| "unable to read sufficient random bytes".to_string())?;
        Ok(Self {
            remote,
            version: options.version.clone(),
            ttl: options.ttl,
            implicit,
            key,
            answers: Answers::new(clock, CACHED),
        })
    }

    fn key(&self, token: &str, audiences: &[String]) -> Key {
        let mut context = hmac::Context::with_key(&self.key);
        let mut put = |text: &str| {
            context.update(&(text.len() as u64).to_be_bytes());
            context.update(text.as_bytes());
        };
        put(token);
        audiences.iter().for_each(|audience| put(audience));
        let mut key = [0; 32];
        key.copy_from_slice(context.sign().as_ref());
        key
    }

    /// The user of a token. `audiences` are those asked for; `None` means this server's own.
    pub async fn user(&self, token: &str, audiences: Option<&[String]>) -> Verdict {
        let wanted = audiences.unwrap_or(&self.implicit).to_vec();
        let key = self.key(token, &wanted);
        let (remote, ttl) = (self.remote.clone(), self.ttl);
        let implicit = self.implicit.clone();
        let review = json!({
            "apiVersion": format!("authentication.k8s.io/{}", self.version),
            "kind": "TokenReview",
            "metadata": {},
            "spec": {"token": token, "audiences": wanted},
        });
        let ask = move || async move {
            match tokio::time::timeout(PATIENCE, attempts(&*remote, &review)).await {
                // An outage is nobody's verdict: it is not kept.
                Err(_) => (None, None),
                Ok(Err(error)) => {
                    tracing::error!("Failed to make webhook authenticator request: {error}");
                    (None, None)
                }
                Ok(Ok(answer)) => {
                    let verdict = judge(&answer["status"], &wanted, &implicit);
                    (verdict.map(Arc::new), Some(ttl))
                }
            }
        };
        self.answers.get(key, ask).await
    }
}

async fn attempts(remote: &dyn Remote, review: &Value) -> Result<Value, Failure> {
    BACKOFF.run(|error| error.transient, || remote.ask(review)).await
}

fn judge(status: &Value, wanted: &[String], implicit: &[String]) -> Option<(UserInfo, Vec<String>)> {
    let strings = |value: &Value| -> Vec<String> {
        value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_string).collect()
    };
    let mut audiences = Vec::new();
    if !wanted.is_empty() {
        let stated = strings(&status["audiences"]);
        let good = if stated.is_empty() { implicit } else { &stated };
        audiences = wanted.iter().filter(|audience| good.contains(audience)).cloned().collect();
        if audiences.is_empty() {
            return None;
        }
    }
    if status["authenticated"].as_bool() != Some(true) {
        if let Some(error) = status["error"].as_str().filter(|error| !error.is_empty()) {
            tracing::info!(error, "the authentication webhook refused a token");
        }
        return None;
    }
    let user = &status["user"];
    let extra = user["extra"].as_object().into_iter().flatten();
    let user = UserInfo {
        name: user["username"].as_str().unwrap_or_default().to_string(),
        uid: user["uid"].as_str().unwrap_or_default().to_string(),
        groups: strings(&user["groups"]),
        extra: extra.map(|(key, values)| (key.clone(), strings(values))).collect(),
    };
    Some((user, audiences))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use async_trait::async_trait;
    use component_base::clock::FakeClock;

    use super::*;

    /// Knows one token, and counts.
    struct Knows(AtomicUsize, Value);

    #[async_trait]
    impl Remote for Knows {
        async fn ask(&self, review: &Value) -> Result<Value, Failure> {
            self.0.fetch_add(1, Ordering::SeqCst);
            assert_eq!(review["apiVersion"], "authentication.k8s.io/v1");
            tokio::task::yield_now().await;
            if review["spec"]["token"] == "down" {
                return Err(Failure { message: "connection reset by peer".into(), transient: true });
            }
            if review["spec"]["token"] == "off" {
                return Err("connection refused".into());
            }
            let known = review["spec"]["token"] == "good";
            Ok(if known { json!({"status": self.1}) } else { json!({"status": {"error": "who?"}}) })
        }
    }

    fn webhook(status: Value) -> (Webhook, Arc<Knows>, FakeClock) {
        let clock = FakeClock::new(jiff::Timestamp::from_second(1_800_000_000).unwrap());
        let remote = Arc::new(Knows(AtomicUsize::new(0), status));
        let options = Options { kubeconfig: PathBuf::new(), version: "v1".into(), ttl: Duration::from_secs(120) };
        let implicit = vec!["api".to_string()];
        (Webhook::new(&options, remote.clone(), implicit, Arc::new(clock.clone())).unwrap(), remote, clock)
    }

    #[tokio::test(start_paused = true)]
    async fn verdicts_are_kept_and_outages_are_not() {
        let user = json!({"authenticated": true, "user": {"username": "ada", "uid": "1", "groups": ["dev"], "extra": {"a": ["b"]}}});
        let (webhook, remote, clock) = webhook(user);
        let many = futures::future::join_all((0..20).map(|_| webhook.user("good", None))).await;
        assert_eq!(remote.0.load(Ordering::SeqCst), 1);
        let verdict = many[0].as_ref().unwrap();
        assert_eq!((verdict.0.name.as_str(), &verdict.1), ("ada", &vec!["api".to_string()]));
        assert_eq!(verdict.0.extra["a"], ["b"]);
        assert!(webhook.user("bad", None).await.is_none());
        assert!(webhook.user("bad", None).await.is_none());
        assert_eq!(remote.0.load(Ordering::SeqCst), 2, "a refusal is an answer");
        clock.step(Duration::from_secs(121));
        assert!(webhook.user("good", None).await.is_some());
        assert_eq!(remote.0.load(Ordering::SeqCst), 3);
        assert!(webhook.user("down", None).await.is_none());
        assert!(webhook.user("down", None).await.is_none());
        assert_eq!(remote.0.load(Ordering::SeqCst), 13, "five attempts each time");
        assert!(webhook.user("off", None).await.is_none());
        assert_eq!(remote.0.load(Ordering::SeqCst), 14, "nobody there is nobody there");
    }

    #[tokio::test]
    async fn audiences_have_to_meet() {
        let status =
            |audiences: Value| json!({"authenticated": true, "user": {"username": "ada"}, "audiences": audiences});
        for (stated, asked, want) in [
            (json!([]), None, Some(vec!["api"])),
            (json!([]), Some(vec!["other"]), None),
            (json!(["other"]), None, None),
            (json!(["other", "api"]), Some(vec!["other"]), Some(vec!["other"])),
        ] {
            let (webhook, ..) = webhook(status(stated.clone()));
            let asked: Option<Vec<String>> = asked.map(|list| list.into_iter().map(String::from).collect());
            let verdict = webhook.user("good", asked.as_deref()).await;
            let got = verdict.as_ref().map(|verdict| verdict.1.iter().map(String::as_str).collect::<Vec<_>>());
            assert_eq!(got, want, "{stated} {asked:?}");
        }
    }

    #[test]
    fn versions_are_known() {
        let clock = component_base::clock::RealClock::shared();
        let remote = Arc::new(Knows(AtomicUsize::new(0), Value::Null));
        let options = Options { kubeconfig: PathBuf::new(), version: "v2".into(), ttl: Duration::ZERO };
        let error = Webhook::new(&options, remote, Vec::new(), clock).err().unwrap();
        assert_eq!(
            error,
            "unsupported authentication webhook version \"v2\", supported versions are \"v1\", \"v1beta1\""
        );
    }
}
