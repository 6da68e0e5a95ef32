//! From a request head to a decision, with all schemes enabled: a PUT is granted only with a valid signature for its
//! path, and every response is well-formed.

use std::time::{Duration, Instant, UNIX_EPOCH};

use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use upslot::config;
use upslot::http::condition::{Validators, evaluate};
use upslot::http::head::{Framing, Method, RequestHead};
use upslot::http::mime;
use upslot::jid::BareJid;
use upslot::now::Now;
use upslot::purpose::Purpose;
use upslot::service::{Decision, DownloadRequest, Service, StoredFile};
use upslot::slot::SlotRequest;
use upslot::slot::grant::{Grant, Scheme};

use super::exchange::written;
use super::signed::{self, SECRET, is_external, is_own, mac, signed_types};
use super::{Choices, NOW, assert_sentence, expand, reference};

const CONFIG: &str = "storage_path: /srv/upslot
get_url: https://get.example/files/
put_url: https://put.example/up
external_secret: correct horse battery staple
external_delete_secret: a secret for deletions
file_share_secret: correct horse battery staple
custom_headers: {X-Greeting: hello}
";

fn now() -> Now {
    Now {
        mono: Instant::now(),
        wall: UNIX_EPOCH + Duration::from_secs(NOW),
    }
}

struct Site {
    service: Service,
    /// Parts of requests that cannot be made without the secret.
    pieces: Vec<Vec<u8>>,
}

impl Site {
    fn new() -> Site {
        let mut service = Service::new(&config::read(CONFIG).unwrap().config, SECRET);
        service.set_date(now());
        let slot = |content_type: Option<&str>, purpose| {
            let request = SlotRequest {
                owner: BareJid::parse("romeo@montague.tld").unwrap(),
                name: "a b%.jpg".to_owned(),
                size: 5,
                content_type: content_type.map(str::to_owned),
                purpose,
            };
            let folder = upslot::layout::owner_folder(&request.owner);
            let (_, slot) = service
                .issue(&request, &folder, None, &[7; 15], 0, now())
                .unwrap();
            slot.put
                .strip_prefix("https://put.example")
                .unwrap()
                .to_owned()
        };
        let own = slot(None, Purpose::Message);
        let typed = slot(
            Some("image/jpeg"),
            Purpose::Ephemeral {
                expire_before: NOW + 9,
            },
        );
        let double_encoded: String = own.bytes().map(encode_again).collect();
        let hex = |message: &[u8]| HEXLOWER.encode(&mac(message));
        let v = hex(b"x/y.jpg 5");
        let v2 = hex(b"x/y.jpg\x005\0image/jpeg");
        let delete = hex(b"x/y.jpg\0a secret for deletions");
        let token = file_share_token();
        let query = |target: &str| target.split_once('?').unwrap().1.to_owned();
        let pieces = [
            query(&own),
            query(&typed),
            own,
            typed,
            double_encoded,
            format!("/up/x/y.jpg?v={v}"),
            format!("/up/x/y.jpg?v2={v2}"),
            format!("/up/x/y.jpg?token={delete}"),
            v,
            v2,
            format!("/s1/n.jpg HTTP/1.1\r\nAuthorization: Bearer {token}"),
            token,
        ];
        Site {
            service,
            pieces: pieces.map(String::into_bytes).to_vec(),
        }
    }
}

/// A token for the PUT of `/s1/n.jpg`.
fn file_share_token() -> String {
    let payload = format!(
        r#"{{"slot":"s1","sub":"a@b","filename":"n.jpg","filesize":5,"exp":{},"filetype":"image/png"}}"#,
        NOW + 60
    );
    let payload = format!(
        "{}.{}",
        BASE64URL_NOPAD.encode(br#"{"typ":"JWT","alg":"HS256"}"#),
        BASE64URL_NOPAD.encode(payload.as_bytes())
    );
    format!(
        "{payload}.{}",
        BASE64URL_NOPAD.encode(&mac(payload.as_bytes()))
    )
}

/// Encodes a URL that is already encoded, as some XMPP servers do.
fn encode_again(byte: u8) -> String {
    match byte {
        b'%' => "%25".to_owned(),
        b'?' => "%3F".to_owned(),
        other => char::from(other).to_string(),
    }
}

thread_local! {
    static SITE: Site = Site::new();
}

pub fn run(data: &[u8]) {
    SITE.with(|site| {
        // Byte 2 and an index are replaced by one of the pieces.
        let mut text = Vec::new();
        let raw = expand(Choices(data).rest());
        let mut rest = &raw[..];
        while let [first, after @ ..] = rest {
            rest = after;
            match (first, after) {
                (2, [index, after @ ..]) => {
                    let index = usize::from(*index) % site.pieces.len();
                    text.extend_from_slice(&site.pieces[index]);
                    rest = after;
                }
                _ => text.push(*first),
            }
        }
        if let Ok(request) = RequestHead::parse(&text) {
            decide(&site.service, &request, &text);
        }
    });
}

fn decide(service: &Service, request: &RequestHead, text: &[u8]) {
    let answer = match service.decide(request, now()) {
        Decision::Answer(answer) => answer,
        Decision::Refuse(refusal) => {
            assert_sentence(&refusal.to_string());
            assert!((400..=599).contains(&refusal.status()) && refusal.status() != 500);
            service.refuse(&refusal)
        }
        Decision::Upload(grant) => {
            assert_eq!(request.method(), Method::Put);
            check_grant(request, &grant);
            let stored_type = service.content_type(&grant, request);
            assert!(stored_type.is_none_or(|stored_type| mime::is_valid(&stored_type)));
            service.created(&grant)
        }
        Decision::Delete(path) => {
            reference::assert_inside_storage(&path);
            assert_eq!(request.method_str(), "DELETE");
            let message = [path.as_bytes(), b"\0a secret for deletions"].concat();
            let token = HEXLOWER.encode(&mac(&message));
            let query = request.query().unwrap_or_default().to_ascii_lowercase();
            assert!(
                reference::find(&query, token.as_bytes()).is_some(),
                "granted without a valid signature"
            );
            service.deleted()
        }
        Decision::Download(DownloadRequest { path, again, slot }) => {
            for path in path.iter().chain(&again) {
                reference::assert_inside_storage(path);
            }
            assert!(slot.is_none_or(|slot| !slot.is_empty()));
            match path {
                Some(path) => {
                    let content_type = Some("text/html\r\nX: y").filter(|_| text.len() % 2 == 0);
                    let found = StoredFile {
                        size: 50,
                        modified: UNIX_EPOCH + Duration::from_secs(NOW - 10),
                        stored: UNIX_EPOCH + Duration::from_secs(NOW - 10),
                        content_type: content_type.map(str::to_owned),
                        utf8: service.shows_charset(&path, content_type) && text.len() % 3 == 0,
                    };
                    service.download(request, &path, &found, now())
                }
                None => service.not_found(),
            }
        }
    };
    let head_only = request.method() == Method::Head;
    check_response(&written(text, answer), head_only);
}

fn check_response(output: &[u8], head_only: bool) {
    let (answer, length) = reference::answer(output, head_only).expect("a complete response");
    assert_eq!(length, output.len());
    assert!(answer.field("date").is_some());
    assert_eq!(answer.field("access-control-allow-origin"), Some("*"));
    if answer.field("content-disposition").is_some() {
        assert_eq!(answer.field("x-content-type-options"), Some("nosniff"));
        assert!(
            answer
                .field("content-security-policy")
                .unwrap()
                .contains("default-src 'none'")
        );
        let is_inline = answer
            .field("content-disposition")
            .unwrap()
            .starts_with("inline");
        let script = ["html", "svg", "xml", "script"];
        let content_type = answer.field("content-type").unwrap_or_default();
        assert!(!is_inline || !script.iter().any(|word| content_type.contains(word)));
    }
}

/// Checks that a granted PUT carries a valid signature.
fn check_grant(request: &RequestHead, grant: &Grant) {
    reference::assert_inside_storage(&grant.path);
    assert_eq!(
        evaluate(request, None::<&Validators<'_>>),
        upslot::http::condition::ConditionResult::Proceed
    );
    assert!(request.field("content-range").is_none());
    match request.framing() {
        Framing::Length(length) => assert_eq!(length, grant.size),
        Framing::Chunked => assert!(grant.scheme != Scheme::External),
        Framing::None => assert_eq!(grant.size, 0),
    }
    let path = grant.path.as_bytes();
    let query = request.query().unwrap_or_default();
    let put = request.field("content-type").unwrap_or_default();
    match &grant.scheme {
        Scheme::Own => {
            let decoded = |text: &[u8]| reference::decode_leniently(text);
            let target = decoded(request.path());
            let after = target.splitn(2, |b| *b == b'?').nth(1).unwrap_or_default();
            let candidates = [query.to_vec(), decoded(query), after.to_vec()];
            let signed = candidates.iter().any(|query| is_own(path, query));
            assert!(signed, "granted without a valid signature");
        }
        Scheme::External => {
            let types = signed_types(put, mime::by_extension(grant.path.name()));
            assert!(
                is_external(path, query, grant.size, &types),
                "granted without a valid signature"
            );
        }
        Scheme::FileShare { slot, .. } => {
            let field = ["authorization", "authorisation"].into_iter();
            let field = field.filter_map(|name| request.field(name)).next().unwrap();
            let token = field.split(|b| *b == b' ').next_back().unwrap();
            let dot = token.iter().rposition(|b| *b == b'.').unwrap();
            let signature = &token[dot + 1..];
            assert_eq!(
                signature,
                BASE64URL_NOPAD.encode(&mac(&token[..dot])).as_bytes()
            );
            let raw = String::from_utf8_lossy(request.path());
            assert!(raw.contains(&upslot::layout::encode_segment(slot)) || raw.contains('%'));
        }
    }
    let _ = signed::parameters(query);
}
