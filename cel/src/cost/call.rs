//! What calls cost. Each overload names its kind; the kind knows the estimate and the actual cost.

use super::{CHARACTER, LIST, OBJECT, REGEX, Range, times};
use crate::value::{List, Map, Value};

/// How the cost of a call is reckoned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cost {
    /// 1.
    Default,
    /// 1, also when only the function is known.
    Nominal,
    /// `?:`, which costs what is evaluated.
    Conditional,
    /// `&&` and `||`, which cost what is evaluated.
    Logical,
    /// `startsWith`, `endsWith`: the length of the prefix.
    Prefix,
    /// `bytes(text)`.
    StringToBytes,
    /// `string(bytes)`.
    BytesToString,
    /// `strings.quote`.
    Quote,
    /// `format`.
    Format,
    /// `in` a list.
    InList,
    /// `matches`.
    Matches,
    /// `contains`.
    Contains,
    /// `+` of texts or bytes.
    AddText,
    /// `+` of lists.
    AddList,
    /// Equality, and order of texts: the shorter of both.
    Compare,
    /// An authorization check: dear enough that two are the most in one expression.
    Authorize,
    /// A selector, which is parsed into requirements.
    Selector,
    /// Looks at every element.
    Elements,
    /// Goes through the receiver once.
    Traverse,
    /// Goes through the first argument once, the result being as long.
    TraverseFirst,
    /// `replace`.
    Replace,
    /// `split`.
    Split,
    /// `join`.
    Join,
    /// `find`, `findAll`.
    Find,
    /// Parses the first argument.
    Parse,
    /// `ip.isCanonical`.
    Canonical,
    /// `containsIP`.
    ContainsIp {
        /// Of text.
        text: bool,
    },
    /// `containsCIDR`.
    ContainsCidr {
        /// Of text.
        text: bool,
    },
    /// `validate` of a format.
    Validate,
    /// Functions of two lists as sets, with a factor.
    Sets(u8),
    /// `slice`.
    ListSlice,
    /// `flatten`.
    ListFlatten,
    /// `lists.range`.
    ListRange,
    /// `reverse`.
    ListReverse,
    /// `distinct`.
    ListDistinct,
    /// `sort`, `sortBy`.
    ListSort {
        /// Of texts or bytes.
        text: bool,
        /// By keys.
        by: bool,
    },
}

/// What the estimate knows of one argument.
#[derive(Clone, Debug)]
pub(super) struct Argument {
    /// Its size, computed or declared.
    pub size: Range,
    /// Its number, if it is a constant one.
    pub number: Option<i64>,
    /// The size of its elements, if it is a list: `Some(None)` when they are no text.
    pub elements: Option<Option<Range>>,
    /// The size of its elements, text or not.
    pub element_size: Option<Range>,
    /// The name of its type, if it is one of Kubernetes'.
    pub named: Option<&'static str>,
    /// Whether it is of another type than the first.
    pub differs: bool,
}

/// The estimate for a call: its own cost, and the size of its result where that is known.
pub(super) struct CallEstimate {
    pub cost: Range,
    pub result: Option<Range>,
}

impl CallEstimate {
    fn of(cost: Range) -> Self {
        CallEstimate { cost, result: None }
    }

    fn sized(cost: Range, result: Range) -> Self {
        CallEstimate { cost, result: Some(result) }
    }
}

impl Cost {
    /// Whether the kind is known from the function alone, whatever the overload.
    pub(crate) fn by_function(self) -> bool {
        use Cost::{Authorize, Canonical, Elements, Find, Join, Nominal, Parse, Replace, Selector, Split};
        use Cost::{Traverse, TraverseFirst, Validate};
        matches!(
            self,
            Authorize
                | Canonical
                | Elements
                | Find
                | Join
                | Nominal
                | Parse
                | Replace
                | Selector
                | Split
                | Traverse
                | TraverseFirst
                | Validate
        )
    }

    /// Whether the actual cost depends on what the call returned.
    pub(crate) fn needs_result(self) -> bool {
        matches!(self, Cost::Join | Cost::ListSlice | Cost::ListReverse)
    }

    /// The estimate, without the cost of the arguments.
    pub(super) fn estimate(self, target: Option<&Argument>, args: &[Argument]) -> CallEstimate {
        let one = Range::fixed(1);
        let size = |at: usize| args.get(at).map_or(Range::UNKNOWN, |arg| arg.size);
        let receiver = target.map_or(Range::UNKNOWN, |target| target.size);
        match self {
            // What these cost is up to their arguments, and is seen to where those are known.
            Cost::Conditional | Cost::Logical => CallEstimate::of(Range::ZERO),
            Cost::Default | Cost::Nominal => CallEstimate::of(one),
            Cost::Prefix => CallEstimate::of(size(0).times(CHARACTER)),
            Cost::StringToBytes => {
                let sz = size(0);
                CallEstimate::sized(sz.times(CHARACTER), Range { min: sz.min, max: sz.max.wrapping_mul(4) })
            }
            Cost::BytesToString => {
                let sz = size(0);
                CallEstimate::sized(sz.times(CHARACTER), Range { min: sz.min / 4, max: sz.max })
            }
            Cost::Quote => {
                let sz = size(0);
                let result = Range { min: sz.min.wrapping_add(2), max: sz.max.wrapping_mul(2).wrapping_add(2) };
                CallEstimate::sized(sz.times(CHARACTER), result)
            }
            Cost::Format => CallEstimate::of(receiver.times(CHARACTER)),
            Cost::InList => CallEstimate::of(size(1)),
            Cost::Matches => CallEstimate::of(regex(receiver, size(0))),
            Cost::Find => CallEstimate::sized(regex(receiver, size(0)), Range { min: 0, max: receiver.max }),
            Cost::Contains => CallEstimate::of(receiver.times(CHARACTER).multiply(size(0).times(CHARACTER))),
            Cost::AddText => {
                let result = size(0).add(size(1));
                CallEstimate::sized(result.times(CHARACTER), result)
            }
            Cost::AddList => CallEstimate::sized(one, size(0).add(size(1))),
            Cost::Compare => CallEstimate::of(compare(args)),
            Cost::Authorize => CallEstimate::of(Range::fixed(350_000)),
            Cost::Selector => CallEstimate::of(selector(size(0))),
            Cost::Elements => CallEstimate::of(match target.map(|target| &target.elements) {
                Some(Some(elements)) => {
                    let each = elements.map_or(one, |size| one.add(size.times(CHARACTER)));
                    receiver.multiply(each)
                }
                _ => receiver.times(CHARACTER),
            }),
            Cost::Traverse => CallEstimate::sized(receiver.times(CHARACTER), receiver),
            Cost::TraverseFirst => CallEstimate::sized(size(0).times(CHARACTER), size(0)),
            Cost::Replace => CallEstimate::sized(receiver.times(2.0 * CHARACTER), replaced(receiver, size(0), size(1))),
            Cost::Split => {
                let most = args.get(1).and_then(|limit| limit.number).map_or(receiver.max, i64::cast_unsigned);
                CallEstimate::sized(receiver.times(2.0 * CHARACTER), Range { min: 0, max: most })
            }
            Cost::Join => {
                let mut result = target
                    .and_then(|target| target.element_size)
                    .map_or(Range::ZERO, |elements| receiver.multiply(elements));
                if !args.is_empty() {
                    let gaps = Range { min: receiver.min.saturating_sub(1), max: receiver.max.saturating_sub(1) };
                    result = result.add(size(0).multiply(gaps));
                }
                CallEstimate::sized(result.times(CHARACTER), result)
            }
            Cost::Parse => CallEstimate::of(size(0).times(CHARACTER)),
            Cost::Canonical => CallEstimate::of(size(0).times(2.0 * CHARACTER)),
            Cost::ContainsIp { text } => {
                CallEstimate::of(addresses().add(if text { size(0).times(CHARACTER) } else { Range::ZERO }))
            }
            Cost::ContainsCidr { text } => {
                let masked = ADDRESS.times(CHARACTER).add(one);
                let parsed = if text { size(0).times(CHARACTER) } else { Range::ZERO };
                CallEstimate::of(addresses().add(masked).add(parsed))
            }
            Cost::Validate => CallEstimate::of(size(0).times(CHARACTER).times(128.0 * REGEX)),
            Cost::Sets(factor) => CallEstimate::of(size(0).multiply(size(1)).times(f64::from(factor)).add(one)),
            Cost::ListSlice => {
                let number = |at: usize, otherwise: u64| {
                    args.get(at).and_then(|arg| arg.number).map_or(otherwise, |n| u64::try_from(n).unwrap_or(0))
                };
                allocating(1.0, Range::fixed(number(1, receiver.max).wrapping_sub(number(0, 0))))
            }
            Cost::ListRange => {
                let n = args.first().and_then(|arg| arg.number);
                allocating(1.0, Range::fixed(n.map_or(u64::MAX, |n| u64::try_from(n).unwrap_or(0))))
            }
            Cost::ListReverse => allocating(1.0, receiver),
            Cost::ListFlatten => {
                let depth = match args.first() {
                    None => 1,
                    Some(arg) => arg.number.map_or(u64::MAX, |n| u64::try_from(n).unwrap_or(0)),
                };
                allocating(depth as f64, receiver)
            }
            Cost::ListDistinct => allocating(2.0, receiver.multiply(receiver)),
            Cost::ListSort { text, by } => {
                let keys = if by { size(0) } else { receiver };
                allocating(if text { 2.0 + CHARACTER } else { 2.0 }, keys.multiply(keys))
            }
        }
    }

    /// The actual cost of a call that was made. The receiver is the first argument.
    pub(crate) fn actual(self, args: &[Value<'_>], result: Option<&Value<'_>>) -> u64 {
        let size = |at: usize| args.get(at).map_or(1, Value::size);
        let traversed = |at: usize, factor: f64| times(size(at), factor);
        match self {
            Cost::Conditional | Cost::Logical => 0,
            Cost::Default | Cost::Nominal | Cost::AddList => 1,
            Cost::Prefix | Cost::StringToBytes | Cost::BytesToString | Cost::Quote | Cost::Format => {
                traversed(0, CHARACTER)
            }
            Cost::InList => size(1),
            Cost::Matches | Cost::Find => actual_regex(size(0), size(1)),
            Cost::Contains => traversed(0, CHARACTER).saturating_mul(traversed(1, CHARACTER)),
            Cost::AddText => times(size(0).saturating_add(size(1)), CHARACTER),
            Cost::Compare => match args.first() {
                Some(
                    Value::Quantity(_)
                    | Value::Ip(_)
                    | Value::Cidr(_)
                    | Value::Format(_)
                    | Value::Url(_)
                    | Value::Semver(_)
                    | Value::Authorizer(_)
                    | Value::PathCheck(_)
                    | Value::GroupCheck(_)
                    | Value::ResourceCheck(_)
                    | Value::Decision(_),
                ) => 1,
                _ => times(size(0).min(size(1)), CHARACTER),
            },
            Cost::Authorize => 350_000,
            Cost::Selector => selector(Range::fixed(size(1))).max,
            Cost::Elements => args.first().map_or(0, traversal),
            Cost::Traverse | Cost::TraverseFirst | Cost::Parse => traversed(0, CHARACTER),
            Cost::Replace | Cost::Split | Cost::Canonical => traversed(0, 2.0 * CHARACTER),
            Cost::Join => result.map_or(0, |result| times(result.size(), 2.0 * CHARACTER)),
            Cost::ContainsIp { text } => times(size(0) * 2, CHARACTER) + if text { traversed(1, CHARACTER) } else { 0 },
            Cost::ContainsCidr { text } => {
                let parsed = if text { traversed(1, CHARACTER) } else { 0 };
                times(size(0) * 2, CHARACTER) + traversed(0, CHARACTER) + 1 + parsed
            }
            Cost::Validate => match args.first() {
                Some(Value::Format(format)) => actual_regex(size(1), format.regex_size),
                _ => 1,
            },
            Cost::Sets(factor) => 1 + (size(0) * size(1)) * u64::from(factor),
            Cost::ListSlice | Cost::ListReverse => result.map_or(1, Value::size) + 1 + LIST,
            // Before anything is allocated.
            Cost::ListRange => match args.first() {
                Some(Value::Int(n)) => u64::try_from(*n).unwrap_or(0).saturating_add(1 + LIST),
                _ => 1 + LIST,
            },
            Cost::ListFlatten => {
                let depth = match args.get(1) {
                    Some(Value::Int(depth)) => u64::try_from(*depth).unwrap_or(0),
                    _ => 1,
                };
                depth.saturating_mul(size(0)).saturating_add(1 + LIST)
            }
            Cost::ListDistinct => self_compare(args.first()),
            Cost::ListSort { by, .. } => self_compare(args.get(usize::from(by))),
        }
    }
}

/// The size of an address in bytes.
const ADDRESS: Range = Range { min: 4, max: 16 };

fn addresses() -> Range {
    ADDRESS.add(ADDRESS).times(CHARACTER)
}

/// One is added to the length of the text: a dear expression on no text is still dear.
fn regex(text: Range, pattern: Range) -> Range {
    text.add(Range::fixed(1)).times(CHARACTER).multiply(pattern.times(REGEX))
}

fn actual_regex(text: u64, pattern: u64) -> u64 {
    times(text.saturating_add(1), CHARACTER).saturating_mul(times(pattern, REGEX))
}

fn selector(length: Range) -> Range {
    let requirements = length.times(0.5).times((LIST + OBJECT) as f64);
    Range::fixed(LIST).add(length.times(CHARACTER)).add(requirements)
}

fn compare(args: &[Argument]) -> Range {
    let [left, right] = args else { return Range::fixed(1) };
    if let (Some(name), false) = (left.named, right.differs) {
        match name {
            "kubernetes.NamedFormat" => return Range { min: 1, max: 64 }.times(CHARACTER),
            "kubernetes.URL" => {
                return Range { min: 1, max: right.size.max }.times(CHARACTER);
            }
            _ => return Range::fixed(1),
        }
    }
    let most = left.size.max.min(right.size.max);
    Range { min: u64::from(most > 0), max: most }.times(CHARACTER)
}

fn replaced(whole: Range, from: Range, to: Range) -> Range {
    let mut count = Range::ZERO;
    let mut kept = Range::ZERO;
    if from.min == 0 {
        // Nothing is replaced around every character.
        count.max = whole.max.saturating_add(1);
        kept.max = whole.max;
    } else if to.max <= from.min {
        kept.max = whole.max;
    } else {
        count.max = (whole.max as f64 / from.min as f64).ceil() as u64;
    }
    if from.max == 0 {
        count.min = whole.min.saturating_add(1);
        kept.min = whole.min;
    } else if from.max <= to.min {
        kept.min = whole.min;
    } else {
        count.min = (whole.min as f64 / from.max as f64).ceil() as u64;
    }
    count.multiply(to).add(kept)
}

fn allocating(factor: f64, size: Range) -> CallEstimate {
    CallEstimate::sized(size.times(factor).add(Range::fixed(1 + LIST)), size)
}

fn self_compare(list: Option<&Value<'_>>) -> u64 {
    let Some(Value::List(list)) = list else { return 1 + LIST };
    let text = matches!(list.get(0), Ok(Value::String(_) | Value::Bytes(_)));
    let size = list.len() as u64;
    let factor = if text { 2.0 + CHARACTER } else { 2.0 };
    (size.saturating_mul(size) as f64 * factor) as u64 + 1 + LIST
}

/// The cost of going through everything that a value holds.
fn traversal(value: &Value<'_>) -> u64 {
    let list = |list: &List<'_>| list.iter().map(|item| item.map_or(1, |item| traversal(&item))).sum();
    let map = |map: &Map<'_>| {
        map.keys()
            .iter()
            .map(|key| traversal(key) + map.get(key).ok().flatten().map_or(1, |value| traversal(&value)))
            .sum()
    };
    match value {
        Value::String(text) => (text.len() as f64 * CHARACTER) as u64,
        Value::Bytes(bytes) => (bytes.len() as f64 * CHARACTER) as u64,
        Value::List(items) => list(items),
        Value::Map(entries) => map(entries),
        _ => 1,
    }
}
