//! What an expression may refer to.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::decl::{DeclType, ObjectDecl};
use crate::library::{Functions, Overload, type_by_name};
use crate::types::Type;

/// The variables, types and functions of expressions. Built once and shared by many.
#[derive(Clone, Debug, Default)]
pub struct Env {
    variables: BTreeMap<String, Type>,
    /// The variable or variables whose sizes are known for the estimate of cost.
    sizes: Option<Arc<DeclType>>,
    objects: BTreeMap<String, Arc<ObjectDecl>>,
    mutation: bool,
    /// `cel.bind`.
    pub(crate) bindings: bool,
}

impl Env {
    /// An environment with Kubernetes' libraries and no variables.
    pub fn new() -> Self {
        Env::default()
    }

    /// Declares a variable of a CEL type.
    #[must_use]
    pub fn variable(mut self, name: &str, of: Type) -> Self {
        self.variables.insert(name.into(), of);
        self
    }

    /// Declares a variable of a declared type.
    #[must_use]
    pub fn declared(self, name: &str, of: &DeclType) -> Self {
        self.variable(name, of.cel_type())
    }

    /// Gives the type by which sizes are estimated: every path that starts at any variable is looked up in it, as
    /// upstream does for `self` and `oldSelf`.
    #[must_use]
    pub fn sizes(mut self, root: Arc<DeclType>) -> Self {
        self.sizes = Some(root);
        self
    }

    /// Lets expressions make objects of a type: `Name{field: value}`.
    #[must_use]
    pub fn object(mut self, decl: Arc<ObjectDecl>) -> Self {
        self.objects.insert(decl.name.clone(), decl);
        self
    }

    /// Adds what mutations have beside the rest: `Object{}`, `Object.spec{}` and so on with any fields, `JSONPatch{}`,
    /// and `jsonpatch.escapeKey`.
    #[must_use]
    pub fn mutation(mut self) -> Self {
        self.mutation = true;
        if let crate::decl::DeclKind::Object(decl) = &crate::library::jsonpatch::json_patch_type().kind {
            self.objects.insert(decl.name.clone(), decl.clone());
        }
        self
    }

    /// Adds `cel.bind(name, value, expression)`.
    #[must_use]
    pub fn bindings(mut self) -> Self {
        self.bindings = true;
        self
    }

    /// Whether there is a variable of this name.
    pub fn has_variable(&self, name: &str) -> bool {
        self.variables.contains_key(name)
    }

    /// The variables that an expression refers to.
    pub(crate) fn variables_in(&self, expr: &crate::ast::Expr) -> Vec<String> {
        self.variables.keys().filter(|name| crate::validators::mentions(expr, name)).cloned().collect()
    }

    pub(crate) fn size_root(&self) -> Option<&Arc<DeclType>> {
        self.sizes.as_ref()
    }

    /// The type of a variable, or of a type by its name.
    pub(crate) fn identifier(&self, name: &str) -> Option<Identifier> {
        if let Some(of) = self.variables.get(name) {
            return Some(Identifier::Variable(of.clone()));
        }
        if let Some(decl) = self.objects.get(name) {
            return Some(Identifier::Type(Type::Object(decl.clone())));
        }
        if self.mutation && (name == "Object" || name.starts_with("Object.")) {
            return Some(Identifier::Type(Type::Object(ObjectDecl::open(name))));
        }
        type_by_name(name).map(Identifier::Type)
    }

    /// The overloads of a function.
    pub(crate) fn function(&self, name: &str) -> Option<&'static [Overload]> {
        let name = name.strip_prefix('.').unwrap_or(name);
        Functions::base().get(name).or_else(|| self.mutation.then(|| Functions::mutation().get(name)).flatten())
    }
}

/// What a name means.
pub(crate) enum Identifier {
    /// A variable of this type.
    Variable(Type),
    /// This type itself.
    Type(Type),
}

impl Identifier {
    /// The type of the name as an expression.
    pub(crate) fn type_of(&self) -> Type {
        match self {
            Identifier::Variable(of) => of.clone(),
            Identifier::Type(of) => Type::type_of(of.clone()),
        }
    }
}
