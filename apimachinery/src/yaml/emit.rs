//! Trees to YAML, byte-equal to `sigs.k8s.io/yaml`: the layout of libyaml's emitter with lists not
//! indented, long scalars folded at a space beyond column 80, and keys in yaml.v2's natural order.

use super::resolve::{Resolved, float_text, is_base60, resolve};
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::cmp::Ordering;

/// The YAML text of a tree, ending in a newline.
pub fn emit(value: &Value) -> String {
    let mut emitter = Emitter { out: String::new(), indent: -1, column: 0, whitespace: true, indention: true };
    emitter.node(value, false);
    emitter.write_indent_at(0);
    emitter.out
}

const STEP: i32 = 2;
/// Beyond this column a scalar goes on in the next line, at its next space.
const WIDTH: usize = 80;
/// Longer keys are written with `?`.
const SIMPLE_KEY_MAX: usize = 128;

#[derive(Clone, Copy, PartialEq)]
enum Style {
    Plain,
    Single,
    Double,
    Literal,
}

struct Emitter {
    out: String,
    indent: i32,
    column: usize,
    /// The last thing written was white space, or an indicator that counts as such.
    whitespace: bool,
    /// Only indentation has been written on this line.
    indention: bool,
}

impl Emitter {
    fn put(&mut self, c: char) {
        self.out.push(c);
        self.column += 1;
    }

    fn newline(&mut self) {
        self.out.push('\n');
        self.column = 0;
    }

    fn write_indent(&mut self) {
        self.write_indent_at(self.indent.max(0) as usize);
    }

    fn write_indent_at(&mut self, indent: usize) {
        if !self.indention || self.column > indent || (self.column == indent && !self.whitespace) {
            self.newline();
        }
        while self.column < indent {
            self.put(' ');
        }
        self.whitespace = true;
        self.indention = true;
    }

    fn indicator(&mut self, text: &str, need_space: bool, is_space: bool, is_indention: bool) {
        if need_space && !self.whitespace {
            self.put(' ');
        }
        for c in text.chars() {
            self.put(c);
        }
        self.whitespace = is_space;
        self.indention = self.indention && is_indention;
    }

    fn node(&mut self, value: &Value, in_mapping: bool) {
        match value {
            Value::Null => self.plain("null"),
            Value::Bool(b) => self.plain(if *b { "true" } else { "false" }),
            Value::Number(n) => match n.as_i64() {
                Some(int) => self.plain(itoa::Buffer::new().format(int)),
                None => match n.as_u64() {
                    Some(int) => self.plain(itoa::Buffer::new().format(int)),
                    None => self.plain(&float_text(n.as_f64().unwrap_or(0.0))),
                },
            },
            Value::String(s) => self.scalar(s, false),
            Value::Array(items) => self.sequence(items, in_mapping),
            Value::Object(map) => self.mapping(map),
        }
    }

    fn sequence(&mut self, items: &[Value], in_mapping: bool) {
        if items.is_empty() {
            self.indicator("[", true, true, false);
            self.indicator("]", false, false, false);
            return;
        }
        let outer = self.indent;
        let indentless = in_mapping && !self.indention;
        self.indent = if outer < 0 {
            0
        } else if indentless {
            outer
        } else {
            outer + STEP
        };
        for item in items {
            self.write_indent();
            self.indicator("-", true, false, true);
            self.node(item, false);
        }
        self.indent = outer;
    }

    fn mapping(&mut self, map: &Map<String, Value>) {
        if map.is_empty() {
            self.indicator("{", true, true, false);
            self.indicator("}", false, false, false);
            return;
        }
        let outer = self.indent;
        self.indent = if outer < 0 { 0 } else { outer + STEP };
        let mut entries: Vec<(&String, &Value)> = map.iter().collect();
        entries.sort_by(|a, b| natural(a.0, b.0));
        for (key, value) in entries {
            self.write_indent();
            if key.len() <= SIMPLE_KEY_MAX && !key.contains(is_break) {
                self.scalar(key, true);
                self.indicator(":", false, false, false);
            } else {
                self.indicator("?", true, false, true);
                self.scalar(key, false);
                self.write_indent();
                self.indicator(":", true, false, true);
            }
            self.node(value, true);
        }
        self.indent = outer;
    }

    fn scalar(&mut self, text: &str, simple_key: bool) {
        let outer = self.indent;
        self.indent = outer.max(0) + STEP;
        match choose(text, simple_key) {
            Style::Plain => self.plain_text(text, !simple_key),
            Style::Single => self.single(text, !simple_key),
            Style::Double => self.double(text, !simple_key),
            Style::Literal => self.literal(text),
        }
        self.indent = outer;
    }

    fn plain(&mut self, text: &str) {
        self.plain_text(text, false);
    }

    fn plain_text(&mut self, text: &str, fold: bool) {
        if !self.whitespace {
            self.put(' ');
        }
        let mut spaces = false;
        let mut chars = text.chars().peekable();
        while let Some(c) = chars.next() {
            if c == ' ' {
                if fold && !spaces && self.column > WIDTH && chars.peek() != Some(&' ') {
                    self.write_indent();
                } else {
                    self.put(c);
                }
                spaces = true;
                continue;
            }
            self.put(c);
            self.indention = false;
            spaces = false;
        }
        self.whitespace = false;
        self.indention = false;
    }

    fn single(&mut self, text: &str, fold: bool) {
        self.indicator("'", true, false, false);
        let mut breaks = false;
        let mut spaces = false;
        let mut chars = text.char_indices().peekable();
        while let Some((at, c)) = chars.next() {
            if c == ' ' && !breaks {
                let next = chars.peek().map(|(_, next)| *next);
                let inside = at > 0 && next.is_some_and(|next| next != ' ');
                if fold && !spaces && self.column > WIDTH && inside {
                    self.write_indent();
                } else {
                    self.put(c);
                }
                spaces = true;
                continue;
            }
            spaces = false;
            if is_break(c) {
                // Only U+2028 and U+2029 come here: other breaks exclude this style.
                self.out.push(c);
                self.column = 0;
                self.indention = true;
                breaks = true;
                continue;
            }
            if breaks && c != ' ' {
                self.write_indent();
                breaks = false;
            }
            if c == '\'' {
                self.put('\'');
            }
            self.put(c);
            self.indention = false;
        }
        self.indicator("'", false, false, false);
    }

    fn double(&mut self, text: &str, fold: bool) {
        self.indicator("\"", true, false, false);
        let mut spaces = false;
        let mut chars = text.char_indices().peekable();
        while let Some((at, c)) = chars.next() {
            if c == ' ' {
                let next = chars.peek().map(|(_, next)| *next);
                if fold && !spaces && self.column > WIDTH && at > 0 && next.is_some() {
                    self.write_indent();
                    if next == Some(' ') {
                        self.put('\\');
                    }
                } else {
                    self.put(c);
                }
                spaces = true;
                continue;
            }
            spaces = false;
            let escape: Cow<'_, str> = match c {
                '\0' => "0".into(),
                '\u{7}' => "a".into(),
                '\u{8}' => "b".into(),
                '\t' => "t".into(),
                '\n' => "n".into(),
                '\u{b}' => "v".into(),
                '\u{c}' => "f".into(),
                '\r' => "r".into(),
                '\u{1b}' => "e".into(),
                '"' => "\"".into(),
                '\\' => "\\".into(),
                '\u{85}' => "N".into(),
                '\u{2028}' => "L".into(),
                '\u{2029}' => "P".into(),
                c if is_printable(c) => {
                    self.put(c);
                    continue;
                }
                c => match c as u32 {
                    code @ ..=0xff => format!("x{code:02X}").into(),
                    code @ ..=0xffff => format!("u{code:04X}").into(),
                    code => format!("U{code:08X}").into(),
                },
            };
            self.put('\\');
            for c in escape.chars() {
                self.put(c);
            }
        }
        self.indicator("\"", false, false, false);
    }

    fn literal(&mut self, text: &str) {
        self.indicator("|", true, false, false);
        if text.starts_with(|c| c == ' ' || is_break(c)) {
            self.indicator("2", false, false, false);
        }
        let mut tail = text.chars().rev();
        match (tail.next(), tail.next()) {
            (Some(last), _) if !is_break(last) => self.indicator("-", false, false, false),
            (_, None) => self.indicator("+", false, false, false),
            (_, Some(before)) if is_break(before) => self.indicator("+", false, false, false),
            _ => {}
        }
        self.newline();
        self.indention = true;
        self.whitespace = true;
        let mut breaks = true;
        for c in text.chars() {
            if is_break(c) {
                if c == '\n' {
                    self.newline();
                } else {
                    self.out.push(c);
                    self.column = 0;
                }
                self.indention = true;
                breaks = true;
            } else {
                if breaks {
                    self.write_indent();
                }
                self.put(c);
                self.indention = false;
                breaks = false;
            }
        }
    }
}

fn is_break(c: char) -> bool {
    matches!(c, '\r' | '\n' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

/// libyaml's printable characters, by the bytes that yaml.v2 looks at (so none beyond U+FFFF).
fn is_printable(c: char) -> bool {
    matches!(c, '\n' | '\u{20}'..='\u{7e}' | '\u{a0}'..='\u{d7ff}' | '\u{e000}'..='\u{fffd}') && c != '\u{feff}'
}

/// What the text allows, found in one pass: libyaml's scalar analysis.
struct Analysis {
    plain: bool,
    single: bool,
    block: bool,
}

fn analyze(text: &str) -> Analysis {
    if text.is_empty() {
        return Analysis { plain: true, single: true, block: false };
    }
    let mut indicators = text.starts_with("---") || text.starts_with("...");
    let (mut line_breaks, mut special, mut break_space, mut space_break) = (false, false, false, false);
    let (mut leading, mut trailing_space, mut trailing_break) = (false, false, false);
    let (mut after_blank, mut previous_space, mut previous_break) = (true, false, false);
    let mut chars = text.chars().peekable();
    let mut first = true;
    while let Some(c) = chars.next() {
        let last = chars.peek().is_none();
        let before_blank = chars.peek().is_none_or(|n| matches!(n, ' ' | '\t'));
        if first {
            indicators |= match c {
                '#' | ',' | '[' | ']' | '{' | '}' | '&' | '*' | '!' | '|' | '>' | '\'' | '"' | '%' | '@' | '`' => true,
                '?' | ':' | '-' => before_blank,
                _ => false,
            };
        } else {
            indicators |= (c == ':' && before_blank) || (c == '#' && after_blank);
        }
        special |= !is_printable(c);
        if c == ' ' {
            leading |= first;
            trailing_space |= last;
            break_space |= previous_break;
            (previous_space, previous_break) = (true, false);
        } else if is_break(c) {
            line_breaks = true;
            leading |= first;
            trailing_break |= last;
            space_break |= previous_space;
            (previous_space, previous_break) = (false, true);
        } else {
            (previous_space, previous_break) = (false, false);
        }
        after_blank = matches!(c, ' ' | '\t' | '\0') || is_break(c);
        first = false;
    }
    let hard = space_break || special;
    Analysis {
        plain: !(leading || trailing_space || trailing_break || break_space || hard || line_breaks || indicators),
        single: !(break_space || hard),
        block: !(trailing_space || hard),
    }
}

fn choose(text: &str, simple_key: bool) -> Style {
    let allowed = analyze(text);
    if text.contains('\n') {
        return if allowed.block && !simple_key { Style::Literal } else { Style::Double };
    }
    if !matches!(resolve(text), Resolved::Str) || is_base60(text) {
        return Style::Double;
    }
    if allowed.plain {
        Style::Plain
    } else if allowed.single {
        Style::Single
    } else {
        Style::Double
    }
}

/// yaml.v2's order of keys: letters after other characters, runs of digits by their number.
fn natural(a: &str, b: &str) -> Ordering {
    if a.is_ascii() && b.is_ascii() {
        return natural_chars(
            a.as_bytes().iter().map(|b| char::from(*b)),
            b.as_bytes().iter().map(|b| char::from(*b)),
            a,
            b,
        );
    }
    natural_chars(a.chars(), b.chars(), a, b)
}

fn natural_chars(ai: impl Iterator<Item = char>, bi: impl Iterator<Item = char>, a: &str, b: &str) -> Ordering {
    let Some(i) = ai.zip(bi).position(|(x, y)| x != y) else {
        return a.chars().count().cmp(&b.chars().count());
    };
    let (ar, br): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let (x, y) = (ar[i], br[i]);
    match (x.is_alphabetic(), y.is_alphabetic()) {
        (true, true) => return x.cmp(&y),
        (true, false) => return Ordering::Greater,
        (false, true) => return Ordering::Less,
        _ => {}
    }
    // Differing zeros after other digits are part of a number, not leading zeros.
    let mut start = 0i64;
    if x == '0' || y == '0' {
        let digits = ar[..i].iter().rev().take_while(|c| c.is_numeric());
        start = i64::from(digits.into_iter().any(|c| *c != '0'));
    }
    let run = |chars: &[char]| {
        let (mut n, mut end) = (start, i);
        while let Some(c) = chars.get(end).filter(|c| c.is_numeric()) {
            n = n.wrapping_mul(10).wrapping_add(i64::from(*c as u32) - i64::from(b'0'));
            end += 1;
        }
        (n, end)
    };
    run(&ar).cmp(&run(&br)).then(x.cmp(&y))
}
