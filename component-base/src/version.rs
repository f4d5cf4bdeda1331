//! The version that `--version` prints and that user agents carry.

/// The Kubernetes release whose behaviour this workspace follows.
pub const KUBERNETES: &str = "v1.36.2";

/// [`KUBERNETES`] without the letter in front: `1.36.2`.
pub fn release() -> &'static str {
    KUBERNETES.trim_start_matches('v')
}

/// Major and minor version: `1.36`.
pub fn minor() -> &'static str {
    release().rsplit_once('.').map_or(release(), |(minor, _)| minor)
}

/// What `--version` prints, without the component's name.
pub fn git_version() -> String {
    format!("{KUBERNETES}+keelson")
}

/// The user agent of a component: `kubelet/v1.36.2 (linux/amd64) keelson`.
pub fn user_agent(component: &str) -> String {
    let arch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    format!("{component}/{KUBERNETES} ({}/{arch}) keelson/{}", std::env::consts::OS, env!("CARGO_PKG_VERSION"))
}
