//! Serial number arithmetic over 32 bits (RFC 1982), as RFC 7143 4.2.2.1 prescribes for CmdSN, StatSN and DataSN.

/// True when `a` comes before `b`. Numbers half the circle apart are unordered: false both ways.
pub fn before(a: u32, b: u32) -> bool {
    let distance = b.wrapping_sub(a);
    distance != 0 && distance < 1 << 31
}

/// True when `n` lies in the window from `first` to `last`, both included. A window with `last` just before
/// `first` is empty (RFC 7143 4.2.2.1: a closed command window).
pub fn in_window(n: u32, first: u32, last: u32) -> bool {
    if before(last, first) {
        return false;
    }
    n.wrapping_sub(first) <= last.wrapping_sub(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_wraps() {
        assert!(before(0, 1));
        assert!(!before(1, 0));
        assert!(!before(7, 7));
        assert!(before(u32::MAX, 0));
        assert!(!before(0, u32::MAX));
        assert!(!before(0, 1 << 31) && !before(1 << 31, 0));
    }

    #[test]
    fn windows_wrap_and_close() {
        assert!(in_window(5, 5, 5));
        assert!(!in_window(6, 5, 5) && !in_window(4, 5, 5));
        assert!(!in_window(5, 5, 4), "a closed window admits nothing");
        assert!(in_window(1, u32::MAX, 3) && in_window(u32::MAX, u32::MAX, 3));
        assert!(!in_window(4, u32::MAX, 3));
    }
}
