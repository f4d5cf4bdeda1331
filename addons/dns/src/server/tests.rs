use super::*;
use crate::answers::tests::{answers, cluster, question};
use crate::config::PodRecords;
use crate::forward::tests::{Habit, Somebody};
use hickory_proto::op::Edns;
use hickory_proto::rr::RData;
use proptest::prelude::*;
use std::collections::BTreeMap;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};

const PEER: ([u8; 4], u16) = ([10, 244, 0, 9], 40_000);

fn server(upstreams: &[SocketAddr]) -> Server {
    let metrics = Metrics::new(53);
    let forwarder = Forwarder::new(BTreeMap::new(), Vec::new(), RealClock::shared(), metrics.clone());
    forwarder.set_servers(upstreams);
    Server::new(Arc::new(answers(cluster(), PodRecords::Insecure)), Arc::new(forwarder), metrics)
}

/// A server with sockets of its own, until it is dropped.
struct Running {
    address: SocketAddr,
    server: Arc<Server>,
    shutdown: CancellationToken,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

impl Running {
    async fn start(server: Server) -> Self {
        let (server, shutdown) = (Arc::new(server), CancellationToken::new());
        let (listener, socket) = loop {
            let listener = tcp::bind("127.0.0.1:0".parse().unwrap()).await.expect("a port");
            if let Ok(socket) = udp::bind(listener.local_addr().expect("bound")).await {
                break (listener, socket);
            }
        };
        let address = listener.local_addr().expect("bound");
        tokio::spawn(udp::serve(socket, server.clone(), shutdown.clone()));
        tokio::spawn(tcp::serve(listener, server.clone(), shutdown.clone()));
        Self { address, server, shutdown }
    }

    async fn udp(&self, packet: &[u8]) -> Vec<u8> {
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
        socket.connect(self.address).await.expect("connected");
        socket.send(packet).await.expect("sent");
        let mut buffer = vec![0; 65_535];
        let length = socket.recv(&mut buffer).await.expect("an answer");
        buffer.truncate(length);
        buffer
    }

    async fn ask(&self, question: &Message) -> Message {
        let answer = Message::from_vec(&self.udp(&question.to_vec().expect("a question")).await).expect("an answer");
        assert_eq!((answer.id, &answer.queries), (question.id, &question.queries));
        answer
    }

    async fn ask_for(&self, name: &str, kind: RecordType) -> Message {
        self.ask(&question(name, kind)).await
    }
}

async fn over_tcp(stream: &mut TcpStream, question: &Message) -> Message {
    let packet = question.to_vec().expect("a question");
    stream.write_u16(packet.len().try_into().expect("short")).await.expect("sent");
    stream.write_all(&packet).await.expect("sent");
    let mut answer = vec![0; usize::from(stream.read_u16().await.expect("a length"))];
    stream.read_exact(&mut answer).await.expect("an answer");
    Message::from_vec(&answer).expect("an answer")
}

fn address(message: &Message) -> String {
    message.answers.last().map(|record| record.data.to_string()).unwrap_or_default()
}

#[tokio::test]
async fn both_transports_answer_from_memory_and_from_elsewhere() {
    let somebody = Somebody::with(Habit::Answers).await;
    let running = Running::start(server(&[somebody.address])).await;
    assert_eq!(address(&running.ask_for("kubernetes.default.svc.cluster.local.", RecordType::A).await), "10.96.0.1");
    assert_eq!(address(&running.ask_for("example.com.", RecordType::A).await), "192.0.2.1");
    let mut stream = TcpStream::connect(running.address).await.expect("connected");
    // One connection serves several questions.
    for (name, want) in [("web.prod.svc.cluster.local.", "10.96.0.20"), ("other.example.", "192.0.2.1")] {
        assert_eq!(address(&over_tcp(&mut stream, &question(name, RecordType::A)).await), want);
    }
    assert_eq!(somebody.asked(), 2);
    let text = running.server.metrics.registry().encode();
    for want in [
        r#"coredns_dns_requests_total{server="dns://:53",zone=".",view="",proto="udp",family="1",type="A"} 2"#,
        r#"coredns_dns_responses_total{server="dns://:53",zone=".",view="",rcode="NOERROR",plugin="kubernetes"} 2"#,
        r#"coredns_dns_responses_total{server="dns://:53",zone=".",view="",rcode="NOERROR",plugin="forward"} 2"#,
        r#"coredns_cache_misses_total{server="dns://:53",zones=".",view=""} 2"#,
        "coredns_panics_total{} 0",
    ] {
        assert!(text.contains(want), "{want}: {text}");
    }
}

#[tokio::test]
async fn an_external_name_is_followed_to_its_addresses() {
    let somebody = Somebody::with(Habit::Answers).await;
    let running = Running::start(server(&[somebody.address])).await;
    let answer = running.ask_for("outside.prod.svc.cluster.local.", RecordType::A).await;
    let data: Vec<String> = answer.answers.iter().map(|record| record.data.to_string()).collect();
    assert_eq!(data, ["Example.com.", "192.0.2.1"]);
    assert!(answer.authoritative && answer.authorities.is_empty());

    let somebody = Somebody::with(Habit::Denies).await;
    let running = Running::start(server(&[somebody.address])).await;
    let answer = running.ask_for("outside.prod.svc.cluster.local.", RecordType::A).await;
    assert_eq!((answer.response_code, answer.answers.len()), (ResponseCode::NXDomain, 1));
    assert!(matches!(answer.authorities[0].data, RData::SOA(_)));
}

#[tokio::test]
async fn without_upstream_servers_only_their_names_fail() {
    let running = Running::start(server(&[])).await;
    assert_eq!(running.ask_for("example.com.", RecordType::A).await.response_code, ResponseCode::ServFail);
    let answer = running.ask_for("outside.prod.svc.cluster.local.", RecordType::A).await;
    assert_eq!((answer.response_code, answer.answers.len()), (ResponseCode::ServFail, 1));
    let cname = running.ask_for("outside.prod.svc.cluster.local.", RecordType::CNAME).await;
    assert_eq!((cname.response_code, cname.answers.len()), (ResponseCode::NoError, 1));
    assert_eq!(address(&running.ask_for("web.prod.svc.cluster.local.", RecordType::A).await), "10.96.0.20");
}

#[tokio::test]
async fn who_waits_for_others_stands_in_nobodys_way() {
    let silent = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
    let running = Running::start(server(&[silent.local_addr().expect("bound")])).await;
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
    for number in 0..100 {
        let packet = question(&format!("{number}.example."), RecordType::A).to_vec().expect("a question");
        socket.send_to(&packet, running.address).await.expect("sent");
    }
    assert_eq!(address(&running.ask_for("web.prod.svc.cluster.local.", RecordType::A).await), "10.96.0.20");
}

#[tokio::test]
async fn more_than_so_many_that_wait_are_refused() {
    let silent = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
    let mut server = server(&[silent.local_addr().expect("bound")]);
    server.forwarded = Semaphore::new(0);
    let running = Running::start(server).await;
    assert_eq!(running.ask_for("example.com.", RecordType::A).await.response_code, ResponseCode::Refused);
    assert!(running.server.metrics.registry().encode().contains("coredns_forward_max_concurrent_rejects_total{} 1"));
}

#[tokio::test]
async fn classes_and_versions_that_nobody_has_are_refused() {
    let running = Running::start(server(&[])).await;
    let mut chaos = question("version.bind.", RecordType::TXT);
    chaos.queries[0].query_class = DNSClass::CH;
    assert_eq!(running.ask(&chaos).await.response_code, ResponseCode::Refused);
    let mut later = question("web.prod.svc.cluster.local.", RecordType::A);
    let mut edns = Edns::new();
    edns.set_version(1);
    later.set_edns(edns);
    let answer = running.ask(&later).await;
    assert_eq!((u16::from(answer.response_code), answer.answers.len()), (16, 0));
}

#[tokio::test]
async fn a_long_answer_is_cut_for_udp_and_whole_over_tcp() {
    let cluster = cluster();
    let endpoints: Vec<_> = (0..250u8).map(|n| serde_json::json!({"addresses": [format!("10.1.1.{n}")]})).collect();
    let slice = serde_json::json!({
        "metadata": {"namespace": "prod", "name": "many", "labels": {"kubernetes.io/service-name": "db"}},
        "endpoints": endpoints, "ports": [],
    });
    cluster.slices.insert(Arc::new(serde_json::from_value(slice).expect("a slice")));
    let metrics = Metrics::new(53);
    let forwarder = Forwarder::new(BTreeMap::new(), Vec::new(), RealClock::shared(), metrics.clone());
    let server = Server::new(Arc::new(answers(cluster, PodRecords::Insecure)), Arc::new(forwarder), metrics);
    let running = Running::start(server).await;
    let mut question = question("db.prod.svc.cluster.local.", RecordType::A);
    let short = running.udp(&question.to_vec().expect("a question")).await;
    let read = Message::from_vec(&short).expect("an answer");
    assert!(read.truncation && short.len() <= 512 && !read.answers.is_empty());
    let mut stream = TcpStream::connect(running.address).await.expect("connected");
    let whole = over_tcp(&mut stream, &question).await;
    assert_eq!((whole.truncation, whole.answers.len()), (false, 252));
    let mut edns = Edns::new();
    edns.set_max_payload(1232);
    question.set_edns(edns);
    let longer = running.udp(&question.to_vec().expect("a question")).await;
    assert!(longer.len() > 512 && longer.len() <= 1232, "{}", longer.len());
}

#[tokio::test]
async fn bad_packets_are_answered_or_not_and_disturb_nobody() {
    let running = Running::start(server(&[])).await;
    let good = question("web.prod.svc.cluster.local.", RecordType::A).to_vec().expect("a question");
    let answer = running.udp(&good[..good.len() - 1]).await;
    assert_eq!((answer.len(), answer[3] & 0xf), (12, 1), "FORMERR");
    let mut response = good.clone();
    response[2] |= 0x80;
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
    for silent in [&[][..], &good[..5], &response] {
        socket.send_to(silent, running.address).await.expect("sent");
    }
    // A connection that sends no question is closed.
    let mut stream = TcpStream::connect(running.address).await.expect("connected");
    stream.write_all(&[0, 3, 1, 2, 3]).await.expect("sent");
    assert_eq!(stream.read(&mut [0; 1]).await.expect("closed"), 0);
    assert_eq!(address(&running.ask_for("web.prod.svc.cluster.local.", RecordType::A).await), "10.96.0.20");
}

/// Whatever comes: no panic, and an answer, where there is one, that is an answer to it and fits.
fn any_packet(server: &Server, packet: &[u8]) {
    for tcp in [false, true] {
        let Step::Reply(answer) = server.step(packet, PEER.into(), tcp) else { continue };
        assert!(answer.len() >= 12 && answer[2] & 0x80 != 0 && answer[..2] == packet[..2]);
        Message::from_vec(&answer).expect("an answer is readable");
        assert!(tcp || answer.len() <= 512 || packet.len() > 23, "who does not say more can take 512 bytes");
    }
    assert!(server.metrics.registry().encode().contains("coredns_panics_total{} 0"));
}

proptest! {
    #[test]
    fn no_packet_does_harm(packet in proptest::collection::vec(any::<u8>(), 0..600)) {
        any_packet(&server(&[]), &packet);
    }

    #[test]
    fn no_changed_question_does_harm(
        name in 0..7usize,
        kind in any::<u16>(),
        changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..6),
        cut in proptest::option::of(any::<proptest::sample::Index>()),
        extended in any::<bool>(),
    ) {
        let names = ["db.prod.svc.cluster.local.", "_sql._tcp.db.prod.svc.cluster.local.", "1.0.96.10.in-addr.arpa.",
            "10-0-0-1.prod.pod.cluster.local.", "loop.prod.svc.cluster.local.", "cluster.local.", "."];
        let mut question = question(names[name], RecordType::from(kind));
        if extended {
            let mut edns = Edns::new();
            edns.set_max_payload(kind);
            question.set_edns(edns);
        }
        let mut packet = question.to_vec().expect("a question");
        for (at, value) in changes {
            let at = at.index(packet.len());
            packet[at] = value;
        }
        if let Some(cut) = cut {
            packet.truncate(cut.index(packet.len() + 1));
        }
        any_packet(&server(&[]), &packet);
    }

    #[test]
    fn what_others_answer_is_read_without_harm(
        changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..8),
        noise in proptest::collection::vec(any::<u8>(), 0..40),
    ) {
        let question = question("example.com.", RecordType::A).to_vec().expect("a question");
        let mut answer = question.clone();
        answer[2] |= 0x80;
        answer[7] = 2;
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 20, 0, 4, 192, 0, 2, 1, 0xc0, 12, 0, 6, 0, 1]);
        answer.extend(noise);
        for (at, value) in changes {
            let at = at.index(answer.len());
            answer[at] = value;
        }
        let _ = wire::belongs(&answer, &question);
        if let Some(lives) = wire::lives(&answer) {
            prop_assert!(lives.places.iter().all(|place| place + 4 <= answer.len()));
        }
    }
}
