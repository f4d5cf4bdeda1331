use super::*;
use component_base::clock::{FakeClock, RealClock};
use hickory_proto::op::{MessageType, ResponseCode};
use hickory_proto::rr::rdata::{A, SOA};
use hickory_proto::rr::{RData, Record};
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, UdpSocket};

/// What a made-up server does with the questions it gets.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Habit {
    Answers,
    Denies,
    /// Says nothing to the first this many, then answers.
    Sleeps(usize),
    /// First sends what belongs to other questions.
    Babbles,
}

/// A server somebody else runs.
pub struct Somebody {
    pub address: SocketAddr,
    asked: Arc<AtomicUsize>,
}

fn respond(habit: Habit, packet: &[u8]) -> Vec<u8> {
    let question = Message::from_vec(packet).expect("a question");
    let mut answer = crate::message::reply(&question, ResponseCode::NoError);
    assert_eq!(question.message_type, MessageType::Query);
    let name = question.queries[0].name.clone();
    if habit == Habit::Denies {
        answer.metadata.response_code = ResponseCode::NXDomain;
        let soa = SOA::new(name.clone(), name.clone(), 1, 1, 1, 1, 10);
        answer.add_authority(Record::from_rdata(name, 3600, RData::SOA(soa)));
    } else {
        answer.add_answer(Record::from_rdata(name, 20, RData::A(A(Ipv4Addr::new(192, 0, 2, 1)))));
    }
    answer.to_vec().expect("an answer")
}

impl Somebody {
    pub async fn with(habit: Habit) -> Self {
        // Over both, at one port.
        let (listener, socket) = loop {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            if let Ok(socket) = UdpSocket::bind(listener.local_addr().expect("bound")).await {
                break (listener, socket);
            }
        };
        let address = listener.local_addr().expect("bound");
        let asked = Arc::new(AtomicUsize::new(0));
        let count = asked.clone();
        tokio::spawn(async move {
            let mut buffer = [0; 4096];
            while let Ok((length, peer)) = socket.recv_from(&mut buffer).await {
                let number = count.fetch_add(1, Ordering::SeqCst);
                if matches!(habit, Habit::Sleeps(first) if number < first) {
                    continue;
                }
                let good = respond(habit, &buffer[..length]);
                if habit == Habit::Babbles {
                    let mut other = good.clone();
                    other[1] ^= 1;
                    let mut question = good.clone();
                    question[2] &= 0x7f;
                    let mut name = good.clone();
                    name[13] ^= 1;
                    for bad in [&other[..], &question, &name, &good[..11], &[]] {
                        socket.send_to(bad, peer).await.expect("sent");
                    }
                }
                socket.send_to(&good, peer).await.expect("sent");
            }
        });
        let count = asked.clone();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                let length = usize::from(stream.read_u16().await.expect("a length"));
                let mut packet = vec![0; length];
                stream.read_exact(&mut packet).await.expect("a question");
                let answer = respond(habit, &packet);
                stream.write_u16(answer.len().try_into().expect("short")).await.expect("sent");
                stream.write_all(&answer).await.expect("sent");
            }
        });
        Self { address, asked }
    }

    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

fn forwarder(clock: SharedClock, servers: &[SocketAddr]) -> Forwarder {
    let forwarder = Forwarder::new(BTreeMap::new(), Vec::new(), clock, Metrics::new(53));
    forwarder.set_servers(servers);
    forwarder
}

async fn ask(forwarder: &Forwarder, name: &str, limit: usize) -> Result<Message, Error> {
    let question = crate::answers::tests::question(name, RecordType::A);
    let bytes = forwarder.forward(&question.to_vec().expect("a question"), &question, limit).await?;
    let answer = Message::from_vec(&bytes).expect("an answer");
    assert_eq!(answer.id, question.id);
    assert_eq!(answer.queries[0].name.to_ascii(), name);
    Ok(answer)
}

#[tokio::test]
async fn answers_come_back_and_are_remembered() {
    let clock = Arc::new(FakeClock::new(client::Timestamp::UNIX_EPOCH));
    let somebody = Somebody::with(Habit::Answers).await;
    let forwarder = forwarder(clock.clone(), &[somebody.address]);
    assert_eq!(ask(&forwarder, "Example.com.", 512).await.expect("answered").answers[0].ttl, 20);
    clock.step(Duration::from_secs(15));
    // Another spelling is the same name; the time that has passed is taken off.
    let answer = ask(&forwarder, "eXample.com.", 512).await.expect("answered");
    assert_eq!((answer.answers[0].ttl, somebody.asked()), (5, 1));
    clock.step(Duration::from_secs(5));
    ask(&forwarder, "example.com.", 512).await.expect("answered");
    assert_eq!(somebody.asked(), 2);
}

#[tokio::test]
async fn a_denial_is_remembered_for_as_long_as_the_zone_says() {
    let clock = Arc::new(FakeClock::new(client::Timestamp::UNIX_EPOCH));
    let somebody = Somebody::with(Habit::Denies).await;
    let forwarder = forwarder(clock.clone(), &[somebody.address]);
    for (step, asked) in [(0, 1), (9, 1), (1, 2)] {
        clock.step(Duration::from_secs(step));
        let answer = ask(&forwarder, "nope.example.", 512).await.expect("answered");
        assert_eq!((answer.response_code, somebody.asked()), (ResponseCode::NXDomain, asked));
    }
}

#[tokio::test]
async fn tcp_is_asked_over_tcp() {
    let somebody = Somebody::with(Habit::Answers).await;
    let forwarder = forwarder(RealClock::shared(), &[somebody.address]);
    assert_eq!(ask(&forwarder, "example.com.", TCP_SIZE).await.expect("answered").answers.len(), 1);
}

#[tokio::test]
async fn what_belongs_to_no_question_is_not_heard() {
    let somebody = Somebody::with(Habit::Babbles).await;
    let forwarder = forwarder(RealClock::shared(), &[somebody.address]);
    assert_eq!(ask(&forwarder, "example.com.", 512).await.expect("answered").answers.len(), 1);
}

#[tokio::test]
async fn who_does_not_answer_is_asked_after_the_others() {
    let clock = Arc::new(FakeClock::new(client::Timestamp::UNIX_EPOCH));
    let dead = UdpSocket::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("bound");
    let somebody = Somebody::with(Habit::Answers).await;
    let forwarder = forwarder(clock.clone(), &[dead, somebody.address]);
    for number in 0..20 {
        ask(&forwarder, &format!("{number}.example."), 512).await.expect("answered");
    }
    assert_eq!(somebody.asked(), 20);
    // Now and then it is the other's turn to be first: since it failed, no more.
    for _ in 0..20 {
        assert_eq!(forwarder.servers_of(&Name::root())[0].address(), somebody.address);
    }
    clock.step(Duration::from_secs(5));
    assert!((0..100).any(|_| forwarder.servers_of(&Name::root())[0].address() == dead), "it gets another chance");
}

#[tokio::test]
async fn a_lost_packet_is_sent_again() {
    let somebody = Somebody::with(Habit::Sleeps(1)).await;
    let forwarder = forwarder(RealClock::shared(), &[somebody.address]);
    assert_eq!(ask(&forwarder, "example.com.", 512).await.expect("answered").answers.len(), 1);
    assert_eq!(somebody.asked(), 2);
}

#[tokio::test]
async fn with_nobody_to_ask_there_is_an_error() {
    let forwarder = forwarder(RealClock::shared(), &[]);
    assert!(matches!(ask(&forwarder, "example.com.", 512).await, Err(Error::NoServer)));
    let gone = UdpSocket::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("bound");
    forwarder.set_servers(&[gone]);
    assert!(matches!(ask(&forwarder, "example.com.", 512).await, Err(Error::Server(at, _)) if at == gone));
}

#[tokio::test]
async fn the_longest_stub_domain_is_asked_and_nobody_asks_themselves() {
    let [all, acme, lab] = [
        Somebody::with(Habit::Answers).await,
        Somebody::with(Habit::Answers).await,
        Somebody::with(Habit::Answers).await,
    ];
    let name = |text| Name::from_ascii(text).expect("a name");
    let stubs =
        BTreeMap::from([(name("acme.local."), vec![acme.address]), (name("lab.acme.local."), vec![lab.address])]);
    let own: SocketAddr = "127.0.0.1:53".parse().expect("an address");
    let forwarder = Forwarder::new(stubs, vec![own], RealClock::shared(), Metrics::new(53));
    forwarder.set_servers(&[own, all.address]);
    for asked in ["www.ACME.local.", "acme.local.", "a.lab.acme.local.", "notacme.local."] {
        ask(&forwarder, asked, 512).await.expect("answered");
    }
    assert_eq!((all.asked(), acme.asked(), lab.asked()), (1, 2, 1));
    assert!(forwarder.servers_of(&Name::root()).iter().all(|server| server.address() != own));
}

#[tokio::test]
async fn the_resolver_file_is_followed() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("resolv.conf");
    let forwarder = Arc::new(forwarder(RealClock::shared(), &[]));
    let shutdown = CancellationToken::new();
    let follow = tokio::spawn(forwarder.clone().follow(path.clone(), shutdown.clone()));
    let servers = || {
        let servers = forwarder.servers_of(&Name::root());
        servers.iter().map(|server| server.address().to_string()).collect::<Vec<_>>()
    };
    for (text, want) in [("nameserver 1.1.1.1\n", vec!["1.1.1.1:53"]), ("nameserver 9.9.9.9\n", vec!["9.9.9.9:53"])] {
        // Whenever the file is looked at first: the change is not missed.
        tokio::time::sleep(Duration::from_millis(20)).await;
        std::fs::write(&path, text).expect("written");
        while servers() != want {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    shutdown.cancel();
    follow.await.expect("no panic");
}

#[test]
fn many_names_do_not_fill_the_memory() {
    let clock = Arc::new(FakeClock::new(client::Timestamp::UNIX_EPOCH));
    let metrics = Metrics::new(53);
    let cache = Cache::new(clock, metrics.clone());
    for number in 0..10_000 {
        let question = crate::answers::tests::question(&format!("{number}.example."), RecordType::A);
        let answer = respond(Habit::Answers, &question.to_vec().expect("a question"));
        cache.put(cache::Key::of(&question, &question.queries[0]).expect("a key"), &answer);
    }
    let text = metrics.registry().encode();
    let line = text.lines().find(|line| line.starts_with("coredns_cache_entries{")).expect("counted");
    let entries: f64 = line.rsplit(' ').next().and_then(|n| n.parse().ok()).expect("a number");
    assert!((1024.0..=2048.0).contains(&entries), "{line}");
}

#[test]
fn what_must_not_be_kept_is_not() {
    let cache = Cache::new(Arc::new(FakeClock::new(client::Timestamp::UNIX_EPOCH)), Metrics::new(53));
    let question = crate::answers::tests::question("example.com.", RecordType::A);
    let packet = question.to_vec().expect("a question");
    let key = cache::Key::of(&question, &question.queries[0]).expect("a key");
    let good = respond(Habit::Answers, &packet);
    let mut failed = good.clone();
    failed[3] |= 2;
    let mut cut = good.clone();
    cut[2] |= 2;
    let mut at_once = good.clone();
    let ttl = good.len() - 10;
    at_once[ttl..ttl + 4].fill(0);
    for bad in [&failed[..], &cut, &at_once, &good[..good.len() - 1], &packet] {
        cache.put(key.clone(), bad);
        assert!(cache.get(&key, &packet, 512).is_none());
    }
    cache.put(key.clone(), &good);
    assert_eq!(cache.get(&key, &packet, 512), Some(good.clone()));
    assert!(cache.get(&key, &packet, good.len() - 1).is_none(), "it would not fit");
    let mut alone = question;
    alone.metadata.recursion_desired = false;
    assert!(cache::Key::of(&alone, &alone.queries[0]).is_none());
}
