//! Expiry of the TLS certificate, and when to warn about it: daily, starting 14 days ahead.
//!
//! This module knows neither the certificate's source nor a clock, and of the certificate it reads only the end of the
//! validity period and the names (RFC 5280 §4.1). It does not verify the certificate: upslot serves whatever the operator
//! configured.

use std::fmt;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::decimal;
use crate::now::{self, Now};

/// How long before expiry warnings start.
const WARNING_PERIOD: Duration = Duration::from_secs(14 * 86_400);

/// Interval at which the same warning is repeated.
const REPEAT_INTERVAL: Duration = Duration::from_secs(86_400);

/// Maximum interval between two checks, because the wall clock may be set at any time.
const CHECK_INTERVAL: Duration = Duration::from_secs(3600);

/// The DER tags on the path to the validity period (X.690 §8.1.2).
const INTEGER: u8 = 0x02;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;

/// The attribute types common name and organisation (X.520), as encoded object identifiers.
const COMMON_NAME: [u8; 5] = [0x06, 0x03, 0x55, 0x04, 0x03];
const ORGANISATION: [u8; 5] = [0x06, 0x03, 0x55, 0x04, 0x0a];

/// The end of the validity period of a DER-encoded certificate; `None` if it is not encoded as in RFC 5280.
pub fn not_after(certificate: &[u8]) -> Option<SystemTime> {
    let mut validity = Fields::parse(certificate)?.validity;
    validity.any()?;
    match validity.any()? {
        (UTC_TIME, Der([a, b, rest @ ..])) => {
            let year = two_digits(*a, *b)?;
            // RFC 5280 §4.1.2.5.1.
            let century = if year < 50 { 2000 } else { 1900 };
            parse_time(century + year, rest)
        }
        (GENERALIZED_TIME, Der([a, b, c, d, rest @ ..])) => {
            parse_time(two_digits(*a, *b)? * 100 + two_digits(*c, *d)?, rest)
        }
        _ => None,
    }
}

/// The issuer and the subject of a certificate, encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Names<'a> {
    pub issuer: &'a [u8],
    pub subject: &'a [u8],
}

/// The names of a DER-encoded certificate; `None` if it is not encoded as in RFC 5280.
pub fn names(certificate: &[u8]) -> Option<Names<'_>> {
    let Fields {
        issuer, subject, ..
    } = Fields::parse(certificate)?;
    Some(Names {
        issuer: issuer.0,
        subject: subject.0,
    })
}

impl Names<'_> {
    pub fn is_self_signed(&self) -> bool {
        self.issuer == self.subject
    }

    /// The common name of the issuer, or else its organisation; empty if it has neither.
    pub fn issuer_text(&self) -> String {
        let text = name_part(self.issuer, COMMON_NAME).or(name_part(self.issuer, ORGANISATION));
        String::from_utf8_lossy(text.unwrap_or_default()).into_owned()
    }
}

/// The value of the first attribute of this type in an encoded name.
fn name_part(name: &[u8], kind: [u8; 5]) -> Option<&[u8]> {
    let at = name.windows(kind.len()).position(|window| window == kind)?;
    let (_, value) = Der(&name[at + kind.len()..]).any()?;
    Some(value.0)
}

/// The fields of a certificate that are read here.
struct Fields<'a> {
    issuer: Der<'a>,
    validity: Der<'a>,
    subject: Der<'a>,
}

impl<'a> Fields<'a> {
    /// `Certificate { tbsCertificate { [version], serialNumber, signature, issuer, validity, subject … } … }`
    fn parse(certificate: &'a [u8]) -> Option<Fields<'a>> {
        let mut outer = Der(certificate).expect(SEQUENCE)?;
        let mut inner = outer.expect(SEQUENCE)?;
        if inner.0.first() == Some(&VERSION) {
            inner.expect(VERSION)?;
        }
        inner.expect(INTEGER)?;
        inner.expect(SEQUENCE)?;
        Some(Fields {
            issuer: inner.expect(SEQUENCE)?,
            validity: inner.expect(SEQUENCE)?,
            subject: inner.expect(SEQUENCE)?,
        })
    }
}

/// A parser for a sequence of DER elements; holds the bytes not yet parsed.
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    /// Takes the next element, which must have this tag, and returns its content.
    fn expect(&mut self, tag: u8) -> Option<Der<'a>> {
        let (found, content) = self.any()?;
        (found == tag).then_some(content)
    }

    /// Takes the next element and returns its tag and content.
    fn any(&mut self) -> Option<(u8, Der<'a>)> {
        let (&[tag, first], mut rest) = self.0.split_first_chunk()?;
        let mut length = usize::from(first);
        if first & 0x80 != 0 {
            // A certificate is shorter than 16 MiB.
            let octets = length & 0x7f;
            if !(1..=3).contains(&octets) {
                return None;
            }
            let (octets, after) = rest.split_at_checked(octets)?;
            length = octets
                .iter()
                .fold(0, |n, octet| n << 8 | usize::from(*octet));
            rest = after;
        }
        let (content, after) = rest.split_at_checked(length)?;
        self.0 = after;
        Some((tag, Der(content)))
    }
}

fn two_digits(tens: u8, ones: u8) -> Option<u64> {
    decimal::parse(&[tens, ones])
}

/// Parses the rest of a time, `MMDDHHMMSSZ` (RFC 5280 §4.1.2.5).
fn parse_time(year: u64, rest: &[u8]) -> Option<SystemTime> {
    let [m, n, d, e, h, i, p, q, s, t, b'Z'] = *rest else {
        return None;
    };
    let (month, day) = (two_digits(m, n)?, two_digits(d, e)?);
    let (hour, minute, second) = (two_digits(h, i)?, two_digits(p, q)?, two_digits(s, t)?);
    let seconds = now::unix_from_civil([year, month, day, hour, minute, second])?;
    UNIX_EPOCH.checked_add(Duration::from_secs(u64::try_from(seconds).ok()?))
}

/// A warning for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// The certificate expires at this time.
    ExpiresSoon(SystemTime),
    /// The certificate expired at this time.
    Expired(SystemTime),
}

impl Notice {
    fn at(not_after: SystemTime, wall: SystemTime) -> Option<Notice> {
        match not_after.duration_since(wall) {
            Err(_) => Some(Notice::Expired(not_after)),
            Ok(left) if left <= WARNING_PERIOD => Some(Notice::ExpiresSoon(not_after)),
            Ok(_) => None,
        }
    }
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Notice::ExpiresSoon(at) => {
                write!(f, "certificate expires soon at={}", now::date_time(*at))
            }
            Notice::Expired(at) => write!(f, "certificate has expired at={}", now::date_time(*at)),
        }
    }
}

/// Monitors the expiry of one certificate.
#[derive(Debug)]
pub struct ExpiryMonitor {
    not_after: SystemTime,
    /// The last notice, and when it was issued.
    last: Option<(Notice, Instant)>,
    next_check: Instant,
}

impl ExpiryMonitor {
    /// Starts monitoring a certificate. The first check is due immediately.
    pub fn new(not_after: SystemTime, now: Now) -> ExpiryMonitor {
        ExpiryMonitor {
            not_after,
            last: None,
            next_check: now.mono,
        }
    }

    /// The time at which [`ExpiryMonitor::look`] must be called next.
    pub fn deadline(&self) -> Instant {
        self.next_check
    }

    /// The notice that is due now, if any: a new one immediately, an unchanged one once a day.
    pub fn look(&mut self, now: Now) -> Option<Notice> {
        self.next_check = now.mono + self.until_change(now.wall).min(CHECK_INTERVAL);
        let notice = Notice::at(self.not_after, now.wall);
        let is_due = |(last, at): (Notice, Instant)| {
            notice != Some(last) || now.mono.saturating_duration_since(at) >= REPEAT_INTERVAL
        };
        if !self.last.is_none_or(is_due) {
            return None;
        }
        self.last = notice.map(|notice| (notice, now.mono));
        notice
    }

    /// Time until the notice changes, provided that the clock is not set.
    fn until_change(&self, wall: SystemTime) -> Duration {
        let left = self
            .not_after
            .duration_since(wall)
            .unwrap_or(CHECK_INTERVAL);
        let until_warning = left
            .checked_sub(WARNING_PERIOD)
            .filter(|wait| !wait.is_zero());
        // One millisecond more, so that the check falls after the change.
        until_warning.unwrap_or(left) + Duration::from_millis(1)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rcgen::{CertificateParams, KeyPair, date_time_ymd};
    use rustls::client::WebPkiServerVerifier;
    use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
    use rustls::{CertificateError, Error, RootCertStore};

    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn certificate(seconds: u64) -> CertificateDer<'static> {
        let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        params.not_before = date_time_ymd(1971, 1, 1);
        params.not_after = date_time_ymd(1970, 1, 1) + Duration::from_secs(seconds);
        let key = KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().clone()
    }

    /// The end of validity as read by rustls' verifier.
    fn verified_not_after(certificate: &CertificateDer<'static>) -> SystemTime {
        let mut roots = RootCertStore::empty();
        roots.add(certificate.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider);
        let name = ServerName::try_from("localhost").unwrap();
        // Later than any certificate's end of validity.
        let then = UnixTime::since_unix_epoch(Duration::from_secs(1 << 40));
        let verified = rustls::client::danger::ServerCertVerifier::verify_server_cert(
            &*verifier.build().unwrap(),
            certificate,
            &[],
            &name,
            &[],
            then,
        );
        match verified {
            Err(Error::InvalidCertificate(CertificateError::ExpiredContext {
                not_after, ..
            })) => at(not_after.as_secs()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn not_after_matches_the_verifier_of_rustls() {
        for seconds in [
            86_400 * 366,
            951_782_399,
            951_782_400,
            951_868_800,
            1_709_164_799,
            1_709_251_199,
            1_767_225_599,
            // The last time with a two-digit year, and the first with a four-digit year.
            2_524_607_999,
            2_524_608_000,
            4_107_542_399,
            // 9999-12-31T23:59:59Z, which stands for never (RFC 5280 §4.1.2.5).
            253_402_300_799,
        ] {
            let certificate = certificate(seconds);
            assert_eq!(not_after(&certificate), Some(at(seconds)), "{seconds}");
            assert_eq!(verified_not_after(&certificate), at(seconds));
        }
    }

    #[test]
    fn malformed_certificates_have_no_expiry() {
        let good = certificate(1_767_225_599);
        let end = not_after(&good);
        for length in 0..good.len() {
            assert_eq!(not_after(&good[..length]), None, "{length}");
        }
        assert_eq!(not_after(&[&good[..], b"more"].concat()), end);
        // Any altered byte is parsed or rejected, without a panic.
        let mut bytes = good.to_vec();
        for place in 0..bytes.len().min(200) {
            for change in 1..=255 {
                bytes[place] ^= change;
                let _ = not_after(&bytes);
                bytes[place] ^= change;
            }
        }
        for bytes in [
            &b""[..],
            b"\x30",
            b"\x30\x80",
            b"\x30\x84\xff\xff\xff\xff",
            b"\x30\x83\xff\xff\xff",
        ] {
            assert_eq!(not_after(bytes), None);
        }
        for (year, rest) in [
            (2026, "1301000000Z"),
            (2026, "0001000000Z"),
            (2026, "0100000000Z"),
            (2026, "0132000000Z"),
            (2026, "0101240000Z"),
            (2026, "0101006000Z"),
            (2026, "0101000060Z"),
            (2026, "01010000Z"),
            (2026, "0101000000.5Z"),
            (2026, "0101000000+0100"),
            (2026, "01010000a0Z"),
            (1969, "1231235959Z"),
            (1900, "0101000000Z"),
        ] {
            assert_eq!(parse_time(year, rest.as_bytes()), None, "{year} {rest}");
        }
    }

    #[test]
    fn names_are_read() {
        let own = certificate(1_767_225_599);
        let found = names(&own).unwrap();
        assert!(found.is_self_signed());
        // The name that rcgen gives if none is set.
        assert_eq!(found.issuer_text(), "rcgen self signed cert");
        assert_eq!(names(b""), None);
        let empty = Names {
            issuer: b"",
            subject: b"x",
        };
        assert!(!empty.is_self_signed());
        assert_eq!(empty.issuer_text(), "");
    }

    /// The notices at some moments, with `true` for an expired certificate. A moment has the seconds of the monotonic
    /// clock since the start, and the seconds by the wall clock until expiry, which are negative after it.
    fn notices(moments: &[(u64, i64)]) -> Vec<Option<bool>> {
        let (start, end) = (Instant::now(), at(2_000_000_000));
        let now = |&(mono, left): &(u64, i64)| Now {
            mono: start + Duration::from_secs(mono),
            wall: if left < 0 {
                end + Duration::from_secs(left.unsigned_abs())
            } else {
                end - Duration::from_secs(left.unsigned_abs())
            },
        };
        let mut watch = ExpiryMonitor::new(end, now(&moments[0]));
        let looks = moments.iter().map(|moment| {
            let now = now(moment);
            let notice = watch.look(now);
            let next = watch.deadline() - now.mono;
            assert!(!next.is_zero() && next <= CHECK_INTERVAL, "{next:?}");
            notice.map(|notice| match notice {
                Notice::ExpiresSoon(at) | Notice::Expired(at) if at != end => panic!("{at:?}"),
                Notice::ExpiresSoon(_) => false,
                Notice::Expired(_) => true,
            })
        });
        looks.collect()
    }

    #[test]
    fn warnings_start_a_fortnight_ahead() {
        const FORTNIGHT: i64 = 14 * 86_400;
        let (soon, over) = (Some(false), Some(true));
        assert_eq!(notices(&[(0, FORTNIGHT + 1)]), [None]);
        assert_eq!(notices(&[(0, FORTNIGHT)]), [soon]);
        assert_eq!(notices(&[(0, 0)]), [soon]);
        assert_eq!(notices(&[(0, -1)]), [over]);
        assert_eq!(notices(&[(0, -1_000_000_000)]), [over]);
    }

    #[test]
    fn warnings_repeat_daily_and_changes_are_reported_immediately() {
        let (soon, over) = (Some(false), Some(true));
        let day = 86_400;
        assert_eq!(
            notices(&[
                (0, 15 * day),
                (60, 14 * day),
                (120, 14 * day - 60),
                (59 + 86_400, 13 * day + 60),
                (60 + 86_400, 13 * day),
                (90_000, 3600),
                (93_600, -1),
                (97_200, -3600),
                (93_600 + 86_400, -day),
            ]),
            [None, soon, None, None, soon, None, over, None, over]
        );
    }

    /// The wall clock of a board without a battery-backed clock jumps after boot.
    #[test]
    fn notices_follow_a_clock_jump() {
        let (soon, over) = (Some(false), Some(true));
        assert_eq!(
            notices(&[
                (0, 1_500_000_000),
                (60, -5),
                (120, 1_000_000),
                (180, 1_500_000_000),
                (240, 1_000_000),
            ]),
            [None, over, soon, None, soon]
        );
    }

    #[test]
    fn the_next_check_falls_on_the_next_change() {
        let now = Now {
            mono: Instant::now(),
            wall: at(1_000_000_000),
        };
        let second = Duration::from_secs(1);
        for (left, next) in [
            (20 * DAY, CHECK_INTERVAL),
            (14 * DAY + second, second),
            (14 * DAY, CHECK_INTERVAL),
            (second, second),
            (Duration::ZERO, Duration::ZERO),
        ] {
            let mut watch = ExpiryMonitor::new(now.wall + left, now);
            assert_eq!(watch.deadline(), now.mono);
            watch.look(now);
            let wait = watch.deadline() - now.mono;
            assert!(
                wait >= next && wait <= next + Duration::from_millis(1),
                "{wait:?}"
            );
            // An early check finds a change.
            if next < CHECK_INTERVAL {
                assert!(watch.look(now.later(wait)).is_some());
            }
        }
    }

    #[test]
    fn notices_show_the_expiry_time() {
        let texts = [
            Notice::ExpiresSoon(at(1_767_225_599)),
            Notice::Expired(at(0)),
        ]
        .map(|n| n.to_string());
        assert_eq!(
            texts,
            [
                "certificate expires soon at=2025-12-31T23:59:59Z",
                "certificate has expired at=1970-01-01T00:00:00Z"
            ]
        );
    }
}
