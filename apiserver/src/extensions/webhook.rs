//! Sends `ConversionReview`s: over TLS to a URL or to a Service.

use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;

use crate::registry::custom::{Definition, Reviewer};
use crate::server::Server;
use crate::webhook::Client;

/// Upstream's bound on one call.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Sends reviews from this server.
pub fn reviewer(server: &Arc<Server>) -> Arc<dyn Reviewer> {
    Arc::new(Http(Arc::downgrade(server)))
}

struct Http(Weak<Server>);

#[async_trait]
impl Reviewer for Http {
    async fn review(&self, definition: &Definition, review: &Value) -> Result<Value, String> {
        let config = definition.webhook.as_ref().map(|webhook| &webhook.client_config).ok_or("there is no webhook")?;
        let server = self.0.upgrade().ok_or("the server is stopping")?;
        let client = Client::new(config);
        let answer =
            client.post(&server, review.to_string().as_bytes(), TIMEOUT).await.map_err(|error| error.to_string())?;
        apimachinery::json::parse(&answer.body).map_err(|error| error.to_string())
    }
}
