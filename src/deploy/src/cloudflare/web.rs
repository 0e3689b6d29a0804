//! The network as `verify` sees it: DNS, the certificate that a host shows, requests without credentials. Doesn't judge answers
//! and doesn't repeat.

use std::time::Duration;

use flotilla_http::{Client, Hosts, Kind, Request, Timeouts};
use flotilla_model::failure::Failure;
use flotilla_model::platform::{Health, HealthCheck};
use serde_json::Value;

use super::CONNECT_TIMEOUT;
use crate::verify::{self, Answer, Web};

/// The timeout for a worker that doesn't respond: the pack's own checks give up after two seconds.
const TIMEOUT: Duration = Duration::from_secs(10);
/// A connection serves the few requests to one worker; then it is closed, as there are thousands of workers.
const IDLE: Duration = Duration::from_secs(2);
/// The largest body that is read, in bytes: the scripts of all destinations have a fraction of it.
const MAX_BODY: u64 = 4 << 20;
/// The same for a health check, of which many are made at once.
const MAX_HEALTH: u64 = 256 << 10;

/// The client for workers. It has no credentials.
static WORKERS: Client =
    Client::new(Timeouts { connect: CONNECT_TIMEOUT, silence: TIMEOUT, total: TIMEOUT, idle: IDLE });

/// The network.
pub struct Network {
    hosts: Hosts,
}

impl Network {
    /// The network, with the certificates that this machine trusts.
    pub fn new() -> Result<Network, Failure> {
        let hosts = Hosts::new(CONNECT_TIMEOUT, TIMEOUT).map_err(|error| {
            Failure::new(format!("the certificates that this machine trusts can't be read: {error}"))
        })?;
        Ok(Network { hosts })
    }
}

impl Web for Network {
    fn resolve(&self, host: &str) -> Result<(), String> {
        self.hosts.resolve(host)
    }

    fn certificate(&self, host: &str) -> Result<i64, String> {
        self.hosts.certificate(host)
    }

    fn get(&self, url: &str) -> Result<Answer, String> {
        get(url, MAX_BODY).map(|(status, body)| Answer { status, body })
    }
}

/// The status and the JSON of the response at an address; `null` if it is not JSON, or exceeds the size limit.
fn get(url: &str, limit: u64) -> Result<(u16, Value), String> {
    let answer = WORKERS.send(Request::get(url)).map_err(|error| why(error.kind))?;
    let status = answer.status();
    match answer.bytes(limit) {
        Ok(body) => Ok((status, serde_json::from_slice(&body).unwrap_or_default())),
        Err(error) if error.kind == Kind::TooLong => Ok((status, Value::Null)),
        Err(error) => Err(why(error.kind)),
    }
}

fn why(kind: Kind) -> String {
    match kind {
        Kind::Timeout => "no response in time",
        Kind::Connect | Kind::Client | Kind::Request => "no connection",
        Kind::Broken | Kind::TooLong => "the connection broke",
    }
    .to_owned()
}

/// Makes a health check. Sends no credentials.
pub fn health(check: &HealthCheck) -> Health {
    match get(&format!("{}{}", check.address.trim_end_matches('/'), check.probe.path), MAX_HEALTH) {
        Err(why) => Health::Unreachable(why),
        Ok((status, body)) => match verify::judge_health(check, &Answer { status, body }) {
            Ok(()) => Health::Healthy,
            Err(difference) => Health::Unhealthy(difference),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flotilla_model::platform::Placeholders;

    #[test]
    fn nobody_listens() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let network = Network::new().unwrap();
        assert_eq!(network.get(&format!("http://{free}/")).unwrap_err(), "no connection");
        let probe = serde_json::from_value(serde_json::json!({ "name": "health", "path": "/health" })).unwrap();
        let check = HealthCheck::new(&[probe], format!("http://{free}/"), Placeholders::default()).unwrap();
        assert_eq!(health(&check), Health::Unreachable("no connection".to_owned()));
    }
}
