//! Blobs as files, written and read by the crate object_store as it does with other object storage: `file:///DIRECTORY`. They
//! lie where [`files`](super::files) puts them.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::TryStreamExt;
use object_store::local::LocalFileSystem;
use object_store::path::Path as Key;
use object_store::{MultipartUpload as _, ObjectStoreExt as _};

use super::objects::{PART_BYTES, READ_BYTES, failed};
use super::pieces::{blocking, cut, read};
use super::tree::{self, Tree};
use super::{BlobError, BlobKey, BlobStream, Blobs, Result, Stored, layout};

/// A directory that keeps blobs as objects.
pub(super) struct LocalBlobs {
    store: Arc<LocalFileSystem>,
    /// Lists and removes, which object_store does without what uploads leave.
    tree: Tree,
}

impl LocalBlobs {
    /// Opens the directory, and makes it if it is not there.
    pub(super) async fn open(root: &Path) -> Result<Self> {
        let root = root.to_owned();
        let (store, tree) = blocking(move || {
            let tree = Tree::create(&root).map_err(|error| tree::failed(&error))?;
            Ok((LocalFileSystem::new_with_prefix(&root).map_err(failed)?, tree))
        })
        .await?;
        Ok(Self { store: Arc::new(store.with_fsync(true)), tree })
    }

    async fn in_tree<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Tree) -> std::io::Result<T> + Send + 'static,
    ) -> Result<T> {
        let tree = self.tree.clone();
        blocking(move || work(&tree).map_err(|error| tree::failed(&error))).await
    }
}

fn key(key: &BlobKey) -> Result<Key> {
    Key::parse(layout::path(key).join("/")).map_err(|error| BlobError::Unavailable(error.to_string()))
}

#[async_trait]
impl Blobs for LocalBlobs {
    async fn put(&self, key: &BlobKey, body: BlobStream) -> Result<()> {
        // Written beside it; dropped before it is complete, it is removed.
        let mut upload = self.store.put_multipart(&self::key(key)?).await.map_err(failed)?;
        let mut pieces = cut(body, PART_BYTES);
        let put = async {
            while let Some(piece) = pieces.try_next().await? {
                upload.put_part(piece.into()).await.map_err(failed)?;
            }
            upload.complete().await.map_err(failed).map(|_| ())
        };
        let put = put.await;
        if put.is_err() {
            // What is left where this fails is found by the next sweep.
            let _left = upload.abort().await;
        }
        put
    }

    async fn get(&self, key: &BlobKey) -> Result<Option<Stored>> {
        let Some(bytes) = self.length(key).await? else { return Ok(None) };
        let (store, key) = (Arc::clone(&self.store), self::key(key)?);
        Ok(Some(read(bytes, READ_BYTES, move |range| {
            let (store, key) = (Arc::clone(&store), key.clone());
            async move { store.get_range(&key, range).await.map_err(failed) }
        })))
    }

    async fn length(&self, key: &BlobKey) -> Result<Option<u64>> {
        match self.store.head(&self::key(key)?).await {
            Ok(found) => Ok(Some(found.size)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(failed(error)),
        }
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
        format!("file://{}", self.tree.root().display())
    }
}
