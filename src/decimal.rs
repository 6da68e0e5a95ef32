//! Decimal digits of a number, without the formatting machinery: an answer's head and a slot's query have several.

/// Room for the digits of any number.
pub type Room = [u8; u64::MAX.ilog10() as usize + 1];

/// The digits, none of them superfluous.
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
    fn they_are_those_of_the_formatting_machinery() {
        let powers = (0..20).map(|power| 10_u64.pow(power));
        let edges = powers.flat_map(|power| [power - 1, power, power + 1]);
        for number in edges.chain([u64::MAX - 1, u64::MAX]) {
            let mut room = Room::default();
            assert_eq!(digits(number, &mut room), number.to_string().as_bytes());
        }
    }
}
