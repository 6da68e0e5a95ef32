use super::*;
use crate::now::unix;

const NAMESPACE: &str = "xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"";

fn contents(key: &str, size: &str, time: &str) -> String {
    format!(
        "<Contents><Key>{key}</Key><LastModified>{time}</LastModified><ETag>&quot;0&quot;</ETag><Size>{size}</Size>\
         <Owner><ID>1</ID><DisplayName>x</DisplayName></Owner><StorageClass>STANDARD</StorageClass></Contents>"
    )
}

fn page(contents: &str, rest: &str) -> String {
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<ListBucketResult {NAMESPACE}><Name>uploads</Name><Prefix>a%2F</Prefix>\
         <KeyCount>1</KeyCount><MaxKeys>1000</MaxKeys><EncodingType>url</EncodingType>{rest}{contents}</ListBucketResult>"
    )
}

/// Reads a page in steps of this size.
fn read(body: &[u8], step: usize) -> Result<ObjectPage, InvalidXml> {
    let mut reader = PageReader::new(body.to_vec())?;
    while !reader.go_on(step)? {}
    reader.finish(Some("t0"))
}

fn parse(text: &str) -> Result<ObjectPage, InvalidXml> {
    let page = read(text.as_bytes(), MAX_OBJECTS);
    assert_eq!(read(text.as_bytes(), 1), page, "{text}");
    page
}

const TIME: &str = "2026-11-28T14:12:03.000Z";

#[test]
fn pages_of_all_stores_are_read() {
    let first = contents("a%2Fb/%C3%A4+%2B~.png", "10240", TIME);
    let second = contents("b", "0", "1970-01-01T00:00:00Z");
    let next =
        "<IsTruncated>true</IsTruncated><NextContinuationToken>a&amp;b/+=</NextContinuationToken>";
    let found = parse(&page(&(first.clone() + &second), next)).unwrap();
    let keys: Vec<_> = found
        .objects
        .iter()
        .map(|o| (o.key.as_str(), o.size, unix(o.modified)))
        .collect();
    assert_eq!(keys, [("a/b/ä +~.png", 10_240, 1_795_875_123), ("b", 0, 0)]);
    assert_eq!(found.next.as_deref(), Some("a&b/+="));
    // In another order, with a prefix, with white space, with the encoding last, and without it.
    let other = format!(
        "<s:ListBucketResult xmlns:s=\"x\">\n <s:Contents>\n<s:Size> 10240 </s:Size> <s:Key>a/b/ä<![CDATA[ +]]>~.png</s:Key>\
         <s:LastModified>{TIME}</s:LastModified></s:Contents>\n<s:IsTruncated>false</s:IsTruncated>\n</s:ListBucketResult>\n<!-- -->"
    );
    let other = parse(&other).unwrap();
    assert_eq!(other.objects[..], found.objects[..1]);
    assert_eq!(other.next, None);
    let last =
        format!("<ListBucketResult>{first}<EncodingType>url</EncodingType></ListBucketResult>");
    assert_eq!(parse(&last).unwrap().objects, other.objects);
    let empty = parse("<ListBucketResult/>").unwrap();
    assert_eq!(empty, ObjectPage::default());
    // A token after the last page has no meaning.
    let token = "<IsTruncated>false</IsTruncated><NextContinuationToken>t0</NextContinuationToken>";
    assert_eq!(parse(&page("", token)).unwrap().next, None);
    let folders = "<CommonPrefixes><Prefix>a/</Prefix></CommonPrefixes>";
    assert_eq!(parse(&page(folders, "")).unwrap().objects, []);
}

#[test]
fn keys_that_are_no_files_are_skipped() {
    let long = "%C3%A4".repeat(512);
    let longer = long.clone() + "a";
    let keys = [&long, &longer, &"x".repeat(9000), "%FF", ""];
    let all: String = keys.iter().map(|key| contents(key, "1", TIME)).collect();
    let found = parse(&page(&all, "")).unwrap();
    assert_eq!((found.objects.len(), found.skipped), (1, 4));
    assert_eq!(found.objects[0].key.len(), MAX_KEY);
}

#[test]
fn times_are_civil() {
    for (text, seconds) in [
        ("2026-11-28T14:12:03Z", Some(1_795_875_123)),
        ("2026-11-28T14:12:03.123456789Z", Some(1_795_875_123)),
        ("2000-02-29T00:00:00.0Z", Some(951_782_400)),
        ("2026-11-28T14:12:03", None),
        ("2026-11-28T14:12:03+01:00", None),
        ("2026-11-28T14:12:03x000Z", None),
        ("2026-11-28T14:12:03.-1Z", None),
        ("2026-11-28 14:12:03Z", None),
        ("2026-13-28T14:12:03Z", None),
        ("+026-11-28T14:12:03Z", None),
        ("1969-12-31T23:59:59Z", None),
        ("2026-11-28T14:12:0äZ", None),
        ("äääääääääääääZ", None),
        ("Z", None),
        ("", None),
    ] {
        assert_eq!(parse_time(text).map(unix), seconds, "{text}");
    }
}

#[test]
fn garbage_is_an_error() {
    let object = contents("a", "1", TIME);
    let whole = page(&object, "<IsTruncated>false</IsTruncated>");
    assert!(parse(&whole).is_ok());
    for end in 0..whole.len() {
        assert!(parse(&whole[..end]).is_err(), "{}", &whole[..end]);
    }
    let truncated = "<IsTruncated>true</IsTruncated>";
    for text in [
        String::new(),
        "{}".to_owned(),
        "<html><body>busy</body></html>".to_owned(),
        "<Error><Code>InternalError</Code></Error>".to_owned(),
        "<!DOCTYPE x [<!ENTITY a \"b\">]><ListBucketResult/>".to_owned(),
        "<ListBucketResult/><ListBucketResult/>".to_owned(),
        "<ListBucketResult/>x".to_owned(),
        page(&contents("a&unknown;", "1", TIME), ""),
        page(&contents("a", "-1", TIME), ""),
        page(&contents("a", "18446744073709551616", TIME), ""),
        page(&contents("a", "18446744073709551615", TIME), ""),
        page(&contents("a", "1", "today"), ""),
        page("<Contents><Key>a</Key><Size>1</Size></Contents>", ""),
        // The parts of one object are not those of another.
        page(
            "<Contents><Key>a</Key></Contents><Contents><Size>1</Size></Contents>",
            "",
        ),
        page(
            &format!(
                "<X><Key>a</Key></X><Contents><Size>1</Size><LastModified>{TIME}</LastModified></Contents>"
            ),
            "",
        ),
        page("", "<IsTruncated>yes</IsTruncated>"),
        page("", truncated),
        page("", &format!("{truncated}<NextContinuationToken/>")),
        // The token that led to this page.
        page(
            "",
            &format!("{truncated}<NextContinuationToken>t0</NextContinuationToken>"),
        ),
        page(
            "",
            &format!(
                "{truncated}<NextContinuationToken>{}</NextContinuationToken>",
                "x".repeat(9000)
            ),
        ),
        page(&object.repeat(MAX_OBJECTS + 1), ""),
        page(&("<a>".repeat(100) + &"</a>".repeat(100)), ""),
    ] {
        assert!(parse(&text).is_err(), "{text}");
    }
    assert!(read(b"<ListBucketResult>\xff</ListBucketResult>", 1).is_err());
}
