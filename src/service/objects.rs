//! URLs of the object store that holds the files: where slots lead, and where downloads are redirected to.

use crate::config::object_store::{GetMode, ObjectStore, PutMode};
use crate::expiry::hard_end;
use crate::http::disposition;
use crate::http::head::{Method, RequestHead};
use crate::http::response::{self, Answer};
use crate::layout::StorePath;
use crate::now::{Now, unix};
use crate::s3::bucket::{Bucket, Shown};
use crate::service::{Service, StoredFile};
use crate::slot::own::Terms;

/// The object store, and how it is used.
#[derive(Debug)]
pub(super) struct Objects {
    pub bucket: Bucket,
    put: PutMode,
    get: GetMode,
}

impl Objects {
    pub fn boxed(config: &ObjectStore) -> Box<Objects> {
        Box::new(Objects {
            bucket: Bucket::new(config),
            put: config.put,
            get: config.get,
        })
    }
}

impl Service {
    /// The bucket that holds the files, if they are not in a folder.
    pub fn bucket(&self) -> Option<&Bucket> {
        self.objects.as_ref().map(|objects| &objects.bucket)
    }

    /// Whether uploads bypass upslot.
    pub fn is_direct(&self) -> bool {
        let objects = self.objects.as_ref();
        objects.is_some_and(|objects| objects.put == PutMode::Direct)
    }

    /// How downloads pass the object store.
    pub fn get_mode(&self) -> Option<GetMode> {
        self.objects.as_ref().map(|objects| objects.get)
    }

    /// The presigned PUT URL of a slot, if uploads bypass upslot. `None` also if the path is no key of an object.
    pub(super) fn direct_put(
        &self,
        path: &StorePath,
        terms: &Terms<'_>,
        now: Now,
    ) -> Option<String> {
        let objects = self.objects.as_ref()?;
        if !self.is_direct() {
            return None;
        }
        let (size, lifetime) = (terms.size, self.schemes.put_timeout);
        let bucket = &objects.bucket;
        bucket.put_url(path, size, terms.content_type, lifetime, now)
    }

    /// The public URL of an object, if downloads bypass upslot.
    pub(super) fn public_get(&self, path: &StorePath) -> Option<String> {
        let objects = self.objects.as_ref()?;
        match objects.get {
            GetMode::Public => objects.bucket.public_url(path),
            GetMode::Redirect | GetMode::Relay => None,
        }
    }

    /// The media type and the disposition that are stored with an object. They are the ones to be served, because not every
    /// download can ask for others: a public one, or a range from a store that heeds the wish only for whole objects.
    pub fn kept_with(&self, path: &StorePath, content_type: Option<&str>) -> (String, String) {
        let (content_type, inline) = self.shown_as(path, content_type);
        (
            content_type.to_owned(),
            disposition::value(inline, path.name()),
        )
    }

    /// The response to GET and HEAD of an object that the client gets from the store itself. The store is told to send the
    /// fields that upslot would send, as far as it can.
    pub fn redirect(
        &self,
        request: &RequestHead,
        path: &StorePath,
        file: &StoredFile,
        now: Now,
    ) -> Answer {
        if let Some(url) = self.public_get(path) {
            return self.common.redirect(&url, Bucket::url_lifetime(now), true);
        }
        let (content_type, inline) = self.shown_as(path, file.content_type.as_deref());
        let expires_at = self.lifetime.end(path.tag(), file.stored.min(now.wall));
        // The URL stays the same for a while, in which the file's life gets shorter.
        let latest = Bucket::same_url_until(now);
        let shown = Shown {
            content_type,
            disposition: &disposition::value(inline, path.name()),
            cache_control: &response::cache_control(expires_at, latest),
        };
        // No URL of earlier must lead to a file that has expired.
        let until = hard_end(path.tag()).map_or(u64::MAX, unix);
        let method = match request.method() {
            Method::Head => "HEAD",
            _ => "GET",
        };
        let url = self
            .bucket()
            .and_then(|bucket| bucket.get_url(path, method, &shown, until, now));
        let Some(url) = url else {
            return self.not_found();
        };
        let left = until.saturating_sub(now.unix());
        let lifetime = Bucket::url_lifetime(now).min(left);
        self.common.redirect(&url, lifetime, false)
    }
}
