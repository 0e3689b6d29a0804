//! Lists that are too long to be shown: the first entries, and the number of the others. Knows nothing of what is listed.

use crate::limits::grouped;

/// Returns the line in place of entries that are not shown: `… and 1,200 more`.
pub fn and_more(number: usize) -> String {
    format!("… and {} more", grouped(number as u64))
}

/// Returns the first names of a list, and the number of the others: `a, b and 3 more`.
pub fn names<S: AsRef<str>>(names: &[S], limit: usize) -> String {
    let shown: Vec<&str> = names.iter().take(limit).map(AsRef::as_ref).collect();
    let shown = shown.join(", ");
    match names.len().saturating_sub(limit) {
        0 => shown,
        more => format!("{shown} and {} more", grouped(more as u64)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_is_counted() {
        assert_eq!(and_more(1200), "… and 1,200 more");
        assert_eq!(names(&["a", "b"], 2), "a, b");
        assert_eq!(names(&["a", "b", "c"], 1), "a and 2 more");
        assert_eq!(names::<&str>(&[], 1), "");
    }
}
