//! Tables for a terminal of any width. Where a table is too wide, columns that matter less are cut, then moved to a further line of their
//! row; names stay whole as long as anything else can give way. Where there is no terminal, each row is one line.

use super::columns;
use super::stdout;
use super::ui::{Style, Ui};

/// The space between two columns.
const GAP: &str = "  ";
/// The space before the further lines of a row.
const INDENT: &str = "    ";
/// The least width of a column that is cut.
const LEAST: usize = 12;

/// The way in which a column gives way where the terminal is too narrow.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Fit {
    /// A name: the last to give way.
    Name,
    /// Moved to a further line. Of several, the one with the highest number goes first.
    Whole(u8),
    /// Cut, then moved; by number as well.
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

impl Column<'_> {
    fn rank(&self) -> u8 {
        match self.fit {
            Fit::Name => 0,
            Fit::Whole(rank) | Fit::Cut(rank) => rank,
        }
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

/// The columns of a table as they are shown. Those that don't fit next to the others are on further lines of each row.
pub(super) struct Layout<'a> {
    columns: Vec<Column<'a>>,
    /// For each line of a row, the width of each column; none: it isn't on that line.
    lines: Vec<Vec<Option<usize>>>,
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
        let Some(limit) = limit else { return Layout { columns: columns.to_vec(), lines: vec![natural] } };
        let mut lines = vec![fitted(columns, natural.clone(), limit)];
        let mut left = natural;
        loop {
            let placed = lines.last().into_iter().flatten();
            left.iter_mut().zip(placed).filter(|(_, placed)| placed.is_some()).for_each(|(left, _)| *left = None);
            if left.iter().all(Option::is_none) {
                return Layout { columns: columns.to_vec(), lines };
            }
            let limit = limit.saturating_sub(INDENT.len()).max(1);
            let mut next = fitted(columns, left.clone(), limit);
            if next.iter().all(Option::is_none) {
                // Not even one of them fits: the most important one is cut.
                let index = (0..columns.len())
                    .filter(|index| left[*index].is_some())
                    .min_by_key(|index| columns[*index].rank());
                next[index.unwrap_or_default()] = Some(limit);
            }
            lines.push(next);
        }
    }

    /// Returns the headings.
    pub fn head(&self) -> String {
        let cells: Vec<Cell> = self.columns.iter().map(|column| Cell::from(column.head)).collect();
        self.row(&cells, &|_, text| text.to_owned())
    }

    /// Returns a row: one line, or several where the terminal is narrow.
    pub fn row(&self, cells: &[Cell], paint: &dyn Fn(Style, &str) -> String) -> String {
        let mut lines = self.lines.iter().map(|widths| self.line(cells, widths, paint));
        let mut row = lines.next().unwrap_or_default();
        for line in lines.filter(|line| !line.is_empty()) {
            row += &format!("\n{INDENT}{line}");
        }
        row
    }

    fn line(&self, cells: &[Cell], widths: &[Option<usize>], paint: &dyn Fn(Style, &str) -> String) -> String {
        let (mut line, mut spaces) = (String::new(), 0);
        for ((cell, width), column) in cells.iter().zip(widths).zip(&self.columns) {
            let Some(width) = *width else { continue };
            let text = columns::cut(&cell.text, width);
            let missing = width.saturating_sub(columns::width(&text));
            let (before, after) = if column.is_number { (missing, 0) } else { (0, missing) };
            spaces += before;
            if !text.is_empty() {
                line += &" ".repeat(spaces);
                spaces = 0;
                line += &cell.style.map_or_else(|| text.clone(), |style| paint(style, &text));
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
        .filter(|(_, column)| column.fit != Fit::Name)
        .map(|(index, column)| (column.rank(), index))
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
            lines.push(layout.row(cells, &|style, text| ui.paint(style, text)));
            lines.extend(notes.iter().cloned());
        }
        lines
    }

    /// Prints the table to stdout, at most as wide as the terminal.
    pub fn print(&self, ui: &Ui) {
        let lines = self.lines(ui, stdout::columns());
        if !lines.is_empty() {
            stdout::print(&lines.join("\n"));
        }
    }
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
        assert_eq!(shown(Some(82)), wide);
    }

    #[test]
    fn what_matters_less_gives_way_first_and_names_last() {
        let cut = shown(Some(60));
        assert_eq!(cut[1], "acme           7  2026-11-30T12:02:57Z  https://a-long-name…");
        let without = shown(Some(40));
        assert_eq!(
            without[..2],
            [
                "customer  number  deployed\n    address",
                "acme           7  2026-11-30T12:02:57Z\n    https://a-long-name-of-a-shop.examp…"
            ]
        );
        assert_eq!(without[3], "日本の店   1,000  2026-11-30T12:02:57Z", "nothing is left of the second line");
        let less = shown(Some(30));
        assert_eq!(less[1], "acme      2026-11-30T12:02:57Z\n         7  https://a-long-na…");
        assert_eq!(shown(Some(10))[1], "acme\n    2026-…\n         7\n    https…");
        for limit in 8..90 {
            let lines = shown(Some(limit));
            let mut table = lines.iter().flat_map(|line| line.lines()).filter(|line| !line.ends_with("a note"));
            assert!(limit < 10 || table.all(|line| columns::width(line) <= limit), "{limit}: {lines:#?}");
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
