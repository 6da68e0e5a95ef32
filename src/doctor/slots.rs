//! Slots for the doctor's own test files.
//!
//! They belong to an owner of their own, so that all of them can be removed at once and no user's quota is touched. Their
//! paths carry an expiry time: if the removal fails or the doctor is killed, the files are not served for long.

use std::time::Duration;

use crate::config::Config;
use crate::jid::BareJid;
use crate::layout::{self, Expiry, RANDOM_BYTES, StorePath, Tag};
use crate::now::Now;
use crate::purpose::Purpose;
use crate::slot::own::{Signer, Terms};

/// How long the files are served if they are not removed; seconds.
const LIFE: u64 = 3600;

/// A slot of a test file.
#[derive(Clone, Debug)]
pub struct TestSlot {
    pub path: StorePath,
    /// The request target of the PUT, and that of GET.
    pub put: String,
    pub get: String,
    /// The URL of the file.
    pub url: String,
}

/// Signs slots with the key of the running service.
#[derive(Debug)]
pub struct Slots {
    signer: Signer,
    /// The owner of all test files of this run.
    pub owner: BareJid,
    put_path: String,
    get_path: String,
    get_prefix: String,
    /// How long a slot is valid; as for those of the service, so that the removal revokes it.
    put_timeout: Duration,
    /// The Unix second after which the files are not served.
    expires: u64,
}

impl Slots {
    /// `random` makes the owner's name unique, because removing an owner's files revokes its slots.
    pub fn new(config: &Config, secret: &[u8], random: &[u8], now: Now) -> Option<Slots> {
        let name = data_encoding::HEXLOWER.encode(random);
        Some(Slots {
            signer: Signer::new(secret),
            // RFC 2606 reserves the domain, so this is no user's address.
            owner: BareJid::parse(&format!("{name}@upslot-doctor.invalid"))?,
            put_path: config.put_url.path.clone(),
            get_path: config.get_url.path.clone(),
            get_prefix: config.get_url.prefix.clone(),
            put_timeout: config.put_timeout,
            expires: now.unix().saturating_add(LIFE),
        })
    }

    /// A slot for a file of this name, size and type.
    pub fn issue(
        &self,
        name: &str,
        size: u64,
        content_type: Option<&str>,
        random: &[u8; RANDOM_BYTES],
        now: Now,
    ) -> Option<TestSlot> {
        let tag = Tag {
            purpose: Purpose::Message,
            end: Expiry::At(self.expires),
            size: Some(size),
        };
        let folder = layout::owner_folder(&self.owner);
        let path = StorePath::in_owner_folder(&folder, tag, random, name)?;
        let terms = Terms {
            size,
            content_type,
            total: None,
            until: now.unix().saturating_add(self.put_timeout.as_secs()),
        };
        let encoded = path.encoded();
        let mut put = [self.put_path.as_str(), &encoded].concat();
        self.signer.sign(&path, &terms, &mut put);
        Some(TestSlot {
            put,
            get: [self.get_path.as_str(), &encoded].concat(),
            url: [self.get_prefix.as_str(), &encoded].concat(),
            path,
        })
    }
}

impl TestSlot {
    /// The target of a PUT whose signature is not valid.
    pub fn forged(&self) -> String {
        let end = self.put.len() - 1;
        let last = if self.put.ends_with('A') { 'B' } else { 'A' };
        format!("{}{last}", &self.put[..end])
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant, UNIX_EPOCH};

    use super::*;
    use crate::config;
    use crate::http::head::RequestHead;
    use crate::service::{Decision, Service};

    const SECRET: &[u8] = b"a key of some length";

    #[test]
    fn the_service_accepts_the_slots() {
        let text = "storage_path: /srv/x\nget_url: http://a.example/get/\nput_url: http://b.example/p%20t/\n";
        let config = config::read(text).unwrap().config;
        let now = Now {
            mono: Instant::now(),
            wall: UNIX_EPOCH + Duration::from_secs(1_800_000_000),
        };
        let slots = Slots::new(&config, SECRET, &[7; 8], now).unwrap();
        let service = Service::new(&config, SECRET);
        let slot = slots
            .issue(
                "ä 100% #1?.txt",
                5,
                Some("text/plain"),
                &[1; RANDOM_BYTES],
                now,
            )
            .unwrap();
        assert!(slot.put.starts_with("/p%20t/") && slot.get.starts_with("/get/"));
        assert_eq!(slot.url, format!("http://a.example{}", slot.get));
        let decide = |target: &str| {
            let head =
                format!("PUT {target} HTTP/1.1\r\nHost: b.example\r\nContent-Length: 5\r\n\r\n");
            service.decide(&RequestHead::parse(head.as_bytes()).unwrap(), now)
        };
        let Decision::Upload(grant) = decide(&slot.put) else {
            panic!("the slot is not accepted");
        };
        assert_eq!((&grant.path, grant.size), (&slot.path, 5));
        assert!(matches!(decide(&slot.forged()), Decision::Refuse(_)));
        // It is not served any longer than that.
        assert!(!service.is_expired(&slot.path, now));
        assert!(service.is_expired(&slot.path, now.later(Duration::from_secs(LIFE + 1))));
    }
}
