//! Answers from memory: what a name of the cluster's zone, or an address of the cluster, stands for.
//!
//! Nothing here waits, and nothing is kept between two questions.

mod name;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;

use client::Meta;
use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, CNAME, NS, PTR, SOA, SRV, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use rand::seq::SliceRandom;

use crate::cluster::Cluster;
use crate::config::PodRecords;
use crate::message;
use crate::objects::{EndpointSlice, Service};
use name::Subject;

/// The specification's version, which the zone tells in a TXT record.
const SCHEMA_VERSION: &str = "1.1.0";
/// Nobody needs to ask for that often.
const SCHEMA_TTL: u32 = 28_800;
/// A longer chain of other names for other names is a mistake.
const LONGEST_CHAIN: usize = 10;
/// What the SRV records of a name share.
const WEIGHT: u32 = 100;

/// What is to be done about a question.
#[derive(Debug)]
pub enum Outcome {
    /// This is the answer.
    Answer(Box<Message>),
    /// These names lead out of the cluster: the last is to be asked elsewhere, and what comes back added.
    Alias(Box<Message>, Name),
    /// It is not about the cluster: somebody else knows.
    Elsewhere,
}

/// Answers the questions about one cluster.
pub struct Answers {
    cluster: Arc<Cluster>,
    zone: Name,
    pods: PodRecords,
    ttl: u32,
    /// Where questions are asked, which is where the zone's name server is.
    addresses: Vec<IpAddr>,
}

/// There is no such name.
#[derive(Debug, PartialEq, Eq)]
struct NoSuchName;

/// What a name stands for.
#[derive(Debug, Default)]
enum Meaning {
    /// It exists, and has no records but those that its kind has.
    #[default]
    Nothing,
    Addresses(Vec<Entry>),
    /// Another name for this.
    Alias(Name),
}

/// An address, once for each of its ports.
#[derive(Debug)]
struct Entry {
    address: IpAddr,
    /// Absent where a Service has none.
    port: Option<u16>,
    /// The name of this address alone, which SRV records lead to.
    name: Name,
}

impl Answers {
    /// Answers for `zone`, asked at `addresses`.
    pub fn new(cluster: Arc<Cluster>, zone: Name, pods: PodRecords, ttl: u32, addresses: Vec<IpAddr>) -> Self {
        Self { cluster, zone, pods, ttl, addresses }
    }

    /// Whether what is not known does not exist.
    pub fn is_ready(&self) -> bool {
        self.cluster.is_synced()
    }

    /// What to do about a question.
    pub fn answer(&self, question: &Message) -> Outcome {
        let Some(query) = question.queries.first() else {
            return Outcome::Answer(Box::new(message::reply(question, ResponseCode::FormErr)));
        };
        let kind = query.query_type;
        if matches!(kind, RecordType::AXFR | RecordType::IXFR) {
            return Outcome::Answer(Box::new(message::reply(question, ResponseCode::Refused)));
        }
        let mut reply = message::reply(question, ResponseCode::NoError);
        reply.metadata.authoritative = true;
        if kind == RecordType::PTR
            && let Some(address) = name::address(&query.name)
        {
            reply.answers = self.pointers(&query.name, address);
            // Pods' addresses are not a zone of ours, whatever else has such addresses may be known elsewhere.
            return if reply.answers.is_empty() { Outcome::Elsewhere } else { Outcome::Answer(Box::new(reply)) };
        }
        if !self.zone.zone_of(&query.name) {
            return Outcome::Elsewhere;
        }
        self.own(&query.name, kind, reply)
    }

    /// Answers for a name of the zone, by way of other names for as long as those are of the zone too.
    fn own(&self, asked: &Name, kind: RecordType, mut reply: Message) -> Outcome {
        let mut name = asked.clone();
        loop {
            let subject = Subject::of(&name, &self.zone);
            let meaning = match self.meaning(&subject) {
                Ok(meaning) => meaning,
                Err(NoSuchName) => {
                    // Before everything has been received, what is not known may well be.
                    let synced = self.cluster.is_synced();
                    reply.metadata.response_code = if synced { ResponseCode::NXDomain } else { ResponseCode::ServFail };
                    break;
                }
            };
            match meaning {
                Meaning::Alias(target) => {
                    let seen = target == name || reply.answers.iter().any(|record| record.name == target);
                    reply.answers.push(self.record(name, RData::CNAME(CNAME(target.clone()))));
                    if matches!(kind, RecordType::CNAME | RecordType::ANY) {
                        break;
                    }
                    if seen || reply.answers.len() > LONGEST_CHAIN {
                        reply.metadata.response_code = ResponseCode::ServFail;
                        break;
                    }
                    if !self.zone.zone_of(&target) {
                        return Outcome::Alias(Box::new(reply), target);
                    }
                    name = target;
                }
                Meaning::Addresses(entries) => {
                    match kind {
                        RecordType::SRV => self.services(&name, &entries, &mut reply),
                        _ => reply.answers.extend(self.addresses(&name, &entries, kind)),
                    }
                    break;
                }
                Meaning::Nothing => {
                    self.special(&name, &subject, kind, &mut reply);
                    break;
                }
            }
        }
        // What is not there is said with how long that may be believed (RFC 2308).
        if reply.answers.last().is_none_or(|last| last.record_type() == RecordType::CNAME && kind != RecordType::CNAME)
        {
            reply.authorities.push(self.authority());
        }
        Outcome::Answer(Box::new(reply))
    }

    /// What the zone says of itself.
    fn special(&self, name: &Name, subject: &Subject, kind: RecordType, reply: &mut Message) {
        match (subject, kind) {
            (Subject::Apex, RecordType::SOA) => reply.answers.push(self.authority()),
            (Subject::Apex, RecordType::NS) => {
                let server = self.name_server();
                reply.answers.push(self.record(name.clone(), RData::NS(NS(server.clone()))));
                reply.additionals.extend(self.addresses.iter().map(|ip| self.record(server.clone(), data(*ip))));
            }
            (Subject::SchemaVersion, RecordType::TXT) => {
                let text = TXT::new(vec![SCHEMA_VERSION.to_owned()]);
                reply.answers.push(Record::from_rdata(name.clone(), SCHEMA_TTL, RData::TXT(text)));
            }
            _ => {}
        }
    }

    fn meaning(&self, subject: &Subject) -> Result<Meaning, NoSuchName> {
        match subject {
            Subject::Apex | Subject::Branch | Subject::SchemaVersion => Ok(Meaning::Nothing),
            Subject::NameServer => {
                let name = self.name(&["ns", "dns"])?;
                let entry = |address: &IpAddr| Entry { address: *address, port: None, name: name.clone() };
                Ok(Meaning::Addresses(self.addresses.iter().map(entry).collect()))
            }
            Subject::Namespace(namespace) => {
                if self.cluster.has_namespace(namespace) {
                    Ok(Meaning::Nothing)
                } else {
                    Err(NoSuchName)
                }
            }
            Subject::Pod { namespace, name } => self.pod(namespace, name),
            Subject::Service { namespace, service } => self.service(namespace, service, None, None),
            Subject::Endpoint { namespace, service, hostname } => {
                self.service(namespace, service, Some(hostname), None)
            }
            Subject::Port { namespace, service, port, protocol } => {
                self.service(namespace, service, None, Some((port, protocol)))
            }
            Subject::Unknown => Err(NoSuchName),
        }
    }

    fn pod(&self, namespace: &str, name: &str) -> Result<Meaning, NoSuchName> {
        let address = name::dashed(name).ok_or(NoSuchName)?;
        let exists = match self.pods {
            PodRecords::Disabled => false,
            PodRecords::Insecure => self.cluster.has_namespace(namespace),
            PodRecords::Verified => self.cluster.has_pod(namespace, address),
        };
        if !exists {
            return Err(NoSuchName);
        }
        let name = self.name(&[name, namespace, "pod"])?;
        Ok(Meaning::Addresses(vec![Entry { address, port: None, name }]))
    }

    /// A Service, one of its endpoints, or one of its ports by name and protocol.
    fn service(
        &self,
        namespace: &str,
        service: &str,
        hostname: Option<&str>,
        port: Option<(&str, &str)>,
    ) -> Result<Meaning, NoSuchName> {
        let found = self.cluster.service(namespace, service).ok_or(NoSuchName)?;
        if found.spec.kind == "ExternalName" {
            // It has no endpoints, and no ports that anybody could vouch for.
            if hostname.is_some() || port.is_some() {
                return Err(NoSuchName);
            }
            return name::external(&found.spec.external_name).map(Meaning::Alias).ok_or(NoSuchName);
        }
        let wanted = |name: &str, protocol: &str| {
            port.is_none_or(|(p, q)| name.eq_ignore_ascii_case(p) && protocol.eq_ignore_ascii_case(q))
        };
        let entries = if found.is_headless() || hostname.is_some() {
            self.endpoints(&found, hostname, wanted)?
        } else {
            self.cluster_addresses(&found, wanted)?
        };
        if entries.is_empty() { Err(NoSuchName) } else { Ok(Meaning::Addresses(entries)) }
    }

    fn cluster_addresses(
        &self,
        service: &Service,
        wanted: impl Fn(&str, &str) -> bool,
    ) -> Result<Vec<Entry>, NoSuchName> {
        let name = self.name(&[service.name(), service.namespace(), "svc"])?;
        let spec = &service.spec;
        let mut ports: Vec<Option<u16>> =
            spec.ports.iter().filter(|port| wanted(&port.name, &port.protocol)).map(|port| Some(port.port)).collect();
        if spec.ports.is_empty() && wanted("", "") {
            ports.push(None);
        }
        let addresses: Vec<IpAddr> = service.addresses().filter_map(|ip| ip.parse().ok()).collect();
        let each = |port: Option<u16>| {
            let name = &name;
            addresses.iter().map(move |address| Entry { address: *address, port, name: name.clone() })
        };
        Ok(ports.into_iter().flat_map(each).collect())
    }

    fn endpoints(
        &self,
        service: &Service,
        hostname: Option<&str>,
        wanted: impl Fn(&str, &str) -> bool,
    ) -> Result<Vec<Entry>, NoSuchName> {
        let mut entries = Vec::new();
        for slice in self.cluster.slices_of(service.namespace(), service.name()) {
            let ports = ports(&slice, &wanted);
            for (address, own) in slice_addresses(&slice) {
                if hostname.is_some_and(|hostname| !hostname.eq_ignore_ascii_case(&own)) {
                    continue;
                }
                // A host name that is no label is nobody's name.
                let Ok(name) = self.name(&[&own, service.name(), service.namespace(), "svc"]) else { continue };
                entries.extend(ports.iter().map(|port| Entry { address, port: *port, name: name.clone() }));
            }
        }
        Ok(entries)
    }

    /// The names of an address: that of the Service that has it, else those of all endpoints that do.
    fn pointers(&self, asked: &Name, address: IpAddr) -> Vec<Record> {
        let mut names: Vec<Name> = Vec::new();
        let services = self.cluster.services_at(address);
        match services.iter().min_by_key(|service| service.key()) {
            Some(service) => names.extend(self.name(&[service.name(), service.namespace(), "svc"])),
            None => {
                for slice in self.cluster.slices_at(address) {
                    for (_, own) in slice_addresses(&slice).into_iter().filter(|(ip, _)| *ip == address) {
                        if !slice.service().is_empty() {
                            names.extend(self.name(&[&own, slice.service(), slice.namespace(), "svc"]));
                        }
                    }
                }
            }
        }
        names.sort();
        names.dedup();
        names.into_iter().map(|name| self.record(asked.clone(), RData::PTR(PTR(name)))).collect()
    }

    /// Address records of one family, each address once, in an order of its own every time: whoever takes the first
    /// spreads what it asks for.
    fn addresses(&self, name: &Name, entries: &[Entry], kind: RecordType) -> Vec<Record> {
        let mut seen = HashSet::new();
        let of_kind = |ip: &IpAddr| if ip.is_ipv4() { kind == RecordType::A } else { kind == RecordType::AAAA };
        let mut records: Vec<Record> = entries
            .iter()
            .map(|entry| entry.address)
            .filter(|ip| of_kind(ip) && seen.insert(*ip))
            .map(|ip| self.record(name.clone(), data(ip)))
            .collect();
        records.shuffle(&mut rand::rng());
        records
    }

    /// A record for each port, and the addresses that they lead to.
    fn services(&self, name: &Name, entries: &[Entry], reply: &mut Message) {
        let count = u32::try_from(entries.len()).unwrap_or(WEIGHT).max(1);
        let weight = u16::try_from(WEIGHT / count).unwrap_or(1).max(1);
        let (mut targets, mut addresses) = (HashSet::new(), HashSet::new());
        for entry in entries {
            let Some(port) = entry.port else { continue };
            if targets.insert((&entry.name, port)) {
                let data = SRV::new(0, weight, port, entry.name.clone());
                reply.answers.push(self.record(name.clone(), RData::SRV(data)));
            }
            if addresses.insert((&entry.name, entry.address)) {
                reply.additionals.push(self.record(entry.name.clone(), data(entry.address)));
            }
        }
    }

    /// The name of who answers: the Service that has the address where questions are asked, or one made up for it.
    fn name_server(&self) -> Name {
        let services = self.addresses.iter().flat_map(|address| self.cluster.services_at(*address));
        let service = services.min_by_key(|service| service.key());
        let name = match &service {
            Some(service) => self.name(&[service.name(), service.namespace(), "svc"]),
            None => self.name(&["ns", "dns"]),
        };
        name.unwrap_or_else(|_| self.zone.clone())
    }

    fn authority(&self) -> Record {
        let name = |label: &[&str]| self.name(label).unwrap_or_else(|_| self.zone.clone());
        let (server, mailbox) = (name(&["ns", "dns"]), name(&["hostmaster"]));
        let soa = SOA::new(server, mailbox, self.cluster.serial(), 7200, 1800, 86_400, self.ttl);
        Record::from_rdata(self.zone.clone(), self.ttl.min(300), RData::SOA(soa))
    }

    fn record(&self, name: Name, data: RData) -> Record {
        Record::from_rdata(name, self.ttl, data)
    }

    /// A name of the zone.
    fn name(&self, labels: &[&str]) -> Result<Name, NoSuchName> {
        let labels = labels.iter().map(|label| label.as_bytes());
        let name = Name::from_labels(labels).and_then(|name| name.append_domain(&self.zone));
        name.map_err(|_| NoSuchName)
    }
}

/// The ports of a slice that are wanted, one that is none if the slice has no ports at all.
fn ports(slice: &EndpointSlice, wanted: &impl Fn(&str, &str) -> bool) -> Vec<Option<u16>> {
    if slice.ports.is_empty() {
        return if wanted("", "") { vec![None] } else { Vec::new() };
    }
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    slice.ports.iter().filter(|port| wanted(&text(&port.name), &text(&port.protocol))).map(|port| port.port).collect()
}

/// The addresses of a slice's ready endpoints, each with the label that names it.
fn slice_addresses(slice: &EndpointSlice) -> Vec<(IpAddr, String)> {
    let of = |endpoint: &crate::objects::Endpoint| {
        let hostname = endpoint.hostname.clone().filter(|hostname| !hostname.is_empty());
        let addresses = endpoint.addresses.iter().filter_map(|ip| ip.parse::<IpAddr>().ok());
        addresses.map(|ip| (ip, hostname.clone().unwrap_or_else(|| name::label(ip)))).collect::<Vec<_>>()
    };
    slice.ready().flat_map(of).collect()
}

fn data(address: IpAddr) -> RData {
    match address {
        IpAddr::V4(address) => RData::A(A(address)),
        IpAddr::V6(address) => RData::AAAA(AAAA(address)),
    }
}
