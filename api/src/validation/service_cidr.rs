//! ServiceCIDR and IPAddress (KEP-1880).

use apimachinery::field::{self, ErrorList, Path};
use apimachinery::names::{self, Messages};
use serde_json::Value;

use super::checks::{
    IMMUTABLE, dns1123_subdomain, immutable_struct, messages, name_is_subdomain, sloppy_ip, strict_cidr, strict_ip,
};
use super::{diff, object_meta};
use crate::read::Read;

pub(super) fn create(cidr: &Value, errors: &mut ErrorList) {
    object_meta::create(cidr, false, name_is_subdomain, errors);
    spec(&cidr["spec"], errors);
}

fn spec(spec: &Value, errors: &mut ErrorList) {
    let path = Path::new("spec").child("cidrs");
    let cidrs: Vec<&str> = spec.texts("cidrs").collect();
    if cidrs.is_empty() {
        errors.push(field::required(&path, "at least one CIDR required"));
        return;
    }
    if cidrs.len() > 2 {
        errors.push(field::invalid(&path, diff::shown("ServiceCIDRSpec", spec), "may only hold up to 2 values"));
        return;
    }
    for (i, cidr) in cidrs.iter().enumerate() {
        strict_cidr(cidr, &path.index(i), errors);
    }
    let family = |cidr: &str| cidr.split_once('/').and_then(|(ip, _)| sloppy_ip(ip)).map(|ip| ip.is_ipv4());
    if let [first, second] = cidrs[..]
        && let (Some(a), Some(b)) = (family(first), family(second))
        && a == b
    {
        let message = "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64";
        errors.push(field::invalid(&path, &spec["cidrs"], message));
    }
}

/// A second family may be added; what is there stays.
pub(super) fn update(new: &Value, old: &Value, errors: &mut ErrorList) {
    object_meta::update(new, old, errors);
    let path = Path::new("spec").child("cidrs");
    let of = |object: &Value| object["spec"].texts("cidrs").map(str::to_owned).collect::<Vec<_>>();
    let (now, before) = (of(new), of(old));
    let grows = before.len() == 1 && now.len() == 2;
    if now.len() != before.len() && !grows {
        errors.push(field::invalid(&path, &new["spec"]["cidrs"], IMMUTABLE));
        return;
    }
    for (i, (now, _)) in now.iter().zip(&before).enumerate().filter(|(_, (now, before))| now != before) {
        errors.push(field::invalid(&path.index(i), now, IMMUTABLE));
    }
    if grows {
        spec(&new["spec"], errors);
    }
}

/// An address in the one form that it is written in.
fn address_name(name: &str, _: bool) -> Messages {
    let mut errors = ErrorList::new();
    strict_ip(name, &Path::nil(), &mut errors);
    errors.into_iter().map(|error| error.detail).collect()
}

pub(super) fn address(address: &Value, errors: &mut ErrorList) {
    object_meta::create(address, false, address_name, errors);
    let path = Path::new("spec").child("parentRef");
    let Some(parent) = address["spec"].set("parentRef") else {
        errors.push(field::required(&path, ""));
        return;
    };
    if !parent.text("group").is_empty() {
        dns1123_subdomain(parent.text("group"), &path.child("group"), errors);
    }
    for name in ["resource", "name"] {
        super::checks::path_segment(parent.text(name), &path.child(name), errors);
    }
    let namespace = parent.text("namespace");
    messages(names::path_segment(namespace), namespace, &path.child("namespace"), errors);
}

pub(super) fn address_update(new: &Value, old: &Value, errors: &mut ErrorList) {
    address(new, errors);
    object_meta::update(new, old, errors);
    let path = Path::new("spec").child("parentRef");
    immutable_struct("ParentReference", &new["spec"]["parentRef"], &old["spec"]["parentRef"], &path, errors);
}
