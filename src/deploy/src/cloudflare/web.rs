//! The network as `verify` sees it: DNS by the system's resolver, the certificate that a host shows, requests without
//! credentials. Doesn't judge answers and doesn't repeat.

use std::io::Read as _;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs as _};
use std::sync::Arc;
use std::time::Duration;

use reqwest::blocking::Client;
use rustls::pki_types::ServerName;
use rustls::{CertificateError, ClientConfig, ClientConnection};
use rustls_platform_verifier::ConfigVerifierExt as _;
use x509_cert::Certificate;
use x509_cert::der::Decode as _;

use crate::verify::{Answer, Web};
use flotilla_model::failure::Failure;

use super::{CONNECT_TIMEOUT, HEALTH_TIMEOUT, client};

/// The port of HTTPS.
const HTTPS: u16 = 443;
/// The largest body that is read, in bytes: the scripts of all destinations have a fraction of it.
const MAX_BODY: u64 = 4 << 20;
/// A connection serves the few requests to one worker; then it is closed, as there are thousands of workers.
const IDLE: Duration = Duration::from_secs(2);

/// The network.
pub struct Network {
    http: Client,
    /// The same past the proxy: for what stays on this machine.
    direct: Client,
    tls: Arc<ClientConfig>,
}

impl Network {
    /// The network, with the certificates that this machine trusts.
    pub fn new() -> Result<Network, Failure> {
        let builder = || client().connect_timeout(CONNECT_TIMEOUT).timeout(HEALTH_TIMEOUT).pool_idle_timeout(IDLE);
        let failed = |error: reqwest::Error| Failure::new(format!("no HTTP client: {error}"));
        let (http, direct) = (builder().build().map_err(failed)?, builder().no_proxy().build().map_err(failed)?);
        let tls = ClientConfig::with_platform_verifier().map_err(|error| {
            Failure::new(format!("the certificates that this machine trusts can't be read: {error}"))
        })?;
        Ok(Network { http, direct, tls: Arc::new(tls) })
    }
}

impl Web for Network {
    fn resolve(&self, host: &str) -> Result<(), String> {
        addresses(host).map(|_| ())
    }

    fn certificate(&self, host: &str) -> Result<i64, String> {
        certificate(&self.tls, host, &addresses(host)?)
    }

    fn get(&self, url: &str) -> Result<Answer, String> {
        let http = if url.starts_with("http://127.0.0.1:") { &self.direct } else { &self.http };
        let failed = |error: reqwest::Error| match error.is_timeout() {
            true => "no answer in time".to_owned(),
            false if error.is_connect() => "no connection".to_owned(),
            false => "the connection broke".to_owned(),
        };
        let response = http.get(url).send().map_err(failed)?;
        let status = response.status().as_u16();
        let mut body = Vec::new();
        response.take(MAX_BODY).read_to_end(&mut body).map_err(|_| "the connection broke".to_owned())?;
        Ok(Answer { status, body: serde_json::from_slice(&body).unwrap_or_default() })
    }
}

fn addresses(host: &str) -> Result<Vec<SocketAddr>, String> {
    // What the resolver says of it differs between systems, and helps nobody.
    let found: Vec<SocketAddr> = (host, HTTPS).to_socket_addrs().map(Iterator::collect).unwrap_or_default();
    if found.is_empty() { Err("DNS has no address".to_owned()) } else { Ok(found) }
}

/// Until when the certificate is valid that a host shows at one of these addresses, in seconds since 1970.
fn certificate(config: &Arc<ClientConfig>, host: &str, at: &[SocketAddr]) -> Result<i64, String> {
    let name = ServerName::try_from(host.to_owned()).map_err(|_| "that is no host name".to_owned())?;
    let connect = |address: &SocketAddr| TcpStream::connect_timeout(address, CONNECT_TIMEOUT).ok();
    let mut socket = at.iter().find_map(connect).ok_or("no connection")?;
    let broken = |_| "the connection broke".to_owned();
    socket.set_read_timeout(Some(HEALTH_TIMEOUT)).map_err(broken)?;
    socket.set_write_timeout(Some(HEALTH_TIMEOUT)).map_err(broken)?;
    let mut connection = ClientConnection::new(Arc::clone(config), name).map_err(|error| error.to_string())?;
    while connection.is_handshaking() {
        connection.complete_io(&mut socket).map_err(|error| {
            match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
                Some(error) => refused(error),
                None => "TLS doesn't come about".to_owned(),
            }
        })?;
    }
    let shown = connection.peer_certificates().and_then(|shown| shown.first()).ok_or("it shows no certificate")?;
    let shown = Certificate::from_der(shown).map_err(|_| "its certificate can't be read".to_owned())?;
    let until = shown.tbs_certificate().validity().not_after.to_unix_duration();
    Ok(i64::try_from(until.as_secs()).unwrap_or(i64::MAX))
}

/// Why a certificate isn't trusted.
fn refused(error: &rustls::Error) -> String {
    match error {
        rustls::Error::InvalidCertificate(why) => match why {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => "the certificate has expired",
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "the certificate isn't valid yet"
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                "the certificate is for another name"
            }
            CertificateError::UnknownIssuer => "nobody whom this machine trusts signed the certificate",
            CertificateError::Revoked => "the certificate was revoked",
            _ => "the certificate isn't valid",
        }
        .to_owned(),
        rustls::Error::AlertReceived(_) => "the server has no certificate for this name".to_owned(),
        _ => "TLS doesn't come about".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};
    use rustls::{RootCertStore, ServerConfig, ServerConnection};

    use super::*;

    const HOST: &str = "shop.example.com";

    /// A server that shows a certificate to whoever connects; where it listens, and who trusts it.
    fn server(change: impl FnOnce(&mut CertificateParams), trusted: bool) -> (SocketAddr, Arc<ClientConfig>) {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut authority = CertificateParams::new(Vec::new()).unwrap();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        authority.distinguished_name.push(DnType::CommonName, "The authority of the tests");
        let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
        let mut params = CertificateParams::new([HOST.to_owned()]).unwrap();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let shown = params.signed_by(&key, &authority).unwrap();
        let mut roots = RootCertStore::empty();
        if trusted {
            roots.add(authority.der().clone()).unwrap();
        } else {
            let other = CertificateParams::new(["other".to_owned()]).unwrap();
            roots.add(other.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()).unwrap();
        }
        let private = rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let config = ServerConfig::builder().with_no_client_auth();
        let config = Arc::new(config.with_single_cert(vec![shown.der().clone()], private).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for mut socket in listener.incoming().flatten() {
                let mut connection = ServerConnection::new(Arc::clone(&config)).unwrap();
                while connection.is_handshaking() && connection.complete_io(&mut socket).is_ok() {}
            }
        });
        let client = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        (address, Arc::new(client))
    }

    fn told(change: impl FnOnce(&mut CertificateParams), trusted: bool) -> Result<i64, String> {
        let (address, config) = server(change, trusted);
        certificate(&config, HOST, &[address])
    }

    #[test]
    fn a_certificate_tells_until_when_it_is_valid() {
        let until = date_time_ymd(2099, 5, 17);
        assert_eq!(told(|params| params.not_after = until, true), Ok(until.unix_timestamp()));
    }

    #[test]
    fn why_a_certificate_is_not_trusted() {
        let expired = |params: &mut CertificateParams| params.not_after = date_time_ymd(2024, 1, 1);
        assert_eq!(told(expired, true).unwrap_err(), "the certificate has expired");
        let early = |params: &mut CertificateParams| params.not_before = date_time_ymd(2098, 1, 1);
        assert_eq!(told(early, true).unwrap_err(), "the certificate isn't valid yet");
        let other = |params: &mut CertificateParams| {
            params.subject_alt_names =
                CertificateParams::new(["other.example.com".to_owned()]).unwrap().subject_alt_names;
        };
        assert_eq!(told(other, true).unwrap_err(), "the certificate is for another name");
        assert_eq!(told(|_| (), false).unwrap_err(), "nobody whom this machine trusts signed the certificate");
    }

    #[test]
    fn a_self_signed_certificate_is_not_trusted_by_this_machine() {
        let (address, _) = server(|_| (), true);
        let network = Network::new().unwrap();
        let refused = certificate(&network.tls, HOST, &[address]).unwrap_err();
        assert_eq!(refused, "nobody whom this machine trusts signed the certificate");
    }

    #[test]
    fn who_does_not_listen_or_speaks_no_tls() {
        let network = Network::new().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for mut socket in listener.incoming().flatten() {
                let _ = std::io::Write::write_all(&mut socket, b"HTTP/1.1 400 Bad Request\r\n\r\n");
            }
        });
        assert_eq!(certificate(&network.tls, HOST, &[address]).unwrap_err(), "TLS doesn't come about");
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        assert_eq!(certificate(&network.tls, HOST, &[free]).unwrap_err(), "no connection");
        assert_eq!(network.get(&format!("http://{free}/")).unwrap_err(), "no connection");
        // Reserved, so that nobody has it.
        assert_eq!(network.resolve("shop.invalid").unwrap_err(), "DNS has no address");
        assert!(network.resolve("localhost").is_ok());
    }
}
