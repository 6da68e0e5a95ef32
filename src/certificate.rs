//! When the certificate expires, and when to say so: from 14 days ahead on, and once a day.
//!
//! It knows neither where the certificate comes from nor any clock, and of the certificate it reads no more than the
//! end of its validity (RFC 5280 §4.1). Whether anybody should trust it is for others to judge: TLS serves with
//! whatever the operator gave it.

use std::fmt;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::now::{self, Now};

/// How long before its end a certificate is warned about.
const AHEAD: Duration = Duration::from_secs(14 * 86_400);

/// How often the same is said.
const DAILY: Duration = Duration::from_secs(86_400);

/// How often the wall clock is looked at, which may be set at any time.
const LOOK: Duration = Duration::from_secs(3600);

/// Tags of DER that stand on the way (X.690 §8.1.2).
const INTEGER: u8 = 0x02;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;

/// The last moment at which a certificate is valid; `None` when the bytes do not say so as RFC 5280 has it.
///
/// `Certificate { tbsCertificate { [version], serialNumber, signature, issuer, validity { notBefore, notAfter } … } … }`
pub fn not_after(certificate: &[u8]) -> Option<SystemTime> {
    let mut outer = Der(certificate).expect(SEQUENCE)?;
    let mut inner = outer.expect(SEQUENCE)?;
    if inner.0.first() == Some(&VERSION) {
        inner.expect(VERSION)?;
    }
    inner.expect(INTEGER)?;
    inner.expect(SEQUENCE)?;
    inner.expect(SEQUENCE)?;
    let mut validity = inner.expect(SEQUENCE)?;
    validity.any()?;
    match validity.any()? {
        (UTC_TIME, Der([a, b, rest @ ..])) => {
            let year = two_digits(*a, *b)?;
            // RFC 5280 §4.1.2.5.1.
            let century = if year < 50 { 2000 } else { 1900 };
            time(century + year, rest)
        }
        (GENERALIZED_TIME, Der([a, b, c, d, rest @ ..])) => {
            time(two_digits(*a, *b)? * 100 + two_digits(*c, *d)?, rest)
        }
        _ => None,
    }
}

/// What is left of a row of elements.
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    /// Takes the next element, which has this tag.
    fn expect(&mut self, tag: u8) -> Option<Der<'a>> {
        let (found, content) = self.any()?;
        (found == tag).then_some(content)
    }

    /// Takes the next element: its tag and its content.
    fn any(&mut self) -> Option<(u8, Der<'a>)> {
        let (&[tag, first], mut rest) = self.0.split_first_chunk()?;
        let mut length = usize::from(first);
        if first & 0x80 != 0 {
            // A certificate is shorter than 16 MiB.
            let octets = length & 0x7f;
            if !(1..=3).contains(&octets) {
                return None;
            }
            let (octets, behind) = rest.split_at_checked(octets)?;
            length = octets
                .iter()
                .fold(0, |n, octet| n << 8 | usize::from(*octet));
            rest = behind;
        }
        let (content, behind) = rest.split_at_checked(length)?;
        self.0 = behind;
        Some((tag, Der(content)))
    }
}

fn two_digits(tens: u8, ones: u8) -> Option<u64> {
    let digit = |byte: u8| byte.is_ascii_digit().then(|| u64::from(byte - b'0'));
    Some(digit(tens)? * 10 + digit(ones)?)
}

/// A moment of that year, written `MMDDHHMMSSZ` (RFC 5280 §4.1.2.5).
fn time(year: u64, rest: &[u8]) -> Option<SystemTime> {
    let [m, n, d, e, h, i, p, q, s, t, b'Z'] = *rest else {
        return None;
    };
    let (month, day) = (two_digits(m, n)?, two_digits(d, e)?);
    let (hour, minute, second) = (two_digits(h, i)?, two_digits(p, q)?, two_digits(s, t)?);
    let sound = (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && hour < 24
        && minute < 60
        && second < 60;
    if !sound || year < 1970 {
        return None;
    }
    // Days since 1970, in years that begin in March so that the leap day comes last.
    let (year, month) = match month {
        1 | 2 => (year - 1, month + 9),
        _ => (year, month - 3),
    };
    let before = year * 365 + year / 4 - year / 100 + year / 400;
    let days = (before + (153 * month + 2) / 5 + day - 1).checked_sub(719_468)?;
    let seconds = ((days * 24 + hour) * 60 + minute) * 60 + second;
    UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}

/// What there is to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// It expires then.
    Soon(SystemTime),
    /// It expired then.
    Over(SystemTime),
}

impl Notice {
    fn at(not_after: SystemTime, wall: SystemTime) -> Option<Notice> {
        match not_after.duration_since(wall) {
            Err(_) => Some(Notice::Over(not_after)),
            Ok(left) if left <= AHEAD => Some(Notice::Soon(not_after)),
            Ok(_) => None,
        }
    }
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Notice::Soon(at) => write!(f, "certificate expires soon at={}", now::date_time(*at)),
            Notice::Over(at) => write!(f, "certificate has expired at={}", now::date_time(*at)),
        }
    }
}

/// Watches one certificate.
#[derive(Debug)]
pub struct Watch {
    not_after: SystemTime,
    /// What was said last, and when.
    said: Option<(Notice, Instant)>,
    next: Instant,
}

impl Watch {
    /// A certificate that is served from now on. It is to be looked at at once.
    pub fn new(not_after: SystemTime, now: Now) -> Watch {
        Watch {
            not_after,
            said: None,
            next: now.mono,
        }
    }

    /// The moment at which [`Watch::look`] must be called.
    pub fn deadline(&self) -> Instant {
        self.next
    }

    /// What is to be said now, if anything: a change at once, the same every day.
    pub fn look(&mut self, now: Now) -> Option<Notice> {
        self.next = now.mono + self.until_change(now.wall).min(LOOK);
        let notice = Notice::at(self.not_after, now.wall);
        let due = |(said, at): (Notice, Instant)| {
            notice != Some(said) || now.mono.saturating_duration_since(at) >= DAILY
        };
        if !self.said.is_none_or(due) {
            return None;
        }
        self.said = notice.map(|notice| (notice, now.mono));
        notice
    }

    /// How long what there is to say stays the same, if nobody sets the clock.
    fn until_change(&self, wall: SystemTime) -> Duration {
        let left = self.not_after.duration_since(wall).unwrap_or(LOOK);
        let before_warning = left.checked_sub(AHEAD).filter(|wait| !wait.is_zero());
        // A moment later it has changed.
        before_warning.unwrap_or(left) + Duration::from_millis(1)
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

    /// What those say who verify certificates.
    fn verified_not_after(certificate: &CertificateDer<'static>) -> SystemTime {
        let mut roots = RootCertStore::empty();
        roots.add(certificate.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider);
        let name = ServerName::try_from("localhost").unwrap();
        // Later than any date.
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
    fn the_end_is_read_as_verifiers_read_it() {
        for seconds in [
            86_400 * 366,
            951_782_399,
            951_782_400,
            951_868_800,
            1_709_164_799,
            1_709_251_199,
            1_767_225_599,
            // The last moment of two digits, and the first of four.
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
    fn what_is_no_certificate_has_no_end() {
        let good = certificate(1_767_225_599);
        let end = not_after(&good);
        for length in 0..good.len() {
            assert_eq!(not_after(&good[..length]), None, "{length}");
        }
        assert_eq!(not_after(&[&good[..], b"more"].concat()), end);
        // Any change is read or refused, and breaks nothing.
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
            assert_eq!(time(year, rest.as_bytes()), None, "{year} {rest}");
        }
    }

    /// Moments by both clocks: the first is seconds of the monotonic one since the start, the second of the wall clock
    /// before the end, negative behind it.
    fn said(moments: &[(u64, i64)]) -> Vec<Option<bool>> {
        let (start, end) = (Instant::now(), at(2_000_000_000));
        let now = |&(mono, left): &(u64, i64)| Now {
            mono: start + Duration::from_secs(mono),
            wall: if left < 0 {
                end + Duration::from_secs(left.unsigned_abs())
            } else {
                end - Duration::from_secs(left.unsigned_abs())
            },
        };
        let mut watch = Watch::new(end, now(&moments[0]));
        let looks = moments.iter().map(|moment| {
            let now = now(moment);
            let notice = watch.look(now);
            let next = watch.deadline() - now.mono;
            assert!(!next.is_zero() && next <= LOOK, "{next:?}");
            notice.map(|notice| match notice {
                Notice::Soon(at) | Notice::Over(at) if at != end => panic!("{at:?}"),
                Notice::Soon(_) => false,
                Notice::Over(_) => true,
            })
        });
        looks.collect()
    }

    #[test]
    fn warns_from_a_fortnight_ahead() {
        const FORTNIGHT: i64 = 14 * 86_400;
        let (soon, over) = (Some(false), Some(true));
        assert_eq!(said(&[(0, FORTNIGHT + 1)]), [None]);
        assert_eq!(said(&[(0, FORTNIGHT)]), [soon]);
        assert_eq!(said(&[(0, 0)]), [soon]);
        assert_eq!(said(&[(0, -1)]), [over]);
        assert_eq!(said(&[(0, -1_000_000_000)]), [over]);
    }

    #[test]
    fn says_it_once_a_day_and_each_change_at_once() {
        let (soon, over) = (Some(false), Some(true));
        let day = 86_400;
        assert_eq!(
            said(&[
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

    /// The clock of a board without a battery: it jumps, and what is said follows it.
    #[test]
    fn follows_a_clock_that_is_set() {
        let (soon, over) = (Some(false), Some(true));
        assert_eq!(
            said(&[
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
    fn looks_again_when_something_changes() {
        let now = Now {
            mono: Instant::now(),
            wall: at(1_000_000_000),
        };
        let second = Duration::from_secs(1);
        for (left, next) in [
            (20 * DAY, LOOK),
            (14 * DAY + second, second),
            (14 * DAY, LOOK),
            (second, second),
            (Duration::ZERO, Duration::ZERO),
        ] {
            let mut watch = Watch::new(now.wall + left, now);
            assert_eq!(watch.deadline(), now.mono);
            watch.look(now);
            let wait = watch.deadline() - now.mono;
            assert!(
                wait >= next && wait <= next + Duration::from_millis(1),
                "{wait:?}"
            );
            // Whenever it wakes, it has something to see.
            if next < LOOK {
                assert!(watch.look(now.later(wait)).is_some());
            }
        }
    }

    #[test]
    fn tells_the_day() {
        let texts = [Notice::Soon(at(1_767_225_599)), Notice::Over(at(0))].map(|n| n.to_string());
        assert_eq!(
            texts,
            [
                "certificate expires soon at=2025-12-31T23:59:59Z",
                "certificate has expired at=1970-01-01T00:00:00Z"
            ]
        );
    }
}
