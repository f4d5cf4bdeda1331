//! Operators, from the one that binds least: `?:`, `||`, `&&`, relations, sums, products, `!` and `-`.

use crate::ast::{Expr, ExprKind, Id, operator};
use crate::lexer::TokenKind;

use super::{Parse, Parser, Rule, call};

impl Parser<'_> {
    pub(super) fn expr(&mut self) -> Parse<Expr> {
        self.enter(Rule::Expr)?;
        let condition = self.logical_or()?;
        let expr = match self.eat("?") {
            None => condition,
            Some(op) => {
                let id = self.id(op.start);
                let yes = self.logical_or()?;
                if !self.is(":") {
                    return self.mismatched("':'");
                }
                self.next();
                let no = self.expr()?;
                call(id, operator::CONDITIONAL, vec![condition, yes, no])
            }
        };
        self.depths[Rule::Expr as usize] -= 1;
        Ok(expr)
    }

    fn logical_or(&mut self) -> Parse<Expr> {
        let mut terms = vec![self.logical_and()?];
        let mut ops = Vec::new();
        while let Some(op) = self.eat("||") {
            terms.push(self.logical_and()?);
            ops.push(self.id(op.start));
        }
        Ok(balanced(operator::OR, terms, &ops))
    }

    fn logical_and(&mut self) -> Parse<Expr> {
        let mut terms = vec![self.relation()?];
        let mut ops = Vec::new();
        while let Some(op) = self.eat("&&") {
            terms.push(self.relation()?);
            ops.push(self.id(op.start));
        }
        Ok(balanced(operator::AND, terms, &ops))
    }

    fn relation(&mut self) -> Parse<Expr> {
        let outer = self.depths[Rule::Relation as usize];
        let mut left = self.calc(0)?;
        while let TokenKind::Symbol(symbol) = self.peek().kind {
            let function = match symbol {
                "<" => operator::LESS,
                "<=" => operator::LESS_EQUALS,
                ">" => operator::GREATER,
                ">=" => operator::GREATER_EQUALS,
                "==" => operator::EQUALS,
                "!=" => operator::NOT_EQUALS,
                "in" => operator::IN,
                _ => break,
            };
            let op = self.next();
            self.enter(Rule::Relation)?;
            let id = self.id(op.start);
            let right = self.calc(0)?;
            left = call(id, function, vec![left, right]);
        }
        self.depths[Rule::Relation as usize] = outer;
        Ok(left)
    }

    /// Sums (`level` 0) of products (`level` 1).
    fn calc(&mut self, level: u8) -> Parse<Expr> {
        let outer = self.depths[Rule::Calc as usize];
        let mut left = if level == 0 { self.calc(1)? } else { self.unary()? };
        while let TokenKind::Symbol(symbol) = self.peek().kind {
            let function = match (level, symbol) {
                (0, "+") => operator::ADD,
                (0, "-") => operator::SUBTRACT,
                (1, "*") => operator::MULTIPLY,
                (1, "/") => operator::DIVIDE,
                (1, "%") => operator::MODULO,
                _ => break,
            };
            let op = self.next();
            self.enter(Rule::Calc)?;
            let id = self.id(op.start);
            let right = if level == 0 { self.calc(1)? } else { self.unary()? };
            left = call(id, function, vec![left, right]);
        }
        self.depths[Rule::Calc as usize] = outer;
        Ok(left)
    }

    fn unary(&mut self) -> Parse<Expr> {
        let first = self.peek();
        let (symbol, function) = match first.kind {
            TokenKind::Symbol("!") => ("!", operator::NOT),
            TokenKind::Symbol("-") if !matches!(self.peek_at(1).kind, TokenKind::Int | TokenKind::Float) => {
                ("-", operator::NEGATE)
            }
            _ => return self.member(),
        };
        let mut count = 0usize;
        while self.eat(symbol).is_some() {
            count += 1;
        }
        if count.is_multiple_of(2) {
            return self.member();
        }
        let id = self.id(first.start);
        let operand = self.member()?;
        Ok(call(id, function, vec![operand]))
    }
}

/// A chain of one operator as a balanced tree, so that long chains do not nest deeply.
fn balanced(function: &str, mut terms: Vec<Expr>, ops: &[Id]) -> Expr {
    fn tree(function: &str, terms: &mut [Option<Expr>], ops: &[Id], low: usize, high: usize) -> Expr {
        let middle = (low + high).div_ceil(2);
        let take = |terms: &mut [Option<Expr>], at: usize| {
            terms[at].take().unwrap_or(Expr { id: 0, kind: ExprKind::Unspecified })
        };
        let left = if middle == low { take(terms, middle) } else { tree(function, terms, ops, low, middle - 1) };
        let right = if middle == high { take(terms, middle + 1) } else { tree(function, terms, ops, middle + 1, high) };
        call(ops[middle], function, vec![left, right])
    }
    if ops.is_empty() {
        return terms.pop().unwrap_or(Expr { id: 0, kind: ExprKind::Unspecified });
    }
    let mut terms: Vec<Option<Expr>> = terms.into_iter().map(Some).collect();
    tree(function, &mut terms, ops, 0, ops.len() - 1)
}
