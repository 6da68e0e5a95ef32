//! Answers of an object store: pages are bounded, and keys are what a store would have encoded; errors are bounded and can
//! be logged.

use std::time::{Duration, UNIX_EPOCH};

use upslot::s3::error::{FailureKind, StoreFailure};
use upslot::s3::listing::{MAX_OBJECTS, ObjectPage};

use super::{Choices, NOW, expand};

pub fn run(data: &[u8]) {
    let mut choices = Choices(data);
    let status = choices.number() % 600;
    let token = String::from_utf8_lossy(choices.until(b'\n')).into_owned();
    let bytes = expand(choices.rest());
    check_page(&bytes, &token);
    check_failure(&bytes, status, &token);
}

fn check_page(bytes: &[u8], token: &str) {
    let Ok(page) = ObjectPage::parse(bytes, Some(token)) else {
        return;
    };
    assert!(page.objects.len() <= MAX_OBJECTS);
    assert!(page.next.as_deref() != Some(token) && page.next.as_deref() != Some(""));
    let mut written = String::from("<ListBucketResult><EncodingType>url</EncodingType>");
    for object in &page.objects {
        assert!((1..=1024).contains(&object.key.len()));
        let key = upslot::layout::encode_segment(object.key.as_bytes());
        let time = upslot::now::date_time(object.modified);
        let size = object.size;
        written += &format!(
            "<Contents><Key>{key}</Key><Size>{size}</Size><LastModified>{time}</LastModified></Contents>"
        );
    }
    written += "</ListBucketResult>";
    let again = ObjectPage::parse(written.as_bytes(), None).unwrap();
    assert_eq!(again.objects, page.objects);
}

fn check_failure(bytes: &[u8], status: u16, value: &str) {
    let now = UNIX_EPOCH + Duration::from_secs(NOW);
    let fields = ["date", "location", "x-amz-bucket-region"];
    let fields = fields.map(|name| (name.to_owned(), value.to_owned()));
    let failure = StoreFailure::of(status, &fields, bytes, now);
    assert!(failure.code.len() <= 64 && failure.message.len() <= 400);
    if let FailureKind::WrongRegion(region) = &failure.kind {
        assert!(region.len() <= 64, "{region}");
    }
    let text = failure.to_string();
    assert!(!text.chars().any(char::is_control), "{text:?}");
    assert!(failure.remedy().ends_with('.'));
}
