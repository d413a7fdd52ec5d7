//! The pieces that only a store's address has.

use redrive_link::address::{AddressError, decode};

use super::{Query, SCHEMES, Scheme, suggest};

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
