//! From text to tree, by descent. The grammar is CEL's; the macros are those that Kubernetes enables.

mod literal;
mod macros;
mod operand;
mod operators;

use crate::ast::{self, Call, Entry, Expr, ExprKind, Field, Id};
use crate::lexer::{self, Token, TokenKind};
use crate::source::{Issue, Issues, Location, Source};

/// An expression may not have more code points than this.
pub const MAX_CODE_POINTS: usize = 100_000;
/// No rule of the grammar may nest deeper than this.
const MAX_DEPTH: u32 = 250;

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
        self.peek().kind == TokenKind::Symbol(lexer::symbol(symbol))
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
}

fn call(id: Id, function: &str, args: Vec<Expr>) -> Expr {
    Expr { id, kind: ExprKind::Call(Call { function: function.into(), target: None, args }) }
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
