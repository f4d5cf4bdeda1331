//! Kubernetes' named formats: `format.dns1123Label().validate(name)`.

use apimachinery::names;
use base64::Engine as _;

use super::{Functions, text, urls};
use crate::cost::Cost;
use crate::error::Error;
use crate::types::Type;
use crate::value::Value;

/// A named format.
pub struct Format {
    /// The name under which it is found.
    key: &'static str,
    /// The name that it shows.
    pub name: &'static str,
    /// The length of the regular expression that checks it, for the sake of cost.
    pub regex_size: u64,
    check: fn(&str) -> Vec<String>,
}

impl std::fmt::Debug for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

const DATE_TIME_PATTERN: u64 = 70;
const UUID_PATTERN: u64 = 70;

/// All formats.
static FORMATS: [Format; 13] = [
    Format { key: "dns1123Label", name: "DNS1123Label", regex_size: 30, check: names::dns1123_label },
    Format { key: "dns1123Subdomain", name: "DNS1123Subdomain", regex_size: 60, check: names::dns1123_subdomain },
    Format { key: "dns1035Label", name: "DNS1035Label", regex_size: 30, check: names::dns1035_label },
    Format { key: "qualifiedName", name: "QualifiedName", regex_size: 60, check: names::qualified_name },
    Format {
        key: "dns1123LabelPrefix",
        name: "DNS1123LabelPrefix",
        regex_size: 30,
        check: |name| names::dns1123_label(&names::mask_trailing_dash(name)),
    },
    Format {
        key: "dns1123SubdomainPrefix",
        name: "DNS1123SubdomainPrefix",
        regex_size: 60,
        check: |name| names::dns1123_subdomain(&names::mask_trailing_dash(name)),
    },
    Format {
        key: "dns1035LabelPrefix",
        name: "DNS1035LabelPrefix",
        regex_size: 30,
        check: |name| names::dns1035_label(&names::mask_trailing_dash(name)),
    },
    Format { key: "labelValue", name: "LabelValue", regex_size: 40, check: names::label_value },
    Format {
        key: "uri",
        name: "URI",
        regex_size: 1103,
        check: |uri| urls::parse_request_uri(uri).err().into_iter().collect(),
    },
    Format {
        key: "uuid",
        name: "uuid",
        regex_size: UUID_PATTERN,
        check: |uuid| unless(is_uuid(uuid), "does not match the UUID format"),
    },
    Format {
        key: "byte",
        name: "byte",
        regex_size: 84,
        check: |bytes| {
            let ok = !bytes.is_empty() && base64::engine::general_purpose::STANDARD.decode(bytes).is_ok();
            unless(ok, "invalid base64")
        },
    },
    Format {
        key: "date",
        name: "date",
        regex_size: DATE_TIME_PATTERN,
        check: |date| unless(crate::value::is_date(date), "invalid date"),
    },
    Format {
        key: "datetime",
        name: "datetime",
        regex_size: DATE_TIME_PATTERN,
        check: |time| unless(time.contains(['t', 'T']) && crate::value::is_date_time(time), "invalid datetime"),
    },
];

fn unless(ok: bool, message: &str) -> Vec<String> {
    if ok { Vec::new() } else { vec![message.into()] }
}

fn is_uuid(text: &str) -> bool {
    let bytes = text.as_bytes();
    let mut digits = 0;
    for (at, b) in bytes.iter().enumerate() {
        match b {
            // The dashes may be left out.
            b'-' if matches!(digits, 8 | 12 | 16 | 20) && bytes.get(at.wrapping_sub(1)) != Some(&b'-') => {}
            b if b.is_ascii_hexdigit() => digits += 1,
            _ => return false,
        }
    }
    digits == 32
}

/// A function for each format.
macro_rules! constants {
    ($f:expr, $of:expr, [$(($name:literal, $at:literal)),* $(,)?]) => {
        $($f.global($name, $name, &[], $of.clone(), Cost::Default, |_| Ok(Value::Format(&FORMATS[$at])));)*
    };
}

/// Declares them.
pub fn declare(f: &mut Functions) {
    let format = Type::named("kubernetes.NamedFormat");
    constants!(
        f,
        format,
        [
            ("format.dns1123Label", 0),
            ("format.dns1123Subdomain", 1),
            ("format.dns1035Label", 2),
            ("format.qualifiedName", 3),
            ("format.dns1123LabelPrefix", 4),
            ("format.dns1123SubdomainPrefix", 5),
            ("format.dns1035LabelPrefix", 6),
            ("format.labelValue", 7),
            ("format.uri", 8),
            ("format.uuid", 9),
            ("format.byte", 10),
            ("format.date", 11),
            ("format.datetime", 12),
        ]
    );
    let texts = Type::optional(Type::list(Type::String));
    f.member("validate", "format-validate", &[format.clone(), Type::String], texts, Cost::Validate, |args| {
        let Value::Format(format) = &args[0] else { return Err(Error::no_such_overload()) };
        let problems = (format.check)(text(&args[1])?);
        Ok(if problems.is_empty() { Value::none() } else { Value::some(Value::texts(problems)) })
    });
    f.global("format.named", "format-named", &[Type::String], Type::optional(format), Cost::Nominal, |args| {
        let name = text(&args[0])?;
        Ok(FORMATS
            .iter()
            .find(|format| format.key == name)
            .map_or_else(Value::none, |format| Value::some(Value::Format(format))))
    });
}
