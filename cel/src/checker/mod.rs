//! Types of all nodes, and which overloads calls mean.

mod unify;

use smallvec::SmallVec;

use crate::ast::{Call, Comprehension, Entry, Expr, ExprKind, Field, Id, Literal, operator};
use crate::env::Env;
use crate::library::Overload;
use crate::parser::Parsed;
use crate::source::Issue;
use crate::types::Type;
use unify::Unifier;

/// What is known of the nodes of a checked expression.
#[derive(Debug)]
pub struct Checked {
    types: Vec<Option<Type>>,
    overloads: Vec<SmallVec<[&'static Overload; 1]>>,
}

impl Checked {
    /// The type of a node.
    pub fn type_of(&self, id: Id) -> &Type {
        self.types.get(id as usize).and_then(Option::as_ref).unwrap_or(&Type::Dyn)
    }

    /// The overloads that a call may mean.
    pub fn overloads(&self, id: Id) -> &[&'static Overload] {
        self.overloads.get(id as usize).map_or(&[], SmallVec::as_slice)
    }
}

/// Checks an expression. Qualified names that mean one thing (`google.protobuf.Duration`, `sets.contains`) are
/// rewritten to stand as such.
///
/// # Errors
/// All that is wrong with its types.
pub fn check(env: &Env, parsed: &mut Parsed) -> Result<Checked, Vec<Issue>> {
    let mut expr = std::mem::replace(&mut parsed.expr, Expr { id: 0, kind: ExprKind::Unspecified });
    let mut checker = Checker {
        env,
        parsed,
        scopes: Vec::new(),
        unifier: Unifier::default(),
        types: Vec::new(),
        overloads: Vec::new(),
        issues: Vec::new(),
    };
    checker.expr(&mut expr);
    let Checker { unifier, mut types, overloads, issues, .. } = checker;
    parsed.expr = expr;
    if !issues.is_empty() {
        return Err(issues);
    }
    for of in types.iter_mut().flatten() {
        *of = unifier.substitute(of, true);
    }
    Ok(Checked { types, overloads })
}

struct Checker<'e> {
    env: &'e Env,
    parsed: &'e Parsed,
    /// The variables of comprehensions, innermost last.
    scopes: Vec<(String, Type)>,
    unifier: Unifier,
    types: Vec<Option<Type>>,
    overloads: Vec<SmallVec<[&'static Overload; 1]>>,
    issues: Vec<Issue>,
}

impl Checker<'_> {
    fn issue(&mut self, id: Id, message: String) {
        self.issues.push(Issue { location: self.parsed.location(id), message });
    }

    fn set(&mut self, id: Id, of: Type) {
        let at = id as usize;
        if self.types.len() <= at {
            self.types.resize(at + 1, None);
        }
        // Each level of an expression may double its type; what becomes too large is not followed.
        let mut room = MAX_TYPE_SIZE;
        self.types[at] = Some(if fits_in(&of, &mut room) { of } else { Type::Dyn });
    }

    fn get(&self, expr: &Expr) -> Type {
        self.types.get(expr.id as usize).cloned().flatten().unwrap_or(Type::Error)
    }

    fn set_overloads(&mut self, id: Id, overloads: SmallVec<[&'static Overload; 1]>) {
        let at = id as usize;
        if self.overloads.len() <= at {
            self.overloads.resize(at + 1, SmallVec::new());
        }
        self.overloads[at] = overloads;
    }

    /// The type of a name, and whether it is known; the name of a variable of a loop hides all others.
    fn lookup(&self, name: &str) -> Option<Type> {
        match name.strip_prefix('.') {
            Some(root) => self.env.identifier(root).map(|found| found.type_of()),
            None => match self.scopes.iter().rfind(|(known, _)| known == name) {
                Some((_, of)) => Some(of.clone()),
                None => self.env.identifier(name).map(|found| found.type_of()),
            },
        }
    }

    fn undeclared(&mut self, id: Id, name: &str) {
        self.issue(id, format!("undeclared reference to '{name}' (in container '')"));
        self.set(id, Type::Error);
    }

    fn expr(&mut self, expr: &mut Expr) {
        let id = expr.id;
        match &mut expr.kind {
            ExprKind::Unspecified => self.set(id, Type::Error),
            ExprKind::Literal(literal) => {
                let of = literal_type(literal);
                self.set(id, of);
            }
            ExprKind::Ident(name) => match self.lookup(name) {
                Some(of) => {
                    if let Some(root) = name.strip_prefix('.') {
                        *name = root.to_owned();
                    }
                    self.set(id, of);
                }
                None => {
                    let name = name.clone();
                    self.undeclared(id, &name);
                }
            },
            ExprKind::Select { .. } => self.select(expr),
            ExprKind::Call(_) => self.call(expr),
            ExprKind::List { elements, optional } => {
                let mut of: Option<Type> = None;
                for (at, element) in elements.iter_mut().enumerate() {
                    self.expr(element);
                    let mut found = self.get(element);
                    if optional.contains(&at) {
                        found = self.present(element, found);
                    }
                    of = Some(self.join(of, found));
                }
                let of = of.unwrap_or_else(|| self.unifier.fresh());
                self.set(id, Type::list(of));
            }
            ExprKind::Map(entries) => self.map(id, entries),
            ExprKind::Struct { type_name, fields } => {
                let name = type_name.clone();
                self.object(id, &name, fields);
                if let Some(root) = type_name.strip_prefix('.') {
                    *type_name = root.to_owned();
                }
            }
            ExprKind::Comprehension(comprehension) => self.comprehension(id, comprehension),
        }
    }

    /// What an optional element or entry holds.
    fn present(&mut self, expr: &Expr, of: Type) -> Type {
        match of.unwrap_optional() {
            Some(inner) => inner.clone(),
            None => {
                if !of.is_dyn() {
                    let expected = Type::optional(of.clone());
                    self.issue(expr.id, format!("expected type '{expected}' but found '{of}'"));
                }
                of
            }
        }
    }

    /// The type of all elements. That they do not differ is checked afterwards, with the other literals.
    fn join(&mut self, so_far: Option<Type>, next: Type) -> Type {
        let Some(so_far) = so_far else { return next };
        if self.unifier.assignable(&so_far, &next) { unify::most_general(so_far, next) } else { Type::Dyn }
    }

    fn map(&mut self, id: Id, entries: &mut [Entry]) {
        let mut key_type: Option<Type> = None;
        let mut value_type: Option<Type> = None;
        for entry in entries {
            self.expr(&mut entry.key);
            let found = self.get(&entry.key);
            key_type = Some(self.join(key_type, found));
            self.expr(&mut entry.value);
            let mut found = self.get(&entry.value);
            if entry.optional {
                found = self.present(&entry.value, found);
            }
            value_type = Some(self.join(value_type, found));
        }
        let key_type = key_type.unwrap_or_else(|| self.unifier.fresh());
        let value_type = value_type.unwrap_or_else(|| self.unifier.fresh());
        self.set(id, Type::map(key_type, value_type));
    }

    fn object(&mut self, id: Id, name: &str, fields: &mut [Field]) {
        let of = match self.lookup(name) {
            None => {
                self.undeclared(id, name);
                return;
            }
            Some(Type::Type(Some(of))) => match &*of {
                Type::Object(_) => (*of).clone(),
                other => {
                    let shown = other.to_string();
                    self.issue(id, format!("'{shown}' is not a message type"));
                    Type::Error
                }
            },
            Some(other) => {
                self.issue(id, format!("'{other}' is not a type"));
                Type::Error
            }
        };
        self.set(id, of.clone());
        for field in fields {
            self.expr(&mut field.value);
            let expected = self.field_type(field.id, &of, &field.name);
            let mut found = self.get(&field.value);
            if field.optional {
                found = self.present(&field.value, found);
            }
            if !self.unifier.assignable(&expected, &found) {
                let found = self.unifier.substitute(&found, false);
                let name = &field.name;
                self.issue(
                    field.id,
                    format!("expected type of field '{name}' is '{expected}' but provided type is '{found}'"),
                );
            }
        }
    }

    fn field_type(&mut self, id: Id, of: &Type, name: &str) -> Type {
        let Type::Object(decl) = of else { return Type::Error };
        if let Some(field) = decl.field(name) {
            return field.decl.cel_type();
        }
        if decl.open {
            return Type::Dyn;
        }
        self.issue(id, format!("undefined field '{name}'"));
        Type::Error
    }

    fn select(&mut self, expr: &mut Expr) {
        let id = expr.id;
        if let Some(name) = expr.qualified_name()
            && let Some(of) = self.lookup_qualified(&name)
        {
            self.set(id, of);
            expr.kind = ExprKind::Ident(name.trim_start_matches('.').to_owned());
            return;
        }
        let ExprKind::Select { operand, field, test } = &mut expr.kind else { return };
        let (field, test) = (field.clone(), *test);
        let found = self.selected(id, operand, &field, false);
        let of = if test { Type::Bool } else { found };
        let of = self.unifier.substitute(&of, false);
        self.set(id, of);
    }

    /// A dotted name that is one thing. A plain name is not looked for here.
    fn lookup_qualified(&self, name: &str) -> Option<Type> {
        name.trim_start_matches('.').contains('.').then(|| self.lookup(name)).flatten()
    }

    fn selected(&mut self, id: Id, operand: &mut Expr, field: &str, optional: bool) -> Type {
        self.expr(operand);
        let operand = self.unifier.substitute(&self.get(operand), false);
        let (target, was_optional) = match operand.unwrap_optional() {
            Some(inner) => (inner.clone(), true),
            None => (operand, false),
        };
        let found = match &target {
            Type::Map(of) => of.1.clone(),
            Type::Object(_) => self.field_type(id, &target, field),
            Type::Var(_) | Type::Param(_) => {
                self.unifier.assignable(&Type::Dyn, &target);
                Type::Dyn
            }
            other => {
                if !other.is_dyn_or_error() {
                    let shown = other.to_string();
                    self.issue(id, format!("type '{shown}' does not support field selection"));
                }
                Type::Dyn
            }
        };
        if was_optional || optional { Type::optional(found) } else { found }
    }

    fn call(&mut self, expr: &mut Expr) {
        let id = expr.id;
        let ExprKind::Call(call) = &mut expr.kind else { return };
        if call.function == operator::OPT_SELECT {
            self.optional_select(id, call);
            return;
        }
        for arg in &mut call.args {
            self.expr(arg);
        }
        let Some(target) = &mut call.target else {
            let name = call.function.trim_start_matches('.').to_owned();
            match self.env.function(&name) {
                None => {
                    let name = call.function.clone();
                    self.undeclared(id, &name);
                }
                Some(overloads) => {
                    call.function = name;
                    self.resolve(id, overloads, None, call);
                }
            }
            return;
        };
        if let Some(prefix) = target.qualified_name() {
            let name = format!("{}.{}", prefix.trim_start_matches('.'), call.function);
            if let Some(overloads) = self.env.function(&name) {
                call.function = name;
                call.target = None;
                self.resolve(id, overloads, None, call);
                return;
            }
        }
        self.expr(target);
        let target_type = self.get(target);
        match self.env.function(&call.function) {
            Some(overloads) => self.resolve(id, overloads, Some(target_type), call),
            None => {
                let name = call.function.clone();
                self.undeclared(id, &name);
            }
        }
    }

    fn optional_select(&mut self, id: Id, call: &mut Call) {
        let [operand, field] = call.args.as_mut_slice() else { return };
        let ExprKind::Literal(Literal::String(name)) = &field.kind else { return };
        let name = name.clone();
        self.set(field.id, Type::String);
        let found = self.selected(id, operand, &name, true);
        let found = self.unifier.substitute(&found, false);
        self.set(id, found);
        let overloads = self.env.function(operator::OPT_SELECT).unwrap_or(&[]);
        self.set_overloads(id, overloads.iter().collect());
    }

    fn resolve(&mut self, id: Id, overloads: &'static [Overload], target: Option<Type>, call: &Call) {
        let member = target.is_some();
        let args: Vec<Type> = target.into_iter().chain(call.args.iter().map(|arg| self.get(arg))).collect();
        if matches!(call.function.as_str(), operator::AND | operator::OR) {
            self.logic(id, overloads, call, &args);
            return;
        }
        let mut chosen: SmallVec<[&'static Overload; 1]> = SmallVec::new();
        let mut result: Option<Type> = None;
        for overload in overloads.iter().filter(|overload| overload.member == member) {
            if overload.args.len() != args.len() {
                continue;
            }
            let (params, of) = self.unifier.instantiate(&overload.args, &overload.result);
            if !self.unifier.all_assignable(&args, &params) {
                continue;
            }
            chosen.push(overload);
            let of = self.unifier.substitute(&of, false);
            result = Some(match result {
                None => of,
                Some(so_far) if so_far.is_dyn() || so_far == of => so_far,
                Some(_) => Type::Dyn,
            });
        }
        match result {
            Some(of) => {
                self.set(id, of);
                self.set_overloads(id, chosen);
            }
            None => {
                let args: Vec<String> = args.iter().map(|arg| self.unifier.substitute(arg, true).to_string()).collect();
                let signature = match args.split_first() {
                    Some((target, rest)) if member => format!("{target}.({})", rest.join(", ")),
                    _ => format!("({})", args.join(", ")),
                };
                let function = &call.function;
                self.issue(id, format!("found no matching overload for '{function}' applied to '{signature}'"));
                self.set(id, Type::Error);
            }
        }
    }

    fn logic(&mut self, id: Id, overloads: &'static [Overload], call: &Call, args: &[Type]) {
        let mut wrong = false;
        for (arg, of) in call.args.iter().zip(args) {
            if !self.unifier.assignable(of, &Type::Bool) {
                let of = self.unifier.substitute(of, false);
                self.issue(arg.id, format!("expected type 'bool' but found '{of}'"));
                wrong = true;
            }
        }
        self.set(id, if wrong { Type::Error } else { Type::Bool });
        self.set_overloads(id, overloads.iter().collect());
    }

    fn comprehension(&mut self, id: Id, c: &mut Comprehension) {
        self.expr(&mut c.range);
        self.expr(&mut c.init);
        let range = self.unifier.substitute(&self.get(&c.range), false);
        let accu = self.get(&c.init);
        let depth = self.scopes.len();
        self.scopes.push((c.accu.clone(), accu.clone()));
        let two = c.var2.is_some();
        let (var, var2) = match &range {
            Type::List(of) if two => (Type::Int, (**of).clone()),
            Type::List(of) => ((**of).clone(), Type::Error),
            Type::Map(of) => (of.0.clone(), of.1.clone()),
            Type::Dyn | Type::Any | Type::Error | Type::Var(_) | Type::Param(_) => {
                self.unifier.assignable(&Type::Dyn, &range);
                (Type::Dyn, Type::Dyn)
            }
            other => {
                let message = format!(
                    "expression of type '{other}' cannot be range of a comprehension (must be list, map, or dynamic)"
                );
                self.issue(c.range.id, message);
                (Type::Error, Type::Error)
            }
        };
        self.scopes.push((c.var.clone(), var));
        if let Some(name) = &c.var2 {
            self.scopes.push((name.clone(), var2));
        }
        self.expr(&mut c.condition);
        self.assert(&c.condition, &Type::Bool);
        self.expr(&mut c.step);
        self.assert(&c.step, &accu);
        self.scopes.truncate(depth + 1);
        self.expr(&mut c.result);
        self.scopes.truncate(depth);
        let of = self.unifier.substitute(&self.get(&c.result), false);
        self.set(id, of);
    }

    fn assert(&mut self, expr: &Expr, expected: &Type) {
        let found = self.get(expr);
        if !self.unifier.assignable(expected, &found) {
            self.issue(expr.id, format!("expected type '{expected}' but found '{found}'"));
        }
    }
}

/// A type may not have more parts than this.
const MAX_TYPE_SIZE: u32 = 4_096;

fn fits_in(of: &Type, room: &mut u32) -> bool {
    let Some(left) = room.checked_sub(1) else { return false };
    *room = left;
    match of {
        Type::List(of) | Type::Type(Some(of)) => fits_in(of, room),
        Type::Map(of) => fits_in(&of.0, room) && fits_in(&of.1, room),
        Type::Opaque(_, of) => of.iter().all(|of| fits_in(of, room)),
        _ => true,
    }
}

fn literal_type(literal: &Literal) -> Type {
    match literal {
        Literal::Null => Type::Null,
        Literal::Bool(_) => Type::Bool,
        Literal::Int(_) => Type::Int,
        Literal::Uint(_) => Type::Uint,
        Literal::Double(_) => Type::Double,
        Literal::String(_) => Type::String,
        Literal::Bytes(_) => Type::Bytes,
    }
}
