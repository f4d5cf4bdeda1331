//! Writing kubeconfig files for components and people. Reading is `kube`'s.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use component_base::pki::Pair;
use serde_json::{Value, json};

/// How the user of a kubeconfig proves who they are.
#[derive(Debug, Clone)]
pub enum Credential {
    Certificate(Pair),
    Token(String),
}

/// A kubeconfig with one cluster, one user and one context, as a JSON value, which is YAML too.
pub fn value(context: &str, server: &str, ca_pem: &str, user: &str, credential: &Credential) -> Value {
    let encode = |text: &str| STANDARD.encode(text);
    let credential = match credential {
        Credential::Certificate(pair) => json!({
            "client-certificate-data": encode(&pair.cert_pem),
            "client-key-data": encode(&pair.key_pem),
        }),
        Credential::Token(token) => json!({ "token": token }),
    };
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{
            "name": context,
            "cluster": { "server": server, "certificate-authority-data": encode(ca_pem) },
        }],
        "users": [{ "name": user, "user": credential }],
        "contexts": [{ "name": context, "context": { "cluster": context, "user": user } }],
        "current-context": context,
    })
}

/// The same as YAML text in the layout kubeadm writes.
pub fn text(context: &str, server: &str, ca_pem: &str, user: &str, credential: &Credential) -> String {
    let quote = |text: &str| serde_json::to_string(text).expect("a string is JSON");
    let encode = |text: &str| STANDARD.encode(text);
    let (context, server, user) = (quote(context), quote(server), quote(user));
    let credential = match credential {
        Credential::Certificate(pair) => format!(
            "    client-certificate-data: {}\n    client-key-data: {}\n",
            encode(&pair.cert_pem),
            encode(&pair.key_pem)
        ),
        Credential::Token(token) => format!("    token: {}\n", quote(token)),
    };
    format!(
        "apiVersion: v1\nclusters:\n- cluster:\n    certificate-authority-data: {ca}\n    server: {server}\n  name: {context}\n\
         contexts:\n- context:\n    cluster: {context}\n    user: {user}\n  name: {context}\n\
         current-context: {context}\nkind: Config\nusers:\n- name: {user}\n  user:\n{credential}",
        ca = encode(ca_pem),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn kube_reads_what_is_written() {
        let ca = component_base::pki::Ca::new("kubernetes").unwrap();
        let pair = ca.issue(&component_base::pki::Profile::client("admin", &["system:masters"])).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config");
        let text = text("keelson", "https://127.0.0.1:6443", ca.cert_pem(), "admin", &Credential::Certificate(pair));
        std::fs::write(&path, text).unwrap();
        let client = crate::Client::from_kubeconfig(Some(&path), Some("keelson")).await.unwrap();
        assert_eq!(client.default_namespace(), "default");
        assert!(crate::Client::from_kubeconfig(Some(&path), Some("other")).await.is_err());
    }
}
