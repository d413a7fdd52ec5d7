//! Who is at the keyboard, for the record of what is changed.

use redrive_shared::id::Name;
use redrive_shared::limits::NAME_MAX_BYTES;

/// `user@host`, as far as either is known. Nobody checks it.
pub fn who() -> Option<Name> {
    let set = |name: &str| std::env::var(name).ok();
    let user = set("USER").or_else(|| set("LOGNAME")).or_else(|| set("USERNAME"));
    let host = ["/proc/sys/kernel/hostname", "/etc/hostname"]
        .into_iter()
        .find_map(|file| std::fs::read_to_string(file).ok())
        .or_else(|| set("HOSTNAME"));
    named(user.as_deref().unwrap_or(""), host.as_deref().unwrap_or(""))
}

/// What no name may have becomes `_`.
fn named(user: &str, host: &str) -> Option<Name> {
    let (user, host) = (user.trim(), host.trim());
    let text = if host.is_empty() { user.to_owned() } else { format!("{user}@{host}") };
    let mut name = String::new();
    for c in text.trim_start_matches('@').chars() {
        let c = if Name::new(format!("a{c}")).is_ok() { c } else { '_' };
        if name.len() + c.len_utf8() > NAME_MAX_BYTES {
            break;
        }
        name.push(c);
    }
    Name::new(name).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_it_is_has_a_name() {
        let name = |user: &str, host: &str| named(user, host).map(String::from);
        assert_eq!(name("ada", "laptop\n").as_deref(), Some("ada@laptop"));
        assert_eq!(name("ada b|c", "").as_deref(), Some("ada_b_c"));
        assert_eq!(name("", "laptop").as_deref(), Some("laptop"));
        assert_eq!(name("", ""), None);
        assert_eq!(name(&"ü".repeat(100), "h").map(|name| name.len()), Some(128));
    }
}
