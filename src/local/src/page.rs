//! The HTML of the index page. Everything that is a worker's or a visitor's is escaped. Knows how things look; not where they come from.

use std::fmt::Write as _;
use std::sync::Arc;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use super::activity::{Seen, Summary, Trace};
use super::call::decode;
use super::directory::Entry;
use super::store::Key;

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");
/// The text in place of what workers do, for those who don't have the key.
const CLOSED: &str = "<div class=bar><h2>Requests and logs</h2></div>\n<p class=empty>To see health, bindings, requests and logs, open the \
                      address that <code>flotilla dev</code> or <code>flotilla local</code> prints.</p>\n";
/// The bindings of a worker that are shown.
const BINDINGS: usize = 12;
/// The console lines of an event that are shown, and the characters of one.
const LINES: usize = 50;
const LONGEST: usize = 4000;

/// The contents of the page.
pub struct View {
    /// The workers on this page of the list.
    pub rows: Vec<Row>,
    /// The number of all workers.
    pub workers: usize,
    /// The number of their groups.
    pub groups: usize,
    /// The number of workers that the filter lets through.
    pub found: usize,
    /// The filter.
    pub filter: String,
    /// The page of the list, from 1.
    pub page: usize,
    /// The number of pages.
    pub pages: usize,
    /// The word in the page's address; none: only the list of workers is shown.
    pub key: Option<String>,
    /// The worker whose events are shown; none: all.
    pub worker: Option<Key>,
    /// The events, the newest first.
    pub events: Vec<Arc<Trace>>,
}

/// A worker on the page.
pub struct Row {
    /// The worker.
    pub entry: Entry,
    /// The address at which it answers.
    pub url: String,
    /// The names and kinds of its bindings.
    pub bindings: Vec<(String, String)>,
    /// Its custom domains and routes.
    pub hosts: Vec<String>,
    /// Its state.
    pub summary: Summary,
}

/// A worker as an address names it.
#[must_use]
pub fn key_text(key: &Key) -> String {
    let part = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    [&key.account, &key.namespace, &key.name].map(|text| part(text)).join("/")
}

/// The worker that an address names.
#[must_use]
pub fn key_of(text: &str) -> Option<Key> {
    let parts: Vec<String> = text.split('/').map(decode).collect();
    match parts.as_slice() {
        [account, namespace, name] if !name.is_empty() => Some(Key::new(account, namespace, name)),
        _ => None,
    }
}

/// Text within HTML, in an attribute as well. What can't be seen or turns the direction of text is shown as a mark.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            '\n' | '\t' => escaped.push(letter),
            letter if letter.is_control() => escaped.push('\u{fffd}'),
            '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}' => {
                escaped.push('\u{fffd}')
            }
            letter => escaped.push(letter),
        }
    }
    escaped
}

fn count(number: usize, noun: &str) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    format!("{grouped} {noun}{}", if number == 1 { "" } else { "s" })
}

/// The whole page. `key` is the word by which its script is known.
#[must_use]
pub fn whole(view: &View, nonce: &str, key: &str, number: u64, generation: u64) -> String {
    let filter = escape(&view.filter);
    let worker = view.worker.as_ref().map(|worker| {
        let (name, text) = (escape(&worker.name), escape(&key_text(worker)));
        let hidden = format!("<input type=hidden name=worker value=\"{text}\">");
        let all = address(view, &view.filter, view.page, None);
        (hidden, format!("<p class=only>of <b>{name}</b> <a href=\"{all}\">show all</a></p>"))
    });
    let (mut hidden, only) = worker.unwrap_or_default();
    if let Some(own) = view.key.as_ref().filter(|own| !own.is_empty()) {
        let _ = write!(hidden, "<input type=hidden name=key value=\"{}\">", escape(own));
    }
    let (data, activity, script) = match view.key {
        None => (String::new(), CLOSED.to_owned(), String::new()),
        Some(_) => (
            format!(" data-key=\"{key}\" data-number=\"{number}\" data-generation=\"{generation}\""),
            format!(
                "<div class=bar>\n<h2>Requests and logs</h2>{only}\n\
                 <div class=tools hidden><label><input type=checkbox id=errors> Errors only</label> \
                 <button id=pause type=button aria-pressed=false>Pause</button> <button id=clear type=button>Clear</button></div>\n</div>\n\
                 <ol id=events>{}</ol>\n<p class=empty id=quiet>No requests yet. Open a worker, or send one with <code>curl</code>.</p>\n",
                events(view)
            ),
            format!("<script nonce=\"{nonce}\">{SCRIPT}</script>\n"),
        ),
    };
    format!(
        "<!DOCTYPE html>\n<html lang=en>\n<head>\n<meta charset=utf-8>\n\
         <meta name=viewport content=\"width=device-width, initial-scale=1\">\n<meta name=color-scheme content=\"light dark\">\n\
         <title>Local Cloudflare</title>\n<link rel=icon href=\"data:,\">\n<style nonce=\"{nonce}\">{STYLE}</style>\n</head>\n\
         <body{data}>\n<header class=top>\n<h1>Local Cloudflare</h1>\n<p id=state role=status></p>\
         <a class=jump href=\"#activity\">Requests and logs</a>\n\
         <form role=search action=\"/\"><input type=search name=q value=\"{filter}\" placeholder=\"Filter by worker or customer\" \
         aria-label=\"Filter by worker or customer\" autocomplete=off>{hidden}<button>Filter</button></form>\n</header>\n\
         <main>\n<section id=workers aria-label=Workers>{}</section>\n\
         <section id=activity aria-label=\"Requests and logs\">\n{activity}</section>\n</main>\n{script}</body>\n</html>\n",
        workers(view),
    )
}

/// The address of the page with other contents.
fn address(view: &View, filter: &str, page: usize, worker: Option<&Key>) -> String {
    let part = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let mut words = Vec::new();
    if !filter.is_empty() {
        words.push(format!("q={}", part(filter)));
    }
    if page > 1 {
        words.push(format!("page={page}"));
    }
    if let Some(key) = view.key.as_ref().filter(|key| !key.is_empty()) {
        words.push(format!("key={}", part(key)));
    }
    words.extend(worker.map(|worker| format!("worker={}", part(&key_text(worker)))));
    if words.is_empty() { "/".to_owned() } else { format!("/?{}", words.join("&amp;")) }
}

/// The list of workers.
#[must_use]
pub fn workers(view: &View) -> String {
    let mut html = String::new();
    if view.workers == 0 {
        return "<div class=welcome><p>No worker is deployed here.</p><p><code>flotilla dev</code> deploys the fleet and keeps it \
                current; <code>flotilla deploy --local</code> deploys it once.</p></div>"
            .to_owned();
    }
    let of = if view.groups > 0 {
        format!("{} of {}", count(view.workers, "worker"), count(view.groups, "customer"))
    } else {
        count(view.workers, "worker")
    };
    let filtered = match view.filter.as_str() {
        "" => String::new(),
        filter => format!(
            " · {} match <b>{}</b> <a href=\"{}\">show all</a>",
            view.found,
            escape(filter),
            address(view, "", 1, view.worker.as_ref())
        ),
    };
    let _ = write!(html, "<p class=count>{of}{filtered}</p>");
    let mut rows = view.rows.iter().peekable();
    while let Some(first) = rows.peek() {
        let group = first.entry.group.clone();
        let title = if group.is_empty() { "Other workers".to_owned() } else { escape(&group) };
        let _ = write!(html, "<div class=group><h2>{title}</h2><ul>");
        while let Some(row) = rows.next_if(|row| row.entry.group == group) {
            html += &worker(view, row);
        }
        html += "</ul></div>";
    }
    if view.pages > 1 {
        let link = |page: usize, text: &str, there: bool| match there {
            true => format!("<a href=\"{}\">{text}</a>", address(view, &view.filter, page, view.worker.as_ref())),
            false => format!("<span>{text}</span>"),
        };
        let (before, after) = (view.page > 1, view.page < view.pages);
        let _ = write!(
            html,
            "<nav class=pages aria-label=Pages>{} <span>page {} of {}</span> {}</nav>",
            link(view.page.saturating_sub(1), "← previous", before),
            view.page,
            view.pages,
            link(view.page + 1, "next →", after)
        );
    }
    html
}

fn worker(view: &View, row: &Row) -> String {
    let Row { entry, url, bindings, hosts, summary } = row;
    let (mark, health) = health(summary);
    let name = escape(&entry.key.name);
    let key = escape(&key_text(&entry.key));
    let namespace = match entry.key.namespace.as_str() {
        "" => String::new(),
        namespace => format!(" <span class=tag>{}</span>", escape(namespace)),
    };
    let modified = escape(&entry.modified);
    let requests = match (summary.requests, summary.errors) {
        (0, _) => "no requests".to_owned(),
        (all, 0) => count(usize::try_from(all).unwrap_or(usize::MAX), "request"),
        (all, errors) => format!(
            "{}, <b class=bad>{errors} failed</b>",
            count(usize::try_from(all).unwrap_or(usize::MAX), "request")
        ),
    };
    if view.key.is_none() {
        return format!(
            "<li class=worker><span class=dot></span><div class=name><a href=\"{}\" rel=noreferrer target=_blank>{name}</a>{namespace}</div>\
             <div class=when>deployed {}</div></li>",
            escape(url),
            modified.get(..19).unwrap_or(&modified).replace('T', " "),
        );
    }
    let mut html = format!(
        "<li class=worker><span class=\"dot {mark}\"></span><div class=name><a href=\"{url}\" rel=noreferrer target=_blank>{name}</a>{namespace}</div>\
         <div class=health title=\"{}\">{health}</div><div class=when>deployed <time datetime=\"{modified}\">{}</time></div>\
         <div class=requests>{requests}</div>\
         <div class=actions><button type=button class=check data-worker=\"{key}\" hidden>Check</button> <a href=\"{}\"{}>Logs</a></div>",
        escape(&summary_title(summary)),
        modified.get(..19).unwrap_or(&modified).replace('T', " "),
        address(view, &view.filter, view.page, Some(&entry.key)),
        if view.worker.as_ref() == Some(&entry.key) { " aria-current=true" } else { "" },
        url = escape(url),
    );
    if !hosts.is_empty() || !bindings.is_empty() {
        html += "<div class=chips>";
        for host in hosts {
            let _ = write!(html, "<span class=\"chip host\">{}</span>", escape(host));
        }
        // Variables come last: there are the most of them, and they say least.
        let (vars, others): (Vec<_>, Vec<_>) =
            bindings.iter().partition(|(_, kind)| matches!(kind.as_str(), "plain_text" | "json" | "version_metadata"));
        for (name, kind) in others.into_iter().chain(vars).take(BINDINGS) {
            let _ = write!(
                html,
                "<span class=chip title=\"{kind}\"><i>{}</i> {}</span>",
                kind_name(kind),
                escape(name),
                kind = escape(kind)
            );
        }
        if bindings.len() > BINDINGS {
            let _ = write!(html, "<span class=chip>and {} more</span>", bindings.len() - BINDINGS);
        }
        html += "</div>";
    }
    html + "</li>"
}

/// The kind of a binding, short.
fn kind_name(kind: &str) -> String {
    match kind {
        "plain_text" | "json" => "var",
        "secret_text" | "secret_key" => "secret",
        "kv_namespace" => "KV",
        "r2_bucket" => "R2",
        "d1" => "D1",
        "durable_object_namespace" => "DO",
        "dispatch_namespace" => "dispatch",
        "version_metadata" => "version",
        "analytics_engine" => "analytics",
        other => return escape(&other.replace('_', " ")),
    }
    .to_owned()
}

/// The color and the words for a worker's health.
fn health(summary: &Summary) -> (&'static str, String) {
    let words = |seen: &Seen| match (seen.outcome.as_str(), seen.status) {
        ("ok", Some(status)) => status.to_string(),
        (outcome, _) => escape(outcome),
    };
    match (&summary.health, &summary.last) {
        // Newer than the last check.
        (_, Some(last)) if last.outcome != "ok" && last.outcome != "canceled" => {
            ("bad", format!("failing: {}", words(last)))
        }
        (Some(seen), _) if seen.failed() => ("bad", format!("unhealthy: {}", words(seen))),
        (Some(seen), _) if seen.status == Some(200) => ("good", "healthy".to_owned()),
        (_, Some(last)) if last.failed() => ("bad", format!("failing: {}", words(last))),
        (_, Some(_)) => ("good", "responding".to_owned()),
        _ => ("none", "not requested yet".to_owned()),
    }
}

fn summary_title(summary: &Summary) -> String {
    match &summary.health {
        Some(seen) => format!(
            "the last health check: {} {}",
            seen.outcome,
            seen.status.map(|status| status.to_string()).unwrap_or_default()
        ),
        None => "no health check since the start".to_owned(),
    }
}

/// The events, the newest first.
#[must_use]
pub fn events(view: &View) -> String {
    view.events.iter().map(|trace| event(trace)).collect()
}

fn event(trace: &Trace) -> String {
    let event: Value = serde_json::from_str(&trace.json).unwrap_or_default();
    let text = |value: &Value| escape(value.as_str().unwrap_or_default());
    let about = &event["event"];
    let outcome = event["outcome"].as_str().unwrap_or("unknown");
    let status = about["response"]["status"].as_u64();
    let failed = (outcome != "ok" && outcome != "canceled") || status.is_some_and(|status| status >= 500);
    let has_error = failed
        || event["exceptions"].as_array().is_some_and(|list| !list.is_empty())
        || event["logs"].as_array().is_some_and(|logs| logs.iter().any(|log| log["level"] == "error"));
    let title = match about {
        Value::Null => "<span class=what>loaded</span>".to_owned(),
        about if about["request"].is_object() => {
            let url = about["request"]["url"].as_str().unwrap_or_default();
            let path =
                url.split_once("://").and_then(|(_, rest)| rest.find('/').map(|slash| &rest[slash..])).unwrap_or(url);
            let class = match status {
                Some(500..) => "s5",
                Some(400..) => "s4",
                Some(_) => "s2",
                None => "s5",
            };
            let class = if outcome == "ok" || outcome == "canceled" { class } else { "s5" };
            let shown = match status {
                Some(status) if outcome == "ok" => status.to_string(),
                _ => escape(outcome),
            };
            format!(
                "<span class=\"status {class}\">{shown}</span> <span class=method>{}</span> <span class=path title=\"{}\">{}</span>",
                text(&about["request"]["method"]),
                escape(&cut(url, 300)),
                escape(&cut(path, 300))
            )
        }
        about if about["cron"].is_string() => format!("<span class=method>cron</span> {}", text(&about["cron"])),
        about if about["queue"].is_string() => format!("<span class=method>queue</span> {}", text(&about["queue"])),
        _ => format!("<span class=what>{}</span>", escape(outcome)),
    };
    let at = event["eventTimestamp"].as_u64().unwrap_or_default();
    let mut html = format!(
        "<li class=\"event{}\"><div class=line><time data-at=\"{at}\">{}</time> <span class=of>{}</span> {title}</div>",
        if has_error { " error" } else { "" },
        time_of_day(at),
        escape(&trace.worker)
    );
    for log in event["logs"].as_array().into_iter().flatten().take(LINES) {
        let level = match log["level"].as_str().unwrap_or("log") {
            level @ ("debug" | "info" | "warn" | "error") => level,
            _ => "log",
        };
        let _ =
            write!(html, "<pre class=\"log {level}\"><b>{level}</b> {}</pre>", escape(&cut(&message(log), LONGEST)));
    }
    for exception in event["exceptions"].as_array().into_iter().flatten().take(LINES) {
        let field = |name: &str| exception[name].as_str().unwrap_or_default();
        let (message, stack) = (format!("{}: {}", field("name"), field("message")), field("stack"));
        let stack = if stack.is_empty() { String::new() } else { format!("\n{}", escape(&cut(stack, LONGEST))) };
        let _ = write!(html, "<pre class=\"log error\"><b>error</b> {}{stack}</pre>", escape(&cut(&message, LONGEST)));
    }
    let hidden = event["logs"].as_array().map_or(0, Vec::len).saturating_sub(LINES);
    if hidden > 0 {
        let _ = write!(html, "<p class=more>and {hidden} more lines</p>");
    }
    html + "</li>"
}

/// The values of a console line as one text.
fn message(log: &Value) -> String {
    let values = log["message"].as_array().map_or_else(|| vec![&log["message"]], |values| values.iter().collect());
    let shown: Vec<String> =
        values.iter().map(|value| value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned)).collect();
    let errors = log["errorInfo"].as_array().into_iter().flatten();
    let stacks = errors.filter_map(|error| error["stack"].as_str()).map(|stack| format!("\n{stack}"));
    shown.join(" ") + &stacks.collect::<String>()
}

fn cut(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// The time of day in UTC of milliseconds since 1970.
fn time_of_day(at: u64) -> String {
    let of_day = at / 1000 % 86_400;
    format!("{:02}:{:02}:{:02}", of_day / 3600, of_day / 60 % 60, of_day % 60)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const BAD: &str = "<script>\"'&\u{202e}\u{1b}";

    fn view() -> View {
        let key = Key::new(BAD, BAD, BAD);
        let entry = Entry {
            key: key.clone(),
            group: BAD.into(),
            modified: BAD.into(),
            row: 1,
            version: BAD.into(),
            is_ambiguous: false,
        };
        let seen = Seen { at: 1, outcome: BAD.into(), status: None };
        let summary = Summary { requests: 1, errors: 1, last: Some(seen.clone()), health: Some(seen) };
        let row =
            Row { entry, url: BAD.into(), bindings: vec![(BAD.into(), BAD.into())], hosts: vec![BAD.into()], summary };
        let event = json!({
            "outcome": BAD, "eventTimestamp": 1, "logs": [{"level": BAD, "message": [BAD, {BAD: BAD}], "errorInfo": [{"stack": BAD}]}],
            "exceptions": [{"name": BAD, "message": BAD, "stack": BAD}], "event": {"request": {"method": BAD, "url": BAD}},
        });
        let trace = |event: Value| {
            let json = event.to_string();
            Arc::new(Trace { number: 1, account: BAD.into(), namespace: BAD.into(), worker: BAD.into(), json })
        };
        let mut events = vec![trace(event.clone())];
        for about in [json!({"cron": BAD}), json!({"queue": BAD}), json!({}), Value::Null] {
            let mut other = event.clone();
            other["event"] = about;
            events.push(trace(other));
        }
        View {
            rows: vec![row],
            workers: 1,
            groups: 1,
            found: 1,
            filter: BAD.into(),
            key: Some(BAD.into()),
            page: 2,
            pages: 3,
            worker: Some(key),
            events,
        }
    }

    #[test]
    fn nothing_on_the_page_is_taken_for_html() {
        let view = view();
        for html in [workers(&view), events(&view), whole(&view, "n", "k", 1, 1)] {
            let own = html.replace(&format!("<script nonce=\"n\">{SCRIPT}</script>"), "").replace(STYLE, "");
            assert!(!own.contains("<script") && !own.contains(['\u{202e}', '\u{1b}']), "{own}");
            // No text ends the attribute that it is in.
            assert!(!own.contains("&\"") && !own.contains("\"'"), "{own}");
            assert!(own.contains("&lt;script&gt;&quot;&#39;&amp;"), "{own}");
        }
    }

    #[test]
    fn a_worker_s_key_survives_an_address() {
        for key in [Key::new("a", "", "b"), Key::new("a/b", "n s", "ä%&\"")] {
            assert_eq!(key_of(&key_text(&key)), Some(key));
        }
        for wrong in ["", "a", "a/b", "a/b/", "a/b/c/d"] {
            assert_eq!(key_of(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn health_is_the_last_check_or_the_last_request() {
        let seen = |outcome: &str, status| Some(Seen { at: 1, outcome: outcome.to_owned(), status });
        for (last, check, expect) in [
            (None, None, ("none", "not requested yet")),
            (seen("ok", Some(404)), None, ("good", "responding")),
            (seen("ok", Some(500)), None, ("bad", "failing: 500")),
            (seen("exception", None), seen("ok", Some(200)), ("bad", "failing: exception")),
            (seen("ok", Some(404)), seen("ok", Some(200)), ("good", "healthy")),
            (seen("ok", Some(503)), seen("ok", Some(503)), ("bad", "unhealthy: 503")),
        ] {
            let summary = Summary { requests: 1, errors: 0, last, health: check };
            assert_eq!(health(&summary), (expect.0, expect.1.to_owned()));
        }
    }

    #[test]
    fn numbers_are_grouped() {
        assert_eq!((count(1, "worker").as_str(), count(12_345, "worker").as_str()), ("1 worker", "12,345 workers"));
    }
}
