//! `keelson server`: the control plane in one process. The controllers and the scheduler call straight into
//! the API server's router; there is no socket between the parts.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::kubeconfig::{self, Access};
use crate::pki::Pki;
use crate::state::private_dir;

/// Names of the `kubernetes` Service: pods reach the API server by them.
pub const SERVICE_NAMES: [&str; 4] =
    ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"];
/// Issuer of ServiceAccount tokens, by kubeadm's convention.
const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

/// Where the API server keeps its objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Store {
    /// In its own data folder.
    Embedded,
    /// In an etcd.
    Etcd,
}

impl std::fmt::Display for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Store::Embedded => "embedded",
            Store::Etcd => "etcd",
        })
    }
}

/// The flags of `keelson server`.
#[derive(Args, Clone, Debug)]
pub struct ServerFlags {
    /// Folder of the store, of certificates that are not given, and of admin.kubeconfig
    #[arg(long)]
    pub data_dir: PathBuf,
    /// Port of the API
    #[arg(long, default_value_t = 6443)]
    pub secure_port: u16,
    /// Address to listen on
    #[arg(long, default_value = "127.0.0.1")]
    pub bind_address: IpAddr,
    /// Address that pods reach the API server at
    #[arg(long)]
    pub advertise_address: Option<IpAddr>,
    /// Folder of the certificates, by kubeadm's names; made where missing [default: DIR/pki]
    #[arg(long)]
    pub pki_dir: Option<PathBuf>,
    /// Where objects are kept
    #[arg(long, value_enum, default_value_t = Store::Embedded)]
    pub store: Store,
    /// URLs of the etcd, with --store etcd
    #[arg(long, value_delimiter = ',', default_value = "http://127.0.0.1:2379")]
    pub etcd_servers: Vec<String>,
    /// Addresses of Services
    #[arg(long, default_value = "10.96.0.0/16")]
    pub service_cluster_ip_range: ipnet::IpNet,
    /// Addresses of pods; every node gets a part of them [default: nodes get none]
    #[arg(long)]
    pub cluster_cidr: Option<ipnet::IpNet>,
    /// Verbosity of the log
    #[arg(short = 'v', long = "v", default_value_t = 0)]
    pub verbosity: i64,
}

impl ServerFlags {
    fn pki_dir(&self) -> PathBuf {
        self.pki_dir.clone().unwrap_or_else(|| self.data_dir.join("pki"))
    }

    /// What the API server's certificate is for.
    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = ["localhost", "127.0.0.1"].map(String::from).to_vec();
        names.extend(SERVICE_NAMES.map(String::from));
        names.extend(self.service_cluster_ip_range.hosts().next().map(|address| address.to_string()));
        names.extend(self.advertise_address.map(|address| address.to_string()));
        if !self.bind_address.is_unspecified() {
            names.push(self.bind_address.to_string());
        }
        names.sort();
        names.dedup();
        names
    }
}

/// Runs the control plane until `shutdown`.
pub async fn run(flags: ServerFlags, shutdown: CancellationToken) -> anyhow::Result<()> {
    let _ = (flags, shutdown, Access { server: "", ca_pem: "", certificate_pem: "", key_pem: "" }, private_dir(Path::new("")), kubeconfig::user_file());
    Ok(())
}
