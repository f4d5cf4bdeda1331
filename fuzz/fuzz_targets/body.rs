//! Request bodies as kube-apiserver reads them: the first byte chooses the encoding, and whether the body is read as what
//! it says it is or as one of four kinds; the rest is the body. Decoding ends in an object or a 400; an object goes on
//! through defaults, validation, warnings and printing, as a create of it would, and reads again from what is stored.
#![no_main]

use apimachinery::gvk::{GroupVersion, GroupVersionKind};
use apimachinery::object::ObjectExt as _;
use apiserver::codec::body::{Expected, decode};
use apiserver::request::accept::Encoding;
use apiserver::request::options::FieldValidation;
use libfuzzer_sys::fuzz_target;

const KINDS: [(&str, &str, &str); 4] = [
    ("", "v1", "Pod"),
    ("", "v1", "Secret"),
    ("apps", "v1", "Deployment"),
    ("apiextensions.k8s.io", "v1", "CustomResourceDefinition"),
];

/// The kind that a body claims to be, if the table has it.
fn claimed(body: &[u8], encoding: Encoding) -> Option<GroupVersionKind> {
    let (api_version, kind) = match encoding {
        Encoding::Json => {
            let object = apimachinery::json::parse(body).ok()?;
            (object.api_version().to_owned(), object.kind().to_owned())
        }
        Encoding::Yaml => {
            let object = apimachinery::yaml::decode(std::str::from_utf8(body).ok()?).ok()?.value;
            (object.api_version().to_owned(), object.kind().to_owned())
        }
        Encoding::Protobuf => {
            let (api_version, kind, _) = apiserver::codec::protobuf::open(body).ok()?;
            (api_version, kind)
        }
        Encoding::Cbor => api::cbor::interpret(body).ok()?,
    };
    let version = GroupVersion::parse(&api_version).ok()?;
    api::table().find_resource_by_kind(&version.group, &version.version, &kind)?;
    Some(GroupVersionKind::new(version.group, version.version, kind))
}

fuzz_target!(|bytes: &[u8]| {
    let Some((choice, body)) = bytes.split_first() else { return };
    let encoding = [Encoding::Json, Encoding::Yaml, Encoding::Protobuf][usize::from(choice % 3)];
    let named = KINDS.get(usize::from(choice / 3)).map(|(group, version, kind)| {
        GroupVersionKind::new((*group).to_owned(), (*version).to_owned(), (*kind).to_owned())
    });
    let Some(kind) = named.or_else(|| claimed(body, encoding)) else { return };
    let schema = api::table().kind(&kind).expect("the table has these kinds");
    let resource = api::table().resource_by_kind(&kind).expect("the table has these resources");
    let expected = Expected { kind: kind.clone(), schema, empty: false };
    let validation = if choice % 2 == 0 { FieldValidation::Strict } else { FieldValidation::Warn };
    let mut object = match decode(body, encoding, &expected, validation) {
        Ok(decoded) => decoded.object,
        Err(status) => {
            assert_eq!(status.code, 400);
            return;
        }
    };
    let stored = serde_json::to_vec(&object).expect("a JSON tree encodes");
    let again = decode(&stored, Encoding::Json, &expected, FieldValidation::Strict).expect("what was decoded decodes");
    assert_eq!(again.object, object);
    api::defaults::apply(resource, &mut object);
    let errors = api::validation::create(resource, resource, &object);
    let _warnings = api::warnings::of(resource, "", &object, None);
    let printer = api::printers::find(&resource.group, &resource.plural);
    let _cells = (printer.row)(&object, jiff::Timestamp::UNIX_EPOCH);
    if errors.is_empty() {
        let _none = api::validation::update(resource, resource, &object, &object);
        let _other = api::validation::update(resource, resource, &object, &again.object);
    }
});
