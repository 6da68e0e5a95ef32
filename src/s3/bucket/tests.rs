use std::time::{Instant, UNIX_EPOCH};

use super::requests::BEFORE_NOTES;
use super::*;
use crate::config::object_store::{GetMode, PutMode};
use crate::config::secret::SecretKey;

/// 2026-11-28T14:12:03Z.
fn now() -> Now {
    Now {
        mono: Instant::now(),
        wall: UNIX_EPOCH + Duration::from_secs(1_795_875_123),
    }
}

/// The section of a store with two endpoints.
pub(crate) fn store(prefix: &str, path_style: bool) -> ObjectStore {
    let origin = |url| Origin::split(url).unwrap().0;
    ObjectStore {
        endpoint: origin("https://s3.example.org:8443"),
        internal_endpoint: origin("http://10.0.0.1:3900"),
        bucket: "uploads".to_owned(),
        region: "garage".to_owned(),
        prefix: prefix.to_owned(),
        path_style,
        access_key: "AKIAIOSFODNN7EXAMPLE".to_owned(),
        secret_key: SecretKey::new(*b"wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"),
        secret_key_file: None,
        ca_file: None,
        put: PutMode::Direct,
        get: GetMode::Redirect,
        public_url: Some("https://files.example.org/x/".to_owned()),
        sign_content_type: true,
    }
}

fn path(text: &str) -> StorePath {
    StorePath::from_segments(text.as_bytes().split(|b| *b == b'/')).unwrap()
}

fn text(request: &StoreRequest) -> String {
    let head = String::from_utf8(request.bytes.clone()).unwrap();
    let (head, body) = head.split_once("\r\n\r\n").unwrap();
    assert!(head.is_ascii(), "{head}");
    assert!(body.is_empty() || head.contains(&format!("\r\nContent-Length: {}", body.len())));
    format!("{head}\r\n")
}

#[test]
fn put_urls_are_signed_with_the_length() {
    let bucket = Bucket::new(&store("", true));
    let path = path("a/b~1f~m/très cool+~%=&.jpg");
    let minutes = Duration::from_secs(360);
    let url = bucket.put_url(&path, 10_240, Some("image/jpeg"), minutes, now());
    assert_eq!(
        url.unwrap(),
        "https://s3.example.org:8443/uploads/a/b~1f~m/tr%C3%A8s%20cool%2B~%25%3D%26.jpg\
         ?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20261128%2Fgarage%2Fs3%2F\
         aws4_request&X-Amz-Date=20261128T141203Z&X-Amz-Expires=360\
         &X-Amz-SignedHeaders=content-length%3Bcontent-type%3Bhost\
         &X-Amz-Signature=c9b2bd040f42ee786320302c327c5ac99424069db805d326184e194f613c0953"
    );
    let signed = |bucket: &Bucket, content_type, lifetime| {
        let url = bucket.put_url(&path, 1, content_type, lifetime, now());
        let url = url.unwrap();
        let (_, rest) = url.split_once("&X-Amz-Expires=").unwrap();
        rest.split_once("&X-Amz-Signature").unwrap().0.to_owned()
    };
    let length = "360&X-Amz-SignedHeaders=content-length%3Bhost";
    for content_type in [None, Some(""), Some("text/plain\n"), Some("text/è")] {
        assert_eq!(signed(&bucket, content_type, minutes), length);
    }
    let unsigned = Bucket::new(&ObjectStore {
        sign_content_type: false,
        ..store("", true)
    });
    assert_eq!(signed(&unsigned, Some("image/jpeg"), minutes), length);
    for (lifetime, seconds) in [(0, "1"), (u64::MAX, "604800")] {
        let lifetime = signed(&bucket, None, Duration::from_secs(lifetime));
        assert!(lifetime.starts_with(&format!("{seconds}&")), "{lifetime}");
    }
}

#[test]
fn get_urls_stay_the_same_for_a_while() {
    let bucket = Bucket::new(&store("pre fix/", false));
    let shown = Shown {
        content_type: "image/png",
        disposition: "inline; filename=\"a.png\"",
        cache_control: "",
    };
    let url = |seconds, method| {
        let now = now().later(Duration::from_secs(seconds));
        let url = bucket.get_url(&path("a/b/a.png"), method, &shown, u64::MAX, now);
        (url.unwrap(), Bucket::url_lifetime(now))
    };
    let (first, left) = url(0, "GET");
    assert_eq!(left, 1800 - 723);
    assert!(
        first.starts_with(
            "https://uploads.s3.example.org:8443/pre%20fix/a/b/a.png?X-Amz-Algorithm="
        )
    );
    for part in [
        "&X-Amz-Date=20261128T140000Z&X-Amz-Expires=1800&",
        "&response-content-disposition=inline%3B%20filename%3D%22a.png%22&response-content-type=image%2Fpng&",
    ] {
        assert!(first.contains(part), "{first}");
    }
    assert!(!first.contains("cache-control"));
    assert_eq!(url(176, "GET"), (first.clone(), 1800 - 899));
    let (second, left) = url(177, "GET");
    assert!(second != first && left == 1800);
    // It ends with its file.
    let until = |unix| {
        let url = bucket.get_url(&path("a/b/a.png"), "GET", &shown, unix, now());
        let url = url.unwrap();
        let at = url.find("&X-Amz-Expires=").unwrap() + 15;
        url[at..].split('&').next().unwrap().to_owned()
    };
    let time = now().unix() - 723;
    assert_eq!(until(time + 800), "800");
    assert_eq!(until(time + 1801), "1800");
    assert_eq!(until(time - 5), "1");
    // A store verifies the method.
    assert_ne!(url(0, "HEAD").0, first);
    assert_eq!(
        bucket.public_url(&path("a/b/ä.png")).unwrap(),
        "https://files.example.org/x/pre%20fix/a/b/%C3%A4.png"
    );
}

#[test]
fn keys_are_paths_below_the_prefix() {
    for prefix in ["", "xmpp/", "a b/c/"] {
        let bucket = Bucket::new(&store(prefix, true));
        for name in ["a/b", "a/b~1f~m/très cool.jpg", "1/2/3/4/5/6/7/8"] {
            let key = bucket.key(&path(name)).unwrap();
            assert_eq!(key.as_str(), format!("{prefix}{name}"));
            assert_eq!(bucket.path_of(key.as_str()), Some(path(name)));
        }
        let invalid = StorePath::from_segments([&b"a"[..], b"\xff"].into_iter()).unwrap();
        assert_eq!(bucket.key(&invalid), None);
        let put = bucket.put_url(&invalid, 1, None, Duration::ZERO, now());
        assert_eq!(put, None);
        // A path has at most 8 names of 255 bytes.
        let long = vec!["x".repeat(255); 5].join("/");
        assert_eq!(bucket.key(&path(&long)), None);
        for foreign in ["", "a", "/a/b", "a//b", "a/", "a/.b", "b/../c", "xmp/a/b"] {
            let key = format!("{prefix}{foreign}");
            let expected = (foreign == "xmp/a/b").then(|| path(foreign));
            assert_eq!(bucket.path_of(&key), expected, "{key}");
        }
    }
    assert_eq!(Bucket::new(&store("x/", true)).path_of("y/a/b"), None);
}

#[test]
fn internal_objects_are_no_files() {
    let bucket = Bucket::new(&store("x/", true));
    let file = path("Q_7dsld2o0PGmDXH553Cx_WVmKY/b/c");
    let keys = [
        (bucket.alias_key(b"slot"), Internal::Aliases),
        (bucket.tombstone_key(&file), Internal::Tombstones),
        (
            bucket.revocation_key(file.owner_folder()),
            Internal::Revoked,
        ),
    ];
    for (key, kind) in &keys {
        let key = key.as_ref().unwrap().as_str();
        let (found, name) = bucket.internal_of(key).unwrap();
        assert_eq!(found, *kind);
        assert_eq!(key, format!("x/{}{name}", kind.prefix()));
        assert_eq!(bucket.path_of(key), None);
    }
    assert_eq!(
        keys[2].0.as_ref().unwrap().as_str(),
        "x/.upslot/revoked/Q_7dsld2o0PGmDXH553Cx_WVmKY"
    );
    for key in [
        "x/.upslot/secret",
        "x/.upslot/other/a",
        "x/a/b",
        ".upslot/aliases/a",
        "x/.upslotaliases/a",
        "x/.upslot/revoked/../../a",
        "x/.upslot/revoked/..",
        "x/.upslot/revoked/",
    ] {
        assert_eq!(bucket.internal_of(key), None, "{key}");
    }
    for (owner, prefix) in [
        (&b"abc"[..], Some("abc/")),
        (b"", None),
        (b".upslot", None),
        (b"a/b", None),
        (b"\xff", None),
    ] {
        assert_eq!(Bucket::owner_prefix(owner).as_deref(), prefix);
    }
}

#[test]
fn requests_are_signed_for_the_internal_endpoint() {
    let mut bucket = Bucket::new(&store("", true));
    bucket.set_date(now());
    let key = bucket.key(&path("a/b/ä ö.png")).unwrap();
    let png = Shown {
        content_type: "image/png",
        disposition: "inline; filename=\"_.png\"",
        ..Shown::default()
    };
    let requests = [
        bucket.head(&key, now()),
        bucket.get(&key, None, now()),
        bucket.get(&key, Some(5..10), now()),
        bucket.put(&key, 10, &png, true, now()),
        bucket.put_whole(&key, b"whole", &png, true, now()),
        bucket.put_small(&key, b"body", now()),
        bucket.delete(&key, now()),
    ];
    for request in &requests {
        let head = text(request);
        let target = format!("{} /uploads/a/b/%C3%A4%20%C3%B6.png?X-Amz-", request.method);
        assert!(head.starts_with(&target), "{head}");
        for part in [
            "&X-Amz-Expires=900&X-Amz-SignedHeaders=host&X-Amz-Signature=",
            " HTTP/1.1\r\nHost: 10.0.0.1:3900\r\n",
            "\r\nConnection: keep-alive\r\n",
        ] {
            assert!(head.contains(part), "{head}");
        }
        // Stores refuse such fields unless they are signed.
        assert!(!head.contains("\r\nx-amz"));
        assert_eq!(request.idempotent, request.body_length == 0);
    }
    let [head, get, range, put, whole, small, delete] = &requests;
    for bare in [head, get, delete] {
        assert!(!text(bare).contains("Content-"));
    }
    assert!(text(range).contains("\r\nRange: bytes=5-9\r\n"));
    let fields = "\r\nContent-Type: image/png\r\nIf-None-Match: *\r\n\
                  Content-Disposition: inline; filename=\"_.png\"\r\n";
    let of = |length, expect| format!("\r\nContent-Length: {length}{fields}{expect}");
    assert!(text(put).ends_with(&of(10, "Expect: 100-continue\r\n")));
    assert!(put.body_length == 10 && put.bytes.ends_with(b"\r\n\r\n"));
    assert!(text(whole).ends_with(&of(5, "")) && whole.bytes.ends_with(b"\r\n\r\nwhole"));
    assert!(text(small).contains("\r\nContent-Length: 4\r\n"));
    assert!(small.bytes.ends_with(b"\r\n\r\nbody"));
    for content_type in ["a\r\nb", ""] {
        let shown = Shown {
            content_type,
            ..Shown::default()
        };
        let head = text(&bucket.put(&key, 10, &shown, false, now()));
        assert!(!head.contains("If-None-Match"), "{head}");
        assert!(!head.contains("Content-Disposition"), "{head}");
        let default = "\r\nContent-Type: application/octet-stream\r\n";
        assert!(head.contains(default), "{head}");
    }
}

#[test]
fn lists_name_the_bucket_and_the_prefix() {
    let bucket = Bucket::new(&store("pre fix/", true));
    let list = bucket.list("Q_7d/", Some("1/+=~ *é&%41"), 1000, now());
    let head = text(&list);
    assert!(head.starts_with("GET /uploads?"), "{head}");
    let part = "&continuation-token=1%2F%2B%3D~%20%2A%C3%A9%26%2541&encoding-type=url&list-type=2&max-keys=1000\
                &prefix=pre%20fix%2FQ_7d%2F&X-Amz-Signature=";
    assert!(head.contains(part), "{head}");
    let hosted = Bucket::new(&store("", false));
    let head = text(&hosted.list("", None, 1, now()));
    assert!(head.starts_with("GET /?X-Amz-"), "{head}");
    assert!(head.contains("&list-type=2&max-keys=1&prefix=&X-Amz-Signature="));
    assert!(head.contains("\r\nHost: uploads.10.0.0.1:3900\r\n"));
    let notes = text(&bucket.list_notes(now()));
    let part = "&encoding-type=url&list-type=2&max-keys=50&prefix=pre%20fix%2F.upslot%2F\
                &start-after=pre%20fix%2F.upslot%2Fq&X-Amz-Signature=";
    assert!(notes.contains(part), "{notes}");
    let after = [INTERNAL, BEFORE_NOTES].concat();
    for kind in Internal::ALL {
        assert_eq!(kind.prefix() > after, kind != Internal::Aliases, "{kind:?}");
    }
}
