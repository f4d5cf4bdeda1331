//! What the API's types and fields mean, in upstream's words.
//!
//! `build.rs` packs the texts of the `k8s-openapi` crate; they are unpacked on first use and then kept,
//! about a megabyte.

use std::io::Read as _;
use std::sync::OnceLock;

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
        let (start, _) = self.find(definition)?;
        value(&self.text[start..])
    }

    /// What the field is for.
    pub(super) fn of_field(&self, definition: &str, field: &str) -> Option<String> {
        let (_, lines) = self.find(definition)?;
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
    if text.is_empty() {
        return None;
    }
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
    Some(out)
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
    }
}
