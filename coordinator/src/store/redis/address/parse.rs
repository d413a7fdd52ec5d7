//! The pieces of an address.

use super::{AddressError, Query, SCHEMES, Scheme, suggest};

/// An address cut where its punctuation is. Nothing is decoded yet.
pub(super) struct Parts<'a> {
    /// Before the `@`.
    pub(super) user: Option<&'a str>,
    /// Hosts with ports, with commas between them.
    pub(super) hosts: &'a str,
    /// After the first `/`.
    pub(super) path: &'a str,
    /// After the `?`.
    pub(super) query: &'a str,
}

/// The kind of installation that a scheme means, and whether over TLS.
pub(super) fn scheme(name: &str) -> Result<(Scheme, bool), AddressError> {
    if let Some((_, scheme, tls)) = SCHEMES.iter().find(|(known, _, _)| *known == name) {
        return Ok((*scheme, *tls));
    }
    let known = SCHEMES.map(|(known, _, _)| known);
    let hint = suggest(name, known).map(|near| format!("; did you mean {near}://?")).unwrap_or_default();
    Err(AddressError::new(format!(
        "unknown scheme {name:?}{hint} (known: {})",
        known.map(|name| format!("{name}://")).join(", ")
    )))
}

/// Cuts what follows `scheme://`.
pub(super) fn split(rest: &str) -> Result<Parts<'_>, AddressError> {
    if rest.contains('#') {
        return Err(AddressError::new("an address has no part after a #; in a password write it %23"));
    }
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, tail) = rest.split_at(end);
    let (path, query) = tail.split_once('?').unwrap_or((tail, ""));
    // A password with a bare / or ? cuts the address in the middle of itself: nothing of it may be shown.
    if !authority.contains('@') && authority.contains(':') && path.contains('@') {
        return Err(AddressError::new("a / or ? in the password must be written %2F or %3F"));
    }
    let (user, hosts) = match authority.rsplit_once('@') {
        Some((user, hosts)) => (Some(user), hosts),
        None => (None, authority),
    };
    Ok(Parts { user, hosts, path: path.strip_prefix('/').unwrap_or(path), query })
}

/// Hosts and ports.
pub(super) fn nodes(text: &str, default_port: u16) -> Result<Vec<(String, u16)>, AddressError> {
    text.split(',').map(|node| self::node(node, default_port)).collect()
}

fn node(text: &str, default_port: u16) -> Result<(String, u16), AddressError> {
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let (host, after) = rest
            .split_once(']')
            .ok_or_else(|| AddressError::new("an IPv6 address needs its closing bracket: [::1]:6379"))?;
        if host.parse::<std::net::Ipv6Addr>().is_err() {
            return Err(AddressError::new("what is in brackets is not an IPv6 address, as in [::1]:6379"));
        }
        match after.strip_prefix(':') {
            Some(port) => (host, Some(port)),
            None if after.is_empty() => (host, None),
            None => return Err(AddressError::new("after ] comes nothing or a port: [::1]:6379")),
        }
    } else {
        match text.split_once(':') {
            Some((_, port)) if port.contains(':') => {
                return Err(AddressError::new("an IPv6 address stands in brackets: [::1]:6379"));
            }
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        }
    };
    if host.is_empty() {
        return Err(AddressError::new("the host is empty; write it as in redis://127.0.0.1:6379"));
    }
    if host.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err(AddressError::new("a host has no spaces"));
    }
    let port = match port {
        None => default_port,
        // The text is not shown: without an @ it may be a password.
        Some(port) => port.parse().ok().filter(|port| *port != 0).ok_or_else(|| {
            AddressError::new(format!("the port after {host:?} is not a number from 1 to 65535"))
        })?,
    };
    Ok((host.to_owned(), port))
}

/// User and password.
pub(super) fn user(text: Option<&str>) -> Result<(Option<String>, Option<String>), AddressError> {
    let Some(text) = text else { return Ok((None, None)) };
    let (user, password) = match text.split_once(':') {
        Some((user, password)) => (user, Some(password)),
        None => (text, None),
    };
    let filled = |text: String| Some(text).filter(|text| !text.is_empty());
    let user = filled(decode(user, "the user")?);
    let password = password.map(|text| decode(text, "the password")).transpose()?.and_then(filled);
    Ok((user, password))
}

/// The number of the database.
pub(super) fn database(scheme: Scheme, path: &str, query: Option<&str>) -> Result<i64, AddressError> {
    let text = match scheme {
        Scheme::Sentinel => query.unwrap_or(""),
        Scheme::Single | Scheme::Cluster => path.strip_suffix('/').unwrap_or(path),
    };
    if text.is_empty() {
        return Ok(0);
    }
    let number = text.parse::<u16>().map_err(|_| {
        AddressError::new(match scheme {
            Scheme::Sentinel => "db is the number of a database, for example ?db=0",
            Scheme::Single => {
                "after the host comes only the number of a database, for example redis://127.0.0.1:6379/0"
            }
            Scheme::Cluster => "after the hosts of a cluster comes nothing",
        })
    })?;
    if scheme == Scheme::Cluster && number != 0 {
        return Err(AddressError::new(format!("a cluster has only database 0, not {number}")));
    }
    Ok(i64::from(number))
}

/// The name that Sentinels know the master by.
pub(super) fn service(path: &str) -> Result<String, AddressError> {
    let service = decode(path.strip_suffix('/').unwrap_or(path), "the service")?;
    if service.is_empty() || service.contains('/') {
        return Err(AddressError::new(
            "after the Sentinels comes the name of the service, for example redis+sentinel://h1,h2,h3/mymaster",
        ));
    }
    Ok(service)
}

/// What follows the `?`.
pub(super) fn query(text: &str, scheme: Scheme) -> Result<Query, AddressError> {
    let mut query = Query::default();
    for pair in text.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let place = match (key, scheme) {
            ("ca", _) => &mut query.ca,
            ("password_file", _) => &mut query.password_file,
            ("db", Scheme::Sentinel) => &mut query.database,
            ("sentinel_username", Scheme::Sentinel) => &mut query.sentinel_username,
            ("sentinel_password", Scheme::Sentinel) => &mut query.sentinel_password,
            ("sentinel_password_file", Scheme::Sentinel) => &mut query.sentinel_password_file,
            _ => return Err(unknown(key, scheme)),
        };
        if value.is_empty() {
            return Err(AddressError::new(format!("{key} in the address has no value")));
        }
        if place.replace(decode(value, key)?).is_some() {
            return Err(AddressError::new(format!("{key} is in the address twice")));
        }
    }
    Ok(query)
}

fn unknown(key: &str, scheme: Scheme) -> AddressError {
    const OF_ALL: [&str; 2] = ["ca", "password_file"];
    const OF_SENTINEL: [&str; 4] = ["db", "sentinel_username", "sentinel_password", "sentinel_password_file"];
    let known: Vec<&str> = match scheme {
        Scheme::Sentinel => OF_ALL.into_iter().chain(OF_SENTINEL).collect(),
        Scheme::Single | Scheme::Cluster => OF_ALL.to_vec(),
    };
    // It may be the tail of a password with a bare ?.
    let shown = if key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_') {
        format!(" {key:?}")
    } else {
        String::new()
    };
    let hint = suggest(key, known.iter().copied()).map(|near| format!("; did you mean {near}?"));
    let hint = hint.unwrap_or_default();
    AddressError::new(format!("unknown option{shown} in the address{hint} (known: {})", known.join(", ")))
}

/// Undoes percent-encoding.
fn decode(text: &str, what: &str) -> Result<String, AddressError> {
    let bad = || AddressError::new(format!("{what} has a % that is not followed by two hexadecimal digits"));
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|byte| char::from(byte).to_digit(16)).ok_or_else(bad);
        let (high, low) = (digit()?, digit()?);
        bytes.push(u8::try_from(high * 16 + low).map_err(|_| bad())?);
    }
    String::from_utf8(bytes).map_err(|_| AddressError::new(format!("{what} is not UTF-8")))
}
