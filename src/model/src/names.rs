//! The rules for names that the platform gives: workers, host names, routes, origins, crons. Pure text.

use std::borrow::Cow;

use crate::diagnostic::did_you_mean;
use crate::limits;

/// Cloudflare's own domains: workers have names there already, and none is a customer's zone.
const PLATFORM: [&str; 2] = ["workers.dev", "pages.dev"];

/// The error in a name, and what to write instead.
pub type Wrong = (String, String);

/// Checks a worker's name: lower-case letters, digits, underscores and hyphens, at most 63.
/// Source: Cloudflare's API pattern for script names, `^[a-z0-9_][a-z0-9-_]*$`, and DNS, as the name becomes a label on workers.dev.
pub fn worker(name: &str) -> Result<(), Wrong> {
    let length = name.len();
    if length > limits::WORKER_NAME_LENGTH {
        return Err((
            format!(
                "the worker name `{name}` has {length} characters; at most {} are allowed",
                limits::WORKER_NAME_LENGTH
            ),
            "shorten the customer's id or `workerName` in fleet.yaml".to_owned(),
        ));
    }
    // What a host name can't have, but wrangler's names and certificates of workers.dev can.
    label(&name.replace('_', "0")).map_err(|wrong| {
        (
            format!("the worker name `{name}` {wrong}"),
            "use lower-case letters, digits, underscores and hyphens, without a hyphen at either end".to_owned(),
        )
    })
}

/// Returns a pattern for workers' names.
pub fn pattern(pattern: &str, of_customers: bool) -> Result<(), Wrong> {
    const KNOWN: [&str; 5] = ["customer", "role", "pack-prefix", "fleet", "environment"];
    let mut rest = pattern;
    while let Some(at) = rest.find('{') {
        let Some(end) = rest[at..].find('}') else {
            return Err((format!("`{pattern}` has a `{{` that isn't closed"), "write {customer}".to_owned()));
        };
        let name = &rest[at + 1..at + end];
        if !KNOWN.contains(&name) {
            let help = match did_you_mean(name, KNOWN) {
                Some(near) => format!("did you mean {{{near}}}?"),
                None => "known: {customer}, {role}, {pack-prefix}, {fleet}, {environment}".to_owned(),
            };
            return Err((format!("`{pattern}` has the unknown placeholder {{{name}}}"), help));
        }
        rest = &rest[at + end + 1..];
    }
    if of_customers && !pattern.contains("{customer}") {
        let message = format!("`{pattern}` gives all customers the same worker");
        return Err((message, "add {customer} to it".to_owned()));
    }
    Ok(())
}

/// Returns the name of a secret that one customer alone has: `CAFE_CENTRAL__TURSO_AUTH_TOKEN`.
pub fn own_secret(customer: &str, name: &str) -> String {
    // A plan makes one for each secret of the fleet.
    let mut own = String::with_capacity(customer.len() + 2 + name.len());
    own.extend(customer.trim_start_matches('_').chars().map(|c| if c == '-' { '_' } else { c.to_ascii_uppercase() }));
    own.push_str("__");
    own.push_str(name);
    own
}

/// Returns the name of a secret without the prefix of a customer, if it has it.
pub fn without_own<'a>(customer: &str, name: &'a str) -> &'a str {
    name.strip_prefix(own_secret(customer, "").as_str()).filter(|rest| !rest.is_empty()).unwrap_or(name)
}

/// Returns each beginning of a secret's name that may be a customer's prefix: all that end with two underscores.
pub fn owners(name: &str) -> impl Iterator<Item = &str> {
    (3..name.len()).map(|end| &name[..end]).filter(|start| start.ends_with("__"))
}

/// Returns the zone that a host name belongs to, as far as its name shows: the part that can be registered. Source:
/// the Public Suffix List; a zone further down, as enterprise customers can have, isn't known from here.
pub fn zone_of(host: &str) -> &str {
    let host = host.trim_start_matches("*.");
    psl::domain_str(host).unwrap_or(host)
}

/// Returns a host name in the form in which it is compared: in lower case and ASCII, without the dot at its end.
pub fn same_host(host: &str) -> Cow<'_, str> {
    let host = host.strip_suffix('.').unwrap_or(host);
    if host.bytes().all(|b| b.is_ascii() && !b.is_ascii_uppercase()) {
        return Cow::Borrowed(host);
    }
    idna::domain_to_ascii(host).map_or_else(|_| Cow::Owned(host.to_lowercase()), Cow::Owned)
}

/// Returns a host name, or the pattern of a route, with its host in ASCII.
pub fn ascii_pattern(pattern: &str) -> Cow<'_, str> {
    let (host, path) = pattern.split_at(pattern.find('/').unwrap_or(pattern.len()));
    if host.is_ascii() {
        return Cow::Borrowed(pattern);
    }
    let bare = host.trim_start_matches('*');
    let name = bare.strip_prefix('.').unwrap_or(bare);
    Cow::Owned(format!("{}{}{path}", &host[..host.len() - name.len()], same_host(name)))
}

/// Returns a host name as people write it: in Unicode.
pub fn in_unicode(host: &str) -> Cow<'_, str> {
    if !host.contains("xn--") {
        return Cow::Borrowed(host);
    }
    match idna::domain_to_unicode(host) {
        (unicode, Ok(())) => Cow::Owned(unicode),
        (_, Err(_)) => Cow::Borrowed(host),
    }
}

/// Cloudflare's own domain that a host is in.
fn platforms(host: &str) -> Option<&'static str> {
    PLATFORM.into_iter().find(|own| host.strip_suffix(own).is_some_and(|rest| rest.is_empty() || rest.ends_with('.')))
}

/// The longest id of a customer.
pub const ID_LENGTH: usize = 50;

/// Returns the customer id that is nearest to a text which isn't one: `cust-abc123` for `cust_abc123`. None: the text has no letter and no digit.
pub fn nearest_id(text: &str) -> Option<String> {
    let mut id = String::new();
    for c in text.to_lowercase().chars() {
        let c = if c.is_ascii_alphanumeric() { c } else { '-' };
        if id.len() < ID_LENGTH && !(c == '-' && (id.is_empty() || id.ends_with('-'))) {
            id.push(c);
        }
    }
    let id = id.trim_end_matches('-');
    (!id.is_empty()).then(|| id.to_owned())
}

/// Checks one part of a host name.
pub fn label(label: &str) -> Result<(), String> {
    if label.is_empty() {
        return Err("has an empty part".to_owned());
    }
    if label.len() > limits::LABEL_LENGTH {
        return Err(format!("has a part of more than {} characters", limits::LABEL_LENGTH));
    }
    if label.bytes().any(|b| b.is_ascii_uppercase()) {
        return Err("contains upper-case letters".to_owned());
    }
    if let Some(c) = label.chars().find(|c| !matches!(c, 'a'..='z' | '0'..='9' | '-')) {
        return Err(format!("has {c:?} in it"));
    }
    if label.starts_with('-') || label.ends_with('-') {
        return Err("begins or ends a part with a hyphen".to_owned());
    }
    Ok(())
}

/// Returns a host name with at least two labels, in lower case.
fn host(host: &str) -> Result<(), String> {
    if host.len() > limits::HOST_LENGTH {
        return Err(format!("is longer than {} characters", limits::HOST_LENGTH));
    }
    if host.ends_with('.') && host.len() > 1 {
        return Err("has a dot at its end".to_owned());
    }
    if !host.contains('.') {
        return Err("has no dot".to_owned());
    }
    host.split('.').try_for_each(label)?;
    if host.contains("xn--") && idna::domain_to_unicode(host).1.is_err() {
        return Err("has a part that begins with `xn--` and isn't the ASCII form of another".to_owned());
    }
    Ok(())
}

/// Returns a custom domain: a bare host name. Cloudflare accepts neither wildcards nor paths there. Source: wrangler's own check, "Wildcard
/// operators (*) are not allowed in Custom Domains".
pub fn domain(domain: &str) -> Result<(), Wrong> {
    let bare = domain.strip_prefix("https://").or_else(|| domain.strip_prefix("http://")).unwrap_or(domain);
    let (name, path) = bare.split_once('/').map_or((bare, None), |(name, path)| (name, Some(path)));
    let lower = same_host(name);
    let zone = zone_of(&lower);
    if lower.contains('*') {
        return Err((
            format!("`{domain}` has a wildcard, which custom domains don't support"),
            format!(
                "write it under `routes`: `{{ pattern: \"{lower}/*\", zone: {zone} }}`, with a proxied DNS record of that name"
            ),
        ));
    }
    if path.is_some() || bare != domain {
        let help = if host(&lower).is_ok() {
            match path {
                Some(path) if !path.is_empty() && path != "*" => format!(
                    "write `{lower}` for the whole host, or a route for the path: `routes: [{{ pattern: \"{lower}/{path}\", zone: {zone} }}]`"
                ),
                _ => format!("write `{lower}`: a custom domain covers the whole host with all paths"),
            }
        } else {
            "a custom domain is a bare host name: shop.example.com".to_owned()
        };
        return Err((format!("`{domain}` is more than a host name"), help));
    }
    host(domain).map_err(|wrong| {
        let help = if host(&lower).is_ok() {
            format!("write `{lower}`")
        } else {
            "a custom domain is a bare host name: shop.example.com".to_owned()
        };
        (format!("`{domain}` {wrong}"), help)
    })?;
    match platforms(domain) {
        None => Ok(()),
        Some(own) => Err((
            format!("`{domain}` can't be a custom domain: {own} belongs to Cloudflare"),
            match own {
                "workers.dev" => {
                    "a worker is reachable at <worker>.<subdomain>.workers.dev anyway, unless `workersDev: false`"
                        .to_owned()
                }
                _ => "write a host name in one of your zones".to_owned(),
            },
        )),
    }
}

/// Returns a zone's name.
pub fn zone(zone: &str) -> Result<(), Wrong> {
    let help = || "a zone is a domain such as example.com".to_owned();
    host(zone).map_err(|wrong| {
        let same = same_host(zone);
        let help = if same != zone && host(&same).is_ok() { format!("write `{same}`") } else { help() };
        (format!("the zone `{zone}` {wrong}"), help)
    })?;
    match platforms(zone) {
        None => Ok(()),
        Some(own) => Err((format!("`{zone}` can't be your zone: {own} belongs to Cloudflare"), help())),
    }
}

/// Returns a route pattern in a zone.
/// Source: Cloudflare docs, Workers › Configuration › Routes › Matching behaviour.
pub fn route(pattern: &str, zone: &str) -> Result<(), Wrong> {
    let help = "a pattern is a host and a path, with `*` only at their beginning and end: shop.example.com/consent/*";
    let wrong = |what: String| Err((what, help.to_owned()));
    if pattern.contains("://") {
        return wrong(format!("the route `{pattern}` has a scheme"));
    }
    if pattern.contains(['?', '#', ' ']) || pattern.chars().any(char::is_control) {
        return wrong(format!("the route {pattern:?} has a query, a fragment or white space"));
    }
    let (name, path) = pattern.split_once('/').map_or((pattern, ""), |(name, path)| (name, path));
    let bare = name.strip_prefix("*.").or_else(|| name.strip_prefix('*')).unwrap_or(name);
    if let Err(what) = host(bare) {
        if name == "*" {
            let help = format!("write `*{zone}/{path}` for all hosts of the zone");
            return Err((format!("the route `{pattern}` names no host"), help));
        }
        let same = same_host(bare);
        let help = match same != bare && host(&same).is_ok() {
            true => format!("write `{}`", pattern.replacen(bare, &same, 1)),
            false => help.to_owned(),
        };
        return Err((format!("the route `{pattern}` {what}"), help));
    }
    if path.strip_suffix('*').unwrap_or(path).contains('*') {
        return wrong(format!("the route `{pattern}` has a wildcard in the middle"));
    }
    if bare != zone && !bare.ends_with(&format!(".{zone}")) {
        return Err((
            format!("the route `{pattern}` is not in the zone `{zone}`"),
            format!("is the zone `{}`?", zone_of(bare)),
        ));
    }
    Ok(())
}

/// Returns an origin as browsers send it: scheme, host, port if it isn't the usual one.
pub fn origin(origin: &str) -> Result<(), Wrong> {
    let help = "an origin is a scheme and a host, as browsers send it: https://shop.example.com".to_owned();
    let Some((scheme, rest)) = origin.split_once("://") else {
        if origin.contains('*') {
            return Err((
                format!("the origin `{origin}` has a wildcard"),
                "list each origin that may call the worker: wildcards are not supported".to_owned(),
            ));
        }
        let with = format!("https://{origin}");
        let help = if self::origin(&with).is_ok() { format!("write {with}") } else { help };
        return Err((format!("the origin `{origin}` has no scheme"), help));
    };
    if scheme != "https" && scheme != "http" {
        return Err((format!("the origin `{origin}` is neither http nor https"), help));
    }
    if let Some((before, _)) = rest.split_once(['/', '?', '#']) {
        return Err((
            format!("the origin `{origin}` is more than a scheme and a host"),
            format!("write {scheme}://{before}"),
        ));
    }
    let (name, port) = rest.rsplit_once(':').map_or((rest, None), |(name, port)| (name, Some(port)));
    if port.is_some_and(|port| port.parse::<u16>().is_err()) {
        return Err((format!("the origin `{origin}` has no valid port"), help));
    }
    match name.split('.').try_for_each(label) {
        Ok(()) => Ok(()),
        Err(wrong) => Err((format!("the origin `{origin}` {wrong}"), help)),
    }
}

/// Returns a cron expression of five fields. Source: Cloudflare docs, Workers › Configuration › Cron Triggers.
pub fn cron(cron: &str) -> Result<(), Wrong> {
    const FIELDS: [(&str, u32, u32, &[&str]); 5] = [
        ("minute", 0, 59, &[]),
        ("hour", 0, 23, &[]),
        ("day of the month", 1, 31, &["L", "W", "LW"]),
        ("month", 1, 12, &["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"]),
        ("day of the week", 1, 7, &["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"]),
    ];
    let help = "five fields in UTC: minute, hour, day of the month, month, day of the week (1 to 7, Sunday first): `*/15 * * * *`";
    let fields: Vec<&str> = cron.split(' ').collect();
    if fields.len() != 5 {
        let number = if fields.len() == 1 { "1 field".to_owned() } else { format!("{} fields", fields.len()) };
        return Err((format!("the cron {cron:?} has {number} instead of five"), help.to_owned()));
    }
    for (field, (name, min, max, words)) in fields.iter().zip(FIELDS) {
        let valid = |part: &str| {
            let upper = part.to_uppercase();
            part.parse::<u32>().is_ok_and(|n| (min..=max).contains(&n))
                || words.contains(&upper.as_str())
                // The last Friday, the second Friday, the weekday nearest to the fifteenth.
                || (name.starts_with("day") && {
                    let day = upper.trim_end_matches(['L', 'W']);
                    let (day, nth) = day.split_once('#').unwrap_or((day, "1"));
                    day.len() < upper.len()
                        && (day.parse::<u32>().is_ok_and(|n| (min..=max).contains(&n)) || words.contains(&day))
                        && nth.parse::<u32>().is_ok_and(|n| (1..=5).contains(&n))
                })
        };
        let ok = field.split(',').all(|item| {
            let (range, step) = item.split_once('/').map_or((item, None), |(range, step)| (range, Some(step)));
            let range = match range.split_once('-') {
                Some((from, to)) => valid(from) && valid(to),
                None => range == "*" || valid(range),
            };
            range && step.is_none_or(|step| step.parse::<u32>().is_ok_and(|step| step > 0 && step <= max))
        });
        if !ok {
            return Err((format!("the {name} of the cron {cron:?} can't be {field:?}"), help.to_owned()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_id_is_one() {
        for (text, id) in [
            ("cust_abc123", Some("cust-abc123")),
            ("Acme Ltd.", Some("acme-ltd")),
            ("__a__B__", Some("a-b")),
            ("../../etc/passwd", Some("etc-passwd")),
            ("é", None),
            ("_", None),
            ("", None),
        ] {
            assert_eq!(nearest_id(text).as_deref(), id, "{text:?}");
        }
        let long = nearest_id(&"ab_".repeat(40)).unwrap();
        assert!(long.len() <= ID_LENGTH && label(&long).is_ok(), "{long}");
    }

    #[test]
    fn domains() {
        for good in ["shop.example.com", "a.co", "xn--bcher-kva.example", "myworkers.dev", "workers.dev.example"] {
            assert_eq!(domain(good), Ok(()), "{good}");
        }
        for (bad, help) in [
            ("shop.example.com/*", "write `shop.example.com`: a custom domain covers the whole host"),
            ("https://shop.example.com", "write `shop.example.com`"),
            ("shop.example.com/consent", "`routes: [{ pattern: \"shop.example.com/consent\", zone: example.com }]`"),
            ("*.example.com", "pattern: \"*.example.com/*\", zone: example.com"),
            ("Shop.Example.com", "write `shop.example.com`"),
            ("localhost", "a bare host name"),
            ("a..example.com", "a bare host name"),
            ("-a.example.com", "a bare host name"),
            ("a b.example.com", "a bare host name"),
            ("shop.example.com.", "write `shop.example.com`"),
            ("bücher.example", "write `xn--bcher-kva.example`"),
            ("BÜCHER.example.", "write `xn--bcher-kva.example`"),
            ("https://bücher.example/*", "write `xn--bcher-kva.example`: a custom domain covers the whole host"),
            ("xn--a.example", "a bare host name"),
            ("acme.workers.dev", "unless `workersDev: false`"),
            ("pages.dev", "in one of your zones"),
        ] {
            let (message, given) = domain(bad).expect_err(bad);
            assert!(given.contains(help), "{bad}: {message}; {given}");
        }
    }

    #[test]
    fn routes_origins_and_crons() {
        assert_eq!(route("shop.example.com/consent/*", "example.com"), Ok(()));
        for good in ["*.example.com/*", "*example.com/*"] {
            assert_eq!(route(good, "example.com"), Ok(()), "{good}");
        }
        assert_eq!(route("*/a*", "example.com").unwrap_err().1, "write `*example.com/a*` for all hosts of the zone");
        let (_, help) = route("*.Bücher.example/a*", "xn--bcher-kva.example").unwrap_err();
        assert_eq!(help, "write `*.xn--bcher-kva.example/a*`");
        assert!(zone("workers.dev").is_err() && zone("acme.pages.dev").is_err());
        assert_eq!(zone("Shop.example").unwrap_err().1, "write `shop.example`");
        for bad in ["https://example.com/*", "other.org/*", "a.example.com/x*y", "notexample.com/*", "example.com/a?b"]
        {
            assert!(route(bad, "example.com").is_err(), "{bad}");
        }
        assert_eq!(origin("https://acme.example"), Ok(()));
        assert_eq!(origin("http://localhost:3000"), Ok(()));
        for bad in ["acme.example", "https://acme.example/", "ftp://a.example", "https://a.example:x", "https://", "*"]
        {
            assert!(origin(bad).is_err(), "{bad}");
        }
        for good in ["*/15 * * * *", "0 0 1,15 * MON-FRI", "59 23 L 12 7", "0 9 * * 2#1", "0 12 15W * *"] {
            assert_eq!(cron(good), Ok(()), "{good}");
        }
        for bad in ["* * * *", "60 * * * *", "* 24 * * *", "*/0 * * * *", "a b c d e", "0 0 * * 8", "* * * * * *"] {
            assert!(cron(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn hosts_that_are_the_same_and_their_zones() {
        for (host, same) in [
            ("a.example", "a.example"),
            ("A.example.", "a.example"),
            ("bücher.example", "xn--bcher-kva.example"),
            ("*.A.example", "*.a.example"),
        ] {
            assert_eq!(same_host(host), same);
        }
        for (host, zone) in
            [("a.b.example", "b.example"), ("a.b.co.uk", "b.co.uk"), ("*.b.example", "b.example"), ("co.uk", "co.uk")]
        {
            assert_eq!(zone_of(host), zone);
        }
    }

    #[test]
    fn names_in_unicode_and_ascii() {
        for (unicode, ascii) in [
            ("bücher.example/ü*", "xn--bcher-kva.example/ü*"),
            ("*.bücher.example/*", "*.xn--bcher-kva.example/*"),
            ("*bücher.example", "*xn--bcher-kva.example"),
            ("a.example/*", "a.example/*"),
        ] {
            assert_eq!(ascii_pattern(unicode), ascii);
            assert_eq!(ascii_pattern(ascii), ascii);
        }
        assert_eq!(in_unicode("shop.xn--bcher-kva.example"), "shop.bücher.example");
        assert_eq!(in_unicode("xn--a.example"), "xn--a.example");
        assert_eq!(in_unicode("a.example"), "a.example");
    }

    #[test]
    fn whose_secrets_may_be_meant() {
        assert_eq!(own_secret("cafe-central", "T"), "CAFE_CENTRAL__T");
        assert_eq!(owners("A__B__TOK").collect::<Vec<_>>(), ["A__", "A__B__"]);
        // `a---b` has a prefix with underscores of its own.
        assert_eq!(owners("A___B__T").collect::<Vec<_>>(), ["A__", "A___", "A___B__"]);
        assert_eq!(owners("TOKEN").count() + owners("__").count() + owners("A__").count(), 0);
        assert_eq!(without_own("a", "A__T"), "T");
        assert_eq!((without_own("a", "A__"), without_own("a", "AB__T")), ("A__", "AB__T"));
        // No two customers have one prefix.
        let ids = ["a", "a-b", "a--b", "ab", "a-b-", "a---b"];
        let prefixes: std::collections::BTreeSet<_> = ids.iter().map(|id| own_secret(id, "")).collect();
        assert_eq!(prefixes.len(), ids.len());
    }

    #[test]
    fn worker_names() {
        assert_eq!(worker(&"a".repeat(63)), Ok(()));
        assert!(worker(&"a".repeat(64)).is_err());
        assert_eq!((worker("temp_mail"), worker("_a_")), (Ok(()), Ok(())));
        assert!(worker("-a").is_err() && worker("a_-").is_err() && worker("").is_err());
        assert!(worker("a.b").unwrap_err().0.contains("has '.' in it"));
    }
}
