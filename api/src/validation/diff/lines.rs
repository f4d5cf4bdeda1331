//! Two texts compared by lines, as Python's `difflib` does it: the longest run of equal lines first, then what lies on
//! either side of it. Other algorithms find other, equally short differences.

use std::collections::HashMap;

/// Lines shown around a change.
const CONTEXT: usize = 3;
/// In texts of so many lines, those that recur too often hold no run together.
const LONG: usize = 200;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tag {
    Equal,
    /// Lines of the old text become lines of the new one; either may be none.
    Changed,
}

#[derive(Clone, Copy, Debug)]
struct Step {
    tag: Tag,
    old: (usize, usize),
    new: (usize, usize),
}

/// A unified diff without the lines that name files; empty when nothing differs.
pub(super) fn unified(old: &str, new: &str) -> String {
    let (old, new): (Vec<&str>, Vec<&str>) = (old.split('\n').collect(), new.split('\n').collect());
    let mut out = String::new();
    for group in groups(&steps(&old, &new)) {
        let (Some(first), Some(last)) = (group.first(), group.last()) else { continue };
        let (a, b) = (range(first.old.0, last.old.1), range(first.new.0, last.new.1));
        out.push_str(&format!("@@ -{a} +{b} @@\n"));
        for step in &group {
            let mut write = |mark: char, lines: &[&str]| {
                for line in lines {
                    out.push(mark);
                    out.push_str(line);
                    out.push('\n');
                }
            };
            match step.tag {
                Tag::Equal => write(' ', &old[step.old.0..step.old.1]),
                Tag::Changed => {
                    write('-', &old[step.old.0..step.old.1]);
                    write('+', &new[step.new.0..step.new.1]);
                }
            }
        }
    }
    out
}

fn range(start: usize, end: usize) -> String {
    match end - start {
        1 => (start + 1).to_string(),
        0 => format!("{start},0"),
        length => format!("{},{length}", start + 1),
    }
}

/// How one text becomes the other.
fn steps(old: &[&str], new: &[&str]) -> Vec<Step> {
    let mut places: HashMap<&str, Vec<usize>> = HashMap::new();
    for (at, line) in new.iter().enumerate() {
        places.entry(line).or_default().push(at);
    }
    if new.len() >= LONG {
        places.retain(|_, at| at.len() <= new.len() / 100 + 1);
    }
    let mut runs = Vec::new();
    let whole = (0, old.len(), 0, new.len());
    match_runs(&Texts { old, new, places: &places }, whole, &mut runs);
    runs.push((old.len(), new.len(), 0));
    let (mut i, mut j) = (0, 0);
    let mut steps: Vec<Step> = Vec::new();
    for (a, b, length) in runs {
        if i < a || j < b {
            steps.push(Step { tag: Tag::Changed, old: (i, a), new: (j, b) });
        }
        (i, j) = (a + length, b + length);
        match steps.last_mut() {
            // Runs may touch each other.
            Some(last) if last.tag == Tag::Equal && length > 0 => (last.old.1, last.new.1) = (i, j),
            _ if length > 0 => steps.push(Step { tag: Tag::Equal, old: (a, i), new: (b, j) }),
            _ => {}
        }
    }
    steps
}

struct Texts<'a> {
    old: &'a [&'a str],
    new: &'a [&'a str],
    /// Where in the new text a line stands.
    places: &'a HashMap<&'a str, Vec<usize>>,
}

type Run = (usize, usize, usize);

fn match_runs(texts: &Texts<'_>, (alo, ahi, blo, bhi): (usize, usize, usize, usize), runs: &mut Vec<Run>) {
    let (i, j, length) = longest(texts, (alo, ahi, blo, bhi));
    if length == 0 {
        return;
    }
    if alo < i && blo < j {
        match_runs(texts, (alo, i, blo, j), runs);
    }
    runs.push((i, j, length));
    if i + length < ahi && j + length < bhi {
        match_runs(texts, (i + length, ahi, j + length, bhi), runs);
    }
}

/// The longest run of lines that both parts have; of several, the first in the old text.
fn longest(texts: &Texts<'_>, (alo, ahi, blo, bhi): (usize, usize, usize, usize)) -> Run {
    let (old, new) = (texts.old, texts.new);
    let (mut i, mut j, mut length) = (alo, blo, 0);
    let mut lengths: HashMap<usize, usize> = HashMap::new();
    for (a, line) in old.iter().enumerate().take(ahi).skip(alo) {
        let mut next = HashMap::new();
        let places = texts.places.get(line).map(Vec::as_slice).unwrap_or_default();
        for b in places.iter().copied().filter(|b| (blo..bhi).contains(b)) {
            let run = b.checked_sub(1).and_then(|before| lengths.get(&before)).copied().unwrap_or(0) + 1;
            next.insert(b, run);
            if run > length {
                (i, j, length) = (a + 1 - run, b + 1 - run, run);
            }
        }
        lengths = next;
    }
    while i > alo && j > blo && old[i - 1] == new[j - 1] {
        (i, j, length) = (i - 1, j - 1, length + 1);
    }
    while i + length < ahi && j + length < bhi && old[i + length] == new[j + length] {
        length += 1;
    }
    (i, j, length)
}

/// Steps with so much around them as is shown, apart where more lies between them.
fn groups(steps: &[Step]) -> Vec<Vec<Step>> {
    let mut steps = steps.to_vec();
    if let Some(first) = steps.first_mut().filter(|step| step.tag == Tag::Equal) {
        first.old.0 = first.old.0.max(first.old.1.saturating_sub(CONTEXT));
        first.new.0 = first.new.0.max(first.new.1.saturating_sub(CONTEXT));
    }
    if let Some(last) = steps.last_mut().filter(|step| step.tag == Tag::Equal) {
        last.old.1 = last.old.1.min(last.old.0 + CONTEXT);
        last.new.1 = last.new.1.min(last.new.0 + CONTEXT);
    }
    let (mut groups, mut group) = (Vec::new(), Vec::new());
    for mut step in steps {
        if step.tag == Tag::Equal && step.old.1 - step.old.0 > 2 * CONTEXT {
            let (old, new) = (step.old.0, step.new.0);
            group.push(Step { tag: Tag::Equal, old: (old, old + CONTEXT), new: (new, new + CONTEXT) });
            groups.push(std::mem::take(&mut group));
            step.old.0 = step.old.1 - CONTEXT;
            step.new.0 = step.new.1 - CONTEXT;
        }
        group.push(step);
    }
    if group.iter().any(|step| step.tag == Tag::Changed) {
        groups.push(group);
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_difflib_shows_it() {
        let check = |old: &str, new: &str, want: &str| assert_eq!(unified(old, new), want, "{old:?} {new:?}");
        check("a\nb", "a\nb", "");
        check("a", "b", "@@ -1 +1 @@\n-a\n+b\n");
        check("a\nb\nc", "a\nc", "@@ -1,3 +1,2 @@\n a\n-b\n c\n");
        check(
            "1\n2\n3\n4\n5\n6\n7\n8\n9",
            "1\n2\n3\n4\nx\n6\n7\n8\n9",
            "@@ -2,7 +2,7 @@\n 2\n 3\n 4\n-5\n+x\n 6\n 7\n 8\n",
        );
        let long: Vec<String> = (0..20).map(|line| line.to_string()).collect();
        let mut other = long.clone();
        (other[2], other[17]) = ("x".to_string(), "y".to_string());
        check(
            &long.join("\n"),
            &other.join("\n"),
            "@@ -1,6 +1,6 @@\n 0\n 1\n-2\n+x\n 3\n 4\n 5\n@@ -15,6 +15,6 @@\n 14\n 15\n 16\n-17\n+y\n 18\n 19\n",
        );
        // The longest run wins, although two shorter ones would keep more.
        check("a\nb\nx\nc\nd\ne", "c\nd\ne\na\nb", "@@ -1,6 +1,5 @@\n-a\n-b\n-x\n c\n d\n e\n+a\n+b\n");
    }
}
