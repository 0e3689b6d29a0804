//! A trace of each thread's work, as a file for Perfetto and chrome://tracing. Off unless started; then a span costs a
//! load and a branch. Knows neither what it traces nor where the file is.
//!
//! `let _span = trace::span("render", &worker.name);` traces from there to the end of the block. Each thread writes
//! into a buffer of its own, and a full one goes to the file: what is kept in memory does not grow with the trace.
//!
//! The format is the trace event format's array: one complete event (`"ph":"X"`) for each span, its times in
//! microseconds. A file without the closing bracket is still a trace, so that one of a killed process can be looked at.

use std::borrow::Cow;
use std::io::{self, Write};
use std::mem;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use parking_lot::Mutex;

/// The number of bytes at which a thread's buffer is written to the file.
const FULL: usize = 64 * 1024;

static ON: AtomicBool = AtomicBool::new(false);
/// The instant that times are counted from.
static ORIGIN: OnceLock<Instant> = OnceLock::new();
static FILE: Mutex<Option<File>> = Mutex::new(None);
static BUFFERS: Mutex<Vec<Arc<Mutex<Buffer>>>> = Mutex::new(Vec::new());

thread_local! {
    static BUFFER: Arc<Mutex<Buffer>> = register();
}

struct File {
    out: Box<dyn Write + Send>,
    failed: Option<io::Error>,
}

impl File {
    fn write(&mut self, bytes: &[u8]) {
        if self.failed.is_none() {
            self.failed = self.out.write_all(bytes).err();
        }
    }
}

struct Buffer {
    thread: usize,
    name: String,
    /// Whether the file has the thread's name.
    introduced: bool,
    bytes: Vec<u8>,
}

/// Begins to trace into `out`.
pub fn start(out: Box<dyn Write + Send>) {
    ORIGIN.get_or_init(Instant::now);
    let mut file = File { out, failed: None };
    file.write(br#"[{"ph":"M","name":"process_name","pid":1,"args":{"name":"flotilla"}}"#);
    *FILE.lock() = Some(file);
    ON.store(true, Ordering::Release);
}

/// Ends the trace: what is in the buffers goes to the file. The first error of all that were met comes back.
pub fn finish() -> io::Result<()> {
    ON.store(false, Ordering::Release);
    for buffer in BUFFERS.lock().iter() {
        let mut buffer = buffer.lock();
        buffer.flush();
        buffer.introduced = false;
    }
    let Some(mut file) = FILE.lock().take() else { return Ok(()) };
    file.write(b"\n]\n");
    match file.failed {
        Some(error) => Err(error),
        None => file.out.flush(),
    }
}

/// Time that is being spent. It ends when the value is dropped, and counts for the thread that drops it.
#[must_use = "a span ends when it is dropped"]
pub struct Span<'a>(Option<Open<'a>>);

struct Open<'a> {
    start: Instant,
    category: &'static str,
    name: Cow<'a, str>,
    of: Option<&'a str>,
}

/// Traces one stage of the work on one item: `span("render", &worker.name)`.
#[inline]
pub fn span<'a>(stage: &'static str, of: &'a str) -> Span<'a> {
    if !ON.load(Ordering::Relaxed) {
        return Span(None);
    }
    open("stage", stage.into(), Some(of))
}

/// Returns a phase of the whole work.
#[inline]
pub fn phase(name: &str) -> Span<'static> {
    if !ON.load(Ordering::Relaxed) {
        return Span(None);
    }
    open("phase", name.to_owned().into(), None)
}

#[cold]
fn open<'a>(category: &'static str, name: Cow<'a, str>, of: Option<&'a str>) -> Span<'a> {
    Span(Some(Open { start: Instant::now(), category, name, of }))
}

impl Drop for Span<'_> {
    #[inline]
    fn drop(&mut self) {
        if let Some(open) = self.0.take() {
            close(&open);
        }
    }
}

#[cold]
fn close(open: &Open<'_>) {
    let Some(origin) = ORIGIN.get().filter(|_| ON.load(Ordering::Relaxed)) else { return };
    let (from, to) = (open.start.saturating_duration_since(*origin), origin.elapsed());
    // A span that is dropped while its thread ends is lost.
    let _ = BUFFER.try_with(|buffer| {
        let mut buffer = buffer.lock();
        let of = open.of.map(|of| format!(r#","args":{{"of":{}}}"#, quoted(of))).unwrap_or_default();
        let event = format!(
            r#"{{"ph":"X","name":{},"cat":"{}","pid":1,"tid":{},"ts":{:.3},"dur":{:.3}{of}}}"#,
            quoted(&open.name),
            open.category,
            buffer.thread,
            from.as_nanos() as f64 / 1e3,
            to.saturating_sub(from).as_nanos() as f64 / 1e3,
        );
        buffer.event(&event);
    });
}

impl Buffer {
    fn event(&mut self, event: &str) {
        if !mem::replace(&mut self.introduced, true) {
            let (thread, name) = (self.thread, quoted(&self.name));
            self.event(&format!(
                r#"{{"ph":"M","name":"thread_name","pid":1,"tid":{thread},"args":{{"name":{name}}}}}"#
            ));
        }
        self.bytes.extend_from_slice(b",\n");
        self.bytes.extend_from_slice(event.as_bytes());
        if self.bytes.len() >= FULL {
            self.flush();
        }
    }

    fn flush(&mut self) {
        if let Some(file) = FILE.lock().as_mut() {
            file.write(&self.bytes);
        }
        self.bytes.clear();
    }
}

/// Returns a buffer for this thread, the first one of which is called 1. Those of threads that are gone are let go.
fn register() -> Arc<Mutex<Buffer>> {
    static THREADS: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(1);
    let thread = THREADS.fetch_add(1, Ordering::Relaxed);
    let name = std::thread::current().name().map_or_else(|| format!("thread {thread}"), str::to_owned);
    let buffer = Arc::new(Mutex::new(Buffer { thread, name, introduced: false, bytes: Vec::new() }));
    let mut buffers = BUFFERS.lock();
    buffers.retain(|buffer| {
        let gone = Arc::strong_count(buffer) == 1;
        if gone {
            buffer.lock().flush();
        }
        !gone
    });
    buffers.push(Arc::clone(&buffer));
    buffer
}

/// Returns a text as a JSON string.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    /// A file that the test can read, and that is full after some bytes.
    #[derive(Clone, Default)]
    struct Paper {
        bytes: Arc<Mutex<Vec<u8>>>,
        writes: Arc<Mutex<usize>>,
        room: Option<usize>,
    }

    impl Write for Paper {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            *self.writes.lock() += 1;
            let mut paper = self.bytes.lock();
            if self.room.is_some_and(|room| paper.len() + bytes.len() > room) {
                return Err(io::ErrorKind::StorageFull.into());
            }
            paper.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Runs as one test, as there is one trace at a time in a process.
    #[test]
    fn spans_are_written_by_each_thread_and_nothing_when_off() {
        drop(span("before", "it is on"));
        let paper = Paper::default();
        start(Box::new(paper.clone()));
        let hostile = "a\"},\n\u{1b}[31m{\\";
        let outer = phase(hostile);
        std::thread::scope(|scope| {
            for number in 0..4 {
                let work = move || {
                    let _whole = span("customer", hostile);
                    for _ in 0..5_000 {
                        let _part = span("render", "acme");
                    }
                };
                std::thread::Builder::new().name(format!("worker {number}")).spawn_scoped(scope, work).unwrap();
            }
        });
        drop(outer);
        // Buffers went to the file before the end: what is kept does not grow.
        let (early, writes) = (paper.bytes.lock().len(), *paper.writes.lock());
        assert!(early > 1_000_000 && early / writes < FULL + 1024, "{early} bytes in {writes} writes");
        finish().unwrap();
        drop(span("after", "it is off"));
        let text = String::from_utf8(paper.bytes.lock().clone()).unwrap();
        let events: Vec<Value> = serde_json::from_str(&text).unwrap();
        let named = |name: &str| events.iter().filter(|event| event["name"] == name).collect::<Vec<_>>();
        assert_eq!((named("render").len(), named("customer").len(), named("thread_name").len()), (20_000, 4, 5));
        assert_eq!((named("before").len(), named("after").len(), named(hostile).len()), (0, 0, 1));
        let times = |event: &Value| {
            let (from, length) = (event["ts"].as_f64().unwrap(), event["dur"].as_f64().unwrap());
            (from, from + length)
        };
        let (begin, end) = times(named(hostile)[0]);
        for whole in named("customer") {
            assert_eq!(whole["args"]["of"], hostile);
            let (from, to) = times(whole);
            assert!(begin <= from && to <= end + 0.002);
            let mut parts = named("render").into_iter().filter(|part| part["tid"] == whole["tid"]);
            assert!(parts.all(|part| from <= times(part).0 && times(part).1 <= to + 0.002));
        }
        // A full disk is reported once, at the end.
        start(Box::new(Paper { room: Some(100), ..Paper::default() }));
        for _ in 0..2_000 {
            let _part = span("render", "acme");
        }
        assert_eq!(finish().unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert!(finish().is_ok(), "nothing to end");
    }
}
