//! Tokens of other issuers: OpenID Connect, by `--authentication-config` or the older `--oidc-*` flags.
//!
//! An issuer's keys are read when a token names one that is not known, at most every few seconds.
//! Upstream: `apiserver/plugin/pkg/authenticator/token/oidc`.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cel::{Activation, DeclType, Env, MAX_REQUEST_BYTES, PER_CALL_LIMIT, Program};
use component_base::clock::SharedClock;
use component_base::jwt::{self, PublicKey};
use component_base::tls;
use rustls::ClientConfig;
use serde_json::{Value, json};

use crate::remote;
use crate::request::UserInfo;

/// How long an issuer is left in peace after its keys were read.
const PEACE: Duration = Duration::from_secs(1);
/// How far the clocks may differ when a token is not valid yet.
const LEEWAY: i64 = 300;

/// Where the certificates are that a system trusts.
const SYSTEM_ROOTS: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// Where a user's attribute comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mapping {
    Claim { name: String, prefix: String },
    Expression(String),
}

/// What must hold of the claims.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClaimRule {
    Equals { claim: String, value: String },
    Expression { text: String, message: String },
}

/// One issuer, and what its tokens mean.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    pub url: String,
    /// Where its discovery document is, if not below its URL.
    pub discovery_url: String,
    /// Who signs its serving certificate, in PEM; the system's authorities when empty.
    pub authority: String,
    pub audiences: Vec<String>,
    pub username: Mapping,
    pub groups: Option<Mapping>,
    pub uid: Option<Mapping>,
    /// Keys and expressions.
    pub extra: Vec<(String, String)>,
    pub claim_rules: Vec<ClaimRule>,
    /// Expressions and messages.
    pub user_rules: Vec<(String, String)>,
}

enum Source {
    Claim { name: String, prefix: String },
    Program(Program),
}

/// Why a token was refused.
#[derive(Debug, PartialEq, Eq)]
pub enum Refused {
    /// By a key that is not known (yet).
    UnknownKey,
    Because(String),
}

impl From<String> for Refused {
    fn from(why: String) -> Self {
        Refused::Because(why)
    }
}

/// An issuer whose tokens are accepted.
pub struct Issuer {
    options: Options,
    username: Source,
    groups: Option<Source>,
    uid: Option<Source>,
    extra: Vec<(String, Program)>,
    /// Each with what is said when it does not hold.
    claim_rules: Vec<(Program, String)>,
    user_rules: Vec<(Program, String)>,
    user_type: Arc<DeclType>,
    tls: Arc<ClientConfig>,
    clock: SharedClock,
    keys: ArcSwap<Vec<PublicKey>>,
    /// When the keys were read last.
    read: tokio::sync::Mutex<Option<Duration>>,
}

fn user_type() -> Arc<DeclType> {
    let list = || DeclType::list(DeclType::string(), MAX_REQUEST_BYTES);
    DeclType::object(
        "kubernetes.UserInfo",
        [
            ("username", DeclType::string()),
            ("uid", DeclType::string()),
            ("groups", list()),
            ("extra", DeclType::map(list(), MAX_REQUEST_BYTES)),
        ],
    )
}

fn failed(text: &str, message: &str) -> String {
    format!("validation expression '{text}' failed: {message}")
}

/// Whether an expression reads this claim.
fn reads(expression: &str, claim: &str) -> bool {
    expression.match_indices(claim).any(|(at, _)| {
        let next = expression[at + claim.len()..].chars().next();
        next.is_none_or(|c| !c.is_ascii_alphanumeric() && c != '_')
    })
}

impl Issuer {
    /// An issuer by these options.
    ///
    /// # Errors
    /// Expressions that do not compile, authorities that cannot be read.
    pub fn new(options: Options, clock: SharedClock) -> Result<Self, String> {
        let claims = DeclType::map(DeclType::dynamic(), MAX_REQUEST_BYTES);
        let user_type = user_type();
        let of_claims = Env::new().declared("claims", &claims);
        let of_user = Env::new().declared("user", &user_type).sizes(user_type.clone());
        let compile = |env: &Env, text: &str, condition: bool| {
            let program = env.compile(text).map_err(|error| format!("{text:?}: compilation failed: {error}"))?;
            if condition && program.output_type() != &cel::Type::Bool {
                return Err(format!("{text:?}: must evaluate to bool"));
            }
            Ok(program)
        };
        let source = |mapping: &Mapping| {
            Ok::<_, String>(match mapping.clone() {
                Mapping::Claim { name, prefix } => Source::Claim { name, prefix },
                Mapping::Expression(text) => Source::Program(compile(&of_claims, &text, false)?),
            })
        };
        if let Mapping::Expression(username) = &options.username
            && reads(username, "claims.email")
        {
            let rules = options.claim_rules.iter().filter_map(|rule| match rule {
                ClaimRule::Expression { text, .. } => Some(text),
                ClaimRule::Equals { .. } => None,
            });
            let mut all = options.extra.iter().map(|(_, text)| text).chain(rules).chain([username]);
            if !all.any(|text| reads(text, "claims.email_verified")) {
                return Err("claimMappings.username.expression: claims.email_verified must be used in claimMappings.username.expression or claimMappings.extra[*].valueExpression or claimValidationRules[*].expression when claims.email is used in claimMappings.username.expression".to_string());
            }
        }
        let mut claim_rules = Vec::new();
        for rule in &options.claim_rules {
            if let ClaimRule::Expression { text, message } = rule {
                claim_rules.push((compile(&of_claims, text, true)?, failed(text, message)));
            }
        }
        let user_rules = options.user_rules.iter();
        let user_rules = user_rules
            .map(|(text, message)| Ok((compile(&of_user, text, true)?, failed(text, message))))
            .collect::<Result<_, String>>()?;
        let extra = options.extra.iter();
        let extra = extra
            .map(|(key, text)| Ok((key.clone(), compile(&of_claims, text, false)?)))
            .collect::<Result<_, String>>()?;
        let authority = if options.authority.is_empty() {
            SYSTEM_ROOTS.iter().find_map(|path| std::fs::read_to_string(path).ok()).unwrap_or_default()
        } else {
            options.authority.clone()
        };
        let tls = tls::client_config(authority.as_bytes(), None)
            .map_err(|error| format!("issuer.certificateAuthority: {error}"))?;
        Ok(Self {
            username: source(&options.username)?,
            groups: options.groups.as_ref().map(source).transpose()?,
            uid: options.uid.as_ref().map(source).transpose()?,
            extra,
            claim_rules,
            user_rules,
            user_type,
            tls,
            clock,
            keys: ArcSwap::default(),
            read: tokio::sync::Mutex::default(),
            options,
        })
    }

    /// Whether a token says that this issuer made it.
    pub fn concerns(&self, token: &str) -> bool {
        let claims = token.split('.').nth(1).and_then(|part| URL_SAFE_NO_PAD.decode(part).ok());
        let claims: Option<Value> = claims.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        claims.is_some_and(|claims| claims.get("iss").and_then(Value::as_str) == Some(self.options.url.as_str()))
    }

    /// The user of a token.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub fn user(&self, token: &str) -> Result<UserInfo, Refused> {
        let claims = match jwt::verify(token, &self.keys.load()) {
            Ok(claims) => claims,
            Err(jwt::Error::UnknownKey) => return Err(Refused::UnknownKey),
            Err(error) => return Err(error.to_string().into()),
        };
        Ok(self.judge(&claims)?)
    }

    fn judge(&self, claims: &Value) -> Result<UserInfo, String> {
        if claims.get("iss").and_then(Value::as_str) != Some(self.options.url.as_str()) {
            return Err("it is from another issuer".to_string());
        }
        let audiences = match claims.get("aud") {
            Some(Value::String(one)) => vec![one.as_str()],
            Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        };
        if !self.options.audiences.iter().any(|wanted| audiences.contains(&wanted.as_str())) {
            return Err(format!("expected audience in {:?} got {audiences:?}", self.options.audiences));
        }
        let now = self.clock.now().as_second();
        // Some issuers write fractions.
        let time = |name: &str| claims.get(name).and_then(Value::as_f64).map(|seconds| seconds as i64);
        if time("exp").is_none_or(|end| now >= end) {
            return Err("it has expired".to_string());
        }
        if time("nbf").is_some_and(|start| now + LEEWAY < start) {
            return Err("it is not valid yet".to_string());
        }
        let mut user = UserInfo { name: self.username(claims)?, ..UserInfo::default() };
        user.groups = self.groups(claims)?;
        user.uid = match &self.uid {
            None => String::new(),
            Some(Source::Claim { name, .. }) => text(claims, name)?,
            Some(Source::Program(program)) => {
                let uid = evaluate(program, claims)?;
                uid.as_str().ok_or("uid claim expression must return a string")?.to_string()
            }
        };
        if let Some(id) = claims.get("jti").and_then(Value::as_str).filter(|id| !id.is_empty()) {
            user.extra.insert("authentication.kubernetes.io/credential-id".to_string(), vec![format!("JTI={id}")]);
        }
        for (key, program) in &self.extra {
            let values = strings(&evaluate(program, claims)?)?;
            if !values.is_empty() {
                user.extra.insert(key.clone(), values);
            }
        }
        self.rules(claims, &user)?;
        Ok(user)
    }

    fn username(&self, claims: &Value) -> Result<String, String> {
        let (name, prefix) = match &self.username {
            Source::Program(program) => {
                let name = evaluate(program, claims)?;
                let name = name.as_str().ok_or("username claim expression must return a string")?;
                if name.is_empty() {
                    return Err("empty username via CEL expression is not allowed".to_string());
                }
                return Ok(name.to_string());
            }
            Source::Claim { name, prefix } => (name, prefix),
        };
        if name == "email" && claims.get("email_verified").is_some_and(|verified| verified != &Value::Bool(true)) {
            return Err("email not verified".to_string());
        }
        Ok(format!("{prefix}{}", text(claims, name)?))
    }

    fn groups(&self, claims: &Value) -> Result<Vec<String>, String> {
        match &self.groups {
            None => Ok(Vec::new()),
            Some(Source::Program(program)) => strings(&evaluate(program, claims)?),
            Some(Source::Claim { name, prefix }) => {
                let Some(groups) = claims.get(name) else { return Ok(Vec::new()) };
                let groups = strings(groups).map_err(|error| format!("parse groups claim {name:?}: {error}"))?;
                Ok(groups.into_iter().map(|group| format!("{prefix}{group}")).collect())
            }
        }
    }

    fn rules(&self, claims: &Value, user: &UserInfo) -> Result<(), String> {
        for rule in &self.options.claim_rules {
            if let ClaimRule::Equals { claim, value } = rule {
                let have =
                    claims.get(claim).ok_or_else(|| format!("required claim {claim} not present in ID token"))?;
                if have.as_str() != Some(value) {
                    return Err(format!("required claim {claim} value does not match. Got = {have}, want = {value}"));
                }
            }
        }
        let hold = |value: Result<Value, String>, failed: &str| match value {
            Ok(Value::Bool(true)) => Ok(()),
            Ok(_) => Err(failed.to_string()),
            Err(error) => Err(error),
        };
        for (program, failed) in &self.claim_rules {
            hold(evaluate(program, claims), failed)?;
        }
        let object = json!({"username": user.name, "uid": user.uid, "groups": user.groups, "extra": user.extra});
        for (program, failed) in &self.user_rules {
            let value = cel::Value::from_json(&object, Some(&*self.user_type)).map_err(|error| error.to_string())?;
            let variables = Activation::new().with("user", value);
            let result = program.eval(&variables, PER_CALL_LIMIT).value;
            let result = result.and_then(|value| value.to_json()).map_err(|error| error.to_string());
            hold(result, failed)?;
        }
        Ok(())
    }

    /// Reads the issuer's keys again; whether that was done.
    pub async fn learn(&self) -> bool {
        let mut read = self.read.lock().await;
        let now = self.clock.monotonic();
        if read.is_some_and(|at| now < at + PEACE) {
            return false;
        }
        *read = Some(now);
        match self.fetch().await {
            Ok(keys) => {
                self.keys.store(Arc::new(keys));
                true
            }
            Err(error) => {
                tracing::warn!(issuer = self.options.url, error, "the issuer's keys cannot be read");
                false
            }
        }
    }

    async fn fetch(&self) -> Result<Vec<PublicKey>, String> {
        let below = format!("{}/.well-known/openid-configuration", self.options.url.trim_end_matches('/'));
        let url = if self.options.discovery_url.is_empty() { &below } else { &self.options.discovery_url };
        let document = remote::get(url, &self.tls).await?;
        if document.get("issuer").and_then(Value::as_str) != Some(self.options.url.as_str()) {
            return Err("its discovery document names another issuer".to_string());
        }
        let keys = document.get("jwks_uri").and_then(Value::as_str).ok_or("its discovery document names no keys")?;
        let set = remote::get(keys, &self.tls).await?;
        let keys = set.get("keys").and_then(Value::as_array).ok_or("its key set has no keys")?;
        Ok(keys.iter().filter_map(PublicKey::from_jwk).collect())
    }
}

fn text(claims: &Value, name: &str) -> Result<String, String> {
    let claim = claims.get(name).ok_or_else(|| format!("claim not present: {name}"))?;
    claim.as_str().map(str::to_string).ok_or_else(|| format!("claim {name} is no string"))
}

/// A string, a list of strings, or nothing; empty strings do not count.
fn strings(value: &Value) -> Result<Vec<String>, String> {
    match value {
        Value::Null => Ok(Vec::new()),
        Value::String(one) => Ok(Some(one.clone()).filter(|one| !one.is_empty()).into_iter().collect()),
        Value::Array(list) => {
            let list = list.iter().map(|item| item.as_str().map(str::to_string));
            let list =
                list.collect::<Option<Vec<_>>>().ok_or("expression must return a string or a list of strings")?;
            Ok(list.into_iter().filter(|item| !item.is_empty()).collect())
        }
        _ => Err("expression must return a string or a list of strings".to_string()),
    }
}

fn evaluate(program: &Program, claims: &Value) -> Result<Value, String> {
    let value = cel::Value::from_json(claims, None).map_err(|error| error.to_string())?;
    let variables = Activation::new().with("claims", value);
    let result = program.eval(&variables, PER_CALL_LIMIT).value;
    result.and_then(|value| value.to_json()).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use component_base::clock::FakeClock;

    fn options() -> Options {
        Options {
            url: "https://id".into(),
            discovery_url: String::new(),
            authority: String::new(),
            audiences: vec!["kube".into()],
            username: Mapping::Claim { name: "sub".into(), prefix: "id:".into() },
            groups: Some(Mapping::Claim { name: "roles".into(), prefix: "id:".into() }),
            uid: None,
            extra: Vec::new(),
            claim_rules: Vec::new(),
            user_rules: Vec::new(),
        }
    }

    struct World {
        issuer: Issuer,
        signer: jwt::PrivateKey,
    }

    fn world(mut options: Options) -> World {
        let pair = rcgen::KeyPair::generate().unwrap();
        let signer = jwt::PrivateKey::from_pem(pair.serialize_pem().as_bytes()).unwrap();
        let profile = component_base::pki::Profile::server("id", &["id"]);
        options.authority = component_base::pki::self_signed(&profile).unwrap().cert_pem;
        let clock = Arc::new(FakeClock::new(jiff::Timestamp::from_second(1_800_000_000).unwrap()));
        let issuer = Issuer::new(options, clock).unwrap();
        let key = PublicKey::from_jwk(&signer.public().to_jwk()).unwrap();
        issuer.keys.store(Arc::new(vec![key]));
        World { issuer, signer }
    }

    impl World {
        fn user(&self, more: Value) -> Result<UserInfo, Refused> {
            let mut claims = json!({"iss": "https://id", "aud": "kube", "exp": 1_800_000_600, "sub": "ada", "roles": ["dev", "ops"]});
            for (name, value) in more.as_object().unwrap() {
                claims[name] = value.clone();
            }
            let token = self.signer.sign(&claims).unwrap();
            assert!(self.issuer.concerns(&token) || claims["iss"] != "https://id");
            self.issuer.user(&token)
        }
    }

    #[test]
    fn claims_become_a_user() {
        let world = world(options());
        let user = world.user(json!({})).unwrap();
        assert_eq!((user.name.as_str(), user.groups), ("id:ada", vec!["id:dev".to_string(), "id:ops".to_string()]));
        assert_eq!(world.user(json!({"roles": "dev"})).unwrap().groups, ["id:dev"]);
        for bad in [
            json!({"iss": "https://other"}),
            json!({"aud": ["other"]}),
            json!({"exp": 1_800_000_000}),
            json!({"exp": null}),
            json!({"nbf": 1_800_000_500}),
            json!({"sub": 5}),
            json!({"roles": [5]}),
        ] {
            assert!(world.user(bad.clone()).is_err(), "{bad}");
        }
        let stranger = self::world(options());
        let token = stranger.signer.sign(&json!({"iss": "https://id"})).unwrap();
        assert_eq!(world.issuer.user(&token), Err(Refused::UnknownKey));
    }

    #[test]
    fn expressions_map_and_judge() {
        let world = world(Options {
            username: Mapping::Expression("'x:' + claims.sub".into()),
            groups: Some(Mapping::Expression("claims.roles.filter(r, r != 'ops')".into())),
            extra: vec![("example.com/team".into(), "claims.?team.orValue('')".into())],
            claim_rules: vec![
                ClaimRule::Expression { text: "!has(claims.blocked)".into(), message: "blocked".into() },
                ClaimRule::Equals { claim: "hd".into(), value: "example.com".into() },
            ],
            user_rules: vec![("!user.username.startsWith('x:system:')".into(), "reserved".into())],
            ..options()
        });
        let user = world.user(json!({"hd": "example.com", "team": "a"})).unwrap();
        assert_eq!((user.name.as_str(), user.groups), ("x:ada", vec!["dev".to_string()]));
        assert_eq!(user.extra["example.com/team"], ["a"]);
        for (bad, why) in [
            (json!({}), "required claim hd not present in ID token"),
            (
                json!({"hd": "example.com", "blocked": true}),
                "validation expression '!has(claims.blocked)' failed: blocked",
            ),
            (
                json!({"hd": "example.com", "sub": "system:node:a"}),
                "validation expression '!user.username.startsWith('x:system:')' failed: reserved",
            ),
        ] {
            assert_eq!(world.user(bad).unwrap_err(), Refused::Because(why.to_string()));
        }
    }

    #[test]
    fn an_address_must_be_verified() {
        let world =
            world(Options { username: Mapping::Claim { name: "email".into(), prefix: String::new() }, ..options() });
        assert_eq!(world.user(json!({"email": "a@b"})).unwrap().name, "a@b");
        assert!(world.user(json!({"email": "a@b", "email_verified": false})).is_err());
        let clock = component_base::clock::RealClock::shared();
        let unchecked = Options { username: Mapping::Expression("claims.email".into()), ..options() };
        assert!(Issuer::new(unchecked, clock).is_err());
    }
}
