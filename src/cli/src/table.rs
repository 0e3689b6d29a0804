//! Tables for a terminal of any width. Where a table is too wide, columns that matter less are cut, then left out; names stay whole as
//! long as anything else can give way. Where there is no terminal, everything is shown.

use super::columns;
use super::stdout;
use super::ui::{Style, Ui};

/// The space between two columns.
const GAP: &str = "  ";
/// The least width of a column that is cut.
const LEAST: usize = 12;

/// The way in which a column gives way where the terminal is too narrow.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Fit {
    /// A name: the last to give way.
    Name,
    /// Shown whole or not at all. Of several, the one with the highest number goes first.
    Whole(u8),
    /// Cut, then left out; by number as well.
    Cut(u8),
}

/// A column.
#[derive(Clone, Copy)]
pub(super) struct Column<'a> {
    /// Its heading.
    pub head: &'a str,
    /// The way in which it gives way.
    pub fit: Fit,
    /// Whether it contains numbers, which are aligned to the right.
    pub is_number: bool,
}

impl<'a> Column<'a> {
    /// A column that is aligned to the left.
    pub const fn new(head: &'a str, fit: Fit) -> Column<'a> {
        Column { head, fit, is_number: false }
    }

    /// A column of numbers.
    pub const fn number(head: &'a str, fit: Fit) -> Column<'a> {
        Column { head, fit, is_number: true }
    }
}

/// One cell of a table.
#[derive(Clone, Default)]
pub(super) struct Cell {
    text: String,
    style: Option<Style>,
}

impl Cell {
    /// A cell in a style.
    pub fn styled(text: impl Into<String>, style: Style) -> Cell {
        Cell { text: text.into(), style: Some(style) }
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Cell {
        Cell { text: text.into(), style: None }
    }
}

/// The columns of a table as they are shown: which of them, and their widths.
pub(super) struct Layout<'a> {
    columns: Vec<Column<'a>>,
    /// The width of each column; none: it is left out.
    widths: Vec<Option<usize>>,
}

impl<'h> Layout<'h> {
    /// Returns the layout for these rows within a number of columns of the terminal. A column that is empty in all rows is left out.
    pub fn new<'a>(columns: &[Column<'h>], rows: impl Iterator<Item = &'a [Cell]>, limit: Option<usize>) -> Layout<'h> {
        let mut needs = vec![0; columns.len()];
        for row in rows {
            for (need, cell) in needs.iter_mut().zip(row) {
                *need = (*need).max(columns::width(&cell.text));
            }
        }
        let natural = needs.iter().zip(columns);
        let natural: Vec<Option<usize>> = natural
            .map(|(need, column)| {
                (*need > 0 || column.fit == Fit::Name).then(|| (*need).max(columns::width(column.head)))
            })
            .collect();
        let widths = match limit {
            Some(limit) => fitted(columns, natural, limit),
            None => natural,
        };
        Layout { columns: columns.to_vec(), widths }
    }

    /// Returns the headings of the columns that are left out, of those that contain something in `rows`.
    pub fn left_out<'a>(&self, rows: impl Iterator<Item = &'a [Cell]>) -> Vec<&'h str> {
        let mut has_text = vec![false; self.columns.len()];
        for row in rows {
            has_text.iter_mut().zip(row).for_each(|(has_text, cell)| *has_text |= !cell.text.is_empty());
        }
        let columns = self.columns.iter().zip(&self.widths).zip(has_text);
        columns
            .filter(|((_, width), has_text)| width.is_none() && *has_text)
            .map(|((column, _), _)| column.head)
            .collect()
    }

    /// Returns the headings as a line.
    pub fn head(&self) -> String {
        let cells: Vec<Cell> = self.columns.iter().map(|column| Cell::from(column.head)).collect();
        self.line(&cells, &|_, text| text.to_owned())
    }

    /// Returns a row as a line.
    pub fn line(&self, cells: &[Cell], paint: &dyn Fn(Style, &str) -> String) -> String {
        let (mut line, mut spaces) = (String::new(), 0);
        for ((cell, width), column) in cells.iter().zip(&self.widths).zip(&self.columns) {
            let Some(width) = *width else { continue };
            let text = columns::cut(&cell.text, width);
            let missing = width.saturating_sub(columns::width(&text));
            let (before, after) = if column.is_number { (missing, 0) } else { (0, missing) };
            if !text.is_empty() {
                line += &" ".repeat(spaces + before);
                spaces = 0;
                line += &cell.style.map_or_else(|| text.clone(), |style| paint(style, &text));
            } else {
                spaces += before;
            }
            spaces += after + GAP.len();
        }
        line
    }
}

/// Returns widths that fit into a limit: see [`Fit`]. Names alone may be cut at last.
fn fitted(columns: &[Column<'_>], natural: Vec<Option<usize>>, limit: usize) -> Vec<Option<usize>> {
    let total = |widths: &[Option<usize>]| {
        let shown: Vec<usize> = widths.iter().flatten().copied().collect();
        shown.iter().sum::<usize>() + GAP.len() * shown.len().saturating_sub(1)
    };
    // The columns that give way, the least important one first.
    let mut order: Vec<(u8, usize)> = columns
        .iter()
        .enumerate()
        .filter_map(|(index, column)| match column.fit {
            Fit::Name => None,
            Fit::Whole(rank) | Fit::Cut(rank) => Some((rank, index)),
        })
        .collect();
    order.sort_by(|a, b| b.cmp(a));
    let mut kept = natural;
    let mut dropped = order.iter();
    loop {
        let mut widths = kept.clone();
        for (_, index) in &order {
            let (Fit::Cut(_), Some(width)) = (columns[*index].fit, widths[*index]) else { continue };
            let excess = total(&widths).saturating_sub(limit);
            let least = width.min(LEAST.max(columns::width(columns[*index].head)));
            widths[*index] = Some(width.saturating_sub(excess).max(least));
        }
        if total(&widths) <= limit {
            return widths;
        }
        match dropped.next() {
            Some((_, index)) => kept[*index] = None,
            None => break,
        }
    }
    // Only names are left, and they are too long.
    while total(&kept) > limit {
        match kept.iter_mut().flatten().max() {
            Some(widest) if *widest > LEAST => *widest -= 1,
            _ => break,
        }
    }
    kept
}

/// A table in memory.
pub(super) struct Table<'a> {
    columns: Vec<Column<'a>>,
    rows: Vec<(Vec<Cell>, Vec<String>)>,
}

impl<'a> Table<'a> {
    /// An empty table.
    pub fn new(columns: &[Column<'a>]) -> Table<'a> {
        Table { columns: columns.to_vec(), rows: Vec::new() }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        self.rows.push((cells.into_iter().collect(), Vec::new()));
    }

    /// Adds a line below the last row.
    pub fn note(&mut self, text: String) {
        if let Some((_, notes)) = self.rows.last_mut() {
            notes.push(text);
        }
    }

    /// Returns the lines of the table, with its headings; without rows, none.
    pub fn lines(&self, ui: &Ui, limit: Option<usize>) -> Vec<String> {
        if self.rows.is_empty() {
            return Vec::new();
        }
        let rows = || self.rows.iter().map(|(cells, _)| cells.as_slice());
        let layout = Layout::new(&self.columns, rows(), limit);
        let mut lines = vec![layout.head()];
        for (cells, notes) in &self.rows {
            lines.push(layout.line(cells, &|style, text| ui.paint(style, text)));
            lines.extend(notes.iter().cloned());
        }
        lines.extend(left_out_note(ui, &layout.left_out(rows())));
        lines
    }

    /// Prints the table to stdout, as wide as the terminal at the most.
    pub fn print(&self, ui: &Ui) {
        let lines = self.lines(ui, stdout::columns());
        if !lines.is_empty() {
            stdout::print(&lines.join("\n"));
        }
    }
}

/// Returns the line that names the columns for which the terminal is too narrow.
pub(super) fn left_out_note(ui: &Ui, names: &[&str]) -> Option<String> {
    let text = format!("not shown at this width: {}", names.join(", "));
    (!names.is_empty()).then(|| ui.paint(Style::Dim, &text))
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: [Column<'_>; 4] = [
        Column::new("customer", Fit::Name),
        Column::number("number", Fit::Whole(2)),
        Column::new("deployed", Fit::Whole(1)),
        Column::new("address", Fit::Cut(3)),
    ];

    fn shown(limit: Option<usize>) -> Vec<String> {
        let mut table = Table::new(&COLUMNS);
        let row =
            |name: &str, number: &str, address: &str| [name, number, "2026-11-30T12:02:57Z", address].map(Cell::from);
        table.row(row("acme", "7", "https://a-long-name-of-a-shop.example.com/"));
        table.note("    a note".to_owned());
        table.row(row("日本の店", "1,000", ""));
        table.lines(&Ui::new(true, false), limit)
    }

    #[test]
    fn everything_is_shown_where_there_is_room() {
        let wide = [
            "customer  number  deployed              address",
            "acme           7  2026-11-30T12:02:57Z  https://a-long-name-of-a-shop.example.com/",
            "    a note",
            "日本の店   1,000  2026-11-30T12:02:57Z",
        ];
        assert_eq!(shown(None), wide);
        assert_eq!(shown(Some(80)), wide);
    }

    #[test]
    fn what_matters_less_gives_way_first_and_names_last() {
        let cut = shown(Some(60));
        assert_eq!(cut[1], "acme           7  2026-11-30T12:02:57Z  https://a-long-name-…");
        let without = shown(Some(40));
        assert_eq!(without[0], "customer  number  deployed");
        assert_eq!(without.last().map(String::as_str), Some("not shown at this width: address"));
        let less = shown(Some(30));
        assert_eq!(less[..2], ["customer  deployed", "acme      2026-11-30T12:02:57Z"]);
        assert_eq!(less.last().map(String::as_str), Some("not shown at this width: number, address"));
        assert_eq!(shown(Some(10))[..2], ["customer", "acme"]);
        for limit in 8..90 {
            let lines = shown(Some(limit));
            let table = lines.iter().filter(|line| !line.starts_with("not shown") && !line.starts_with("    "));
            assert!(table.clone().all(|line| columns::width(line) <= limit), "{limit}: {lines:#?}");
            assert!(lines.iter().any(|line| line.starts_with("日本の店")), "{limit}: {lines:#?}");
        }
    }

    #[test]
    fn a_column_without_content_is_left_out() {
        let mut table = Table::new(&COLUMNS);
        table.row(["acme", "", "", "x"].map(Cell::from));
        assert_eq!(table.lines(&Ui::new(true, false), None), ["customer  address", "acme      x"]);
        assert!(Table::new(&COLUMNS).lines(&Ui::new(true, false), None).is_empty());
    }
}
