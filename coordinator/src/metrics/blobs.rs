//! Blobs, as numbers.

/// Which way bytes of blobs went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    /// To the storage.
    In,
    /// From it.
    Out,
}

/// So many bytes of blobs were kept, or fetched.
pub(crate) fn record_blob_bytes(direction: Direction, bytes: u64) {
    let direction = match direction {
        Direction::In => "in",
        Direction::Out => "out",
    };
    metrics::counter!("redrive_blob_bytes_total", "direction" => direction).increment(bytes);
}

/// A sweep removed so many blobs, and let so many be that are old enough but referred to.
pub(crate) fn record_sweep(swept: u64, kept: u64) {
    metrics::counter!("redrive_blobs_swept_total").increment(swept);
    metrics::counter!("redrive_blobs_kept_total").increment(kept);
}
