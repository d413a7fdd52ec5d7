//! Blobs in PostgreSQL: a row, and a row for each MiB of it. The last statement of an upload says how long the blob is; before
//! it, the blob is not there for anybody.
//!
//! Whoever waits for PostgreSQL waits for a bounded time, and no connection is held while a blob's bytes are waited for.

use std::time::Duration;

use async_trait::async_trait;
use axum::body::Bytes;
use deadpool_postgres::{Manager, ManagerConfig, Object, Pool, PoolError, RecyclingMethod, Runtime};
use futures_util::TryStreamExt;
use redrive_link::address::{Secret, Tls};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use tokio::time::error::Elapsed;
use tokio_postgres::config::{SslMode, TargetSessionAttrs};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Config, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::address::PostgresAddress;
use super::pieces::{cut, read};
use super::{BlobError, BlobKey, BlobStream, Blobs, Result, Stored};

/// Bytes of one chunk; part of the format.
const CHUNK_BYTES: usize = 1024 * 1024;
/// Connections of one coordinator. A server takes 100 by default.
const CONNECTIONS_MAX: usize = 8;
/// For a connection to be made, or to be free.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// For an idle connection to show that it still works.
const RECYCLE_TIMEOUT: Duration = Duration::from_secs(2);
/// For one statement.
const CALL_TIMEOUT: Duration = Duration::from_secs(15);
/// Unacknowledged bytes after which the kernel gives a connection up.
const USER_TIMEOUT: Duration = Duration::from_secs(10);

/// Tables that keep blobs.
#[derive(Clone)]
pub(super) struct PostgresBlobs {
    pool: Pool,
    statements: std::sync::Arc<Statements>,
    shown: String,
}

/// The statements, with the schema in them.
struct Statements {
    begin: String,
    chunk: String,
    finish: String,
    take_back: String,
    find: String,
    read: String,
    remove: String,
    list: String,
}

impl Statements {
    fn of(schema: &str) -> Self {
        let (blobs, chunks) = (format!("{schema}redrive_blobs"), format!("{schema}redrive_blob_chunks"));
        Self {
            begin: format!("INSERT INTO {blobs} (task, blob) VALUES ($1, $2) RETURNING id"),
            chunk: format!("INSERT INTO {chunks} (of_blob, part, bytes) VALUES ($1, $2, $3)"),
            finish: format!("UPDATE {blobs} SET bytes = $2 WHERE id = $1 AND bytes IS NULL"),
            take_back: format!("DELETE FROM {blobs} WHERE id = $1"),
            find: format!(
                "SELECT id, bytes FROM {blobs} WHERE task = $1 AND blob = $2 AND bytes IS NOT NULL"
            ),
            read: format!("SELECT bytes FROM {chunks} WHERE of_blob = $1 AND part = $2"),
            remove: format!(
                "DELETE FROM {blobs} WHERE (task, blob) IN (SELECT * FROM unnest($1::text[], $2::text[]))"
            ),
            list: format!(
                "SELECT task, blob FROM {blobs} WHERE (task, blob) > ($1, $2) ORDER BY task, blob LIMIT $3"
            ),
        }
    }
}

/// Waits for one call on a connection. One that did not answer in time is closed: what else was asked on it would wait too.
macro_rules! ask {
    ($blobs:expr, $method:ident, $($argument:expr),+) => {{
        let client = $blobs.client().await?;
        let answer = tokio::time::timeout(CALL_TIMEOUT, client.$method($($argument),+)).await;
        settle(client, answer)
    }};
    // With a statement that is prepared once a connection.
    ($blobs:expr, prepared $method:ident, $statement:ident, $parameters:expr) => {{
        let client = $blobs.client().await?;
        let calling = async {
            let statement = client.prepare_cached(&$blobs.statements.$statement).await?;
            client.$method(&statement, $parameters).await
        };
        let answer = tokio::time::timeout(CALL_TIMEOUT, calling).await;
        settle(client, answer)
    }};
}

impl PostgresBlobs {
    /// Connects, and makes the schema and the tables if they are not there.
    pub(super) async fn open(address: &PostgresAddress) -> Result<Self> {
        let blobs = Self::reach(address)?;
        let make_schema = match &address.schema {
            Some(schema) => format!("CREATE SCHEMA IF NOT EXISTS {schema};"),
            None => String::new(),
        };
        // Statements that are sent as one are one transaction.
        let tables = include_str!("sql/make_postgres.sql")
            .replace("MAKE_SCHEMA;", &make_schema)
            .replace("SCHEMA.", &prefix(address));
        ask!(blobs, batch_execute, &tables)?;
        Ok(blobs)
    }

    /// Connections that are made when they are needed; nothing is asked yet.
    pub(super) fn reach(address: &PostgresAddress) -> Result<Self> {
        let (config, hosts) = (config(address), u32::try_from(address.nodes.len()).unwrap_or(1));
        let manage = ManagerConfig { recycling_method: RecyclingMethod::Verified };
        let manager = match &address.tls {
            None => Manager::from_config(config, NoTls, manage),
            Some(tls) => Manager::from_config(config, trust(tls)?, manage),
        };
        let pool = Pool::builder(manager)
            .max_size(CONNECTIONS_MAX)
            .wait_timeout(Some(CONNECT_TIMEOUT))
            // One that is silent must not use up the time of the others.
            .create_timeout(Some(CONNECT_TIMEOUT * (hosts + 1)))
            .recycle_timeout(Some(RECYCLE_TIMEOUT))
            .runtime(Runtime::Tokio1)
            .build()
            .map_err(|error| BlobError::Unavailable(error.to_string()))?;
        let statements = Statements::of(&prefix(address)).into();
        Ok(Self { pool, statements, shown: address.to_string() })
    }

    /// What a setting of the server is.
    pub(super) async fn setting(&self, name: &str) -> Result<String> {
        let row = ask!(self, query_one, "SELECT current_setting($1)", &[&name])?;
        row.try_get(0).map_err(|error| failed(&error))
    }

    async fn client(&self) -> Result<Object> {
        self.pool.get().await.map_err(|error| match error {
            PoolError::Backend(error) => failed(&error),
            PoolError::Timeout(_) => BlobError::Unavailable(format!(
                "no connection within {} s: PostgreSQL does not answer, or there are too many calls",
                CONNECT_TIMEOUT.as_secs()
            )),
            other => BlobError::Unavailable(other.to_string()),
        })
    }

    /// All but the beginning, which is taken back when this fails.
    async fn put_chunks(&self, id: i64, body: BlobStream) -> Result<()> {
        let (mut chunks, mut part, mut bytes) = (cut(body, CHUNK_BYTES), 0_i64, 0_i64);
        while let Some(chunk) = chunks.try_next().await? {
            ask!(self, prepared execute, chunk, &[&id, &part, &&chunk[..]])?;
            bytes = bytes.saturating_add_unsigned(chunk.len() as u64);
            part += 1;
        }
        let whole = ask!(self, prepared execute, finish, &[&id, &bytes])?;
        if whole == 1 {
            Ok(())
        } else {
            Err(BlobError::Unavailable("the upload was removed meanwhile".into()))
        }
    }

    async fn chunk(self, id: i64, part: i64) -> Result<Bytes> {
        let row = ask!(self, prepared query_opt, read, &[&id, &part])?;
        let chunk: Vec<u8> =
            row.map_or_else(|| Ok(Vec::new()), |row| row.try_get(0)).map_err(|error| failed(&error))?;
        Ok(Bytes::from(chunk))
    }

    /// Where a whole blob is, and its length.
    async fn find(&self, key: &BlobKey) -> Result<Option<(i64, u64)>> {
        let found = ask!(self, prepared query_opt, find, &[&key.task.as_str(), &key.blob.to_string()])?;
        let Some(row) = found else { return Ok(None) };
        let (id, bytes) = (row.try_get(0), row.try_get::<_, i64>(1));
        let bytes = bytes.map_err(|error| failed(&error))?;
        Ok(Some((id.map_err(|error| failed(&error))?, bytes.unsigned_abs())))
    }
}

#[async_trait]
impl Blobs for PostgresBlobs {
    async fn put(&self, key: &BlobKey, body: BlobStream) -> Result<()> {
        let begun = ask!(self, prepared query_one, begin, &[&key.task.as_str(), &key.blob.to_string()])?;
        let id: i64 = begun.try_get(0).map_err(|error| failed(&error))?;
        let put = self.put_chunks(id, body).await;
        if put.is_err() {
            // What is left where this fails, or is not come to, is found by the next sweep.
            let _left = self.take_back(id).await;
        }
        put
    }

    async fn get(&self, key: &BlobKey) -> Result<Option<Stored>> {
        let Some((id, bytes)) = self.find(key).await? else { return Ok(None) };
        let blobs = self.clone();
        Ok(Some(read(bytes, CHUNK_BYTES as u64, move |range| {
            let part = i64::try_from(range.start / CHUNK_BYTES as u64).unwrap_or(i64::MAX);
            blobs.clone().chunk(id, part)
        })))
    }

    async fn length(&self, key: &BlobKey) -> Result<Option<u64>> {
        Ok(self.find(key).await?.map(|(_, bytes)| bytes))
    }

    async fn remove(&self, keys: &[BlobKey]) -> Result<()> {
        let tasks: Vec<&str> = keys.iter().map(|key| key.task.as_str()).collect();
        let blobs: Vec<String> = keys.iter().map(|key| key.blob.to_string()).collect();
        ask!(self, prepared execute, remove, &[&tasks, &blobs]).map(|_| ())
    }

    async fn list(&self, after: Option<&BlobKey>, most: usize) -> Result<Vec<BlobKey>> {
        let (task, blob) = after.map(|key| (key.task.to_string(), key.blob.to_string())).unwrap_or_default();
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        let rows = ask!(self, prepared query, list, &[&task, &blob, &most])?;
        rows.iter()
            .map(|row| {
                let (task, blob) = (row.try_get(0), row.try_get::<_, String>(1));
                let blob = blob.map_err(|error| failed(&error))?;
                BlobKey::read(task.map_err(|error| failed(&error))?, &blob)
            })
            .collect()
    }

    async fn check(&self) -> Result<()> {
        ask!(self, batch_execute, "SELECT 1")
    }

    fn describe(&self) -> String {
        self.shown.clone()
    }
}

impl PostgresBlobs {
    async fn take_back(&self, id: i64) -> Result<()> {
        ask!(self, prepared execute, take_back, &[&id]).map(|_| ())
    }
}

/// The answer of a call that was waited for.
fn settle<T>(
    client: Object,
    answer: std::result::Result<std::result::Result<T, tokio_postgres::Error>, Elapsed>,
) -> Result<T> {
    match answer {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(failed(&error)),
        Err(Elapsed { .. }) => {
            drop(Object::take(client));
            Err(BlobError::Unavailable(format!("no answer within {} s", CALL_TIMEOUT.as_secs())))
        }
    }
}

/// What the tables' names begin with.
fn prefix(address: &PostgresAddress) -> String {
    address.schema.as_ref().map(|schema| format!("{schema}.")).unwrap_or_default()
}

fn config(address: &PostgresAddress) -> Config {
    let mut config = Config::new();
    for (host, port) in &address.nodes {
        config.host(host).port(*port);
    }
    config
        .user(&address.user)
        .dbname(&address.database)
        .application_name("redrive")
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_user_timeout(USER_TIMEOUT)
        .keepalives_idle(CONNECT_TIMEOUT)
        .target_session_attrs(TargetSessionAttrs::ReadWrite)
        .ssl_mode(if address.tls.is_some() { SslMode::Require } else { SslMode::Disable });
    if let Some(password) = &address.password {
        config.password(Secret::reveal(password));
    }
    config
}

/// How to trust the server's certificate.
fn trust(tls: &Tls) -> Result<MakeRustlsConnect> {
    super::open::choose_tls_provider();
    let Some((file, pem)) = &tls.ca else {
        let (connect, _unreadable) = MakeRustlsConnect::with_native_certs().map_err(|_| {
            BlobError::Unavailable(
                "this system has no certificates of authorities; name one with ca=FILE".into(),
            )
        })?;
        return Ok(connect);
    };
    let bad = |what: String| BlobError::Unavailable(format!("cannot use ca {}: {what}", file.display()));
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| bad(error.to_string()))?;
        roots.add(certificate).map_err(|error| bad(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(bad("there is no certificate in it (PEM)".into()));
    }
    Ok(MakeRustlsConnect::new(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth()))
}

fn failed(error: &tokio_postgres::Error) -> BlobError {
    // Its own text is only the kind of error.
    let text = match (error.as_db_error(), std::error::Error::source(error)) {
        (Some(said), _) => format!("{}: {}", said.severity(), said.message()),
        (None, Some(cause)) => format!("{error}: {cause}"),
        (None, None) => error.to_string(),
    };
    match error.code() {
        Some(code) if *code == SqlState::DISK_FULL => BlobError::Full(text),
        _ => BlobError::Unavailable(text),
    }
}
