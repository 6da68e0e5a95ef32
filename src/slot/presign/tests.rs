use super::*;

const ACCESS_KEY: &str = "AKIAIOSFODNN7EXAMPLE";
const SECRET_KEY: &[u8] = b"wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";

/// 2026-11-28T14:12:03Z.
const TIME: u64 = 1_795_875_123;

/// Signs with a key of the right day, and with that of another one.
#[track_caller]
fn sign(region: &str, request: Unsigned<'_>) -> String {
    let mut presigner = Presigner::new(ACCESS_KEY, SECRET_KEY, region);
    let mut urls = [request.time, request.time + DAY].map(|date| {
        presigner.set_date(date);
        let mut url = "https://".to_owned() + request.host + request.path;
        presigner.sign(&request, &mut url);
        url
    });
    assert_eq!(urls[0], urls[1]);
    std::mem::take(&mut urls[0])
}

#[track_caller]
fn check(region: &str, request: Unsigned<'_>, date: &str, signed: &str, signature: &str) {
    let url = sign(region, request);
    let lifetime = request.lifetime;
    let own = format!(
        "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential={ACCESS_KEY}%2F{}%2F{region}%2Fs3%2Faws4_request\
         &X-Amz-Date={date}&X-Amz-Expires={lifetime}&X-Amz-SignedHeaders={signed}",
        &date[..8]
    );
    assert!(url.contains(&own), "{url}");
    let end = format!("&X-Amz-Signature={signature}");
    assert!(url.ends_with(&end), "{url}");
}

#[test]
fn the_published_example_has_its_signature() {
    let url = sign(
        "us-east-1",
        Unsigned {
            method: "GET",
            host: "examplebucket.s3.amazonaws.com",
            path: "/test.txt",
            query: &[],
            fields: &[],
            time: 1_369_353_600,
            lifetime: 86_400,
        },
    );
    assert_eq!(
        url,
        "https://examplebucket.s3.amazonaws.com/test.txt?X-Amz-Algorithm=AWS4-HMAC-SHA256\
         &X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2Faws4_request\
         &X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host\
         &X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404"
    );
}

/// The signatures are those of botocore 1.44.
#[test]
fn others_sign_alike() {
    let base = Unsigned {
        method: "GET",
        host: "s3.example.org",
        path: "/uploads/a/b/c",
        query: &[],
        fields: &[],
        time: TIME,
        lifetime: 900,
    };
    check(
        "garage",
        Unsigned {
            method: "PUT",
            host: "s3.example.org:8443",
            path: "/uploads/a/b~1f~m/tr%C3%A8s%20cool%2B~%25%3D%26.jpg",
            fields: &[("content-type", "image/jpeg"), ("content-length", "10240")],
            lifetime: 360,
            ..base
        },
        "20261128T141203Z",
        "content-length%3Bcontent-type%3Bhost",
        "c9b2bd040f42ee786320302c327c5ac99424069db805d326184e194f613c0953",
    );
    check(
        "eu-central-1",
        Unsigned {
            method: "PUT",
            fields: &[
                ("content-type", " text/plain;  charset=utf-8 "),
                ("content-length", "1"),
            ],
            lifetime: 1,
            ..base
        },
        "20261128T141203Z",
        "content-length%3Bcontent-type%3Bhost",
        "698e0cdbc92384a1f36174753a3d43470efb3c89272aa6897691937454f79bf5",
    );
    check(
        "us-east-1",
        Unsigned {
            method: "HEAD",
            path: "/uploads/%F0%9F%98%80/%27%28%29%2A%21%2C%3B%3A%40%24",
            time: 951_782_399,
            lifetime: MAX_LIFETIME,
            ..base
        },
        "20000228T235959Z",
        "host",
        "64bd1ae9f785a65a3ae732463bb419f36d6dc22bd2a500880b4741a58e9aa036",
    );
}

/// As above; the parameters are sorted by name, not by the text with the `=`.
#[test]
fn parameters_are_encoded_and_sorted() {
    let base = Unsigned {
        method: "GET",
        host: "uploads.s3.example.org",
        path: "/a/b/c",
        query: &[
            ("response-content-type", "image/png"),
            (
                "response-content-disposition",
                "attachment; filename=\"a+b _.png\"; filename*=UTF-8''a%2Bb%20%C3%A4.png",
            ),
            (
                "response-cache-control",
                "private, max-age=31536000, immutable",
            ),
        ],
        fields: &[],
        time: 1_795_875_300,
        lifetime: 1800,
    };
    check(
        "us-east-1",
        base,
        "20261128T141500Z",
        "host&response-cache-control=private%2C%20max-age%3D31536000%2C%20immutable\
         &response-content-disposition=attachment%3B%20filename%3D%22a%2Bb%20_.png%22%3B%20\
         filename%2A%3DUTF-8%27%27a%252Bb%2520%25C3%25A4.png&response-content-type=image%2Fpng",
        "40829da930f54980d77a9bf16fff22a2e07f22f7f3fe36a0a90aece5920c2215",
    );
    let listing = Unsigned {
        host: "[::1]:3900",
        path: "/uploads",
        query: &[
            ("list-type", "2"),
            ("prefix", "pre fix/Q_7dsld2o0PGmDXH553Cx_WVmKY/"),
            ("max-keys", "1000"),
            ("encoding-type", "url"),
            ("continuation-token", "1/+=~ *é&%41"),
        ],
        time: TIME,
        lifetime: 900,
        ..base
    };
    check(
        "garage",
        listing,
        "20261128T141203Z",
        "host&continuation-token=1%2F%2B%3D~%20%2A%C3%A9%26%2541&encoding-type=url&list-type=2&max-keys=1000\
         &prefix=pre%20fix%2FQ_7dsld2o0PGmDXH553Cx_WVmKY%2F",
        "760d078ca4c1653158c5dc68ef1cf336c2376ac3ed9b2448ad8a718624ee36ed",
    );
    check(
        "x",
        Unsigned {
            method: "DELETE",
            host: "s3.example.org",
            path: "/b/.upslot/tombstones/x",
            query: &[("a-b", "1"), ("a", "2"), ("Z", "")],
            fields: &[("x-amz-acl", "private"), ("range", "bytes=0-9"), ("a", "b")],
            time: 4_107_542_400,
            lifetime: 900,
        },
        "21000301T000000Z",
        "a%3Bhost%3Brange%3Bx-amz-acl&Z=&a=2&a-b=1",
        "3a3c44368535a43b7f86189cbb7901e1c6a9e09c94155fec297f88e7363e84c5",
    );
}

#[test]
fn no_time_is_too_large() {
    let request = Unsigned {
        method: "GET",
        host: "h",
        path: "/",
        query: &[],
        fields: &[],
        time: u64::MAX - DAY,
        lifetime: u64::MAX,
    };
    let url = sign("r", request);
    assert!(
        url.contains("&X-Amz-Expires=18446744073709551615&"),
        "{url}"
    );
    assert!(!format!("{:?}", Presigner::new("a", b"secret", "r")).contains("secret"));
}

/// What is the same for a whole day is encoded as well. The signature is that of an implementation in another language.
#[test]
fn the_credential_is_encoded() {
    let presigner = Presigner::new("romeo+montague/1", SECRET_KEY, "eu west");
    let request = Unsigned {
        method: "PUT",
        host: "s3.example.org",
        path: "/uploads/a/b/c",
        query: &[],
        fields: &[("content-length", "1")],
        time: 1_795_824_000,
        lifetime: 360,
    };
    let mut url = String::new();
    presigner.sign(&request, &mut url);
    assert_eq!(
        url,
        "?X-Amz-Algorithm=AWS4-HMAC-SHA256\
         &X-Amz-Credential=romeo%2Bmontague%2F1%2F20261128%2Feu%20west%2Fs3%2Faws4_request\
         &X-Amz-Date=20261128T000000Z&X-Amz-Expires=360&X-Amz-SignedHeaders=content-length%3Bhost\
         &X-Amz-Signature=22c01e1545b5aa5cb2f3a5aa70994f1192e8469ef9ee1e660306a66df51a6f57"
    );
}

/// The key of a day never signs for another one, and the last second of a day belongs to it.
#[test]
fn a_day_ends_at_midnight() {
    let midnight = 1_795_824_000;
    let sign = |presigner: &Presigner, time| {
        let request = Unsigned {
            method: "GET",
            host: "s3.example.org",
            path: "/uploads/a/b/c",
            query: &[],
            fields: &[],
            time,
            lifetime: 900,
        };
        let mut url = String::new();
        presigner.sign(&request, &mut url);
        url
    };
    let mut presigner = Presigner::new(ACCESS_KEY, SECRET_KEY, "us-east-1");
    let mut last = String::new();
    for time in midnight - 2..midnight + 2 {
        let before = sign(&presigner, time);
        presigner.set_date(time);
        let after = sign(&presigner, time);
        assert_eq!(before, after);
        assert_ne!(after, last);
        let day = if time < midnight {
            "20261127"
        } else {
            "20261128"
        };
        assert!(
            after.contains(&format!("%2F{day}%2Fus-east-1%2F")),
            "{after}"
        );
        assert!(after.contains(&format!("&X-Amz-Date={day}T")), "{after}");
        last = after;
    }
}
