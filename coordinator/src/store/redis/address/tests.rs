use super::{Address, Kind, Secret};

fn parsed(url: &str) -> Address {
    url.parse().unwrap_or_else(|error| panic!("{url}: {error}"))
}

fn refused(url: &str) -> String {
    match url.parse::<Address>() {
        Ok(address) => panic!("{url} was taken as {address:?}"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn one_server() {
    let plain = parsed("redis://127.0.0.1");
    assert_eq!(plain.nodes, [("127.0.0.1".to_owned(), 6379)]);
    assert_eq!((plain.kind, plain.tls, plain.database), (Kind::Single, None, 0));
    let full = parsed("rediss://al%40ice:p%2Fw%3A%25@[::1]:7000/3");
    assert_eq!(full.nodes, [("::1".to_owned(), 7000)]);
    assert_eq!(full.username.as_deref(), Some("al@ice"));
    assert_eq!(full.password, Some(Secret::new("p/w:%")));
    assert!(full.tls.is_some());
    assert_eq!(full.database, 3);
    assert_eq!(parsed("redis://:x@h/").username, None);
}

#[test]
fn sentinels_and_clusters() {
    let sentinels =
        parsed("redis+sentinel://u:p@a,b:1,[::2]/mymaster?db=2&sentinel_username=s&sentinel_password=q%26");
    assert_eq!(sentinels.nodes, [("a".to_owned(), 26379), ("b".to_owned(), 1), ("::2".to_owned(), 26379)]);
    let kind = Kind::Sentinel {
        service: "mymaster".to_owned(),
        username: Some("s".to_owned()),
        password: Some(Secret::new("q&")),
    };
    assert_eq!((sentinels.kind, sentinels.database), (kind, 2));
    let cluster = parsed("redis+cluster://a,b:7001");
    assert_eq!((cluster.kind, cluster.nodes.len()), (Kind::Cluster, 2));
}

#[test]
fn what_is_wrong_is_said() {
    for (url, says) in [
        ("127.0.0.1:6379", "begins with a scheme"),
        ("redsi://h", "did you mean redis://"),
        ("redis+sentinal://h/m", "did you mean redis+sentinel://"),
        ("redis://", "host is empty"),
        ("redis://:6379", "host is empty"),
        ("redis+cluster://a,,b", "host is empty"),
        ("redis://h:0", "from 1 to 65535"),
        ("redis://h:70000", "from 1 to 65535"),
        ("redis://::1", "in brackets"),
        ("redis://[::1", "closing bracket"),
        ("redis://[nonsense]", "not an IPv6 address"),
        ("redis://h/x", "number of a database"),
        ("redis://h/-1", "number of a database"),
        ("redis://a,b", "takes one host"),
        ("redis+sentinel://h", "name of the service"),
        ("redis+cluster://h/1", "only database 0"),
        ("redis://h?pasword_file=/x", "did you mean password_file"),
        ("redis://h?db=1", "unknown option"),
        ("redis://h?ca=/x", "rediss"),
        ("rediss://h?ca=/nowhere/ca.pem", "cannot read ca /nowhere/ca.pem"),
        ("redis://h?password_file=/nowhere", "cannot read password_file"),
        ("redis://:x@h?password_file=/nowhere", "leave out one"),
        ("redis://:%zz@h", "hexadecimal"),
        ("redis://h#x", "%23"),
        ("redis://h?ca", "no value"),
    ] {
        let error = refused(url);
        assert!(error.contains(says), "{url}: {error}");
    }
}

#[test]
fn a_password_is_never_shown() {
    let shown = [
        format!("{:?}", parsed("redis://u:hunter2@h")),
        parsed("redis://u:hunter2@h").to_string(),
        format!("{:?}", parsed("redis+sentinel://h/m?sentinel_password=hunter2")),
        refused("redis://u:hunter2"),
        refused("redis://u:hunter2/x@h"),
        refused("redis://u:hunter2?x@h"),
        refused("redis://u:hunter2#@h"),
        refused("redis://:hunter2@"),
        refused("redis://:hunter2%zz@h"),
        refused("redis://h?hunter2@x"),
    ];
    for text in shown {
        assert!(!text.contains("hunter2"), "{text}");
    }
    assert_eq!(parsed("redis://u:x@h:1/2").to_string(), "redis://u:***@h:1/2");
}

#[test]
fn a_password_from_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("password");
    std::fs::write(&file, "se cret\r\n").unwrap();
    let address = parsed(&format!("redis://h?password_file={}", file.display()));
    assert_eq!(address.password, Some(Secret::new("se cret")));
    std::fs::write(&file, "\n").unwrap();
    assert!(refused(&format!("redis://h?password_file={}", file.display())).contains("is empty"));
}
