//! Limits and lifetimes, as the configuration sets them.

use std::time::Duration;

use crate::config::Config;
use crate::expiry::Lifetime;
use crate::policy::Policy;
use crate::purpose::Purpose;

/// The limits of all owners.
pub(super) fn policy(config: &Config) -> Policy {
    let limits = Purpose::ALL.map(|purpose| config.purposes.limits(purpose).unwrap_or_default());
    Policy {
        whitelist: config.whitelist.clone(),
        rules: config.access.clone(),
        max_file_size: limits.map(|own| own.max_file_size.unwrap_or(config.max_file_size)),
        owner_quota: config.user_quota_hard,
        class_quotas: limits.map(|own| own.user_quota_hard),
        evict: config.evict_on_quota,
        global_quota: config.global_quota,
        min_free_space: config.min_free_space,
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
