//! A request head to a decision, with every scheme that grants a PUT switched on: who is allowed to store shows a
//! signature for that very place, and whatever is answered is one sound answer.

use std::time::{Duration, Instant, UNIX_EPOCH};

use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use upslot::config;
use upslot::http::condition::{Validators, evaluate};
use upslot::http::head::{Framing, Method, RequestHead};
use upslot::http::mime;
use upslot::jid::BareJid;
use upslot::now::Now;
use upslot::service::{Decision, Found, Service, Wanted};
use upslot::slot::grant::{Grant, Source};
use upslot::slot::{Purpose, SlotRequest};

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
    /// Pieces of requests that only who knows the secret can make.
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
        let again: String = own.bytes().map(twice).collect();
        let hex = |message: &[u8]| HEXLOWER.encode(&mac(message));
        let v = hex(b"x/y.jpg 5");
        let v2 = hex(b"x/y.jpg\x005\0image/jpeg");
        let delete = hex(b"x/y.jpg\0a secret for deletions");
        let payload = format!(
            r#"{{"slot":"s1","sub":"a@b","filename":"n.jpg","filesize":5,"exp":{},"filetype":"image/png"}}"#,
            NOW + 60
        );
        let payload = format!(
            "{}.{}",
            BASE64URL_NOPAD.encode(br#"{"typ":"JWT","alg":"HS256"}"#),
            BASE64URL_NOPAD.encode(payload.as_bytes())
        );
        let token = format!(
            "{payload}.{}",
            BASE64URL_NOPAD.encode(&mac(payload.as_bytes()))
        );
        let query = |target: &str| target.split_once('?').unwrap().1.to_owned();
        let pieces = [
            query(&own),
            query(&typed),
            own,
            typed,
            again,
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

/// As some servers encode a URL that is already encoded.
fn twice(byte: u8) -> String {
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
        // 2 and a number stand for one of the pieces.
        let mut text = Vec::new();
        let raw = expand(Choices(data).rest());
        let mut rest = &raw[..];
        while let [first, after @ ..] = rest {
            rest = after;
            match (first, after) {
                (2, [which, after @ ..]) => {
                    let which = usize::from(*which) % site.pieces.len();
                    text.extend_from_slice(&site.pieces[which]);
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
            granted(request, &grant);
            let kept = service.content_type(&grant, request);
            assert!(kept.is_none_or(|kept| mime::is_valid(&kept)));
            service.created(&grant)
        }
        Decision::Delete(path) => {
            reference::assert_inside(&path);
            assert_eq!(request.method_str(), "DELETE");
            let message = [path.as_bytes(), b"\0a secret for deletions"].concat();
            let token = HEXLOWER.encode(&mac(&message));
            let query = request.query().unwrap_or_default().to_ascii_lowercase();
            assert!(
                reference::find(&query, token.as_bytes()).is_some(),
                "nobody signed it"
            );
            service.deleted()
        }
        Decision::Download(Wanted { path, again, slot }) => {
            for path in path.iter().chain(&again) {
                reference::assert_inside(path);
            }
            assert!(slot.is_none_or(|slot| !slot.is_empty()));
            match path {
                Some(path) => {
                    let content_type = Some("text/html\r\nX: y").filter(|_| text.len() % 2 == 0);
                    let found = Found {
                        size: 50,
                        modified: UNIX_EPOCH + Duration::from_secs(NOW - 10),
                        stored: UNIX_EPOCH + Duration::from_secs(NOW - 10),
                        content_type,
                        utf8: service.shows_charset(&path, content_type) && text.len() % 3 == 0,
                    };
                    service.download(request, &path, &found, now())
                }
                None => service.not_found(),
            }
        }
    };
    let head_only = request.method() == Method::Head;
    let output = written(text, answer);
    let (answer, used) = reference::answer(&output, head_only).expect("a whole answer");
    assert_eq!(used, output.len());
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
        let shown = answer
            .field("content-disposition")
            .unwrap()
            .starts_with("inline");
        let script = ["html", "svg", "xml", "script"];
        let content_type = answer.field("content-type").unwrap_or_default();
        assert!(!shown || !script.iter().any(|word| content_type.contains(word)));
    }
}

/// Who may store has shown a signature for it.
fn granted(request: &RequestHead, grant: &Grant) {
    reference::assert_inside(&grant.path);
    assert_eq!(
        evaluate(request, None::<&Validators<'_>>),
        upslot::http::condition::Verdict::Proceed
    );
    assert!(request.field("content-range").is_none());
    match request.framing() {
        Framing::Length(length) => assert_eq!(length, grant.size),
        Framing::Chunked => assert!(grant.source != Source::External),
        Framing::None => assert_eq!(grant.size, 0),
    }
    let path = grant.path.as_bytes();
    let query = request.query().unwrap_or_default();
    let put = request.field("content-type").unwrap_or_default();
    match &grant.source {
        Source::Own => {
            let decoded = |text: &[u8]| reference::decode_what_can_be(text);
            let target = decoded(request.path());
            let behind = target.splitn(2, |b| *b == b'?').nth(1).unwrap_or_default();
            let readings = [query.to_vec(), decoded(query), behind.to_vec()];
            let signed = readings.iter().any(|query| is_own(path, query));
            assert!(signed, "granted, and nobody signed it");
        }
        Source::External => {
            let types = signed_types(put, mime::by_extension(grant.path.name()));
            assert!(
                is_external(path, query, grant.size, &types),
                "nobody signed it"
            );
        }
        Source::Share { slot, .. } => {
            let field = ["authorization", "authorisation"].into_iter();
            let field = field.filter_map(|name| request.field(name)).next().unwrap();
            let token = field.split(|b| *b == b' ').next_back().unwrap();
            let dot = token.iter().rposition(|b| *b == b'.').unwrap();
            let shown = &token[dot + 1..];
            assert_eq!(
                shown,
                BASE64URL_NOPAD.encode(&mac(&token[..dot])).as_bytes()
            );
            let raw = String::from_utf8_lossy(request.path());
            assert!(raw.contains(&upslot::layout::encode_segment(slot)) || raw.contains('%'));
        }
    }
    let _ = signed::parameters(query);
}
