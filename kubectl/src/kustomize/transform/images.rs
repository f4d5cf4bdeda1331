//! `images`: names, tags and digests of images.

use regex::Regex;
use serde_json::Value;

use super::Scope;
use crate::kustomize::Result;
use crate::kustomize::fieldspec::{require, scalar_text};
use crate::kustomize::kustomization::Image;
use crate::kustomize::resources::Resources;

/// Lists whose items have images, wherever they are.
const CONTAINERS: [&str; 2] = ["containers", "initContainers"];

/// Changes the images of every object, in order.
pub fn images(scope: &Scope<'_>, resources: &mut Resources) -> Result<()> {
    for image in &scope.kustomization.images {
        // A name is a regular expression; one that is malformed fits nothing.
        let Ok(fits) = Regex::new(&format!("^{}(:[a-zA-Z0-9_.{{}}-]*)?(@sha256:[a-zA-Z0-9_.{{}}-]*)?$", image.name))
        else {
            continue;
        };
        let mut update = |field: &mut Value| update(field, image, &fits);
        for resource in resources.0.iter_mut().filter(|resource| resource.kind() != "CustomResourceDefinition") {
            everywhere(&mut resource.object, &mut update)?;
            for spec in &scope.config.images {
                spec.apply(&mut resource.object, None, &mut update)?;
            }
        }
    }
    Ok(())
}

fn everywhere(value: &mut Value, update: &mut dyn FnMut(&mut Value) -> Result<()>) -> Result<()> {
    match value {
        Value::Array(items) => items.iter_mut().try_for_each(|item| everywhere(item, update)),
        Value::Object(map) => {
            for (key, value) in map {
                everywhere(value, update)?;
                if CONTAINERS.contains(&key.as_str())
                    && let Value::Array(items) = value
                {
                    for image in items.iter_mut().filter_map(|item| item.get_mut("image")) {
                        update(image)?;
                    }
                }
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

fn update(field: &mut Value, image: &Image, fits: &Regex) -> Result<()> {
    require(field, "ScalarNode")?;
    let old = scalar_text(field);
    if fits.is_match(&old) {
        *field = Value::String(changed(&old, image));
    }
    Ok(())
}

fn changed(old: &str, image: &Image) -> String {
    let (mut name, mut tag, mut digest) = split(old);
    if !image.new_name.is_empty() {
        name.clone_from(&image.new_name);
    }
    match (image.new_tag.as_str(), image.digest.as_str(), image.tag_suffix.as_str()) {
        ("", "", "") => {}
        ("", "", suffix) => {
            tag.push_str(suffix);
            digest.clear();
        }
        (new_tag, new_digest, _) => {
            new_tag.clone_into(&mut tag);
            new_digest.clone_into(&mut digest);
        }
    }
    if !tag.is_empty() {
        name = format!("{name}:{tag}");
    }
    if !digest.is_empty() {
        name = format!("{name}@{digest}");
    }
    name
}

/// Name, tag and digest; a colon before the first slash belongs to the registry.
fn split(image: &str) -> (String, String, String) {
    let path = image.find('/').filter(|slash| *slash > 0).unwrap_or(0);
    let (image, digest) = match image[path..].find('@') {
        Some(at) => (&image[..path + at], &image[path + at + 1..]),
        None => (image, ""),
    };
    let (name, tag) = match image[path..].find(':') {
        Some(at) => (&image[..path + at], &image[path + at + 1..]),
        None => (image, ""),
    };
    (name.to_owned(), tag.to_owned(), digest.to_owned())
}

#[cfg(test)]
mod tests {
    use super::{changed, split};
    use crate::kustomize::kustomization::Image;

    #[test]
    fn parts() {
        let parts = |text: &str| {
            let (name, tag, digest) = split(text);
            [name, tag, digest].join("|")
        };
        assert_eq!(parts("nginx"), "nginx||");
        assert_eq!(parts("r:5000/nginx:1"), "r:5000/nginx|1|");
        assert_eq!(parts("r/nginx:1@sha256:a"), "r/nginx|1|sha256:a");
        assert_eq!(parts("r/nginx@sha256:a"), "r/nginx||sha256:a");
    }

    #[test]
    fn changes() {
        let text = |text: &str| text.to_owned();
        let check = |image: Image, old: &str, new: &str| assert_eq!(changed(old, &image), new);
        check(Image { new_tag: text("2"), ..Image::default() }, "a:1@sha256:x", "a:2");
        check(Image { digest: text("sha256:y"), ..Image::default() }, "a:1", "a@sha256:y");
        check(Image { new_name: text("b/c"), ..Image::default() }, "a:1@sha256:x", "b/c:1@sha256:x");
        check(Image { tag_suffix: text("-x"), ..Image::default() }, "a:1@sha256:x", "a:1-x");
        check(Image { new_tag: text("2"), digest: text("sha256:y"), ..Image::default() }, "a", "a:2@sha256:y");
    }
}
