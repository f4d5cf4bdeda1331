//! Reads the table's text. The notation is described at its top.
//!
//! The text is part of the build, so a line that cannot be read is a broken build: it panics with the
//! line, and the table's own test runs it.

use std::collections::HashMap;

use apimachinery::schema::{
    Field, FieldExtra, ListKind, ListType, MapType, ObjectType, ProtoEntry, Schema, StringType, Text, Type, TypeId,
    Union,
};

use super::{Package, Resource, Subresource, Table};

const ALL_VERBS: &str = "create,delete,deletecollection,get,list,patch,update,watch";

/// A struct as its lines give it, before embedded structs are flattened.
#[derive(Default)]
struct Draft {
    name: &'static str,
    atomic: bool,
    kind: bool,
    unions: Vec<Union>,
    entries: Vec<DraftEntry>,
}

enum DraftEntry {
    Field { field: Field, number: u32 },
    Embed { ty: &'static str, number: u32 },
}

#[derive(Default)]
struct Parser {
    schema: Schema,
    names: HashMap<&'static str, TypeId>,
    expressions: HashMap<&'static str, TypeId>,
    /// Copies of structs whose fields merge otherwise than the type itself says.
    copies: Vec<(TypeId, &'static str, bool)>,
}

/// Reads the whole text.
pub(super) fn parse(text: &'static str) -> Table {
    let mut parser = Parser::default();
    let mut drafts: Vec<Draft> = Vec::new();
    let mut packages = Vec::new();
    let mut resources = Vec::new();
    for line in text.lines().filter(|line| line.starts_with("T ")) {
        let name = line.split(' ').nth(1).expect("a T line names its type");
        let id = parser.schema.add(Type::Json);
        parser.names.insert(name, id);
    }
    for line in text.lines() {
        let Some((tag, rest)) = line.split_once(' ') else { continue };
        match tag {
            "P" => packages.push(package(rest)),
            "T" => {
                let mut words = rest.split(' ');
                let mut draft = Draft { name: words.next().unwrap_or_default(), ..Draft::default() };
                for word in words {
                    match word {
                        "atomic" => draft.atomic = true,
                        "kind" => draft.kind = true,
                        other => panic!("unknown word {other} in: {line}"),
                    }
                }
                drafts.push(draft);
            }
            "u" => drafts.last_mut().expect("u follows T").unions.push(union(rest)),
            "e" => {
                let (ty, number) = rest.split_once(' ').expect("e has a type and a number");
                let number = number.parse().expect("numbers are numbers");
                drafts.last_mut().expect("e follows T").entries.push(DraftEntry::Embed { ty, number });
            }
            "f" => {
                let entry = parser.field(rest);
                drafts.last_mut().expect("f follows T").entries.push(entry);
            }
            "R" => resources.push(resource(rest)),
            "#" => {}
            _ => panic!("unknown line in the table: {line}"),
        }
    }
    parser.finish(&drafts);
    assemble(parser, &drafts, packages, resources)
}

fn assemble(parser: Parser, drafts: &[Draft], packages: Vec<Package>, resources: Vec<Resource>) -> Table {
    let mut names: Vec<(&'static str, TypeId)> = parser.names.iter().map(|(name, id)| (*name, *id)).collect();
    names.sort_unstable();
    let mut kinds = Vec::new();
    for draft in drafts {
        let (package, kind) = draft.name.rsplit_once('.').expect("types have a package");
        // WatchEvent is the one kind that carries no apiVersion of its own.
        if !draft.kind && kind != "WatchEvent" {
            continue;
        }
        let package = packages.iter().find(|known| known.name == package).expect("packages are declared");
        kinds.push(((kind, package.group, package.version), parser.names[draft.name]));
    }
    kinds.sort_unstable();
    let index = |key: fn(&Resource) -> (&str, &str, &str)| {
        let mut order: Vec<u16> = (0..u16::try_from(resources.len()).expect("about a hundred resources")).collect();
        order.sort_by(|a, b| key(&resources[usize::from(*a)]).cmp(&key(&resources[usize::from(*b)])));
        order
    };
    let by_plural = index(|resource| (&resource.plural, &resource.group, &resource.version));
    let by_kind = index(|resource| (&resource.kind, &resource.group, &resource.version));
    let defaults = defaults(&parser.schema);
    Table { schema: parser.schema, names, kinds, resources, by_plural, by_kind, packages, defaults }
}

/// Which types have a default somewhere below: settled when a round changes nothing, since types recur.
fn defaults(schema: &Schema) -> Vec<bool> {
    let count = u32::try_from(schema.len()).expect("type ids are u32");
    let mut has = vec![false; schema.len()];
    loop {
        let mut changed = false;
        for id in 0..count {
            if has[id as usize] {
                continue;
            }
            let below = match schema.get(TypeId(id)) {
                Type::Object(object) => {
                    object.fields.iter().any(|field| field.default().is_some() || has[field.ty.0 as usize])
                }
                Type::List(list) => has[list.item.0 as usize],
                Type::Map(map) => has[map.value.0 as usize],
                _ => false,
            };
            if below {
                has[id as usize] = true;
                changed = true;
            }
        }
        if !changed {
            return has;
        }
    }
}

impl Parser {
    fn field(&mut self, rest: &'static str) -> DraftEntry {
        let mut words = rest.splitn(5, ' ');
        let mut next = || words.next().unwrap_or_else(|| panic!("short field line: {rest}"));
        let (name, expression, number, flags) = (next(), next(), next(), next());
        let mut field = Field::new(name, self.expression(expression));
        for flag in flags.chars() {
            match flag {
                'o' => field.omitempty = true,
                'z' => field.omitzero = true,
                'p' => field.pointer = true,
                'r' => field.required = true,
                'm' => field.patch_merge = true,
                'R' => field.patch_replace = true,
                'k' => field.patch_retain_keys = true,
                'a' => field.marked_atomic = true,
                '-' => {}
                other => panic!("unknown flag {other} in: {rest}"),
            }
        }
        if let Some(more) = words.next() {
            let mut extra = FieldExtra::default();
            let more = match more.strip_prefix("key=") {
                None => more,
                Some(more) => {
                    let (key, more) = more.split_once(' ').unwrap_or((more, ""));
                    extra.patch_merge_key = Some(key.into());
                    more
                }
            };
            if let Some(default) = more.strip_prefix("default=") {
                extra.default = Some(serde_json::from_str(default).unwrap_or_else(|_| panic!("bad default: {rest}")));
            }
            field.extra = Some(Box::new(extra));
        }
        DraftEntry::Field { field, number: number.parse().unwrap_or_else(|_| panic!("bad number: {rest}")) }
    }

    /// The id of a type expression; equal expressions share one.
    fn expression(&mut self, text: &'static str) -> TypeId {
        if let Some(id) = self.names.get(text).or_else(|| self.expressions.get(text)) {
            return *id;
        }
        let (wrapped, rest) = match text.strip_prefix("w[") {
            Some(_) => (true, &text[1..]),
            None => (false, text),
        };
        let id = if let Some(rest) = rest.strip_prefix('[') {
            let (kind, item) = rest.split_once(']').unwrap_or_else(|| panic!("bad list: {text}"));
            let item = self.expression(item);
            let (kind, marked) = match kind {
                "" => (ListKind::Atomic, false),
                "a" => (ListKind::Atomic, true),
                "s" => (ListKind::Set, true),
                keys => (ListKind::Map(texts(keys.strip_prefix("m:").unwrap_or(keys), ',').into()), true),
            };
            self.schema.add(Type::List(ListType { item, kind, wrapped, marked }))
        } else if let Some(rest) = rest.strip_prefix('{') {
            let (kind, value) = rest.split_once('}').unwrap_or_else(|| panic!("bad map: {text}"));
            if self.names.contains_key(value) && !kind.is_empty() {
                // The struct again, with its own way of merging.
                let id = self.schema.add(Type::Json);
                self.copies.push((id, value, kind == "a"));
                id
            } else {
                let value = self.expression(value);
                self.schema.add(Type::Map(MapType { value, atomic: kind == "a", marked: !kind.is_empty() }))
            }
        } else {
            let ty = self.scalar(text);
            self.schema.add(ty)
        };
        self.expressions.insert(text, id);
        id
    }

    fn scalar(&mut self, text: &'static str) -> Type {
        if let Some((name, argument)) = text.strip_suffix('>').and_then(|text| text.split_once('<')) {
            let id = self.names[argument];
            return match name {
                "schemaorbool" => Type::SchemaOrBool(id),
                "schemaorarray" => Type::SchemaOrArray(id),
                "schemaorstrings" => Type::SchemaOrStringArray(id),
                other => panic!("unknown type {other}"),
            };
        }
        if let Some(rest) = text.strip_prefix("string") {
            let (values, go_name) = rest.split_once('@').unwrap_or((rest, ""));
            let values = values.strip_prefix('(').and_then(|values| values.strip_suffix(')'));
            let values = values.map_or_else(Vec::new, |values| texts(values, '|'));
            return Type::String(StringType { values: values.into(), go_name: go_name.into() });
        }
        match text {
            "bytes" => Type::Bytes,
            "i32" => Type::Int32,
            "i64" => Type::Int64,
            "f64" => Type::Double,
            "bool" => Type::Bool,
            "time" => Type::Time,
            "microtime" => Type::MicroTime,
            "duration" => Type::Duration,
            "quantity" => Type::Quantity,
            "intorstring" => Type::IntOrString,
            "raw" => Type::RawExtension,
            "json" => Type::Json,
            "fieldsv1" => Type::FieldsV1,
            "unknown" => Type::Unknown,
            other => panic!("unknown type {other} in the table"),
        }
    }

    /// Puts the structs into the arena with embedded fields flattened.
    fn finish(&mut self, drafts: &[Draft]) {
        let by_name: HashMap<&str, &Draft> = drafts.iter().map(|draft| (draft.name, draft)).collect();
        for draft in drafts {
            let object = self.object(draft, &by_name);
            self.schema.set(self.names[draft.name], Type::Object(object));
        }
        for (id, name, atomic) in std::mem::take(&mut self.copies) {
            let mut object = self.object(by_name[name], &by_name);
            object.atomic = atomic;
            self.schema.set(id, Type::Object(object));
        }
    }

    fn object(&self, draft: &Draft, by_name: &HashMap<&str, &Draft>) -> ObjectType {
        let mut fields = Vec::new();
        flatten(draft, by_name, &mut fields);
        let required = fields.iter().filter(|field| field.required).map(|field| field.name.clone()).collect();
        let names: Vec<_> = fields.iter().map(|field| field.name.clone()).collect();
        let mut object = ObjectType::new(draft.name, fields);
        let place = |name| object.fields.binary_search_by(|other| other.name.cmp(name)).expect("all fields are there");
        object.order = names.iter().map(|name| u16::try_from(place(name)).expect("few fields")).collect();
        object.required = required;
        object.atomic = draft.atomic;
        object.unions = draft.unions.clone().into();
        let mut proto: Vec<ProtoEntry> = Vec::new();
        for entry in &draft.entries {
            match entry {
                DraftEntry::Field { field, number } if *number > 0 => {
                    let at = object.fields.binary_search_by(|other| other.name.cmp(&field.name));
                    let field = u16::try_from(at.expect("own fields are among all fields")).expect("few fields");
                    proto.push(ProtoEntry::Field { number: *number, field });
                }
                DraftEntry::Embed { ty, number } if *number > 0 => {
                    proto.push(ProtoEntry::Embed { number: *number, message: self.names[ty] });
                }
                _ => {}
            }
        }
        proto.sort_by_key(ProtoEntry::number);
        object.proto = proto.into();
        object
    }
}

fn flatten(draft: &Draft, by_name: &HashMap<&str, &Draft>, out: &mut Vec<Field>) {
    for entry in &draft.entries {
        match entry {
            DraftEntry::Field { field, .. } => out.push(field.clone()),
            DraftEntry::Embed { ty, .. } => flatten(by_name[ty], by_name, out),
        }
    }
}

fn texts(list: &'static str, separator: char) -> Vec<Text> {
    list.split(separator)
        .map(|text| if text.contains('~') { Text::from(text.replace('~', " ")) } else { Text::from(text) })
        .collect()
}

fn package(rest: &'static str) -> Package {
    let words: Vec<&'static str> = rest.split(' ').collect();
    let [name, group, version, open_api_prefix] = words[..] else { panic!("bad package line: {rest}") };
    Package { name, group: group_name(group), version, open_api_prefix }
}

/// Core has no name on the wire.
fn group_name(group: &'static str) -> &'static str {
    match group {
        "core" | "-" => "",
        other => other,
    }
}

fn union(rest: &'static str) -> Union {
    let (discriminator, members) = rest.split_once(' ').expect("u has a discriminator and members");
    Union {
        discriminator: (discriminator != "-").then(|| discriminator.into()),
        members: members
            .split(',')
            .map(|member| member.split_once('=').expect("members are field=value"))
            .map(|(field, value)| (field.into(), value.into()))
            .collect(),
    }
}

fn resource(rest: &'static str) -> Resource {
    let mut words = rest.split(' ');
    let mut next = || words.next().unwrap_or_else(|| panic!("short resource line: {rest}"));
    let (group, version, plural, kind) = (group_name(next()), next(), next(), next());
    let (scope, default, storage) = (next(), next(), next());
    let storage_version = match storage.split_once('/') {
        None if storage == "-" => None,
        None => Some((group.into(), storage.into())),
        Some((group, version)) => Some((group_name(group).into(), version.into())),
    };
    let mut resource = Resource {
        group: group.into(),
        version: version.into(),
        plural: plural.into(),
        singular: kind.to_lowercase().into(),
        kind: kind.into(),
        list_kind: format!("{kind}List").into(),
        short_names: Vec::new(),
        categories: Vec::new(),
        namespaced: scope == "N",
        verbs: texts(ALL_VERBS, ','),
        subresources: Vec::new(),
        custom: false,
        enabled_by_default: default == "on",
        storage_version,
        storage_prefix: plural.into(),
        selectable_fields: Vec::new(),
    };
    for word in words {
        if let Some((key, value)) = word.split_once('=') {
            match key {
                "short" => resource.short_names = texts(value, ','),
                "categories" => resource.categories = texts(value, ','),
                "verbs" => resource.verbs = texts(value, ','),
                "prefix" => resource.storage_prefix = value.into(),
                "fields" => resource.selectable_fields = texts(value, ','),
                other => panic!("unknown key {other} in: {rest}"),
            }
        } else {
            resource.subresources.push(subresource(word, group, version));
        }
    }
    resource
}

fn subresource(word: &'static str, group: &'static str, version: &'static str) -> Subresource {
    let parts: Vec<&'static str> = word.split(':').collect();
    let [name, kind, verbs] = parts[..] else { panic!("bad subresource: {word}") };
    let verbs = if verbs == "rgpu" { "get,patch,update" } else { verbs };
    let (kind, foreign, (group, version)) = match kind.split_once('@') {
        Some((kind, other)) => (kind, true, other.split_once('/').expect("group/version")),
        None => (kind, false, (group, version)),
    };
    Subresource {
        name: name.into(),
        group: group.into(),
        version: version.into(),
        kind: kind.into(),
        foreign,
        verbs: texts(verbs, ','),
    }
}
