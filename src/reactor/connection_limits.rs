//! The counts and limits of open connections, in total and per client address.

use std::collections::HashMap;
use std::net::IpAddr;

/// The counts of open connections, and the bytes that one of them transferred.
#[derive(Debug, Default)]
pub struct ConnectionLimits {
    pub addresses: AddressCounts,
    /// Number of open connections.
    pub open: usize,
    /// Maximum number of open connections.
    pub limit: usize,
    /// Bytes that the connection transferred which was driven last.
    pub moved: usize,
}

/// Open connections by client address; IPv6 by /64, because a host usually has a whole /64.
#[derive(Debug, Default)]
pub struct AddressCounts {
    counts: HashMap<IpAddr, usize>,
}

impl AddressCounts {
    /// Counts one more connection; returns the new count, and the group to pass to [`AddressCounts::remove`].
    pub fn add(&mut self, address: IpAddr) -> (usize, IpAddr) {
        let group = group(address);
        let count = self.counts.entry(group).or_insert(0);
        *count += 1;
        (*count, group)
    }

    pub fn remove(&mut self, group: IpAddr) {
        if let Some(count) = self.counts.get_mut(&group) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&group);
            }
        }
    }
}

fn group(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() >> 64 << 64).into()),
        v4 => v4,
    }
}
