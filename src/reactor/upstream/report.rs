//! What the operator learns about the store: counts, whether it can be reached, and whether its clock agrees.

use std::time::Duration;

use crate::http::client::Response;
use crate::metrics::StoreRequests;
use crate::now::Now;

/// The longest reason that is remembered; bytes.
const MAX_REASON: usize = 1024;

/// The difference of the clocks that is reported. Stores refuse signatures from 15 minutes on.
const MAX_SKEW: Duration = Duration::from_secs(5 * 60);

/// A change that is worth a line in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreChange {
    /// Requests are answered again.
    Reachable,
    /// Requests are not answered any more, and why.
    Unreachable(String),
    /// By how much the clocks of the store and of this host differ.
    ClockSkew { by: Duration, store_is_ahead: bool },
}

/// Counters since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UpstreamCounts {
    pub requests: StoreRequests,
    pub retries: u64,
    /// Connections that were opened.
    pub connections: u64,
    /// Bytes of requests and responses, without TLS.
    pub bytes_sent: u64,
    pub bytes_received: u64,
}

/// The state of the store as far as it was observed and told.
#[derive(Debug, Default)]
pub(super) struct Report {
    pub(super) counts: UpstreamCounts,
    /// Why the store cannot be reached, and whether the caller knows.
    failure: Option<String>,
    is_failure_told: bool,
    /// The difference of the clocks if it is too large, whether the store is ahead, and whether the caller knows.
    skew: Option<(Duration, bool)>,
    is_skew_told: bool,
}

impl Report {
    /// The head of a final response was received.
    pub(super) fn answered(&mut self, method: &'static str, response: &Response, now: Now) {
        let class = match response.status / 100 {
            2 => "2xx",
            3 => "3xx",
            4 => "4xx",
            _ => "5xx",
        };
        *self.counts.requests.entry((method, class)).or_default() += 1;
        let date = response.field("date");
        let Some(date) = date.and_then(|date| httpdate::parse_http_date(date).ok()) else {
            return;
        };
        let (by, store_is_ahead) = match date.duration_since(now.wall) {
            Ok(by) => (by, true),
            Err(behind) => (behind.duration(), false),
        };
        self.skew = (by > MAX_SKEW).then_some((by, store_is_ahead));
        self.is_skew_told &= self.skew.is_some();
    }

    /// A request got no complete response, and is not repeated.
    pub(super) fn failed(&mut self, method: &'static str) {
        *self.counts.requests.entry((method, "none")).or_default() += 1;
    }

    /// The store does not answer.
    pub(super) fn became_unreachable(&mut self, why: &str) {
        let mut end = why.len().min(MAX_REASON);
        while !why.is_char_boundary(end) {
            end -= 1;
        }
        self.failure = Some(why[..end].to_owned());
    }

    pub(super) fn became_reachable(&mut self) {
        self.failure = None;
    }

    /// The next change that was not returned before.
    pub(super) fn take_change(&mut self) -> Option<StoreChange> {
        if self.failure.is_some() != self.is_failure_told {
            self.is_failure_told = !self.is_failure_told;
            let failure = self.failure.clone();
            return Some(failure.map_or(StoreChange::Reachable, StoreChange::Unreachable));
        }
        let (by, store_is_ahead) = self.skew.filter(|_| !self.is_skew_told)?;
        self.is_skew_told = true;
        Some(StoreChange::ClockSkew { by, store_is_ahead })
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Instant, SystemTime};

    use super::*;

    fn now() -> Now {
        Now {
            mono: Instant::now(),
            wall: SystemTime::now(),
        }
    }

    fn response(status: u16, date: SystemTime) -> Response {
        Response {
            status,
            fields: vec![("date".into(), httpdate::fmt_http_date(date))],
            ..Response::default()
        }
    }

    #[test]
    fn changes_are_told_once() {
        let mut report = Report::default();
        assert_eq!(report.take_change(), None);
        report.became_unreachable("first");
        report.became_unreachable(&"\u{e9}".repeat(MAX_REASON));
        let told = report.take_change();
        assert!(matches!(told, Some(StoreChange::Unreachable(why)) if why.len() == MAX_REASON));
        report.became_unreachable("third");
        assert_eq!(report.take_change(), None);
        report.became_reachable();
        assert_eq!(report.take_change(), Some(StoreChange::Reachable));
        assert_eq!(report.take_change(), None);
        report.became_unreachable("x");
        report.became_reachable();
        assert_eq!(report.take_change(), None);
        report.answered("GET", &response(503, now().wall), now());
        assert_eq!(report.counts.requests[&("GET", "5xx")], 1);
    }

    #[test]
    fn clocks_that_differ_are_told_once() {
        let mut report = Report::default();
        let now = now();
        let off = |seconds| response(200, now.wall + Duration::from_secs(seconds));
        for (response, told) in [
            (off(200), false),
            (off(1000), true),
            (off(2000), false),
            (off(0), false),
            (response(200, now.wall - Duration::from_secs(1000)), true),
        ] {
            report.answered("PUT", &response, now);
            assert_eq!(report.take_change().is_some(), told, "{response:?}");
        }
        let odd = Response {
            fields: vec![("date".into(), "yesterday".into())],
            ..Response::default()
        };
        report.answered("PUT", &odd, now);
        assert_eq!(report.take_change(), None);
    }
}
