//! However long a blob is, it takes a few pieces of memory.

use futures_util::{StreamExt, stream};

use super::bed::{Bed, MIB, Place, key};

const BLOB: usize = 64 * MIB;
/// Half of the blob: a copy of it cannot hide. Pieces that threads have freed, and the allocator keeps, are among it.
const MOST: usize = 32 * MIB;

/// The most memory that this process has had since it was last asked.
fn peak() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let kib: usize = line.trim().trim_end_matches(" kB").parse().unwrap();
    // 5: the peak begins anew (proc(5)).
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    kib * 1024
}

/// A blob that is made as it goes, each MiB of its own.
async fn streams(place: Place) {
    let bed = Bed::open(&place, "one").await;
    let mib = |number: usize| vec![number as u8; MIB];
    // Once before: what is made at the first use is not the blob's.
    bed.put(&key("before", 1), &mib(7)).await;
    bed.get(&key("before", 1)).await;
    peak();
    let before = peak();
    let key = key("large", 1);
    let body = stream::iter(0..BLOB / MIB).map(move |number| Ok(mib(number).into()));
    bed.blobs.put(&key, body.boxed()).await.unwrap();
    let (putting, mut read) = (peak().saturating_sub(before), 0);
    let mut found = bed.blobs.get(&key).await.unwrap().unwrap();
    while let Some(chunk) = found.body.next().await {
        for byte in chunk.unwrap() {
            assert_eq!(byte, (read / MIB) as u8, "at {read}");
            read += 1;
        }
    }
    let getting = peak().saturating_sub(before);
    assert_eq!(read, BLOB);
    eprintln!("up {} KiB, down {} KiB more than before", putting / 1024, getting / 1024);
    assert!(putting < MOST && getting < MOST, "{putting} and {getting} bytes more than before");
}

#[tokio::test]
async fn files_are_streamed() {
    streams(Place::files()).await;
}

#[tokio::test]
async fn sqlite_is_streamed() {
    streams(Place::sqlite()).await;
}

#[tokio::test]
async fn local_objects_are_streamed() {
    streams(Place::local()).await;
}

#[tokio::test]
async fn postgres_is_streamed() {
    streams(Place::postgres().await).await;
}

#[tokio::test]
async fn s3_is_streamed() {
    streams(Place::s3().await).await;
}
