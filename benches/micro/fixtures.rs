//! The inputs of the operations: a configuration, slots, signatures, and requests as real clients send them.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use ring::hmac;
use upslot::config::{self, Config};
use upslot::http::head::RequestHead;
use upslot::jid::BareJid;
use upslot::layout;
use upslot::now::Now;
use upslot::purpose::Purpose;
use upslot::service::Service;
use upslot::slot::SlotRequest;

use crate::common::outcome::Outcome;

pub const JID: &str = "upload.example.org";
pub const OWNER: &str = "romeo@example.org";
/// The file of every request: its name, its size in bytes and its type.
pub const NAME: &str = "balcony at night.jpg";
pub const SIZE: u64 = 10_240;
pub const TYPE: &str = "image/jpeg";

/// The shared secret for the signatures of XMPP servers.
const SECRET: &str = "correct horse battery staple";
/// The time in all operations, in Unix seconds.
const NOW: u64 = 1_800_000_000;

pub fn now() -> Now {
    Now {
        mono: Instant::now(),
        wall: seconds_ago(0),
    }
}

/// A time before [`now`].
pub fn seconds_ago(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(NOW - seconds)
}

/// The smallest configuration, with extra lines.
pub fn config(extra: &str) -> Outcome<Config> {
    let text =
        format!("storage_path: store\nget_url: https://{JID}/\nput_url: https://{JID}/\n{extra}\n");
    let reading = config::read(&text).map_err(|e| format!("{e:?}"))?;
    Ok(reading.config)
}

pub fn service(extra: &str) -> Outcome<Service> {
    let mut service = Service::new(&config(extra)?, b"thirty-two bytes that sign slots");
    service.set_date(now());
    Ok(service)
}

/// A request for a slot.
pub fn slot_request(owner: &str) -> Outcome<SlotRequest> {
    Ok(SlotRequest {
        owner: BareJid::parse(owner).ok_or("the owner is not a valid JID")?,
        name: NAME.to_owned(),
        size: SIZE,
        content_type: Some(TYPE.to_owned()),
        purpose: Purpose::Message,
    })
}

/// The request targets of the PUT and the GET of a slot.
pub fn targets(service: &Service) -> Outcome<(String, String)> {
    let request = slot_request(OWNER)?;
    let folder = layout::owner_folder(&request.owner);
    let (_, slot) = service
        .issue(
            &request,
            &folder,
            None,
            &[7; layout::RANDOM_BYTES],
            0,
            now(),
        )
        .map_err(|refusal| refusal.to_string())?;
    let target = |url: &str| {
        let target = url.strip_prefix(&format!("https://{JID}"));
        target.map(str::to_owned)
    };
    let targets = target(&slot.put).zip(target(&slot.get));
    targets.ok_or_else(|| "the URL of a slot has another host".to_owned())
}

/// The head of a GET from curl 7.88.
pub fn curl(target: &str) -> Vec<u8> {
    format!(
        "GET {target} HTTP/1.1\r\nHost: {JID}\r\nUser-Agent: curl/7.88.1\r\nAccept: */*\r\n\r\n"
    )
    .into_bytes()
}

/// The head of a GET from Firefox 128 for a picture in a web client.
pub fn browser(target: &str) -> Vec<u8> {
    format!(
        "GET {target} HTTP/1.1\r\n\
         Host: {JID}\r\n\
         User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n\
         Accept: image/avif,image/webp,image/png,image/svg+xml,image/*;q=0.8,*/*;q=0.5\r\n\
         Accept-Language: en-GB,en;q=0.7,fr;q=0.3\r\n\
         Accept-Encoding: gzip, deflate, br, zstd\r\n\
         Connection: keep-alive\r\n\
         Referer: https://chat.example.org/\r\n\
         Sec-Fetch-Dest: image\r\n\
         Sec-Fetch-Mode: no-cors\r\n\
         Sec-Fetch-Site: same-site\r\n\
         Priority: u=5, i\r\n\
         Pragma: no-cache\r\n\
         Cache-Control: no-cache\r\n\r\n"
    )
    .into_bytes()
}

/// The head of a PUT from slixmpp 1.8, which uses aiohttp; `fields` are further header lines.
pub fn slixmpp(target: &str, fields: &str) -> Vec<u8> {
    format!(
        "PUT {target} HTTP/1.1\r\n\
         Host: {JID}\r\n\
         Content-Length: {SIZE}\r\n\
         Content-Type: {TYPE}\r\n\
         {fields}\
         Accept: */*\r\n\
         Accept-Encoding: gzip, deflate\r\n\
         User-Agent: Python/3.11 aiohttp/3.8.4\r\n\r\n"
    )
    .into_bytes()
}

/// Parses the head of a request.
pub fn parsed(head: &[u8]) -> Outcome<RequestHead> {
    RequestHead::parse(head).map_err(|e| e.to_string())
}

/// The configuration for accepting PUTs that are signed by an XMPP server.
pub fn signed_puts() -> String {
    format!("external_secret: '{SECRET}'\nfile_share_secret: '{SECRET}'\n")
}

/// The request target of a PUT as signed by mod_http_upload_external, in version 1 or 2 of its protocol.
pub fn external_target(version_2: bool) -> String {
    let folder = "4a771ac1-f0b2-4a4a-9700-f2a26fa2bb67";
    let encoded = NAME.replace(' ', "%20");
    let (key, message) = if version_2 {
        ("v2", format!("{folder}/{NAME}\0{SIZE}\0{TYPE}"))
    } else {
        ("v", format!("{folder}/{NAME} {SIZE}"))
    };
    let tag = HEXLOWER.encode(&sign(&message));
    format!("/{folder}/{encoded}?{key}={tag}")
}

/// The request target and the header line of a PUT with a token from Prosody's mod_http_file_share.
pub fn file_share_token() -> (String, String) {
    let slot = "Zq3sWv9oLxTgN4eBk2Yc7u";
    let (issued, expires) = (NOW - 60, NOW + 300);
    let claims = format!(
        r#"{{"sub":"{OWNER}","slot":"{slot}","filename":"{NAME}","filesize":{SIZE},"filetype":"{TYPE}","iat":{issued},"exp":{expires},"expires":{}}}"#,
        NOW + 604_800
    );
    let encode = |text: &str| BASE64URL_NOPAD.encode(text.as_bytes());
    let signed = format!(
        "{}.{}",
        encode(r#"{"alg":"HS256","typ":"JWT"}"#),
        encode(&claims)
    );
    let tag = BASE64URL_NOPAD.encode(&sign(&signed));
    let target = format!("/{slot}/{}", NAME.replace(' ', "%20"));
    (target, format!("Authorization: Bearer {signed}.{tag}\r\n"))
}

fn sign(message: &str) -> Vec<u8> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
    hmac::sign(&key, message.as_bytes()).as_ref().to_vec()
}
