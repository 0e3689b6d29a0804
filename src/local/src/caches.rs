//! The Cache API of workers: what they put into `caches.default` and into caches of their own. Knows HTTP's rules for caches as far as
//! Cloudflare follows them; nothing is stored on disk.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;

use super::envelope::Answer;

/// The maximum size, in bytes, of all entries; beyond them, the oldest ones go.
const MOST: usize = 64 << 20;

/// The cached answers.
#[derive(Debug, Default)]
pub struct Caches(Mutex<Entries>);

#[derive(Debug, Default)]
struct Entries {
    by_key: HashMap<String, Entry>,
    bytes: usize,
    turn: u64,
}

#[derive(Debug, Clone)]
struct Entry {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    expires: Duration,
    turn: u64,
}

impl Caches {
    /// Answers workerd's requests: `GET` to match, `PUT` with a whole answer as the body, `PURGE` to delete.
    pub fn answer(&self, method: &str, key: &str, body: &[u8], now: Duration) -> Answer {
        let mut entries = self.0.lock();
        match method {
            "GET" => match entries.by_key.get(key).filter(|entry| entry.expires > now) {
                Some(entry) => entry.answer(),
                // What workerd takes for a miss.
                None => Answer::bytes(504, "text/plain", Vec::new()).with("cf-cache-status", "MISS"),
            },
            "PUT" => {
                if let Some(entry) = Entry::read(body, now) {
                    entries.put(key, entry);
                }
                Answer::bytes(204, "text/plain", Vec::new())
            }
            "PURGE" => {
                let status = if entries.remove(key) { 200 } else { 404 };
                Answer::bytes(status, "text/plain", Vec::new())
            }
            _ => Answer::bytes(405, "text/plain", Vec::new()),
        }
    }
}

impl Entries {
    fn put(&mut self, key: &str, mut entry: Entry) {
        self.remove(key);
        self.turn += 1;
        entry.turn = self.turn;
        self.bytes += entry.body.len();
        self.by_key.insert(key.to_owned(), entry);
        while self.bytes > MOST {
            let oldest = self.by_key.iter().min_by_key(|(_, entry)| entry.turn).map(|(key, _)| key.clone());
            let Some(oldest) = oldest else { break };
            self.remove(&oldest);
        }
    }

    fn remove(&mut self, key: &str) -> bool {
        let removed = self.by_key.remove(key);
        self.bytes -= removed.as_ref().map_or(0, |entry| entry.body.len());
        removed.is_some()
    }
}

impl Entry {
    /// Reads an answer as it goes over the wire; none if it must not be cached.
    fn read(bytes: &[u8], now: Duration) -> Option<Entry> {
        let end = memchr::memmem::find(bytes, b"\r\n\r\n")?;
        let head = std::str::from_utf8(&bytes[..end]).ok()?;
        let mut lines = head.split("\r\n");
        let status: u16 = lines.next()?.split(' ').nth(1)?.parse().ok()?;
        let headers: Vec<(String, String)> = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.trim().to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        let header = |name: &str| headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
        let control = header("cache-control").unwrap_or_default().to_ascii_lowercase();
        let directive = |name: &str| control.split(',').map(str::trim).any(|part| part.split('=').next() == Some(name));
        let seconds = |name: &str| {
            let part = control.split(',').map(str::trim).find_map(|part| part.strip_prefix(name)?.strip_prefix('='));
            part.and_then(|seconds| seconds.trim_matches('"').parse::<u64>().ok())
        };
        if status == 206 || directive("no-store") || directive("private") || header("set-cookie").is_some() {
            return None;
        }
        let expires = || {
            let time = httpdate_seconds(header("expires")?)?;
            Some(time.saturating_sub(now.as_secs()))
        };
        let age = match directive("no-cache") {
            true => 0,
            false => seconds("s-maxage").or(seconds("max-age")).or_else(expires).unwrap_or(7200),
        };
        if age == 0 {
            return None;
        }
        let body = &bytes[end + 4..];
        let is_chunked = header("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked"));
        let body = if is_chunked { dechunked(body)? } else { body.to_vec() };
        let hop = ["transfer-encoding", "connection", "content-length"];
        let headers = headers.into_iter().filter(|(name, _)| !hop.contains(&name.as_str())).collect();
        Some(Entry { status, headers, body, expires: now + Duration::from_secs(age), turn: 0 })
    }

    fn answer(&self) -> Answer {
        let kind = self.headers.iter().find(|(name, _)| name == "content-type").map(|(_, kind)| kind.as_str());
        let mut answer = Answer::bytes(self.status, kind.unwrap_or_default(), self.body.clone());
        answer.more = self.headers.iter().filter(|(name, _)| name != "content-type").cloned().collect();
        answer.with("cf-cache-status", "HIT")
    }
}

/// Returns the seconds since 1970 of a date as HTTP writes it: `Mon, 30 Nov 2026 15:28:00 GMT`.
fn httpdate_seconds(date: &str) -> Option<u64> {
    let mut words = date.split(' ').skip(1);
    let (day, month, year, time) = (words.next()?, words.next()?, words.next()?, words.next()?);
    let months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let month = months.iter().position(|name| *name == month)? + 1;
    let time = humantime::parse_rfc3339(&format!("{year}-{month:02}-{day:0>2}T{time}Z")).ok()?;
    Some(time.duration_since(std::time::UNIX_EPOCH).ok()?.as_secs())
}

/// Returns a body without the frames of chunks.
fn dechunked(mut bytes: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line = memchr::memmem::find(bytes, b"\r\n")?;
        let size = std::str::from_utf8(&bytes[..line]).ok()?.split(';').next()?.trim();
        let size = usize::from_str_radix(size, 16).ok()?;
        bytes = &bytes[line + 2..];
        if size == 0 {
            return Some(body);
        }
        body.extend_from_slice(bytes.get(..size)?);
        bytes = bytes.get(size + 2..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_kept_as_long_as_it_says() {
        let caches = Caches::default();
        let at = |seconds: u64| Duration::from_secs(1_000_000 + seconds);
        let put = |key: &str, head: &str| {
            caches.answer("PUT", key, format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\nbody").as_bytes(), at(0));
        };
        let status = |key: &str, seconds| caches.answer("GET", key, b"", at(seconds)).status;
        put("a", "Cache-Control: max-age=10\r\nContent-Type: text/x");
        let hit = caches.answer("GET", "a", b"", at(9));
        assert_eq!((hit.status, hit.content_type.as_str(), hit.body.as_slice()), (200, "text/x", &b"body"[..]));
        assert_eq!((status("a", 10), status("b", 0)), (504, 504));
        put("s", "Cache-Control: s-maxage=10, max-age=1");
        assert_eq!(status("s", 9), 200);
        for head in ["Cache-Control: no-store", "Cache-Control: private", "Set-Cookie: a=b", "Cache-Control: max-age=0"]
        {
            put("n", head);
            assert_eq!(status("n", 0), 504, "{head}");
        }
        put("e", "Expires: Mon, 12 Jan 1970 13:46:50 GMT");
        assert_eq!((status("e", 9), status("e", 11)), (200, 504));
        assert_eq!(
            [caches.answer("PURGE", "e", b"", at(0)).status, caches.answer("PURGE", "e", b"", at(0)).status],
            [200, 404]
        );
        assert_eq!(dechunked(b"4\r\nbody\r\n1\r\n!\r\n0\r\n\r\n"), Some(b"body!".to_vec()));
    }
}
