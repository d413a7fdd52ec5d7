//! The connection that says: this process lives.

use reqwest::Response;

use super::ClientError;

/// An open presence connection. The coordinator sends a newline now and then; when the connection breaks and this boot
/// does not come back within the grace time, it takes the worker for dead. Dropping it closes the connection.
#[derive(Debug)]
pub struct Presence {
    url: String,
    response: Response,
}

impl Presence {
    pub(super) fn new(url: String, response: Response) -> Self {
        Self { url, response }
    }

    /// Waits for the next sign of life. `Ok(false)`: the coordinator closed the connection in good order (it stops, or a
    /// proxy's limit was reached). Cancel-safe.
    pub async fn beat(&mut self) -> Result<bool, ClientError> {
        match self.response.chunk().await {
            Ok(chunk) => Ok(chunk.is_some()),
            Err(source) => Err(ClientError::Unreachable { url: self.url.clone(), source }),
        }
    }

    /// Returns when the connection is no more: `Ok` when it was closed in good order.
    pub async fn closed(mut self) -> Result<(), ClientError> {
        while self.beat().await? {}
        Ok(())
    }
}
