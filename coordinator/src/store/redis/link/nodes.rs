//! Every server behind an address, for diagnosis.

use redis::aio::MultiplexedConnection;
use redis::{Cmd, Value};
use redrive_link::address::show;
use tokio::time::Instant;

use super::dial::Dialer;
use super::{Inner, fault};
use crate::store::StoreError;
use crate::store::redis::address::Kind;

/// A server of the store, and a plain connection to it.
pub struct Node {
    /// `host:port`.
    pub address: String,
    /// `master` or `replica`, as others say; what it says itself may differ during a failover.
    pub role: String,
    /// A connection that is not supervised, or what it said when there was none to be had. Its calls end after the link's response timeout.
    pub connection: Result<MultiplexedConnection, String>,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node")
            .field("address", &self.address)
            .field("role", &self.role)
            .finish_non_exhaustive()
    }
}

impl Node {
    /// Asks this server.
    ///
    /// # Errors
    /// When it cannot be reached, does not answer within the response timeout, or refuses.
    pub async fn query(&mut self, cmd: &Cmd) -> Result<Value, StoreError> {
        let at = &self.address;
        match &mut self.connection {
            Ok(connection) => cmd.query_async(connection).await.map_err(|error| fault::explain(at, &error)),
            Err(error) => Err(StoreError::Unavailable(error.clone())),
        }
    }
}

type Place = (String, u16, &'static str);

/// Connects to every server that can be found, masters first.
pub(super) async fn nodes(inner: &Inner) -> Result<Vec<Node>, StoreError> {
    let Inner { seat, dialer, options, .. } = inner;
    let places = match &dialer.address.kind {
        Kind::Cluster => of_cluster(dialer).await?,
        Kind::Single | Kind::Sentinel { .. } => {
            let route = seat.route(Instant::now() + options.response_timeout).await?;
            let (host, port) = route.host.clone().unwrap_or_else(|| dialer.address.nodes[0].clone());
            with_replicas(dialer, host, port).await
        }
    };
    let dialing = places.into_iter().map(|(host, port, role)| async move {
        let address = show(&host, port);
        let connection = dialer.node(&host, port, None).await.map(|mut connection| {
            connection.set_response_timeout(options.response_timeout);
            connection
        });
        let connection = connection.map_err(|error| fault::text(fault::explain(&address, &error)));
        Node { address, role: role.to_owned(), connection }
    });
    Ok(futures_util::future::join_all(dialing).await)
}

/// A master and the replicas that it knows. One that may not be asked has none to show.
async fn with_replicas(dialer: &Dialer, host: String, port: u16) -> Vec<Place> {
    type Role = (String, i64, Vec<(String, u16, String)>);
    let replicas = async {
        let mut connection = dialer.node(&host, port, None).await?;
        connection.set_response_timeout(dialer.options.response_timeout);
        let role: Role = redis::cmd("ROLE").query_async(&mut connection).await?;
        Ok::<_, redis::RedisError>(role.2)
    };
    let replicas = replicas.await.unwrap_or_default();
    let mut places = vec![(host, port, "master")];
    places.extend(replicas.into_iter().map(|(host, port, _)| (host, port, "replica")));
    places
}

async fn of_cluster(dialer: &Dialer) -> Result<Vec<Place>, StoreError> {
    let mut last = StoreError::Unavailable("the address has no host".to_owned());
    for (host, port) in &dialer.address.nodes {
        let asking = async {
            let mut connection = dialer.node(host, *port, None).await?;
            connection.set_response_timeout(dialer.options.response_timeout);
            redis::cmd("CLUSTER").arg("NODES").query_async::<String>(&mut connection).await
        };
        match asking.await {
            Ok(text) => return Ok(listed(&text, host)),
            Err(error) => last = fault::explain(&show(host, *port), &error),
        }
    }
    Err(last)
}

/// Reads `id ip:port@bus[,name] flags …`, a line a node; `asked` is who said it, and may not know its own address.
fn listed(text: &str, asked: &str) -> Vec<Place> {
    let mut places: Vec<Place> = text
        .lines()
        .filter_map(|line| {
            let mut words = line.split(' ').skip(1);
            let (place, flags) = (words.next()?, words.next()?);
            if flags.split(',').any(|flag| matches!(flag, "noaddr" | "handshake")) {
                return None;
            }
            let (place, name) = place.split_once(',').unwrap_or((place, ""));
            let (host, port) = place.split('@').next()?.rsplit_once(':')?;
            let name = name.split(',').next().filter(|name| !name.is_empty() && !name.contains('='));
            let host = name.unwrap_or(if host.is_empty() { asked } else { host });
            let role = if flags.split(',').any(|flag| flag == "master") { "master" } else { "replica" };
            Some((host.to_owned(), port.parse().ok()?, role))
        })
        .collect();
    places.sort_by_key(|(_, _, role)| *role != "master");
    places
}

#[cfg(test)]
mod tests {
    use super::listed;

    #[test]
    fn a_cluster_s_list_is_read() {
        let text = "aa 10.0.0.1:7000@17000 slave,fail bb 0 0 1 connected\n\
                    bb :7001@17001 myself,master - 0 0 2 connected 0-5460\n\
                    cc 10.0.0.3:7002@17002,redis-3.example,shard-id=x master - 0 0 3 connected\n\
                    dd :0@0 master,noaddr - 0 0 4 disconnected\n";
        let places = listed(text, "asked");
        let expected = [
            ("asked".to_owned(), 7001, "master"),
            ("redis-3.example".to_owned(), 7002, "master"),
            ("10.0.0.1".to_owned(), 7000, "replica"),
        ];
        assert_eq!(places, expected);
    }
}
