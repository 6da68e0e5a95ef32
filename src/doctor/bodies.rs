//! Checks of request bodies: limits, buffering and timeouts of the proxy.

use std::time::Duration;

use crate::client::{self, Connection, RESPONSE_TIMEOUT, no_answer};
use crate::doctor::judge::{self, Announced, Problem, Verdict, unexpected};
use crate::doctor::proxy::{Proxy, is_from_upslot};
use crate::doctor::session::{Session, Side};
use crate::http::client::{Response, ResponseReader};
use crate::sys;
use crate::units;

/// How long an early response may take before the proxy counts as buffering.
const EARLY: Duration = Duration::from_millis(1500);

/// How long to wait for `100 Continue`.
const CONTINUE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long to wait for a refusal after the first byte of the body.
const AFTER_CONTINUE: Duration = Duration::from_millis(500);

/// The pause in a slow upload, as of a phone that changes networks.
const PAUSE: Duration = Duration::from_secs(5);

/// Size of the body of which only a byte is sent at first.
const HELD_BACK: usize = 16 * 1024;

/// Size of the pieces of a large body.
const PIECE: usize = 64 * 1024;

/// The least speed of `--full`; bytes per second.
const LEAST_SPEED: u64 = 64 * 1024;

/// Opens a connection, and sends a PUT with the first bytes of its body.
fn begin(
    session: &Session<'_>,
    what: &str,
    target: &str,
    fields: &[(&str, &str)],
    first: &[u8],
) -> Result<Connection, Problem> {
    let mut connection = session.open(Side::Put, what)?;
    let head = client::head("PUT", target, &session.put.origin, fields);
    connection.send(&[&head[..], first].concat());
    Ok(connection)
}

/// Announces a file of `max_file_size` by `Expect: 100-continue` (RFC 9110 §10.1.1), and sends one byte of it.
pub fn size(session: &mut Session<'_>) -> Verdict {
    let size = session.config.max_file_size;
    let shown = units::size(size);
    let what = format!("PUT of {shown} (max_file_size)");
    let slot = session.slot("size.bin", size, None)?;
    let length = size.to_string();
    let fields = [
        ("Content-Length", length.as_str()),
        ("Expect", "100-continue"),
    ];
    let mut connection = begin(session, &what, &slot.put, &fields, b"")?;
    let mut reader = ResponseReader::new(false);
    let failed = |why: String| session.no_response(Side::Put, &what, &why);
    let answered = connection
        .receive(&mut reader, CONTINUE_TIMEOUT, ResponseReader::may_continue)
        .map_err(failed)?;
    if answered && !reader.is_complete() {
        // Apache compares the length with its limit when the body begins.
        connection.send(b"0");
        connection
            .receive(&mut reader, AFTER_CONTINUE, |_| false)
            .map_err(failed)?;
    }
    if let Some(response) = reader.take() {
        session.recognise(Side::Put, &response);
        return Err(unexpected(&response, session.asked(Side::Put, &what)));
    }
    let outcome = match answered {
        true => Announced::Continue,
        false => Announced::Silence,
    };
    judge::announced(&shown, outcome, session.proxy(Side::Put))
}

/// Sends a file of `max_file_size`.
pub fn full(session: &mut Session<'_>) -> Verdict {
    let size = session.config.max_file_size;
    let shown = units::size(size);
    let what = format!("PUT of {shown} (max_file_size, sent)");
    let slot = session.slot("full.bin", size, None)?;
    let length = size.to_string();
    let fields = [("Content-Length", length.as_str())];
    let mut connection = begin(session, &what, &slot.put, &fields, b"")?;
    let begun = sys::monotonic();
    let piece = vec![0; PIECE];
    let mut left = size;
    while left > 0 && !connection.is_broken() && !session.limits.is_over() {
        let n = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
        connection.send(&piece[..n]);
        left -= n as u64;
    }
    let proxy = session.proxy(Side::Put);
    let response = connection.response(false).map_err(|why| {
        let text = format!("{what}: {why}, although small files arrive");
        Problem::of_proxy("body-limit", text, proxy)
    })?;
    session.recognise(Side::Put, &response);
    match response.status {
        // Caddy before version 2.8 reports its limit as 502.
        500..=504 if !is_from_upslot(&response) => {
            let status = response.status;
            let text = format!(
                "{what}: {} answers {status}, although small files arrive",
                proxy.name()
            );
            Err(Problem::of_proxy("body-limit", text, proxy))
        }
        201 => {
            let seconds = begun.elapsed().as_secs_f64().max(0.001);
            let speed = (size as f64 / seconds) as u64;
            Ok(format!(
                "{what}: 201 after {seconds:.1} s, {}/s",
                units::size(speed)
            ))
        }
        _ => Err(unexpected(&response, session.asked(Side::Put, &what))),
    }
}

/// How long sending a file of `max_file_size` may take.
pub fn full_timeout(size: u64) -> Duration {
    Duration::from_secs(60 + size / LEAST_SPEED)
}

/// How a body is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framed {
    Length,
    Chunked,
}

/// Whether the proxy keeps request bodies until they are complete. upslot refuses a PUT with an invalid signature as soon
/// as it has the head; if the refusal arrives before the body is sent, the proxy has passed the head on.
pub fn buffering(session: &mut Session<'_>) -> Verdict {
    if !is_early(session, Framed::Length)? {
        let proxy = session.proxy(Side::Put);
        if proxy == Proxy::Apache {
            return Ok("Apache passes bodies on, but answers only after the whole body; this cannot be seen from outside".to_owned());
        }
        let text = format!(
            "{} passes uploads on only when they are complete",
            proxy.name()
        );
        return Err(Problem::of_proxy("request-buffering", text, proxy).minor());
    }
    if !is_early(session, Framed::Chunked)? {
        let proxy = session.proxy(Side::Put);
        let text = format!(
            "{} passes uploads in chunks on only when they are complete, as with HTTP/1.0 to upslot",
            proxy.name()
        );
        return Err(Problem::of_proxy("http-1.0-upstream", text, proxy).minor());
    }
    Ok("uploads are passed on while they arrive".to_owned())
}

/// Whether a refusal arrives before the body is sent.
fn is_early(session: &mut Session<'_>, framed: Framed) -> Result<bool, Problem> {
    let what = "PUT with an invalid signature";
    let slot = session.slot("buffering.txt", HELD_BACK as u64, None)?;
    let length = HELD_BACK.to_string();
    let (field, first, rest) = match framed {
        Framed::Length => (
            ("Content-Length", length.as_str()),
            b"x".to_vec(),
            vec![b'x'; HELD_BACK - 1],
        ),
        Framed::Chunked => {
            let rest = format!(
                "{:x}\r\n{}\r\n0\r\n\r\n",
                HELD_BACK - 1,
                "x".repeat(HELD_BACK - 1)
            );
            (
                ("Transfer-Encoding", "chunked"),
                b"1\r\nx\r\n".to_vec(),
                rest.into_bytes(),
            )
        }
    };
    let mut connection = begin(session, what, &slot.forged(), &[field], &first)?;
    let mut reader = ResponseReader::new(false);
    let failed = |session: &Session<'_>, why: &str| session.no_response(Side::Put, what, why);
    let early = connection
        .receive(&mut reader, EARLY, |_| false)
        .map_err(|why| failed(session, &why))?;
    if !early {
        connection.send(&rest);
        let late = connection.receive(&mut reader, RESPONSE_TIMEOUT, |_| false);
        match late {
            Ok(true) => {}
            Ok(false) => return Err(failed(session, &no_answer(&reader))),
            Err(why) => return Err(failed(session, &why)),
        }
    }
    let response = reader.take().unwrap_or_default();
    session.recognise(Side::Put, &response);
    match is_from_upslot(&response) {
        true => Ok(early),
        false => Err(unexpected(&response, session.asked(Side::Put, what))),
    }
}

/// Sends a file with a pause in the middle.
pub fn slow(session: &mut Session<'_>) -> Verdict {
    let what = format!("PUT with a pause of {} s", PAUSE.as_secs());
    let slot = session.slot("slow.txt", 8, None)?;
    let fields = [("Content-Length", "8")];
    let mut connection = begin(session, &what, &slot.put, &fields, b"slow")?;
    let mut reader = ResponseReader::new(false);
    let cut = connection.receive(&mut reader, PAUSE, |_| false);
    let early = !matches!(cut, Ok(false));
    if !early {
        connection.send(b"down");
    }
    let proxy = session.proxy(Side::Put);
    let response: Result<Response, String> = match cut {
        Err(why) => Err(why),
        Ok(_) => match connection.receive(&mut reader, RESPONSE_TIMEOUT, |_| false) {
            Ok(true) => reader.take().ok_or_else(|| no_answer(&reader)),
            Ok(false) => Err(no_answer(&reader)),
            Err(why) => Err(why),
        },
    };
    match response {
        Ok(response) if response.status == 201 => Ok(format!("{what}: 201")),
        Ok(response) if is_from_upslot(&response) => {
            Err(unexpected(&response, session.asked(Side::Put, &what)))
        }
        Ok(response) => {
            let text = format!("{what}: {} answers {}", proxy.name(), response.status);
            Err(Problem::of_proxy("slow-upload-cut", text, proxy))
        }
        Err(why) => {
            let text = format!("{what}: {why}");
            Err(Problem::of_proxy("slow-upload-cut", text, proxy))
        }
    }
}
