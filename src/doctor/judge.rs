//! Judges responses: what is right, what is wrong, and what to change. It uses no socket, no file and no clock.

use std::time::{Duration, SystemTime};

use crate::doctor::proxy::{self, Proxy, is_from_upslot};
use crate::doctor::report::{Finding, quoted};
use crate::http::client::Response;

/// A clock that differs by more than this fails, because slots and tokens become invalid; by more than the other, it is
/// a notice.
const MAX_SKEW: Duration = Duration::from_secs(60);
const NOTED_SKEW: Duration = Duration::from_secs(5);

/// What is wrong with a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The stable name.
    pub name: &'static str,
    /// One line without a full stop.
    pub found: String,
    pub remedy: String,
    /// Whether it works all the same.
    pub minor: bool,
}

/// The outcome of judging a response; in the good case, what was found.
pub type Verdict = Result<String, Problem>;

impl Problem {
    pub fn new(name: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Problem {
        Problem {
            name,
            found: found.into(),
            remedy: remedy.into(),
            minor: false,
        }
    }

    /// A problem whose remedy is in the configuration of the proxy.
    pub fn of_proxy(name: &'static str, found: impl Into<String>, proxy: Proxy) -> Problem {
        Problem::new(name, found, proxy::remedy(name, proxy))
    }

    pub fn minor(self) -> Problem {
        Problem {
            minor: true,
            ..self
        }
    }

    pub fn finding(self, check: &'static str) -> Finding {
        let finding = match self.minor {
            true => Finding::notice,
            false => Finding::fail,
        };
        finding(check, self.name, self.found, self.remedy)
    }
}

/// The finding of a check.
pub fn finding(check: &'static str, verdict: Verdict) -> Finding {
    match verdict {
        Ok(found) => Finding::ok(check, found),
        Err(problem) => problem.finding(check),
    }
}

/// The request that a response is about, for messages.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// Such as `PUT of 1 byte`.
    pub what: &'a str,
    /// Whether the URL begins with `https:`.
    pub tls: bool,
    pub proxy: Proxy,
}

/// Whether upslot refused the signature of a PUT.
pub fn is_denied(response: &Response) -> bool {
    let body = String::from_utf8_lossy(&response.body);
    response.status == 403 && is_from_upslot(response) && body.starts_with("The URL")
}

/// What is wrong with a response that has an unexpected status.
pub fn unexpected(response: &Response, asked: Asked<'_>) -> Problem {
    let Asked { what, tls, proxy } = asked;
    let status = response.status;
    if (300..400).contains(&status) {
        return redirect(response, what, tls);
    }
    if is_from_upslot(response) {
        let why = quoted(&response.body);
        let why = why.trim_end_matches('.');
        let found = format!("{what}: upslot answers {status}: {why}");
        if is_denied(response) {
            return Problem::of_proxy("path-changed", found, proxy);
        }
        let remedy = "see the line \"upload refused\" in the log of upslot";
        return Problem::new("refused", found, remedy);
    }
    let found = format!("{what}: {} answers {status}", proxy.name());
    let name = match status {
        413 => "body-limit",
        411 => "chunked-refused",
        408 => "slow-upload-cut",
        502..=504 => "bad-gateway",
        403 | 405 | 501 => "method-refused",
        401 | 407 => {
            let remedy = "remove the authentication from the proxy: clients do not log in, the links are signed";
            return Problem::new("proxy-authentication", found, remedy);
        }
        500 => "proxy-error",
        417 => {
            let remedy = "let the proxy pass Expect: 100-continue on, or answer it";
            return Problem::new("expect-refused", found, remedy);
        }
        _ => {
            let remedy = "another site or program answers here: the name and path of put_url and get_url must lead to upslot";
            return Problem::new("not-upslot", found, remedy);
        }
    };
    Problem::of_proxy(name, found, proxy)
}

fn redirect(response: &Response, what: &str, tls: bool) -> Problem {
    let to = response.field("location").unwrap_or("nowhere");
    let shown = to.split('?').next().unwrap_or_default();
    let found = format!(
        "{what} is redirected ({}) to {}",
        response.status,
        quoted(shown)
    );
    let remedy = match !tls && to.starts_with("https:") {
        true => {
            "write put_url and get_url with https:, because clients do not repeat an upload elsewhere"
        }
        false => {
            "remove the redirect (return 301, rewrite, trailing slash): clients do not repeat an upload elsewhere"
        }
    };
    Problem::new("redirect", found, remedy)
}

/// How the values of a field differ from those that upslot sends.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Difference {
    Missing,
    Repeated,
    Changed(String),
}

/// The difference of one field. Several lines with the same meaning as one count as repeated, too.
fn difference(name: &str, expected: &Response, found: &Response) -> Option<Difference> {
    let wanted = expected.field(name);
    let mut values = found.values(name);
    match (wanted, values.next(), values.next()) {
        (None, None, _) => None,
        (Some(_), None, _) => Some(Difference::Missing),
        (_, Some(_), Some(_)) => Some(Difference::Repeated),
        (Some(wanted), Some(value), None) if wanted == value => None,
        (Some(wanted), Some(value), None) if value == format!("{wanted}, {wanted}") => {
            Some(Difference::Repeated)
        }
        (_, Some(value), None) => Some(Difference::Changed(value.to_owned())),
    }
}

/// Judges the CORS fields (XEP-0363 §9) of a response.
pub fn cors(what: &str, expected: &Response, found: &Response, proxy: Proxy) -> Verdict {
    let is_cors = |name: &&str| name.starts_with("access-control-");
    let fields = expected.fields.iter().map(|(name, _)| name.as_str());
    let names: Vec<&str> = fields.filter(is_cors).collect();
    for name in &names {
        let name = *name;
        match difference(name, expected, found) {
            None => {}
            Some(Difference::Missing) => {
                let text = format!("{what} lacks {name}, so that web clients fail");
                return Err(Problem::of_proxy("cors-missing", text, proxy));
            }
            Some(Difference::Repeated) => {
                let text = format!("{what} has {name} twice, which browsers refuse");
                return Err(Problem::of_proxy("cors-duplicated", text, proxy));
            }
            Some(Difference::Changed(value)) => {
                let text = format!("{what} has {name}: {}", quoted(value));
                let remedy = proxy::remedy("cors-missing", proxy);
                return Err(Problem::new("cors-changed", text, remedy).minor());
            }
        }
    }
    Ok(match names.len() {
        0 => "off (allow_web_clients: false)".to_owned(),
        _ => format!("{what} is readable for web clients"),
    })
}

/// Judges the fields that keep uploads from running scripts in browsers (XEP-0363 §10).
pub fn security(expected: &Response, found: &Response) -> Verdict {
    let names = [
        "x-content-type-options",
        "content-security-policy",
        "content-disposition",
    ];
    for name in names {
        let problem = |problem, text: String| {
            let remedy = format!("let the proxy pass {name} on unchanged");
            Problem::new(problem, text, remedy)
        };
        match difference(name, expected, found) {
            None => {}
            Some(Difference::Missing) => {
                let text =
                    format!("{name} is missing, so that an upload may run scripts in browsers");
                return Err(problem("security-field-missing", text));
            }
            Some(Difference::Repeated) => {
                let text = format!("{name} occurs twice");
                return Err(problem("security-field-duplicated", text).minor());
            }
            Some(Difference::Changed(value)) => {
                let text = format!("{name} is changed to {}", quoted(value));
                return Err(problem("security-field-changed", text).minor());
            }
        }
    }
    Ok("nosniff, Content-Security-Policy and Content-Disposition arrive unchanged".to_owned())
}

/// Judges what caches and resumed downloads depend on: a strong validator, and the lifetime.
pub fn validators(expected: &Response, found: &Response) -> Verdict {
    let remedy = "let the proxy pass ETag, Last-Modified, Accept-Ranges and Cache-Control on unchanged, and not compress";
    let problem = |name, text: String| Err(Problem::new(name, text, remedy).minor());
    match found.field("etag") {
        None => return problem("etag-missing", "there is no ETag".to_owned()),
        Some(etag) if etag.starts_with("W/") => {
            let text = format!("the ETag is weakened to {}", quoted(etag));
            return problem("etag-weakened", text);
        }
        Some(_) => {}
    }
    for name in ["accept-ranges", "last-modified"] {
        if expected.field(name).is_some() && found.field(name).is_none() {
            return problem("validator-missing", format!("{name} is missing"));
        }
    }
    let directives = |response: &Response| -> Vec<String> {
        let value = response
            .values("cache-control")
            .collect::<Vec<_>>()
            .join(",");
        let words = value.split(',').map(str::trim);
        // The remaining lifetime shrinks while the request is under way.
        let words = words.filter(|word| !word.is_empty() && !word.starts_with("max-age="));
        words.map(str::to_ascii_lowercase).collect()
    };
    if directives(expected) != directives(found) {
        let value = found.field("cache-control").unwrap_or("nothing");
        let text = format!("Cache-Control is changed to {}", quoted(value));
        return problem("cache-control-changed", text);
    }
    Ok("ETag, Last-Modified and Cache-Control arrive unchanged".to_owned())
}

/// Judges the content of a download: bytes, length, coding and type.
pub fn content(expected: &Response, bytes: &[u8], found: &Response, proxy: Proxy) -> Verdict {
    if let Some(coding) = found.field("content-encoding") {
        let text = format!("the file arrives compressed ({})", quoted(coding));
        return Err(Problem::of_proxy("compressed", text, proxy));
    }
    if found.body != bytes {
        let text = format!(
            "{} bytes were stored and {} bytes came back, or other ones",
            bytes.len(),
            found.body.len()
        );
        let remedy = "let the proxy pass files on unchanged: no filter, no optimisation";
        return Err(Problem::new("content-changed", text, remedy));
    }
    length(bytes.len(), found, proxy)?;
    match difference("content-type", expected, found) {
        None => Ok(format!("{} bytes came back unchanged", bytes.len())),
        Some(_) => {
            let value = found.field("content-type").unwrap_or("nothing");
            let text = format!("Content-Type is changed to {}", quoted(value));
            let remedy = "let the proxy pass Content-Type on unchanged (nginx: no charset, no ForceType in Apache)";
            Err(Problem::new("content-type-changed", text, remedy))
        }
    }
}

/// Judges the announced length, which clients need before they download.
pub fn length(expected: usize, found: &Response, proxy: Proxy) -> Verdict {
    match found.field("content-length") {
        Some(length) if length == expected.to_string() => {
            Ok(format!("{length} bytes are announced"))
        }
        Some(length) => {
            let text = format!("Content-Length is {} instead of {expected}", quoted(length));
            Err(Problem::of_proxy("compressed", text, proxy))
        }
        None => {
            let text = "there is no Content-Length, so that clients do not download by themselves";
            let remedy = proxy::remedy("compressed", proxy);
            Err(Problem::new("length-missing", text, remedy))
        }
    }
}

/// Judges the answer to a request for bytes `first` to `last` of a file.
pub fn range(bytes: &[u8], [first, last]: [usize; 2], found: &Response) -> Verdict {
    let remedy = "let the proxy pass Range on, and answers with 206 (nginx: no slice, no proxy_cache; Apache: no MaxRanges none)";
    let part = bytes.get(first..=last).unwrap_or_default();
    let value = format!("bytes {first}-{last}/{}", bytes.len());
    match found.status {
        206 if found.body == part && found.field("content-range") == Some(&value) => {
            Ok(format!("206 for {} of {} bytes", part.len(), bytes.len()))
        }
        206 => Err(Problem::new(
            "range-wrong",
            "206 has other bytes than requested",
            remedy,
        )),
        status => {
            let text = format!("{status} instead of 206, so that downloads cannot be resumed");
            Err(Problem::new("range-ignored", text, remedy))
        }
    }
}

/// Judges the answer to a request with the current ETag in `If-None-Match`.
pub fn conditional(found: &Response) -> Verdict {
    match found.status {
        304 => Ok("304 for the ETag that was sent".to_owned()),
        status => {
            let text = format!("{status} instead of 304 for the ETag that was sent");
            let remedy = "let the proxy pass ETag and If-None-Match on unchanged";
            Err(Problem::new("condition-ignored", text, remedy).minor())
        }
    }
}

/// Judges the difference between the clock of this machine and the date of a response.
pub fn clock(date: SystemTime, now: SystemTime) -> Verdict {
    let ahead = date.duration_since(now);
    let behind = now.duration_since(date);
    let skew = ahead
        .as_ref()
        .ok()
        .max(behind.as_ref().ok())
        .copied()
        .unwrap_or_default();
    let text = format!(
        "the clocks of this machine and of the server differ by {} s",
        skew.as_secs()
    );
    let remedy = "synchronise both with NTP: slots and tokens carry times";
    match skew {
        skew if skew > MAX_SKEW => Err(Problem::new("clock-skew", text, remedy)),
        skew if skew > NOTED_SKEW => Err(Problem::new("clock-skew", text, remedy).minor()),
        _ => Ok(text),
    }
}

/// What a test of the body limit found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Announced {
    /// `100 Continue` came, or nothing.
    Continue,
    Silence,
}

/// Judges a file of the maximum size that was only announced.
pub fn announced(size: &str, outcome: Announced, proxy: Proxy) -> Verdict {
    match outcome {
        Announced::Continue if proxy == Proxy::Caddy => Ok(format!(
            "a file of {size} is admitted, but Caddy applies a limit only to what is sent: see --full"
        )),
        Announced::Continue => Ok(format!(
            "a file of {size} is admitted; --full also sends one"
        )),
        Announced::Silence => {
            let text = format!(
                "Expect: 100-continue for a file of {size} is not answered, so that a limit cannot be seen"
            );
            let remedy = "run upslot doctor --full, which sends such a file";
            Err(Problem::new("expect-ignored", text, remedy).minor())
        }
    }
}

#[cfg(test)]
mod tests;
