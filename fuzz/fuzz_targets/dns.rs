//! Any packet: a question, refused, or ignored. A question about the cluster gets an answer that fits and can be read.
//! And any answer of another server: it belongs to a question or not, and says how long it lives, within its bytes.
#![no_main]

use std::sync::{Arc, LazyLock};

use dns::Config;
use dns::answers::{Answers, Outcome};
use dns::cluster::Cluster;
use dns::forward::wire;
use dns::message::{self, Received};
use libfuzzer_sys::fuzz_target;

static ANSWERS: LazyLock<Answers> = LazyLock::new(|| {
    let config = Config::from_args(Vec::<String>::new()).expect("the defaults are good");
    let cluster = Arc::new(Cluster::default());
    cluster.set_synced();
    Answers::new(cluster, config.cluster_domain, config.pods, config.ttl, config.bind_addresses)
});

fuzz_target!(|bytes: &[u8]| {
    if let Received::Question(question) = message::receive(bytes)
        && let Outcome::Answer(answer) = ANSWERS.answer(&question)
    {
        let limit = message::udp_size(&question);
        let answer = message::encode(*answer, limit).expect("an answer can be written");
        assert!(answer.len() <= limit && matches!(message::receive(&answer), Received::Ignored));
    }
    if let Some(lives) = wire::lives(bytes) {
        assert!(lives.places.iter().all(|place| place + 4 <= bytes.len()));
    }
});
