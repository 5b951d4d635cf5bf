//! The program against a device with TLS, whose certificate nobody but itself has signed.
#![allow(clippy::unwrap_used, reason = "this is a test")]

#[path = "../program/mod.rs"]
mod program;

use program::Run;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use sha2::{Digest, Sha256};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

// Made by: openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout key.pem
// -out certificate.pem -days 36500 -subj "/CN=plug of the tests" -addext subjectAltName=IP:127.0.0.1
// -addext basicConstraints=critical,CA:FALSE
const CERTIFICATE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tls/certificate.pem");
const KEY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tls/key.pem");

/// A program that has not ended by then never will.
const PATIENCE: Duration = Duration::from_secs(300);

/// A device that is always off; returns its port.
fn device() -> u16 {
    let certificate = CertificateDer::from_pem_file(CERTIFICATE).unwrap();
    let key = PrivateKeyDer::from_pem_file(KEY).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
            let mut stream = StreamOwned::new(connection, stream);
            let (mut head, mut byte) = (Vec::new(), [0]);
            while !head.ends_with(b"\r\n\r\n")
                && stream.read(&mut byte).is_ok_and(|count| count == 1)
            {
                head.push(byte[0]);
            }
            // A client that does not believe the certificate has gone.
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\noff");
            let _ = stream.flush();
        }
    });
    port
}

fn status(port: u16, options: &str) -> Run {
    let input = format!(
        "action=status\ntype=http\nip=127.0.0.1\nipport={port}\npower_off_url=/0\npower_on_url=/1\n\
         status_url=/\nstatus_on_regex=^on$\nstatus_off_regex=^off$\npower_timeout=1\n{options}\n"
    );
    program::run(&[], &input, PATIENCE)
}

#[test]
fn a_certificate_is_believed_only_where_that_was_asked_for() {
    let port = device();
    let certificate = CertificateDer::from_pem_file(CERTIFICATE).unwrap();
    let digest = Sha256::digest(certificate.as_ref());
    let right: String = digest.iter().map(|byte| format!("{byte:02X}")).collect();
    let wrong = "00".repeat(32);
    for (options, code) in [
        ("ssl=1\nssl_insecure=1".to_string(), 2),
        ("ssl_insecure=1".to_string(), 2),
        (format!("ssl=1\nssl_fingerprint={right}"), 2),
        (format!("ssl=1\nssl_ca_file={CERTIFICATE}"), 2),
        ("ssl=1".to_string(), 1),
        ("ssl_secure=1".to_string(), 1),
        (format!("ssl=1\nssl_fingerprint={wrong}"), 1),
        ("ssl=1\nssl_ca_file=/dev/null".to_string(), 1),
        (format!("ssl=1\nssl_ca_file={KEY}"), 1),
        // No TLS at all.
        ("ssl=0".to_string(), 1),
    ] {
        let Run { code: seen, stdout, stderr } = status(port, &options);
        assert_eq!(seen, Some(code), "{options}: {stdout}{stderr}");
        assert_eq!(stderr.lines().count(), if code == 1 { 1 } else { 0 }, "{options}: {stderr}");
    }
}
