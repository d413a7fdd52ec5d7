//! The pieces that addresses of servers are made of, whatever speaks there: hosts, user, password, TLS.
//!
//! Neither errors nor `Display` nor `Debug` ever show a password; a port that is not a number is not shown either, since it
//! may be the tail of one.

use std::path::{Path, PathBuf};

/// What is wrong with an address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct AddressError(String);

impl AddressError {
    /// With that text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

/// A password. Never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Keeps it.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The password itself, for the server's eyes.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

impl std::fmt::Display for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

/// How to trust the server's certificate.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Tls {
    /// The authority's certificates (PEM) and the file they came from; the system's roots when missing.
    pub ca: Option<(PathBuf, Vec<u8>)>,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").field("ca", &self.ca.as_ref().map(|(path, _)| path)).finish()
    }
}

/// An address cut where its punctuation is. Nothing is decoded yet.
pub struct Parts<'a> {
    /// Before the `@`.
    pub user: Option<&'a str>,
    /// Hosts with ports, with commas between them.
    pub hosts: &'a str,
    /// After the first `/`.
    pub path: &'a str,
    /// After the `?`.
    pub query: &'a str,
}

/// Cuts what follows `scheme://`.
pub fn split(rest: &str) -> Result<Parts<'_>, AddressError> {
    if rest.contains('#') {
        return Err(AddressError::new("an address has no part after a #; in a password write it %23"));
    }
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, tail) = rest.split_at(end);
    let (path, query) = tail.split_once('?').unwrap_or((tail, ""));
    // A password with a bare / or ? cuts the address in the middle of itself: nothing of it may be shown.
    if !authority.contains('@') && authority.contains(':') && path.contains('@') {
        return Err(AddressError::new("a / or ? in the password must be written %2F or %3F"));
    }
    let (user, hosts) = match authority.rsplit_once('@') {
        Some((user, hosts)) => (Some(user), hosts),
        None => (None, authority),
    };
    Ok(Parts { user, hosts, path: path.strip_prefix('/').unwrap_or(path), query })
}

/// Hosts and ports.
pub fn nodes(text: &str, default_port: u16) -> Result<Vec<(String, u16)>, AddressError> {
    text.split(',').map(|node| self::node(node, default_port)).collect()
}

fn node(text: &str, default_port: u16) -> Result<(String, u16), AddressError> {
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let (host, after) = rest
            .split_once(']')
            .ok_or_else(|| AddressError::new("an IPv6 address needs its closing bracket: [::1]:1234"))?;
        if host.parse::<std::net::Ipv6Addr>().is_err() {
            return Err(AddressError::new("what is in brackets is not an IPv6 address, as in [::1]:1234"));
        }
        match after.strip_prefix(':') {
            Some(port) => (host, Some(port)),
            None if after.is_empty() => (host, None),
            None => return Err(AddressError::new("after ] comes nothing or a port: [::1]:1234")),
        }
    } else {
        match text.split_once(':') {
            Some((_, port)) if port.contains(':') => {
                return Err(AddressError::new("an IPv6 address stands in brackets: [::1]:1234"));
            }
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        }
    };
    if host.is_empty() {
        return Err(AddressError::new("the host is empty; write it as in 127.0.0.1"));
    }
    if host.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err(AddressError::new("a host has no spaces"));
    }
    let port = match port {
        None => default_port,
        // The text is not shown: without an @ it may be a password.
        Some(port) => port.parse().ok().filter(|port| *port != 0).ok_or_else(|| {
            AddressError::new(format!("the port after {host:?} is not a number from 1 to 65535"))
        })?,
    };
    Ok((host.to_owned(), port))
}

/// User and password.
pub fn user(text: Option<&str>) -> Result<(Option<String>, Option<String>), AddressError> {
    let Some(text) = text else { return Ok((None, None)) };
    let (user, password) = match text.split_once(':') {
        Some((user, password)) => (user, Some(password)),
        None => (text, None),
    };
    let filled = |text: String| Some(text).filter(|text| !text.is_empty());
    let user = filled(decode(user, "the user")?);
    let password = password.map(|text| decode(text, "the password")).transpose()?.and_then(filled);
    Ok((user, password))
}

/// `host:port`, with brackets where the host is an IPv6 address.
pub fn show(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// The password from the URL or the file, not both.
pub fn password(
    what: &str,
    given: Option<Secret>,
    file: Option<&str>,
) -> Result<Option<Secret>, AddressError> {
    match (given, file) {
        (Some(_), Some(_)) => Err(AddressError::new(format!(
            "the address has a {what} and a {what}_file; leave out one of them"
        ))),
        (given, None) => Ok(given),
        (None, Some(file)) => {
            let text = std::fs::read_to_string(file)
                .map_err(|error| AddressError::new(format!("cannot read {what}_file {file}: {error}")))?;
            let text = text.strip_suffix('\n').unwrap_or(&text);
            let text = text.strip_suffix('\r').unwrap_or(text);
            if text.is_empty() {
                return Err(AddressError::new(format!("{what}_file {file} is empty")));
            }
            Ok(Some(Secret::new(text)))
        }
    }
}

/// Whom to trust, where TLS is spoken; `scheme` is the plain and the TLS name of what the address begins with.
pub fn read_tls(tls: bool, ca: Option<String>, scheme: (&str, &str)) -> Result<Option<Tls>, AddressError> {
    match (tls, ca) {
        (false, None) => Ok(None),
        (false, Some(_)) => {
            let (plain, over_tls) = scheme;
            Err(AddressError::new(format!(
                "ca is for TLS: begin the address with {over_tls} instead of {plain}"
            )))
        }
        (true, None) => Ok(Some(Tls::default())),
        (true, Some(path)) => {
            let pem = std::fs::read(Path::new(&path))
                .map_err(|error| AddressError::new(format!("cannot read ca {path}: {error}")))?;
            Ok(Some(Tls { ca: Some((PathBuf::from(path), pem)) }))
        }
    }
}

/// Writes every byte but letters, digits and `-._~` as `%` and two hexadecimal digits: no punctuation of an address is left.
pub fn encode(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let encoded = |byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    text.bytes().map(encoded).collect()
}

/// Undoes percent-encoding.
pub fn decode(text: &str, what: &str) -> Result<String, AddressError> {
    let bad = || AddressError::new(format!("{what} has a % that is not followed by two hexadecimal digits"));
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|byte| char::from(byte).to_digit(16)).ok_or_else(bad);
        let (high, low) = (digit()?, digit()?);
        bytes.push(u8::try_from(high * 16 + low).map_err(|_| bad())?);
    }
    String::from_utf8(bytes).map_err(|_| AddressError::new(format!("{what} is not UTF-8")))
}
