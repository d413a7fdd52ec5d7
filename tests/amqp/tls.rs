//! TLS.

use redrive_coordinator::AmqpConfig;
use redrive_coordinator::amqp::doctor;
use redrive_coordinator::store::doctor::Verdict;

use crate::support::certificates::write_certificates;
use crate::support::port::Port;
use crate::support::rabbit::{RabbitOptions, RabbitServer, VHOST};

#[tokio::test]
async fn tls_is_spoken_and_the_certificate_checked() {
    let directory = tempfile::tempdir().unwrap();
    write_certificates(directory.path());
    let file = |name: &str| directory.path().join(name).display().to_string();
    let port = Port::free();
    let options = RabbitOptions::default()
        .set("listeners.ssl.default", &format!("127.0.0.1:{}", port.number()))
        .set("ssl_options.cacertfile", &file("ca.pem"))
        .set("ssl_options.certfile", &file("server.pem"))
        .set("ssl_options.keyfile", &file("server.key"))
        .set("ssl_options.verify", "verify_none");
    let number = port.number();
    drop(port);
    let server = RabbitServer::with(options).await;
    let plain = server.url_of(VHOST);
    let tls =
        plain.replace("amqp://", "amqps://").replace(&format!(":{}/", server.port()), &format!(":{number}/"));
    // As a coordinator would, from its greeting to queues and messages.
    let trusted = examine(&format!("{tls}?ca={}", file("ca.pem"))).await;
    assert!(trusted.is_empty(), "{trusted:?}");
    let unknown = examine(&tls).await;
    assert!(
        unknown[0].to_lowercase().contains("certificate"),
        "the system's roots do not know it: {unknown:?}"
    );
    let not_spoken = examine(&plain.replace(&format!(":{}/", server.port()), &format!(":{number}/"))).await;
    assert!(!not_spoken.is_empty());
}

/// What the doctor refuses.
async fn examine(url: &str) -> Vec<String> {
    let config = AmqpConfig { url: Some(url.parse().unwrap()), ..AmqpConfig::default() };
    let report = doctor::examine(&config).await;
    let refused = report.findings().iter().filter(|finding| finding.verdict == Verdict::Refused);
    refused.map(ToString::to_string).collect()
}
