//! Names and addresses: whether clients find the hosts of `put_url` and `get_url`, and reach every address.

use std::io;
use std::net::{IpAddr, SocketAddr};

use crate::client::{Endpoint, Limits, TimedSocket, describe, is_onion};
use crate::doctor::report::Finding;
use crate::http::origin::Origin;
use crate::sys;

/// Judges the addresses of a host.
pub fn judge_lookup(origin: &Origin, found: &Result<Vec<SocketAddr>, String>) -> Finding {
    let host = &origin.host;
    if host.parse::<IpAddr>().is_ok() {
        return Finding::ok("dns", format!("{host} is an address and needs no DNS"));
    }
    let addresses = match found {
        Ok(addresses) => addresses,
        Err(why) if is_onion(host) => return Finding::skipped("dns", format!("{host}: {why}")),
        Err(why) => {
            let remedy = "create an A record, and an AAAA record if the server has IPv6, and check the name in put_url and get_url";
            return Finding::fail("dns", "dns", format!("{host}: {why}"), remedy);
        }
    };
    let list = |v6: bool| -> String {
        let of_kind = addresses.iter().filter(|address| address.is_ipv6() == v6);
        let shown: Vec<String> = of_kind.map(|address| address.ip().to_string()).collect();
        match shown.is_empty() {
            true => "none".to_owned(),
            false => shown.join(" "),
        }
    };
    let text = format!("{host}: A {}, AAAA {}", list(false), list(true));
    let local = host == "localhost" || host.ends_with(".localhost");
    if !local && addresses.iter().any(|address| address.ip().is_loopback()) {
        let remedy =
            "this machine finds itself, perhaps in /etc/hosts; check what other machines find";
        return Finding::notice("dns", "dns-loopback", text, remedy);
    }
    if addresses.iter().all(SocketAddr::is_ipv6) {
        let remedy = "create an A record, because many networks have no IPv6";
        return Finding::notice("dns", "dns-no-ipv4", text, remedy);
    }
    Finding::ok("dns", text)
}

/// Connects to every address; the findings, and the addresses that accept connections.
pub fn connect(addresses: &[SocketAddr], limits: &Limits) -> (Vec<Finding>, Vec<SocketAddr>) {
    let (mut findings, mut reached) = (Vec::new(), Vec::new());
    // Without another address, a failure to use IPv6 is a failure.
    let both =
        addresses.iter().any(SocketAddr::is_ipv4) && addresses.iter().any(SocketAddr::is_ipv6);
    for address in addresses {
        if limits.is_over() {
            break;
        }
        let begun = sys::monotonic();
        match TimedSocket::connect(&Endpoint::Tcp(*address), limits) {
            Ok(_) => {
                let ms = begun.elapsed().as_millis();
                findings.push(Finding::ok(
                    "connect",
                    format!("{address} accepts connections ({ms} ms)"),
                ));
                reached.push(*address);
            }
            Err(error) if address.is_ipv6() && both && lacks_ipv6(&error) => {
                let text = format!("{address}: this machine has no IPv6");
                findings.push(Finding::skipped("connect", text));
            }
            // Of localhost, either will do.
            Err(error) if address.ip().is_loopback() && both => {
                let text = format!("{address}: {}", describe(&error));
                findings.push(Finding::skipped("connect", text));
            }
            Err(error) => {
                let remedy = match address {
                    SocketAddr::V6(_) if both => {
                        "let the web server listen on IPv6 ([::]:443) and open the firewall, or remove the AAAA record"
                    }
                    _ => "start the web server, and open the port in the firewall",
                };
                let text = format!("{address}: {}", describe(&error));
                findings.push(Finding::fail("connect", "connect", text, remedy));
            }
        }
    }
    (findings, reached)
}

fn lacks_ipv6(error: &io::Error) -> bool {
    let unreachable = matches!(
        error.kind(),
        io::ErrorKind::NetworkUnreachable | io::ErrorKind::AddrNotAvailable
    );
    unreachable || sys::lacks_address_family(error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::report::Status;

    #[test]
    fn lookups_are_judged() {
        for (host, addresses, status, text) in [
            ("192.0.2.1", &["192.0.2.1"][..], Status::Ok, "needs no DNS"),
            (
                "a.example",
                &["192.0.2.1", "2001:db8::1"],
                Status::Ok,
                "A 192.0.2.1, AAAA 2001:db8::1",
            ),
            ("a.example", &["192.0.2.1"], Status::Ok, "AAAA none"),
            ("a.example", &["2001:db8::1"], Status::Notice, "A none"),
            ("a.example", &["127.0.1.1"], Status::Notice, "127.0.1.1"),
            (
                "localhost",
                &["127.0.0.1", "::1"],
                Status::Ok,
                "A 127.0.0.1, AAAA ::1",
            ),
        ] {
            let (origin, _) = Origin::split(&format!("https://{host}/")).unwrap();
            let addresses = addresses
                .iter()
                .map(|ip| SocketAddr::new(ip.parse().unwrap(), 443));
            let finding = judge_lookup(&origin, &Ok(addresses.collect()));
            assert_eq!(finding.status, status, "{host}");
            assert!(finding.found.contains(text), "{}", finding.found);
        }
        let (origin, _) = Origin::split("http://abc.onion/").unwrap();
        let limits = Limits {
            deadline: sys::monotonic(),
            interrupted: Default::default(),
        };
        let finding = judge_lookup(&origin, &crate::client::lookup(&origin.host, 80, &limits));
        assert_eq!(finding.status, Status::Skipped);
        let (origin, _) = Origin::split("https://a.example/").unwrap();
        let finding = judge_lookup(&origin, &Err("no such name".to_owned()));
        assert_eq!(
            (finding.status, finding.problem),
            (Status::Fail, Some("dns"))
        );
    }
}
