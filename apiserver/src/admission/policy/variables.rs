//! The variables of a policy: each sees those before it, and costs what it costs when it is first used.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use cel::{Activation, Error, Fields, Map, Value as Cel};

use crate::admission::expression::{Expression, Failure};

/// One variable with those before it; the first link is nothing.
pub struct Link<'l> {
    variable: Option<(&'l str, cel::Result<'l>, u64)>,
    before: Option<&'l Link<'l>>,
    used: AtomicBool,
    /// What the variables cost that were used since it was last asked.
    spent: &'l AtomicU64,
}

impl Fields for Link<'_> {
    fn get(&self, name: &str) -> Option<cel::Result<'_>> {
        let Some((own, value, cost)) = &self.variable else { return None };
        if *own != name {
            return self.before?.get(name);
        }
        if !self.used.swap(true, Ordering::Relaxed) {
            self.spent.fetch_add(*cost, Ordering::Relaxed);
        }
        Some(value.clone())
    }

    fn names(&self) -> Vec<String> {
        let mut names = self.before.map_or_else(Vec::new, Fields::names);
        names.extend(self.variable.as_ref().map(|(name, ..)| (*name).to_string()));
        names
    }
}

/// What expressions are evaluated with.
pub struct Evaluation<'e> {
    variables: &'e Link<'e>,
}

impl<'e> Evaluation<'e> {
    /// Evaluates an expression with these variables beside those of the activation.
    ///
    /// # Errors
    /// As [`Expression::eval`].
    pub fn eval<'v>(
        &'v self,
        expression: &Expression,
        activation: &Activation<'v>,
        budget: &mut u64,
    ) -> Result<Cel<'v>, Failure> {
        let mut activation = activation.clone();
        activation.set("variables", Cel::Map(Map::Fields(self.variables)));
        expression.eval(&activation, budget, || self.variables.spent.swap(0, Ordering::Relaxed))
    }
}

/// Evaluates the variables and hands them to `then`. A variable that fails is an error only where it is used.
pub fn with<'x, T>(
    variables: &'x [(String, Expression)],
    activation: &Activation<'x>,
    then: &mut dyn FnMut(&Evaluation<'_>) -> T,
) -> T {
    let spent = AtomicU64::new(0);
    let first = Link { variable: None, before: None, used: AtomicBool::new(true), spent: &spent };
    next(variables, activation, &first, then)
}

fn next<'x, T>(
    variables: &'x [(String, Expression)],
    activation: &Activation<'x>,
    before: &'x Link<'x>,
    then: &mut dyn FnMut(&Evaluation<'_>) -> T,
) -> T {
    let Some(((name, expression), rest)) = variables.split_first() else {
        return then(&Evaluation { variables: before });
    };
    let (value, cost) = match expression.error() {
        Some(error) => (Err(Error::new(format!("composited variable {name:?} fails to compile: {error}"))), 0),
        None => {
            let mut activation = activation.clone();
            activation.set("variables", Cel::Map(Map::Fields(before)));
            let (value, cost) = expression.eval_alone(&activation);
            let failed = |error| Error::new(format!("composited variable {name:?} fails to evaluate: {error}"));
            (value.map_err(failed), cost)
        }
    };
    // What the variables before it cost is part of it, whether or not they are used again.
    let cost = cost.saturating_add(before.spent.swap(0, Ordering::Relaxed));
    let spent = before.spent;
    let link = Link { variable: Some((name, value, cost)), before: Some(before), used: AtomicBool::new(false), spent };
    next(rest, activation, &link, then)
}
