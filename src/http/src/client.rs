//! The client: TLS by rustls on ring, no redirects, no proxy within this machine, and an end to every wait.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use reqwest::Url;
use reqwest::blocking::{Client as Http, ClientBuilder};

use crate::answer::Answer;
use crate::error::{Error, Kind};
use crate::observer::Observed;
use crate::request::Request;

/// The times after which a client gives up.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// The time limit for making a connection.
    pub connect: Duration,
    /// The time limit for the head of the answer, and for each piece of its body.
    pub silence: Duration,
    /// The time limit for a whole request: connection, upload, and the answer to the end of its body. A server that
    /// sends a byte now and then gets no more; where this is longer than `silence`, it gets one `silence` more. A
    /// request can have its own: [`Request::within`].
    pub total: Duration,
    /// The time after which an idle connection is closed.
    pub idle: Duration,
}

/// Sends requests. One is enough for all threads; connections are kept and shared.
pub struct Client {
    timeouts: Timeouts,
    /// Made with the first request that needs it: each has a thread of its own, and this one and the next read the certificates that this
    /// machine trusts.
    outward: OnceLock<Result<Http, Error>>,
    /// The client for this machine, past any proxy.
    loopback: OnceLock<Result<Http, Error>>,
    /// The same without TLS, which trusts nobody: reading hundreds of certificates takes longer than most of what is asked there, and
    /// needs none to be installed.
    plain: OnceLock<Result<Http, Error>>,
}

impl Client {
    /// A client with these timeouts.
    pub const fn new(timeouts: Timeouts) -> Client {
        Client { timeouts, outward: OnceLock::new(), loopback: OnceLock::new(), plain: OnceLock::new() }
    }

    /// Fails if nothing can be sent to this address: better known before than with the first request.
    pub fn prepare(&self, url: &str) -> Result<(), Error> {
        self.http(url).map(|_| ())
    }

    /// Sends a request. Its answer's head is there, its body is yet to be read.
    pub fn send(&self, request: Request) -> Result<Answer, Error> {
        if let (true, Err(reason)) = (request.has_token(), check_token_address(&request.url)) {
            return Err(Error { kind: Kind::Request, cause: reason.to_owned() });
        }
        let http = self.http(&request.url)?;
        let within = request.within.unwrap_or(self.timeouts.total);
        let end = Instant::now() + within;
        // A request's own timeout is one for all of it, a client's is one for each piece; reqwest takes one of the two.
        let exact = (within <= self.timeouts.silence).then_some(within);
        let observed = Observed::begin(&request);
        let sent = request.build(http, exact).send();
        let answer = sent.map(|response| Answer::new(response, end)).map_err(|error| Error::of(&error));
        observed.end(&answer);
        answer
    }

    fn http(&self, url: &str) -> Result<&Http, Error> {
        let (is_direct, is_plain) = way(url);
        let make = || {
            let made = ClientBuilder::from(settings_of((is_direct, is_plain), self.timeouts));
            made.timeout(self.timeouts.silence).build().map_err(|error| Error::of_client(&error))
        };
        let made = match (is_direct, is_plain) {
            (_, true) => &self.plain,
            (true, false) => &self.loopback,
            (false, false) => &self.outward,
        };
        made.get_or_init(make).as_ref().map_err(Clone::clone)
    }
}

/// Returns whether an address is reached past any proxy, because requests within this machine must not go through a proxy of the network
/// unencrypted; and whether without TLS.
fn way(url: &str) -> (bool, bool) {
    let url = Url::parse(url).ok();
    let is_direct = url.as_ref().is_some_and(is_loopback);
    (is_direct, is_direct && url.is_some_and(|url| url.scheme() == "http"))
}

/// The settings of a client for an address.
pub(crate) fn settings(url: &str, timeouts: Timeouts) -> reqwest::ClientBuilder {
    settings_of(way(url), timeouts)
}

fn settings_of((is_direct, is_plain): (bool, bool), timeouts: Timeouts) -> reqwest::ClientBuilder {
    let http = async_builder().connect_timeout(timeouts.connect).pool_idle_timeout(timeouts.idle);
    let http = if is_direct { http.no_proxy() } else { http };
    if is_plain { http.tls_certs_only([]) } else { http }
}

/// Checks an address to which a token is sent: over TLS, or within this machine, and without a user name or password, behind which another
/// host can hide. The error is the reason, without the address, which can hold a password.
pub fn check_token_address(url: &str) -> Result<(), &'static str> {
    let url = Url::parse(url).map_err(|_| "it is not a URL")?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(
            "it has a user name or a password before its host, so the token could be sent to another host unencrypted",
        );
    }
    match url.scheme() {
        "https" => Ok(()),
        "http" if is_loopback(&url) => Ok(()),
        _ => Err("it is not an https:// address, so the token would be sent unencrypted"),
    }
}

/// Returns whether an address is one of this machine: `http://localhost:8787/…`.
fn is_loopback(url: &Url) -> bool {
    // As the client reads it: what a reader of its own takes for the host can be a user name.
    let Some(host) = url.host_str() else { return false };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// The builder of a client that follows no redirect: it would carry the token elsewhere, and no API here has one. TLS is rustls on
/// ring: reqwest's default, aws-lc, compiles for more than a minute.
fn async_builder() -> reqwest::ClientBuilder {
    // It is there already if another client was made before.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .user_agent(concat!("flotilla/", env!("CARGO_PKG_VERSION")))
}

/// A builder of reqwest's own client, for tests and benches, which are clients of the program as others are.
pub fn builder() -> ClientBuilder {
    ClientBuilder::from(async_builder())
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};
    use std::sync::Arc;
    use std::thread;

    use secrecy::SecretString;

    use crate::request::{Method, Part};

    use super::*;

    const TIMEOUTS: Timeouts = Timeouts {
        connect: Duration::from_secs(5),
        silence: Duration::from_secs(5),
        total: Duration::from_millis(700),
        idle: Duration::from_secs(5),
    };

    /// A server that does this with each connection once it got a request; its address, and what it was sent.
    fn server(answer: impl Fn(&mut TcpStream) + Send + Sync + 'static) -> (String, std::sync::mpsc::Receiver<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}/", listener.local_addr().unwrap());
        let (sender, received) = std::sync::mpsc::channel();
        let answer = Arc::new(answer);
        thread::spawn(move || {
            for mut socket in listener.incoming().flatten() {
                let (sender, answer) = (sender.clone(), Arc::clone(&answer));
                thread::spawn(move || {
                    let (mut request, mut buffer) = (Vec::new(), [0; 4096]);
                    socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
                    while let Ok(read @ 1..) = socket.read(&mut buffer) {
                        request.extend_from_slice(&buffer[..read]);
                    }
                    let _ = sender.send(String::from_utf8_lossy(&request).into_owned());
                    answer(&mut socket);
                });
            }
        });
        (address, received)
    }

    /// Sends a piece, and then a byte now and then as long as the client reads.
    fn drip(socket: &mut TcpStream, first: &str) {
        let mut write = |bytes: &[u8]| socket.write_all(bytes).is_ok();
        let mut listens = write(first.as_bytes());
        while listens {
            thread::sleep(Duration::from_millis(50));
            listens = write(b"x");
        }
    }

    #[track_caller]
    fn ends_in_time(start: Instant) {
        let took = start.elapsed();
        assert!(took >= Duration::from_millis(650) && took < Duration::from_secs(4), "{took:?}");
    }

    #[test]
    fn a_server_that_drips_is_cut_off_in_its_head_and_in_its_body() {
        let client = Client::new(TIMEOUTS);
        let (address, _) = server(|socket| drip(socket, "HTTP/1.1 200 OK\r\nx-header: "));
        let start = Instant::now();
        assert_eq!(client.send(Request::get(address)).err().unwrap().kind, Kind::Timeout);
        ends_in_time(start);

        let (address, _) = server(|socket| drip(socket, "HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n"));
        let start = Instant::now();
        assert_eq!(client.send(Request::get(&*address)).unwrap().bytes(1 << 20).unwrap_err().kind, Kind::Timeout);
        ends_in_time(start);
        // Also where the body is read piece by piece, each of which comes in time.
        let (start, mut body) = (Instant::now(), client.send(Request::get(&*address)).unwrap().body(1 << 20));
        let mut byte = [0];
        let error = std::iter::from_fn(|| Some(body.read(&mut byte))).find_map(Result::err).unwrap();
        assert_eq!(crate::Body::error(&error).kind, Kind::Timeout);
        ends_in_time(start);
        // A request can have a time of its own.
        let start = Instant::now();
        let request = Request::get(&*address).within(Duration::from_millis(1500));
        assert!(client.send(request).unwrap().bytes(1 << 20).is_err());
        assert!(start.elapsed() >= Duration::from_millis(1450));
        // Also one that is longer than a silence may be.
        let (silence, total) = (Duration::from_millis(600), Duration::from_millis(1200));
        let client = Client::new(Timeouts { silence, total, ..TIMEOUTS });
        let start = Instant::now();
        assert_eq!(client.send(Request::get(address)).unwrap().bytes(1 << 20).unwrap_err().kind, Kind::Timeout);
        ends_in_time(start);
    }

    #[test]
    fn silence_ends_sooner_than_the_whole() {
        let timeouts = Timeouts { silence: Duration::from_millis(300), total: Duration::from_secs(60), ..TIMEOUTS };
        let client = Client::new(timeouts);
        let (address, _) = server(|socket| {
            socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc").unwrap();
            thread::sleep(Duration::from_secs(5));
        });
        let start = Instant::now();
        assert_eq!(client.send(Request::get(address)).unwrap().bytes(9).unwrap_err().kind, Kind::Timeout);
        assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    }

    #[test]
    fn an_answer_is_read_up_to_its_limit_and_to_its_end() {
        let client = Client::new(TIMEOUTS);
        let (address, _) = server(|socket| {
            socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\nconnection: close\r\n\r\n0123456789").unwrap();
        });
        assert_eq!(client.send(Request::get(&*address)).unwrap().bytes(10).unwrap(), b"0123456789");
        assert_eq!(client.send(Request::get(address)).unwrap().bytes(9).unwrap_err().kind, Kind::TooLong);
        let (address, _) = server(|socket| {
            socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\nconnection: close\r\n\r\n01234").unwrap();
        });
        assert_eq!(client.send(Request::get(address)).unwrap().bytes(10).unwrap_err().kind, Kind::Broken);
    }

    #[test]
    fn the_head_of_an_answer_is_given_as_values_and_no_redirect_is_followed() {
        let client = Client::new(TIMEOUTS);
        let (address, received) = server(|socket| {
            let head = "HTTP/1.1 307 Temporary Redirect\r\nlocation: /elsewhere\r\nretry-after: 17 \r\n\
                        ratelimit: \"burst\";r=7;t=3, \"default\";r=1100;t=200\r\n\
                        ratelimit-policy: \"burst\";q=100;w=60 , \"default\"; q=1200; w=300; pk=:abc=:\r\n\
                        connection: close\r\ncontent-length: 0\r\n\r\n";
            socket.write_all(head.as_bytes()).unwrap();
        });
        let token = SecretString::from("canary-token");
        let part = |name: &str, bytes: &[u8]| Part {
            name: name.to_owned(),
            file_name: Some(name.to_owned()),
            content_type: "application/javascript+module".into(),
            bytes: Arc::from(bytes),
        };
        let form = Request::new(Method::PUT, &*address).bearer(&token).form(vec![part("a/b.js", b"export {}")]);
        let answer = client.send(form).unwrap();
        assert_eq!((answer.status(), answer.header("location")), (307, Some("/elsewhere")));
        assert_eq!(answer.retry_after(), Some(Duration::from_secs(17)));
        let limit = |name: &str, requests, seconds| crate::RateLimit {
            name: name.to_owned(),
            requests,
            time: Duration::from_secs(seconds),
        };
        assert_eq!(answer.limits_left(), [limit("burst", 7, 3), limit("default", 1100, 200)]);
        assert_eq!(answer.limits(), [limit("burst", 100, 60), limit("default", 1200, 300)]);
        let sent = received.recv().unwrap().to_lowercase();
        for text in
            ["put / http", "authorization: bearer canary-token", "name=\"a/b.js\"; filename=\"a/b.js\"", "export {}"]
        {
            assert!(sent.contains(text), "{text}: {sent}");
        }
        assert!(received.recv_timeout(Duration::from_millis(300)).is_err(), "one request");
    }

    #[test]
    fn nobody_listens_and_no_address_is_in_the_error() {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let error = Client::new(TIMEOUTS).send(Request::get(format!("http://user:canary@{free}/"))).err().unwrap();
        assert_eq!(error.kind, Kind::Connect);
        assert!(!format!("{error:?} {error}").contains("canary"), "{error}");
    }

    #[test]
    fn a_header_that_cannot_be_sent_is_an_error_of_the_request() {
        let request = Request::get("http://127.0.0.1:9/").bearer(&SecretString::from("token\n"));
        assert_eq!(Client::new(TIMEOUTS).send(request).err().unwrap().kind, Kind::Request);
    }

    #[test]
    fn what_is_on_this_machine() {
        for url in [
            "http://localhost:8787/x",
            "http://127.0.0.1/",
            "http://127.9.9.9:1",
            "http://[::1]:80/",
            "http://u@localhost",
        ] {
            assert!(is_loopback(&Url::parse(url).unwrap()), "{url}");
        }
        for url in [
            "https://api.cloudflare.com/client/v4",
            "http://localhost.example.com/",
            "http://127.evil.example",
            "http://localhost:x@evil.example/",
            "http://localhost@evil.example/",
            "http://evil.example\\@localhost/",
            "http://evil.example/@localhost",
        ] {
            assert!(!is_loopback(&Url::parse(url).unwrap()), "{url}");
        }
    }

    #[test]
    fn a_token_goes_over_tls_or_stays_on_this_machine() {
        for url in
            ["https://api.example/x", "http://localhost:1/x", "http://127.0.0.1", "http://[::1]:8787/", "http://127.1/"]
        {
            assert_eq!(check_token_address(url), Ok(()), "{url}");
        }
        for url in [
            "http://localhost:x@evil.example/client/v4",
            "http://localhost:8787@evil.example/client/v4",
            "https://api.cloudflare.com@evil.example/client/v4",
            "https://:x@evil.example",
            "http://evil.example",
            "http://0.0.0.0",
            "http://127.0.0.1.evil.example",
            "http://localhost.",
            "ftp://localhost",
            "localhost:8787",
            "//evil.example",
            "",
        ] {
            assert!(check_token_address(url).is_err(), "{url}");
        }
        // A caller that forgets to check sends nothing, either.
        let (address, received) = server(|_| ());
        let address = address.replace("http://", "http://localhost:x@");
        let request = Request::get(address).bearer(&SecretString::from("canary"));
        let error = Client::new(TIMEOUTS).send(request).err().unwrap();
        assert_eq!((error.kind, error.cause.contains("canary")), (Kind::Request, false));
        assert!(received.recv_timeout(Duration::from_millis(300)).is_err(), "nothing is sent");
    }
}
