//! `upslot explain`: whether a slot request would be granted, and why.
//!
//! It calls the same decision functions as the service, on the same files, and describes each result. State of the running
//! process is not included: unused slots and uploads in progress.

use std::fmt;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use crate::config::{Config, scalar};
use crate::jid::BareJid;
use crate::layout;
use crate::list;
use crate::now::{Now, date_time};
use crate::policy::pool::{Bytes, Pool, QuotaClass};
use crate::policy::rates::{RateCheck, Rates, WindowKind, WindowUsage};
use crate::policy::rules::{Limits, RuleDecision};
use crate::policy::{Policy, SpaceCheck, Usage};
use crate::purpose::Purpose;
use crate::refusal::Refusal;
use crate::service::Service;
use crate::slot::SlotRequest;
use crate::store::usage::UsageTracker;
use crate::store::walk::{Slice, WalkMode};
use crate::sys;

/// Parses the slot request to explain, `JID [SIZE] [TYPE]`; the default size is one byte. SIZE may be two words, as in
/// `10 MiB`. Fails with a sentence without its full stop.
pub fn parse(words: &[String]) -> Result<SlotRequest, String> {
    let Some((jid, words)) = words.split_first() else {
        return Err("explain needs a JID".into());
    };
    let owner = BareJid::parse(jid).ok_or_else(|| format!("{jid:?} is not a JID"))?;
    let read = |text: &str| scalar::size(text, 1).ok();
    let with_unit = words
        .split_at_checked(2)
        .and_then(|(size, words)| Some((read(&size.join(" "))?, words)));
    let (size, words) = match (with_unit, words) {
        (Some(with_unit), _) => with_unit,
        (None, []) => (1, words),
        (None, [size, words @ ..]) => {
            let expected = "a size above 0, such as 20971520 or 20 MiB";
            let error = || format!("found {size:?} as the size, expected {expected}");
            (read(size).ok_or_else(error)?, words)
        }
    };
    let content_type = match words {
        [] => None,
        [content_type] if is_mime_type(content_type) => Some(content_type.clone()),
        [other] => {
            return Err(format!(
                "found {other:?} as the type, expected a MIME type such as image/png"
            ));
        }
        [_, other, ..] => {
            return Err(format!(
                "explain takes JID, SIZE and TYPE, but not {other:?}"
            ));
        }
    };
    Ok(SlotRequest {
        owner,
        name: "file".to_owned(),
        size,
        content_type,
        purpose: Purpose::Message,
    })
}

/// Whether a text is a MIME type, with or without parameters.
fn is_mime_type(text: &str) -> bool {
    let essence = text.split(';').next().unwrap_or_default().trim();
    scalar::mime_pattern(essence).is_ok() && !essence.contains('*')
}

/// The explanation and the decision.
#[derive(Clone, Debug)]
pub struct Explanation {
    /// Lines for the user.
    pub text: String,
    pub granted: bool,
}

/// Explains the decision on a slot request.
pub fn explain(config: &Config, request: &SlotRequest, now: Now) -> Result<Explanation, String> {
    let service = Service::new(config, b"nothing is signed here");
    let policy = service.policy();
    let jid = &request.owner;
    let owner = layout::owner_folder(jid);
    let mut lines = vec![
        format!("address: {jid}"),
        format!("owner folder: {owner}"),
        whitelist(policy, jid),
        access(&policy.rules.decide(jid)),
    ];
    let root = list::open(config)?;
    if root.is_none() {
        let path = config.storage_path.display();
        lines.push(format!(
            "storage_path: {path} does not exist yet, so nothing is stored"
        ));
    }
    let stored = StoredUsage::read(root, config, &service, &owner, now);
    let limits = policy.admit(jid).ok().flatten();
    lines.extend(sizes(config, &service, limits));
    lines.extend(quotas(policy, limits, &stored.usage));
    let mut rates = Rates::default();
    if let Some(limits) = limits {
        rates.loaded(owner.as_bytes(), limits, &stored.recent, now.unix());
        let uses = rates.uses(owner.as_bytes(), limits, now.unix());
        lines.extend(uses.into_iter().flatten().map(window));
    }
    let size = DisplaySize(request.size);
    let decision = decide(&service, request, &stored.usage, &mut rates, now);
    match &decision {
        Ok(()) => lines.push(format!("A slot for {size} would be granted.")),
        Err(refusal) => {
            let reason = refusal.reason();
            lines.push(format!(
                "A slot for {size} would be refused ({reason}): {refusal}"
            ));
            if let Refusal::Rate {
                retry: Some(at), ..
            } = refusal
            {
                lines.push(format!("It would be granted from {} on.", date_time(*at)));
            }
        }
    }
    Ok(Explanation {
        granted: decision.is_ok(),
        text: lines.join("\n") + "\n",
    })
}

/// Bytes for people, with the exact number if the unit rounds.
struct DisplaySize(u64);

impl fmt::Display for DisplaySize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
        let bytes = self.0;
        let powers = bytes.checked_ilog2().unwrap_or(0) / 10;
        let Some(unit) = (powers as usize)
            .checked_sub(1)
            .map(|at| at.min(UNITS.len() - 1))
        else {
            let s = if bytes == 1 { "" } else { "s" };
            return write!(f, "{bytes} byte{s}");
        };
        let (name, one) = (UNITS[unit], 1_u64 << (10 * (unit + 1)));
        if bytes % one == 0 {
            return write!(f, "{} {name}", bytes / one);
        }
        // One decimal, never rounded up to more than there is.
        let tenths = u128::from(bytes) * 10 / u128::from(one);
        write!(f, "{}.{} {name} ({bytes} bytes)", tenths / 10, tenths % 10)
    }
}

/// A duration in the largest unit of the configuration that divides it.
struct DisplayDuration(Duration);

impl fmt::Display for DisplayDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        let units = [(86_400, "d"), (3_600, "h"), (60, "m")];
        match units
            .iter()
            .find(|(one, _)| seconds > 0 && seconds % one == 0)
        {
            Some((one, name)) => write!(f, "{} {name}", seconds / one),
            None => write!(f, "{seconds} s"),
        }
    }
}

/// The present contents of the store.
struct StoredUsage {
    usage: Usage,
    /// The owner's files within the longest window of a rate, as pairs of modification time (Unix seconds) and size.
    recent: Vec<(u64, u64)>,
}

impl StoredUsage {
    /// Counts the files; without a root nothing is stored.
    fn read(
        root: Option<OwnedFd>,
        config: &Config,
        service: &Service,
        owner: &str,
        now: Now,
    ) -> StoredUsage {
        let wants_total = config.global_quota > 0;
        let Some(root) = root else {
            return StoredUsage {
                usage: Usage {
                    owner: Some(Bytes::default()),
                    total: wants_total.then_some(0),
                    free: None,
                },
                recent: Vec::new(),
            };
        };
        let root = root.as_fd();
        let mut tracker = UsageTracker::default();
        tracker.ask(owner.as_bytes(), WalkMode::Files);
        if wants_total {
            tracker.want_total(root, WalkMode::Names);
        }
        let window = service.longest_reach();
        let mut recent = Vec::new();
        while tracker.is_counting() {
            if let Some(counted) =
                tracker.go_on(root, &mut Slice::begin(sys::monotonic), window, now)
            {
                recent = counted.recent;
            }
        }
        let usage = Usage {
            owner: Some(
                tracker
                    .of_owner(owner.as_bytes(), now.mono)
                    .unwrap_or_default(),
            ),
            total: tracker.total(),
            free: sys::free_space(root).ok(),
        };
        StoredUsage { usage, recent }
    }
}

fn whitelist(policy: &Policy, jid: &BareJid) -> String {
    match (&policy.whitelist, policy.whitelist_entry(jid)) {
        (None, _) => "whitelist: none, so every JID may request slots".to_owned(),
        (_, Some(entry)) => format!("whitelist: the entry {entry} matches"),
        (Some(list), None) => format!(
            "whitelist: none of its {} entries is {jid} or {}",
            list.len(),
            jid.domain()
        ),
    }
}

fn access(decision: &RuleDecision<'_>) -> String {
    match decision {
        RuleDecision::NoRules => "access: no rules".to_owned(),
        RuleDecision::Denied { rule: None } => {
            "access: no rule matches, so the request is refused".to_owned()
        }
        RuleDecision::Denied { rule: Some(rule) } => format!("access: {rule} denies"),
        RuleDecision::Allowed { rule, .. } => format!("access: {rule} allows"),
    }
}

fn sizes(config: &Config, service: &Service, limits: Option<&Limits>) -> Vec<String> {
    let mut lines = Vec::new();
    for purpose in Purpose::ALL {
        let word = purpose.word();
        if purpose != Purpose::Message && !service.purposes().contains(&word) {
            continue;
        }
        let class = QuotaClass::from(purpose);
        let size = DisplaySize(service.policy().max_file_size(class, limits));
        let age = match service.max_age(purpose, limits) {
            Duration::ZERO => "never expire".to_owned(),
            age => format!("expire after {}", DisplayDuration(age)),
        };
        lines.push(format!(
            "purpose {word}: at most {size} a file; files {age}"
        ));
    }
    let by_rule = limits.and_then(|limits| limits.allowed_file_types.as_deref());
    for (name, list) in [
        ("allowed_file_types", config.allowed_file_types.as_deref()),
        ("allowed_file_types of the rule", by_rule),
    ] {
        lines.extend(list.map(|list| format!("{name}: {}", list.join(", "))));
    }
    lines
}

fn quotas(policy: &Policy, limits: Option<&Limits>, stored: &Usage) -> Vec<String> {
    let shown = |name: &str, used: u64, limit: Option<u64>| match limit {
        None if used == 0 => format!("{name}: no limit; nothing stored"),
        None => format!("{name}: no limit; {} stored", DisplaySize(used)),
        Some(limit) => format!("{name}: {} of {}", DisplaySize(used), DisplaySize(limit)),
    };
    let used = |pool: Pool| stored.owner.map_or(0, |owner| pool.sum(&owner));
    let mut lines = vec![shown(
        "user_quota_hard",
        used(policy.general_pool()),
        policy.owner_quota,
    )];
    for purpose in Purpose::ALL {
        let class = QuotaClass::from(purpose);
        if let Some(quota) = policy.class_quotas[class] {
            let name = format!("user_quota_hard of {}", purpose.word());
            lines.push(shown(&name, used(Pool::only(class)), quota));
        }
    }
    let total = limits.and_then(|limits| limits.max_total_size);
    if total.is_some() {
        lines.push(shown("max_total_size of the rule", used(Pool::ALL), total));
    }
    if policy.evict {
        lines.push("evict_on_quota: the oldest files would be evicted".to_owned());
    }
    if let Some(total) = stored.total {
        lines.push(shown("global_quota", total, policy.global_quota));
    }
    if let Some(free) = stored.free {
        lines.push(match policy.min_free_space {
            None => format!("free disk space: {}", DisplaySize(free)),
            Some(reserve) => {
                let (free, reserve) = (DisplaySize(free), DisplaySize(reserve));
                format!("free disk space: {free}, of which min_free_space reserves {reserve}")
            }
        });
    }
    lines
}

fn window(used: WindowUsage) -> String {
    let delta = DisplayDuration(used.delta);
    match used.kind {
        WindowKind::Bytes => {
            let (used, limit) = (DisplaySize(used.used), DisplaySize(used.limit));
            format!("bytes per {delta}: {used} of {limit}")
        }
        WindowKind::Uploads => format!("uploads per {delta}: {} of {}", used.used, used.limit),
    }
}

/// The decision, by the functions that the service uses.
fn decide(
    service: &Service,
    request: &SlotRequest,
    stored: &Usage,
    rates: &mut Rates,
    now: Now,
) -> Result<(), Refusal> {
    let limits = service.check_request(request)?;
    let total = limits.and_then(|limits| limits.max_total_size);
    let class = QuotaClass::from(request.purpose);
    match service.policy().room(request.size, class, total, stored) {
        SpaceCheck::Enough | SpaceCheck::OverQuota { evict: true, .. } => {}
        SpaceCheck::OverQuota { refusal, .. } | SpaceCheck::Refused(refusal) => {
            return Err(refusal);
        }
    }
    let Some(limits) = limits else {
        return Ok(());
    };
    let owner = layout::owner_folder(&request.owner);
    match rates.check(owner.as_bytes(), limits, request.size, now.unix()) {
        RateCheck::Refused { over, retry } => Err(over.refusal(request.size, retry)),
        RateCheck::Allowed | RateCheck::Unknown => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use std::fs;

    /// Explains a request of an owner with one stored file of 600 bytes.
    fn answer(name: &str, more: &str, jid: &str, size: u64, content_type: Option<&str>) -> String {
        let root =
            std::env::temp_dir().join(format!("upslot-explain-{name}-{}", std::process::id()));
        let jid = BareJid::parse(jid).unwrap();
        let folder = root.join(layout::owner_folder(&jid)).join("AbCdEfGhIjKlM");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("old.jpg"), vec![0; 600]).unwrap();
        let text = format!(
            "storage_path: {}\nget_url: https://a.example/\nput_url: https://a.example/\n{more}",
            root.display()
        );
        let config = config::read(&text).unwrap().config;
        let request = SlotRequest {
            owner: jid,
            name: "file".to_owned(),
            size,
            content_type: content_type.map(str::to_owned),
            purpose: Purpose::Message,
        };
        let answer = explain(&config, &request, sys::now());
        fs::remove_dir_all(&root).unwrap();
        let answer = answer.unwrap();
        assert_eq!(answer.granted, answer.text.contains("would be granted."));
        answer.text
    }

    #[track_caller]
    fn check(name: &str, more: &str, jid: &str, size: u64, lines: &[&str]) {
        let answer = answer(name, more, jid, size, None);
        for line in lines {
            assert!(answer.contains(line), "{line:?} is not in:\n{answer}");
        }
    }

    #[test]
    fn numbers_have_units() {
        for (bytes, shown) in [
            (0, "0 bytes"),
            (1, "1 byte"),
            (1023, "1023 bytes"),
            (1024, "1 KiB"),
            (1025, "1.0 KiB (1025 bytes)"),
            (10 << 20, "10 MiB"),
            ((1 << 20) + (1 << 19), "1.5 MiB (1572864 bytes)"),
            ((1 << 20) - 1, "1023.9 KiB (1048575 bytes)"),
            (3 << 30, "3 GiB"),
            (2048 << 40, "2048 TiB"),
            (u64::MAX, "16777215.9 TiB (18446744073709551615 bytes)"),
        ] {
            assert_eq!(DisplaySize(bytes).to_string(), shown);
        }
        for (seconds, shown) in [
            (0, "0 s"),
            (1, "1 s"),
            (60, "1 m"),
            (90, "90 s"),
            (7200, "2 h"),
            (2_592_000, "30 d"),
        ] {
            assert_eq!(
                DisplayDuration(Duration::from_secs(seconds)).to_string(),
                shown
            );
        }
    }

    #[test]
    fn parses_questions() {
        let read = |words: &str| {
            let words: Vec<String> = words.split('|').map(str::to_owned).collect();
            parse(&words).map(|r| (r.owner.to_string(), r.size, r.content_type))
        };
        let asked = |size: u64, content_type: Option<&str>| {
            Ok(("a@b.c".to_owned(), size, content_type.map(str::to_owned)))
        };
        let png = Some("image/png");
        assert_eq!(read("a@b.c"), asked(1, None));
        assert_eq!(read("A@b.c/home|5"), asked(5, None));
        assert_eq!(read("a@b.c|10 MiB"), asked(10 << 20, None));
        assert_eq!(read("a@b.c|10|MiB"), asked(10 << 20, None));
        assert_eq!(read("a@b.c|10|MiB|image/png"), asked(10 << 20, png));
        assert_eq!(read("a@b.c|10MiB|image/png"), asked(10 << 20, png));
        let text = "text/plain; charset=utf-8";
        assert_eq!(read(&format!("a@b.c|7|{text}")), asked(7, Some(text)));
        for (words, why) in [
            ("a b", "is not a JID"),
            ("a@b.c|many", "\"many\" as the size"),
            ("a@b.c|0", "\"0\" as the size"),
            ("a@b.c|1|MiBs", "\"MiBs\" as the type"),
            ("a@b.c|1|png", "such as image/png"),
            ("a@b.c|1|image/*", "such as image/png"),
            ("a@b.c|1|a/b|c/d", "but not \"c/d\""),
            ("a@b.c|10|MiB|a/b|c/d", "but not \"c/d\""),
            ("a@b.c|image/png", "\"image/png\" as the size"),
        ] {
            let error = read(words).expect_err(words);
            assert!(error.contains(why), "{words}: {error}");
        }
        assert!(parse(&[]).is_err());
    }

    #[test]
    fn a_missing_store_is_empty() {
        let root = std::env::temp_dir().join(format!("upslot-explain-none-{}", std::process::id()));
        let text = format!(
            "storage_path: {}\nget_url: https://a.example/\nput_url: https://a.example/\nglobal_quota: 1 GiB\n",
            root.display()
        );
        let config = config::read(&text).unwrap().config;
        let request = parse(&["a@b.c".to_owned()]).unwrap();
        let answer = explain(&config, &request, sys::now()).unwrap();
        assert!(!root.exists());
        for line in [
            "does not exist yet, so nothing is stored",
            "user_quota_hard: no limit; nothing stored",
            "global_quota: 0 bytes of 1 GiB",
            "A slot for 1 byte would be granted.",
        ] {
            assert!(
                answer.text.contains(line),
                "{line:?} is not in:\n{}",
                answer.text
            );
        }
    }

    #[test]
    fn every_decision_is_explained() {
        check(
            "open",
            "",
            "a@b.c",
            1000,
            &[
                "whitelist: none,",
                "access: no rules",
                "purpose message: at most 20 MiB a file; files never expire",
                "user_quota_hard: no limit; 600 bytes stored",
                "A slot for 1000 bytes would be granted.",
            ],
        );
        check(
            "listed",
            "whitelist: [x.y, b.c]\n",
            "a@b.c",
            1,
            &["the entry b.c matches"],
        );
        check(
            "stranger",
            "whitelist: [x.y]\n",
            "a@b.c",
            1,
            &[
                "whitelist: none of its 1 entries",
                "would be refused (not_allowed)",
            ],
        );
        check(
            "large",
            "max_file_size: 10\nexpire_maxage: 30 d\nexpire_interval: 1 d\n",
            "a@b.c",
            11,
            &[
                "purpose message: at most 10 bytes a file; files expire after 30 d",
                "would be refused (too_large)",
            ],
        );
        check(
            "quota",
            "user_quota_hard: 1000\n",
            "a@b.c",
            401,
            &[
                "user_quota_hard: 600 bytes of 1000 bytes",
                "would be refused (owner_quota)",
            ],
        );
        check(
            "evict",
            "user_quota_hard: 1000\nevict_on_quota: true\n",
            "a@b.c",
            401,
            &["the oldest files would be evicted", "would be granted"],
        );
        check(
            "all",
            "global_quota: 1000\n",
            "a@b.c",
            401,
            &["global_quota: 600 bytes of 1000 bytes", "(global_quota)"],
        );
    }

    /// A rule without an age limit leaves ephemeral files that of their purpose.
    #[test]
    fn ages_are_those_of_new_files() {
        check(
            "ages",
            "purposes: {message: {}, ephemeral: {expire_maxage: 7 d}}\nexpire_maxage: 30 d\nexpire_interval: 1 d\n\
             access:\n  - {jid: '^a@', expire_maxage: 0}\n",
            "a@b.c",
            1,
            &[
                "purpose message: at most 20 MiB a file; files never expire",
                "purpose ephemeral: at most 20 MiB a file; files expire after 7 d",
            ],
        );
    }

    #[test]
    fn rules_are_explained_with_their_use() {
        let rules = "access:\n  - {jid: '^bad@', upload: false}\n  - jid: '@b\\.c$'\n    max_total_size: 2000\n    \
                     bytes_per_timedelta: {delta: 3600, bytes: 1000}\n";
        check(
            "denied",
            rules,
            "bad@b.c",
            1,
            &["access: rule 1", "denies", "(not_allowed)"],
        );
        check(
            "unmatched",
            rules,
            "a@x.y",
            1,
            &["no rule matches", "(not_allowed)"],
        );
        check(
            "used",
            rules,
            "a@b.c",
            400,
            &[
                "access: rule 2",
                "max_total_size of the rule: 600 bytes of 1.9 KiB (2000 bytes)",
                "bytes per 1 h: 600 bytes of 1000 bytes",
                "would be granted",
            ],
        );
        check(
            "used-up",
            rules,
            "a@b.c",
            401,
            &["(rate)", "It would be granted from 2"],
        );
    }
}
