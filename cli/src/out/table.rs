//! Columns that line up, also where letters are two cells wide.

use unicode_width::UnicodeWidthStr;

use super::text::clean;

/// A table with a head line.
#[derive(Debug, Clone)]
pub struct Table {
    head: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

/// Which side a column's text stands on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Left,
    Right,
}

impl Table {
    /// A column whose head begins with `>` is set to the right, as numbers are.
    pub fn new(head: &[&'static str]) -> Self {
        Self { head: head.to_vec(), rows: Vec::new() }
    }

    /// Adds a row; its cells are made safe for a terminal, line ends included.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let mut row: Vec<String> = cells.into_iter().map(|cell| clean(&cell).replace('\n', " ")).collect();
        row.resize(self.head.len(), String::new());
        self.rows.push(row);
    }

    /// The lines of the table, each with its line end.
    pub fn render(&self, colour: bool) -> String {
        let sides: Vec<Side> =
            self.head.iter().map(|head| if head.starts_with('>') { Side::Right } else { Side::Left }).collect();
        let head: Vec<String> = self.head.iter().map(|head| head.trim_start_matches('>').to_uppercase()).collect();
        let widths: Vec<usize> = (0..head.len())
            .map(|at| self.rows.iter().chain([&head]).map(|row| row[at].width()).max().unwrap_or(0))
            .collect();
        let line = |row: &[String], head: bool| {
            let last = row.len().saturating_sub(1);
            let mut text = String::new();
            for (at, cell) in row.iter().enumerate() {
                let space = " ".repeat(widths[at].saturating_sub(cell.width()));
                let shown = if colour { paint(cell, head) } else { cell.clone() };
                match sides[at] {
                    Side::Right => text.push_str(&(space + &shown)),
                    Side::Left if at == last => text.push_str(&shown),
                    Side::Left => text.push_str(&(shown + &space)),
                }
                if at != last {
                    text.push_str("  ");
                }
            }
            text.truncate(text.trim_end().len());
            text.push('\n');
            text
        };
        let mut text = line(&head, true);
        for row in &self.rows {
            text.push_str(&line(row, false));
        }
        text
    }
}

/// Colours the words that a person looks for; everything else stays as it is.
fn paint(cell: &str, head: bool) -> String {
    let code = match cell {
        _ if head => "2",
        "active" | "approved" | "online" | "ok" | "permit" => "32",
        "pending" | "arming" | "ending" | "invited" | "new" | "warn" => "33",
        "denied" | "locked" | "frozen" | "offline" | "failed" | "killed" | "deny" | "FAIL" => "31",
        "ended" | "used" | "lapsed" | "withdrawn" | "-" => "2",
        _ => return cell.to_owned(),
    };
    format!("\u{1b}[{code}m{cell}\u{1b}[0m")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Table {
        let mut table = Table::new(&["asset", ">port", "state"]);
        table.row(["rtu-7".into(), "502".into(), "active".into()]);
        table.row(["変電所".into(), "22".into(), "ended".into()]);
        table
    }

    #[test]
    fn columns_line_up_with_wide_letters_and_numbers_stand_right() {
        let text = sample().render(false);
        let columns: Vec<usize> = text
            .lines()
            .map(|line| {
                let at = line.find("STATE").or(line.find("active")).or(line.find("ended")).expect("a state");
                line[..at].width()
            })
            .collect();
        assert_eq!(columns, [14, 14, 14], "{text}");
        assert!(text.lines().nth(2).is_some_and(|line| line.contains("  22  ")), "{text}");
        assert!(text.lines().all(|line| !line.ends_with(' ')));
    }

    #[test]
    fn without_colour_no_escape_is_written_and_with_it_the_width_stays() {
        assert!(!sample().render(false).contains('\u{1b}'));
        let coloured = sample().render(true);
        assert!(coloured.contains("\u{1b}[32mactive\u{1b}[0m"));
    }

    #[test]
    fn a_cell_cannot_break_out_of_its_row() {
        let mut table = Table::new(&["reason"]);
        table.row(["a\nb\u{1b}[31m".into()]);
        assert_eq!(table.render(false).lines().count(), 2);
        assert!(!table.render(false).contains('\u{1b}'));
    }
}
