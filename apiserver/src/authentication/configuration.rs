//! `--authentication-config`: whose tokens are accepted, and where nobody may be anybody.

use apimachinery::yaml;
use serde::Deserialize;

use super::oidc::{ClaimRule, Mapping, Options};

/// What the file, or the flags, say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    pub issuers: Vec<Options>,
    pub anonymous: Option<Anonymous>,
}

/// Requests without credentials.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Anonymous {
    pub enabled: bool,
    /// Where they are allowed; everywhere when empty.
    pub paths: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    api_version: String,
    kind: String,
    #[serde(default)]
    jwt: Vec<Jwt>,
    anonymous: Option<AnonymousConfig>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AnonymousConfig {
    #[serde(default)]
    enabled: bool,
    #[serde(default)]
    conditions: Vec<AnonymousCondition>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AnonymousCondition {
    path: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Jwt {
    issuer: Issuer,
    #[serde(default)]
    claim_validation_rules: Vec<Rule>,
    #[serde(default)]
    claim_mappings: Mappings,
    #[serde(default)]
    user_validation_rules: Vec<Rule>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Issuer {
    #[serde(default)]
    url: String,
    #[serde(rename = "discoveryURL", default)]
    discovery_url: String,
    #[serde(default)]
    certificate_authority: String,
    #[serde(default)]
    audiences: Vec<String>,
    #[serde(default)]
    audience_match_policy: String,
    #[serde(rename = "egressSelectorType", default)]
    _egress_selector_type: String,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
struct Rule {
    claim: String,
    required_value: String,
    expression: String,
    message: String,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Mappings {
    username: Origin,
    groups: Origin,
    uid: Origin,
    extra: Vec<Extra>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Origin {
    claim: String,
    prefix: Option<String>,
    expression: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Extra {
    key: String,
    value_expression: String,
}

/// Reads the file's text.
///
/// # Errors
/// Says what is wrong with it.
pub fn parse(text: &str) -> Result<Settings, String> {
    let value = yaml::parse(text).map_err(|error| error.to_string())?;
    let file: File = serde_json::from_value(value).map_err(|error| error.to_string())?;
    let version = file.api_version.strip_prefix("apiserver.config.k8s.io/");
    if file.kind != "AuthenticationConfiguration" || !matches!(version, Some("v1" | "v1beta1" | "v1alpha1")) {
        return Err(format!("no kind {:?} is registered for version {:?}", file.kind, file.api_version));
    }
    let anonymous = file.anonymous.map(|anonymous| Anonymous {
        enabled: anonymous.enabled,
        paths: anonymous.conditions.into_iter().map(|condition| condition.path).collect(),
    });
    if anonymous.as_ref().is_some_and(|anonymous| !anonymous.enabled && !anonymous.paths.is_empty()) {
        return Err("anonymous.conditions: Invalid value: enabled should be set to true when conditions are defined"
            .to_string());
    }
    let mut issuers: Vec<Options> = Vec::new();
    for (index, jwt) in file.jwt.into_iter().enumerate() {
        let options = options(jwt).map_err(|error| format!("jwt[{index}].{error}"))?;
        if issuers.iter().any(|have| have.url == options.url) {
            return Err(format!("jwt[{index}].issuer.url: Duplicate value: {:?}", options.url));
        }
        issuers.push(options);
    }
    Ok(Settings { issuers, anonymous })
}

/// Checks that nobody else speaks for this server's own issuers.
///
/// # Errors
/// Names the first issuer that does.
pub fn check_issuers(settings: &Settings, own: &[String]) -> Result<(), String> {
    let mut sorted = own.to_vec();
    sorted.sort();
    match settings.issuers.iter().enumerate().find(|(_, issuer)| own.contains(&issuer.url)) {
        Some((index, issuer)) => Err(format!(
            "jwt[{index}].issuer.url: Invalid value: {:?}: URL must not overlap with disallowed issuers: [{}]",
            issuer.url,
            sorted.join(" ")
        )),
        None => Ok(()),
    }
}

/// Checks an issuer's URL.
///
/// # Errors
/// Says what is wrong with it.
pub fn check_url(url: &str) -> Result<(), String> {
    let parsed = url::Url::parse(url).map_err(|error| error.to_string())?;
    if parsed.scheme() != "https" {
        return Err("URL scheme must be https".to_string());
    }
    if !parsed.username().is_empty() || parsed.password().is_some() {
        return Err("URL must not contain a username or password".to_string());
    }
    if parsed.query().is_some() {
        return Err("URL must not contain a query".to_string());
    }
    if parsed.fragment().is_some() {
        return Err("URL must not contain a fragment".to_string());
    }
    Ok(())
}

fn options(jwt: Jwt) -> Result<Options, String> {
    let issuer = jwt.issuer;
    if issuer.url.is_empty() {
        return Err("issuer.url: Required value".to_string());
    }
    check_url(&issuer.url).map_err(|error| format!("issuer.url: Invalid value: {:?}: {error}", issuer.url))?;
    if !issuer.discovery_url.is_empty() {
        let bad = |error: &str| format!("issuer.discoveryURL: Invalid value: {:?}: {error}", issuer.discovery_url);
        if issuer.discovery_url.trim_end_matches('/') == issuer.url.trim_end_matches('/') {
            return Err(bad("discoveryURL must be different from URL"));
        }
        check_url(&issuer.discovery_url).map_err(|error| bad(&error))?;
    }
    if issuer.audiences.is_empty() {
        return Err("issuer.audiences: Required value: at least one issuer.audiences is required".to_string());
    }
    if issuer.audiences.len() > 1 && issuer.audience_match_policy != "MatchAny" {
        return Err(format!(
            "issuer.audienceMatchPolicy: Invalid value: {:?}: audienceMatchPolicy must be MatchAny for multiple audiences",
            issuer.audience_match_policy
        ));
    }
    let mut claim_rules = Vec::new();
    for (index, rule) in jwt.claim_validation_rules.into_iter().enumerate() {
        let at = format!("claimValidationRules[{index}]");
        claim_rules.push(match (rule.claim.is_empty(), rule.expression.is_empty()) {
            (false, false) => {
                return Err(format!("{at}: Invalid value: {:?}: claim and expression can't both be set", rule.claim));
            }
            (true, true) => return Err(format!("{at}: Required value: claim or expression is required")),
            (false, true) => ClaimRule::Equals { claim: rule.claim, value: rule.required_value },
            (true, false) => ClaimRule::Expression { text: rule.expression, message: rule.message },
        });
    }
    let mappings = jwt.claim_mappings;
    let username = mapping("username", mappings.username, true)?;
    let username = username.ok_or("claimMappings.username: Required value: claim or expression is required")?;
    Ok(Options {
        url: issuer.url,
        discovery_url: issuer.discovery_url,
        authority: issuer.certificate_authority,
        audiences: issuer.audiences,
        username,
        groups: mapping("groups", mappings.groups, true)?,
        uid: mapping("uid", mappings.uid, false)?,
        extra: mappings.extra.into_iter().map(|extra| (extra.key, extra.value_expression)).collect(),
        claim_rules,
        user_rules: jwt.user_validation_rules.into_iter().map(|rule| (rule.expression, rule.message)).collect(),
    })
}

fn mapping(name: &str, from: Origin, prefixed: bool) -> Result<Option<Mapping>, String> {
    match (from.claim.is_empty(), from.expression.is_empty(), from.prefix) {
        (true, true, None) => Ok(None),
        (true, true, Some(_)) => Err(format!(
            "claimMappings.{name}.claim: Required value: non-empty claim name is required when prefix is set"
        )),
        (false, false, _) => {
            Err(format!("claimMappings.{name}: Invalid value: \"\": claim and expression can't both be set"))
        }
        (true, false, None) => Ok(Some(Mapping::Expression(from.expression))),
        (true, false, Some(_)) => {
            Err(format!("claimMappings.{name}.prefix: Invalid value: prefix can't be set when expression is set"))
        }
        (false, true, None) if prefixed => Err(format!(
            "claimMappings.{name}.prefix: Required value: prefix is required when claim is set. It can be set to an empty string to disable prefixing"
        )),
        (false, true, prefix) => Ok(Some(Mapping::Claim { name: from.claim, prefix: prefix.unwrap_or_default() })),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\n";

    #[test]
    fn issuers_and_nobody() {
        let text = format!(
            "{HEAD}jwt:\n- issuer: {{url: 'https://id', audiences: [kube]}}\n  claimMappings:\n    \
             username: {{claim: sub, prefix: ''}}\n    groups: {{expression: claims.roles}}\n\
             anonymous: {{enabled: true, conditions: [{{path: /livez}}]}}\n"
        );
        let settings = parse(&text).unwrap();
        assert_eq!(settings.issuers[0].username, Mapping::Claim { name: "sub".into(), prefix: String::new() });
        assert_eq!(settings.issuers[0].groups, Some(Mapping::Expression("claims.roles".into())));
        assert_eq!(settings.anonymous, Some(Anonymous { enabled: true, paths: vec!["/livez".into()] }));
    }

    #[test]
    fn mistakes_are_named() {
        for (jwt, want) in [
            (
                "issuer: {url: 'http://id', audiences: [a]}",
                "jwt[0].issuer.url: Invalid value: \"http://id\": URL scheme must be https",
            ),
            (
                "issuer: {url: 'https://id'}",
                "jwt[0].issuer.audiences: Required value: at least one issuer.audiences is required",
            ),
            (
                "issuer: {url: 'https://id', audiences: [a]}",
                "jwt[0].claimMappings.username: Required value: claim or expression is required",
            ),
            (
                "issuer: {url: 'https://id', audiences: [a]}\n  claimMappings: {username: {claim: sub}}",
                "jwt[0].claimMappings.username.prefix: Required value: prefix is required when claim is set. It can be set to an empty string to disable prefixing",
            ),
        ] {
            assert_eq!(parse(&format!("{HEAD}jwt:\n- {jwt}\n")).unwrap_err(), want);
        }
        assert!(parse(&format!("{HEAD}anonymous: {{enabled: false, conditions: [{{path: /}}]}}")).is_err());
    }
}
