//! Which object store answers, and the command that its operator needs there. It uses no socket, no file and no clock.

use crate::config::ObjectStore;
use crate::http::client::Response;

/// What a web client needs: uploads and downloads from any origin. Browsers follow redirects to another origin with
/// `Origin: null`, so a list of origins would not do.
const CORS_RULES: &str = r#"{"CORSRules":[{"AllowedOrigins":["*"],"AllowedMethods":["GET","HEAD","PUT"],"AllowedHeaders":["content-type"],"MaxAgeSeconds":7200}]}"#;

/// The engines that can be told apart by their answers. Garage has no sign of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    Aws,
    Ceph,
    SeaweedFs,
    Other,
}

impl Engine {
    /// The engine that gave a response.
    pub fn of(response: &Response) -> Engine {
        let server = response.field("server").unwrap_or_default();
        let request = response.field("x-amz-request-id").unwrap_or_default();
        match server {
            "AmazonS3" => Engine::Aws,
            _ if server.starts_with("SeaweedFS") => Engine::SeaweedFs,
            _ if server.starts_with("Ceph") => Engine::Ceph,
            // Older versions have no name, but their requests do: `tx`, a number, and the zone.
            _ if request.starts_with("tx") && request.contains('-') => Engine::Ceph,
            _ => Engine::Other,
        }
    }

    /// Who may change the configuration of a bucket.
    fn administrator(self) -> &'static str {
        match self {
            Engine::Aws => "an administrator of the account",
            Engine::Ceph => "the user who owns the bucket",
            Engine::SeaweedFs => "an identity with the action Admin",
            Engine::Other => {
                "an administrator of the bucket (Garage: a key with the right --owner)"
            }
        }
    }

    /// How to allow web clients to use a bucket.
    pub fn cors_remedy(self, store: &ObjectStore) -> String {
        let ObjectStore { region, bucket, .. } = store;
        let mut aws = "aws".to_owned();
        if self != Engine::Aws {
            // That this host reaches.
            aws += &format!(" --endpoint-url {}", store.internal_endpoint);
        }
        if let Some(path) = &store.ca_file {
            aws += &format!(" --ca-bundle '{}'", path.display());
        }
        format!(
            "as {}, run: {aws} --region {region} s3api put-bucket-cors --bucket {bucket} --cors-configuration \
             '{CORS_RULES}'; or set allow_web_clients: false",
            self.administrator()
        )
    }

    /// What makes the engine read buckets from host names below this one.
    pub fn host_setting(self) -> &'static str {
        match self {
            Engine::Ceph => "rgw_dns_name",
            Engine::SeaweedFs => "-s3.domainName",
            Engine::Aws | Engine::Other => "its own setting (Garage: root_domain in s3_api)",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(fields: &str) -> Response {
        let head = format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\n");
        Response::of_head(head.as_bytes()).unwrap()
    }

    #[test]
    fn engines_are_recognised() {
        for (fields, engine) in [
            ("Server: AmazonS3\r\nx-amz-request-id: 4B4", Engine::Aws),
            ("Server: SeaweedFS 8000GB 4.48", Engine::SeaweedFs),
            ("Server: Ceph Object Gateway (reef)", Engine::Ceph),
            (
                "x-amz-request-id: tx00000936541506bb37580-006b0b179b-1018-default",
                Engine::Ceph,
            ),
            ("Server: nginx\r\nx-amz-request-id: 18EC", Engine::Other),
            ("Server: nginx", Engine::Other),
        ] {
            assert_eq!(Engine::of(&response(fields)), engine, "{fields}");
        }
    }
}
