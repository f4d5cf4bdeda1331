//! What it costs to decide whether somebody may, where many bindings could say so: the server's processor time for a
//! request of a user whom one of ten thousand bindings lets in, beyond that for the same request of an administrator
//! whom no binding is asked about.

use serde_json::json;

use super::{FILLERS, reads};
use crate::figures::AUTHORIZATION;
use crate::load::{self, Ask, Connection};
use crate::subject::{ControlPlane, Subject};
use crate::table::Table;

const BINDINGS: usize = 10_000;
const TOKEN: &str = "bench-reader-token";
const READER: &str = "bench-reader";
const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";

pub async fn run(subject: &Subject, table: &mut Table) -> anyhow::Result<()> {
    let tokens = tempfile::NamedTempFile::new()?;
    std::fs::write(tokens.path(), format!("{TOKEN},{READER},{READER}-uid\n"))?;
    let plane = ControlPlane::api(subject, &[format!("--token-auth-file={}", tokens.path().display())]).await?;
    let mut admin = Connection::open(&plane.endpoint).await?;
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "bench-reader"},
        "rules": [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"]}],
    });
    admin.send(&Ask::post(format!("{RBAC}/clusterroles"), &role)).await?;
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "read"}, "data": {"key": "value"}});
    admin.send(&Ask::post("/api/v1/namespaces/default/configmaps", &map)).await?;
    load::each(&plane.endpoint, FILLERS, BINDINGS, |number| {
        let user = if number == BINDINGS / 2 { READER.to_owned() } else { format!("somebody-{number}") };
        let binding = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
            "metadata": {"name": format!("binding-{number}")},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}],
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "bench-reader"},
        });
        Ask::post(format!("{RBAC}/namespaces/default/rolebindings"), &binding)
    })
    .await?;
    let path = "/api/v1/namespaces/default/configmaps/read";
    let reader = plane.endpoint.with_token(TOKEN, plane.path())?;
    let (_, administrators) = reads::get(&plane, &plane.endpoint, path).await?;
    let (_, readers) = reads::get(&plane, &reader, path).await?;
    table.set(subject.kind, AUTHORIZATION, (readers - administrators).max(0.0));
    plane.stop().await
}
