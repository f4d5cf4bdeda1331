//! Operands: names, literals, lists, maps, objects and brackets, and what is selected, indexed or called on them.

use crate::ast::{Call, Entry, Expr, ExprKind, Field, Id, Literal, operator};
use crate::escape::RESERVED;
use crate::lexer::{Token, TokenKind};

use super::{Abort, Parse, Parser, Rule, call, literal, macros};

/// What ANTLR, and so every user, calls the tokens that may begin an operand.
const OPERAND: &str =
    "{'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}";

impl Parser<'_> {
    pub(super) fn member(&mut self) -> Parse<Expr> {
        let outer = self.depths[Rule::Member as usize];
        let mut expr = self.primary()?;
        loop {
            if let Some(op) = self.eat(".") {
                self.enter(Rule::Member)?;
                let optional = self.eat("?").is_some();
                let name = self.peek();
                match name.kind {
                    TokenKind::Ident | TokenKind::EscapedIdent => self.next(),
                    _ => return self.no_member(name),
                };
                let field = self.text(name);
                if name.kind == TokenKind::EscapedIdent {
                    self.issue(name.start, "unsupported syntax: '`'".into());
                }
                if optional {
                    let id = self.id(op.start);
                    let field = self.node(name.start, ExprKind::Literal(Literal::String(field.into())));
                    expr = call(id, operator::OPT_SELECT, vec![expr, field]);
                } else if let Some(open) = self.eat("(") {
                    let id = self.id(open.start);
                    let args = self.arguments()?;
                    expr = self.call_or_macro(id, field, Some(expr), args);
                } else {
                    expr = self.node(op.start, ExprKind::Select { operand: Box::new(expr), field, test: false });
                }
            } else if let Some(op) = self.eat("[") {
                self.enter(Rule::Member)?;
                let id = self.id(op.start);
                self.operand_or(&["?"])?;
                let optional = self.eat("?").is_some();
                let index = self.expr()?;
                self.expect("]")?;
                let function = if optional { operator::OPT_INDEX } else { operator::INDEX };
                expr = call(id, function, vec![expr, index]);
            } else {
                break;
            }
        }
        self.depths[Rule::Member as usize] = outer;
        Ok(expr)
    }

    fn no_member<T>(&mut self, name: Token) -> Parse<T> {
        let text = self.text(name);
        match name.kind {
            TokenKind::Symbol("true" | "false" | "null") => {
                self.issue(name.start, format!("Syntax error: mismatched input '{text}' expecting IDENTIFIER"));
                Err(Abort)
            }
            TokenKind::End => {
                self.issue(name.start, format!("Syntax error: no viable alternative at input '.{}'", ""));
                Err(Abort)
            }
            _ => {
                self.issue(name.start, format!("Syntax error: no viable alternative at input '.{text}'"));
                Err(Abort)
            }
        }
    }

    fn primary(&mut self) -> Parse<Expr> {
        let token = self.peek();
        match token.kind {
            TokenKind::Symbol("(") => {
                self.next();
                let expr = self.expr()?;
                self.expect(")")?;
                Ok(expr)
            }
            TokenKind::Symbol("[") => self.list(),
            TokenKind::Symbol("{") => self.map(),
            TokenKind::Symbol(".") if self.peek_at(1).kind == TokenKind::Ident => self.named(),
            TokenKind::Symbol(".") if self.peek_at(1).kind != TokenKind::End => {
                self.next();
                let next = self.peek();
                self.no_member(next)
            }
            TokenKind::Ident => self.named(),
            TokenKind::Symbol("-") if matches!(self.peek_at(1).kind, TokenKind::Int | TokenKind::Float) => {
                self.next();
                Ok(self.number(token.start, true))
            }
            TokenKind::Int | TokenKind::Uint | TokenKind::Float => Ok(self.number(token.start, false)),
            TokenKind::String | TokenKind::Bytes => {
                self.next();
                let text = self.text(token);
                let literal = match token.kind {
                    TokenKind::String => literal::string(&text).map(|text| Literal::String(text.into())),
                    _ => literal::bytes(&text).map(|bytes| Literal::Bytes(bytes.into())),
                };
                Ok(match literal {
                    Ok(literal) => self.node(token.start, ExprKind::Literal(literal)),
                    Err(message) => self.broken(token.start, message.into()),
                })
            }
            TokenKind::Symbol(word @ ("true" | "false" | "null")) => {
                self.next();
                let literal = if word == "null" { Literal::Null } else { Literal::Bool(word == "true") };
                Ok(self.node(token.start, ExprKind::Literal(literal)))
            }
            TokenKind::Symbol(_) if self.begins_operand(1) => self.extraneous(OPERAND),
            _ => self.mismatched(OPERAND),
        }
    }

    /// Whether the token after some others may begin an operand: then those were too many.
    fn begins_operand(&self, ahead: usize) -> bool {
        match self.peek_at(ahead).kind {
            TokenKind::Symbol(symbol) => {
                matches!(symbol, "[" | "{" | "(" | "." | "-" | "!" | "true" | "false" | "null")
            }
            TokenKind::End | TokenKind::EscapedIdent => false,
            _ => true,
        }
    }

    fn number(&mut self, start: usize, negative: bool) -> Expr {
        let token = self.next();
        match literal::number(token.kind, &self.text(token), negative) {
            Ok(literal) => self.node(start, ExprKind::Literal(literal)),
            Err(message) => self.broken(start, message.into()),
        }
    }

    /// A name, a call of a global function, or an object literal.
    fn named(&mut self) -> Parse<Expr> {
        let start = self.peek().start;
        let dot = if self.eat(".").is_some() { "." } else { "" };
        if let Some(names) = self.object_name() {
            let open = self.next();
            let id = self.id(open.start);
            return self.object(id, format!("{dot}{names}"));
        }
        let token = self.next();
        let name = self.text(token);
        if RESERVED.contains(&name.as_str()) {
            let broken = self.broken(start, format!("reserved identifier: {name}"));
            if self.eat("(").is_some() {
                self.arguments()?;
            }
            return Ok(broken);
        }
        let name = format!("{dot}{name}");
        match self.eat("(") {
            None => Ok(self.node(token.start, ExprKind::Ident(name))),
            Some(open) => {
                let id = self.id(open.start);
                let args = self.arguments()?;
                Ok(self.call_or_macro(id, name, None, args))
            }
        }
    }

    /// The dotted name before a `{`, if that is what comes; it is then consumed.
    fn object_name(&mut self) -> Option<String> {
        let mut ahead = 0;
        loop {
            if self.peek_at(ahead).kind != TokenKind::Ident {
                return None;
            }
            match self.peek_at(ahead + 1).kind {
                TokenKind::Symbol("{") => break,
                TokenKind::Symbol(".") => ahead += 2,
                _ => return None,
            }
        }
        let names: Vec<String> = (0..=ahead).step_by(2).map(|i| self.text(self.peek_at(i))).collect();
        self.at += ahead + 1;
        Some(names.join("."))
    }

    fn object(&mut self, id: Id, type_name: String) -> Parse<Expr> {
        let mut fields = Vec::new();
        while !self.closes("}") {
            let optional = self.eat("?").is_some();
            let name = self.peek();
            if !matches!(name.kind, TokenKind::Ident | TokenKind::EscapedIdent) {
                return self.mismatched("{'}', ',', '?', IDENTIFIER, ESC_IDENTIFIER}");
            }
            self.next();
            if name.kind == TokenKind::EscapedIdent {
                self.issue(name.start, "unsupported syntax: '`'".into());
            }
            let colon = self.colon()?;
            let field = self.id(colon.start);
            let value = self.expr()?;
            fields.push(Field { id: field, name: self.text(name), value, optional });
            if self.closes("}") {
                break;
            }
            self.comma_or("}")?;
        }
        self.eat(",");
        self.expect("}")?;
        Ok(Expr { id, kind: ExprKind::Struct { type_name, fields } })
    }

    /// Whether `end` follows, with or without a trailing comma.
    fn closes(&self, end: &'static str) -> bool {
        self.is(end) || (self.is(",") && self.peek_at(1).kind == TokenKind::Symbol(end))
    }

    fn list(&mut self) -> Parse<Expr> {
        let open = self.next();
        let id = self.id(open.start);
        let mut elements = Vec::new();
        let mut optional = Vec::new();
        self.operand_or(&["]", ",", "?"])?;
        while !self.closes("]") {
            if self.eat("?").is_some() {
                optional.push(elements.len());
            }
            elements.push(self.expr()?);
            if self.closes("]") {
                break;
            }
            self.comma_or("]")?;
        }
        self.eat(",");
        self.expect("]")?;
        Ok(Expr { id, kind: ExprKind::List { elements, optional } })
    }

    fn map(&mut self) -> Parse<Expr> {
        let open = self.next();
        let id = self.id(open.start);
        let mut entries = Vec::new();
        self.operand_or(&["}", ",", "?"])?;
        while !self.closes("}") {
            let optional = self.eat("?").is_some();
            let key = self.expr()?;
            let colon = self.colon()?;
            let entry = self.id(colon.start);
            let value = self.expr()?;
            entries.push(Entry { id: entry, key, value, optional });
            if self.closes("}") {
                break;
            }
            self.comma_or("}")?;
        }
        self.eat(",");
        self.expect("}")?;
        Ok(Expr { id, kind: ExprKind::Map(entries) })
    }

    /// The arguments of a call whose `(` has been read.
    fn arguments(&mut self) -> Parse<Vec<Expr>> {
        let mut args = Vec::new();
        self.operand_or(&[")"])?;
        if self.eat(")").is_some() {
            return Ok(args);
        }
        loop {
            args.push(self.expr()?);
            if self.eat(")").is_some() {
                return Ok(args);
            }
            if self.eat(",").is_none() {
                self.expect(")")?;
                return Ok(args);
            }
        }
    }

    /// A macro expands at once; everything else is a call.
    fn call_or_macro(&mut self, id: Id, function: String, target: Option<Expr>, args: Vec<Expr>) -> Expr {
        let offset = self.offset(id);
        match macros::expand(self, offset, &function, target, args) {
            macros::Expansion::Done(expr) => expr,
            macros::Expansion::Wrong(at, message) => self.broken(at, message),
            macros::Expansion::None(target, args) => {
                Expr { id, kind: ExprKind::Call(Call { function, target: target.map(Box::new), args }) }
            }
        }
    }
}
