//! Leases for keys that expire.
//!
//! A lease per Event would be more work for etcd than the Event. As upstream, keys that expire about
//! the same time share one: a lease is granted for a little longer than asked, and given out again
//! as long as it does not expire before the next key should.

use std::time::Duration;

use etcd_client::LeaseClient;
use tokio::sync::Mutex;
use tokio::time::Instant;

/// Upstream's bound on the keys of one lease.
const LARGEST: u32 = 1000;

pub(super) struct Leases {
    client: LeaseClient,
    reuse: Duration,
    last: Mutex<Option<Granted>>,
}

struct Granted {
    id: i64,
    expires: Instant,
    keys: u32,
}

impl Leases {
    pub fn new(client: LeaseClient, reuse: Duration) -> Leases {
        Leases { client, reuse, last: Mutex::new(None) }
    }

    /// A lease that expires no sooner than `ttl` from now, and not much later.
    pub async fn get(&self, ttl: Duration) -> Result<i64, etcd_client::Error> {
        // Held while granting: those who wait want the same lease.
        let mut last = self.last.lock().await;
        let now = Instant::now();
        let extra = self.reuse.min(ttl / 20);
        if let Some(lease) = last.as_mut()
            && lease.keys < LARGEST
            && lease.expires > now + ttl
            && lease.expires < now + ttl + extra
        {
            lease.keys += 1;
            return Ok(lease.id);
        }
        let seconds = (ttl + extra).as_secs_f64().ceil() as i64;
        let granted = self.client.clone().grant(seconds, None).await?;
        let expires = now + Duration::from_secs(seconds as u64);
        *last = Some(Granted { id: granted.id(), expires, keys: 1 });
        Ok(granted.id())
    }
}
