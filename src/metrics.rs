//! Counters of the service, and their exposition in the Prometheus text format 0.0.4.
//!
//! [`Metrics`] is a plain struct of counters whose methods are named after events in the past tense. Gauges are not
//! stored; the caller collects them when a page is requested and passes them as [`Gauges`]. Names and labels are
//! stable. Label values come from the code, never from outside, so they are few and need no escaping.

use std::collections::BTreeMap;
use std::fmt::{Display, Write};
use std::time::Duration;

/// The `Content-Type` of [`Metrics::expose`].
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Counters by reason.
type Reasons = BTreeMap<&'static str, u64>;

/// Counters by reason and HTTP status.
type Statuses = BTreeMap<(&'static str, u16), u64>;

/// All counters since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metrics {
    slots_granted: u64,
    slots_refused: Reasons,
    uploads: Transfers,
    uploads_refused: Statuses,
    downloads: Transfers,
    requests_refused: Statuses,
    accepted: u64,
    rejected: u64,
    reconnects: u64,
    stanzas_skipped: Reasons,
    sweeps: Sweeps,
    owners_trimmed: u64,
}

/// Requests to an object store, by method and class of the status, such as `2xx`; `none` without a response.
pub type StoreRequests = BTreeMap<(&'static str, &'static str), u64>;

/// Bodies that were moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Transfers {
    number: u64,
    bytes: u64,
}

impl Transfers {
    fn add(&mut self, bytes: u64) {
        self.number += 1;
        self.bytes = self.bytes.saturating_add(bytes);
    }
}

/// Completed sweeps, and what they removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sweeps {
    number: u64,
    files: u64,
    bytes: u64,
    last: Option<Duration>,
    failures: u64,
}

/// The state of the link to the XMPP server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LinkStatus {
    /// The service runs without an XMPP component.
    #[default]
    None,
    Down,
    Up,
}

/// Values sampled when the page is requested. A value that is unknown (`None`) has no line on the page.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Gauges<'a> {
    pub store: StoreGauges,
    /// The object store, if files are kept in one.
    pub object_store: Option<ObjectStoreGauges<'a>>,
    /// Unix time in seconds.
    pub time: u64,
    /// Whether the last reload failed.
    pub reload_failed: bool,
    /// The end of the TLS certificate's validity; Unix time in seconds.
    pub certificate_expiry: Option<u64>,
    /// The program's version.
    pub version: &'a str,
    pub uptime: Duration,
    /// Open HTTP connections, and their limit.
    pub connections: usize,
    pub connections_limit: usize,
    pub link: LinkStatus,
    /// Resident memory of the process in bytes.
    pub resident_bytes: Option<u64>,
}

/// The store, as for [`Gauges`].
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct StoreGauges {
    /// Whether operations fail for another reason than a lack of space.
    pub is_failing: bool,
    /// Total size in bytes and number of all stored files.
    pub stored_bytes: Option<u64>,
    pub stored_files: Option<u64>,
    /// Free bytes on the file system of the store.
    pub free_bytes: Option<u64>,
    /// Free inodes on the file system of the store.
    pub free_inodes: Option<u64>,
}

/// The connections to an object store, as for [`Gauges`]. All but the open ones are counters since the start.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ObjectStoreGauges<'a> {
    pub requests: &'a StoreRequests,
    pub retries: u64,
    pub opened_connections: u64,
    pub sent_bytes: u64,
    pub received_bytes: u64,
    pub open_connections: usize,
    pub open_requests: usize,
}

impl Metrics {
    /// A slot was issued.
    pub fn slot_granted(&mut self) {
        self.slots_granted += 1;
    }

    /// A slot request was refused.
    pub fn slot_refused(&mut self, reason: &'static str) {
        *self.slots_refused.entry(reason).or_default() += 1;
    }

    /// A file of this size was published.
    pub fn published(&mut self, bytes: u64) {
        self.uploads.add(bytes);
    }

    /// A PUT was refused, or aborted; in the latter case the status is 0.
    pub fn upload_refused(&mut self, reason: &'static str, status: u16) {
        *self.uploads_refused.entry((reason, status)).or_default() += 1;
    }

    /// A download ended, complete or not, after this many bytes of the file.
    pub fn downloaded(&mut self, bytes: u64) {
        self.downloads.add(bytes);
    }

    /// A request other than a PUT was refused.
    pub fn request_refused(&mut self, reason: &'static str, status: u16) {
        *self.requests_refused.entry((reason, status)).or_default() += 1;
    }

    /// A connection was admitted.
    pub fn accepted(&mut self) {
        self.accepted += 1;
    }

    /// A connection was rejected with 503, because the limit was reached.
    pub fn rejected(&mut self) {
        self.rejected += 1;
    }

    /// The link came up; `reconnected` if it had been up before.
    pub fn linked(&mut self, reconnected: bool) {
        self.reconnects += u64::from(reconnected);
    }

    /// A stanza was skipped.
    pub fn stanza_skipped(&mut self, reason: &'static str) {
        *self.stanzas_skipped.entry(reason).or_default() += 1;
    }

    /// A sweep completed; files and bytes that it removed.
    pub fn swept(&mut self, files: u64, bytes: u64, took: Duration) {
        let sweeps = &mut self.sweeps;
        sweeps.number += 1;
        sweeps.files = sweeps.files.saturating_add(files);
        sweeps.bytes = sweeps.bytes.saturating_add(bytes);
        sweeps.last = Some(took);
    }

    /// So many sweeps have failed since the start.
    pub fn sweeps_failed(&mut self, failures: u64) {
        self.sweeps.failures = failures;
    }

    /// The oldest files of an owner were removed to meet a quota.
    pub fn trimmed(&mut self) {
        self.owners_trimmed += 1;
    }

    /// The page: one sample per line, preceded by HELP and TYPE of its metric.
    pub fn expose(&self, now: &Gauges<'_>) -> String {
        let mut page = Page::default();
        self.expose_counters(&mut page);
        expose_gauges(&mut page, now);
        if let Some(store) = &now.object_store {
            expose_object_store(&mut page, store);
        }
        page.text
    }

    fn expose_counters(&self, page: &mut Page) {
        page.counter("slots_total", "Slot requests, by outcome.");
        page.labelled("outcome", "granted", self.slots_granted);
        page.labelled("outcome", "refused", self.slots_refused.values().sum());
        page.counter("slot_refusals_total", "Refused slot requests, by reason.");
        page.reasons(&self.slots_refused);

        page.counter("uploads_total", "PUT requests, by outcome.");
        page.labelled("outcome", "published", self.uploads.number);
        page.labelled("outcome", "refused", self.uploads_refused.values().sum());
        page.counter("upload_bytes_total", "Bytes of published files.");
        page.plain(self.uploads.bytes);
        page.counter(
            "upload_refusals_total",
            "Refused PUT requests, by reason and status; status 0 means aborted.",
        );
        page.statuses(&self.uploads_refused);

        page.counter("downloads_total", "Downloads, complete or not.");
        page.plain(self.downloads.number);
        page.counter("download_bytes_total", "Bytes of files sent.");
        page.plain(self.downloads.bytes);
        page.counter(
            "request_refusals_total",
            "Refused requests other than PUT, by reason and status.",
        );
        page.statuses(&self.requests_refused);

        page.counter("connections_accepted_total", "Admitted HTTP connections.");
        page.plain(self.accepted);
        page.counter(
            "connections_rejected_total",
            "HTTP connections rejected because the limit was reached.",
        );
        page.plain(self.rejected);

        page.counter("link_reconnects_total", "Reconnects to the XMPP server.");
        page.plain(self.reconnects);
        page.counter("stanzas_skipped_total", "Skipped stanzas, by reason.");
        page.reasons(&self.stanzas_skipped);

        page.counter("sweeps_total", "Completed sweeps.");
        page.plain(self.sweeps.number);
        page.counter("sweep_removed_files_total", "Files removed by sweeps.");
        page.plain(self.sweeps.files);
        page.counter("sweep_removed_bytes_total", "Bytes removed by sweeps.");
        page.plain(self.sweeps.bytes);
        page.counter(
            "sweep_failures_total",
            "Sweeps that could not begin, did not reach every file, or could not delete one.",
        );
        page.plain(self.sweeps.failures);
        if let Some(took) = self.sweeps.last {
            page.gauge("sweep_last_duration_seconds", "Duration of the last sweep.");
            let (seconds, millis) = (took.as_secs(), took.subsec_millis());
            page.plain(format_args!("{seconds}.{millis:03}"));
        }
        page.counter(
            "owners_trimmed_total",
            "Times that the oldest files of an owner were removed to meet a quota.",
        );
        page.plain(self.owners_trimmed);
    }
}

fn expose_gauges(page: &mut Page, now: &Gauges<'_>) {
    page.gauge("connections", "Open HTTP connections.");
    page.plain(now.connections);
    page.gauge(
        "connections_limit",
        "Maximum number of open HTTP connections.",
    );
    page.plain(now.connections_limit);
    if now.link != LinkStatus::None {
        page.gauge("link_up", "Whether the link to the XMPP server is up.");
        page.plain(u8::from(now.link == LinkStatus::Up));
    }
    let store = now.store;
    page.gauge(
        "store_up",
        "Whether the store works; a lack of space is no failure.",
    );
    page.plain(u8::from(!store.is_failing));
    page.gauge(
        "config_last_reload_successful",
        "Whether the last reload was successful; 1 before the first.",
    );
    page.plain(u8::from(!now.reload_failed));
    page.gauge("time_seconds", "The clock of the host, in Unix time.");
    page.plain(now.time);
    let known = [
        (
            "stored_bytes",
            "Total size of all files.",
            store.stored_bytes,
        ),
        ("stored_files", "Number of files.", store.stored_files),
        (
            "free_bytes",
            "Free space on the file system of the store.",
            store.free_bytes,
        ),
        (
            "free_inodes",
            "Free inodes on the file system of the store; absent if it does not report them.",
            store.free_inodes,
        ),
        (
            "certificate_expiry_timestamp_seconds",
            "When the TLS certificate expires, in Unix time; absent without TLS.",
            now.certificate_expiry,
        ),
        (
            "resident_memory_bytes",
            "Resident memory of the process.",
            now.resident_bytes,
        ),
    ];
    for (name, help, value) in known {
        if let Some(value) = value {
            page.gauge(name, help);
            page.plain(value);
        }
    }
    page.gauge("uptime_seconds", "Time since the start.");
    page.plain(now.uptime.as_secs());
    page.gauge(
        "build_info",
        "Version of the program; the value is always 1.",
    );
    page.labelled("version", now.version, 1);
}

fn expose_object_store(page: &mut Page, store: &ObjectStoreGauges<'_>) {
    page.counter(
        "object_store_requests_total",
        "Requests to the object store, by method and class of the status; none means no response.",
    );
    for ((method, status), count) in store.requests {
        let _ = writeln!(
            page.text,
            "upslot_{}{{method=\"{method}\",status=\"{status}\"}} {count}",
            page.name
        );
    }
    for (name, help, value) in [
        (
            "object_store_retries_total",
            "Requests to the object store that were sent again.",
            store.retries,
        ),
        (
            "object_store_connections_opened_total",
            "Connections that were opened to the object store.",
            store.opened_connections,
        ),
        (
            "object_store_sent_bytes_total",
            "Bytes of requests to the object store.",
            store.sent_bytes,
        ),
        (
            "object_store_received_bytes_total",
            "Bytes of responses of the object store.",
            store.received_bytes,
        ),
    ] {
        page.counter(name, help);
        page.plain(value);
    }
    page.gauge(
        "object_store_open_connections",
        "Open connections to the object store.",
    );
    page.plain(store.open_connections);
    page.gauge(
        "object_store_open_requests",
        "Requests to the object store that are in progress or wait.",
    );
    page.plain(store.open_requests);
}

/// The page under construction. Writing to a string cannot fail.
#[derive(Debug, Default)]
struct Page {
    text: String,
    /// Name of the current metric, without the prefix.
    name: &'static str,
}

impl Page {
    fn counter(&mut self, name: &'static str, help: &str) {
        self.begin(name, help, "counter");
    }

    fn gauge(&mut self, name: &'static str, help: &str) {
        self.begin(name, help, "gauge");
    }

    fn begin(&mut self, name: &'static str, help: &str, kind: &str) {
        self.name = name;
        let _ = writeln!(
            self.text,
            "# HELP upslot_{name} {help}\n# TYPE upslot_{name} {kind}"
        );
    }

    fn plain(&mut self, value: impl Display) {
        let _ = writeln!(self.text, "upslot_{} {value}", self.name);
    }

    fn labelled(&mut self, label: &str, text: &str, value: u64) {
        let _ = writeln!(
            self.text,
            "upslot_{}{{{label}=\"{text}\"}} {value}",
            self.name
        );
    }

    fn reasons(&mut self, counts: &Reasons) {
        for (reason, count) in counts {
            self.labelled("reason", reason, *count);
        }
    }

    fn statuses(&mut self, counts: &Statuses) {
        for ((reason, status), count) in counts {
            let _ = writeln!(
                self.text,
                "upslot_{}{{reason=\"{reason}\",status=\"{status}\"}} {count}",
                self.name
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn gauges() -> Gauges<'static> {
        Gauges {
            version: "0.2.0",
            uptime: Duration::from_millis(61_900),
            connections: 3,
            connections_limit: 1024,
            link: LinkStatus::Up,
            store: StoreGauges {
                is_failing: false,
                stored_bytes: Some(1 << 40),
                stored_files: Some(7),
                free_bytes: Some(0),
                free_inodes: Some(7),
            },
            object_store: None,
            time: 1_800_000_000,
            reload_failed: false,
            certificate_expiry: Some(1_900_000_000),
            resident_bytes: Some(4096),
        }
    }

    /// Asserts that the page has exactly one line like this.
    #[track_caller]
    fn check(page: &str, line: &str) {
        let found = page.lines().filter(|l| *l == line).count();
        assert_eq!(found, 1, "{line}\n{page}");
    }

    fn busy() -> Metrics {
        let mut metrics = Metrics::default();
        metrics.slot_granted();
        metrics.slot_granted();
        metrics.slot_refused("not_allowed");
        metrics.slot_refused("too_large");
        metrics.slot_refused("too_large");
        metrics.published(23456);
        metrics.published(1);
        metrics.upload_refused("used", 409);
        metrics.upload_refused("broken", 0);
        metrics.upload_refused("used", 409);
        metrics.downloaded(10);
        metrics.request_refused("not_found", 404);
        metrics.accepted();
        metrics.accepted();
        metrics.rejected();
        metrics.linked(true);
        metrics.stanza_skipped("too_large");
        metrics.swept(5, 500, Duration::from_millis(1500));
        metrics.swept(1, 10, Duration::from_millis(250));
        metrics.sweeps_failed(3);
        metrics.trimmed();
        metrics
    }

    #[test]
    fn an_object_store_has_metrics_of_its_own() {
        let requests = StoreRequests::from([(("GET", "2xx"), 5), (("PUT", "none"), 1)]);
        let page = busy().expose(&Gauges {
            object_store: Some(ObjectStoreGauges {
                requests: &requests,
                retries: 2,
                opened_connections: 3,
                sent_bytes: 4000,
                received_bytes: 5000,
                open_connections: 1,
                open_requests: 6,
            }),
            ..gauges()
        });
        for line in [
            "# TYPE upslot_object_store_requests_total counter",
            "upslot_object_store_requests_total{method=\"GET\",status=\"2xx\"} 5",
            "upslot_object_store_requests_total{method=\"PUT\",status=\"none\"} 1",
            "upslot_object_store_retries_total 2",
            "upslot_object_store_connections_opened_total 3",
            "upslot_object_store_sent_bytes_total 4000",
            "upslot_object_store_received_bytes_total 5000",
            "upslot_object_store_open_connections 1",
            "upslot_object_store_open_requests 6",
        ] {
            check(&page, line);
        }
        check_format(&page);
        assert!(!busy().expose(&gauges()).contains("object_store"));
    }

    #[test]
    fn counters_and_gauges_are_exposed() {
        let page = busy().expose(&gauges());
        for line in [
            "# HELP upslot_slots_total Slot requests, by outcome.",
            "# TYPE upslot_slots_total counter",
            "upslot_slots_total{outcome=\"granted\"} 2",
            "upslot_slots_total{outcome=\"refused\"} 3",
            "upslot_slot_refusals_total{reason=\"not_allowed\"} 1",
            "upslot_slot_refusals_total{reason=\"too_large\"} 2",
            "upslot_uploads_total{outcome=\"published\"} 2",
            "upslot_uploads_total{outcome=\"refused\"} 3",
            "upslot_upload_bytes_total 23457",
            "upslot_upload_refusals_total{reason=\"used\",status=\"409\"} 2",
            "upslot_upload_refusals_total{reason=\"broken\",status=\"0\"} 1",
            "upslot_downloads_total 1",
            "upslot_download_bytes_total 10",
            "upslot_request_refusals_total{reason=\"not_found\",status=\"404\"} 1",
            "upslot_connections_accepted_total 2",
            "upslot_connections_rejected_total 1",
            "upslot_link_reconnects_total 1",
            "upslot_stanzas_skipped_total{reason=\"too_large\"} 1",
            "upslot_sweeps_total 2",
            "upslot_sweep_removed_files_total 6",
            "upslot_sweep_removed_bytes_total 510",
            "upslot_sweep_last_duration_seconds 0.250",
            "upslot_owners_trimmed_total 1",
            "# TYPE upslot_connections gauge",
            "upslot_connections 3",
            "upslot_connections_limit 1024",
            "upslot_link_up 1",
            "upslot_stored_bytes 1099511627776",
            "upslot_stored_files 7",
            "upslot_free_bytes 0",
            "upslot_free_inodes 7",
            "upslot_resident_memory_bytes 4096",
            "upslot_uptime_seconds 61",
            "upslot_store_up 1",
            "upslot_config_last_reload_successful 1",
            "upslot_time_seconds 1800000000",
            "upslot_certificate_expiry_timestamp_seconds 1900000000",
            "upslot_sweep_failures_total 3",
            "upslot_build_info{version=\"0.2.0\"} 1",
        ] {
            check(&page, line);
        }
    }

    #[test]
    fn unknown_values_have_no_line() {
        let page = Metrics::default().expose(&Gauges {
            version: "0.2.0",
            ..Gauges::default()
        });
        for name in [
            "link_up",
            "stored_",
            "free_bytes",
            "resident",
            "certificate",
            "sweep_last",
            "reason=",
        ] {
            assert!(!page.contains(name), "{name}\n{page}");
        }
        check(&page, "upslot_slots_total{outcome=\"granted\"} 0");
        check(&page, "upslot_uploads_total{outcome=\"refused\"} 0");
        let down = Gauges {
            link: LinkStatus::Down,
            store: StoreGauges {
                is_failing: true,
                ..StoreGauges::default()
            },
            reload_failed: true,
            ..Gauges::default()
        };
        let page = Metrics::default().expose(&down);
        check(&page, "upslot_link_up 0");
        check(&page, "upslot_store_up 0");
        check(&page, "upslot_config_last_reload_successful 0");
    }

    #[test]
    fn the_page_is_well_formed() {
        check_format(&busy().expose(&gauges()));
    }

    /// The format requires HELP, TYPE, then all samples of one name together, and a line feed after the last.
    #[track_caller]
    fn check_format(page: &str) {
        assert!(page.ends_with('\n') && page.is_ascii());
        let mut names = BTreeSet::new();
        let mut samples = BTreeSet::new();
        let mut name = "";
        let mut lines = page.lines();
        while let Some(line) = lines.next() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                name = help.split(' ').next().unwrap();
                assert!(names.insert(name), "{name} twice");
                let kind = lines
                    .next()
                    .unwrap()
                    .strip_prefix(&format!("# TYPE {name} "));
                let total = name.ends_with("_total");
                assert_eq!(
                    kind,
                    Some(if total { "counter" } else { "gauge" }),
                    "{name}"
                );
                continue;
            }
            let (sample, value) = line.rsplit_once(' ').unwrap();
            assert!(value.parse::<f64>().is_ok(), "{line}");
            assert_eq!(sample.split('{').next(), Some(name), "{line}");
            assert!(samples.insert(sample), "{sample} twice");
            assert!(name.starts_with("upslot_"));
        }
        assert!(names.len() > 20);
    }

    #[test]
    fn sums_do_not_overflow() {
        let mut metrics = Metrics::default();
        metrics.published(u64::MAX);
        metrics.published(1);
        metrics.downloaded(u64::MAX);
        metrics.downloaded(1);
        let page = metrics.expose(&gauges());
        check(&page, "upslot_upload_bytes_total 18446744073709551615");
        check(&page, "upslot_download_bytes_total 18446744073709551615");
    }
}
