//! The kubelet's own certificates, by CertificateSigningRequests: the first one with a bootstrap kubeconfig,
//! later ones before the present one ends.
//!
//! Files are upstream's: `kubelet-client-current.pem` is a link to the newest pair of certificate and key.
//! Upstream: `pkg/kubelet/certificate`, `client-go/util/certificate`.

pub mod bootstrap;
mod request;
mod rotation;

pub use component_base::pki::Store;
pub use request::{Ask, Error, certificate};
pub use rotation::Rotation;

/// The signer of kubelets' client certificates.
pub const CLIENT_SIGNER: &str = "kubernetes.io/kube-apiserver-client-kubelet";
/// The signer of kubelets' serving certificates.
pub const SERVING_SIGNER: &str = "kubernetes.io/kubelet-serving";

/// What a kubelet asks for as a client.
pub fn client_ask(node_name: &str) -> Ask {
    Ask {
        signer: CLIENT_SIGNER,
        usages: &["digital signature", "client auth"],
        common_name: format!("system:node:{node_name}"),
        names: Vec::new(),
    }
}

/// What it asks for as a server at these names and addresses.
pub fn serving_ask(node_name: &str, names: Vec<String>) -> Ask {
    Ask {
        signer: SERVING_SIGNER,
        usages: &["digital signature", "server auth"],
        common_name: format!("system:node:{node_name}"),
        names,
    }
}
