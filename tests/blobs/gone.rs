//! The server goes in the middle: an error within a bounded time, and never a short blob that is taken for whole.

use std::time::{Duration, Instant};

use futures_util::{StreamExt, TryStreamExt, stream};
use redrive_coordinator::blobs::{BlobError, BlobStream, Blobs};

use super::bed::{Bed, MIB, Place, body, bytes, key};

/// All time-outs of one call, one after the other.
const PATIENCE: Duration = Duration::from_secs(50);
const BLOB: usize = 24 * MIB;

/// A stream that goes on when the test has done something to the server.
fn in_two_parts(
    gone: tokio::sync::oneshot::Receiver<()>,
    reached: tokio::sync::oneshot::Sender<()>,
) -> BlobStream {
    let rest = stream::once(async move {
        reached.send(()).unwrap();
        gone.await.unwrap();
        Ok(bytes(BLOB / 2).into())
    });
    body(bytes(BLOB / 2)).chain(rest).boxed()
}

/// Puts, and does something in the middle.
async fn put_while(blobs: &dyn Blobs, then: impl FnOnce()) -> Result<(), BlobError> {
    let (go_on, gone) = tokio::sync::oneshot::channel();
    let (reached, middle) = tokio::sync::oneshot::channel();
    let key = key("task", 1);
    let putting = blobs.put(&key, in_two_parts(gone, reached));
    let acting = async {
        middle.await.unwrap();
        then();
        go_on.send(()).unwrap();
    };
    let began = Instant::now();
    let (put, ()) = futures_util::future::join(putting, acting).await;
    assert!(began.elapsed() < PATIENCE, "{:?}", began.elapsed());
    put
}

/// Gets, and does something after the first piece: what comes then.
async fn get_while(blobs: &dyn Blobs, then: impl FnOnce()) -> Result<usize, BlobError> {
    let mut found = blobs.get(&key("there", 1)).await.unwrap().unwrap();
    assert_eq!(found.bytes, BLOB as u64);
    let first = found.body.next().await.unwrap().unwrap();
    then();
    let began = Instant::now();
    let rest: Result<Vec<_>, BlobError> = found.body.try_collect().await;
    assert!(began.elapsed() < PATIENCE, "{:?}", began.elapsed());
    rest.map(|rest| first.len() + rest.concat().len())
}

fn assert_away<T: std::fmt::Debug>(outcome: Result<T, BlobError>) {
    let error = outcome.unwrap_err();
    assert!(matches!(error, BlobError::Unavailable(_)), "{error:?}");
    assert!(!error.to_string().contains("hidden"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_is_killed() {
    let mut place = Place::postgres().await;
    let blobs = place.open("one").await.unwrap();
    blobs.put(&key("there", 1), body(bytes(BLOB))).await.unwrap();
    let Place::Postgres(server) = &mut place else { unreachable!() };
    assert_away(put_while(&*blobs, || server.kill()).await);
    assert_away(blobs.check().await);
    assert_away(blobs.length(&key("there", 1)).await);
    server.restart().await;
    // The same storage, whose connections are all broken.
    assert_eq!(blobs.length(&key("task", 1)).await.unwrap(), None, "half an upload is nothing");
    assert_eq!(blobs.list(None, 10).await.unwrap(), [key("task", 1), key("there", 1)], "its rest is found");
    assert_away(get_while(&*blobs, || server.kill()).await);
    server.restart().await;
    let bed = Bed { place: &place, name: "one", blobs };
    assert_eq!(bed.get(&key("there", 1)).await, Some(bytes(BLOB)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_falls_silent() {
    let mut place = Place::postgres().await;
    let blobs = place.open("one").await.unwrap();
    blobs.put(&key("there", 1), body(bytes(BLOB))).await.unwrap();
    let Place::Postgres(server) = &mut place else { unreachable!() };
    assert_away(get_while(&*blobs, || server.suspend()).await);
    assert_away(blobs.check().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s3_is_killed_in_an_upload() {
    let mut place = Place::s3().await;
    let blobs = place.open("one").await.unwrap();
    let Place::S3(server) = &mut place else { unreachable!() };
    assert_away(put_while(&*blobs, || server.kill()).await);
    assert_away(blobs.check().await);
    assert_away(blobs.list(None, 10).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s3_is_killed_in_a_download() {
    let mut place = Place::s3().await;
    let blobs = place.open("one").await.unwrap();
    blobs.put(&key("there", 1), body(bytes(BLOB))).await.unwrap();
    let Place::S3(server) = &mut place else { unreachable!() };
    assert_away(get_while(&*blobs, || server.kill()).await);
}

#[tokio::test]
async fn files_that_are_cut_short_are_no_blobs() {
    let place = Place::files();
    let bed = Bed::open(&place, "one").await;
    bed.put(&key("there", 1), &bytes(BLOB)).await;
    let file = place.directory().unwrap().join(format!("one/there/{}.json", key("there", 1).blob));
    let cut = || std::fs::File::options().write(true).open(&file).unwrap().set_len(BLOB as u64 / 2).unwrap();
    assert_away(get_while(&*bed.blobs, cut).await);
}

#[tokio::test]
async fn a_link_in_the_tree_is_not_followed() {
    let place = Place::files();
    let bed = Bed::open(&place, "one").await;
    let (root, outside) =
        (place.directory().unwrap().join("one"), place.directory().unwrap().join("outside"));
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(outside.join(format!("{}.json", key("linked", 1).blob)), "secret").unwrap();
    std::os::unix::fs::symlink(&outside, root.join("linked")).unwrap();
    bed.assert_nothing(&key("linked", 1)).await;
    assert_eq!(bed.list(10).await, []);
    bed.blobs.remove(&[key("linked", 1)]).await.unwrap();
    let put = bed.blobs.put(&key("linked", 2), body(b"{}".to_vec())).await;
    assert!(matches!(put, Err(BlobError::Unavailable(_))), "{put:?}");
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 1, "nothing was written or removed there");
    // A file that is a link is no blob either.
    std::fs::create_dir(root.join("task")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", root.join(format!("task/{}.json", key("task", 1).blob)))
        .unwrap();
    bed.assert_nothing(&key("task", 1)).await;
}

#[tokio::test]
async fn what_is_somebody_elses_is_refused_and_left_alone() {
    let place = Place::sqlite();
    let file = place.directory().unwrap().join("one.sqlite");
    let connection = rusqlite::Connection::open(&file).unwrap();
    connection.execute_batch("CREATE TABLE notes (text)").unwrap();
    drop(connection);
    let before = std::fs::read(&file).unwrap();
    let error = place.open("one").await.err().unwrap().to_string();
    assert!(error.contains("another program's") && error.contains("one.sqlite"), "{error}");
    assert_eq!(std::fs::read(&file).unwrap(), before);
}

#[tokio::test]
async fn space_of_removed_blobs_is_given_back() {
    let place = Place::sqlite();
    let bed = Bed::open(&place, "one").await;
    // More than is given back in one step.
    let keys: Vec<_> = (0..(80 * MIB / BLOB + 1) as u8).map(|number| key("there", number)).collect();
    for key in &keys {
        bed.put(key, &bytes(BLOB)).await;
    }
    bed.blobs.remove(&keys).await.unwrap();
    drop(bed);
    let size = std::fs::metadata(place.directory().unwrap().join("one.sqlite")).unwrap().len();
    assert!(size < MIB as u64, "{size} bytes are left");
}

#[tokio::test]
async fn storage_that_is_not_there_is_told_with_its_address() {
    use redrive_coordinator::blobs::open;

    for (address, says) in [
        ("files:/proc/nowhere", "files:/proc/nowhere"),
        ("sqlite:/proc/nowhere/b.sqlite", "sqlite:/proc/nowhere/b.sqlite"),
        ("postgres://me:hidden@127.0.0.1:1/b", "postgres://me:***@127.0.0.1:1/b"),
        ("file:///proc/nowhere", "file:///proc/nowhere"),
        ("s3://bucket/prefix", "s3://bucket/prefix"),
    ] {
        let environment = [
            ("AWS_ENDPOINT_URL", "http://127.0.0.1:1"),
            ("AWS_ALLOW_HTTP", "true"),
            ("AWS_ACCESS_KEY_ID", "k"),
            ("AWS_SECRET_ACCESS_KEY", "hidden"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
        let error = open(&address.parse().unwrap(), &environment).await.err().unwrap().to_string();
        assert!(error.contains(&format!("cannot keep blobs at {says}: ")), "{error}");
        assert!(!error.contains("hidden"), "{error}");
    }
}
