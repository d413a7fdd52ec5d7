//! Blobs as JSON files: `<directory>/<task>/<blob>.json`.

use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use axum::body::Bytes;
use futures_util::TryStreamExt;

use super::pieces::{blocking, cut, read};
use super::tree::{Tree, failed};
use super::{BlobKey, BlobStream, Blobs, Result, Stored};

/// Bytes that are written or read at once.
const PIECE_BYTES: usize = 1024 * 1024;

/// A directory that keeps blobs.
pub(super) struct FileBlobs {
    tree: Tree,
}

impl FileBlobs {
    /// Opens the directory, and makes it if it is not there.
    pub(super) async fn open(root: &Path) -> Result<Self> {
        let root = root.to_owned();
        let tree = blocking(move || Tree::create(&root).map_err(|error| failed(&error))).await?;
        Ok(Self { tree })
    }

    async fn in_tree<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Tree) -> std::io::Result<T> + Send + 'static,
    ) -> Result<T> {
        let tree = self.tree.clone();
        blocking(move || work(&tree).map_err(|error| failed(&error))).await
    }
}

#[async_trait]
impl Blobs for FileBlobs {
    async fn put(&self, key: &BlobKey, body: BlobStream) -> Result<()> {
        let key = key.clone();
        let mut part = self.in_tree(move |tree| tree.begin(&key)).await?;
        let mut pieces = cut(body, PIECE_BYTES);
        while let Some(piece) = pieces.try_next().await? {
            part = blocking(move || {
                part.file().write_all(&piece).map_err(|error| failed(&error))?;
                Ok(part)
            })
            .await?;
        }
        blocking(move || part.finish().map_err(|error| failed(&error))).await
    }

    async fn get(&self, key: &BlobKey) -> Result<Option<Stored>> {
        let key = key.clone();
        let Some((file, bytes)) = self.in_tree(move |tree| tree.whole(&key)).await? else { return Ok(None) };
        let file = Arc::new(file);
        Ok(Some(read(bytes, PIECE_BYTES as u64, move |range| {
            let file = Arc::clone(&file);
            blocking(move || {
                let mut piece = vec![0; usize::try_from(range.end - range.start).unwrap_or(PIECE_BYTES)];
                file.read_exact_at(&mut piece, range.start).map_err(|error| failed(&error))?;
                Ok(Bytes::from(piece))
            })
        })))
    }

    async fn length(&self, key: &BlobKey) -> Result<Option<u64>> {
        let key = key.clone();
        self.in_tree(move |tree| Ok(tree.whole(&key)?.map(|(_, bytes)| bytes))).await
    }

    async fn remove(&self, keys: &[BlobKey]) -> Result<()> {
        let keys = keys.to_vec();
        self.in_tree(move |tree| tree.remove(&keys)).await
    }

    async fn list(&self, after: Option<&BlobKey>, most: usize) -> Result<Vec<BlobKey>> {
        let after = after.cloned();
        self.in_tree(move |tree| tree.list(after.as_ref(), most)).await
    }

    async fn check(&self) -> Result<()> {
        self.in_tree(Tree::probe).await
    }

    fn describe(&self) -> String {
        format!("files:{}", self.tree.root().display())
    }
}
