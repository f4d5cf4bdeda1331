//! The certificates of a cluster, under the file names that kubeadm gives them, and the identities that
//! upstream's components have. Made once; a second call reads what is there and makes what is missing.

use std::path::{Path, PathBuf};

use component_base::pki::{Ca, Error, Pair, Profile, SigningKey, Usage};

use crate::kubeconfig::{self, Access};

/// A component's client identity: (file name, user, groups), as upstream's certificates name them.
const CLIENTS: &[(&str, &str, &[&str])] = &[
    ("admin", "kubernetes-admin", &["system:masters"]),
    ("apiserver-kubelet-client", "kube-apiserver-kubelet-client", &[]),
    ("controller-manager", "system:kube-controller-manager", &[]),
    ("scheduler", "system:kube-scheduler", &[]),
    ("kube-proxy", "system:kube-proxy", &[]),
    ("keelson-dns", "system:coredns", &[]),
];

/// The certificate, and the name in it, with which the API server is the front proxy of extension servers.
pub const FRONT_PROXY: &str = "front-proxy-client";

/// The certificates of one cluster.
pub struct Pki {
    dir: PathBuf,
    ca: Ca,
}

impl Pki {
    /// Opens or makes the authority, the signing key for ServiceAccount tokens, the API server's
    /// certificate for `names`, and every component's client certificate.
    pub fn open(dir: &Path, names: &[String]) -> Result<Pki, Error> {
        let pki = Pki { dir: dir.into(), ca: Ca::load_or_create(dir, "ca", "kubernetes")? };
        SigningKey::load_or_create(dir, "sa")?;
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        pki.pair("apiserver", || Profile::server("kube-apiserver", &names))?;
        for (file, user, groups) in CLIENTS {
            pki.pair(file, || Profile::client(user, groups))?;
        }
        // An authority of its own: whoever it vouches for may say who any user is.
        let front = Ca::load_or_create(dir, "front-proxy-ca", "front-proxy-ca")?;
        if Pair::read(dir, FRONT_PROXY)?.is_none() {
            front.issue(&Profile::client(FRONT_PROXY, &[]))?.write(dir, FRONT_PROXY)?;
        }
        Ok(pki)
    }

    /// The certificate with which a kubelet is both client and server, as `system:node:NAME`.
    pub fn node(&self, name: &str, address: &str) -> Result<Pair, Error> {
        self.pair(&format!("kubelet-{name}"), || Profile {
            sans: vec![name.to_owned(), address.to_owned()],
            usage: Usage::Both,
            ..Profile::client(&format!("system:node:{name}"), &["system:nodes"])
        })
    }

    /// A component's client certificate; see `CLIENTS` for the names.
    pub fn client(&self, file: &str) -> Result<Pair, Error> {
        let known = CLIENTS.iter().find(|(name, ..)| *name == file);
        let (file, user, groups) = known.expect("only names of the list are asked for");
        self.pair(file, || Profile::client(user, groups))
    }

    /// The authority itself, which signs what nodes ask for.
    pub fn ca_pair(&self) -> &Pair {
        self.ca.pair()
    }

    pub fn ca_pem(&self) -> &str {
        self.ca.cert_pem()
    }

    /// The path of a file of this folder.
    pub fn path(&self, file: &str) -> PathBuf {
        self.dir.join(file)
    }

    fn pair(&self, file: &str, profile: impl FnOnce() -> Profile) -> Result<Pair, Error> {
        if let Some(pair) = Pair::read(&self.dir, file)? {
            return Ok(pair);
        }
        let pair = self.ca.issue(&profile())?;
        pair.write(&self.dir, file)?;
        Ok(pair)
    }
}

/// Writes certificates for an API server at `server`, and `admin.kubeconfig`, into `dir`: what a component
/// that is started by hand needs.
pub fn write(dir: &Path, server: &url::Url) -> anyhow::Result<()> {
    let mut names: Vec<String> = ["localhost", "127.0.0.1"].map(String::from).to_vec();
    names.extend(crate::server::SERVICE_NAMES.map(String::from));
    names.extend(server.host_str().map(String::from));
    names.sort();
    names.dedup();
    crate::state::private_dir(dir)?;
    let pki = Pki::open(dir, &names)?;
    let admin = pki.client("admin")?;
    let access = Access {
        server: server.as_str().trim_end_matches('/'),
        ca_pem: pki.ca_pem(),
        certificate_pem: &admin.cert_pem,
        key_pem: &admin.key_pem,
    };
    kubeconfig::write(&dir.join("admin.kubeconfig"), &kubeconfig::document(&access))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_opening_changes_nothing() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let names = vec!["127.0.0.1".to_owned(), "kubernetes".to_owned()];
        let first = Pki::open(dir.path(), &names).expect("made");
        let node = first.node("node-1", "172.30.0.11").expect("issued");
        let read = |file: &str| std::fs::read_to_string(dir.path().join(file)).expect("there");
        let before = ["ca.crt", "sa.key", "apiserver.crt", "admin.key"].map(read);
        let second = Pki::open(dir.path(), &names).expect("read");
        assert_eq!(["ca.crt", "sa.key", "apiserver.crt", "admin.key"].map(read), before);
        assert_eq!(second.node("node-1", "172.30.0.11").expect("read").cert_pem, node.cert_pem);
    }
}
