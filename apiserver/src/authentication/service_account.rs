//! ServiceAccount tokens: issued by TokenRequest, checked on every request that carries one.
//!
//! Claims, bindings and the user they give are upstream's (`pkg/serviceaccount/claims.go`): a
//! token bound to a pod, node or secret dies with it.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use component_base::clock::SharedClock;
use component_base::jwt::{self, PrivateKey, PublicKey};
use serde_json::{Value, json};

use super::Secrets;
use crate::request::UserInfo;

/// Who made the tokens that are kept in Secrets.
const LEGACY_ISSUER: &str = "kubernetes/serviceaccount";
const LEGACY_INVALID: &str = "kubernetes.io/legacy-token-invalid-since";
/// On a Secret: the day on which its token was used last.
pub const LEGACY_LAST_USED: &str = "kubernetes.io/legacy-token-last-used";

/// Notes the use of a kept token: namespace, name and day.
pub type Note = Arc<dyn Fn(&str, &str, &str) + Send + Sync>;

/// Finds the uid of an object that exists: resource, namespace, name.
pub type Lookup = Arc<dyn Fn(&str, &str, &str) -> Option<String> + Send + Sync>;

/// Why a token was refused. Only logged: the client learns 401.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("token")]
    Token(#[from] jwt::Error),
    #[error("issuer is not this cluster's")]
    Issuer,
    #[error("audiences do not match")]
    Audience,
    #[error("token has expired or is not valid yet")]
    Time,
    #[error("claims lack the service account")]
    Claims,
    #[error("{0} is gone or was recreated")]
    Gone(String),
}

/// Issues and checks tokens.
pub struct Tokens {
    /// `--service-account-issuer`; the first one issues, all are accepted.
    pub issuers: Vec<String>,
    /// `--api-audiences`.
    pub audiences: Vec<String>,
    /// `--service-account-signing-key-file`.
    pub signer: Option<PrivateKey>,
    /// `--service-account-key-file`.
    pub keys: Vec<PublicKey>,
    /// `--service-account-max-token-expiration`, in seconds; zero means none.
    pub max_expiration_seconds: i64,
    /// `--service-account-extend-token-expiration`.
    pub extend_expiration: bool,
    pub clock: SharedClock,
    /// Set once the store is there, both.
    pub lookup: std::sync::OnceLock<Lookup>,
    pub secrets: std::sync::OnceLock<Secrets>,
    /// Notes that the token in a Secret was used: namespace, name, day. Set once the server is there.
    pub note: std::sync::OnceLock<Note>,
}

/// What a token is bound to besides its service account.
#[derive(Clone, Debug, Default)]
pub struct Binding {
    /// Name and uid.
    pub pod: Option<(String, String)>,
    pub node: Option<(String, String)>,
    pub secret: Option<(String, String)>,
}

/// A token that was signed.
pub struct Issued {
    pub token: String,
    /// What the token is called in logs.
    pub id: String,
    /// In seconds since the epoch.
    pub expires: i64,
}

impl Tokens {
    /// Signs a token for a service account.
    ///
    /// # Errors
    /// When there is no signing key or signing fails.
    pub fn issue(
        &self,
        namespace: &str,
        (name, uid): (&str, &str),
        binding: &Binding,
        audiences: &[String],
        (seconds, warn_after): (i64, Option<i64>),
    ) -> Result<Issued, jwt::Error> {
        let signer = self.signer.as_ref().ok_or(jwt::Error::NoKey)?;
        let now = self.clock.now().as_second();
        let expires = now + seconds;
        let reference = |(name, uid): &(String, String)| json!({"name": name, "uid": uid});
        let mut kubernetes = json!({
            "namespace": namespace,
            "serviceaccount": {"name": name, "uid": uid},
        });
        for (key, object) in [("pod", &binding.pod), ("node", &binding.node), ("secret", &binding.secret)] {
            if let Some(object) = object {
                kubernetes[key] = reference(object);
            }
        }
        if let Some(after) = warn_after {
            kubernetes["warnafter"] = (now + after).into();
        }
        let id = uuid::Uuid::new_v4().to_string();
        let claims = json!({
            "aud": audiences,
            "exp": expires,
            "iat": now,
            "iss": self.issuers.first(),
            "jti": id,
            "kubernetes.io": kubernetes,
            "nbf": now,
            "sub": format!("system:serviceaccount:{namespace}:{name}"),
        });
        Ok(Issued { token: signer.sign(&claims)?, id, expires })
    }

    /// The user of a token, and which of the audiences asked for it is good for.
    ///
    /// # Errors
    /// Says what is wrong with it, for the log.
    pub fn verify(&self, token: &str, audiences: Option<&[String]>) -> Result<(UserInfo, Vec<String>), Error> {
        let claims = jwt::verify(token, &self.keys)?;
        let text = |value: &Value, path: &[&str]| -> Option<String> {
            let mut at = value;
            for part in path {
                at = at.get(part)?;
            }
            at.as_str().map(str::to_string)
        };
        if text(&claims, &["iss"]).as_deref() == Some(LEGACY_ISSUER) {
            return self.verify_legacy(token, &claims, audiences);
        }
        if !text(&claims, &["iss"]).is_some_and(|issuer| self.issuers.contains(&issuer)) {
            return Err(Error::Issuer);
        }
        let token_audiences: Vec<&str> = match claims.get("aud") {
            Some(Value::String(one)) => vec![one],
            Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        };
        let matching: Vec<String> = audiences
            .unwrap_or(&self.audiences)
            .iter()
            .filter(|wanted| token_audiences.contains(&wanted.as_str()))
            .cloned()
            .collect();
        if matching.is_empty() {
            return Err(Error::Audience);
        }
        let now = self.clock.now().as_second();
        let time = |name: &str| claims.get(name).and_then(Value::as_i64);
        if time("exp").is_none_or(|expires| now >= expires) || time("nbf").is_some_and(|start| now < start) {
            return Err(Error::Time);
        }
        let kubernetes = claims.get("kubernetes.io").ok_or(Error::Claims)?;
        let namespace = text(kubernetes, &["namespace"]).ok_or(Error::Claims)?;
        let name = text(kubernetes, &["serviceaccount", "name"]).ok_or(Error::Claims)?;
        let uid = text(kubernetes, &["serviceaccount", "uid"]).ok_or(Error::Claims)?;
        if text(&claims, &["sub"]) != Some(format!("system:serviceaccount:{namespace}:{name}")) {
            return Err(Error::Claims);
        }
        let mut extra = BTreeMap::new();
        let credential = text(&claims, &["jti"]).map(|id| format!("JTI={id}"));
        if let Some(credential) = credential {
            extra.insert("authentication.kubernetes.io/credential-id".to_string(), vec![credential]);
        }
        if let Some(lookup) = self.lookup.get() {
            let check = |resource: &str, namespace: &str, name: &str, uid: &str| match lookup(resource, namespace, name)
            {
                Some(have) if have == uid => Ok(()),
                _ => Err(Error::Gone(format!("{resource} {name}"))),
            };
            check("serviceaccounts", &namespace, &name, &uid)?;
            for (kind, resource) in [("pod", "pods"), ("secret", "secrets")] {
                if let (Some(name), Some(uid)) = (text(kubernetes, &[kind, "name"]), text(kubernetes, &[kind, "uid"])) {
                    check(resource, &namespace, &name, &uid)?;
                }
            }
            // A node named beside a pod is information; alone it is a binding.
            if kubernetes.get("pod").is_none()
                && let (Some(name), Some(uid)) =
                    (text(kubernetes, &["node", "name"]), text(kubernetes, &["node", "uid"]))
            {
                check("nodes", "", &name, &uid)?;
            }
        }
        for (kind, field) in [("pod", "name"), ("pod", "uid"), ("node", "name"), ("node", "uid")] {
            if let Some(value) = text(kubernetes, &[kind, field]) {
                extra.insert(format!("authentication.kubernetes.io/{kind}-{field}"), vec![value]);
            }
        }
        let user = UserInfo {
            name: format!("system:serviceaccount:{namespace}:{name}"),
            uid,
            groups: vec!["system:serviceaccounts".to_string(), format!("system:serviceaccounts:{namespace}")],
            extra,
        };
        Ok((user, matching))
    }

    /// Has the day noted on which a kept token was used, unless it is noted already. Another server's clock
    /// may be a little ahead.
    fn used(&self, namespace: &str, secret: &str, last: &str) {
        let today = self.clock.now().to_zoned(jiff::tz::TimeZone::UTC).date();
        let tomorrow = today.tomorrow().unwrap_or(today);
        if last != today.to_string()
            && last != tomorrow.to_string()
            && let Some(note) = self.note.get()
        {
            note(namespace, secret, &today.to_string());
        }
    }

    /// The user of a token that is kept in a Secret: as good as the Secret.
    fn verify_legacy(
        &self,
        token: &str,
        claims: &Value,
        audiences: Option<&[String]>,
    ) -> Result<(UserInfo, Vec<String>), Error> {
        let claim = |name: &str| {
            let claim = claims.get(format!("kubernetes.io/serviceaccount/{name}")).and_then(Value::as_str);
            claim.filter(|text| !text.is_empty()).ok_or(Error::Claims)
        };
        let (namespace, secret) = (claim("namespace")?, claim("secret.name")?);
        let (name, uid) = (claim("service-account.name")?, claim("service-account.uid")?);
        let user = format!("system:serviceaccount:{namespace}:{name}");
        if claims.get("sub").and_then(Value::as_str) != Some(&user) {
            return Err(Error::Claims);
        }
        // Such a token says nothing of audiences: it is for this server.
        let wanted = audiences.unwrap_or(&self.audiences);
        let matching: Vec<String> = wanted.iter().filter(|wanted| self.audiences.contains(wanted)).cloned().collect();
        if matching.is_empty() {
            return Err(Error::Audience);
        }
        let gone = |what: &str| Error::Gone(what.to_string());
        let kept = self.secrets.get().and_then(|find| find(namespace, secret));
        let kept = kept.filter(|kept| kept["metadata"].get("deletionTimestamp").is_none());
        let kept = kept.ok_or_else(|| gone("secret"))?;
        let label = |name: &str| kept["metadata"]["labels"][name].as_str().unwrap_or_default();
        if !label(LEGACY_INVALID).is_empty() {
            self.used(namespace, secret, label(LEGACY_LAST_USED));
            return Err(gone("secret, marked as invalid,"));
        }
        let bytes = kept["data"]["token"].as_str().and_then(|token| STANDARD.decode(token).ok());
        if bytes.as_deref() != Some(token.as_bytes()) {
            return Err(gone("token"));
        }
        let have = self.lookup.get().and_then(|lookup| lookup("serviceaccounts", namespace, name));
        if have.as_deref() != Some(uid) {
            return Err(gone("serviceaccount"));
        }
        self.used(namespace, secret, label(LEGACY_LAST_USED));
        let groups = vec!["system:serviceaccounts".to_string(), format!("system:serviceaccounts:{namespace}")];
        Ok((UserInfo { name: user, uid: uid.to_string(), groups, ..UserInfo::default() }, matching))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use component_base::clock::FakeClock;
    use std::time::Duration;

    #[test]
    fn bound_tokens_die_with_what_they_are_bound_to() {
        let clock = FakeClock::new(jiff::Timestamp::from_second(1_800_000_000).unwrap());
        let pair = rcgen::KeyPair::generate().unwrap();
        let signer = PrivateKey::from_pem(pair.serialize_pem().as_bytes()).unwrap();
        let tokens = Tokens {
            issuers: vec!["https://issuer".into()],
            audiences: vec!["api".into()],
            keys: vec![signer.public()],
            signer: Some(signer),
            max_expiration_seconds: 0,
            extend_expiration: false,
            clock: Arc::new(clock.clone()),
            lookup: std::sync::OnceLock::new(),
            secrets: std::sync::OnceLock::new(),
            note: std::sync::OnceLock::new(),
        };
        let alive = Arc::new(parking_lot::Mutex::new(true));
        let seen = alive.clone();
        let lookup: Lookup =
            Arc::new(move |resource, _, name| (resource != "pods" || *seen.lock()).then(|| format!("{name}-uid")));
        let _ = tokens.lookup.set(lookup);
        let binding = Binding { pod: Some(("web".into(), "web-uid".into())), ..Binding::default() };
        let token = tokens.issue("ns", ("sa", "sa-uid"), &binding, &["api".into()], (600, None)).unwrap().token;
        let (user, audiences) = tokens.verify(&token, None).unwrap();
        assert_eq!(user.name, "system:serviceaccount:ns:sa");
        assert_eq!(user.extra["authentication.kubernetes.io/pod-name"], ["web"]);
        assert_eq!(audiences, ["api"]);
        assert!(matches!(tokens.verify(&token, Some(&["other".into()])), Err(Error::Audience)));
        *alive.lock() = false;
        assert!(matches!(tokens.verify(&token, None), Err(Error::Gone(_))));
        *alive.lock() = true;
        clock.step(Duration::from_secs(601));
        assert!(matches!(tokens.verify(&token, None), Err(Error::Time)));
    }

    #[test]
    fn kept_tokens_are_as_good_as_their_secret() {
        let pair = rcgen::KeyPair::generate().unwrap();
        let signer = PrivateKey::from_pem(pair.serialize_pem().as_bytes()).unwrap();
        let claims = json!({
            "iss": LEGACY_ISSUER, "sub": "system:serviceaccount:ns:sa",
            "kubernetes.io/serviceaccount/namespace": "ns",
            "kubernetes.io/serviceaccount/secret.name": "kept",
            "kubernetes.io/serviceaccount/service-account.name": "sa",
            "kubernetes.io/serviceaccount/service-account.uid": "sa-uid",
        });
        let token = signer.sign(&claims).unwrap();
        let tokens = Tokens {
            issuers: vec!["https://issuer".into()],
            audiences: vec!["api".into()],
            keys: vec![signer.public()],
            signer: Some(signer),
            max_expiration_seconds: 0,
            extend_expiration: false,
            clock: component_base::clock::RealClock::shared(),
            lookup: std::sync::OnceLock::new(),
            secrets: std::sync::OnceLock::new(),
            note: std::sync::OnceLock::new(),
        };
        assert!(matches!(tokens.verify(&token, None), Err(Error::Gone(_))), "nothing is known yet");
        let secret =
            Arc::new(parking_lot::Mutex::new(json!({"metadata": {}, "data": {"token": STANDARD.encode(&token)}})));
        let seen = secret.clone();
        let find: Secrets = Arc::new(move |_, name| (name == "kept").then(|| seen.lock().clone()));
        let _ = tokens.secrets.set(find);
        let lookup: Lookup = Arc::new(|_, _, name| Some(format!("{name}-uid")));
        let _ = tokens.lookup.set(lookup);
        let noted = Arc::new(parking_lot::Mutex::new(Vec::new()));
        let list = noted.clone();
        let note: Note = Arc::new(move |namespace, name, day| list.lock().push(format!("{namespace}/{name} {day}")));
        let _ = tokens.note.set(note);
        let (user, audiences) = tokens.verify(&token, None).unwrap();
        let today = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).date().to_string();
        assert_eq!(*noted.lock(), [format!("ns/kept {today}")]);
        secret.lock()["metadata"]["labels"] = json!({LEGACY_LAST_USED: today});
        assert!(tokens.verify(&token, None).is_ok());
        assert_eq!(noted.lock().len(), 1, "it is noted already");
        assert_eq!((user.name.as_str(), audiences), ("system:serviceaccount:ns:sa", vec!["api".to_string()]));
        assert!(matches!(tokens.verify(&token, Some(&["other".into()])), Err(Error::Audience)));
        secret.lock()["metadata"]["labels"] = json!({LEGACY_INVALID: "2024-01-01"});
        assert!(tokens.verify(&token, None).is_err());
        *secret.lock() = json!({"metadata": {}, "data": {"token": ""}});
        assert!(tokens.verify(&token, None).is_err(), "it was taken back");
    }
}
