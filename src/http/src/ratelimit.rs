//! The limits in an answer's headers: `Ratelimit: "default";r=50;t=30` and
//! `Ratelimit-Policy: "burst";q=100;w=60, "default";q=1200;w=300`, lists of structured fields. Anything else is
//! ignored. Source: Cloudflare changelog, 2025-09-03, Rate limiting improvement.

use std::time::Duration;

use reqwest::header::HeaderMap;

/// A limit of requests, or what is left of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// Its name.
    pub name: String,
    /// The number of requests.
    pub requests: u64,
    /// The length of the window, or the time until it is over.
    pub time: Duration,
}

/// The items of a list that have a name, a count and a number of seconds.
pub(crate) fn read(headers: &HeaderMap, header: &str, count: &str, seconds: &str) -> Vec<RateLimit> {
    let values = headers.get_all(header).iter().filter_map(|value| value.to_str().ok());
    let items = values.flat_map(|value| outside_quotes(value, ','));
    items
        .filter_map(|item| {
            let mut parts = outside_quotes(item, ';').into_iter();
            let name = parts.next()?.trim_matches('"').to_owned();
            let parameters: Vec<_> = parts.filter_map(|part| part.split_once('=')).collect();
            let number = |wanted: &str| {
                let (_, value) = parameters.iter().find(|(name, _)| *name == wanted)?;
                value.parse::<u64>().ok()
            };
            Some(RateLimit { name, requests: number(count)?, time: Duration::from_secs(number(seconds)?) })
        })
        .collect()
}

/// The parts between separators that are in no string.
fn outside_quotes(text: &str, separator: char) -> Vec<&str> {
    let (mut quoted, mut escaped) = (false, false);
    text.split(|character| {
        let splits = character == separator && !quoted;
        quoted ^= character == '"' && !escaped;
        escaped = character == '\\' && quoted && !escaped;
        splits
    })
    .map(str::trim)
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(value: &'static str) -> Vec<(String, u64, u64)> {
        let mut headers = HeaderMap::new();
        headers.append("ratelimit", value.parse().unwrap());
        let limits = read(&headers, "ratelimit", "r", "t").into_iter();
        limits.map(|limit| (limit.name, limit.requests, limit.time.as_secs())).collect()
    }

    #[test]
    fn names_can_hold_separators_and_nonsense_is_passed_over() {
        let some = parse(r#""a,b;r=9\"c";r=1;t=2, , "no numbers", "x";r=-1;t=3, "y";r=1, "z";r=5;t=6"#);
        assert_eq!(some, [(r#"a,b;r=9\"c"#.to_owned(), 1, 2), ("z".to_owned(), 5, 6)]);
        for nonsense in
            ["nonsense", "", ",,;;==", "\"never ended;r=1;t=2", "r=1;t=2;\\", "\"a\";r=99999999999999999999;t=1"]
        {
            assert_eq!(parse(nonsense), [], "{nonsense}");
        }
        assert_eq!(read(&HeaderMap::new(), "ratelimit", "r", "t"), []);
    }
}
