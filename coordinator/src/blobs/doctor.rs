//! What `redrive doctor` finds of the storage of blobs. It changes nothing.

use std::path::Path;

use super::address::BlobsAddress;
use crate::store::doctor::{Finding, Report, Verdict};

const CHECK: &str = "blobs";

/// Looks at the storage.
pub async fn examine(address: &BlobsAddress) -> Report {
    let findings = match address {
        BlobsAddress::Files(directory) => vec![place(directory)],
        BlobsAddress::Sqlite(file) => vec![place(file.parent().unwrap_or(Path::new(".")))],
        #[cfg(feature = "postgres")]
        BlobsAddress::Postgres(address) => postgres(address).await,
        #[cfg(feature = "object-store")]
        BlobsAddress::Local(directory) => vec![place(directory)],
        #[cfg(feature = "object-store")]
        BlobsAddress::S3 { bucket, prefix } => vec![s3(bucket, prefix).await],
        #[cfg(not(feature = "postgres"))]
        BlobsAddress::Postgres(_) => vec![refused(super::open::missing("postgres"))],
        #[cfg(not(feature = "object-store"))]
        BlobsAddress::Local(_) | BlobsAddress::S3 { .. } => {
            vec![refused(super::open::missing("object-store"))]
        }
    };
    Report::new(findings)
}

/// A directory that is there or will be made.
fn place(directory: &Path) -> Finding {
    let there = directory.ancestors().find(|place| place.exists()).unwrap_or(Path::new("."));
    let there = if there.as_os_str().is_empty() { Path::new(".") } else { there };
    if rustix::fs::access(there, rustix::fs::Access::WRITE_OK).is_err() || !there.is_dir() {
        return Finding::bad(
            CHECK,
            Verdict::Refused,
            format!("{} cannot be written to", there.display()),
            "give the coordinator's user a directory of its own, or name another place with coordinator.blobs.url",
        );
    }
    let made = if there == directory { "is there" } else { "is made at the first start" };
    Finding::ok(CHECK, format!("{} {made}", directory.display()))
}

#[cfg(any(feature = "postgres", feature = "object-store"))]
fn away(error: impl std::fmt::Display) -> Finding {
    Finding::bad(
        CHECK,
        Verdict::Refused,
        format!("does not answer: {error}"),
        "look at the server, the address and the credentials: a coordinator does not start without its blobs",
    )
}

#[cfg(not(all(feature = "postgres", feature = "object-store")))]
fn refused(error: super::BlobError) -> Finding {
    Finding::bad(CHECK, Verdict::Refused, error.to_string(), "use another build, or another place")
}

#[cfg(feature = "postgres")]
async fn postgres(address: &super::address::PostgresAddress) -> Vec<Finding> {
    use super::postgres::PostgresBlobs;

    let asked = async {
        let blobs = PostgresBlobs::reach(address)?;
        let version = blobs.setting("server_version").await?;
        let fsync = blobs.setting("fsync").await?;
        Ok::<_, super::BlobError>((version, fsync, blobs.setting("synchronous_commit").await?))
    };
    let (version, fsync, commit) = match asked.await {
        Ok(settings) => settings,
        Err(error) => return vec![away(error)],
    };
    let mut findings = vec![Finding::ok(CHECK, format!("PostgreSQL {version} answers"))];
    for (name, value) in [("fsync", fsync), ("synchronous_commit", commit)] {
        if value == "off" {
            findings.push(Finding::bad(
                "blobs_durability",
                Verdict::Warning,
                format!("{name} is off: a blob can be lost with its server after a task refers to it"),
                format!("set {name} = on"),
            ));
        }
    }
    findings
}

#[cfg(feature = "object-store")]
async fn s3(bucket: &str, prefix: &str) -> Finding {
    use super::Blobs as _;

    let asked = async {
        let blobs = super::objects::S3Blobs::reach(bucket, prefix, &super::depot::environment())?;
        // What a list of one costs is what the sweep costs.
        blobs.list(None, 1).await
    };
    match asked.await {
        Ok(_) => Finding::ok(
            CHECK,
            format!("the bucket {bucket} answers; whether it can be written to is tried at the start"),
        ),
        Err(error) => away(error),
    }
}
