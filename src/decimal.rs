//! Fast decimal formatting without `std::fmt`, for response heads and slot queries, which hold several numbers each.

/// A buffer that fits the digits of any `u64`.
pub type Room = [u8; u64::MAX.ilog10() as usize + 1];

/// The decimal digits of `number`, without leading zeros.
pub fn digits(number: u64, room: &mut Room) -> &[u8] {
    let mut start = room.len();
    let mut left = number;
    loop {
        start -= 1;
        room[start] = b'0' + (left % 10) as u8;
        left /= 10;
        if left == 0 {
            return &room[start..];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_match_std_formatting() {
        let powers = (0..20).map(|power| 10_u64.pow(power));
        let edges = powers.flat_map(|power| [power - 1, power, power + 1]);
        for number in edges.chain([u64::MAX - 1, u64::MAX]) {
            let mut room = Room::default();
            assert_eq!(digits(number, &mut room), number.to_string().as_bytes());
        }
    }
}
