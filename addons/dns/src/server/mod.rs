//! Questions in, answers out, over UDP and TCP.
//!
//! What the cluster knows is answered at once, on the socket's own task. What has to be asked elsewhere gets a task, and
//! only so many of them.

mod tcp;
#[cfg(test)]
mod tests;
mod udp;

use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use client::Client;
use client::informer::SharedInformerFactory;
use component_base::clock::RealClock;
use futures::FutureExt as _;
use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, RecordType};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::answers::{Answers, Outcome};
use crate::cluster::Cluster;
use crate::config::Config;
use crate::forward::{Forwarder, wire};
use crate::message::{self, Received, TCP_SIZE};
use crate::metrics::{Metrics, Plugin};

/// Questions that wait for somebody else at once; kubeadm's `max_concurrent 1000`.
const MAX_FORWARDED: usize = 1000;
/// Connections that are open at once.
const MAX_CONNECTIONS: usize = 1000;
/// Upstream's patience with an API server that is not there yet.
const SYNC_WAIT: Duration = Duration::from_secs(5);
/// Time between two attempts to reach an API server that is only just starting: there is nothing to watch yet.
const KNOCK: Duration = Duration::from_millis(20);

/// Why cluster DNS ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An address is not this machine's, or its port is taken.
    #[error("cannot listen on {0}")]
    Listen(SocketAddr, #[source] std::io::Error),
    /// A socket is gone.
    #[error("cannot read from {0}")]
    Read(SocketAddr, #[source] std::io::Error),
}

/// What a packet leads to.
enum Step {
    Reply(Vec<u8>),
    /// Somebody else is to be asked first.
    Ask(Asking),
    Silence,
}

/// A question that somebody else is to be asked, and what of its answer is there already.
struct Asking {
    question: Box<Message>,
    alias: Option<(Box<Message>, Name)>,
    limit: usize,
    tcp: bool,
    started: Instant,
}

/// Answers packets.
pub struct Server {
    answers: Arc<Answers>,
    forwarder: Arc<Forwarder>,
    metrics: Metrics,
    forwarded: Semaphore,
}

impl Server {
    /// A server over what is known, and whoever knows the rest.
    pub fn new(answers: Arc<Answers>, forwarder: Arc<Forwarder>, metrics: Metrics) -> Self {
        Self { answers, forwarder, metrics, forwarded: Semaphore::new(MAX_FORWARDED) }
    }

    /// What to do about a packet, without waiting for anything. Whatever goes wrong in here is answered as a failure.
    fn step(&self, packet: &[u8], peer: SocketAddr, tcp: bool) -> Step {
        let started = Instant::now();
        let step = std::panic::catch_unwind(AssertUnwindSafe(|| self.decide(packet, peer, tcp, started)));
        step.unwrap_or_else(|_| {
            self.metrics.panicked();
            match message::receive(packet) {
                Received::Question(question) => self.finish(
                    &question,
                    message::reply(&question, ResponseCode::ServFail),
                    Plugin::None,
                    tcp,
                    started,
                ),
                _ => Step::Silence,
            }
        })
    }

    fn decide(&self, packet: &[u8], peer: SocketAddr, tcp: bool, started: Instant) -> Step {
        let question = match message::receive(packet) {
            Received::Question(question) => question,
            Received::Rejected(code, bytes) => {
                self.metrics.answered(tcp, code, Plugin::None, bytes.len(), started.elapsed());
                return Step::Reply(bytes);
            }
            Received::Ignored => return Step::Silence,
        };
        let query = question.queries.first();
        let kind = query.map_or(RecordType::ZERO, |query| query.query_type);
        self.metrics.asked(tcp, peer, kind, packet.len());
        let refuse = |code| self.finish(&question, message::reply(&question, code), Plugin::None, tcp, started);
        if question.edns.as_ref().is_some_and(|edns| edns.version() != 0) {
            return refuse(ResponseCode::BADVERS);
        }
        if query.is_some_and(|query| query.query_class != DNSClass::IN) {
            return refuse(ResponseCode::Refused);
        }
        let limit = if tcp { TCP_SIZE } else { message::udp_size(&question) };
        match self.answers.answer(&question) {
            Outcome::Answer(answer) => self.finish(&question, *answer, Plugin::Kubernetes, tcp, started),
            Outcome::Alias(answer, target) => {
                Step::Ask(Asking { question, alias: Some((answer, target)), limit, tcp, started })
            }
            Outcome::Elsewhere => Step::Ask(Asking { question, alias: None, limit, tcp, started }),
        }
    }

    fn finish(&self, question: &Message, answer: Message, plugin: Plugin, tcp: bool, started: Instant) -> Step {
        let code = answer.response_code;
        let limit = if tcp { TCP_SIZE } else { message::udp_size(question) };
        let bytes = message::encode(answer, limit).or_else(|error| {
            tracing::error!(%error, "an answer cannot be written");
            message::reply(question, ResponseCode::ServFail).to_vec()
        });
        match bytes {
            Ok(bytes) => {
                self.metrics.answered(tcp, code, plugin, bytes.len(), started.elapsed());
                Step::Reply(bytes)
            }
            Err(_) => Step::Silence,
        }
    }

    /// The answer to a question that somebody else is to be asked; `None` where not even a failure can be told.
    async fn ask(&self, packet: &[u8], asking: Asking) -> Option<Vec<u8>> {
        let (tcp, started) = (asking.tcp, asking.started);
        let question = asking.question.clone();
        let fail = |code| self.finish(&question, message::reply(&question, code), Plugin::Forward, tcp, started);
        let step = match self.forwarded.try_acquire() {
            Err(_) => {
                self.metrics.rejected();
                fail(ResponseCode::Refused)
            }
            Ok(_permit) => match AssertUnwindSafe(self.asked(packet, asking)).catch_unwind().await {
                Ok(Some(step)) => step,
                Ok(None) => fail(ResponseCode::ServFail),
                Err(_) => {
                    self.metrics.panicked();
                    fail(ResponseCode::ServFail)
                }
            },
        };
        match step {
            Step::Reply(bytes) => Some(bytes),
            Step::Ask(_) | Step::Silence => None,
        }
    }

    async fn asked(&self, packet: &[u8], asking: Asking) -> Option<Step> {
        let Asking { question, alias, limit, tcp, started } = asking;
        let failed = |error: crate::forward::Error| {
            let name = question.queries.first().map(|query| query.name.to_ascii()).unwrap_or_default();
            tracing::info!(name, error = &error as &dyn std::error::Error, "a name cannot be asked for elsewhere");
        };
        let Some((mut answer, target)) = alias else {
            let bytes = self.forwarder.forward(packet, &question, limit).await.map_err(failed).ok()?;
            self.metrics.answered(tcp, wire::code(&bytes), Plugin::Forward, bytes.len(), started.elapsed());
            return Some(Step::Reply(bytes));
        };
        let kind = question.queries.first()?.query_type;
        match self.forwarder.lookup(&question, target, kind, limit).await.map_err(failed) {
            Ok(found) => {
                // What is said of the last name is said of the first (RFC 6604).
                answer.metadata.response_code = found.response_code;
                answer.metadata.truncation |= found.truncation;
                if found.answers.is_empty() {
                    answer.authorities.extend(found.authorities);
                }
                answer.answers.extend(found.answers);
            }
            Err(()) => answer.metadata.response_code = ResponseCode::ServFail,
        }
        Some(self.finish(&question, *answer, Plugin::Kubernetes, tcp, started))
    }
}

/// Runs cluster DNS until `shutdown`.
///
/// # Errors
/// An address that cannot be listened on, or a socket that ends.
pub async fn run(config: Config, client: Client, shutdown: CancellationToken) -> Result<(), Error> {
    let clock = RealClock::shared();
    let metrics = Metrics::new(config.port);
    let factory = SharedInformerFactory::new(client, shutdown.clone());
    let cluster = Cluster::follow(&factory, config.pods, &clock);
    let addresses = config.bind_addresses.clone();
    let answers =
        Arc::new(Answers::new(cluster.clone(), config.cluster_domain.clone(), config.pods, config.ttl, addresses));
    let sockets: Vec<SocketAddr> = config.bind_addresses.iter().map(|ip| SocketAddr::new(*ip, config.port)).collect();
    let forwarder =
        Arc::new(Forwarder::new(config.stub_domains.clone(), sockets.clone(), clock.clone(), metrics.clone()));
    tokio::spawn(forwarder.clone().follow(config.resolv_conf.clone(), shutdown.clone()));
    crate::http::serve(&config, &answers, &metrics, &shutdown).await?;

    let synced = async move {
        // Informers that find nobody, or may not read yet, rest for a second: too long where everything starts at once.
        let knock = async {
            while factory.client().get_raw("/api/v1/namespaces?limit=1").await.is_err() {
                tokio::time::sleep(KNOCK).await;
            }
        };
        let _ = tokio::time::timeout(SYNC_WAIT, knock).await;
        factory.start();
        if factory.wait_synced().await {
            cluster.set_synced();
            tracing::info!("Services, EndpointSlices and namespaces have been received");
        }
    };
    let synced = tokio::spawn(synced);
    // Whoever asks now would hear of a failure: better they ask again, for as long as it is worth it.
    if tokio::time::timeout(SYNC_WAIT, synced).await.is_err() {
        tracing::warn!("starting server with unsynced Kubernetes API");
    }
    let server = Arc::new(Server::new(answers, forwarder, metrics));
    serve(server, &sockets, &shutdown).await
}

/// Answers at these addresses until `shutdown`.
async fn serve(server: Arc<Server>, addresses: &[SocketAddr], shutdown: &CancellationToken) -> Result<(), Error> {
    let mut tasks = tokio::task::JoinSet::new();
    for address in addresses {
        let socket = udp::bind(*address).await?;
        // Two that read from one socket: answering takes a processor, and there may be another.
        for _ in 0..2 {
            tasks.spawn(udp::serve(socket.clone(), server.clone(), shutdown.clone()));
        }
        let listener = tcp::bind(*address).await?;
        tasks.spawn(tcp::serve(listener, server.clone(), shutdown.clone()));
        tracing::info!(%address, "serving DNS");
    }
    while let Some(ended) = tasks.join_next().await {
        match ended {
            Ok(Err(error)) => return Err(error),
            Ok(Ok(())) => {}
            Err(error) => tracing::error!(%error, "a socket's task ended"),
        }
    }
    Ok(())
}
