//! Kubernetes' functions with regular expressions. The syntax is RE2's.

use ::regex::{Regex, RegexBuilder};

use super::{Action, Functions, Overload, int, text};
use crate::cost::Cost;
use crate::error::Error;
use crate::types::Type;
use crate::value::Value;

/// A compiled expression may not take more memory than this.
const MAX_PROGRAM: usize = 1 << 20;

/// Declares them.
pub fn declare(f: &mut Functions) {
    use Type::{Int, String};
    f.add(Overload {
        id: "string_find_string",
        function: "find",
        member: true,
        args: vec![String, String],
        result: String,
        cost: Cost::Find,
        action: Action::Regex(|args, regex| {
            let found = regex.find(text(&args[0])?).map_or("", |found| found.as_str());
            Ok(Value::text(found))
        }),
    });
    let find_all = Action::Regex(|args, regex| {
        let limit = match args.get(2) {
            Some(limit) => usize::try_from(int(limit)?).unwrap_or(usize::MAX),
            None => usize::MAX,
        };
        Ok(Value::texts(regex.find_iter(text(&args[0])?).take(limit).map(|found| found.as_str())))
    });
    for (id, args) in
        [("string_find_all_string", vec![String, String]), ("string_find_all_string_int", vec![String, String, Int])]
    {
        f.add(Overload {
            id,
            function: "findAll",
            member: true,
            args,
            result: Type::list(String),
            cost: Cost::Find,
            action: find_all,
        });
    }
}

/// Compiles a regular expression.
///
/// # Errors
/// When it is none, in Go's words where they are known.
pub fn compile(pattern: &str) -> Result<Regex, Error> {
    if let Some(operators) = nested_repetition(pattern) {
        return Err(Error::new(format!("error parsing regexp: invalid nested repetition operator: `{operators}`")));
    }
    let translated = translate(pattern);
    RegexBuilder::new(&translated)
        .size_limit(MAX_PROGRAM)
        .build()
        .map_err(|e| Error::new(format!("error parsing regexp: {}", explain(&e, pattern))))
}

/// RE2 refuses `a**` and `a{2}{3}`, which Rust takes.
fn nested_repetition(pattern: &str) -> Option<String> {
    use regex_syntax::ast::{Ast, Visitor, parse::Parser};
    struct Finder(Option<(usize, usize)>);
    impl Visitor for Finder {
        type Output = Option<(usize, usize)>;
        type Err = ();
        fn finish(self) -> Result<Self::Output, ()> {
            Ok(self.0)
        }
        fn visit_pre(&mut self, ast: &Ast) -> Result<(), ()> {
            if let Ast::Repetition(outer) = ast
                && let Ast::Repetition(inner) = &*outer.ast
            {
                self.0.get_or_insert((inner.op.span.start.offset, outer.op.span.end.offset));
            }
            Ok(())
        }
    }
    let ast = Parser::new().parse(pattern).ok()?;
    let (start, end) = regex_syntax::ast::visit(&ast, Finder(None)).ok()??;
    pattern.get(start..end).map(str::to_owned)
}

/// RE2 knows `\Q…\E`, `\C` and `\z` as Rust does not, or differently.
fn translate(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len());
    let mut rest = pattern;
    while let Some(at) = rest.find("\\Q") {
        // An escaped backslash before a Q starts no quotation.
        let slashes = rest[..at].bytes().rev().take_while(|b| *b == b'\\').count();
        if slashes % 2 == 1 {
            out.push_str(&rest[..at + 2]);
            rest = &rest[at + 2..];
            continue;
        }
        out.push_str(&rest[..at]);
        let quoted = &rest[at + 2..];
        let (quoted, after) = quoted.split_once("\\E").unwrap_or((quoted, ""));
        out.push_str(&::regex::escape(quoted));
        rest = after;
    }
    out.push_str(rest);
    out
}

/// What is wrong with a pattern, as Go says it.
fn explain(error: &::regex::Error, pattern: &str) -> String {
    use regex_syntax::ast::ErrorKind;
    if matches!(error, ::regex::Error::CompiledTooBig(_)) {
        return "expression too large".into();
    }
    let Err(regex_syntax::Error::Parse(parse)) = regex_syntax::parse(pattern) else {
        return "invalid escape sequence".into();
    };
    let span = parse.span();
    let part = pattern.get(span.start.offset..span.end.offset).unwrap_or(pattern);
    match parse.kind() {
        ErrorKind::ClassUnclosed => format!("missing closing ]: `{}`", &pattern[span.start.offset..]),
        ErrorKind::ClassRangeInvalid => format!("invalid character class range: `{part}`"),
        ErrorKind::GroupUnclosed => format!("missing closing ): `{pattern}`"),
        ErrorKind::GroupUnopened => format!("unexpected ): `{pattern}`"),
        ErrorKind::RepetitionMissing => {
            let end = span.end.offset.max(span.start.offset + 1).min(pattern.len());
            format!("missing argument to repetition operator: `{}`", &pattern[span.start.offset..end])
        }
        ErrorKind::EscapeUnexpectedEof => "trailing backslash at end of expression: ``".into(),
        ErrorKind::EscapeUnrecognized => format!("invalid escape sequence: `{part}`"),
        ErrorKind::UnsupportedLookAround => {
            let end = (span.start.offset + 3).min(pattern.len());
            format!("invalid or unsupported Perl syntax: `{}`", &pattern[span.start.offset..end])
        }
        ErrorKind::UnsupportedBackreference => format!("invalid escape sequence: `{part}`"),
        ErrorKind::RepetitionCountInvalid | ErrorKind::RepetitionCountUnclosed => {
            format!("invalid repeat count: `{part}`")
        }
        ErrorKind::GroupNameInvalid | ErrorKind::GroupNameDuplicate { .. } | ErrorKind::GroupNameEmpty => {
            format!("invalid named capture: `{part}`")
        }
        _ => format!("invalid or unsupported Perl syntax: `{part}`"),
    }
}
