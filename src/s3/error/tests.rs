use std::time::UNIX_EPOCH;

use super::*;

fn of(status: u16, fields: &[(&str, &str)], body: &str) -> StoreFailure {
    let fields = fields.iter();
    let fields: Vec<(String, String)> = fields
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    // 2026-11-28T14:12:03Z.
    let now = UNIX_EPOCH + Duration::from_secs(1_795_875_123);
    StoreFailure::of(status, &fields, body.as_bytes(), now)
}

#[track_caller]
fn check(status: u16, body: &str, kind: FailureKind) {
    let failure = of(status, &[], body);
    assert_eq!(failure.kind, kind, "{failure}");
    let has_code = body.contains("<Code>");
    assert_eq!(!failure.code.is_empty(), has_code, "{failure}");
}

/// An error as the stores write it.
fn document(code: &str, rest: &str) -> String {
    format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code>{rest}</Error>")
}

#[test]
fn answers_of_ceph_are_understood() {
    let rest = "<BucketName>uploads</BucketName><RequestId>tx0</RequestId><HostId>1-default-default</HostId>";
    for (status, code, kind) in [
        (403, "SignatureDoesNotMatch", FailureKind::BadSignature),
        (403, "InvalidAccessKeyId", FailureKind::UnknownAccessKey),
        (403, "AccessDenied", FailureKind::Denied),
        (403, "RequestTimeTooSkewed", FailureKind::Skewed),
        (403, "QuotaExceeded", FailureKind::Full),
        (404, "NoSuchBucket", FailureKind::NoBucket),
        (404, "NoSuchKey", FailureKind::NotFound),
        (412, "PreconditionFailed", FailureKind::Exists),
        (503, "SlowDown", FailureKind::SlowDown),
        (503, "ServiceUnavailable", FailureKind::Unavailable),
        (500, "UnknownError", FailureKind::Unavailable),
        (400, "EntityTooLarge", FailureKind::Full),
        (400, "InvalidArgument", FailureKind::Malformed),
        (405, "MethodNotAllowed", FailureKind::Malformed),
    ] {
        check(status, &document(code, rest), kind);
    }
}

#[test]
fn answers_of_garage_are_understood() {
    for (status, code, message, kind) in [
        (
            403,
            "AccessDenied",
            "Forbidden: Invalid signature",
            FailureKind::BadSignature,
        ),
        (
            403,
            "AccessDenied",
            "Forbidden: No such key: GK1",
            FailureKind::UnknownAccessKey,
        ),
        (
            403,
            "AccessDenied",
            "Forbidden: Operation is not allowed for this key.",
            FailureKind::Denied,
        ),
        (
            403,
            "AccessDenied",
            "Forbidden: Bucket size quota is reached, maximum total size",
            FailureKind::Full,
        ),
        (
            403,
            "AccessDenied",
            "Forbidden: Object quota is reached, maximum objects",
            FailureKind::Full,
        ),
        (
            404,
            "NoSuchBucket",
            "Bucket not found: uploads",
            FailureKind::NoBucket,
        ),
        (404, "NoSuchKey", "Key not found", FailureKind::NotFound),
        (
            503,
            "ServiceUnavailable",
            "Internal error: Could not reach quorum of 2",
            FailureKind::Unavailable,
        ),
        (
            500,
            "InternalError",
            "Internal error: x",
            FailureKind::Unavailable,
        ),
        (
            400,
            "InvalidRequest",
            "Bad request: Invalid date",
            FailureKind::Malformed,
        ),
        (
            501,
            "NotImplemented",
            "Unimplemented action: x",
            FailureKind::Malformed,
        ),
        (
            400,
            "AuthorizationHeaderMalformed",
            "Authorization header malformed, unexpected scope: 20261128/us-east-1/s3/aws4_request",
            FailureKind::WrongRegion("garage".to_owned()),
        ),
    ] {
        // Garage names its region in every error.
        let rest = format!(
            "<Message>{message}</Message><Resource>/uploads/a</Resource><Region>garage</Region>"
        );
        check(status, &document(code, &rest), kind);
    }
}

#[test]
fn answers_of_aws_and_seaweedfs_are_understood() {
    let aws = "<Message>The authorization header is malformed; the region 'us-east-1' is wrong; expecting \
               'eu-central-1'</Message><Region>eu-central-1</Region><RequestId>1</RequestId>";
    let frankfurt = || FailureKind::WrongRegion("eu-central-1".to_owned());
    check(
        400,
        &document("AuthorizationHeaderMalformed", aws),
        frankfurt(),
    );
    check(
        400,
        &document("AuthorizationQueryParametersError", aws),
        frankfurt(),
    );
    let week = "<Message>X-Amz-Expires must be less than a week (in seconds)</Message>";
    check(
        400,
        &document("AuthorizationQueryParametersError", week),
        FailureKind::Malformed,
    );
    for code in ["PermanentRedirect", "TemporaryRedirect"] {
        let moved = document(
            code,
            "<Endpoint>uploads.s3.eu-central-1.amazonaws.com</Endpoint>",
        );
        let failure = of(301, &[("x-amz-bucket-region", "eu-central-1")], &moved);
        assert_eq!(failure.kind, frankfurt());
        check(307, &moved, FailureKind::WrongRegion(String::new()));
    }
    // To HEAD.
    let failure = of(301, &[("x-amz-bucket-region", "eu-central-1")], "");
    assert_eq!(failure.kind, frankfurt());
    assert!(
        failure.to_string().contains("not eu-central-1"),
        "{failure}"
    );
    check(
        409,
        &document("ConditionalRequestConflict", ""),
        FailureKind::Exists,
    );
    check(
        400,
        &document("RequestTimeout", ""),
        FailureKind::Unavailable,
    );
    check(
        429,
        &document("ErrTooManyRequest", ""),
        FailureKind::SlowDown,
    );
    check(
        409,
        &document("ExistingObjectIsDirectory", ""),
        FailureKind::Exists,
    );
}

#[test]
fn answers_without_a_document_have_their_status() {
    for (status, kind) in [
        (400, FailureKind::Malformed),
        (401, FailureKind::Denied),
        (403, FailureKind::Denied),
        (404, FailureKind::NotFound),
        (412, FailureKind::Exists),
        (413, FailureKind::Full),
        (429, FailureKind::SlowDown),
        (500, FailureKind::Unavailable),
        (502, FailureKind::Unavailable),
        (503, FailureKind::Unavailable),
        (504, FailureKind::Unavailable),
        (507, FailureKind::Full),
        (204, FailureKind::Malformed),
        (0, FailureKind::Malformed),
    ] {
        for body in [
            "",
            "<html>NoSuchBucket</html>",
            "{\"error\": 1}",
            "<Error><Cod",
        ] {
            check(status, body, kind.clone());
        }
    }
    let login = of(302, &[("location", "https://login.example/?a")], "<html/>");
    assert_eq!(login.kind, FailureKind::Malformed);
    assert_eq!(login.message, "redirected to https://login.example/?a");
}

#[test]
fn a_wrong_clock_is_named() {
    let expired = document("AccessDenied", "<Message>Request has expired</Message>");
    for (date, kind, part) in [
        (
            "Sat, 28 Nov 2026 14:12:03 GMT",
            FailureKind::Denied,
            "Request has expired",
        ),
        (
            "Sat, 28 Nov 2026 14:27:02 GMT",
            FailureKind::Denied,
            "Request has expired",
        ),
        (
            "Sat, 28 Nov 2026 14:27:03 GMT",
            FailureKind::Skewed,
            "900 s behind the store's",
        ),
        (
            "Sat, 28 Nov 2026 13:12:03 GMT",
            FailureKind::Skewed,
            "3600 s ahead of the store's",
        ),
        ("yesterday", FailureKind::Denied, "Request has expired"),
    ] {
        let failure = of(403, &[("date", date)], &expired);
        assert_eq!(failure.kind, kind, "{date}");
        assert!(failure.message.contains(part), "{failure}");
    }
    let skewed = document("RequestTimeTooSkewed", "<Message>The difference</Message>");
    let failure = of(403, &[("date", "Sat, 28 Nov 2026 14:17:04 GMT")], &skewed);
    assert!(failure.message.contains("301 s behind"), "{failure}");
    // What has nothing to do with the time stays what it is.
    let missing = of(404, &[("date", "Sat, 28 Nov 2020 14:17:04 GMT")], "");
    assert_eq!(missing.kind, FailureKind::NotFound);
}

#[test]
fn what_the_store_says_is_bounded_and_escaped() {
    let rest = format!("<Message>a&#10;b{}</Message>", "é".repeat(9000));
    let failure = of(403, &[], &document(&"X".repeat(500), &rest));
    assert!(failure.code.len() <= MAX_CODE && failure.message.len() <= MAX_MESSAGE);
    let failure = of(403, &[], &document("A", "<Message>a&#10;b</Message>"));
    assert_eq!(failure.to_string(), "access denied, status 403, A, a\\nb");
}

#[test]
fn every_kind_has_a_remedy() {
    let kinds = [
        (FailureKind::NotFound, "meanwhile"),
        (FailureKind::Exists, "slot"),
        (FailureKind::Denied, "access key"),
        (FailureKind::BadSignature, "`secret_key`"),
        (FailureKind::UnknownAccessKey, "`access_key`"),
        (FailureKind::NoBucket, "`bucket`"),
        (FailureKind::Skewed, "clocks"),
        (FailureKind::WrongRegion(String::new()), "`region`"),
        (FailureKind::SlowDown, "rate"),
        (FailureKind::Full, "quota"),
        (FailureKind::Unavailable, "log"),
        (FailureKind::Malformed, "`endpoint`"),
        (FailureKind::Unreachable, "firewall"),
    ];
    for (kind, part) in kinds {
        let failure = StoreFailure {
            kind,
            ..StoreFailure::unreachable("")
        };
        let remedy = failure.remedy();
        assert!(remedy.contains(part) && remedy.ends_with('.'), "{remedy}");
        assert!(!failure.to_string().is_empty());
        let retryable = ["rate", "log", "firewall"].contains(&part);
        assert_eq!(failure.is_retryable(), retryable, "{failure}");
    }
}

#[test]
fn a_redirection_does_not_reveal_a_signature() {
    let location = "https://s3.example/b/k?X-Amz-Date=1&X-Amz-Signature=5ec2e7";
    let failure = of(301, &[("location", location)], "");
    assert_eq!(failure.message, "redirected to https://s3.example/b/k?");
    assert!(!format!("{failure} {failure:?}").contains("5ec2e7"));
}

#[test]
fn the_timeout_of_a_proxy_passes() {
    check(
        408,
        "<html>Request Timeout</html>",
        FailureKind::Unavailable,
    );
}
