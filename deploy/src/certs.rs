//! `keelson certs`: every certificate of a cluster on this machine, and renewing them without downtime.
//!
//! Nothing is restarted: servers follow their certificates' files, and components their kubeconfigs.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use apimachinery::yaml;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use component_base::clock::{Clock as _, RealClock};
use component_base::pki::{Ca, Facts, Pair, facts};
use serde_json::{Value, json};

use crate::kubeconfig;
use crate::state::State;

/// The authorities of a cluster, by file name.
const AUTHORITIES: [&str; 2] = ["ca", "front-proxy-ca"];

/// A certificate and where it is.
pub struct Found {
    /// What `renew` calls it.
    pub name: String,
    pub file: PathBuf,
    pub facts: Facts,
    pem: String,
}

/// Where a cluster's certificates are: that of `keelson up`, or of a server's `--data-dir`.
#[derive(Clone, Debug)]
pub struct Place {
    /// Its root folder.
    pub root: PathBuf,
    /// Its certificates.
    pub pki: PathBuf,
}

impl Place {
    /// The cluster in this folder.
    pub fn new(root: &Path) -> Self {
        Self { root: root.into(), pki: root.join("pki") }
    }

    fn kubeconfigs(&self) -> Vec<PathBuf> {
        let mut files = entries(&self.root.join("kubeconfigs"));
        files.push(self.root.join("admin.kubeconfig"));
        files.retain(|file| file.is_file());
        files
    }
}

fn entries(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    files.sort();
    files
}

fn stem(file: &Path) -> String {
    file.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Every certificate: files of the PKI, what kubelets were given, and what kubeconfigs hold.
///
/// # Errors
/// A file that cannot be read.
pub fn find(place: &Place) -> anyhow::Result<Vec<Found>> {
    let mut found = Vec::new();
    let files = entries(&place.pki).into_iter().filter(|file| file.extension().is_some_and(|e| e == "crt"));
    let files = files.map(|file| (stem(&file), file));
    let nodes = entries(&place.root.join("nodes")).into_iter().flat_map(|node| {
        // What a kubelet was given is below its own folder, and has the same name on every node.
        let current = entries(&node.join("kubelet").join("pki")).into_iter();
        let current = current.filter(|file| stem(file).ends_with("-current"));
        current.map(move |file| (format!("{}/{}", stem(&node), stem(&file)), file))
    });
    for (name, file) in files.chain(nodes) {
        let pem = std::fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
        // A kubelet keeps certificate and key in one file, in this order.
        let facts = facts(&pem).with_context(|| format!("reading {}", file.display()))?;
        found.push(Found { name, file, facts, pem });
    }
    for file in place.kubeconfigs() {
        let config = read(&file)?;
        for user in config["users"].as_array().into_iter().flatten() {
            let Some(pem) = user["user"]["client-certificate-data"].as_str().and_then(decode) else { continue };
            let facts = facts(&pem).with_context(|| format!("reading {}", file.display()))?;
            found.push(Found { name: format!("{} (kubeconfig)", stem(&file)), file: file.clone(), facts, pem });
        }
    }
    Ok(found)
}

fn read(file: &Path) -> anyhow::Result<Value> {
    let text = std::fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
    yaml::parse(&text).map_err(|error| anyhow::anyhow!("{}: {error}", file.display()))
}

fn decode(text: &str) -> Option<String> {
    STANDARD.decode(text).ok().and_then(|bytes| String::from_utf8(bytes).ok())
}

fn subject(facts: &Facts) -> String {
    let groups: String = facts.organizations.iter().map(|group| format!("O={group},")).collect();
    format!("{groups}CN={}", facts.common_name)
}

/// How long until then, as kubectl writes ages.
fn residual(now: jiff::Timestamp, then: jiff::Timestamp) -> String {
    let seconds = then.as_second() - now.as_second();
    match seconds {
        ..=0 => "expired".to_string(),
        1..=7199 => format!("{}m", seconds / 60),
        7200..=172_799 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// The table of `keelson certs show`.
pub fn table(found: &[Found], now: jiff::Timestamp) -> String {
    let mut rows = vec![["CERTIFICATE", "SUBJECT", "ISSUER", "EXPIRES", "RESIDUAL", "FILE"].map(String::from)];
    for one in found {
        rows.push([
            one.name.clone(),
            subject(&one.facts),
            one.facts.issuer.clone(),
            one.facts.not_after.to_string(),
            residual(now, one.facts.not_after),
            one.file.display().to_string(),
        ]);
    }
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..6).map(width).collect();
    let line = |row: &[String; 6]| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("   ").trim_end().to_string() + "\n"
    };
    rows.iter().map(line).collect()
}

/// The same as JSON, for programs.
pub fn json(found: &[Found]) -> Value {
    let one = |one: &Found| {
        json!({
            "name": one.name, "file": one.file, "subject": subject(&one.facts), "issuer": one.facts.issuer,
            "notBefore": one.facts.not_before.to_string(), "notAfter": one.facts.not_after.to_string(),
            "authority": one.facts.is_authority, "names": one.facts.names,
        })
    };
    found.iter().map(one).collect()
}

/// Renews the named certificates, all that are no authorities when none is named; their names.
///
/// # Errors
/// An unknown name, an authority, or one whose authority is not here.
pub fn renew(place: &Place, names: &[String]) -> anyhow::Result<Vec<String>> {
    let mut authorities = Vec::new();
    for base in AUTHORITIES {
        if let Some(pair) = Pair::read(&place.pki, base)? {
            authorities.push(Ca::from_pem(pair)?);
        }
    }
    let found = find(place)?;
    let own: Vec<&Found> = found.iter().filter(|one| one.file.starts_with(&place.pki)).collect();
    for name in names {
        match own.iter().find(|one| one.name == *name) {
            None => {
                let known: Vec<&str> =
                    own.iter().filter(|one| !one.facts.is_authority).map(|one| one.name.as_str()).collect();
                bail!("no certificate is called {name:?}; there are: {}", known.join(", "));
            }
            Some(one) if one.facts.is_authority => {
                bail!("{name:?} is an authority: everything it signed would have to be made anew (keelson down, up)");
            }
            Some(_) => {}
        }
    }
    let mut renewed = Vec::new();
    for one in own.iter().filter(|one| !one.facts.is_authority) {
        if !names.is_empty() && !names.contains(&one.name) {
            continue;
        }
        let authority = authorities.iter().find(|authority| authority.signed(&one.pem));
        let authority = authority.with_context(|| format!("who signed {} is not here", one.file.display()))?;
        let pair = authority.again(&one.pem)?;
        pair.write(&place.pki, &one.name)?;
        for file in place.kubeconfigs() {
            replace(&file, &one.pem, &pair)?;
        }
        renewed.push(one.name.clone());
    }
    Ok(renewed)
}

/// Puts the new pair where a kubeconfig has the old certificate; whether it did.
fn replace(file: &Path, old: &str, new: &Pair) -> anyhow::Result<bool> {
    let mut config = read(file)?;
    let mut changed = false;
    for user in config["users"].as_array_mut().into_iter().flatten() {
        let user = &mut user["user"];
        if user["client-certificate-data"].as_str().and_then(decode).as_deref() == Some(old) {
            user["client-certificate-data"] = STANDARD.encode(&new.cert_pem).into();
            user["client-key-data"] = STANDARD.encode(&new.key_pem).into();
            changed = true;
        }
    }
    if changed {
        kubeconfig::write(file, &config)?;
    }
    Ok(changed)
}

/// `keelson certs show`.
///
/// # Errors
/// As [`find`].
pub fn run_show(place: &Place, as_json: bool) -> anyhow::Result<()> {
    let found = find(place)?;
    if found.is_empty() {
        bail!("there are no certificates in {}", place.pki.display());
    }
    if as_json {
        println!("{:#}", json(&found));
    } else {
        print!("{}", table(&found, RealClock::new().now()));
    }
    Ok(())
}

/// `keelson certs renew`.
///
/// # Errors
/// As [`renew`].
pub fn run_renew(place: &Place, names: &[String]) -> anyhow::Result<()> {
    let renewed = renew(place, names)?;
    for name in &renewed {
        println!("renewed {name}");
    }
    let state = State::default();
    if state.root == place.root
        && renewed.iter().any(|name| name == "admin")
        && let Some(user) = kubeconfig::user_file().filter(|file| file.is_file())
    {
        kubeconfig::merge(&user, &read(&place.root.join("admin.kubeconfig"))?)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::Pki;

    #[test]
    fn certificates_are_shown_and_renewed() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let place = Place::new(dir.path());
        let pki = Pki::open(&place.pki, &["127.0.0.1".to_owned()]).expect("made");
        pki.node("node-1", "172.30.0.11").expect("issued");
        let admin = pki.client("admin").expect("issued");
        let access = kubeconfig::Access {
            server: "https://127.0.0.1:6443",
            ca_pem: pki.ca_pem(),
            certificate_pem: &admin.cert_pem,
            key_pem: &admin.key_pem,
        };
        kubeconfig::write(&dir.path().join("admin.kubeconfig"), &kubeconfig::document(&access)).expect("written");
        let before = find(&place).expect("found");
        let later = RealClock::new().now() + jiff::SignedDuration::from_hours(1);
        let text = table(&before, later);
        for want in
            ["CN=system:node:node-1", "O=system:masters,CN=kubernetes-admin", "admin (kubeconfig)", "364d", "3649d"]
        {
            assert!(text.contains(want), "{want}: {text}");
        }
        assert_eq!(json(&before).as_array().map(Vec::len), Some(before.len()));

        let error = renew(&place, &["nope".to_owned()]).expect_err("no such certificate").to_string();
        assert!(error.contains("there are: admin, apiserver"), "{error}");
        assert!(renew(&place, &["ca".to_owned()]).is_err(), "an authority is not renewed");
        assert_eq!(renew(&place, &["admin".to_owned()]).expect("renewed"), ["admin"]);
        let after = find(&place).expect("found");
        for (old, new) in before.iter().zip(&after) {
            assert_eq!(old.pem != new.pem, old.name.starts_with("admin"), "{}", old.name);
            assert_eq!(old.facts.common_name, new.facts.common_name);
        }
        let all = renew(&place, &[]).expect("renewed");
        assert!(
            all.contains(&"front-proxy-client".to_owned()) && all.contains(&"kubelet-node-1".to_owned()),
            "{all:?}"
        );
        let last = find(&place).expect("found");
        let kubeconfig = last.iter().find(|one| one.name == "admin (kubeconfig)").expect("there");
        let file = last.iter().find(|one| one.name == "admin").expect("there");
        assert_eq!(kubeconfig.pem, file.pem, "the kubeconfig has what the file has");
        // What a kubelet was given is shown, and is the kubelet's to renew.
        let kept = dir.path().join("nodes/node-1/kubelet/pki");
        let given = pki.node("node-1", "172.30.0.11").expect("read");
        let store = component_base::pki::Store::new(&kept, "kubelet-server");
        store.update(&given, RealClock::new().now()).expect("written");
        let shown = find(&place).expect("found");
        assert!(shown.iter().any(|one| one.name == "node-1/kubelet-server-current"));
        assert!(renew(&place, &["node-1/kubelet-server-current".to_owned()]).is_err());
        for one in last.iter().filter(|one| !one.facts.is_authority && one.file.starts_with(&place.pki)) {
            let pair = Pair::read(&place.pki, &one.name).expect("read").expect("there");
            component_base::tls::ClientCert::from_pair(&pair).expect("key and certificate fit");
        }
    }
}
