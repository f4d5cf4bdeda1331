//! Tokens of a service account, asked for by another identity (`--use-service-account-credentials`).
//!
//! A token is renewed when a fifth of its time is left. The account is created when it is missing,
//! as upstream's client builder does.

use std::time::Duration;

use arc_swap::ArcSwapOption;
use http::HeaderValue;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::json;
use tokio::sync::Mutex;

use crate::error::{Error, Result};
use crate::resources::SERVICE_ACCOUNTS;
use crate::transport::Client;

const LIFETIME: Duration = Duration::from_secs(3600);

struct Held {
    bearer: HeaderValue,
    /// By the monotonic clock.
    renew_at: Duration,
}

pub(crate) struct ServiceAccountToken {
    issuer: Client,
    namespace: String,
    name: String,
    held: ArcSwapOption<Held>,
    /// Lets one request renew while the others wait for it.
    renewing: Mutex<()>,
}

#[derive(Deserialize)]
struct TokenRequest {
    status: TokenStatus,
}

#[derive(Deserialize)]
struct TokenStatus {
    token: String,
}

impl ServiceAccountToken {
    pub fn new(issuer: Client, namespace: &str, name: &str) -> Self {
        Self {
            issuer,
            namespace: namespace.to_string(),
            name: name.to_string(),
            held: ArcSwapOption::empty(),
            renewing: Mutex::new(()),
        }
    }

    fn fresh(&self) -> Option<HeaderValue> {
        let held = self.held.load();
        let held = held.as_ref()?;
        (self.issuer.clock().monotonic() < held.renew_at).then(|| held.bearer.clone())
    }

    /// The value of the `Authorization` header.
    pub async fn bearer(&self) -> Result<HeaderValue> {
        if let Some(bearer) = self.fresh() {
            return Ok(bearer);
        }
        let _turn = self.renewing.lock().await;
        if let Some(bearer) = self.fresh() {
            return Ok(bearer);
        }
        let token = match self.request().await {
            Err(error) if error.is_not_found() => {
                self.create_account().await?;
                self.request().await?
            }
            other => other?,
        };
        let mut bearer = HeaderValue::from_str(&format!("Bearer {token}"))
            .map_err(|_| Error::Config("the server issued a token that is no header value".into()))?;
        bearer.set_sensitive(true);
        self.held.store(Some(std::sync::Arc::new(Held {
            bearer: bearer.clone(),
            renew_at: self.issuer.clock().monotonic() + LIFETIME.mul_f64(0.8),
        })));
        Ok(bearer)
    }

    async fn request(&self) -> Result<String> {
        let body = json!({
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
            "spec": { "expirationSeconds": LIFETIME.as_secs() },
        });
        let answer: TokenRequest =
            self.issuer.create_sub(&SERVICE_ACCOUNTS, Some(&self.namespace), &self.name, "token", &body).await?;
        Ok(answer.status.token)
    }

    async fn create_account(&self) -> Result<()> {
        let account = json!({
            "apiVersion": "v1", "kind": "ServiceAccount",
            "metadata": { "name": self.name, "namespace": self.namespace },
        });
        match self.issuer.create::<IgnoredAny>(&SERVICE_ACCOUNTS, Some(&self.namespace), &account).await {
            Err(error) if !error.is_already_exists() => Err(error),
            _ => Ok(()),
        }
    }
}
