//! Where RabbitMQ is: a URL, read once, with errors that say how it should look.
//!
//! ```text
//! amqp://[user[:password]@]host[:5672][,host…][/vhost][?password_file=/path]
//! amqps://…[:5671]…[?ca=/path.pem]
//! ```
//!
//! Several hosts are nodes of one cluster: whichever answers is taken. In user, password and vhost, special characters are
//! written as `%` and two hexadecimal digits. Without a user it is `guest`, without a vhost `/`.

use std::str::FromStr;

use redrive_shared::error::suggest;

use crate::address::{
    AddressError, Secret, Tls, decode, encode, nodes, password, read_tls, show, split, user,
};

/// RabbitMQ's port.
pub const PORT: u16 = 5672;
/// RabbitMQ's port for TLS.
pub const TLS_PORT: u16 = 5671;
const DEFAULT_VHOST: &str = "/";
const DEFAULT_USER: &str = "guest";

/// An address of RabbitMQ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AmqpAddress {
    /// Host (IPv6 without brackets) and port of each node. Never empty.
    pub nodes: Vec<(String, u16)>,
    /// The virtual host.
    pub vhost: String,
    /// The user.
    pub username: String,
    /// The password; the user's name when missing, as RabbitMQ's `guest` has it.
    pub password: Option<Secret>,
    /// Whether to speak TLS, and whom to trust.
    pub tls: Option<Tls>,
}

impl AmqpAddress {
    /// The password itself, for the server's eyes.
    pub fn reveal_password(&self) -> &str {
        self.password.as_ref().map_or(&self.username, Secret::reveal)
    }

    /// The address as it can be read again, **with its password**: for the server's eyes, or the environment of a child that
    /// this process starts. Never logged, never an argument, which everyone on the machine can read.
    pub fn reveal(&self) -> String {
        let scheme = if self.tls.is_some() { "amqps" } else { "amqp" };
        let password = self.password.as_ref().map(|secret| format!(":{}", encode(secret.reveal())));
        let nodes: Vec<String> = self.nodes.iter().map(|(host, port)| show(host, *port)).collect();
        let authority = self.tls.as_ref().and_then(|tls| tls.ca.as_ref());
        let ca = authority.map(|(path, _)| format!("?ca={}", encode(&path.to_string_lossy())));
        format!(
            "{scheme}://{}{}@{}/{}{}",
            encode(&self.username),
            password.unwrap_or_default(),
            nodes.join(","),
            encode(&self.vhost),
            ca.unwrap_or_default()
        )
    }
}

impl std::fmt::Display for AmqpAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let scheme = if self.tls.is_some() { "amqps" } else { "amqp" };
        let password = if self.password.is_some() { ":***" } else { "" };
        let nodes: Vec<String> = self.nodes.iter().map(|(host, port)| show(host, *port)).collect();
        write!(f, "{scheme}://{}{password}@{}", self.username, nodes.join(","))?;
        if self.vhost == DEFAULT_VHOST { Ok(()) } else { write!(f, "/{}", self.vhost) }
    }
}

impl FromStr for AmqpAddress {
    type Err = AddressError;

    fn from_str(url: &str) -> Result<Self, AddressError> {
        let (scheme, rest) = url.trim().split_once("://").ok_or_else(|| {
            AddressError::new("RabbitMQ's address begins with a scheme, for example amqp://127.0.0.1:5672")
        })?;
        let over_tls = match scheme {
            "amqp" => false,
            "amqps" => true,
            other => {
                let hint = suggest(other, ["amqp", "amqps"]).map(|near| format!("; did you mean {near}://?"));
                return Err(AddressError::new(format!(
                    "unknown scheme {other:?}{} (known: amqp://, amqps://)",
                    hint.unwrap_or_default()
                )));
            }
        };
        let parts = split(rest)?;
        let nodes = nodes(parts.hosts, if over_tls { TLS_PORT } else { PORT })?;
        let (username, in_url) = user(parts.user)?;
        let (ca, password_file) = options(parts.query)?;
        Ok(Self {
            nodes,
            vhost: vhost(parts.path)?,
            username: username.unwrap_or_else(|| DEFAULT_USER.to_owned()),
            password: password("password", in_url.map(Secret::new), password_file.as_deref())?,
            tls: read_tls(over_tls, ca, ("amqp", "amqps"))?,
        })
    }
}

fn vhost(path: &str) -> Result<String, AddressError> {
    if path.contains('/') {
        return Err(AddressError::new(
            "after the hosts comes one virtual host; a / in its name is written %2F, for example amqp://h/%2Ffleet",
        ));
    }
    let vhost = decode(path, "the virtual host")?;
    Ok(if vhost.is_empty() { DEFAULT_VHOST.to_owned() } else { vhost })
}

/// `ca` and `password_file`.
fn options(query: &str) -> Result<(Option<String>, Option<String>), AddressError> {
    const KNOWN: [&str; 2] = ["ca", "password_file"];
    let (mut ca, mut password_file) = (None, None);
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let place = match key {
            "ca" => &mut ca,
            "password_file" => &mut password_file,
            // It is not shown: it may be the tail of a password with a bare ?.
            _ => {
                let hint = suggest(key, KNOWN).map(|near| format!("; did you mean {near}?"));
                let hint = hint.unwrap_or_default();
                let known = KNOWN.join(", ");
                return Err(AddressError::new(format!(
                    "unknown option in the address{hint} (known: {known})"
                )));
            }
        };
        if value.is_empty() {
            return Err(AddressError::new(format!("{key} in the address has no value")));
        }
        if place.replace(decode(value, key)?).is_some() {
            return Err(AddressError::new(format!("{key} is in the address twice")));
        }
    }
    Ok((ca, password_file))
}

#[cfg(test)]
mod tests {
    use super::{AmqpAddress, Secret};

    fn parsed(url: &str) -> AmqpAddress {
        url.parse().unwrap_or_else(|error| panic!("{url}: {error}"))
    }

    fn refused(url: &str) -> String {
        match url.parse::<AmqpAddress>() {
            Ok(address) => panic!("{url} was taken as {address:?}"),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn what_is_left_out_is_as_rabbitmq_has_it() {
        let plain = parsed("amqp://127.0.0.1");
        assert_eq!(plain.nodes, [("127.0.0.1".to_owned(), 5672)]);
        assert_eq!((plain.vhost.as_str(), plain.username.as_str()), ("/", "guest"));
        assert_eq!(plain.reveal_password(), "guest");
        assert_eq!(parsed("amqp://h/").vhost, "/");
        assert_eq!(parsed("amqps://h").nodes[0].1, 5671);
    }

    #[test]
    fn everything_can_be_said() {
        let full = parsed("amqp://al%40ice:p%2Fw@a,b:1,[::1]:2/%2Ffleet");
        assert_eq!(full.nodes, [("a".to_owned(), 5672), ("b".to_owned(), 1), ("::1".to_owned(), 2)]);
        assert_eq!((full.vhost.as_str(), full.username.as_str()), ("/fleet", "al@ice"));
        assert_eq!(full.password, Some(Secret::new("p/w")));
        assert_eq!(full.to_string(), "amqp://al@ice:***@a:5672,b:1,[::1]:2//fleet");
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (url, says) in [
            ("127.0.0.1:5672", "begins with a scheme"),
            ("ampq://h", "did you mean amqp://"),
            ("amqp://", "host is empty"),
            ("amqp://h:0", "from 1 to 65535"),
            ("amqp://h/a/b", "%2F"),
            ("amqp://h?heartbeat=1", "unknown option"),
            ("amqp://h?pasword_file=/x", "did you mean password_file"),
            ("amqp://h?ca=/x", "begin the address with amqps"),
            ("amqps://h?ca=/nowhere/ca.pem", "cannot read ca /nowhere/ca.pem"),
            ("amqp://u:x@h?password_file=/nowhere", "leave out one"),
        ] {
            let error = refused(url);
            assert!(error.contains(says), "{url}: {error}");
        }
    }

    #[test]
    fn a_password_is_never_shown() {
        let shown = [
            format!("{:?}", parsed("amqp://u:hunter2@h")),
            parsed("amqp://u:hunter2@h").to_string(),
            refused("amqp://u:hunter2"),
            refused("amqp://u:hunter2/x@h"),
            refused("amqp://u:hunter2?x@h"),
            refused("amqp://h?hunter2"),
        ];
        for text in shown {
            assert!(!text.contains("hunter2"), "{text}");
        }
    }

    #[test]
    fn what_is_revealed_is_the_same_address() {
        let dir = tempfile::tempdir().unwrap();
        let (ca, password) = (dir.path().join("c a&1%.pem"), dir.path().join("password"));
        std::fs::write(&ca, "PEM").unwrap();
        std::fs::write(&password, "p:@/?#%&+ä 1").unwrap();
        let ca = ca.to_str().unwrap().replace('%', "%25").replace('&', "%26");
        for url in [
            "amqp://h".to_owned(),
            "amqp://u@a,b:1,[::1]:2".to_owned(),
            "amqp://al%40ice%3A:p%2Fw%25%3F%23@h/%2Ffleet%20%C3%A4%3F".to_owned(),
            format!("amqps://u:p@h?ca={ca}"),
            format!("amqps://u@h/v?ca={ca}&password_file={}", password.display()),
        ] {
            let address = parsed(&url);
            let revealed = address.reveal();
            assert_eq!(parsed(&revealed), address, "{revealed}");
        }
        assert_eq!(parsed("amqp://u:a%2Fb@h").reveal(), "amqp://u:a%2Fb@h:5672/%2F");
    }

    #[test]
    fn a_password_from_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("password");
        std::fs::write(&file, "se cret\n").unwrap();
        let address = parsed(&format!("amqp://u@h?password_file={}", file.display()));
        assert_eq!(address.reveal_password(), "se cret");
    }
}
