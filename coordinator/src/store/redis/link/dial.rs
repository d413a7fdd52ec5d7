//! Making connections: settings, the greeting, and what it tells about the other side.

use std::sync::Arc;
use std::time::Duration;

use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::cluster::ClusterClientBuilder;
use redis::cluster_async::ClusterConnection;
use redis::io::tcp::TcpSettings;
use redis::io::tcp::socket2::TcpKeepalive;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, Pipeline,
    ProtocolVersion, PushInfo, RedisConnectionInfo, RedisFuture, RedisResult, TlsCertificates, Value,
};
use redrive_link::address::show;

use super::{LinkOptions, fault};
use crate::store::StoreError;
use crate::store::redis::address::{Address, Kind, Secret};

/// Commands under way on one connection, and waiting for it. The callers' own bounds are far below; the crate's default
/// of 50 would make them wait for each other.
const IN_FLIGHT: usize = 4_096;
/// An idle connection is probed after this long, and again this often, so that firewalls keep it and a host that vanished
/// is noticed.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(15);
const KEEPALIVE_EVERY: Duration = Duration::from_secs(5);
/// Sent bytes that nobody acknowledges for so long end the connection.
const UNACKNOWLEDGED_FOR: Duration = Duration::from_secs(10);
/// How often the cluster's client sends a command again by itself: after a redirection, a failover or a lost connection.
/// Scripts can be repeated; callers do so as well.
const CLUSTER_RETRIES: u32 = 3;
const CLUSTER_RETRY_AFTER_MS: u64 = 50;
const CLUSTER_RETRY_AT_MOST_AFTER_MS: u64 = 250;

/// Something that takes commands.
#[derive(Clone)]
pub(super) enum Wire {
    /// One server.
    Node(MultiplexedConnection),
    /// A cluster, whose client finds the node of a key.
    Cluster(ClusterConnection),
}

impl ConnectionLike for Wire {
    fn req_packed_command<'a>(&'a mut self, cmd: &'a Cmd) -> RedisFuture<'a, Value> {
        match self {
            Self::Node(node) => node.req_packed_command(cmd),
            Self::Cluster(cluster) => cluster.req_packed_command(cmd),
        }
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        match self {
            Self::Node(node) => node.req_packed_commands(pipeline, offset, count),
            Self::Cluster(cluster) => cluster.req_packed_commands(pipeline, offset, count),
        }
    }

    fn get_db(&self) -> i64 {
        match self {
            Self::Node(node) => node.get_db(),
            Self::Cluster(cluster) => cluster.get_db(),
        }
    }
}

/// Called with what a server sends by itself, the end of the connection included. Must not block.
pub(super) type OnPush = Arc<dyn Fn(PushInfo) + Send + Sync>;

/// Who a server says it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Greeting {
    /// `master` or `replica`.
    pub(super) role: String,
    /// `standalone`, `sentinel` or `cluster`.
    pub(super) mode: String,
    /// For example `7.0.15`.
    pub(super) version: String,
}

/// Makes connections to the servers of one address.
pub(super) struct Dialer {
    pub(super) address: Arc<Address>,
    pub(super) options: LinkOptions,
}

impl Dialer {
    /// A connection to one server of the store.
    ///
    /// # Errors
    /// When there is none within the connect timeout.
    pub(super) async fn node(
        &self,
        host: &str,
        port: u16,
        on_push: Option<OnPush>,
    ) -> RedisResult<MultiplexedConnection> {
        let address = &self.address;
        let who = who(address.username.as_ref(), address.password.as_ref()).set_db(address.database);
        self.connect(host, port, who, on_push).await
    }

    /// A client of the cluster, with a connection to each of its nodes.
    ///
    /// # Errors
    /// When no node can be reached, or does not know its cluster.
    pub(super) async fn cluster(&self, response_timeout: Duration) -> RedisResult<ClusterConnection> {
        let address = &self.address;
        let seeds: Vec<ConnectionInfo> = address
            .nodes
            .iter()
            .map(|(host, port)| {
                let who = who(address.username.as_ref(), address.password.as_ref());
                Ok(self.place(host, *port).into_connection_info()?.set_redis_settings(who))
            })
            .collect::<RedisResult<_>>()?;
        let mut builder = ClusterClientBuilder::new(seeds)
            .tcp_settings(tcp_settings())
            // Slots are looked up through one node after the other: one that hangs must leave time for the next.
            .connection_timeout(self.options.connect_timeout / 2)
            .response_timeout(response_timeout)
            // Callers have their own.
            .overall_response_timeout(None)
            .retries(CLUSTER_RETRIES)
            .min_retry_wait(CLUSTER_RETRY_AFTER_MS)
            .max_retry_wait(CLUSTER_RETRY_AT_MOST_AFTER_MS)
            .connection_concurrency_limit(IN_FLIGHT)
            .use_protocol(ProtocolVersion::RESP3);
        if let Some(certificates) = self.certificates() {
            builder = builder.certs(certificates);
        }
        builder.build()?.get_async_connection().await
    }

    /// A connection to a Sentinel.
    ///
    /// # Errors
    /// When there is none within the connect timeout.
    pub(super) async fn sentinel(&self, host: &str, port: u16) -> RedisResult<MultiplexedConnection> {
        let who = match &self.address.kind {
            Kind::Sentinel { username, password, .. } => who(username.as_ref(), password.as_ref()),
            Kind::Single | Kind::Cluster => who(None, None),
        };
        self.connect(host, port, who, None).await
    }

    async fn connect(
        &self,
        host: &str,
        port: u16,
        who: RedisConnectionInfo,
        on_push: Option<OnPush>,
    ) -> RedisResult<MultiplexedConnection> {
        let info = self
            .place(host, port)
            .into_connection_info()?
            .set_redis_settings(who)
            .set_tcp_settings(tcp_settings());
        let client = match self.certificates() {
            Some(certificates) => Client::build_with_tls(info, certificates)?,
            None => Client::open(info)?,
        };
        // Every call has its caller's deadline, which also covers waiting for a place; a second one here would only fire
        // at about the same time with a vaguer message.
        let mut config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.options.connect_timeout))
            .set_response_timeout(None)
            .set_pipeline_buffer_size(IN_FLIGHT)
            .set_concurrency_limit(IN_FLIGHT);
        if let Some(on_push) = on_push {
            config = config.set_push_sender(move |push: PushInfo| {
                on_push(push);
                Ok::<_, std::convert::Infallible>(())
            });
        }
        client.get_multiplexed_async_connection_with_config(&config).await
    }

    fn place(&self, host: &str, port: u16) -> ConnectionAddr {
        if self.address.tls.is_some() {
            ConnectionAddr::TcpTls { host: host.to_owned(), port, insecure: false, tls_params: None }
        } else {
            ConnectionAddr::Tcp(host.to_owned(), port)
        }
    }

    /// Whom to trust, where TLS is spoken.
    fn certificates(&self) -> Option<TlsCertificates> {
        let tls = self.address.tls.as_ref()?;
        let root_cert = tls.ca.as_ref().map(|(_, pem)| pem.clone());
        Some(TlsCertificates { client_tls: None, root_cert })
    }

    /// Connects to a server that says it is a master.
    ///
    /// # Errors
    /// When it cannot be reached, or is something else.
    pub(super) async fn master(
        &self,
        host: &str,
        port: u16,
        on_push: Option<OnPush>,
    ) -> Result<MultiplexedConnection, StoreError> {
        let at = show(host, port);
        let mut connection =
            self.node(host, port, on_push).await.map_err(|error| fault::explain(&at, &error))?;
        let greeting = self.greet(&mut connection, &at).await?;
        check_master(&at, &greeting)?;
        Ok(connection)
    }

    /// Asks a server who it is. `HELLO` says so to every user, whatever its ACL rules, unlike `ROLE` and `INFO`.
    ///
    /// # Errors
    /// When it does not answer within the response timeout.
    pub(super) async fn greet(
        &self,
        connection: &mut MultiplexedConnection,
        at: &str,
    ) -> Result<Greeting, StoreError> {
        let limit = self.options.response_timeout;
        let mut hello = redis::cmd("HELLO");
        hello.arg(3);
        match tokio::time::timeout(limit, hello.query_async::<Value>(connection)).await {
            Ok(Ok(reply)) => Ok(greeting(reply)),
            Ok(Err(error)) => Err(fault::explain(at, &error)),
            Err(_) => Err(fault::late(at, limit)),
        }
    }
}

fn who(username: Option<&String>, password: Option<&Secret>) -> RedisConnectionInfo {
    let mut who = RedisConnectionInfo::default()
        .set_protocol(ProtocolVersion::RESP3)
        .set_lib_name("redrive", env!("CARGO_PKG_VERSION"));
    if let Some(username) = username {
        who = who.set_username(username);
    }
    if let Some(password) = password {
        who = who.set_password(password.reveal());
    }
    who
}

/// Refuses everything but a master that serves all keys.
pub(super) fn check_master(at: &str, greeting: &Greeting) -> Result<(), StoreError> {
    let wrong = |what: &str| Err(StoreError::Unavailable(format!("{at} {what}")));
    match (greeting.mode.as_str(), greeting.role.as_str()) {
        ("sentinel", _) => wrong("is a Sentinel; the address of its service begins with redis+sentinel://"),
        ("cluster", _) => wrong("is a node of a cluster; the cluster's address begins with redis+cluster://"),
        (_, "master") => Ok(()),
        _ => wrong("is a replica; the store needs the master"),
    }
}

fn greeting(reply: Value) -> Greeting {
    let mut found = Greeting { role: String::new(), mode: String::new(), version: String::new() };
    if let Ok(pairs) = reply.into_map_iter() {
        for (key, value) in pairs {
            let (Ok(key), Ok(value)) =
                (redis::from_redis_value::<String>(key), redis::from_redis_value::<String>(value))
            else {
                continue;
            };
            match key.as_str() {
                "role" => found.role = value,
                "mode" => found.mode = value,
                "version" => found.version = value,
                _ => {}
            }
        }
    }
    found
}

fn tcp_settings() -> TcpSettings {
    // Off by default, Nagle's algorithm would hold back every other small command for a round trip.
    let settings = TcpSettings::default()
        .set_nodelay(true)
        .set_keepalive(TcpKeepalive::new().with_time(KEEPALIVE_AFTER).with_interval(KEEPALIVE_EVERY));
    #[cfg(target_os = "linux")]
    let settings = settings.set_user_timeout(UNACKNOWLEDGED_FOR);
    settings
}
