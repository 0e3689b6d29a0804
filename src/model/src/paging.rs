//! Lists that come in pages: which page is next, and whether the pages that were read are one list. A list that changes while it is read
//! can miss an entry, and an entry that isn't in a list counts as removed: such a list is read again. Sends nothing.

use std::collections::HashSet;

use crate::failure::Failure;
use crate::text::grouped;

/// The number of times that a list is read before it is given up because it changed each time.
const READINGS: u32 = 5;

/// The maximum number of pages of a list that are read: the zones of a large organization come in two thousand.
const MAX_PAGES: usize = 20_000;
/// The maximum number of entries of a list that are kept.
const MAX_ENTRIES: usize = 2_000_000;
/// The longest cursor, in bytes.
const MAX_CURSOR: usize = 8 << 10;

/// Identifies a page of a list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Page {
    /// The first page.
    #[default]
    First,
    /// The page of this number, from 2.
    Number(u64),
    /// The page that the one before gave this cursor for.
    Cursor(String),
}

impl Page {
    /// Returns its number, if pages have numbers.
    pub fn number(&self) -> Option<u64> {
        match self {
            Page::First => Some(1),
            Page::Number(number) => Some(*number),
            Page::Cursor(_) => None,
        }
    }
}

/// A page of a list, as the server returned it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListPage<T> {
    /// Its entries.
    pub entries: Vec<T>,
    /// The next page; none if this is the last one.
    pub next: Option<Page>,
    /// The number of entries on all pages, if the response has it.
    pub total: Option<u64>,
}

impl<T> From<Vec<T>> for ListPage<T> {
    /// A list that is one page.
    fn from(entries: Vec<T>) -> ListPage<T> {
        ListPage { entries, next: None, total: None }
    }
}

/// An entry of a list, which has each entry once.
pub trait Entry {
    /// Returns what distinguishes it from the others.
    fn key(&self) -> &str;
}

impl Entry for (String, String) {
    fn key(&self) -> &str {
        &self.1
    }
}

/// The reason why a list can't be read to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsteady {
    /// It changed each time that it was read.
    Changing,
    /// It has more pages or entries than any account has.
    Endless,
}

impl std::fmt::Display for Unsteady {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Unsteady::Changing => {
                write!(f, "Cloudflare's list is inconsistent: its pages didn't fit together, {READINGS} times in a row")
            }
            Unsteady::Endless => write!(
                f,
                "Cloudflare's list doesn't end: more than {} pages or {} entries",
                grouped(MAX_PAGES as u64),
                grouped(MAX_ENTRIES as u64)
            ),
        }
    }
}

impl From<Unsteady> for Failure {
    fn from(unsteady: Unsteady) -> Failure {
        let failure = Failure::new(unsteady.to_string());
        match unsteady {
            Unsteady::Changing => {
                failure.hint("something else is changing the account: run the command again when that has ended")
            }
            Unsteady::Endless => {
                failure.hint("is the API's address right, or does something else respond in Cloudflare's place?")
            }
        }
    }
}

/// The state of a list after one of its pages.
#[derive(Debug, PartialEq, Eq)]
pub enum Progress<T> {
    /// This page comes next.
    Next(Page),
    /// The list is whole.
    Whole(Vec<T>),
}

impl<T> Progress<T> {
    /// Returns the page that comes next.
    pub fn next(self) -> Option<Page> {
        match self {
            Progress::Next(page) => Some(page),
            Progress::Whole(_) => None,
        }
    }
}

/// Puts the pages of a list together.
#[derive(Debug)]
pub struct Pages<T> {
    entries: Vec<T>,
    keys: HashSet<String>,
    total: Option<u64>,
    last: Option<Page>,
    count: usize,
    readings: u32,
}

impl<T> Default for Pages<T> {
    fn default() -> Pages<T> {
        Pages { entries: Vec::new(), keys: HashSet::new(), total: None, last: None, count: 0, readings: 1 }
    }
}

impl<T: Entry> Pages<T> {
    /// Adds the page that was read. A page that doesn't fit the ones before it restarts the list.
    pub fn add(&mut self, page: ListPage<T>) -> Result<Progress<T>, Unsteady> {
        let ListPage { entries, next, total } = page;
        self.count += 1;
        let is_long = matches!(&next, Some(Page::Cursor(cursor)) if cursor.len() > MAX_CURSOR);
        if self.count > MAX_PAGES || self.entries.len() + entries.len() > MAX_ENTRIES || is_long {
            return Err(Unsteady::Endless);
        }
        let is_only = self.last.is_none() && next.is_none();
        // A list of one page is never held twice.
        let is_new = is_only || entries.iter().all(|entry| self.keys.insert(entry.key().to_owned()));
        let is_same_total = self.last.is_none() || self.total == total;
        let goes_on = next.is_none() || next != self.last;
        self.entries.extend(entries);
        self.total = total;
        let is_complete = next.is_some() || total.is_none_or(|total| total == self.entries.len() as u64);
        if !(is_new && is_same_total && goes_on && is_complete) {
            if self.readings == READINGS {
                return Err(Unsteady::Changing);
            }
            *self = Pages { readings: self.readings + 1, ..Pages::default() };
            return Ok(Progress::Next(Page::First));
        }
        match next {
            Some(next) => {
                self.last = Some(next.clone());
                Ok(Progress::Next(next))
            }
            None => Ok(Progress::Whole(std::mem::take(&mut self.entries))),
        }
    }
}

/// Reads a list to its end; `request` reads one page.
pub fn read_list<T: Entry, E: From<Unsteady>>(
    mut request: impl FnMut(Page) -> Result<ListPage<T>, E>,
) -> Result<Vec<T>, E> {
    let (mut pages, mut page) = (Pages::default(), Page::First);
    loop {
        match pages.add(request(page)?)? {
            Progress::Next(next) => page = next,
            Progress::Whole(entries) => return Ok(entries),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::CallError;

    type Row = (String, String);

    fn rows(ids: &[&str]) -> Vec<Row> {
        ids.iter().map(|id| ("name".to_owned(), (*id).to_owned())).collect()
    }

    fn page(ids: &[&str], next: Option<u64>, total: Option<u64>) -> ListPage<Row> {
        ListPage { entries: rows(ids), next: next.map(Page::Number), total }
    }

    /// Reads a list whose pages are answered in this order; what was read, and the pages that were requested.
    fn read(answers: Vec<ListPage<Row>>) -> (Result<Vec<Row>, CallError>, Vec<Page>) {
        let (mut answers, mut requested) = (answers.into_iter(), Vec::new());
        let read = read_list(|page| {
            requested.push(page);
            Ok(answers.next().expect("no more pages are requested"))
        });
        assert!(answers.next().is_none(), "all pages are requested: {requested:?}");
        (read, requested)
    }

    #[test]
    fn a_list_is_read_to_its_end() {
        let (whole, requested) = read(vec![page(&["a", "b"], Some(2), Some(3)), page(&["c"], None, Some(3))]);
        assert_eq!(whole, Ok(rows(&["a", "b", "c"])));
        assert_eq!(requested, [Page::First, Page::Number(2)]);
        let cursor = |ids: &[&str], next: Option<&str>| ListPage {
            entries: rows(ids),
            next: next.map(|next| Page::Cursor(next.to_owned())),
            total: None,
        };
        // A page may be empty, and another one follow.
        let (whole, _) = read(vec![cursor(&["a"], Some("x")), cursor(&[], Some("y")), cursor(&["b"], None)]);
        assert_eq!(whole, Ok(rows(&["a", "b"])));
    }

    #[test]
    fn pages_that_do_not_fit_together_are_read_again() {
        let whole = || vec![page(&["a", "b"], Some(2), Some(3)), page(&["c"], None, Some(3))];
        for (what, broken) in [
            ("an entry twice", vec![page(&["a", "b"], Some(2), Some(3)), page(&["b"], None, Some(3))]),
            ("a total that moves", vec![page(&["a", "b"], Some(2), Some(4)), page(&["c"], None, Some(3))]),
            ("an entry is missing", vec![page(&["a", "b"], Some(2), Some(4)), page(&["d"], None, Some(4))]),
            ("one page of more", vec![page(&["a"], None, Some(2))]),
            ("a page that follows itself", vec![page(&["a"], Some(2), None), page(&["b"], Some(2), None)]),
        ] {
            let (read, _) = read([broken, whole()].concat());
            assert_eq!(read, Ok(rows(&["a", "b", "c"])), "{what}");
        }
    }

    #[test]
    fn a_list_without_an_end_is_given_up() {
        let mut number = 0;
        let endless: Result<Vec<Row>, CallError> = read_list(|_| {
            number += 1;
            Ok(page(&[&number.to_string()], Some(number + 1), None))
        });
        let Err(CallError::Rejected { message, .. }) = endless else { panic!("{endless:?}") };
        assert!(message.contains("doesn't end: more than 20,000 pages"), "{message}");
        assert_eq!(number as usize, MAX_PAGES + 1);
        let mut pages = Pages::default();
        assert_eq!(pages.add(rows_of(MAX_ENTRIES + 1).into()), Err(Unsteady::Endless));
        let cursor = Page::Cursor("x".repeat(MAX_CURSOR + 1));
        let long = ListPage { entries: rows_of(1), next: Some(cursor), total: None };
        assert_eq!(Pages::default().add(long), Err(Unsteady::Endless));
    }

    fn rows_of(count: usize) -> Vec<Row> {
        (0..count).map(|number| (String::new(), number.to_string())).collect()
    }

    #[test]
    fn a_list_that_never_holds_still_is_an_error() {
        let (read, requested) = read((0..READINGS).map(|_| page(&["a"], None, Some(2))).collect());
        assert_eq!(requested.len(), READINGS as usize);
        let Err(CallError::Rejected { message, .. }) = read else { panic!("{read:?}") };
        assert!(message.contains("inconsistent"), "{message}");
    }
}
