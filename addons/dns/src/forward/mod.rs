//! Names that are not the cluster's: asked of the node's resolvers, or of a stub domain's, and remembered for a while.
//!
//! A question goes out as it came, with a number of its own; an answer comes back as it came. Neither is taken apart
//! further than it takes to see that they belong together and how long the answer may be kept.

mod cache;
pub mod resolv;
mod upstream;
pub mod wire;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use component_base::clock::SharedClock;
use component_base::files::Watch;
use hickory_proto::op::{Message, Query};
use hickory_proto::rr::{Name, RecordType};
use rand::seq::SliceRandom;
use tokio_util::sync::CancellationToken;

use crate::message::TCP_SIZE;
use crate::metrics::Metrics;
use cache::Cache;
pub use upstream::Transport;
use upstream::Upstream;

/// How long whoever asks waits at most; resolvers of the C library give up after as long.
const DEADLINE: Duration = Duration::from_secs(5);
/// How often the servers of a name are gone through.
const ROUNDS: usize = 2;

/// Nobody who was asked answered.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("no upstream server for this name")]
    NoServer,
    #[error("no upstream server answered within {DEADLINE:?}")]
    Timeout,
    #[error("upstream {0}")]
    Server(SocketAddr, #[source] std::io::Error),
    #[error("a question cannot be written")]
    Encode(#[source] hickory_proto::ProtoError),
    #[error("an upstream server's answer cannot be read")]
    Decode(#[source] hickory_proto::serialize::binary::DecodeError),
}

/// A domain and who is asked for its names; the longest that fits counts, and the root fits all.
struct Route {
    domain: Name,
    upstreams: Vec<Arc<Upstream>>,
}

/// Asks others.
pub struct Forwarder {
    routes: ArcSwap<Vec<Route>>,
    stub_domains: BTreeMap<Name, Vec<SocketAddr>>,
    /// Our own addresses: a question that is sent there comes back for ever.
    own: Vec<SocketAddr>,
    cache: Cache,
    clock: SharedClock,
    metrics: Metrics,
}

impl Forwarder {
    /// A forwarder with the servers of stub domains; those for all other names come with [`Forwarder::set_servers`].
    pub fn new(
        stub_domains: BTreeMap<Name, Vec<SocketAddr>>,
        own: Vec<SocketAddr>,
        clock: SharedClock,
        metrics: Metrics,
    ) -> Self {
        let forwarder = Self {
            routes: ArcSwap::default(),
            stub_domains,
            own,
            cache: Cache::new(clock.clone(), metrics.clone()),
            clock,
            metrics,
        };
        forwarder.set_servers(&[]);
        forwarder
    }

    /// Replaces the servers that are asked for names of no stub domain.
    pub fn set_servers(&self, servers: &[SocketAddr]) {
        let route = |domain: &Name, servers: &[SocketAddr]| Route {
            domain: domain.clone(),
            upstreams: servers
                .iter()
                .filter(|server| {
                    let ours = self.own.contains(server);
                    if ours {
                        tracing::warn!(%server, "the resolver configuration names this server itself: left out");
                    }
                    !ours
                })
                .map(|server| Arc::new(Upstream::new(*server)))
                .collect(),
        };
        let mut routes = vec![route(&Name::root(), servers)];
        routes.extend(self.stub_domains.iter().map(|(domain, servers)| route(domain, servers)));
        routes.sort_by_key(|route| std::cmp::Reverse(route.domain.iter().count()));
        self.routes.store(Arc::new(routes));
    }

    /// Follows a resolver configuration file until `shutdown`.
    pub async fn follow(self: Arc<Self>, path: PathBuf, shutdown: CancellationToken) {
        let mut watch = Watch::new(&[&path]);
        loop {
            match std::fs::read_to_string(&path) {
                Ok(text) => {
                    let servers = resolv::servers(&text);
                    tracing::info!(?servers, path = %path.display(), "upstream servers");
                    self.set_servers(&servers);
                }
                Err(error) => tracing::error!(%error, path = %path.display(), "no upstream servers"),
            }
            tokio::select! {
                () = watch.changed() => {}
                () = shutdown.cancelled() => return,
            }
        }
    }

    /// The answer to a packet that holds a question, at most `limit` bytes of it.
    ///
    /// # Errors
    /// When nobody answers.
    pub async fn forward(&self, packet: &[u8], question: &Message, limit: usize) -> Result<Vec<u8>, Error> {
        let query = question.queries.first().ok_or(Error::NoServer)?;
        let key = cache::Key::of(question, query);
        if let Some(key) = &key
            && let Some(answer) = self.cache.get(key, packet, limit)
        {
            return Ok(answer);
        }
        let transport = if limit == TCP_SIZE { Transport::Tcp } else { Transport::Udp };
        let answer = self.ask(packet, &query.name, transport).await?;
        if let Some(key) = key {
            self.cache.put(key, &answer);
        }
        Ok(answer)
    }

    /// What others say of a name that one of the cluster's leads to.
    ///
    /// # Errors
    /// When nobody answers, or what is answered cannot be read.
    pub async fn lookup(&self, asked: &Message, name: Name, kind: RecordType, limit: usize) -> Result<Message, Error> {
        let mut question = Message::query();
        question.metadata.recursion_desired = true;
        question.metadata.checking_disabled = asked.checking_disabled;
        question.edns.clone_from(&asked.edns);
        question.add_query(Query::query(name, kind));
        let packet = question.to_vec().map_err(Error::Encode)?;
        let answer = self.forward(&packet, &question, limit).await?;
        Message::from_vec(&answer).map_err(Error::Decode)
    }

    async fn ask(&self, packet: &[u8], name: &Name, transport: Transport) -> Result<Vec<u8>, Error> {
        let upstreams = self.servers_of(name);
        if upstreams.is_empty() {
            return Err(Error::NoServer);
        }
        let asking = async {
            let mut last = Error::NoServer;
            for upstream in upstreams.iter().cycle().take(upstreams.len() * ROUNDS) {
                let started = self.clock.monotonic();
                let result = upstream.exchange(packet, transport).await;
                let took = self.clock.monotonic().saturating_sub(started);
                match result {
                    Ok(answer) => {
                        self.metrics.upstream_answered(upstream.address(), wire::code(&answer), took);
                        upstream.answered();
                        return Ok(answer);
                    }
                    Err(error) => {
                        tracing::debug!(upstream = %upstream.address(), %error, "no answer");
                        upstream.failed(self.clock.monotonic());
                        last = Error::Server(upstream.address(), error);
                    }
                }
            }
            Err(last)
        };
        tokio::time::timeout(DEADLINE, asking).await.unwrap_or(Err(Error::Timeout))
    }

    /// Who is asked for a name, in this order: in any, but those that failed lately last.
    fn servers_of(&self, name: &Name) -> Vec<Arc<Upstream>> {
        let routes = self.routes.load();
        let Some(route) = routes.iter().find(|route| route.domain.zone_of(name)) else { return Vec::new() };
        let mut upstreams = route.upstreams.clone();
        upstreams.shuffle(&mut rand::rng());
        let now = self.clock.monotonic();
        upstreams.sort_by_key(|upstream| upstream.is_failing(now));
        upstreams
    }
}

#[cfg(test)]
pub(crate) mod tests;
