//! Where a shared store is: a URL, read once, with errors that say how it should look.
//!
//! ```text
//! redis://[user[:password]@]host[:6379][/database]
//! redis+sentinel://[user:password@]h1[:26379],h2,h3/service[?db=0&sentinel_username=…&sentinel_password=…]
//! redis+cluster://[user:password@]h1[:6379],h2…
//! ```
//!
//! `rediss…` is the same over TLS; `?ca=/path.pem` replaces the system's roots. `?password_file=/path` keeps the password
//! out of the URL. Neither errors nor `Display` nor `Debug` ever show one; a port that is not a number is not shown either,
//! since it may be the tail of a password.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use redrive_shared::error::suggest;

mod parse;

/// The port of a Redis server.
const REDIS_PORT: u16 = 6379;
/// The port of a Sentinel.
const SENTINEL_PORT: u16 = 26379;
/// Every scheme, with whether it means TLS.
const SCHEMES: [(&str, Scheme, bool); 6] = [
    ("redis", Scheme::Single, false),
    ("rediss", Scheme::Single, true),
    ("redis+sentinel", Scheme::Sentinel, false),
    ("rediss+sentinel", Scheme::Sentinel, true),
    ("redis+cluster", Scheme::Cluster, false),
    ("rediss+cluster", Scheme::Cluster, true),
];

/// What is wrong with an address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct AddressError(String);

impl AddressError {
    fn new(text: impl Into<String>) -> Self {
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

/// Which kind of installation an address names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// One server, or a name that always leads to the master.
    Single,
    /// A master that Sentinels choose.
    Sentinel {
        /// The name that they know it by.
        service: String,
        /// Who asks the Sentinels.
        username: Option<String>,
        /// With what password.
        password: Option<Secret>,
    },
    /// A Redis Cluster.
    Cluster,
}

/// A store's address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// The kind of installation.
    pub kind: Kind,
    /// Host (IPv6 without brackets) and port: the server, the Sentinels, or some of the cluster's nodes. Never empty.
    pub nodes: Vec<(String, u16)>,
    /// Whether to speak TLS, and whom to trust.
    pub tls: Option<Tls>,
    /// The ACL user.
    pub username: Option<String>,
    /// The password.
    pub password: Option<Secret>,
    /// The number of the database, from 0. Always 0 in a cluster.
    pub database: i64,
}

impl Address {
    /// The nodes as people write them: `10.0.0.1:6379,[::1]:6380`.
    pub fn hosts(&self) -> String {
        self.nodes.iter().map(|(host, port)| show(host, *port)).collect::<Vec<_>>().join(",")
    }
}

/// `host:port`, with brackets where the host is an IPv6 address.
pub(crate) fn show(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.tls.is_some() { "rediss" } else { "redis" })?;
        f.write_str(match self.kind {
            Kind::Single => "://",
            Kind::Sentinel { .. } => "+sentinel://",
            Kind::Cluster => "+cluster://",
        })?;
        match (&self.username, &self.password) {
            (Some(user), Some(password)) => write!(f, "{user}:{password}@")?,
            (Some(user), None) => write!(f, "{user}@")?,
            (None, Some(password)) => write!(f, ":{password}@")?,
            (None, None) => {}
        }
        f.write_str(&self.hosts())?;
        match &self.kind {
            Kind::Single if self.database != 0 => write!(f, "/{}", self.database),
            Kind::Sentinel { service, .. } if self.database != 0 => {
                write!(f, "/{service}?db={}", self.database)
            }
            Kind::Sentinel { service, .. } => write!(f, "/{service}"),
            Kind::Single | Kind::Cluster => Ok(()),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Scheme {
    Single,
    Sentinel,
    Cluster,
}

/// What may follow the `?`.
#[derive(Default)]
struct Query {
    ca: Option<String>,
    password_file: Option<String>,
    database: Option<String>,
    sentinel_username: Option<String>,
    sentinel_password: Option<String>,
    sentinel_password_file: Option<String>,
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(url: &str) -> Result<Self, AddressError> {
        let (name, rest) = url.trim().split_once("://").ok_or_else(|| {
            AddressError::new("a store's address begins with a scheme, for example redis://127.0.0.1:6379")
        })?;
        let (scheme, tls) = parse::scheme(name)?;
        let parts = parse::split(rest)?;
        let default_port = if scheme == Scheme::Sentinel { SENTINEL_PORT } else { REDIS_PORT };
        let nodes = parse::nodes(parts.hosts, default_port)?;
        if scheme == Scheme::Single && nodes.len() > 1 {
            return Err(AddressError::new(format!(
                "{name}:// takes one host; several are written {name}+cluster://h1,h2 or {name}+sentinel://h1,h2/service"
            )));
        }
        let query = parse::query(parts.query, scheme)?;
        let (username, in_url) = parse::user(parts.user)?;
        let database = parse::database(scheme, parts.path, query.database.as_deref())?;
        let password = password("password", in_url.map(Secret::new), query.password_file.as_deref())?;
        let kind = match scheme {
            Scheme::Single => Kind::Single,
            Scheme::Cluster => Kind::Cluster,
            Scheme::Sentinel => Kind::Sentinel {
                service: parse::service(parts.path)?,
                username: query.sentinel_username,
                password: password_of_sentinel(query.sentinel_password, query.sentinel_password_file)?,
            },
        };
        let tls = read_tls(tls, query.ca)?;
        Ok(Self { kind, nodes, tls, username, password, database })
    }
}

fn password_of_sentinel(text: Option<String>, file: Option<String>) -> Result<Option<Secret>, AddressError> {
    password("sentinel_password", text.map(Secret::new), file.as_deref())
}

/// The password from the URL or the file, not both.
fn password(what: &str, given: Option<Secret>, file: Option<&str>) -> Result<Option<Secret>, AddressError> {
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

fn read_tls(tls: bool, ca: Option<String>) -> Result<Option<Tls>, AddressError> {
    match (tls, ca) {
        (false, None) => Ok(None),
        (false, Some(_)) => {
            Err(AddressError::new("ca is for TLS: begin the address with rediss instead of redis"))
        }
        (true, None) => Ok(Some(Tls::default())),
        (true, Some(path)) => {
            let pem = std::fs::read(Path::new(&path))
                .map_err(|error| AddressError::new(format!("cannot read ca {path}: {error}")))?;
            Ok(Some(Tls { ca: Some((PathBuf::from(path), pem)) }))
        }
    }
}

#[cfg(test)]
mod tests;
