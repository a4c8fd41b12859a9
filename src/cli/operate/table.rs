//! Aligned columns for people.

use std::fmt;

/// Rows under headings. A column in which every cell is a number is aligned to the right.
#[derive(Debug)]
pub(super) struct Table {
    headings: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

// === impl Table ===

impl Table {
    pub(super) fn new(headings: &[&'static str]) -> Self {
        Self {
            headings: headings.to_vec(),
            rows: Vec::new(),
        }
    }

    /// Adds a row with a cell for each heading.
    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows
            .push(cells.into_iter().map(|c| visible(&c)).collect());
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns: Vec<(usize, bool)> = self
            .headings
            .iter()
            .enumerate()
            .map(|(i, heading)| {
                let cells = self.rows.iter().filter_map(|row| row.get(i));
                let width = cells.clone().map(|c| c.chars().count()).max();
                let is_number = |c: &String| c == "-" || c.parse::<f64>().is_ok();
                let width = width.unwrap_or(0).max(heading.chars().count());
                (
                    width,
                    cells.clone().any(|c| c != "-") && cells.clone().all(is_number),
                )
            })
            .collect();
        let headings: Vec<String> = self.headings.iter().map(ToString::to_string).collect();
        for row in std::iter::once(&headings).chain(&self.rows) {
            let mut line = String::new();
            for (cell, (width, is_right)) in row.iter().zip(&columns) {
                if !line.is_empty() {
                    line.push_str("  ");
                }
                line.push_str(&if *is_right {
                    format!("{cell:>width$}")
                } else {
                    format!("{cell:<width$}")
                });
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// Without control characters, which a terminal would obey: reasons and names are other people's.
pub(super) fn visible(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_aligned_left_and_numbers_right() {
        let mut table = Table::new(&["NAME", "COUNT", "WHY"]);
        table.row(["a".into(), "5".into(), String::new()]);
        table.row(["longer".into(), "-".into(), "two\u{1b}[31m words".into()]);
        let text = "NAME    COUNT  WHY\na           5\nlonger      -  two [31m words\n";
        assert_eq!(table.to_string(), text);
    }

    #[test]
    fn an_empty_table_is_its_headings() {
        assert_eq!(Table::new(&["A", "B"]).to_string(), "A  B\n");
    }
}
