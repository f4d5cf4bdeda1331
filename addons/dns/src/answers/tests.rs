use super::*;
use hickory_proto::op::Query;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

pub const ZONE: &str = "cluster.local.";
const DNS: &str = "10.96.0.10";

fn object<T: DeserializeOwned>(namespace: &str, name: &str, mut fields: Value) -> Arc<T> {
    let labels = fields["service"].take();
    fields["metadata"] = json!({"namespace": namespace, "name": name, "uid": format!("{namespace}-{name}")});
    if let Value::String(service) = labels {
        fields["metadata"]["labels"] = json!({"kubernetes.io/service-name": service});
    }
    Arc::new(serde_json::from_value(fields).expect("an object"))
}

/// A cluster with one of everything.
pub fn cluster() -> Arc<Cluster> {
    let cluster = Cluster::default();
    for namespace in ["default", "kube-system", "prod"] {
        cluster.namespaces.insert(object("", namespace, json!({})));
    }
    let service = |namespace, name, spec| cluster.services.insert(object(namespace, name, json!({"spec": spec})));
    let port = |name: &str, protocol: &str, port: u16| json!({"name": name, "protocol": protocol, "port": port});
    service("default", "kubernetes", json!({"clusterIP": "10.96.0.1", "ports": [port("https", "TCP", 443)]}));
    let ports = [port("dns", "UDP", 53), port("dns-tcp", "TCP", 53)];
    service("kube-system", "kube-dns", json!({"clusterIP": DNS, "clusterIPs": [DNS], "ports": ports}));
    let ports = [port("http", "TCP", 80), port("admin", "TCP", 9090)];
    service(
        "prod",
        "web",
        json!({"clusterIP": "10.96.0.20", "clusterIPs": ["10.96.0.20", "fd00::20"], "ports": ports}),
    );
    let headless = |ports: &[Value]| json!({"clusterIP": "None", "clusterIPs": ["None"], "ports": ports});
    service("prod", "db", headless(&[port("sql", "TCP", 5432)]));
    service("prod", "empty", headless(&[port("sql", "TCP", 5432)]));
    service("prod", "portless", headless(&[]));
    let external = |name: &str| json!({"type": "ExternalName", "externalName": name});
    service("prod", "outside", external("Example.com"));
    service("prod", "inside", external("web.prod.svc.cluster.local"));
    service("prod", "twice", external("inside.prod.svc.cluster.local."));
    service("prod", "nowhere", external("gone.prod.svc.cluster.local"));
    service("prod", "loop", external("back.prod.svc.cluster.local"));
    service("prod", "back", external("loop.prod.svc.cluster.local"));
    service("prod", "number", external("10.1.1.1"));

    let slice = |name, service: &str, endpoints: Value, ports: Value| {
        let fields = json!({"service": service, "endpoints": endpoints, "ports": ports});
        cluster.slices.insert(object("prod", name, fields));
    };
    let sql = json!([port("sql", "TCP", 5432)]);
    slice(
        "db-v4",
        "db",
        json!([
            {"addresses": ["10.244.0.5"], "hostname": "db-0", "conditions": {"ready": true}},
            {"addresses": ["10.244.1.6"], "conditions": {}},
            {"addresses": ["10.244.1.7"], "hostname": "db-2", "conditions": {"ready": false, "serving": true}},
        ]),
        sql.clone(),
    );
    slice("db-v6", "db", json!([{"addresses": ["fd00:1::5"], "hostname": "db-0"}]), sql);
    slice("portless", "portless", json!([{"addresses": ["10.244.0.9"]}]), json!([]));
    let http = json!([port("http", "TCP", 8080)]);
    slice("web", "web", json!([{"addresses": ["10.244.0.8"], "hostname": "web-a"}]), http);
    cluster.pods.insert(object("prod", "p", json!({"status": {"phase": "Running", "podIPs": [{"ip": "10.244.0.5"}]}})));
    cluster.pods.insert(object("prod", "q", json!({"status": {"phase": "Failed", "podIPs": [{"ip": "10.244.0.6"}]}})));
    cluster.set_synced();
    Arc::new(cluster)
}

pub fn answers(cluster: Arc<Cluster>, pods: PodRecords) -> Answers {
    let zone = Name::from_ascii(ZONE).expect("a name");
    Answers::new(cluster, zone, pods, 30, vec![DNS.parse().expect("an address")])
}

pub fn question(name: &str, kind: RecordType) -> Message {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).expect("a name"), kind));
    message
}

fn lines(records: &[Record]) -> Vec<String> {
    let mut lines: Vec<String> = records.iter().map(ToString::to_string).collect();
    lines.sort();
    lines
}

/// What is answered by a cluster as kubeadm sets one up.
fn ask(name: &str, kind: RecordType) -> Message {
    match answers(cluster(), PodRecords::Insecure).answer(&question(name, kind)) {
        Outcome::Answer(answer) => *answer,
        other => panic!("{name} {kind}: {other:?}"),
    }
}

/// Checks answers and additional records, and that the zone is named exactly where there are none.
#[track_caller]
fn check(name: &str, kind: RecordType, answers: &[&str], additionals: &[&str]) {
    let answer = ask(name, kind);
    assert_eq!(answer.response_code, ResponseCode::NoError, "{name} {kind}");
    assert!(answer.authoritative && answer.recursion_available, "{name} {kind}");
    assert_eq!(lines(&answer.answers), answers, "{name} {kind}");
    assert_eq!(lines(&answer.additionals), additionals, "{name} {kind}");
    assert_eq!(answer.authorities.is_empty(), !answers.is_empty(), "{name} {kind}");
}

#[track_caller]
fn check_missing(name: &str, code: ResponseCode) {
    for kind in [RecordType::A, RecordType::AAAA, RecordType::SRV, RecordType::TXT, RecordType::MX, RecordType::NS] {
        let answer = ask(name, kind);
        assert_eq!((answer.response_code, answer.answers.len()), (code, 0), "{name} {kind}");
        let [soa] = answer.authorities.as_slice() else { panic!("{name} {kind}: no authority") };
        assert_eq!(
            soa.to_string(),
            "cluster.local. 30 IN SOA ns.dns.cluster.local. hostmaster.cluster.local. 0 7200 1800 86400 30",
            "{name} {kind}"
        );
    }
}

#[test]
fn services_have_their_cluster_addresses() {
    check(
        "kubernetes.default.svc.cluster.local.",
        RecordType::A,
        &["kubernetes.default.svc.cluster.local. 30 IN A 10.96.0.1"],
        &[],
    );
    check("web.prod.svc.cluster.local.", RecordType::A, &["web.prod.svc.cluster.local. 30 IN A 10.96.0.20"], &[]);
    check("web.prod.svc.cluster.local.", RecordType::AAAA, &["web.prod.svc.cluster.local. 30 IN AAAA fd00::20"], &[]);
    // Whatever is written large or small is the same name, and is repeated as it was asked for.
    check("WEB.prod.SVC.Cluster.Local.", RecordType::A, &["WEB.prod.SVC.Cluster.Local. 30 IN A 10.96.0.20"], &[]);
    check("kubernetes.default.svc.cluster.local.", RecordType::AAAA, &[], &[]);
    check("kubernetes.default.svc.cluster.local.", RecordType::TXT, &[], &[]);
    check("kubernetes.default.svc.cluster.local.", RecordType::ANY, &[], &[]);
}

#[test]
fn headless_services_have_those_of_their_ready_endpoints() {
    check(
        "db.prod.svc.cluster.local.",
        RecordType::A,
        &["db.prod.svc.cluster.local. 30 IN A 10.244.0.5", "db.prod.svc.cluster.local. 30 IN A 10.244.1.6"],
        &[],
    );
    check("db.prod.svc.cluster.local.", RecordType::AAAA, &["db.prod.svc.cluster.local. 30 IN AAAA fd00:1::5"], &[]);
    check(
        "portless.prod.svc.cluster.local.",
        RecordType::A,
        &["portless.prod.svc.cluster.local. 30 IN A 10.244.0.9"],
        &[],
    );
    check("portless.prod.svc.cluster.local.", RecordType::SRV, &[], &[]);
    check_missing("empty.prod.svc.cluster.local.", ResponseCode::NXDomain);
}

#[test]
fn endpoints_have_their_host_names_or_their_addresses() {
    check(
        "db-0.db.prod.svc.cluster.local.",
        RecordType::A,
        &["db-0.db.prod.svc.cluster.local. 30 IN A 10.244.0.5"],
        &[],
    );
    check(
        "db-0.db.prod.svc.cluster.local.",
        RecordType::AAAA,
        &["db-0.db.prod.svc.cluster.local. 30 IN AAAA fd00:1::5"],
        &[],
    );
    check(
        "10-244-1-6.db.prod.svc.cluster.local.",
        RecordType::A,
        &["10-244-1-6.db.prod.svc.cluster.local. 30 IN A 10.244.1.6"],
        &[],
    );
    // Of a Service with an address of its own, too.
    check(
        "web-a.web.prod.svc.cluster.local.",
        RecordType::A,
        &["web-a.web.prod.svc.cluster.local. 30 IN A 10.244.0.8"],
        &[],
    );
    for name in ["db-2.db", "10-244-0-5.db", "db-1.db", "a.outside", "x.kubernetes"] {
        check_missing(&format!("{name}.prod.svc.cluster.local."), ResponseCode::NXDomain);
    }
}

#[test]
fn named_ports_have_service_records() {
    check(
        "_http._tcp.web.prod.svc.cluster.local.",
        RecordType::SRV,
        &["_http._tcp.web.prod.svc.cluster.local. 30 IN SRV 0 50 80 web.prod.svc.cluster.local."],
        &["web.prod.svc.cluster.local. 30 IN A 10.96.0.20", "web.prod.svc.cluster.local. 30 IN AAAA fd00::20"],
    );
    check(
        "_sql._tcp.db.prod.svc.cluster.local.",
        RecordType::SRV,
        &[
            "_sql._tcp.db.prod.svc.cluster.local. 30 IN SRV 0 33 5432 10-244-1-6.db.prod.svc.cluster.local.",
            "_sql._tcp.db.prod.svc.cluster.local. 30 IN SRV 0 33 5432 db-0.db.prod.svc.cluster.local.",
        ],
        &[
            "10-244-1-6.db.prod.svc.cluster.local. 30 IN A 10.244.1.6",
            "db-0.db.prod.svc.cluster.local. 30 IN A 10.244.0.5",
            "db-0.db.prod.svc.cluster.local. 30 IN AAAA fd00:1::5",
        ],
    );
    // Without a port: every one.
    check(
        "kubernetes.default.svc.cluster.local.",
        RecordType::SRV,
        &["kubernetes.default.svc.cluster.local. 30 IN SRV 0 100 443 kubernetes.default.svc.cluster.local."],
        &["kubernetes.default.svc.cluster.local. 30 IN A 10.96.0.1"],
    );
    assert_eq!(ask("web.prod.svc.cluster.local.", RecordType::SRV).answers.len(), 2);
    for name in ["_https._tcp.web", "_http._udp.web", "_sql._tcp.empty", "_http._tcp.outside", "_x._tcp.portless"] {
        check_missing(&format!("{name}.prod.svc.cluster.local."), ResponseCode::NXDomain);
    }
}

#[test]
fn addresses_have_names() {
    for (name, want) in [
        ("1.0.96.10.in-addr.arpa.", vec!["1.0.96.10.in-addr.arpa. 30 IN PTR kubernetes.default.svc.cluster.local."]),
        ("5.0.244.10.in-addr.arpa.", vec!["5.0.244.10.in-addr.arpa. 30 IN PTR db-0.db.prod.svc.cluster.local."]),
        ("6.1.244.10.in-addr.arpa.", vec!["6.1.244.10.in-addr.arpa. 30 IN PTR 10-244-1-6.db.prod.svc.cluster.local."]),
    ] {
        check(name, RecordType::PTR, &want, &[]);
    }
    let v6 = ask(&Name::from("fd00::20".parse::<IpAddr>().unwrap()).to_ascii(), RecordType::PTR);
    assert!(lines(&v6.answers)[0].ends_with(" IN PTR web.prod.svc.cluster.local."), "{v6}");
    // Not ready, of nobody, of a network, and not asked for as a pointer: somebody else may know.
    for (name, kind) in [
        ("7.1.244.10.in-addr.arpa.", RecordType::PTR),
        ("8.8.8.8.in-addr.arpa.", RecordType::PTR),
        ("244.10.in-addr.arpa.", RecordType::PTR),
        ("1.0.96.10.in-addr.arpa.", RecordType::A),
        ("example.com.", RecordType::A),
        ("local.", RecordType::SOA),
        ("mycluster.local.", RecordType::A),
    ] {
        let outcome = answers(cluster(), PodRecords::Insecure).answer(&question(name, kind));
        assert!(matches!(outcome, Outcome::Elsewhere), "{name}: {outcome:?}");
    }
    check("cluster.local.", RecordType::PTR, &[], &[]);
}

#[test]
fn an_address_of_several_services_has_the_name_of_one_endpoints_of_all() {
    let cluster = cluster();
    let slice = json!({"service": "other", "endpoints": [{"addresses": ["10.244.0.5"]}], "ports": []});
    cluster.slices.insert(object("prod", "other", slice));
    let Outcome::Answer(answer) =
        answers(cluster, PodRecords::Insecure).answer(&question("5.0.244.10.in-addr.arpa.", RecordType::PTR))
    else {
        panic!("it is known")
    };
    assert_eq!(
        lines(&answer.answers),
        [
            "5.0.244.10.in-addr.arpa. 30 IN PTR 10-244-0-5.other.prod.svc.cluster.local.",
            "5.0.244.10.in-addr.arpa. 30 IN PTR db-0.db.prod.svc.cluster.local.",
        ]
    );
}

#[test]
fn external_names_are_other_names() {
    let alias = "outside.prod.svc.cluster.local. 30 IN CNAME Example.com.";
    check("outside.prod.svc.cluster.local.", RecordType::CNAME, &[alias], &[]);
    let outcome =
        answers(cluster(), PodRecords::Insecure).answer(&question("outside.prod.svc.cluster.local.", RecordType::A));
    let Outcome::Alias(answer, target) = outcome else { panic!("{outcome:?}") };
    assert_eq!((lines(&answer.answers), target.to_ascii().as_str()), (vec![alias.to_owned()], "Example.com."));

    check(
        "twice.prod.svc.cluster.local.",
        RecordType::A,
        &[
            "inside.prod.svc.cluster.local. 30 IN CNAME web.prod.svc.cluster.local.",
            "twice.prod.svc.cluster.local. 30 IN CNAME inside.prod.svc.cluster.local.",
            "web.prod.svc.cluster.local. 30 IN A 10.96.0.20",
        ],
        &[],
    );
    let answer = ask("nowhere.prod.svc.cluster.local.", RecordType::A);
    assert_eq!((answer.response_code, answer.answers.len()), (ResponseCode::NXDomain, 1));
    assert_eq!(ask("loop.prod.svc.cluster.local.", RecordType::A).response_code, ResponseCode::ServFail);
    check_missing("number.prod.svc.cluster.local.", ResponseCode::NXDomain);
}

#[test]
fn a_name_that_leads_to_no_record_says_so_after_the_other_name() {
    let answer = ask("inside.prod.svc.cluster.local.", RecordType::MX);
    assert_eq!((answer.response_code, answer.answers.len(), answer.authorities.len()), (ResponseCode::NoError, 1, 1));
}

#[test]
fn pods_have_names_after_their_addresses() {
    let pod = "10-244-7-7.prod.pod.cluster.local. 30 IN A 10.244.7.7";
    check("10-244-7-7.prod.pod.cluster.local.", RecordType::A, &[pod], &[]);
    check("10-244-7-7.prod.pod.cluster.local.", RecordType::AAAA, &[], &[]);
    check(
        "fd00--7.prod.pod.cluster.local.",
        RecordType::AAAA,
        &["fd00--7.prod.pod.cluster.local. 30 IN AAAA fd00::7"],
        &[],
    );
    for name in ["10-244-7.prod", "web.prod", "10-244-7-7.nope", "a.10-244-7-7.prod"] {
        check_missing(&format!("{name}.pod.cluster.local."), ResponseCode::NXDomain);
    }
    let code = |mode, name: &str| {
        let name = format!("{name}.pod.cluster.local.");
        match answers(cluster(), mode).answer(&question(&name, RecordType::A)) {
            Outcome::Answer(answer) => answer.response_code,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(code(PodRecords::Disabled, "10-244-0-5.prod"), ResponseCode::NXDomain);
    assert_eq!(code(PodRecords::Verified, "10-244-0-5.prod"), ResponseCode::NoError);
    for other in ["10-244-0-5.default", "10-244-0-6.prod", "10-244-7-7.prod"] {
        assert_eq!(code(PodRecords::Verified, other), ResponseCode::NXDomain, "{other}");
    }
}

#[test]
fn the_zone_says_what_it_is() {
    check("dns-version.cluster.local.", RecordType::TXT, &["dns-version.cluster.local. 28800 IN TXT 1.1.0"], &[]);
    check(
        "cluster.local.",
        RecordType::SOA,
        &["cluster.local. 30 IN SOA ns.dns.cluster.local. hostmaster.cluster.local. 0 7200 1800 86400 30"],
        &[],
    );
    check(
        "cluster.local.",
        RecordType::NS,
        &["cluster.local. 30 IN NS kube-dns.kube-system.svc.cluster.local."],
        &["kube-dns.kube-system.svc.cluster.local. 30 IN A 10.96.0.10"],
    );
    check("ns.dns.cluster.local.", RecordType::A, &["ns.dns.cluster.local. 30 IN A 10.96.0.10"], &[]);
    let refused = ask("cluster.local.", RecordType::AXFR);
    assert_eq!((refused.response_code, refused.answers.len()), (ResponseCode::Refused, 0));
}

#[test]
fn what_exists_without_records_is_told_from_what_does_not() {
    for name in ["svc", "pod", "prod.svc", "prod.pod", "dns"] {
        check_missing(&format!("{name}.cluster.local."), ResponseCode::NoError);
    }
    for name in [
        "nope.svc",
        "nope.pod",
        "foo",
        "foo.bar",
        "web.nope.svc",
        "nope.prod.svc",
        "a.b.c.web.prod.svc",
        "kubernetes.default.svc.cluster.local.prod.svc",
    ] {
        check_missing(&format!("{name}.cluster.local."), ResponseCode::NXDomain);
    }
}

#[test]
fn before_everything_is_known_nothing_is_denied() {
    let cluster = Arc::new(Cluster::default());
    let answers = answers(cluster.clone(), PodRecords::Insecure);
    let code = |name: &str| match answers.answer(&question(name, RecordType::A)) {
        Outcome::Answer(answer) => (answer.response_code, answer.authorities.len()),
        other => panic!("{other:?}"),
    };
    assert_eq!(code("web.prod.svc.cluster.local."), (ResponseCode::ServFail, 1));
    cluster.set_synced();
    assert_eq!(code("web.prod.svc.cluster.local."), (ResponseCode::NXDomain, 1));
}

#[test]
fn changes_are_seen_at_once() {
    let cluster = cluster();
    let answers = answers(cluster.clone(), PodRecords::Insecure);
    let count = |name: &str| match answers.answer(&question(name, RecordType::A)) {
        Outcome::Answer(answer) => answer.answers.len(),
        other => panic!("{other:?}"),
    };
    assert_eq!(count("db.prod.svc.cluster.local."), 2);
    let slice = json!({"service": "db", "endpoints": [{"addresses": ["10.244.0.5"]}], "ports": []});
    cluster.slices.insert(object("prod", "db-v4", slice));
    assert_eq!(count("db.prod.svc.cluster.local."), 1);
    cluster.services.remove(&client::ObjectKey::new("prod", "db"));
    assert_eq!(count("db.prod.svc.cluster.local."), 0);
}

#[test]
fn every_address_comes_first_now_and_then() {
    let answers = answers(cluster(), PodRecords::Insecure);
    let mut first = HashSet::new();
    for _ in 0..200 {
        let Outcome::Answer(answer) = answers.answer(&question("db.prod.svc.cluster.local.", RecordType::A)) else {
            panic!("it is known")
        };
        first.insert(answer.answers[0].data.to_string());
    }
    assert_eq!(first.len(), 2);
}
