use http::StatusCode;
use http::header::ACCEPT;
use http_body_util::BodyExt as _;

use super::*;
use crate::clock::FakeClock;

fn pages(enabled: impl Fn(&str) -> bool) -> ZPages {
    let clock = FakeClock::new("2026-01-02T03:04:05Z".parse().expect("a time"));
    let flags = [("v", "2"), ("bind-address", "::")].map(|(name, value)| (name.to_string(), value.to_string()));
    ZPages::new(
        "kube-test",
        Arc::new(clock),
        enabled,
        Some(flags.into()),
        ["/healthz", "/healthz/ping", "/apis/x", "/"],
    )
}

async fn ask(pages: &ZPages, path: &str, accept: &str) -> (u16, String, String, Option<String>) {
    let mut headers = HeaderMap::new();
    if !accept.is_empty() {
        headers.insert(ACCEPT, accept.parse().expect("a header"));
    }
    let answer = pages.answer(path, &headers, None).expect("the page is on");
    let (parts, body) = answer.into_parts();
    let header = |name| parts.headers.get(name).map(|value: &HeaderValue| value.to_str().expect("text").to_string());
    let body = body.collect().await.expect("a body").to_bytes();
    let media_type = header(CONTENT_TYPE).unwrap_or_default();
    (parts.status.as_u16(), media_type, String::from_utf8_lossy(&body).into_owned(), header(WARNING))
}

#[tokio::test]
async fn people_get_text() {
    let pages = pages(|_| true);
    for accept in ["", " ", "text/plain", "*/*", "application/json, text/*", "application/json;stream=watch,*/*;q=0.1"]
    {
        let (code, media_type, body, warning) = ask(&pages, FLAGZ, accept).await;
        assert_eq!((code, media_type.as_str(), warning), (200, "text/plain; charset=utf-8", None), "{accept}");
        assert!(body.starts_with("\nkube-test flagz\nWarning: This endpoint is not meant to be machine"), "{body}");
        let lines: Vec<&str> = body.lines().skip(3).collect();
        let fits = |line: &str, name: &str, value: &str| {
            DELIMITERS.iter().any(|delimiter| line == format!("{name}{delimiter}{value}"))
        };
        assert!(lines.len() == 2 && fits(lines[0], "bind-address", "::") && fits(lines[1], "v", "2"), "{body}");
    }
    let (_, _, body, _) = ask(&pages, STATUSZ, "text/plain").await;
    let names = ["Started", "Up", "Go version", "Binary version", "Emulation version", "Paths"];
    let lines: Vec<&str> = body.lines().skip(4).collect();
    assert!(lines.iter().zip(names).all(|(line, name)| line.starts_with(name)) && lines.len() == 6, "{body}");
    assert!(lines[3].ends_with(" 1.36.2") && lines[4].ends_with(" 1.36"), "{body}");
    assert!(lines[5].ends_with(" /flagz /healthz"), "{body}");
}

#[tokio::test]
async fn programs_get_versions() {
    let pages = pages(|_| true);
    let of = |version: &str, kind: &str| format!("application/json;v={version};g=config.k8s.io;as={kind}");
    let (code, media_type, body, warning) = ask(&pages, FLAGZ, &of("v1beta1", "Flagz")).await;
    assert_eq!((code, warning), (200, None));
    assert_eq!(media_type, "application/json;g=config.k8s.io;v=v1beta1;as=Flagz");
    let object: Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!(
        object,
        serde_json::json!({
            "kind": "Flagz", "apiVersion": "config.k8s.io/v1beta1", "metadata": {"name": "kube-test"},
            "flags": {"v": "2", "bind-address": "::"},
        })
    );
    let (code, _, body, warning) = ask(&pages, STATUSZ, &of("v1alpha1", "Statusz")).await;
    let deprecated = "299 - \"This version of the statusz endpoint is deprecated. Please use a newer version.\"";
    assert_eq!((code, warning.as_deref()), (200, Some(deprecated)));
    let object: Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!(object["paths"], serde_json::json!(["/flagz", "/healthz"]));
    assert_eq!((&object["binaryVersion"], &object["emulationVersion"]), (&"1.36.2".into(), &"1.36".into()));
    assert!(object["uptimeSeconds"].is_i64() && object["startTime"].is_string() && object["goVersion"].is_string());
    let (_, media_type, body, _) = ask(&pages, FLAGZ, "application/yaml;v=v1beta1;g=config.k8s.io;as=Flagz").await;
    assert_eq!(media_type, "application/yaml;g=config.k8s.io;v=v1beta1;as=Flagz");
    assert!(body.contains("\n  bind-address: '::'\n"), "{body}");
}

#[tokio::test]
async fn what_is_not_known_is_refused() {
    let pages = pages(|_| true);
    let compact = "{\"apiVersion\":\"v1\",\"code\":406,";
    for (accept, media_type, begins) in [
        ("application/json", "application/json", compact),
        ("application/yaml", "application/yaml", "apiVersion: v1\ncode: 406\n"),
        ("application/xml", "application/json", "{\n  \"apiVersion\": \"v1\",\n"),
        ("application/vnd.kubernetes.protobuf", "application/json", "{\n"),
        ("application/json;v=v1;g=config.k8s.io;as=Flagz", "application/json", "{\n"),
        ("application/json;v=v1beta1;g=config.k8s.io;as=Statusz", "application/json", "{\n"),
        ("application/json;v=v1beta1;g=config.k8s.io", "application/json", "{\n"),
        ("text/plain;v=v1beta1;g=config.k8s.io;as=Flagz", "application/json", "{\n"),
    ] {
        let (code, got, body, _) = ask(&pages, FLAGZ, accept).await;
        assert_eq!((code, got.as_str()), (StatusCode::NOT_ACCEPTABLE.as_u16(), media_type), "{accept}");
        assert!(body.starts_with(begins), "{accept}: {body}");
        let text = "only the following media types are accepted: application/json, application/yaml,";
        assert!(body.contains(text) && body.contains("text/plain"), "{body}");
    }
}

#[test]
fn switches_come_from_file_and_flags() {
    let mut set = crate::flags::FlagSet::new("kube-test", "Tests.");
    set.common();
    let file = [("ComponentStatusz", "false"), ("ComponentFlagz", "false"), ("SomethingElse", "true")];
    let file = file.map(|(name, value)| (name.to_string(), value.to_string())).into();
    for (args, file, served) in [
        (vec![], Flags::new(), vec![FLAGZ, STATUSZ]),
        (vec!["--feature-gates=ComponentFlagz=false,Other=true"], Flags::new(), vec![STATUSZ]),
        (vec!["--feature-gates=AllBeta=false"], Flags::new(), vec![]),
        (vec!["--feature-gates=ComponentFlagz=true"], file, vec![FLAGZ]),
    ] {
        let settings = Settings::from_flags(&set.parse(args.clone()).expect("flags"), &file);
        let clock = crate::clock::RealClock::shared();
        let pages = settings.pages("kube-test", clock, ["/healthz"]);
        assert_eq!(pages.served().collect::<Vec<_>>(), served, "{args:?}");
    }
    let none = Settings::default().pages("kube-test", crate::clock::RealClock::shared(), ["/healthz"]);
    assert_eq!(none.served().collect::<Vec<_>>(), [STATUSZ], "without flags there is no page of them");
}

#[tokio::test]
async fn each_page_has_a_gate() {
    let served = |enabled: fn(&str) -> bool| pages(enabled).served().collect::<Vec<_>>();
    assert_eq!(served(|_| true), [FLAGZ, STATUSZ]);
    assert_eq!(served(|gate| gate == COMPONENT_STATUSZ), [STATUSZ]);
    assert_eq!(served(|gate| gate == COMPONENT_FLAGZ), [FLAGZ]);
    assert!(pages(|gate| gate == COMPONENT_FLAGZ).answer(STATUSZ, &HeaderMap::new(), None).is_none());
    let (_, _, body, _) = ask(&pages(|gate| gate == COMPONENT_STATUSZ), STATUSZ, "").await;
    assert!(!body.contains(FLAGZ), "{body}");
}
