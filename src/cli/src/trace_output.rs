//! The events of workers for people: a line for each request with its status, its console lines with their levels, exceptions with
//! their stacks. Everything in them is a worker's or a visitor's, so it is cleaned before it is shown.

use serde_json::Value;

use flotilla_model::text::{clean, clean_lines};

use super::ui::{Style, Ui};

/// The width of the column of levels: `warning`, `POST`.
const LEVEL: usize = 5;
/// The most lines that are shown of one message or stack.
const LINES: usize = 40;

/// Returns the lines of an event. `worker` is the column of its worker.
pub(super) fn lines(ui: &Ui, worker: &str, event: &Value) -> Vec<String> {
    let worker = format!("{}  ", clean(worker));
    let mut lines = Vec::new();
    let mut add = |at: &Value, level: &str, style: Option<Style>, text: &str| {
        let head = format!("{}  {worker}", ui.paint(Style::Dim, &time_of_day(at)));
        let level = format!("{level:LEVEL$}");
        let level = style.map_or_else(|| level.clone(), |style| ui.paint(style, &level));
        let mut rows = text.lines();
        lines.push(format!("{head}{level}  {}", rows.next().unwrap_or_default()));
        let indent = " ".repeat(10 + worker.chars().count() + LEVEL + 2);
        let rest: Vec<&str> = rows.collect();
        lines.extend(rest.iter().take(LINES).map(|row| format!("{indent}{}", ui.paint(Style::Dim, row))));
        if rest.len() > LINES {
            lines.push(format!("{indent}… and {} more lines", rest.len() - LINES));
        }
    };
    if let Some((level, text, style)) = head(event) {
        add(&event["eventTimestamp"], &level, style, &text);
    }
    for log in event["logs"].as_array().into_iter().flatten() {
        let level = match log["level"].as_str().unwrap_or("log") {
            "warn" => "warn",
            "error" => "error",
            "info" => "info",
            "debug" => "debug",
            _ => "log",
        };
        let style = match level {
            "warn" => Some(Style::Warning),
            "error" => Some(Style::Error),
            _ => Some(Style::Dim),
        };
        add(&log["timestamp"], level, style, &message(log));
    }
    for exception in event["exceptions"].as_array().into_iter().flatten() {
        let text = |name: &str| exception[name].as_str().map(clean_lines).unwrap_or_default();
        let message = format!("{}: {}\n{}", text("name"), text("message"), text("stack"));
        add(&exception["timestamp"], "error", Some(Style::Error), message.trim_end());
    }
    lines
}

/// The line of an event itself: the request and its status, or what else ran the worker.
fn head(event: &Value) -> Option<(String, String, Option<Style>)> {
    let (outcome, about) = (clean(event["outcome"].as_str().unwrap_or("unknown")), &event["event"]);
    let text = |value: &Value| clean(value.as_str().unwrap_or_default());
    let failed = (outcome != "ok" && outcome != "canceled").then_some(Style::Error);
    if let Some(request) = about.get("request") {
        let status = about["response"]["status"].as_u64();
        let shown = match status {
            Some(status) if failed.is_none() => status.to_string(),
            Some(status) => format!("{status} {outcome}"),
            None => outcome,
        };
        let style = failed.or(status.filter(|status| *status >= 500).map(|_| Style::Error));
        return Some((text(&request["method"]), format!("{} {shown}", path(&text(&request["url"]))), style));
    }
    let line = |level: &str, what: String| Some((level.to_owned(), format!("{what} {outcome}"), failed));
    match about {
        Value::Object(fields) if fields.contains_key("cron") => line("cron", text(&about["cron"])),
        Value::Object(fields) if fields.contains_key("queue") => {
            line("queue", format!("{} ({})", text(&about["queue"]), about["batchSize"].as_u64().unwrap_or_default()))
        }
        Value::Object(fields) if fields.contains_key("mailFrom") => line("email", text(&about["mailFrom"])),
        Value::Object(fields) if fields.contains_key("rpcMethod") => line("rpc", text(&about["rpcMethod"])),
        Value::Object(fields) if fields.contains_key("consumedEvents") => line("tail", String::new()),
        Value::Object(fields) if fields.contains_key("scheduledTime") => line("alarm", String::new()),
        // The stream itself: events are left out, because there are too many.
        Value::Object(fields) if fields.contains_key("message") => {
            Some(("warn".to_owned(), text(&about["message"]), Some(Style::Warning)))
        }
        // Printed while the worker was loaded.
        Value::Null => None,
        _ => line("event", String::new()),
    }
}

/// The values of a console line, as a console shows them: texts as they are, the rest as JSON, errors with their stacks.
fn message(log: &Value) -> String {
    let values = log["message"].as_array().map_or_else(|| vec![&log["message"]], |values| values.iter().collect());
    let shown: Vec<String> = values
        .iter()
        .map(|value| match value {
            Value::String(text) => clean_lines(text),
            value => clean(&value.to_string()),
        })
        .collect();
    let errors = log["errorInfo"].as_array().into_iter().flatten();
    let stacks = errors.filter_map(|error| error["stack"].as_str()).map(|stack| format!("\n{}", clean_lines(stack)));
    shown.join(" ") + &stacks.collect::<String>()
}

/// The path of a URL; the whole of what is none.
fn path(url: &str) -> &str {
    url.split_once("://").and_then(|(_, rest)| rest.find('/').map(|slash| &rest[slash..])).unwrap_or(url)
}

/// The time of day in UTC of milliseconds since 1970.
fn time_of_day(at: &Value) -> String {
    let seconds = at.as_u64().unwrap_or_default() / 1000;
    let of_day = seconds % 86_400;
    format!("{:02}:{:02}:{:02}", of_day / 3600, of_day / 60 % 60, of_day % 60)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn plain(event: &Value) -> Vec<String> {
        lines(&Ui::new(false, false), "acme", event)
    }

    #[test]
    fn a_request_is_printed_with_what_it_printed() {
        let event = json!({
            "outcome": "ok", "eventTimestamp": 3_723_004,
            "logs": [
                {"level": "log", "message": ["hello", {"a": [1, null]}, 2], "timestamp": 3_723_004},
                {"level": "warn", "message": ["two\nlines"], "timestamp": 3_723_004},
                {"level": "error", "message": ["Error: x"], "errorInfo": [{"stack": "    at f (index.js:1:2)"}], "timestamp": 3_723_004},
            ],
            "exceptions": [{"name": "TypeError", "message": "boom", "stack": "    at fetch (index.js:4:38)", "timestamp": 3_724_000}],
            "event": {"request": {"method": "GET", "url": "http://acme.localhost:8787/a?b"}, "response": {"status": 200}},
        });
        let expect = [
            "01:02:03  acme  GET    /a?b 200",
            "01:02:03  acme  log    hello {\"a\":[1,null]} 2",
            "01:02:03  acme  warn   two",
            "                       lines",
            "01:02:03  acme  error  Error: x",
            "                           at f (index.js:1:2)",
            "01:02:04  acme  error  TypeError: boom",
            "                           at fetch (index.js:4:38)",
        ];
        assert_eq!(plain(&event), expect);
    }

    #[test]
    fn every_kind_of_event_has_its_line() {
        for (about, outcome, expect) in [
            (json!({"request": {"method": "POST", "url": "https://a/b"}}), "exception", "POST   /b exception"),
            (
                json!({"request": {"method": "GET", "url": "https://a/b"}, "response": {"status": 500}}),
                "exceededCpu",
                "GET    /b 500 exceededCpu",
            ),
            (json!({"cron": "* * * * *", "scheduledTime": 1}), "ok", "cron   * * * * * ok"),
            (json!({"scheduledTime": 1}), "ok", "alarm   ok"),
            (json!({"queue": "jobs", "batchSize": 3}), "ok", "queue  jobs (3) ok"),
            (json!({"type": "overload", "message": "too much"}), "ok", "warn   too much"),
        ] {
            let event = json!({"outcome": outcome, "eventTimestamp": 0, "logs": [], "exceptions": [], "event": about});
            assert_eq!(plain(&event), [format!("00:00:00  acme  {expect}")], "{event}");
        }
        assert!(plain(&json!({"outcome": "ok", "logs": [], "exceptions": [], "event": null})).is_empty());
    }

    #[test]
    fn nothing_in_an_event_reaches_the_terminal_as_a_command() {
        let bad = "\u{1b}]0;title\u{7}\u{202e}x\r";
        let event = json!({
            "outcome": bad, "eventTimestamp": 0, "logs": [{"level": bad, "message": [bad, {bad: bad}]}],
            "exceptions": [{"name": bad, "message": bad, "stack": bad}],
            "event": {"request": {"method": bad, "url": bad}},
        });
        for line in plain(&event) {
            assert!(!line.contains(['\u{1b}', '\u{7}', '\u{202e}', '\r']), "{line:?}");
        }
        let long = json!({"outcome": "ok", "logs": [{"level": "log", "message": ["x\n".repeat(1000)]}], "exceptions": [], "event": null});
        assert_eq!(plain(&long).len(), LINES + 2);
    }
}
