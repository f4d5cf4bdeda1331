//! Which type fits where, and what type parameters stand for.

use std::sync::Arc;

use crate::types::Type;

/// What the parameters of one check stand for.
#[derive(Debug, Default)]
pub struct Unifier {
    bound: Vec<Option<Type>>,
    /// What bindings were before they changed, to go back when something does not fit after all.
    trail: Vec<(u32, Option<Type>)>,
}

impl Unifier {
    /// A new parameter.
    pub fn fresh(&mut self) -> Type {
        self.bound.push(None);
        Type::Var(u32::try_from(self.bound.len() - 1).unwrap_or(u32::MAX))
    }

    /// A signature with new parameters in place of its own.
    pub fn instantiate(&mut self, args: &[Type], result: &Type) -> (Vec<Type>, Type) {
        let mut names: Vec<(&'static str, Type)> = Vec::new();
        let args = args.iter().map(|arg| self.replace(arg, &mut names)).collect();
        let result = self.replace(result, &mut names);
        (args, result)
    }

    fn replace(&mut self, of: &Type, names: &mut Vec<(&'static str, Type)>) -> Type {
        match of {
            Type::Param(name) => match names.iter().find(|(known, _)| known == name) {
                Some((_, var)) => var.clone(),
                None => {
                    let var = self.fresh();
                    names.push((name, var.clone()));
                    var
                }
            },
            Type::List(of) => Type::list(self.replace(of, names)),
            Type::Map(of) => Type::map(self.replace(&of.0, names), self.replace(&of.1, names)),
            Type::Type(Some(of)) => Type::type_of(self.replace(of, names)),
            Type::Opaque(name, of) if !of.is_empty() => {
                Type::Opaque(name, of.iter().map(|of| self.replace(of, names)).collect())
            }
            other => other.clone(),
        }
    }

    fn find(&self, of: &Type) -> Option<&Type> {
        match of {
            Type::Var(n) => self.bound.get(*n as usize).and_then(Option::as_ref),
            _ => None,
        }
    }

    fn bind(&mut self, var: &Type, to: Type) {
        if let Type::Var(n) = var
            && let Some(slot) = self.bound.get_mut(*n as usize)
        {
            self.trail.push((*n, slot.replace(to)));
        }
    }

    fn back_to(&mut self, mark: usize) {
        while self.trail.len() > mark {
            if let Some((n, before)) = self.trail.pop() {
                self.bound[n as usize] = before;
            }
        }
    }

    /// A type with its parameters replaced by what they stand for. Those that stand for nothing become `dyn` if asked.
    pub fn substitute(&self, of: &Type, unbound_to_dyn: bool) -> Type {
        if let Some(bound) = self.find(of) {
            return self.substitute(bound, unbound_to_dyn);
        }
        match of {
            Type::Var(_) | Type::Param(_) if unbound_to_dyn => Type::Dyn,
            Type::List(of) => Type::list(self.substitute(of, unbound_to_dyn)),
            Type::Map(of) => {
                Type::Map(Arc::new((self.substitute(&of.0, unbound_to_dyn), self.substitute(&of.1, unbound_to_dyn))))
            }
            Type::Type(Some(of)) => Type::type_of(self.substitute(of, unbound_to_dyn)),
            Type::Opaque(name, of) if !of.is_empty() => {
                Type::Opaque(name, of.iter().map(|of| self.substitute(of, unbound_to_dyn)).collect())
            }
            other => other.clone(),
        }
    }

    /// Whether the first fits where the second is wanted (or the other way round for parameters). What that says of
    /// parameters is kept only if it does.
    pub fn assignable(&mut self, a: &Type, b: &Type) -> bool {
        self.all_assignable(std::slice::from_ref(a), std::slice::from_ref(b))
    }

    /// The same for all pairs.
    pub fn all_assignable(&mut self, a: &[Type], b: &[Type]) -> bool {
        let mark = self.trail.len();
        let fits = a.len() == b.len() && a.iter().zip(b).all(|(a, b)| self.fits(a, b));
        if !fits {
            self.back_to(mark);
        }
        fits
    }

    fn fits(&mut self, a: &Type, b: &Type) -> bool {
        if matches!(b, Type::Var(_) | Type::Param(_)) {
            let (valid, has) = self.stands_for(a, b);
            if valid {
                return true;
            }
            if has {
                return false;
            }
        }
        if matches!(a, Type::Var(_) | Type::Param(_)) {
            return self.stands_for(b, a).0;
        }
        if a.is_dyn_or_error() || b.is_dyn_or_error() {
            return true;
        }
        match (a, b) {
            (Type::Null, other) | (other, Type::Null) => {
                matches!(other, Type::Null | Type::Opaque(..) | Type::Object(_) | Type::Duration | Type::Timestamp)
            }
            (Type::Type(_), Type::Type(_)) => true,
            (Type::List(a), Type::List(b)) => self.fits(a, b),
            (Type::Map(a), Type::Map(b)) => self.fits(&a.0, &b.0) && self.fits(&a.1, &b.1),
            (Type::Opaque(a, of_a), Type::Opaque(b, of_b)) => {
                a == b && of_a.len() == of_b.len() && of_a.iter().zip(of_b.iter()).all(|(a, b)| self.fits(a, b))
            }
            (a, b) => a == b,
        }
    }

    /// Whether the parameter `var` can stand for `of`, and whether it stands for something already.
    fn stands_for(&mut self, of: &Type, var: &Type) -> (bool, bool) {
        if of == var {
            return (true, true);
        }
        if let Some(bound) = self.find(var).cloned() {
            if *of == bound {
                return (true, true);
            }
            if self.fits(of, &bound) {
                let general = most_general(of.clone(), bound);
                if self.absent_from(var, &general) {
                    self.bind(var, general);
                }
                return (true, true);
            }
            return (false, true);
        }
        if self.absent_from(var, of) {
            self.bind(var, of.clone());
            return (true, false);
        }
        (false, false)
    }

    /// Whether a parameter does not occur in a type, directly or through what others stand for.
    fn absent_from(&self, var: &Type, within: &Type) -> bool {
        if var == within {
            return false;
        }
        match within {
            Type::Var(_) => self.find(within).is_none_or(|bound| self.absent_from(var, bound)),
            Type::List(of) | Type::Type(Some(of)) => self.absent_from(var, of),
            Type::Map(of) => self.absent_from(var, &of.0) && self.absent_from(var, &of.1),
            Type::Opaque(_, of) => of.iter().all(|of| self.absent_from(var, of)),
            _ => true,
        }
    }
}

/// The more general of two types that fit each other.
pub fn most_general(a: Type, b: Type) -> Type {
    if less_specific(&a, &b) { a } else { b }
}

fn less_specific(a: &Type, b: &Type) -> bool {
    if a.is_dyn() || matches!(a, Type::Var(_) | Type::Param(_)) {
        return true;
    }
    if b.is_dyn() || matches!(b, Type::Var(_) | Type::Param(_)) {
        return false;
    }
    match (a, b) {
        (Type::List(a), Type::List(b)) => less_specific(a, b),
        (Type::Map(a), Type::Map(b)) => less_specific(&a.0, &b.0) && less_specific(&a.1, &b.1),
        (Type::Opaque(a, of_a), Type::Opaque(b, of_b)) => {
            a == b && of_a.len() == of_b.len() && of_a.iter().zip(of_b.iter()).all(|(a, b)| less_specific(a, b))
        }
        (Type::Type(_), Type::Type(_)) => true,
        (a, b) => a == b,
    }
}
