//! Opens the storage that an address names, if this build can.

use std::sync::Arc;

use super::address::BlobsAddress;
use super::files::FileBlobs;
use super::sqlite::SqliteBlobs;
use super::{BlobError, Blobs, Result};

/// Opens it: connects, makes what it needs there, and tries that it can be written. Settings and credentials of S3 are taken
/// from that environment: `AWS_ENDPOINT_URL`, `AWS_REGION`, `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_ALLOW_HTTP` and
/// what else the crate object_store knows.
///
/// # Errors
/// [`BlobError::Unavailable`], with the address.
pub async fn open(address: &BlobsAddress, environment: &[(String, String)]) -> Result<Arc<dyn Blobs>> {
    let opened: Result<Arc<dyn Blobs>> = match address {
        BlobsAddress::Files(directory) => FileBlobs::open(directory).await.map(|blobs| Arc::new(blobs) as _),
        BlobsAddress::Sqlite(file) => SqliteBlobs::open(file).await.map(|blobs| Arc::new(blobs) as _),
        #[cfg(feature = "postgres")]
        BlobsAddress::Postgres(address) => {
            super::postgres::PostgresBlobs::open(address).await.map(|blobs| Arc::new(blobs) as _)
        }
        #[cfg(feature = "object-store")]
        BlobsAddress::Local(directory) => {
            super::local::LocalBlobs::open(directory).await.map(|blobs| Arc::new(blobs) as _)
        }
        #[cfg(feature = "object-store")]
        BlobsAddress::S3 { bucket, prefix } => {
            super::objects::S3Blobs::open(bucket, prefix, environment).await.map(|blobs| Arc::new(blobs) as _)
        }
        #[cfg(not(feature = "postgres"))]
        BlobsAddress::Postgres(_) => Err(missing("postgres")),
        #[cfg(not(feature = "object-store"))]
        BlobsAddress::Local(_) | BlobsAddress::S3 { .. } => Err(missing("object-store")),
    };
    #[cfg(not(feature = "object-store"))]
    let _ = environment;
    opened.map_err(|error| BlobError::Unavailable(format!("cannot keep blobs at {address}: {error}")))
}

/// What was left out of this build.
#[cfg(not(all(feature = "postgres", feature = "object-store")))]
pub(super) fn missing(feature: &str) -> BlobError {
    BlobError::Unavailable(format!(
        "this build is without it; build redrive with the cargo feature `{feature}`"
    ))
}

/// Chooses ring for TLS, unless the process has chosen already.
#[cfg(any(feature = "postgres", feature = "object-store"))]
pub(super) fn choose_tls_provider() {
    // An error says that there is one: exactly what is wanted.
    let _chosen = rustls::crypto::ring::default_provider().install_default();
}
