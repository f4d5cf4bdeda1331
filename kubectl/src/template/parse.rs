//! Tokens to nodes.

use std::collections::BTreeMap;

use super::lex::{self, Piece, Token};
use super::{Branch, Error, Node, Operand, Pipeline, functions};

type Defined = BTreeMap<String, Vec<Node>>;

/// Blocks nest no deeper than this.
const MAX_DEPTH: usize = 100;

pub(super) fn parse(text: &str) -> Result<(Vec<Node>, Defined), Error> {
    let mut parser = Parser { pieces: lex::pieces(text)?.into_iter(), defined: Defined::new() };
    let (nodes, end) = parser.list(0)?;
    match end {
        Closer::Input => Ok((nodes, parser.defined)),
        Closer::End => Err(bad("unexpected {{end}}")),
        Closer::Else(_) => Err(bad("unexpected {{else}}")),
    }
}

fn bad(text: &str) -> Error {
    Error::new(format!("template: output:1: {text}"))
}

struct Parser {
    pieces: std::vec::IntoIter<Piece>,
    defined: Defined,
}

/// What closed a list of nodes.
enum Closer {
    Input,
    End,
    /// `{{else}}`, with the tokens after it (`if …`).
    Else(Vec<Token>),
}

impl Parser {
    fn list(&mut self, depth: usize) -> Result<(Vec<Node>, Closer), Error> {
        if depth > MAX_DEPTH {
            return Err(bad("too deeply nested"));
        }
        let mut nodes = Vec::new();
        while let Some(piece) = self.pieces.next() {
            let tokens = match piece {
                Piece::Text(text) => {
                    nodes.push(Node::Text(text));
                    continue;
                }
                Piece::Action(tokens) => tokens,
            };
            let start = tokens.iter().position(|token| *token != Token::Space).unwrap_or(tokens.len());
            let body = &tokens[start..];
            let Some(first) = body.first() else { return Err(bad("missing value for command")) };
            let Token::Word(word) = first else {
                nodes.push(Node::Action(pipeline(body)?));
                continue;
            };
            let rest = &body[1..];
            match word.as_str() {
                "end" => return Ok((nodes, Closer::End)),
                "else" => return Ok((nodes, Closer::Else(trim(rest).to_vec()))),
                "if" | "range" | "with" => {
                    let node = self.branch(word, rest, depth)?;
                    nodes.push(node);
                }
                "define" => {
                    let name = name_of(rest)?;
                    let body = self.body(depth)?;
                    self.defined.insert(name, body);
                }
                "block" => {
                    let name = name_of(rest)?;
                    let argument = pipeline(after_name(rest))?;
                    let body = self.body(depth)?;
                    self.defined.entry(name.clone()).or_insert(body);
                    nodes.push(Node::Template { name, argument: Some(argument) });
                }
                "template" => {
                    let name = name_of(rest)?;
                    let rest = trim(after_name(rest));
                    let argument = if rest.is_empty() { None } else { Some(pipeline(rest)?) };
                    nodes.push(Node::Template { name, argument });
                }
                "break" => nodes.push(Node::Break),
                "continue" => nodes.push(Node::Continue),
                _ => nodes.push(Node::Action(pipeline(body)?)),
            }
        }
        Ok((nodes, Closer::Input))
    }

    fn body(&mut self, depth: usize) -> Result<Vec<Node>, Error> {
        match self.list(depth + 1)? {
            (nodes, Closer::End) => Ok(nodes),
            (_, Closer::Else(_)) => Err(bad("unexpected {{else}} in define clause")),
            (_, Closer::Input) => Err(bad("unexpected EOF")),
        }
    }

    fn branch(&mut self, word: &str, tokens: &[Token], depth: usize) -> Result<Node, Error> {
        let pipeline = pipeline(tokens)?;
        let (then, end) = self.list(depth + 1)?;
        let otherwise = match end {
            Closer::Input => return Err(bad("unexpected EOF")),
            Closer::End => Vec::new(),
            Closer::Else(tokens) if tokens.is_empty() => self.body(depth)?,
            Closer::Else(tokens) => match tokens.first() {
                // `{{else if}}` shares the {{end}} of the whole.
                Some(Token::Word(next)) if next == "if" || next == "with" => {
                    let next = next.clone();
                    vec![self.branch(&next, &tokens[1..], depth + 1)?]
                }
                _ => return Err(bad("unexpected token in {{else}}")),
            },
        };
        let branch = Branch { pipeline, then, otherwise };
        Ok(match word {
            "if" => Node::If(branch),
            "range" => Node::Range(branch),
            _ => Node::With(branch),
        })
    }
}

fn trim(tokens: &[Token]) -> &[Token] {
    let start = tokens.iter().position(|token| *token != Token::Space).unwrap_or(tokens.len());
    &tokens[start..]
}

fn name_of(tokens: &[Token]) -> Result<String, Error> {
    match trim(tokens).first() {
        Some(Token::Literal(serde_json::Value::String(name))) => Ok(name.clone()),
        _ => Err(bad("unexpected token in template clause")),
    }
}

fn after_name(tokens: &[Token]) -> &[Token] {
    &trim(tokens)[1..]
}

fn pipeline(tokens: &[Token]) -> Result<Pipeline, Error> {
    let mut variables = Vec::new();
    let mut declares = false;
    let mut rest = trim(tokens);
    if let Some(end) = rest.iter().position(|token| matches!(token, Token::Declare | Token::Assign)) {
        for token in &rest[..end] {
            match token {
                Token::Variable(name) => variables.push(name.clone()),
                Token::Comma | Token::Space => {}
                _ => return Err(bad("unexpected token in declaration")),
            }
        }
        declares = rest[end] == Token::Declare;
        rest = &rest[end + 1..];
    }
    let mut position = 0;
    let commands = commands(rest, &mut position, false, 0)?;
    Ok(Pipeline { variables, declares, commands })
}

fn commands(tokens: &[Token], position: &mut usize, nested: bool, depth: usize) -> Result<Vec<Vec<Operand>>, Error> {
    if depth > MAX_DEPTH {
        return Err(bad("too deeply nested"));
    }
    let mut commands = vec![Vec::new()];
    loop {
        let Some(token) = tokens.get(*position) else {
            if nested {
                return Err(bad("unclosed left paren"));
            }
            break;
        };
        *position += 1;
        let mut fields = || {
            let mut names = Vec::new();
            while let Some(Token::Field(name)) = tokens.get(*position) {
                names.push(name.clone());
                *position += 1;
            }
            names
        };
        let operand = match token {
            Token::Space => continue,
            Token::Pipe => {
                if commands.last().is_none_or(Vec::is_empty) {
                    return Err(bad("missing value for command"));
                }
                commands.push(Vec::new());
                continue;
            }
            Token::Close if nested => break,
            Token::Close => return Err(bad("unexpected right paren")),
            Token::Open => {
                let inner = self::commands(tokens, position, true, depth + 1)?;
                let pipeline = Pipeline { variables: Vec::new(), declares: false, commands: inner };
                let mut names = Vec::new();
                while let Some(Token::Field(name)) = tokens.get(*position) {
                    names.push(name.clone());
                    *position += 1;
                }
                Operand::Group(Box::new(pipeline), names)
            }
            Token::Dot => Operand::Field(Vec::new()),
            Token::Field(name) => {
                let mut names = vec![name.clone()];
                names.extend(fields());
                Operand::Field(names)
            }
            Token::Variable(name) => Operand::Variable(name.clone(), fields()),
            Token::Word(word) if word == "nil" => Operand::Nil,
            Token::Word(word) if functions::exists(word) => Operand::Function(word.clone()),
            Token::Word(word) => return Err(bad(&format!("function {word:?} not defined"))),
            Token::Literal(value) => Operand::Literal(value.clone()),
            Token::Comma | Token::Declare | Token::Assign => return Err(bad("unexpected token in operand")),
        };
        commands.last_mut().expect("never empty").push(operand);
    }
    if commands.last().is_none_or(Vec::is_empty) {
        return Err(bad("missing value for command"));
    }
    Ok(commands)
}
