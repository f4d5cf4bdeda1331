//! What the API's types and fields mean, in upstream's words.
//!
//! `build.rs` packs the texts of the `k8s-openapi` crate; they are unpacked on first use and then kept,
//! about a megabyte. The crate has neither list types nor the options that are query parameters: their
//! few texts are in `list_kinds.txt` and `parameters.txt`.

use std::io::Read as _;
use std::sync::OnceLock;

const LIST_KINDS: &str = include_str!("list_kinds.txt");
const PARAMETERS: &str = include_str!("parameters.txt");
const WATCH_EVENT: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.WatchEvent";
const CONVENTIONS: &str = "https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md";

/// What a query parameter means; `options` is the type that it belongs to, empty for those that all
/// requests share.
pub(super) fn of_parameter(options: &str, name: &str) -> Option<String> {
    PARAMETERS
        .lines()
        .filter_map(|line| line.split_once('\t'))
        .find(|(key, _)| key.strip_prefix(options).and_then(|rest| rest.strip_prefix('.')) == Some(name))
        .map(|(_, text)| unescaped(text))
}

/// Texts of a list type: itself, `metadata`, `items`.
fn of_list(definition: &str) -> Option<[String; 3]> {
    let line = LIST_KINDS.lines().find(|line| line.split('\t').next() == Some(definition))?;
    let mut texts = line.split('\t').skip(1).map(|text| {
        let text = text.replace("{kinds}", &format!("{CONVENTIONS}#types-kinds"));
        unescaped(&text.replace("{metadata}", &format!("{CONVENTIONS}#metadata")))
    });
    Some([texts.next()?, texts.next()?, texts.next()?])
}

/// All descriptions, searchable by definition name.
pub(super) struct Descriptions {
    text: String,
    /// (start of the name, start of the lines after it), in the order of names.
    types: Vec<(u32, u32)>,
}

/// The texts of this build.
pub(super) fn descriptions() -> &'static Descriptions {
    static ALL: OnceLock<Descriptions> = OnceLock::new();
    ALL.get_or_init(|| {
        let packed: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptions.deflate"));
        let mut text = String::new();
        flate2::read::DeflateDecoder::new(packed).read_to_string(&mut text).expect("packed by this build");
        let mut types = Vec::new();
        let mut at = 0;
        for line in text.split_inclusive('\n') {
            if line.starts_with("T ") {
                types.push((at + 2, at + line.len() as u32));
            }
            at += line.len() as u32;
        }
        Descriptions { text, types }
    })
}

impl Descriptions {
    /// What the type is for.
    pub(super) fn of_type(&self, definition: &str) -> Option<String> {
        let Some((start, _)) = self.find(definition) else {
            let [text, ..] = of_list(definition)?;
            return Some(text).filter(|text| !text.is_empty());
        };
        let text = value(&self.text[start..])?;
        // The crate gives the type the text of its field as well.
        Some(match text.split_once("\n\n") {
            Some((own, _)) if definition == WATCH_EVENT => own.to_owned(),
            _ => text,
        })
    }

    /// What the field is for.
    pub(super) fn of_field(&self, definition: &str, field: &str) -> Option<String> {
        let Some((start, lines)) = self.find(definition) else {
            let [_, metadata, items] = of_list(definition)?;
            let text = match field {
                "metadata" => Some(metadata),
                "items" => Some(items),
                // The same in every type.
                _ => self.of_field("io.k8s.api.core.v1.Pod", field),
            };
            return text.filter(|text| !text.is_empty());
        };
        if definition == WATCH_EVENT && field == "object" {
            return value(&self.text[start..])?.split_once("\n\n").map(|(_, text)| text.trim_end().to_owned());
        }
        self.text[lines..]
            .lines()
            .take_while(|line| line.starts_with("f "))
            .find(|line| line[2..].split('\t').next() == Some(field))
            .and_then(|line| value(&line[2..]))
    }

    fn find(&self, definition: &str) -> Option<(usize, usize)> {
        let name = |start: u32| self.text[start as usize..].split('\t').next().unwrap_or_default();
        let index = self.types.binary_search_by(|(start, _)| name(*start).cmp(definition)).ok()?;
        let (start, lines) = self.types[index];
        Some((start as usize, lines as usize))
    }
}

/// The text after the tab, with line ends put back.
fn value(rest: &str) -> Option<String> {
    let line = rest.lines().next()?;
    let (_, text) = line.split_once('\t')?;
    (!text.is_empty()).then(|| unescaped(text))
}

fn unescaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some('n') => out.push('\n'),
                Some('t') => out.push('\t'),
                Some(other) => out.push(other),
                None => break,
            },
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_found() {
        let all = descriptions();
        let pod = "io.k8s.api.core.v1.Pod";
        assert!(all.of_type(pod).is_some_and(|text| text.starts_with("Pod is a collection of containers")));
        assert!(
            all.of_field(pod, "spec").is_some_and(|text| text.starts_with("Specification of the desired behavior"))
        );
        assert_eq!(all.of_field(pod, "nothing"), None);
        assert_eq!(all.of_type("io.k8s.api.core.v1.Nothing"), None);
        let profile = all.of_field("io.k8s.api.core.v1.AppArmorProfile", "type").expect("described");
        assert!(profile.contains("\n  Localhost - "));
        let pods = "io.k8s.api.core.v1.PodList";
        assert_eq!(all.of_type(pods).as_deref(), Some("PodList is a list of Pods."));
        assert_eq!(all.of_field(pods, "kind"), all.of_field(pod, "kind"));
        assert!(all.of_field(pods, "metadata").is_some_and(|text| text.ends_with("#types-kinds")));
        assert_eq!(
            of_parameter("PodLogOptions", "follow").as_deref(),
            Some("Follow the log stream of the pod. Defaults to false.")
        );
        assert_ne!(of_parameter("PatchOptions", "fieldManager"), of_parameter("", "fieldManager"));
    }
}
