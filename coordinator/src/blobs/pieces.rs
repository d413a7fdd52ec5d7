//! Bytes in pieces of one size, on their way in and out: nothing is ever whole in memory.

use std::ops::Range;

use axum::body::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};

use super::{BlobError, BlobStream, Result, Stored};

/// Cuts a stream into pieces of exactly `size` bytes; the last one has what is left. An empty stream has none.
pub(super) fn cut(body: BlobStream, size: usize) -> BlobStream {
    // Fused: it is asked once more after its end, for the piece that was left.
    let state = (body.fuse(), Vec::with_capacity(size), Bytes::new());
    let pieces = stream::try_unfold(state, move |(mut body, mut piece, mut rest)| async move {
        loop {
            let fits = rest.len().min(size - piece.len());
            piece.extend_from_slice(&rest.split_to(fits));
            if piece.len() == size {
                let whole = std::mem::replace(&mut piece, Vec::with_capacity(size));
                return Ok(Some((Bytes::from(whole), (body, piece, rest))));
            }
            match body.try_next().await? {
                Some(chunk) => rest = chunk,
                None if piece.is_empty() => return Ok(None),
                None => return Ok(Some((Bytes::from(std::mem::take(&mut piece)), (body, piece, rest)))),
            }
        }
    });
    pieces.boxed()
}

/// A blob of that length, read piece by piece as it is asked for. A piece that is not as long as it must be is an error.
pub(super) fn read<F>(
    bytes: u64,
    size: u64,
    mut piece: impl FnMut(Range<u64>) -> F + Send + 'static,
) -> Stored
where
    F: Future<Output = Result<Bytes>> + Send + 'static,
{
    let body = stream::try_unfold(0, move |from: u64| {
        let range = from..bytes.min(from.saturating_add(size));
        // Made even at the end, where it is dropped: a closure may be called only before the future that borrows nothing of it.
        let reading = (from < bytes).then(|| piece(range.clone()));
        async move {
            let Some(reading) = reading else { return Ok(None) };
            let piece = reading.await?;
            if piece.len() as u64 != range.end - range.start {
                return Err(BlobError::Unavailable(format!(
                    "{} of {} bytes came at {}: the blob is damaged, or was removed meanwhile",
                    piece.len(),
                    range.end - range.start,
                    range.start
                )));
            }
            Ok(Some((piece, range.end)))
        }
    });
    Stored { bytes, body: body.boxed() }
}

/// Does what blocks, away from the runtime.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|ended| {
        // Only when the runtime ends, or by a defect whose trace is in the log.
        Err(BlobError::Unavailable(format!("the work ended early: {ended}")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Like the body of a request, it must not be asked again after its end.
    fn body(chunks: &[&'static str]) -> BlobStream {
        let chunks: Vec<_> = chunks.iter().map(|chunk| Bytes::from_static(chunk.as_bytes())).collect();
        let ends =
            stream::unfold(chunks.into_iter(), |mut rest| async move { Some((Ok(rest.next()?), rest)) });
        ends.boxed()
    }

    async fn pieces(chunks: &[&'static str]) -> Vec<Bytes> {
        cut(body(chunks), 3).try_collect().await.unwrap()
    }

    #[tokio::test]
    async fn pieces_are_of_one_size_whatever_the_chunks() {
        for chunks in [&["abcdefg"][..], &["a", "bc", "", "defg"], &["ab", "cdefg", ""]] {
            assert_eq!(pieces(chunks).await, ["abc", "def", "g"], "{chunks:?}");
        }
        assert_eq!(pieces(&["abc", "def"]).await, ["abc", "def"]);
        assert_eq!(pieces(&[]).await, [""; 0]);
        assert_eq!(pieces(&["", ""]).await, [""; 0]);
    }

    #[tokio::test]
    async fn what_was_cut_off_ends_with_its_error() {
        let broken =
            body(&["abcd"]).chain(stream::iter([Err(BlobError::Interrupted("gone".into()))])).boxed();
        let pieces: Vec<_> = cut(broken, 3).collect().await;
        assert_eq!(pieces.len(), 2, "a piece that is not whole does not come out");
        assert!(matches!(pieces[1], Err(BlobError::Interrupted(_))));
    }

    #[tokio::test]
    async fn a_piece_that_is_short_is_an_error() {
        let whole = |bytes| {
            read(
                bytes,
                3,
                |range| async move { Ok(Bytes::from(vec![7; (range.end - range.start) as usize])) },
            )
        };
        for bytes in [0, 1, 3, 7] {
            let read: Vec<Bytes> = whole(bytes).body.try_collect().await.unwrap();
            assert_eq!(read.concat(), vec![7; bytes as usize]);
        }
        let short =
            read(7, 3, |range| async move { Ok(Bytes::from(vec![7; if range.start == 3 { 2 } else { 3 }])) });
        assert!(short.body.try_collect::<Vec<Bytes>>().await.is_err());
    }
}
