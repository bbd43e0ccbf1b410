//! What two ends have agreed on.

/// Discovery or normal (RFC 7143 13.21).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionType {
    /// Only SendTargets and logout.
    Discovery,
    /// SCSI commands.
    Normal,
}

/// What was agreed at login. The default is what holds without negotiation (RFC 7143 13).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionParameters {
    /// Discovery or normal.
    pub session_type: SessionType,
    /// CRC32C over headers (RFC 7143 13.1).
    pub header_digest: bool,
    /// CRC32C over data segments (RFC 7143 13.1).
    pub data_digest: bool,
    /// The longest data segment the peer takes, in bytes (RFC 7143 13.12).
    pub peer_max_recv_data_segment_length_bytes: u32,
    /// The longest data segment this end takes, in bytes.
    pub own_max_recv_data_segment_length_bytes: u32,
    /// The longest sequence of Data-In or solicited Data-Out, in bytes (RFC 7143 13.13).
    pub max_burst_length_bytes: u32,
    /// The most unsolicited data of a command, in bytes (RFC 7143 13.14).
    pub first_burst_length_bytes: u32,
    /// R2Ts outstanding per task (RFC 7143 13.17).
    pub max_outstanding_r2t: u16,
    /// True: unsolicited Data-Out PDUs are forbidden (RFC 7143 13.10).
    pub initial_r2t: bool,
    /// True: data may come in the command PDU (RFC 7143 13.11).
    pub immediate_data: bool,
    /// DefaultTime2Wait in seconds (RFC 7143 13.15).
    pub time2wait_s: u16,
    /// iSCSIProtocolLevel (RFC 7144 6.1.1): 2 allows the task management functions of RFC 7144.
    pub protocol_level: u8,
}

/// MaxRecvDataSegmentLength before it is declared, and during login, in bytes (RFC 7143 13.12).
pub const DEFAULT_DATA_SEGMENT_BYTES: u32 = 8192;

impl Default for SessionParameters {
    fn default() -> Self {
        Self {
            session_type: SessionType::Normal,
            header_digest: false,
            data_digest: false,
            peer_max_recv_data_segment_length_bytes: DEFAULT_DATA_SEGMENT_BYTES,
            own_max_recv_data_segment_length_bytes: DEFAULT_DATA_SEGMENT_BYTES,
            max_burst_length_bytes: 262_144,
            first_burst_length_bytes: 65_536,
            max_outstanding_r2t: 1,
            initial_r2t: true,
            immediate_data: true,
            time2wait_s: 2,
            protocol_level: 1,
        }
    }
}
