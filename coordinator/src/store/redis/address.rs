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

use std::str::FromStr;

pub use redrive_link::address::{AddressError, Secret, Tls};
use redrive_link::address::{nodes, password, read_tls, show, split, user};
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
        let parts = split(rest)?;
        let default_port = if scheme == Scheme::Sentinel { SENTINEL_PORT } else { REDIS_PORT };
        let nodes = nodes(parts.hosts, default_port)?;
        if scheme == Scheme::Single && nodes.len() > 1 {
            return Err(AddressError::new(format!(
                "{name}:// takes one host; several are written {name}+cluster://h1,h2 or {name}+sentinel://h1,h2/service"
            )));
        }
        let query = parse::query(parts.query, scheme)?;
        let (username, in_url) = user(parts.user)?;
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
        let tls = read_tls(tls, query.ca, ("redis", "rediss"))?;
        Ok(Self { kind, nodes, tls, username, password, database })
    }
}

fn password_of_sentinel(text: Option<String>, file: Option<String>) -> Result<Option<Secret>, AddressError> {
    password("sentinel_password", text.map(Secret::new), file.as_deref())
}

#[cfg(test)]
mod tests;
