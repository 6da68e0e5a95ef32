//! Limits and lifetimes, as the configuration sets them.

use std::time::Duration;

use crate::config::Config;
use crate::expiry::Lifetime;
use crate::policy::Policy;
use crate::policy::pool::PerClass;
use crate::purpose::Purpose;

/// The limits of all owners. In the configuration, 0 turns a limit off.
pub(super) fn policy(config: &Config) -> Policy {
    let on = |limit: u64| Some(limit).filter(|limit| *limit > 0);
    let limits = Purpose::ALL.map(|purpose| config.purposes.limits(purpose).unwrap_or_default());
    Policy {
        whitelist: config.whitelist.clone(),
        rules: config.access.clone(),
        max_file_size: PerClass(
            limits.map(|own| own.max_file_size.unwrap_or(config.max_file_size)),
        ),
        owner_quota: on(config.user_quota_hard),
        class_quotas: PerClass(limits.map(|own| own.user_quota_hard.map(on))),
        evict: config.evict_on_quota,
        global_quota: on(config.global_quota),
        min_free_space: on(config.min_free_space),
    }
}

/// The lifetimes of files. Without `expire_interval` files do not expire by age, except for purposes that have an
/// `expire_maxage` of their own.
pub(super) fn lifetime(config: &Config) -> Lifetime {
    let general = if config.expire_interval.is_zero() {
        Duration::ZERO
    } else {
        config.expire_maxage
    };
    let of = |purpose: Purpose, general: Duration| {
        let limits = config.purposes.limits(purpose).unwrap_or_default();
        limits.expire_maxage.unwrap_or(general)
    };
    let [message, profile, ephemeral, permanent] = Purpose::ALL;
    Lifetime {
        message: of(message, general),
        profile: of(profile, Duration::ZERO),
        ephemeral: of(ephemeral, general),
        permanent: of(permanent, Duration::ZERO),
    }
}
