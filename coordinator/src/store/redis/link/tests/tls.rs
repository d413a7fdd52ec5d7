//! TLS.

use std::path::Path;
use std::process::{Command, Stdio};

use super::server::{Server, count, free_port, open, quick, said};
use crate::store::redis::address::Address;
use crate::store::redis::link::{Hint, Link};

fn openssl(dir: &Path, args: &str) {
    let status = Command::new("openssl")
        .args(args.split(' '))
        .current_dir(dir)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .expect("openssl is installed");
    assert!(status.success(), "openssl {args}");
}

/// An authority, and a certificate of it for 127.0.0.1.
fn certificates(dir: &Path) {
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    openssl(dir, &format!("req -x509 {key} -keyout ca.key -out ca.pem -days 2 -subj /CN=ca"));
    openssl(dir, &format!("req {key} -keyout server.key -out server.csr -subj /CN=server"));
    std::fs::write(dir.join("names"), "subjectAltName=IP:127.0.0.1\n").unwrap();
    openssl(
        dir,
        "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out server.pem -days 2 -extfile names",
    );
}

#[tokio::test]
async fn tls_is_spoken_and_the_certificate_checked() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let dir = tempfile::tempdir().unwrap();
    certificates(dir.path());
    let file = |name: &str| dir.path().join(name).display().to_string();
    let port = free_port();
    let listen = ["--port", "0", "--tls-port", &port.to_string()];
    let (cert, key, ca) = (file("server.pem"), file("server.key"), file("ca.pem"));
    let options = ["--tls-cert-file", &cert, "--tls-key-file", &key, "--tls-auth-clients", "no"];
    let _server = Server::start_on(port, &listen, &options).await;
    let url = format!("rediss://127.0.0.1:{port}");
    let link = open(&format!("{url}?ca={ca}"), quick()).await;
    assert_eq!(count(&link, "k").await.unwrap(), 1);
    let mut hints = link.hints("news");
    assert_eq!(hints.next().await, Hint::Gap);

    // The system's roots do not know this authority.
    let address: Address = url.parse().unwrap();
    let error = said(Link::open(&address, quick()).await);
    assert!(error.to_lowercase().contains("certificate"), "{error}");
    let plain: Address = format!("redis://127.0.0.1:{port}").parse().unwrap();
    assert!(Link::open(&plain, quick()).await.is_err());
}
