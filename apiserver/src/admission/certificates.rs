//! Who may approve, sign and attest: a right per signer, and one subject that no signer gives out.
//!
//! Upstream: `plugin/pkg/admission/certificates`.

use std::sync::Arc;

use apimachinery::object::ObjectExt as _;
use apimachinery::status::Status;
use async_trait::async_trait;
use base64::Engine as _;
use serde_json::Value;

use super::{Attributes, Name, Operation, Plugin};
use crate::authorization::{Attributes as Question, Decision};
use crate::request::UserInfo;
use crate::request::user::MASTERS;
use crate::server::Server;

const GROUP: &str = "certificates.k8s.io";
const API_CLIENT: &str = "kubernetes.io/kube-apiserver-client";

/// Approval of signing requests needs `approve` on the signer.
pub struct CertificateApproval;
/// Signing needs `sign` on the signer.
pub struct CertificateSigning;
/// Client certificates are not for `system:masters`.
pub struct CertificateSubjectRestriction;
/// Publishing a signer's trust bundle needs `attest` on the signer.
pub struct ClusterTrustBundleAttest;

/// The subject that a signing request asks for.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Subject {
    pub common_name: String,
    pub organizations: Vec<String>,
}

/// Reads the subject of a CertificateSigningRequest.
///
/// # Errors
/// Says what is wrong with the request's PEM or DER.
pub fn subject(object: &Value) -> Result<Subject, String> {
    use x509_parser::prelude::FromDer as _;
    let encoded = object.str_at(&["spec", "request"]).unwrap_or_default();
    let pem = base64::engine::general_purpose::STANDARD.decode(encoded).map_err(|error| error.to_string())?;
    let (_, block) =
        x509_parser::pem::parse_x509_pem(&pem).map_err(|_| "PEM block type must be CERTIFICATE REQUEST".to_string())?;
    if block.label != "CERTIFICATE REQUEST" {
        return Err("PEM block type must be CERTIFICATE REQUEST".to_string());
    }
    let (_, request) = x509_parser::certification_request::X509CertificationRequest::from_der(&block.contents)
        .map_err(|error| error.to_string())?;
    let name = &request.certification_request_info.subject;
    let text =
        |attribute: &x509_parser::x509::AttributeTypeAndValue<'_>| attribute.as_str().unwrap_or_default().to_string();
    Ok(Subject {
        common_name: name.iter_common_name().last().map(text).unwrap_or_default(),
        organizations: name.iter_organization().map(text).collect(),
    })
}

/// Whether a user may do this with a signer, or with all signers of its domain.
pub async fn may(server: &Server, user: &Arc<UserInfo>, verb: &str, signer: &str) -> bool {
    let domain = signer.split('/').next().unwrap_or_default();
    for name in [signer.to_string(), format!("{domain}/*")] {
        let question = Question {
            user: user.clone(),
            verb: verb.to_string(),
            group: GROUP.to_string(),
            version: "*".to_string(),
            resource: "signers".to_string(),
            name,
            is_resource: true,
            ..Question::default()
        };
        if matches!(server.authorizer.decide(&question).await, Decision::Allow(_)) {
            return true;
        }
    }
    false
}

fn is_request(attributes: &Attributes<'_>, subresource: &str, operation: Operation) -> bool {
    let resource = &attributes.served.resource;
    resource.group == GROUP
        && resource.plural == "certificatesigningrequests"
        && attributes.subresource == subresource
        && attributes.operation == operation
}

fn signer(object: &Value) -> &str {
    object.str_at(&["spec", "signerName"]).unwrap_or_default()
}

#[async_trait]
impl Plugin for CertificateApproval {
    fn resources(&self) -> &'static [Name] {
        &[(GROUP, "certificatesigningrequests")]
    }

    async fn validate(
        &self,
        server: &Arc<Server>,
        attributes: &Attributes<'_>,
        _: &Value,
        old: Option<&Value>,
    ) -> Result<(), Status> {
        let Some(old) = old.filter(|_| is_request(attributes, "approval", Operation::Update)) else { return Ok(()) };
        if may(server, attributes.user, "approve", signer(old)).await {
            return Ok(());
        }
        Err(attributes.forbidden(format!("user not permitted to approve requests with signerName {:?}", signer(old))))
    }
}

#[async_trait]
impl Plugin for CertificateSigning {
    fn resources(&self) -> &'static [Name] {
        &[(GROUP, "certificatesigningrequests")]
    }

    async fn validate(
        &self,
        server: &Arc<Server>,
        attributes: &Attributes<'_>,
        object: &Value,
        old: Option<&Value>,
    ) -> Result<(), Status> {
        let Some(old) = old.filter(|_| is_request(attributes, "status", Operation::Update)) else { return Ok(()) };
        let same = |path: &[&str]| {
            let given = |object: &Value| object.at(path).filter(|value| !value.is_null()).cloned();
            given(old) == given(object)
        };
        if (same(&["status", "certificate"]) && same(&["status", "conditions"]))
            || may(server, attributes.user, "sign", signer(old)).await
        {
            return Ok(());
        }
        Err(attributes.forbidden(format!("user not permitted to sign requests with signerName {:?}", signer(old))))
    }
}

#[async_trait]
impl Plugin for CertificateSubjectRestriction {
    fn resources(&self) -> &'static [Name] {
        &[(GROUP, "certificatesigningrequests")]
    }

    async fn validate(
        &self,
        _: &Arc<Server>,
        attributes: &Attributes<'_>,
        object: &Value,
        _: Option<&Value>,
    ) -> Result<(), Status> {
        if !is_request(attributes, "", Operation::Create) || signer(object) != API_CLIENT {
            return Ok(());
        }
        let subject = subject(object).map_err(|error| attributes.forbidden(format!("failed to parse CSR: {error}")))?;
        if subject.organizations.iter().any(|group| group == MASTERS) {
            return Err(attributes.forbidden(format!("use of {API_CLIENT} signer with {MASTERS} group is not allowed")));
        }
        Ok(())
    }
}

#[async_trait]
impl Plugin for ClusterTrustBundleAttest {
    fn resources(&self) -> &'static [Name] {
        &[(GROUP, "clustertrustbundles")]
    }

    async fn validate(
        &self,
        server: &Arc<Server>,
        attributes: &Attributes<'_>,
        object: &Value,
        old: Option<&Value>,
    ) -> Result<(), Status> {
        let resource = &attributes.served.resource;
        let concerns = resource.group == GROUP
            && resource.plural == "clustertrustbundles"
            && matches!(attributes.operation, Operation::Create | Operation::Update);
        if !concerns || signer(object).is_empty() {
            return Ok(());
        }
        // Storage migration and the garbage collector change nothing that was attested.
        if old.is_some_and(|old| old.get("spec") == object.get("spec")) {
            return Ok(());
        }
        if may(server, attributes.user, "attest", signer(object)).await {
            return Ok(());
        }
        Err(attributes.forbidden(format!("user not permitted to attest for signerName {:?}", signer(object))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn reads_the_subject() {
        let mut parameters = rcgen::CertificateParams::default();
        parameters.distinguished_name = rcgen::DistinguishedName::new();
        parameters.distinguished_name.push(rcgen::DnType::CommonName, "system:node:n1");
        parameters.distinguished_name.push(rcgen::DnType::OrganizationName, "system:nodes");
        let key = rcgen::KeyPair::generate().unwrap();
        let pem = parameters.serialize_request(&key).unwrap().pem().unwrap();
        let encoded = base64::engine::general_purpose::STANDARD.encode(pem);
        let subject = subject(&json!({"spec": {"request": encoded}})).unwrap();
        assert_eq!(subject.common_name, "system:node:n1");
        assert_eq!(subject.organizations, ["system:nodes"]);
        let bad = base64::engine::general_purpose::STANDARD.encode("nothing");
        assert!(super::subject(&json!({"spec": {"request": bad}})).is_err());
    }
}
