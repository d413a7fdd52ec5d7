//! Where blobs are kept: one text, read once, with errors that say how it should look.
//!
//! ```text
//! files:DIRECTORY                                       JSON files
//! sqlite:FILE                                           an SQLite file of its own
//! postgres://[user[:password]@]host[:5432]/database     [?schema=NAME] [?sslmode=disable|require] [?ca=FILE] [?password_file=FILE]
//! file:///DIRECTORY                                     files, as object storage
//! s3://bucket[/prefix]                                  S3 and what speaks like it
//! ```

use std::path::PathBuf;
use std::str::FromStr;

use redrive_link::address::{
    AddressError, Secret, Tls, decode, nodes, password, read_tls, show, split, user,
};
use redrive_shared::error::suggest;

const SCHEMES: [&str; 5] = ["files:", "sqlite:", "postgres://", "file://", "s3://"];
const POSTGRES_PORT: u16 = 5432;
/// PostgreSQL cuts longer names.
const SCHEMA_MAX_BYTES: usize = 63;

/// Where blobs are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BlobsAddress {
    /// JSON files below a directory.
    Files(PathBuf),
    /// An SQLite file.
    Sqlite(PathBuf),
    /// PostgreSQL.
    Postgres(Box<PostgresAddress>),
    /// Files below a directory, as object storage.
    Local(PathBuf),
    /// S3, or what speaks like it. Endpoint, region and credentials are the environment's.
    S3 {
        /// The bucket.
        bucket: String,
        /// What every key begins with; may be empty.
        prefix: String,
    },
}

/// A database of PostgreSQL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PostgresAddress {
    /// Hosts (IPv6 without brackets) and ports; whichever answers and takes writes. Never empty.
    pub nodes: Vec<(String, u16)>,
    /// The user.
    pub user: String,
    /// Its password.
    pub password: Option<Secret>,
    /// The database.
    pub database: String,
    /// The schema of the tables; what the user's search path says without it.
    pub schema: Option<String>,
    /// Whether to speak TLS, and whom to trust.
    pub tls: Option<Tls>,
}

impl std::fmt::Display for BlobsAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Files(directory) => write!(f, "files:{}", directory.display()),
            Self::Sqlite(file) => write!(f, "sqlite:{}", file.display()),
            Self::Postgres(address) => address.fmt(f),
            Self::Local(directory) => write!(f, "file://{}", directory.display()),
            Self::S3 { bucket, prefix } if prefix.is_empty() => write!(f, "s3://{bucket}"),
            Self::S3 { bucket, prefix } => write!(f, "s3://{bucket}/{prefix}"),
        }
    }
}

impl std::fmt::Display for PostgresAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let password = if self.password.is_some() { ":***" } else { "" };
        let nodes: Vec<String> = self.nodes.iter().map(|(host, port)| show(host, *port)).collect();
        write!(f, "postgres://{}{password}@{}/{}", self.user, nodes.join(","), self.database)?;
        self.schema.as_ref().map_or(Ok(()), |schema| write!(f, "?schema={schema}"))
    }
}

impl FromStr for BlobsAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let text = text.trim();
        if let Some(rest) = text.strip_prefix("postgres://").or_else(|| text.strip_prefix("postgresql://")) {
            return Ok(Self::Postgres(Box::new(postgres(rest)?)));
        }
        if let Some(rest) = text.strip_prefix("s3://") {
            return s3(rest);
        }
        if let Some(rest) = text.strip_prefix("file://") {
            let path = decode(rest, "the directory")?;
            if !path.starts_with('/') {
                return Err(AddressError::new(
                    "file:// takes a whole path, with three slashes: file:///srv/blobs",
                ));
            }
            return Ok(Self::Local(path.into()));
        }
        let kind: fn(PathBuf) -> Self = match text {
            _ if text.starts_with("files:") => Self::Files,
            _ if text.starts_with("sqlite:") => Self::Sqlite,
            _ => return Err(unknown(text)),
        };
        match text.split_once(':') {
            Some((_, path)) if !path.is_empty() => Ok(kind(path.into())),
            _ => Err(AddressError::new(format!("{text} is followed by a path: {text}/srv/redrive-blobs"))),
        }
    }
}

fn unknown(text: &str) -> AddressError {
    // What stands before the colon is shown at most: the rest may have a password.
    let scheme = text.split_once(':').map(|(scheme, _)| scheme);
    let near = scheme
        .and_then(|scheme| suggest(scheme, SCHEMES.iter().filter_map(|known| known.split(':').next())))
        .map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
    AddressError::new(format!(
        "blobs are kept at an address that begins with one of {}{near}",
        SCHEMES.join(" ")
    ))
}

fn s3(rest: &str) -> Result<BlobsAddress, AddressError> {
    if rest.contains(['?', '#', '@']) {
        return Err(AddressError::new(
            "s3:// takes a bucket and a prefix: s3://bucket/prefix; endpoint, region and credentials come from the environment \
             (AWS_ENDPOINT_URL, AWS_REGION, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY)",
        ));
    }
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    if bucket.is_empty() {
        return Err(AddressError::new("s3:// is followed by a bucket: s3://bucket/prefix"));
    }
    let prefix = prefix.trim_end_matches('/');
    if !prefix.is_empty() && prefix.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Err(AddressError::new(
            "the prefix of s3://bucket/prefix has single slashes, and no . or .. as a part",
        ));
    }
    Ok(BlobsAddress::S3 { bucket: bucket.to_owned(), prefix: prefix.to_owned() })
}

/// What may stand behind the `?`.
#[derive(Default)]
struct Options {
    schema: Option<String>,
    sslmode: Option<String>,
    ca: Option<String>,
    password_file: Option<String>,
}

fn options(query: &str) -> Result<Options, AddressError> {
    let mut options = Options::default();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let known = match name {
            "schema" => &mut options.schema,
            "sslmode" => &mut options.sslmode,
            "ca" => &mut options.ca,
            "password_file" => &mut options.password_file,
            _ => {
                return Err(AddressError::new(format!(
                    "there is no option {name:?} here; known: schema, sslmode, ca, password_file"
                )));
            }
        };
        *known = Some(decode(value, name)?);
    }
    Ok(options)
}

fn postgres(rest: &str) -> Result<PostgresAddress, AddressError> {
    let parts = split(rest)?;
    let nodes = nodes(parts.hosts, POSTGRES_PORT)?;
    let (user, given) = user(parts.user)?;
    let options = options(parts.query)?;
    let database = decode(parts.path, "the database")?;
    if database.is_empty() || database.contains('/') {
        return Err(AddressError::new("the address ends with a database: postgres://user@host/database"));
    }
    if let Some(schema) = &options.schema {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        if schema.is_empty() || schema.len() > SCHEMA_MAX_BYTES || !schema.chars().all(plain) {
            return Err(AddressError::new(
                "schema is a name of lower-case letters, digits and _, of up to 63 bytes",
            ));
        }
    }
    let local = nodes.iter().all(|(host, _)| is_loopback(host));
    let tls = match options.sslmode.as_deref() {
        Some("disable") => false,
        Some("require" | "verify-full") => true,
        // Passwords and what agents know cross no network in clear unless somebody says so.
        None => !local || options.ca.is_some(),
        Some(_) => {
            return Err(AddressError::new(
                "sslmode is disable, or require: then the server's certificate is checked, by the system's authorities or by ca=FILE",
            ));
        }
    };
    Ok(PostgresAddress {
        nodes,
        user: user.unwrap_or_else(|| "postgres".to_owned()),
        password: password("password", given.map(Secret::new), options.password_file.as_deref())?,
        database,
        schema: options.schema,
        tls: read_tls(tls, options.ca, ("sslmode=disable", "sslmode=require"))?,
    })
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> BlobsAddress {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn addresses_are_read_and_shown_without_passwords() {
        for text in
            ["files:/srv/b", "files:b", "sqlite:b.sqlite", "file:///srv/b", "s3://bucket", "s3://bucket/a/b"]
        {
            assert_eq!(address(text).to_string(), text);
        }
        assert_eq!(address("s3://bucket/a/").to_string(), "s3://bucket/a");
        let text = "postgres://me:secret%21@db.example,[::1]:5433/blobs?schema=redrive_1&sslmode=disable";
        let BlobsAddress::Postgres(read) = address(text) else { panic!("{text}") };
        assert_eq!(read.password.as_ref().map(Secret::reveal), Some("secret!"));
        assert_eq!(read.nodes, [("db.example".to_owned(), 5432), ("::1".to_owned(), 5433)]);
        assert_eq!(read.to_string(), "postgres://me:***@db.example:5432,[::1]:5433/blobs?schema=redrive_1");
        assert!(!format!("{read:?}").contains("secret"));
    }

    #[test]
    fn what_crosses_a_network_is_encrypted_unless_somebody_says_otherwise() {
        let tls = |text: &str| match address(text) {
            BlobsAddress::Postgres(read) => read.tls.is_some(),
            _ => panic!("{text}"),
        };
        assert!(tls("postgres://db.example/b") && tls("postgres://127.0.0.1,db.example/b"));
        assert!(
            !tls("postgres://127.0.0.1/b") && !tls("postgresql://localhost/b") && !tls("postgres://[::1]/b")
        );
        assert!(
            !tls("postgres://db.example/b?sslmode=disable") && tls("postgres://localhost/b?sslmode=require")
        );
    }

    #[test]
    fn what_is_no_address_is_refused_with_how_it_should_look() {
        for (text, says) in [
            ("", "begins with one of"),
            ("s4://bucket", "did you mean `s3`?"),
            ("/srv/blobs", "begins with one of"),
            ("files:", "followed by a path"),
            ("file://srv", "three slashes"),
            ("s3://", "followed by a bucket"),
            ("s3://key:hidden@bucket", "come from the environment"),
            ("s3://bucket/a//b", "single slashes"),
            ("postgres://localhost", "ends with a database"),
            ("postgres://localhost/b?schema=A", "lower-case"),
            ("postgres://localhost/b?sslmode=prefer", "sslmode is disable, or require"),
            ("postgres://localhost/b?shcema=a", "known: schema"),
            ("postgres://localhost/b?sslmode=disable&ca=/x", "sslmode=require instead of"),
            ("postgres://me:hidden@localhost:x/b", "port"),
        ] {
            let error = text.parse::<BlobsAddress>().unwrap_err().to_string();
            assert!(error.contains(says), "{text}: {error}");
            assert!(!error.contains("hidden"), "{error}");
        }
    }
}
