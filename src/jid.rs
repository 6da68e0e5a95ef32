//! Addresses of XMPP entities (RFC 7622), as far as a component needs them.
//!
//! The XMPP server has prepared and checked the addresses that it stamps on stanzas; here they are only split and
//! folded to one spelling. Case is folded, because configuration files and stores of predecessors are written by
//! people and programs that did not prepare them.

use std::fmt;

/// Longest part of an address, in bytes (RFC 7622 §3.1).
const MAX_PART: usize = 1023;

/// A bare address, `local@domain` or `domain`, in lower case. Never empty, no white space, no control characters.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BareJid(String);

impl BareJid {
    /// Takes a bare or full address and keeps its bare part. `None` when it is no address.
    pub fn parse(text: &str) -> Option<BareJid> {
        let bare = text.split('/').next().unwrap_or_default();
        let (local, domain) = match bare.split_once('@') {
            Some((local, domain)) => (Some(local), domain),
            None => (None, bare),
        };
        let domain = domain.strip_suffix('.').unwrap_or(domain);
        let sound = |part: &str| {
            !part.is_empty()
                && part.len() <= MAX_PART
                && !part.chars().any(|c| c.is_whitespace() || c.is_control())
        };
        // One dot at the end is the root's, and dropped; before a second one there is an empty label.
        let rooted = domain.ends_with('.');
        if !sound(domain) || rooted || domain.contains('@') || !local.is_none_or(sound) {
            return None;
        }
        let mut bare = String::with_capacity(bare.len());
        if let Some(local) = local {
            bare.push_str(&local.to_lowercase());
            bare.push('@');
        }
        bare.push_str(&domain.to_lowercase());
        Some(BareJid(bare))
    }

    /// The whole address.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The part after the `@`, or the whole of a domain's address.
    pub fn domain(&self) -> &str {
        self.0.rsplit('@').next().unwrap_or(&self.0)
    }
}

impl fmt::Display for BareJid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, bare: Option<&str>) {
        let parsed = BareJid::parse(text);
        assert_eq!(parsed.as_ref().map(BareJid::as_str), bare, "{text:?}");
    }

    #[test]
    fn takes_bare_and_full_addresses_and_domains() {
        check("romeo@montague.tld", Some("romeo@montague.tld"));
        check("Romeo@Montague.TLD/orchard", Some("romeo@montague.tld"));
        check("montague.tld", Some("montague.tld"));
        check("montague.tld./x@y/z", Some("montague.tld"));
        check("jürgen@münchen.example", Some("jürgen@münchen.example"));
        assert_eq!(BareJid::parse("a@b.c").unwrap().domain(), "b.c");
        assert_eq!(BareJid::parse("b.c").unwrap().domain(), "b.c");
    }

    #[test]
    fn refuses_what_is_no_address() {
        for text in [
            "", "@", "@b", "a@", "/r", "a@b@c", "a b@c", "a@b\n", "a\u{0}@b", ".", "..", "a@b..",
        ] {
            check(text, None);
        }
        check(&format!("a@{}", "b".repeat(1024)), None);
    }
}
