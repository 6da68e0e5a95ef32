//! The explanation of a decision on a slot request: the command `explain`, and the command of that name over XMPP.
//!
//! It calls the decision functions of the service and describes each result. State of the running process is not
//! included: unused slots and uploads in progress.

use std::time::Duration;

use crate::config::{Config, scalar};
use crate::jid::BareJid;
use crate::layout;
use crate::now::{Now, date_time};
use crate::policy::pool::{Pool, QuotaClass};
use crate::policy::rates::{RateCheck, Rates, WindowKind, WindowUsage};
use crate::policy::rules::{Limits, RuleDecision};
use crate::policy::{Policy, SpaceCheck, Usage};
use crate::purpose::Purpose;
use crate::refusal::Refusal;
use crate::service::Service;
use crate::slot::SlotRequest;
use crate::units::{DisplayDuration, DisplaySize};

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

/// What is stored: the owner's files, and the total.
#[derive(Clone, Debug, Default)]
pub struct StoredUsage {
    pub usage: Usage,
    /// The owner's files within the longest window of a rate, as pairs of modification time (Unix seconds) and size.
    pub recent: Vec<(u64, u64)>,
    /// Whether there is no store yet.
    pub is_missing: bool,
}

/// Explains the decision on a slot request.
pub fn describe(
    config: &Config,
    service: &Service,
    request: &SlotRequest,
    stored: &StoredUsage,
    now: Now,
) -> Explanation {
    let policy = service.policy();
    let jid = &request.owner;
    let owner = layout::owner_folder(jid);
    let mut lines = vec![
        format!("address: {jid}"),
        format!("owner folder: {owner}"),
        whitelist(policy, jid),
        access(&policy.rules.decide(jid)),
    ];
    if stored.is_missing {
        let path = config.storage_path.display();
        lines.push(format!(
            "storage_path: {path} does not exist yet, so nothing is stored"
        ));
    }
    let limits = policy.admit(jid).ok().flatten();
    lines.extend(sizes(config, service, limits));
    lines.extend(quotas(policy, limits, &stored.usage));
    let mut rates = Rates::default();
    if let Some(limits) = limits {
        rates.loaded(owner.as_bytes(), limits, &stored.recent, now.unix());
        let uses = rates.uses(owner.as_bytes(), limits, now.unix());
        lines.extend(uses.into_iter().flatten().map(window));
    }
    let size = DisplaySize(request.size);
    let decision = decide(service, request, &stored.usage, &mut rates, now);
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
    Explanation {
        granted: decision.is_ok(),
        text: lines.join("\n") + "\n",
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
}
