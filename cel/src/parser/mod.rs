//! From text to tree, by descent. The grammar is CEL's; the macros are those that Kubernetes enables.

mod literal;
mod macros;

use crate::ast::{self, Call, Entry, Expr, ExprKind, Field, Id, Literal, operator};
use crate::lexer::{self, Token, TokenKind};
use crate::source::{Issue, Issues, Location, Source};

/// An expression may not have more code points than this.
pub const MAX_CODE_POINTS: usize = 100_000;
/// No rule of the grammar may nest deeper than this.
const MAX_DEPTH: u32 = 250;

/// What ANTLR, and so every user, calls the tokens that may begin an operand.
const OPERAND: &str =
    "{'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}";

/// Names that no variable or function may have.
const RESERVED: [&str; 17] = [
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];

/// A parsed expression.
#[derive(Debug)]
pub struct Parsed {
    /// The tree.
    pub expr: Expr,
    /// The offset of every node, by its number.
    pub offsets: Vec<usize>,
    /// The text.
    pub source: Source,
}

impl Parsed {
    /// Where a node is.
    pub fn location(&self, id: Id) -> Location {
        self.offsets.get(id as usize).map_or(Location::NOWHERE, |offset| self.source.location(*offset))
    }
}

/// Parses an expression.
///
/// # Errors
/// All that is wrong with its syntax.
pub fn parse(text: &str, bindings: bool) -> Result<Parsed, Issues> {
    let source = Source::new(text);
    let mut issues = Vec::new();
    let size = source.chars().len();
    if size > MAX_CODE_POINTS {
        issues.push(Issue {
            location: Location::NOWHERE,
            message: format!("expression code point size exceeds limit: size: {size}, limit {MAX_CODE_POINTS}"),
        });
        return Err(Issues::new(source, issues));
    }
    let tokens = lexer::tokens(&source, &mut issues);
    let mut parser = Parser { source: &source, tokens, at: 0, offsets: vec![0], issues, depths: [0; 4], bindings };
    let expr = parser.start();
    let Parser { offsets, issues, .. } = parser;
    match expr {
        Ok(expr) if issues.is_empty() => Ok(Parsed { expr, offsets, source }),
        _ => Err(Issues::new(source, issues)),
    }
}

/// Parsing cannot go on; the issue has been recorded.
struct Abort;
type Parse<T> = Result<T, Abort>;

/// The rules whose nesting is bounded.
#[derive(Clone, Copy)]
enum Rule {
    Expr,
    Relation,
    Calc,
    Member,
}

struct Parser<'s> {
    source: &'s Source,
    tokens: Vec<Token>,
    at: usize,
    offsets: Vec<usize>,
    issues: Vec<Issue>,
    depths: [u32; 4],
    /// Whether `cel.bind` is a macro.
    bindings: bool,
}

impl Parser<'_> {
    fn peek(&self) -> Token {
        self.peek_at(0)
    }

    fn peek_at(&self, ahead: usize) -> Token {
        // The last token is `End`, and nothing steps over it.
        self.tokens[(self.at + ahead).min(self.tokens.len() - 1)]
    }

    fn next(&mut self) -> Token {
        let token = self.peek();
        if self.at + 1 < self.tokens.len() {
            self.at += 1;
        }
        token
    }

    fn is(&self, symbol: &str) -> bool {
        self.peek().kind == TokenKind::Symbol(symbol_of(symbol))
    }

    fn eat(&mut self, symbol: &str) -> Option<Token> {
        self.is(symbol).then(|| self.next())
    }

    fn text(&self, token: Token) -> String {
        match token.kind {
            TokenKind::End => "<EOF>".into(),
            _ => self.source.chars()[token.start..token.end].iter().collect(),
        }
    }

    fn id(&mut self, offset: usize) -> Id {
        self.offsets.push(offset);
        Id::try_from(self.offsets.len() - 1).unwrap_or(Id::MAX)
    }

    fn offset(&self, id: Id) -> usize {
        self.offsets.get(id as usize).copied().unwrap_or(0)
    }

    fn node(&mut self, offset: usize, kind: ExprKind) -> Expr {
        Expr { id: self.id(offset), kind }
    }

    fn issue(&mut self, offset: usize, message: String) {
        self.issues.push(Issue { location: self.source.location(offset), message });
    }

    /// Records an issue and stands in for the node that has it.
    fn broken(&mut self, offset: usize, message: String) -> Expr {
        self.issue(offset, message);
        self.node(offset, ExprKind::Unspecified)
    }

    fn mismatched<T>(&mut self, expecting: &str) -> Parse<T> {
        let token = self.peek();
        let text = self.text(token);
        self.issue(token.start, format!("Syntax error: mismatched input '{text}' expecting {expecting}"));
        Err(Abort)
    }

    fn extraneous<T>(&mut self, expecting: &str) -> Parse<T> {
        let token = self.peek();
        let text = self.text(token);
        self.issue(token.start, format!("Syntax error: extraneous input '{text}' expecting {expecting}"));
        Err(Abort)
    }

    fn enter(&mut self, rule: Rule) -> Parse<()> {
        let depth = &mut self.depths[rule as usize];
        *depth += 1;
        if *depth > MAX_DEPTH {
            self.issues.push(Issue {
                location: Location::NOWHERE,
                message: match rule {
                    Rule::Expr => format!("expression recursion limit exceeded: {MAX_DEPTH}"),
                    Rule::Relation | Rule::Calc | Rule::Member => "max recursion depth exceeded".into(),
                },
            });
            return Err(Abort);
        }
        Ok(())
    }

    fn start(&mut self) -> Parse<Expr> {
        let expr = self.expr()?;
        if self.peek().kind != TokenKind::End {
            return self.after_expression("<EOF>");
        }
        Ok(expr)
    }

    /// Something stands where an expression should have ended.
    fn after_expression<T>(&mut self, closing: &str) -> Parse<T> {
        if self.peek().kind == TokenKind::End || closing != "<EOF>" {
            return self.mismatched(closing);
        }
        // A stray word or number is one token too many; what could begin something else is a mismatch.
        if self.peek_at(1).kind == TokenKind::End {
            return self.extraneous(closing);
        }
        self.mismatched(closing)
    }

    fn expr(&mut self) -> Parse<Expr> {
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

    fn member(&mut self) -> Parse<Expr> {
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

    fn expect(&mut self, symbol: &str) -> Parse<Token> {
        match self.eat(symbol) {
            Some(token) => Ok(token),
            None => {
                let token = self.peek();
                let text = self.text(token);
                self.issue(token.start, format!("Syntax error: missing '{symbol}' at '{text}'"));
                Err(Abort)
            }
        }
    }

    /// A comma, or what closes.
    fn comma_or(&mut self, closing: &str) -> Parse<()> {
        if self.eat(",").is_some() {
            return Ok(());
        }
        if !self.is(closing) {
            return self.mismatched(&format!("{{'{closing}', ','}}"));
        }
        Ok(())
    }

    fn colon(&mut self) -> Parse<Token> {
        if !self.is(":") {
            return self.mismatched("':'");
        }
        Ok(self.next())
    }

    /// What may begin an operand, with other tokens that may stand here too.
    fn operand_or(&mut self, others: &[&'static str]) -> Parse<()> {
        let token = self.peek();
        let fits = match token.kind {
            TokenKind::Symbol(symbol) => {
                matches!(symbol, "[" | "{" | "(" | "." | "-" | "!" | "true" | "false" | "null")
                    || others.contains(&symbol)
            }
            TokenKind::End | TokenKind::EscapedIdent => false,
            _ => true,
        };
        if fits {
            return Ok(());
        }
        let symbols = ["[", "]", "{", "}", "(", ")", ".", ",", "-", "!", "?"];
        let expected: Vec<String> = symbols
            .iter()
            .filter(|symbol| matches!(**symbol, "[" | "{" | "(" | "." | "-" | "!") || others.contains(symbol))
            .map(|symbol| format!("'{symbol}'"))
            .collect();
        let words = "'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER";
        let expected = format!("{{{}, {words}}}", expected.join(", "));
        if token.kind == TokenKind::End { self.mismatched(&expected) } else { self.extraneous(&expected) }
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

fn call(id: Id, function: &str, args: Vec<Expr>) -> Expr {
    Expr { id, kind: ExprKind::Call(Call { function: function.into(), target: None, args }) }
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

fn symbol_of(symbol: &str) -> &'static str {
    lexer::symbol(symbol)
}

/// Numbers a copy of a tree anew, at the places of the original.
fn copy(parser: &mut Parser<'_>, expr: &Expr) -> Expr {
    let offset = parser.offset(expr.id);
    let id = parser.id(offset);
    let mut each = |expr: &Expr| copy(parser, expr);
    let kind = match &expr.kind {
        ExprKind::Unspecified => ExprKind::Unspecified,
        ExprKind::Literal(literal) => ExprKind::Literal(literal.clone()),
        ExprKind::Ident(name) => ExprKind::Ident(name.clone()),
        ExprKind::Select { operand, field, test } => {
            ExprKind::Select { operand: Box::new(each(operand)), field: field.clone(), test: *test }
        }
        ExprKind::Call(call) => ExprKind::Call(Call {
            function: call.function.clone(),
            target: call.target.as_ref().map(|target| Box::new(each(target))),
            args: call.args.iter().map(each).collect(),
        }),
        ExprKind::List { elements, optional } => {
            ExprKind::List { elements: elements.iter().map(each).collect(), optional: optional.clone() }
        }
        ExprKind::Map(entries) => ExprKind::Map(
            entries
                .iter()
                .map(|e| Entry { id: e.id, key: each(&e.key), value: each(&e.value), optional: e.optional })
                .collect(),
        ),
        ExprKind::Struct { type_name, fields } => ExprKind::Struct {
            type_name: type_name.clone(),
            fields: fields
                .iter()
                .map(|f| Field { id: f.id, name: f.name.clone(), value: each(&f.value), optional: f.optional })
                .collect(),
        },
        ExprKind::Comprehension(c) => ExprKind::Comprehension(Box::new(ast::Comprehension {
            range: each(&c.range),
            var: c.var.clone(),
            var2: c.var2.clone(),
            accu: c.accu.clone(),
            init: each(&c.init),
            condition: each(&c.condition),
            step: each(&c.step),
            result: each(&c.result),
        })),
    };
    Expr { id, kind }
}
