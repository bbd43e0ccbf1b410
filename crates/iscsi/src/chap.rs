//! CHAP as iSCSI uses it (RFC 1994, RFC 7143 12.1.3): what both ends compute.

use md5::{Digest, Md5};
use sha2::Sha256;

/// CHAP_A algorithms in IANA's "PPP Authentication Algorithms".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// 5: MD5.
    Md5,
    /// 7: SHA-256.
    Sha256,
}

impl Algorithm {
    /// The number in CHAP_A.
    pub fn number(self) -> u8 {
        match self {
            Self::Md5 => 5,
            Self::Sha256 => 7,
        }
    }

    /// The first algorithm in a CHAP_A list, which is in order of preference, that is supported.
    pub fn choose(list: &str) -> Option<Self> {
        list.split(',')
            .find_map(|item| match crate::text::number(item)? {
                5 => Some(Self::Md5),
                7 => Some(Self::Sha256),
                _ => None,
            })
    }

    /// Length of challenges this end makes, in bytes: that of the hash.
    pub fn challenge_bytes(self) -> usize {
        match self {
            Self::Md5 => 16,
            Self::Sha256 => 32,
        }
    }

    /// The response to a challenge: H(identifier, secret, challenge).
    pub fn response(self, identifier: u8, secret: &[u8], challenge: &[u8]) -> Vec<u8> {
        fn hash<D: Digest>(identifier: u8, secret: &[u8], challenge: &[u8]) -> Vec<u8> {
            let mut hash = D::new();
            hash.update([identifier]);
            hash.update(secret);
            hash.update(challenge);
            hash.finalize().to_vec()
        }
        match self {
            Self::Md5 => hash::<Md5>(identifier, secret, challenge),
            Self::Sha256 => hash::<Sha256>(identifier, secret, challenge),
        }
    }
}

/// A challenge of an end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Challenge {
    pub identifier: u8,
    pub bytes: Vec<u8>,
}

impl Challenge {
    /// Derived from random bytes that are used for nothing else.
    pub fn new(algorithm: Algorithm, seed: &[u8; 32]) -> Self {
        let mut hash = Sha256::new();
        hash.update(b"identifier");
        hash.update(seed);
        let identifier = hash.finalize()[0];
        let mut hash = Sha256::new();
        hash.update(b"challenge");
        hash.update(seed);
        Self {
            identifier,
            bytes: hash.finalize()[..algorithm.challenge_bytes()].to_vec(),
        }
    }
}

/// Equality in a time that depends on the lengths only.
pub(crate) fn equal(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |acc, (x, y)| acc | (x ^ y)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn responses_are_the_hash_of_identifier_secret_and_challenge() {
        // md5("abc") and sha256("abc"), FIPS 180-2 and RFC 1321.
        assert_eq!(
            crate::text::to_hex(&Algorithm::Md5.response(b'a', b"b", b"c")),
            "0x900150983cd24fb0d6963f7d28e17f72"
        );
        assert_eq!(
            crate::text::to_hex(&Algorithm::Sha256.response(b'a', b"b", b"c")),
            "0xba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }

    #[test]
    fn the_first_supported_algorithm_of_the_list_is_chosen() {
        assert_eq!(Algorithm::choose("7,5"), Some(Algorithm::Sha256));
        assert_eq!(Algorithm::choose("6,8,5,7"), Some(Algorithm::Md5));
        assert_eq!(Algorithm::choose("6"), None);
        assert_eq!(Algorithm::choose(""), None);
    }

    #[test]
    fn comparison() {
        assert!(equal(b"", b"") && equal(b"ab", b"ab"));
        assert!(!equal(b"ab", b"ac") && !equal(b"ab", b"a"));
    }
}
