//! `run_worker_first` as a list: the paths whose requests reach the worker before the assets, and with `!`, those that don't.

/// The most rules, and the most characters of one. Source: wrangler.
const MOST_RULES: usize = 100;
const LONGEST_RULE: usize = 100;

/// Returns the errors in the rules, each with the index of its rule; that of the list as a whole has none.
pub fn faults(rules: &[String]) -> Vec<(Option<usize>, String)> {
    if rules.is_empty() {
        return vec![(None, "it has no rule".to_owned())];
    }
    if rules.len() > MOST_RULES {
        return vec![(None, format!("it has {} rules, more than {MOST_RULES}", rules.len()))];
    }
    let mut faults = Vec::new();
    for (index, rule) in rules.iter().enumerate() {
        let path = rule.strip_prefix('!').unwrap_or(rule);
        let is_negative = path.len() < rule.len();
        if !path.starts_with('/') {
            faults.push((Some(index), format!("`{rule}` doesn't begin with `/` or `!/`")));
            continue;
        }
        if rule.encode_utf16().count() > LONGEST_RULE {
            faults.push((Some(index), format!("`{rule}` is longer than {LONGEST_RULE} characters")));
        }
        let of_kind = || rules.iter().enumerate().filter(|(_, other)| other.starts_with('!') == is_negative);
        if of_kind().take_while(|(at, _)| *at < index).any(|(_, other)| other == rule) {
            faults.push((Some(index), format!("`{rule}` is there twice")));
            continue;
        }
        let covers =
            |other: &String| other != rule && other.strip_suffix('*').is_some_and(|start| rule.starts_with(start));
        if let Some((_, other)) = of_kind().find(|(_, other)| covers(other)) {
            faults.push((Some(index), format!("`{rule}` has no effect beside `{other}`")));
        }
    }
    if faults.is_empty() && rules.iter().all(|rule| rule.starts_with('!')) {
        faults.push((
            None,
            "all of its rules begin with `!`: one has to name paths that reach the worker first".to_owned(),
        ));
    }
    faults
}

/// Returns the paths that reach the assets, and those that reach the worker first.
pub fn split(rules: &[String]) -> (Vec<&str>, Vec<&str>) {
    let assets = rules.iter().filter_map(|rule| rule.strip_prefix('!')).collect();
    let worker = rules.iter().filter(|rule| !rule.starts_with('!')).map(String::as_str).collect();
    (assets, worker)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_checked_as_wrangler_checks_them() {
        let faulty = |rules: &[&str]| -> Vec<Option<usize>> {
            faults(&rules.iter().map(|rule| (*rule).to_owned()).collect::<Vec<_>>())
                .into_iter()
                .map(|(at, _)| at)
                .collect()
        };
        assert_eq!(faulty(&["/api/*", "!/api/docs/*"]), []);
        assert_eq!(faulty(&[]), [None]);
        assert_eq!(faulty(&["!/a"]), [None]);
        assert_eq!(faulty(&["api", "!api", "/b"]), [Some(0), Some(1)]);
        assert_eq!(faulty(&["/a/*", "/a/b", "/c", "/c"]), [Some(1), Some(3)]);
        assert_eq!(faulty(&["/a", &format!("/{}", "x".repeat(100))]), [Some(1)]);
        assert_eq!(faulty(&vec!["/a"; 101]), [None]);
        let rules = ["/a".to_owned(), "!/b".to_owned()];
        assert_eq!(split(&rules), (vec!["/b"], vec!["/a"]));
    }
}
