//! What an initiator wants of a session.

use std::time::Duration;

/// The settings of an initiator connection.
#[derive(Clone, Debug)]
pub struct Config {
    /// InitiatorName (RFC 7143 13.3).
    pub initiator_name: String,
    /// ISID (RFC 7143 11.12.5); together with the name it is the initiator port.
    pub isid: [u8; 6],
    /// Discovery, or the target to log in to.
    pub session: Session,
    /// CHAP credentials; `None` offers no authentication.
    pub chap: Option<Chap>,
    /// HeaderDigest (RFC 7143 13.1).
    pub header_digest: DigestChoice,
    /// DataDigest (RFC 7143 13.1).
    pub data_digest: DigestChoice,
    /// MaxRecvDataSegmentLength this end declares, in bytes (512 to 2^24-1; RFC 7143 13.12).
    pub max_recv_data_segment_length_bytes: u32,
    /// MaxBurstLength to offer, in bytes (RFC 7143 13.13).
    pub max_burst_length_bytes: u32,
    /// FirstBurstLength to offer, in bytes (RFC 7143 13.14).
    pub first_burst_length_bytes: u32,
    /// MaxOutstandingR2T to offer (RFC 7143 13.17).
    pub max_outstanding_r2t: u16,
    /// InitialR2T to offer (RFC 7143 13.10).
    pub initial_r2t: bool,
    /// ImmediateData to offer (RFC 7143 13.11).
    pub immediate_data: bool,
    /// How long the login may take.
    pub login_timeout: Duration,
    /// After this long without a byte from the target a NOP-Out ping is sent; `None` never pings.
    pub ping_interval: Option<Duration>,
    /// How long the target may stay silent after a ping before the connection is given up as dead.
    pub ping_timeout: Duration,
}

impl Config {
    /// Settings for a session, with generous lengths, no digests, no CHAP and no pings.
    pub fn new(initiator_name: impl Into<String>, isid: [u8; 6], session: Session) -> Self {
        Self {
            initiator_name: initiator_name.into(),
            isid,
            session,
            chap: None,
            header_digest: DigestChoice::None,
            data_digest: DigestChoice::None,
            max_recv_data_segment_length_bytes: 256 * 1024,
            max_burst_length_bytes: 1024 * 1024,
            first_burst_length_bytes: 256 * 1024,
            max_outstanding_r2t: 4,
            initial_r2t: false,
            immediate_data: true,
            login_timeout: Duration::from_secs(15),
            ping_interval: None,
            ping_timeout: Duration::from_secs(10),
        }
    }
}

/// What kind of session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Session {
    /// SessionType=Discovery.
    Discovery,
    /// SessionType=Normal.
    Normal {
        /// TargetName (RFC 7143 13.4).
        target_name: String,
    },
}

/// What to offer for a digest key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DigestChoice {
    /// `None`
    None,
    /// `CRC32C`
    Crc32c,
    /// `CRC32C,None`
    PreferCrc32c,
    /// `None,CRC32C`
    PreferNone,
}

impl DigestChoice {
    /// In order of preference; true is CRC32C.
    pub(super) fn list(self) -> Vec<bool> {
        match self {
            Self::None => vec![false],
            Self::Crc32c => vec![true],
            Self::PreferCrc32c => vec![true, false],
            Self::PreferNone => vec![false, true],
        }
    }
}

/// CHAP credentials (RFC 7143 12.1.3).
#[derive(Clone)]
pub struct Chap {
    /// CHAP_N of this end.
    pub name: String,
    /// The secret of this end.
    pub secret: Vec<u8>,
    /// CHAP_N and secret of the target, which must then prove itself (mutual CHAP).
    pub target: Option<(String, Vec<u8>)>,
    /// CHAP_A to offer, such as `7,5`.
    pub algorithms: String,
}

impl Chap {
    /// One-way CHAP with SHA-256 preferred to MD5.
    pub fn new(name: impl Into<String>, secret: impl Into<Vec<u8>>) -> Self {
        Self {
            name: name.into(),
            secret: secret.into(),
            target: None,
            algorithms: "7,5".into(),
        }
    }
}

impl std::fmt::Debug for Chap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Chap")
            .field("name", &self.name)
            .field("algorithms", &self.algorithms)
            .finish_non_exhaustive()
    }
}
