//! The environments of CEL expressions in admission: webhooks' match conditions and admission policies.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use cel::{CompileError, DeclKind, DeclType, Env, FieldDecl, ObjectDecl, Program, Type};

/// Which variables there are beside `object`, `oldObject`, `request` and `namespaceObject`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// `params`.
    pub params: bool,
    /// `authorizer` and `authorizer.requestResource`.
    pub authorizer: bool,
    /// What mutations may make: `Object{}` and `JSONPatch{}`.
    pub patches: bool,
}

/// The environments of all options.
static ENVIRONMENTS: LazyLock<Vec<Env>> = LazyLock::new(|| {
    (0..8u8)
        .map(|bits| Options { params: bits & 1 != 0, authorizer: bits & 2 != 0, patches: bits & 4 != 0 })
        .map(build)
        .collect()
});

/// The environment of some options, without the variables of a policy.
pub fn environment(options: Options) -> &'static Env {
    let at = usize::from(options.params) + 2 * usize::from(options.authorizer) + 4 * usize::from(options.patches);
    &ENVIRONMENTS[at]
}

/// The environment in which a policy's types are checked: `object`, `oldObject` and `params` are what is known of them.
/// `params` is `None` where the policy has none.
pub fn typed_environment(object: Option<&DeclType>, params: Option<Option<&DeclType>>) -> Env {
    let of = |decl: Option<&DeclType>| decl.map_or(Type::Dyn, DeclType::cel_type);
    let mut env = Env::new()
        .variable("object", of(object))
        .variable("oldObject", of(object))
        .declared("namespaceObject", &namespace())
        .declared("request", &request())
        .variable("authorizer", cel::authorizer_type())
        // Upstream forgets this one here, and warns of expressions that are right.
        .variable("authorizer.requestResource", cel::resource_check_type());
    if let Some(params) = params {
        env = env.variable("params", of(params));
    }
    env
}

fn build(options: Options) -> Env {
    let mut env = Env::new()
        .variable("object", Type::Dyn)
        .variable("oldObject", Type::Dyn)
        .declared("namespaceObject", &namespace())
        .declared("request", &request());
    if options.params {
        env = env.variable("params", Type::Dyn);
    }
    if options.authorizer {
        env = env
            .variable("authorizer", cel::authorizer_type())
            .variable("authorizer.requestResource", cel::resource_check_type());
    }
    if options.patches { env.mutation() } else { env }
}

fn texts() -> Arc<DeclType> {
    DeclType::list(DeclType::string(), u64::MAX)
}

fn labels() -> Arc<DeclType> {
    DeclType::map(DeclType::string(), u64::MAX)
}

fn request() -> Arc<DeclType> {
    let text = DeclType::string;
    let kind =
        DeclType::object("kubernetes.GroupVersionKind", [("group", text()), ("version", text()), ("kind", text())]);
    let resource = DeclType::object(
        "kubernetes.GroupVersionResource",
        [("group", text()), ("version", text()), ("resource", text())],
    );
    let user = DeclType::object(
        "kubernetes.UserInfo",
        [("username", text()), ("uid", text()), ("groups", texts()), ("extra", DeclType::map(texts(), u64::MAX))],
    );
    DeclType::object(
        "kubernetes.AdmissionRequest",
        [
            ("kind", kind.clone()),
            ("resource", resource.clone()),
            ("subResource", text()),
            ("requestKind", kind),
            ("requestResource", resource),
            ("requestSubResource", text()),
            ("name", text()),
            ("namespace", text()),
            ("operation", text()),
            ("userInfo", user),
            ("dryRun", DeclType::bool()),
            ("options", DeclType::dynamic()),
        ],
    )
}

fn namespace() -> Arc<DeclType> {
    let text = DeclType::string;
    let time = || DeclType::cel(Type::Timestamp);
    let condition = DeclType::object(
        "kubernetes.NamespaceCondition",
        [("status", text()), ("type", text()), ("lastTransitionTime", time()), ("message", text()), ("reason", text())],
    );
    let status = DeclType::object(
        "kubernetes.NamespaceStatus",
        [("conditions", DeclType::list(condition, u64::MAX)), ("phase", text())],
    );
    let metadata = DeclType::object(
        "kubernetes.NamespaceMetadata",
        [
            ("name", text()),
            ("generateName", text()),
            ("namespace", text()),
            ("labels", labels()),
            ("annotations", labels()),
            ("UID", text()),
            ("creationTimestamp", time()),
            ("deletionGracePeriodSeconds", DeclType::int()),
            ("deletionTimestamp", time()),
            ("generation", DeclType::int()),
            ("resourceVersion", text()),
            ("finalizers", texts()),
        ],
    );
    let spec = DeclType::object("kubernetes.NamespaceSpec", [("finalizers", texts())]);
    DeclType::object("kubernetes.Namespace", [("metadata", metadata), ("spec", spec), ("status", status)])
}

/// The environment of the selectors of devices (KEP-4381), whose one variable is `device`.
static DEVICE: LazyLock<Env> = LazyLock::new(|| {
    const DOMAIN: u64 = 63;
    const VALUE: u64 = 64;
    const MOST: u64 = 32;
    let at_most = |of: Arc<DeclType>, max_elements| Arc::new(DeclType { max_elements, ..DeclType::clone(&of) });
    let by_name = |of| DeclType::map(DeclType::map(of, MOST), MOST);
    let device = DeclType::object(
        "kubernetes.DRADevice",
        [
            ("driver", at_most(DeclType::string(), DOMAIN)),
            ("allowMultipleAllocations", at_most(DeclType::bool(), 1)),
            ("attributes", by_name(at_most(DeclType::cel(Type::Any), VALUE))),
            ("capacity", by_name(DeclType::cel(Type::named("kubernetes.Quantity")))),
        ],
    );
    Env::new().bindings().declared("device", &device).sizes(device)
});

/// What the selection of a device may cost.
const DEVICE_COST: u64 = 1_000_000;

/// What is wrong with an expression that selects devices; `None` if it is fine.
pub fn device_selector(expression: &str) -> Option<DeviceRefusal> {
    let program = match compile(&DEVICE, expression, &[]) {
        Ok(program) => program,
        Err(refusal) => return Some(DeviceRefusal::Wrong(refusal)),
    };
    let found = program.output_type();
    if !matches!(found, Type::Bool | Type::Any) {
        let detail = format!("must evaluate to bool or the unknown type, not {}", declared(found));
        return Some(DeviceRefusal::Wrong(Refusal::Invalid(detail)));
    }
    (program.cost().max > DEVICE_COST).then_some(DeviceRefusal::TooComplex)
}

/// Why a selector of devices is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceRefusal {
    /// It does not compile, or is no condition.
    Wrong(Refusal),
    /// It may cost too much.
    TooComplex,
}

/// Why an expression is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The expression is wrong; what upstream shows beside the value.
    Invalid(String),
    /// It is well formed, but cannot be planned.
    Internal(String),
}

impl Refusal {
    /// The words.
    pub fn detail(&self) -> &str {
        match self {
            Refusal::Invalid(text) | Refusal::Internal(text) => text,
        }
    }
}

/// Compiles an expression that must be of one of some types. An empty list takes any.
///
/// # Errors
/// In upstream's words.
pub fn compile(env: &Env, expression: &str, types: &[Type]) -> Result<Program, Refusal> {
    // The type is looked at before the plan.
    match env.compile(expression) {
        Ok(program) => misfit(program.output_type(), types).map_or(Ok(program), Err),
        Err(CompileError::Issues(issues)) => Err(Refusal::Invalid(format!("compilation failed: {issues}"))),
        Err(CompileError::Program(error, found)) => Err(misfit(&found, types)
            .unwrap_or_else(|| Refusal::Internal(format!("program instantiation failed: {error}")))),
    }
}

/// What is wrong with a type that is none of those wanted.
fn misfit(found: &Type, types: &[Type]) -> Option<Refusal> {
    if types.is_empty() || types.contains(found) {
        return None;
    }
    let found = declared(found);
    let names: Vec<String> = types.iter().map(declared).collect();
    Some(Refusal::Invalid(match names.as_slice() {
        [one] => format!("must evaluate to {one} but got {found}"),
        _ => format!("must evaluate to one of [{}] but got {found}", names.join(" ")),
    }))
}

/// A type by the names that declarations have.
fn declared(of: &Type) -> String {
    match of {
        Type::List(of) => format!("list({})", declared(of)),
        Type::Map(of) => format!("map({}, {})", declared(&of.0), declared(&of.1)),
        Type::Opaque(name, of) if !of.is_empty() => {
            format!("{name}({})", of.iter().map(declared).collect::<Vec<_>>().join(", "))
        }
        other => other.runtime_name().to_owned(),
    }
}

/// The type `JSONPatch` in a list: what a JSON patch mutation must be.
pub fn json_patch() -> Type {
    Type::list(Type::Object(ObjectDecl::without_fields("JSONPatch")))
}

/// The type `Object`: what an apply configuration must be.
pub fn object() -> Type {
    Type::Object(ObjectDecl::without_fields("Object"))
}

/// The variables of a policy, each of which may use those before it.
#[derive(Clone, Debug, Default)]
pub struct Variables {
    /// Whether there is `variables` to speak of.
    any: bool,
    fields: BTreeMap<String, FieldDecl>,
}

impl Variables {
    /// The variables of a policy with `count` of them, none of which is declared yet.
    pub fn of(count: usize) -> Self {
        Self { any: count > 0, ..Self::default() }
    }

    /// The variables of a policy that may have none and still speak of them, as mutating ones may.
    pub fn always() -> Self {
        Self { any: true, ..Self::default() }
    }

    /// Declares a variable; `None` for one that does not compile.
    pub fn add(&mut self, name: &str, of: Option<&Type>) {
        let of = match of {
            Some(
                of @ (Type::Any
                | Type::Bool
                | Type::Bytes
                | Type::Double
                | Type::Duration
                | Type::Int
                | Type::Null
                | Type::String
                | Type::Timestamp
                | Type::Uint
                | Type::List(_)
                | Type::Map(_)),
            ) => of.clone(),
            // Objects and the like are looked at when they are evaluated.
            _ => Type::Dyn,
        };
        let field = FieldDecl { json_name: name.into(), decl: DeclType::cel(of), required: true };
        self.fields.insert(name.into(), field);
    }

    /// An environment that also has `variables`, if there are any.
    pub fn within(&self, env: &Env) -> Env {
        if !self.any {
            return env.clone();
        }
        let decl = ObjectDecl { name: "kubernetes.variables".into(), fields: self.fields.clone(), open: false };
        let decl = DeclType {
            kind: DeclKind::Object(Arc::new(decl)),
            max_elements: 0,
            min_serialized_size: 2,
            nullable: false,
        };
        env.clone().declared("variables", &decl)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_in_upstreams_words() {
        let env = environment(Options { authorizer: true, ..Options::default() });
        for (expression, detail) in [
            ("object.spec.replicas > 1", ""),
            ("request.userInfo.username == 'a' && namespaceObject.metadata.labels.x == 'y'", ""),
            ("authorizer.requestResource.check('get').allowed()", ""),
            ("1", "must evaluate to bool but got int"),
            ("int('x')", "must evaluate to bool but got int"),
            ("int('x') == 1", "program instantiation failed: type conversion error from 'string' to 'int'"),
            ("object.x", "must evaluate to bool but got dyn"),
            (
                "params.x == 1",
                "compilation failed: ERROR: <input>:1:1: undeclared reference to 'params' (in container '')\n | params.x == 1\n | ^",
            ),
            (
                "request.user == ''",
                "compilation failed: ERROR: <input>:1:8: undefined field 'user'\n | request.user == ''\n | .......^",
            ),
        ] {
            let refusal = compile(env, expression, &[Type::Bool]).err();
            assert_eq!(refusal.as_ref().map_or("", |r| r.detail()), detail, "{expression}");
        }
    }

    #[test]
    fn devices_are_selected_by_conditions() {
        let shown = |expression| match device_selector(expression) {
            None => String::new(),
            Some(DeviceRefusal::Wrong(refusal)) => refusal.detail().to_owned(),
            Some(DeviceRefusal::TooComplex) => "too complex".to_owned(),
        };
        for (expression, refusal) in [
            ("device.driver == 'd.example.com'", ""),
            ("device.attributes['d.example.com'].on", ""),
            ("device.capacity['d.example.com'].memory.isGreaterThan(quantity('1Gi'))", ""),
            ("cel.bind(d, device.attributes['d.example.com'], d.a && d.b)", ""),
            ("device.driver", "must evaluate to bool or the unknown type, not string"),
        ] {
            assert_eq!(shown(expression), refusal, "{expression}");
        }
        assert!(shown("wrong").starts_with("compilation failed: ERROR: <input>:1:1: undeclared reference to 'wrong'"));
        let nested = "device.attributes.all(a, device.attributes.all(b, device.attributes.all(c, device.attributes.all(d, device.attributes.all(e, a == b && c == d && e == a)))))";
        assert_eq!(shown(nested), "too complex");
    }

    #[test]
    fn variables_see_those_before() {
        let base = environment(Options::default());
        let mut variables = Variables::of(1);
        variables.add("n", Some(&Type::Int));
        let env = variables.within(base);
        assert!(compile(&env, "variables.n > 1", &[Type::Bool]).is_ok());
        let refusal = compile(&env, "variables.m > 1", &[Type::Bool]).expect_err("there is no m");
        assert!(refusal.detail().contains("undefined field 'm'"), "{refusal:?}");
    }

    #[test]
    fn patches_have_their_types() {
        let env = environment(Options { patches: true, ..Options::default() });
        assert!(compile(env, "[JSONPatch{op: 'add', path: '/a', value: 1}]", &[json_patch()]).is_ok());
        assert!(compile(env, "Object{spec: Object.spec{replicas: 2}}", &[object()]).is_ok());
        let refusal = compile(env, "Object.spec{}", &[object()]).expect_err("a part is no object");
        assert_eq!(refusal.detail(), "must evaluate to Object but got Object.spec");
    }
}
