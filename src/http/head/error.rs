//! Why a request head is rejected, and the size limits it has to keep.

use std::fmt;

/// Longest head in bytes, including the empty line that ends it.
pub const MAX_HEAD: usize = 32 * 1024;
/// Most fields in a head.
pub const MAX_FIELDS: usize = 100;
/// Longest request target in bytes.
pub const MAX_TARGET: usize = 8 * 1024;

/// Why a head is rejected. Its `Display` is one sentence. The connection ends after every one of these errors, because
/// the start of the next request is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadError {
    /// Not HTTP, or ambiguous; with the sentence that explains it.
    Malformed(&'static str),
    /// Well-formed, but neither HTTP/1.0 nor HTTP/1.1.
    Version,
    /// A method longer than any that is registered.
    MethodTooLong,
    /// A transfer coding other than `chunked`.
    TransferCoding,
    /// The target has more than [`MAX_TARGET`] bytes.
    TargetTooLong,
    /// The head has more than [`MAX_HEAD`] bytes.
    TooLarge,
    /// The head has more than [`MAX_FIELDS`] fields.
    TooManyFields,
}

impl HeadError {
    /// The HTTP status of the response.
    pub fn status(&self) -> u16 {
        match self {
            HeadError::Malformed(_) => 400,
            HeadError::TargetTooLong => 414,
            HeadError::TooLarge | HeadError::TooManyFields => 431,
            HeadError::MethodTooLong | HeadError::TransferCoding => 501,
            HeadError::Version => 505,
        }
    }
}

impl fmt::Display for HeadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HeadError::Malformed(sentence) => f.write_str(sentence),
            HeadError::Version => f.write_str("Only HTTP/1.1 and HTTP/1.0 are supported."),
            HeadError::MethodTooLong => {
                f.write_str("The method name is longer than that of any HTTP method.")
            }
            HeadError::TransferCoding => {
                f.write_str("The only supported transfer coding is chunked.")
            }
            HeadError::TargetTooLong => {
                write!(f, "The request target is longer than {MAX_TARGET} bytes.")
            }
            HeadError::TooLarge => write!(f, "The request head is larger than {MAX_HEAD} bytes."),
            HeadError::TooManyFields => {
                write!(f, "The request head has more than {MAX_FIELDS} fields.")
            }
        }
    }
}

impl std::error::Error for HeadError {}

/// Every kind of malformed head.
impl HeadError {
    pub(super) const BARE_CR: HeadError =
        HeadError::Malformed("The request head contains a CR that is not followed by LF.");
    pub(super) const BARE_LF: HeadError =
        HeadError::Malformed("A line of the request head ends with LF instead of CRLF.");
    pub(super) const CONTROL: HeadError =
        HeadError::Malformed("The request head contains a control character.");
    pub(super) const NO_METHOD: HeadError =
        HeadError::Malformed("This is not an HTTP request: it does not start with a method.");
    pub(super) const TLS: HeadError = HeadError::Malformed(
        "This port speaks plain HTTP, but the client speaks TLS: set http_certfile and http_keyfile, or let the proxy \
         connect with http://.",
    );
    pub(super) const XMPP: HeadError =
        HeadError::Malformed("This port speaks HTTP, but the client speaks XMPP.");
    pub(super) const PROXY: HeadError = HeadError::Malformed(
        "The PROXY protocol is not supported: let the proxy send X-Forwarded-For instead.",
    );
    pub(super) const NO_END: HeadError =
        HeadError::Malformed("The request head does not end with an empty line.");
    pub(super) const REQUEST_LINE: HeadError = HeadError::Malformed(
        "The request line is not a method, a target and a version, separated by single spaces.",
    );
    pub(super) const VERSION: HeadError =
        HeadError::Malformed("The request line does not end with an HTTP version.");
    pub(super) const TARGET: HeadError = HeadError::Malformed("The request target is malformed.");
    pub(super) const TARGET_TEXT: HeadError =
        HeadError::Malformed("The request target is not valid UTF-8.");
    pub(super) const FOLD: HeadError =
        HeadError::Malformed("A header field is folded over several lines.");
    pub(super) const FIELD_NAME: HeadError = HeadError::Malformed(
        "The name of a header field is empty or contains an invalid character.",
    );
    pub(super) const NO_HOST: HeadError = HeadError::Malformed("The Host field is missing.");
    pub(super) const HOSTS: HeadError = HeadError::Malformed("There is more than one Host field.");
    pub(super) const HOST: HeadError =
        HeadError::Malformed("The Host field does not contain a valid host.");
    pub(super) const LENGTH: HeadError =
        HeadError::Malformed("The Content-Length field is not a number of bytes.");
    pub(super) const LENGTHS: HeadError =
        HeadError::Malformed("There is more than one Content-Length field.");
    pub(super) const TWO_FRAMINGS: HeadError =
        HeadError::Malformed("The request has both Content-Length and Transfer-Encoding.");
    pub(super) const CODING_IN_1_0: HeadError =
        HeadError::Malformed("HTTP/1.0 has no Transfer-Encoding.");
    pub(super) const CODINGS: HeadError = HeadError::Malformed(
        "The Transfer-Encoding field does not end with a single chunked coding without parameters.",
    );
}
