//! Tokens of a real OpenID Connect provider: a process of its own, over TLS, with tokens that another
//! implementation made.

use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use apiserver::authentication::configuration;
use apiserver::remote;
use apiserver::server::in_process;
use axum::body::Body;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use component_base::pki::{Ca, Profile};
use http::Request;
use serde_json::{Value, json};

use crate::Fixture;

struct Provider {
    child: Child,
    /// It ends when this is closed.
    _stdin: ChildStdin,
    base: String,
    authority: String,
    tls: Arc<rustls::ClientConfig>,
    _dir: tempfile::TempDir,
}

impl Drop for Provider {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Provider {
    /// `None`, and a word about it, where Python lacks PyJWT.
    fn start() -> Option<Self> {
        let has_jwt = |python: &&str| {
            let check = Command::new(python).args(["-c", "import jwt, cryptography"]).stderr(Stdio::null()).status();
            check.is_ok_and(|status| status.success())
        };
        let Some(python) = ["/usr/bin/python3", "python3"].into_iter().find(has_jwt) else {
            println!("skipped: needs python3-jwt");
            return None;
        };
        let dir = tempfile::tempdir().unwrap();
        let ca = Ca::new("id").unwrap();
        let pair = ca.issue(&Profile::server("localhost", &["localhost", "127.0.0.1"])).unwrap();
        let (cert, key) = (dir.path().join("id.crt"), dir.path().join("id.key"));
        std::fs::write(&cert, &pair.cert_pem).unwrap();
        std::fs::write(&key, &pair.key_pem).unwrap();
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/http/oidc_provider.py");
        let mut child = Command::new(python)
            .arg(script)
            .args([&cert, &key])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut out = std::io::BufReader::new(child.stdout.take().unwrap());
        std::io::BufRead::read_line(&mut out, &mut line).unwrap();
        let port: u16 = line.trim().strip_prefix("ready ").expect("it says its port").parse().unwrap();
        let tls = component_base::tls::client_config(ca.cert_pem().as_bytes(), None).unwrap();
        let stdin = child.stdin.take().unwrap();
        Some(Self {
            child,
            _stdin: stdin,
            base: format!("https://localhost:{port}"),
            authority: ca.cert_pem().to_string(),
            tls,
            _dir: dir,
        })
    }

    async fn get(&self, path: &str) -> Value {
        remote::get(&format!("{}/{path}", self.base), &self.tls).await.unwrap()
    }

    async fn token(&self, issuer: &str, claims: Value) -> String {
        let claims: String = url::form_urlencoded::byte_serialize(claims.to_string().as_bytes()).collect();
        let answer = self.get(&format!("{issuer}/token?claims={claims}")).await;
        answer["id_token"].as_str().unwrap().to_string()
    }

    /// An AuthenticationConfiguration with these issuers.
    fn configuration(&self, issuers: &[&str]) -> String {
        let authority = self.authority.trim().replace('\n', "\n        ");
        let mut text = "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\njwt:\n".to_string();
        for name in issuers {
            let rules = match *name {
                "one" => {
                    "  claimMappings:
    username: {expression: \"'oidc:' + claims.email\"}
    groups: {expression: \"claims.?roles.orValue([]).filter(r, r != 'secret')\"}
    uid: {expression: claims.sub}
    extra: [{key: example.com/team, valueExpression: \"claims.?team.orValue('')\"}]
  claimValidationRules:
  - {claim: hd, requiredValue: example.com}
  - {expression: claims.email_verified == true, message: the address must be verified}
  - {expression: 'claims.exp - claims.iat <= 86400', message: too long a life}
  userValidationRules:
  - {expression: \"!user.groups.exists(g, g.startsWith('system:'))\", message: reserved groups}
"
                }
                _ => {
                    "  claimMappings:\n    username: {claim: sub, prefix: 'two:'}\n    groups: {claim: roles, prefix: 'two:'}\n"
                }
            };
            text += &format!(
                "- issuer:\n    url: {}/{name}\n    audiences: [kube, other]\n    audienceMatchPolicy: MatchAny\n    certificateAuthority: |\n        {authority}\n{rules}",
                self.base
            );
        }
        text
    }
}

/// The user a token stands for; `None` is a 401.
async fn who(server: &Fixture, token: &str) -> Option<Value> {
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
    let request = Request::post("/apis/authentication.k8s.io/v1/selfsubjectreviews")
        .header("content-type", "application/json")
        .header("authorization", format!("Bearer {token}"))
        .body(Body::from(review.to_string()))
        .unwrap();
    let answer = Fixture::send_to(in_process::public(server.handle.server.clone()), request).await;
    match answer.code {
        201 => Some(answer.body["status"]["userInfo"].clone()),
        401 => {
            assert_eq!(answer.message(), "Unauthorized");
            None
        }
        other => panic!("{other}: {}", answer.message()),
    }
}

fn forged(token: &str, change: impl FnOnce(&mut Value, &mut Value), signature: Option<&str>) -> String {
    let parts: Vec<&str> = token.split('.').collect();
    let read = |part: &str| -> Value { serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap() };
    let (mut header, mut claims) = (read(parts[0]), read(parts[1]));
    change(&mut header, &mut claims);
    let write = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}.{}", write(&header), write(&claims), signature.unwrap_or(parts[2]))
}

#[tokio::test]
async fn a_real_provider() {
    let Some(provider) = Provider::start() else { return };
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("authentication.yaml");
    let both = provider.configuration(&["one", "two"]);
    std::fs::write(&file, &both).unwrap();
    let path = file.clone();
    let server = Fixture::with(|config| {
        config.authentication = configuration::parse(&both).unwrap();
        config.authentication_config_file = Some(path);
    })
    .await;

    let good = json!({
        "email": "ada@example.com", "email_verified": true, "hd": "example.com",
        "roles": ["dev", "secret"], "team": "blue",
    });
    let with = |more: Value| {
        let mut claims = good.clone();
        claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        claims
    };
    let token = provider.token("one", good.clone()).await;
    let user = who(&server, &token).await.expect("a good token");
    assert_eq!(user["username"], "oidc:ada@example.com");
    assert_eq!(user["groups"], json!(["dev", "system:authenticated"]));
    assert_eq!((&user["uid"], &user["extra"]["example.com/team"]), (&json!("ada"), &json!(["blue"])));
    let other = provider.token("two", json!({"roles": ["ops"]})).await;
    let user = who(&server, &other).await.expect("another issuer, another kind of key");
    assert_eq!((&user["username"], &user["groups"][0]), (&json!("two:ada"), &json!("two:ops")));

    let now = jiff::Timestamp::now().as_second();
    for (why, claims) in [
        ("another audience", with(json!({"aud": "somebody-else"}))),
        ("expired", with(json!({"exp": now - 60, "iat": now - 600}))),
        ("not yet", with(json!({"nbf": now + 3600}))),
        ("a claim has another value", with(json!({"hd": "example.org"}))),
        ("an expression is false", with(json!({"email_verified": false}))),
        ("an expression is false", with(json!({"exp": now + 1_000_000}))),
        ("an expression fails", json!({"hd": "example.com", "email_verified": true})),
        ("the user is reserved", with(json!({"roles": ["system:masters"]}))),
    ] {
        assert_eq!(who(&server, &provider.token("one", claims).await).await, None, "{why}");
    }
    assert!(who(&server, &provider.token("one", with(json!({"aud": ["x", "other"]}))).await).await.is_some());
    for (why, hostile) in [
        ("alg none", forged(&token, |header, _| header["alg"] = "none".into(), Some(""))),
        ("alg confusion", forged(&token, |header, _| header["alg"] = "HS256".into(), None)),
        ("other claims", forged(&token, |_, claims| claims["email"] = "root@example.com".into(), None)),
        (
            "the other issuer's signature",
            forged(&other, |_, claims| claims["iss"] = format!("{}/one", provider.base).into(), None),
        ),
        ("no key of this name", forged(&token, |header, _| header["kid"] = "nobody".into(), None)),
    ] {
        assert_eq!(who(&server, &hostile).await, None, "{why}");
    }

    // The provider's keys change: new tokens are good soon, old ones no more.
    provider.get("one/rotate").await;
    let fresh = provider.token("one", good.clone()).await;
    let mut accepted = false;
    for _ in 0..200 {
        accepted = who(&server, &fresh).await.is_some();
        if accepted {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(accepted, "the new key is not learned");
    assert_eq!(who(&server, &token).await, None, "the old key is gone");

    // The configuration changes: one issuer is trusted no more.
    std::fs::write(&file, provider.configuration(&["one"])).unwrap();
    let mut refused = false;
    for _ in 0..200 {
        refused = who(&server, &other).await.is_none();
        if refused {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(refused, "the issuer is still trusted");
    assert!(who(&server, &fresh).await.is_some());
    let metrics = server.get("/metrics").await.text;
    let want = "apiserver_authentication_config_controller_automatic_reloads_total{apiserver_id_hash=\"\",status=\"success\"} 1";
    assert!(metrics.contains(want), "{metrics}");
}
