//! Which proxy answers, and what to change in its configuration.

use crate::http::client::Response;

/// The kind of a reverse proxy, as far as its responses tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Proxy {
    Nginx,
    Apache,
    Caddy,
    Haproxy,
    Cloudflare,
    /// Unknown, or no proxy at all.
    #[default]
    Other,
}

impl Proxy {
    /// The proxy that sent or passed on a response.
    pub fn of(response: &Response) -> Proxy {
        let server = response
            .field("server")
            .unwrap_or_default()
            .to_ascii_lowercase();
        let known = [
            ("nginx", Proxy::Nginx),
            ("openresty", Proxy::Nginx),
            ("apache", Proxy::Apache),
            ("caddy", Proxy::Caddy),
            ("cloudflare", Proxy::Cloudflare),
        ];
        let by_name = known.iter().find(|(name, _)| server.starts_with(name));
        if let Some((_, proxy)) = by_name {
            return *proxy;
        }
        // HAProxy does not name itself; its pages have this form.
        let page = response.body.starts_with(b"<html><body><h1>") && response.status >= 400;
        match page && server.is_empty() {
            true => Proxy::Haproxy,
            false => Proxy::Other,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Proxy::Nginx => "nginx",
            Proxy::Apache => "Apache",
            Proxy::Caddy => "Caddy",
            Proxy::Haproxy => "HAProxy",
            Proxy::Cloudflare => "Cloudflare",
            Proxy::Other => "the reverse proxy",
        }
    }
}

/// Whether upslot itself wrote a response with an error: one line of plain text that ends with a full stop.
pub fn is_from_upslot(response: &Response) -> bool {
    let plain = response
        .field("content-type")
        .is_some_and(|content_type| content_type.starts_with("text/plain"));
    let line = response.body.strip_suffix(b".\n");
    plain && line.is_some_and(|line| !line.contains(&b'\n') && !line.contains(&b'<'))
}

/// Remedies by problem: that for nginx, Apache, Caddy, HAProxy, and for all others.
struct Remedy {
    problem: &'static str,
    nginx: &'static str,
    apache: &'static str,
    caddy: &'static str,
    haproxy: &'static str,
    other: &'static str,
}

const BODY_LIMIT: Remedy = Remedy {
    problem: "body-limit",
    nginx: "client_max_body_size 0; in the server block (upslot enforces the limits itself)",
    apache: "remove the limit: LimitRequestBody 0, and no SecRequestBodyLimit of mod_security or RewriteRule about Content-Length",
    caddy: "remove max_size of request_body, or raise it",
    haproxy: "remove the rule that compares req.body_size or the Content-Length",
    other: "raise the body limit of the proxy (nginx: client_max_body_size 0; Apache: LimitRequestBody 0; Caddy: request_body max_size), or lower max_file_size",
};

const BAD_GATEWAY: Remedy = Remedy {
    problem: "bad-gateway",
    nginx: "proxy_pass must name the address and port of upslot",
    apache: "ProxyPass must name the address and port of upslot",
    caddy: "reverse_proxy must name the address and port of upslot",
    haproxy: "the server line must name the address and port of upslot",
    other: "the proxy must name the address and port of upslot (http_address, http_port), and upslot must be running",
};

const ERROR: Remedy = Remedy {
    problem: "proxy-error",
    nginx: "see the error log of nginx: client_body_temp_path may be full or not writable; proxy_request_buffering off avoids it",
    apache: "see the error log of Apache",
    caddy: "see the log of Caddy",
    haproxy: "see the log of HAProxy",
    other: "see the error log of the reverse proxy",
};

const BUFFERING: Remedy = Remedy {
    problem: "request-buffering",
    nginx: "proxy_request_buffering off; otherwise uploads are written to disk twice, and need room in client_body_temp_path",
    apache: "remove proxy-sendcl, which makes Apache keep whole bodies",
    caddy: "remove request_buffers (buffer_requests) from reverse_proxy",
    haproxy: "remove option http-buffer-request",
    other: "let the proxy pass bodies on as they arrive (nginx: proxy_request_buffering off; HAProxy: no option http-buffer-request; Caddy: no request_buffers)",
};

const BUFFERING_CHUNKED: Remedy = Remedy {
    problem: "http-1.0-upstream",
    nginx: "proxy_http_version 1.1; and proxy_set_header Connection \"\"; so that chunked uploads are passed on as they arrive and connections are reused",
    apache: "remove force-proxy-request-1.0 and proxy-sendcl",
    caddy: "let the transport use HTTP/1.1",
    haproxy: "remove the rules that downgrade to HTTP/1.0",
    other: "let the proxy speak HTTP/1.1 to upslot",
};

const PATH_CHANGED: Remedy = Remedy {
    problem: "path-changed",
    nginx: "proxy_pass without a path after the port, and no rewrite of the path, so that the prefix of put_url is kept or stripped as a whole",
    apache: "ProxyPass with the same path on both sides, and nocanon",
    caddy: "remove rewrite and uri; handle_path may strip the prefix of put_url as a whole",
    haproxy: "remove http-request set-path and replace-path",
    other: "let the proxy keep the prefix of put_url, or strip it as a whole",
};

const NAMES_CHANGED: Remedy = Remedy {
    problem: "name-decoded",
    nginx: "proxy_pass without a path and without variables such as $uri after the port, because nginx decodes these",
    apache: "ProxyPass with nocanon, and AllowEncodedSlashes NoDecode; no RewriteRule or ProxyPassMatch with $1",
    caddy: "remove rewrite and uri replace, which decode the path",
    haproxy: "remove url_dec and replace-path",
    other: "let the proxy pass the path on without decoding it",
};

const METHOD: Remedy = Remedy {
    problem: "method-refused",
    nginx: "allow GET, HEAD, OPTIONS and PUT: remove limit_except and comparisons of $request_method, and no DAV or static location may serve this path",
    apache: "allow GET, HEAD, OPTIONS and PUT: remove Limit, LimitExcept, AllowMethods and Require method",
    caddy: "remove the method matchers and respond directives for this site",
    haproxy: "remove the http-request deny rules about methods",
    other: "allow the methods GET, HEAD, OPTIONS and PUT",
};

const CORS_MISSING: Remedy = Remedy {
    problem: "cors-missing",
    nginx: "remove proxy_hide_header Access-Control-..., and any if or location that answers OPTIONS itself",
    apache: "remove Header unset Access-Control-..., and rules that answer OPTIONS",
    caddy: "remove header -Access-Control-... and header_down",
    haproxy: "remove http-response del-header Access-Control-...",
    other: "let the proxy pass the Access-Control fields of upslot on unchanged",
};

const CORS_DUPLICATED: Remedy = Remedy {
    problem: "cors-duplicated",
    nginx: "remove add_header Access-Control-..., because upslot sends these fields itself",
    apache: "remove Header add and Header always set Access-Control-..., because upslot sends these fields itself",
    caddy: "remove header Access-Control-..., because upslot sends these fields itself",
    haproxy: "remove http-response add-header Access-Control-..., because upslot sends these fields itself",
    other: "remove the Access-Control fields that the proxy adds, or set allow_web_clients: false",
};

const COMPRESSED: Remedy = Remedy {
    problem: "compressed",
    nginx: "gzip off; in the location",
    apache: "SetEnv no-gzip 1, and no Brotli",
    caddy: "remove encode from this site",
    haproxy: "remove compression algo and compression type",
    other: "turn compression off for this host, because clients rely on exact lengths",
};

const TIMED_OUT: Remedy = Remedy {
    problem: "slow-upload-cut",
    nginx: "client_body_timeout 60s; and proxy_send_timeout 60s;",
    apache: "RequestReadTimeout body=60,MinRate=100 and Timeout 120",
    caddy: "raise read_body and idle in the timeouts of the server",
    haproxy: "timeout client 60s, timeout server 120s, and no option http-buffer-request, which makes timeout http-request apply to bodies",
    other: "raise the timeouts for request bodies to 60 s (HAProxy: timeout client, timeout server; nginx: client_body_timeout; Apache: RequestReadTimeout)",
};

const LENGTH_REQUIRED: Remedy = Remedy {
    problem: "chunked-refused",
    nginx: "proxy_http_version 1.1;",
    apache: "remove ProxyErrorOverride and modules that need a Content-Length",
    caddy: "remove the rule that needs a Content-Length",
    haproxy: "remove the rule that needs a Content-Length",
    other: "let the proxy accept uploads with Transfer-Encoding: chunked, which some clients send",
};

const AUTHORIZATION: Remedy = Remedy {
    problem: "authorization-dropped",
    nginx: "remove proxy_set_header Authorization \"\";",
    apache: "remove RequestHeader unset Authorization",
    caddy: "remove header_up -Authorization",
    haproxy: "remove http-request del-header Authorization",
    other: "let the proxy pass Authorization on: mod_http_file_share needs it",
};

const CACHED: Remedy = Remedy {
    problem: "cached",
    nginx: "proxy_cache off; in the location",
    apache: "CacheDisable /",
    caddy: "remove cache from this site",
    haproxy: "remove cache-use and cache-store",
    other: "turn caching off for this host, or let it end when upslot deletes a file",
};

const ALL: [&Remedy; 15] = [
    &BODY_LIMIT,
    &BAD_GATEWAY,
    &ERROR,
    &BUFFERING,
    &BUFFERING_CHUNKED,
    &PATH_CHANGED,
    &NAMES_CHANGED,
    &METHOD,
    &CORS_MISSING,
    &CORS_DUPLICATED,
    &COMPRESSED,
    &TIMED_OUT,
    &LENGTH_REQUIRED,
    &AUTHORIZATION,
    &CACHED,
];

/// What to change in the configuration of the proxy; empty for a problem without a remedy of its own.
pub fn remedy(problem: &str, proxy: Proxy) -> &'static str {
    let Some(remedy) = ALL.iter().find(|remedy| remedy.problem == problem) else {
        return "";
    };
    match proxy {
        Proxy::Nginx => remedy.nginx,
        Proxy::Apache => remedy.apache,
        Proxy::Caddy => remedy.caddy,
        Proxy::Haproxy => remedy.haproxy,
        Proxy::Cloudflare if problem == "body-limit" => {
            "lower max_file_size to 100 MB, or let the host name bypass Cloudflare (\"DNS only\")"
        }
        Proxy::Cloudflare | Proxy::Other => remedy.other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(fields: &[(&str, &str)], body: &str) -> Response {
        let field = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Response {
            status: 502,
            fields: fields.iter().map(field).collect(),
            body: body.into(),
            ..Response::default()
        }
    }

    #[test]
    fn proxies_are_recognised() {
        for (server, proxy) in [
            ("nginx/1.22.1", Proxy::Nginx),
            ("Apache/2.4.62 (Debian)", Proxy::Apache),
            ("Caddy", Proxy::Caddy),
            ("cloudflare", Proxy::Cloudflare),
            ("lighttpd", Proxy::Other),
        ] {
            assert_eq!(Proxy::of(&response(&[("server", server)], "")), proxy);
        }
        let page = "<html><body><h1>503 Service Unavailable</h1>\n";
        assert_eq!(Proxy::of(&response(&[], page)), Proxy::Haproxy);
        assert_eq!(Proxy::of(&response(&[], "")), Proxy::Other);
    }

    #[test]
    fn pages_of_proxies_are_not_from_upslot() {
        let plain = [("content-type", "text/plain; charset=utf-8")];
        assert!(is_from_upslot(&response(
            &plain,
            "There is no such file.\n"
        )));
        for (fields, body) in [
            (&plain[..], "404 page not found\n"),
            (&plain[..], "<b>No.\n"),
            (&plain[..], ""),
            (&[("content-type", "text/html")], "No.\n"),
            (&[], "No.\n"),
        ] {
            assert!(!is_from_upslot(&response(fields, body)), "{body}");
        }
    }

    #[test]
    fn every_remedy_is_a_line() {
        let proxies = [
            Proxy::Nginx,
            Proxy::Apache,
            Proxy::Caddy,
            Proxy::Haproxy,
            Proxy::Cloudflare,
            Proxy::Other,
        ];
        for entry in ALL {
            for proxy in proxies {
                let text = remedy(entry.problem, proxy);
                assert!(
                    !text.is_empty() && !text.contains('\n'),
                    "{}",
                    entry.problem
                );
            }
        }
        assert_eq!(remedy("something else", Proxy::Nginx), "");
    }
}
