//! Hosts as the network shows them: DNS by the system's resolver, and the certificate that a host presents. Sends no request and
//! judges nothing but whether this machine trusts the certificate.

use std::net::{SocketAddr, TcpStream, ToSocketAddrs as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use rustls::{CertificateError, ClientConfig, ClientConnection};
use rustls_platform_verifier::ConfigVerifierExt as _;
use x509_cert::Certificate;
use x509_cert::der::Decode as _;

/// The port of HTTPS.
const HTTPS: u16 = 443;

/// The names and certificates of hosts, with the authorities that this machine trusts.
pub struct Hosts {
    tls: Arc<ClientConfig>,
    connect: Duration,
    total: Duration,
}

impl Hosts {
    /// Returns a checker that gives a connection up after `connect`, and a handshake after `total`.
    pub fn new(connect: Duration, total: Duration) -> Result<Hosts, String> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let tls = ClientConfig::with_platform_verifier().map_err(|error| error.to_string())?;
        Ok(Hosts { tls: Arc::new(tls), connect, total })
    }

    /// Looks a host up. The error is the reason why it has no address.
    pub fn resolve(&self, host: &str) -> Result<(), String> {
        addresses(host).map(|_| ())
    }

    /// Returns the time until which the certificate of a host is valid, in seconds since 1970; or why it isn't trusted.
    pub fn certificate(&self, host: &str) -> Result<i64, String> {
        self.certificate_at(host, &addresses(host)?)
    }

    fn certificate_at(&self, host: &str, addresses: &[SocketAddr]) -> Result<i64, String> {
        let name = ServerName::try_from(host.to_owned()).map_err(|_| "not a host name".to_owned())?;
        let connect = |address: &SocketAddr| TcpStream::connect_timeout(address, self.connect).ok();
        let mut socket = addresses.iter().find_map(connect).ok_or("no connection")?;
        let mut connection = ClientConnection::new(Arc::clone(&self.tls), name).map_err(|error| error.to_string())?;
        let end = Instant::now() + self.total;
        while connection.is_handshaking() {
            // What is left of the time, so that a host that sends a byte now and then gets no more of it.
            let left = end.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
            let broken = |_| "the connection broke".to_owned();
            socket.set_read_timeout(Some(left)).map_err(broken)?;
            socket.set_write_timeout(Some(left)).map_err(broken)?;
            if Instant::now() >= end {
                return Err("the TLS connection fails".to_owned());
            }
            handshake(&mut connection, &mut socket)?;
        }
        // Its last message was not sent to the host, which doesn't matter here.
        let _ = connection.write_tls(&mut socket);
        let shown =
            connection.peer_certificates().and_then(|shown| shown.first()).ok_or("the server shows no certificate")?;
        let shown = Certificate::from_der(shown).map_err(|_| "its certificate can't be read".to_owned())?;
        let until = shown.tbs_certificate().validity().not_after.to_unix_duration();
        Ok(i64::try_from(until.as_secs()).unwrap_or(i64::MAX))
    }
}

/// Reads or writes once.
fn handshake(connection: &mut ClientConnection, socket: &mut TcpStream) -> Result<(), String> {
    let result = match connection.wants_write() {
        true => connection.write_tls(socket).map(|_| ()),
        false => match connection.read_tls(socket) {
            Ok(0) => Err(std::io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => {
                let processed = connection.process_new_packets().map(|_| ());
                if processed.is_err() {
                    // The alert that tells the host why.
                    let _ = connection.write_tls(socket);
                }
                return processed.map_err(|error| refused(&error));
            }
            Err(error) => Err(error),
        },
    };
    result.map_err(|_| "the TLS connection fails".to_owned())
}

fn addresses(host: &str) -> Result<Vec<SocketAddr>, String> {
    // The resolver's message differs between systems, and doesn't help.
    let found: Vec<SocketAddr> = (host, HTTPS).to_socket_addrs().map(Iterator::collect).unwrap_or_default();
    if found.is_empty() { Err("DNS has no address".to_owned()) } else { Ok(found) }
}

/// Returns the reason why a certificate isn't trusted.
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
            CertificateError::UnknownIssuer => "the certificate is not signed by an authority that this machine trusts",
            CertificateError::Revoked => "the certificate was revoked",
            _ => "the certificate isn't valid",
        }
        .to_owned(),
        rustls::Error::AlertReceived(_) => "the server has no certificate for this name".to_owned(),
        _ => "the TLS connection fails".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};
    use rustls::{RootCertStore, ServerConfig, ServerConnection};

    use super::*;

    const HOST: &str = "shop.example.com";

    /// A server that shows a certificate to every client; its address, and the roots that trust it.
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

    fn checked(change: impl FnOnce(&mut CertificateParams), trusted: bool) -> Result<i64, String> {
        let (address, tls) = server(change, trusted);
        Hosts { tls, ..hosts() }.certificate_at(HOST, &[address])
    }

    fn hosts() -> Hosts {
        Hosts::new(Duration::from_secs(10), Duration::from_secs(10)).unwrap()
    }

    #[test]
    fn a_certificate_tells_until_when_it_is_valid() {
        let until = date_time_ymd(2099, 5, 17);
        assert_eq!(checked(|params| params.not_after = until, true), Ok(until.unix_timestamp()));
    }

    #[test]
    fn why_a_certificate_is_not_trusted() {
        let expired = |params: &mut CertificateParams| params.not_after = date_time_ymd(2024, 1, 1);
        assert_eq!(checked(expired, true).unwrap_err(), "the certificate has expired");
        let early = |params: &mut CertificateParams| params.not_before = date_time_ymd(2098, 1, 1);
        assert_eq!(checked(early, true).unwrap_err(), "the certificate isn't valid yet");
        let other = |params: &mut CertificateParams| {
            params.subject_alt_names =
                CertificateParams::new(["other.example.com".to_owned()]).unwrap().subject_alt_names;
        };
        assert_eq!(checked(other, true).unwrap_err(), "the certificate is for another name");
        assert_eq!(
            checked(|_| (), false).unwrap_err(),
            "the certificate is not signed by an authority that this machine trusts"
        );
    }

    #[test]
    fn a_self_signed_certificate_is_not_trusted_by_this_machine() {
        let (address, _) = server(|_| (), true);
        let refused = hosts().certificate_at(HOST, &[address]).unwrap_err();
        assert_eq!(refused, "the certificate is not signed by an authority that this machine trusts");
    }

    #[test]
    fn who_does_not_listen_or_speaks_no_tls() {
        let hosts = hosts();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for mut socket in listener.incoming().flatten() {
                let _ = std::io::Write::write_all(&mut socket, b"HTTP/1.1 400 Bad Request\r\n\r\n");
            }
        });
        assert_eq!(hosts.certificate_at(HOST, &[address]).unwrap_err(), "the TLS connection fails");
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        assert_eq!(hosts.certificate_at(HOST, &[free]).unwrap_err(), "no connection");
        // Reserved, so that nobody has it.
        assert_eq!(hosts.resolve("shop.invalid").unwrap_err(), "DNS has no address");
        assert!(hosts.resolve("localhost").is_ok());
    }
    #[test]
    fn a_host_that_sends_a_byte_now_and_then_is_given_up() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let (mut socket, _) = listener.accept().unwrap();
            // The head of a record of 16 KiB, which never comes to its end.
            let head = [22, 3, 3, 0x40, 0];
            for byte in head.into_iter().chain(std::iter::repeat(0)) {
                if std::io::Write::write_all(&mut socket, &[byte]).is_err() {
                    break;
                }
                std::thread::sleep(Duration::from_millis(50));
            }
        });
        let start = Instant::now();
        let hosts = Hosts { total: Duration::from_millis(400), ..hosts() };
        assert_eq!(hosts.certificate_at(HOST, &[address]).unwrap_err(), "the TLS connection fails");
        assert!((400..5000).contains(&start.elapsed().as_millis()), "{:?}", start.elapsed());
    }
}
