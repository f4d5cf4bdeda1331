//! Columns aligned by tabs, as Go's `text/tabwriter` does: a column is a run of lines that have a
//! tab-terminated cell in it, and is as wide as its widest cell plus padding.

/// Collects text; [`TabWriter::flush`] gives it back aligned.
#[derive(Debug, Clone)]
pub struct TabWriter {
    buffer: String,
    min_width: usize,
    padding: usize,
    remember: bool,
    remembered: Vec<usize>,
}

impl TabWriter {
    /// The writer of tables: cells at least 6 wide, 3 spaces apart, widths kept between flushes.
    pub fn table() -> Self {
        TabWriter { buffer: String::new(), min_width: 6, padding: 3, remember: true, remembered: Vec::new() }
    }

    /// A writer with widths of its own.
    pub fn new(min_width: usize, padding: usize) -> Self {
        TabWriter { buffer: String::new(), min_width, padding, remember: false, remembered: Vec::new() }
    }

    /// Adds text; cells end with tabs, lines with newlines.
    pub fn push(&mut self, text: &str) {
        self.buffer.push_str(text);
    }

    /// Whether something waits to be flushed.
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// Forgets the widths of earlier flushes.
    pub fn forget_widths(&mut self) {
        self.remembered.clear();
    }

    /// The aligned text of what was added since the last flush.
    pub fn flush(&mut self) -> String {
        let buffer = std::mem::take(&mut self.buffer);
        let lines: Vec<Vec<&str>> = buffer.split('\n').map(|line| line.split('\t').collect()).collect();
        let mut out = String::with_capacity(buffer.len() * 2);
        let mut widths = Vec::new();
        self.format(&lines, 0, lines.len(), &mut widths, &mut out);
        out
    }

    fn format(&mut self, lines: &[Vec<&str>], mut first: usize, end: usize, widths: &mut Vec<usize>, out: &mut String) {
        let column = widths.len();
        let mut this = first;
        while this < end {
            if column + 1 >= lines[this].len() {
                this += 1;
                continue;
            }
            write_lines(lines, first, this, widths, out);
            first = this;
            let mut width = self.min_width;
            while this < end && column + 1 < lines[this].len() {
                width = width.max(cell_width(lines[this][column]) + self.padding);
                this += 1;
            }
            if self.remember {
                match self.remembered.get_mut(column) {
                    Some(before) => {
                        width = width.max(*before);
                        *before = width;
                    }
                    None => self.remembered.push(width),
                }
            }
            widths.push(width);
            self.format(lines, first, this, widths, out);
            widths.pop();
            first = this;
        }
        write_lines(lines, first, end, widths, out);
    }
}

fn cell_width(cell: &str) -> usize {
    cell.chars().count()
}

fn write_lines(lines: &[Vec<&str>], first: usize, end: usize, widths: &[usize], out: &mut String) {
    for (index, line) in lines.iter().enumerate().take(end).skip(first) {
        for (column, cell) in line.iter().enumerate() {
            out.push_str(cell);
            if let Some(width) = widths.get(column) {
                out.extend(std::iter::repeat_n(' ', width.saturating_sub(cell_width(cell))));
            }
        }
        if index + 1 < lines.len() {
            out.push('\n');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::TabWriter;

    #[test]
    fn aligns() {
        let mut writer = TabWriter::table();
        writer.push("NAME\tREADY\tAGE\na-long-name\t1/1\t5s\n");
        assert_eq!(writer.flush(), "NAME          READY   AGE\na-long-name   1/1     5s\n");
        writer.push("b\t0/1\t1s\n");
        assert_eq!(writer.flush(), "b             0/1     1s\n");
    }

    #[test]
    fn columns_are_runs_of_lines() {
        let mut writer = TabWriter::new(0, 2);
        writer.push("Name:\tx\nLabels:\ta=b\n\tc=d\nplain\nContainers:\n  c:\n    Image:\ti\n");
        assert_eq!(writer.flush(), "Name:    x\nLabels:  a=b\n         c=d\nplain\nContainers:\n  c:\n    Image:  i\n");
    }
}
