//! The estimate of an expression's cost.

use ahash::AHashMap;

use super::call::Argument;
use super::{Cost, LIST, MAP, OBJECT, Range, SELECT};
use crate::ast::{ACCUMULATOR, Call, Comprehension, Expr, ExprKind, Id, Literal};
use crate::checker::Checked;
use crate::env::Env;
use crate::types::{OPTIONAL, Type};

/// The least and the most that an expression may cost.
pub fn estimate(env: &Env, expr: &Expr, checked: &Checked) -> Range {
    let mut estimator = Estimator {
        env,
        checked,
        paths: AHashMap::new(),
        sizes: AHashMap::new(),
        entries: AHashMap::new(),
        locals: Vec::new(),
    };
    estimator.cost(expr)
}

/// The sizes of what a list or a map holds.
#[derive(Clone, Copy)]
struct EntrySize {
    list: bool,
    key: Range,
    value: Range,
}

impl EntrySize {
    fn union(a: Option<EntrySize>, b: Option<EntrySize>) -> Option<EntrySize> {
        let (a, b) = (a?, b?);
        Some(EntrySize { list: a.list, key: a.key.union(b.key), value: a.value.union(b.value) })
    }
}

/// A variable of a comprehension.
struct Local {
    name: String,
    path: Option<Vec<String>>,
    size: Option<Range>,
    entries: Option<EntrySize>,
}

struct Estimator<'e> {
    env: &'e Env,
    checked: &'e Checked,
    /// The path through the declared types that leads to a node.
    paths: AHashMap<Id, Vec<String>>,
    sizes: AHashMap<Id, Range>,
    entries: AHashMap<Id, EntrySize>,
    locals: Vec<Local>,
}

impl Estimator<'_> {
    fn local(&self, name: &str) -> Option<&Local> {
        self.locals.iter().rfind(|local| local.name == name)
    }

    fn cost(&mut self, expr: &Expr) -> Range {
        match &expr.kind {
            ExprKind::Unspecified | ExprKind::Literal(_) => Range::ZERO,
            ExprKind::Ident(name) => {
                let path = match self.local(name) {
                    Some(local) => local.path.clone(),
                    None => Some(vec![name.clone()]),
                };
                if let Some(path) = path {
                    self.paths.insert(expr.id, path);
                }
                Range::fixed(SELECT)
            }
            // Asking whether a field is there costs nothing of its own.
            ExprKind::Select { operand, test: true, .. } => self.cost(operand),
            ExprKind::Select { operand, field, test: false } => {
                let mut sum = self.cost(operand);
                if matches!(self.checked.type_of(operand.id), Type::Map(_) | Type::Object(_) | Type::Param(_)) {
                    sum = sum.add(Range::fixed(SELECT));
                }
                self.extend_path(expr.id, operand, field);
                sum
            }
            ExprKind::Call(call) => self.call(expr, call),
            ExprKind::List { elements, .. } => {
                let mut sum = Range::fixed(LIST);
                let mut size = no_elements(elements.is_empty());
                for element in elements {
                    sum = sum.add(self.cost(element));
                    size = size.union(self.size_or_unknown(element));
                }
                self.entries.insert(expr.id, EntrySize { list: true, key: Range::fixed(1), value: size });
                sum
            }
            ExprKind::Map(entries) => {
                let mut sum = Range::fixed(MAP);
                let mut key = no_elements(entries.is_empty());
                let mut value = key;
                for entry in entries {
                    sum = sum.add(self.cost(&entry.key)).add(self.cost(&entry.value));
                    key = key.union(self.size_or_unknown(&entry.key));
                    value = value.union(self.size_or_unknown(&entry.value));
                }
                self.entries.insert(expr.id, EntrySize { list: false, key, value });
                sum
            }
            ExprKind::Struct { fields, .. } => {
                fields.iter().fold(Range::fixed(OBJECT), |sum, field| sum.add(self.cost(&field.value)))
            }
            ExprKind::Comprehension(c) if is_bind(c) => self.bind(expr, c),
            ExprKind::Comprehension(c) => self.comprehension(expr, c),
        }
    }

    fn path(&self, expr: &Expr) -> Option<Vec<String>> {
        if let ExprKind::Ident(name) = &expr.kind
            && let Some(local) = self.local(name)
        {
            return local.path.clone();
        }
        self.paths.get(&expr.id).cloned()
    }

    fn extend_path(&mut self, id: Id, from: &Expr, step: &str) {
        // A path that starts nowhere leads nowhere known, but upstream counts its steps all the same.
        let mut path = self.path(from).unwrap_or_default();
        path.push(step.into());
        self.paths.insert(id, path);
    }

    fn declared_size(&self, path: &[String]) -> Option<Range> {
        let (_, steps) = path.split_first()?;
        let decl = self.env.size_root()?.at(steps)?;
        Some(Range { min: 0, max: decl.max_elements })
    }

    fn size(&mut self, expr: &Expr) -> Option<Range> {
        if let Some(size) = self.sizes.get(&expr.id) {
            return Some(*size);
        }
        let literal = match &expr.kind {
            ExprKind::Literal(Literal::String(text)) => Some(text.chars().count()),
            ExprKind::Literal(Literal::Bytes(bytes)) => Some(bytes.len()),
            ExprKind::Literal(_) => Some(1),
            ExprKind::List { elements, .. } => Some(elements.len()),
            ExprKind::Map(entries) => Some(entries.len()),
            _ => None,
        };
        if let Some(size) = literal {
            return Some(Range::fixed(size as u64));
        }
        if let Some(size) = self.path(expr).and_then(|path| self.declared_size(&path)) {
            self.sizes.insert(expr.id, size);
            return Some(size);
        }
        if is_scalar(self.checked.type_of(expr.id)) {
            return Some(Range::fixed(1));
        }
        match &expr.kind {
            ExprKind::Ident(name) => self.local(name).and_then(|local| local.size),
            _ => None,
        }
    }

    fn size_or_unknown(&mut self, expr: &Expr) -> Range {
        self.size(expr).unwrap_or(Range::UNKNOWN)
    }

    fn entry_size(&self, expr: &Expr) -> Option<EntrySize> {
        if let Some(size) = self.entries.get(&expr.id) {
            return Some(*size);
        }
        match &expr.kind {
            ExprKind::Ident(name) => self.local(name).and_then(|local| local.entries),
            _ => None,
        }
    }

    /// What is known of an argument.
    fn argument(&mut self, expr: &Expr) -> Argument {
        let size = self.size_or_unknown(expr);
        let of = self.checked.type_of(expr.id).clone();
        let number = match &expr.kind {
            ExprKind::Literal(Literal::Int(n)) => Some(*n),
            _ => None,
        };
        let parameter = match &of {
            Type::List(of) => Some((**of).clone()),
            Type::Map(of) => Some(of.0.clone()),
            Type::Opaque(OPTIONAL, of) => of.first().cloned(),
            _ => None,
        };
        let elements = parameter.map(|parameter| {
            let path = self.path(expr).filter(|path| path.first().is_some_and(|root| !is_accumulator(root)));
            let size = path
                .and_then(|mut path| {
                    path.push("@items".into());
                    self.declared_size(&path)
                })
                .unwrap_or(Range::UNKNOWN);
            (matches!(parameter, Type::String | Type::Bytes), size)
        });
        let named = match &of {
            Type::Opaque(name @ ("net.IP" | "net.CIDR"), _) => Some(*name),
            Type::Object(decl) => NAMED.iter().copied().find(|name| *name == decl.name),
            _ => None,
        };
        Argument {
            size,
            number,
            elements: elements.map(|(text, size)| text.then_some(size)),
            element_size: elements.map(|(_, size)| size),
            named,
            differs: false,
        }
    }

    fn call(&mut self, expr: &Expr, call: &Call) -> Range {
        if call.function == "dyn"
            && let [arg] = call.args.as_slice()
        {
            let cost = self.cost(arg);
            self.copy_sizes(expr.id, arg);
            return cost.add(Range::fixed(1));
        }
        let costs: Vec<Range> = call.args.iter().map(|arg| self.cost(arg)).collect();
        let mut args: Vec<Argument> = call.args.iter().map(|arg| self.argument(arg)).collect();
        if let [left, right] = call.args.as_slice() {
            args[1].differs = self.checked.type_of(left.id) != self.checked.type_of(right.id);
        }
        let overloads = self.checked.overloads(expr.id);
        if overloads.is_empty() {
            return Range::ZERO;
        }
        let mut sum = Range::ZERO;
        let target = call.target.as_ref().map(|target| {
            sum = self.cost(target);
            self.argument(target)
        });
        let all_args = costs.iter().fold(Range::ZERO, |sum, cost| sum.add(*cost));
        let mut cost = Range { min: u64::MAX, max: 0 };
        let mut result: Option<Range> = None;
        for overload in overloads {
            let mut own = overload.cost.estimate(target.as_ref(), &args);
            let with_args = match overload.cost {
                Cost::Logical => Range { min: costs[0].min, max: costs[0].add(costs[1]).max },
                Cost::Conditional => {
                    own.result = Some(args[1].size.union(args[2].size));
                    let entries = EntrySize::union(self.entry_size(&call.args[1]), self.entry_size(&call.args[2]));
                    if let Some(entries) = entries {
                        self.entries.insert(expr.id, entries);
                    }
                    costs[0].add(costs[1].union(costs[2]))
                }
                Cost::AddText | Cost::AddList if call.args.len() == 2 => {
                    let entries = EntrySize::union(self.entry_size(&call.args[0]), self.entry_size(&call.args[1]));
                    if let Some(entries) = entries {
                        self.entries.insert(expr.id, entries);
                    }
                    own.cost.add(all_args)
                }
                _ => own.cost.add(all_args),
            };
            cost = cost.union(with_args);
            result = match (result, own.result) {
                (Some(a), Some(b)) => Some(a.union(b)),
                (a, b) => a.or(b),
            };
            if let ("index_list" | "index_map", Some(container)) = (overload.id, call.args.first()) {
                result = self.entry_size(container).map(|entries| entries.value);
                let step = if overload.id == "index_list" { "@items" } else { "@values" };
                self.extend_path(expr.id, container, step);
            }
            if result.is_none() {
                result = self.size(expr);
            }
        }
        if let Some(result) = result {
            self.sizes.insert(expr.id, result);
        }
        sum.add(cost)
    }

    fn copy_sizes(&mut self, to: Id, from: &Expr) {
        if let Some(size) = self.size(from) {
            self.sizes.insert(to, size);
        }
        if let Some(entries) = self.entry_size(from) {
            self.entries.insert(to, entries);
        }
    }

    fn bind(&mut self, expr: &Expr, c: &Comprehension) -> Range {
        let mut sum = self.cost(&c.range).add(self.cost(&c.init));
        self.push_accumulator(c);
        sum = sum.add(self.cost(&c.result));
        self.locals.pop();
        self.copy_sizes(expr.id, &c.result);
        sum
    }

    fn push_accumulator(&mut self, c: &Comprehension) {
        let local = Local {
            name: c.accu.clone(),
            path: self.path(&c.init),
            size: self.size(&c.init),
            entries: self.entry_size(&c.init),
        };
        self.locals.push(local);
    }

    fn push_variable(&mut self, name: &str, range: &Expr, of_key: bool) {
        let entries = self.entry_size(range);
        let list = match entries {
            Some(entries) => entries.list,
            None => matches!(self.checked.type_of(range.id), Type::List(_)),
        };
        let step = match (list, of_key) {
            (true, true) => "@indices",
            (true, false) => "@items",
            (false, true) => "@keys",
            (false, false) => "@values",
        };
        let mut path = self.path(range).unwrap_or_default();
        path.push(step.into());
        let size = entries.map(|entries| if of_key { entries.key } else { entries.value });
        self.locals.push(Local { name: name.into(), path: Some(path), size, entries: None });
    }

    fn comprehension(&mut self, expr: &Expr, c: &Comprehension) -> Range {
        let mut sum = self.cost(&c.range).add(self.cost(&c.init));
        self.push_accumulator(c);
        let depth = self.locals.len();
        match &c.var2 {
            Some(second) => {
                self.push_variable(&c.var, &c.range, true);
                self.push_variable(second, &c.range, false);
            }
            None => {
                let list = match self.entry_size(&c.range) {
                    Some(entries) => entries.list,
                    None => matches!(self.checked.type_of(c.range.id), Type::List(_)),
                };
                self.push_variable(&c.var, &c.range, !list);
            }
        }
        let condition = self.cost(&c.condition);
        let step = self.cost(&c.step);
        self.locals.truncate(depth);
        sum = sum.add(self.cost(&c.result));
        self.locals.pop();
        let count = self.size_or_unknown(&c.range);
        sum = sum.add(count.multiply(step.add(condition)));
        match &c.init.kind {
            ExprKind::Literal(_) => {
                if let Some(size) = self.size(&c.init) {
                    self.sizes.insert(expr.id, size);
                }
            }
            ExprKind::List { .. } | ExprKind::Map(_) => {
                self.sizes.insert(expr.id, count);
                if let Some(entries) = self.entry_size(&c.step) {
                    self.entries.insert(expr.id, entries);
                }
            }
            _ => {}
        }
        sum
    }
}

/// Kubernetes' types whose equality has a cost of its own.
const NAMED: [&str; 8] = [
    "kubernetes.Quantity",
    "kubernetes.URL",
    "kubernetes.NamedFormat",
    "kubernetes.Semver",
    "kubernetes.authorization.Authorizer",
    "kubernetes.authorization.PathCheck",
    "kubernetes.authorization.ResourceCheck",
    "kubernetes.authorization.Decision",
];

fn no_elements(empty: bool) -> Range {
    Range { min: if empty { 0 } else { u64::MAX }, max: 0 }
}

fn is_accumulator(name: &str) -> bool {
    name == ACCUMULATOR || name == "__result__"
}

/// A comprehension that only gives a value a name.
fn is_bind(c: &Comprehension) -> bool {
    matches!(&c.range.kind, ExprKind::List { elements, .. } if elements.is_empty())
        && matches!(c.condition.kind, ExprKind::Literal(Literal::Bool(false)))
        && !is_accumulator(&c.accu)
}

/// Types whose values are all of one size.
fn is_scalar(of: &Type) -> bool {
    match of {
        Type::Bool | Type::Double | Type::Duration | Type::Int | Type::Timestamp | Type::Uint => true,
        Type::Opaque(OPTIONAL, of) => of.first().is_some_and(is_scalar),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::CHARACTER;
    use super::*;

    #[test]
    fn factors() {
        assert_eq!(Range::fixed(25).times(CHARACTER), Range::fixed(3));
        assert_eq!(Range::UNKNOWN.times(2.0).max, u64::MAX);
    }
}
