//! What the application decides for a target connection before it begins.

use std::collections::HashMap;
use std::time::Duration;

/// The settings of a target connection; shared by all connections of a portal.
#[derive(Clone, Debug)]
pub struct Config {
    /// The iSCSI names that are served here; a login to another name is refused with 0203h before the
    /// application is asked. A normal session logs in to exactly one of them.
    pub target_names: Vec<String>,
    /// TargetAlias (RFC 7143 13.6), declared at login when given.
    pub target_alias: Option<String>,
    /// TargetPortalGroupTag (RFC 7143 13.9): the portal's position from 1.
    pub target_portal_group_tag: u16,
    /// CHAP (RFC 7143 12.1.3); `None` lets everyone in with AuthMethod=None.
    pub chap: Option<ChapConfig>,
    /// MaxRecvDataSegmentLength this end declares, in bytes (512 to 2^24-1; RFC 7143 13.12).
    pub max_recv_data_segment_length_bytes: u32,
    /// The largest MaxBurstLength this end agrees to, in bytes (RFC 7143 13.13).
    pub max_burst_length_bytes: u32,
    /// The largest FirstBurstLength this end agrees to, in bytes (RFC 7143 13.14).
    pub first_burst_length_bytes: u32,
    /// The largest MaxOutstandingR2T this end agrees to (RFC 7143 13.17).
    pub max_outstanding_r2t: u16,
    /// Whether unsolicited data is agreed to when the initiator wants it (InitialR2T, RFC 7143 13.10).
    pub initial_r2t: bool,
    /// Whether immediate data is agreed to (ImmediateData, RFC 7143 13.11).
    pub immediate_data: bool,
    /// The commands an initiator may have outstanding (MaxCmdSN - ExpCmdSN + 1), at least 1.
    pub command_window: u32,
    /// The most bytes of Data-Out buffers this connection holds or has asked for with R2Ts, over all its tasks.
    /// A single command may exceed it when it is alone.
    pub data_budget_bytes: usize,
    /// The most data one command may carry to the target, in bytes; more is refused with CHECK CONDITION.
    pub max_write_bytes: u32,
    /// How long the login phase may take (RFC 7143 10.1), after which the connection is closed.
    pub login_timeout: Duration,
    /// After this long without a byte from the initiator a NOP-In ping is sent; `None` never pings.
    pub ping_interval: Option<Duration>,
    /// How long the initiator may stay silent after a ping before the connection is given up as dead.
    pub ping_timeout: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            target_names: Vec::new(),
            target_alias: None,
            target_portal_group_tag: 1,
            chap: None,
            max_recv_data_segment_length_bytes: 256 * 1024,
            max_burst_length_bytes: 1024 * 1024,
            first_burst_length_bytes: 256 * 1024,
            max_outstanding_r2t: 4,
            initial_r2t: false,
            immediate_data: true,
            command_window: 128,
            data_budget_bytes: 8 * 1024 * 1024,
            max_write_bytes: 32 * 1024 * 1024,
            login_timeout: Duration::from_secs(15),
            ping_interval: Some(Duration::from_secs(10)),
            ping_timeout: Duration::from_secs(10),
        }
    }
}

/// CHAP settings (RFC 7143 12.1.3): who may log in, and as whom the target answers a mutual challenge.
#[derive(Clone, Debug, Default)]
pub struct ChapConfig {
    /// Secrets of initiators by CHAP name (CHAP_N).
    pub initiators: HashMap<String, ChapAccount>,
    /// The CHAP name and secret with which the target proves itself when the initiator asks (mutual CHAP).
    pub target: Option<(String, Vec<u8>)>,
    /// Whether discovery sessions need CHAP too.
    pub discovery: bool,
}

/// What is known of one initiator's CHAP name.
#[derive(Clone)]
pub struct ChapAccount {
    /// The shared secret.
    pub secret: Vec<u8>,
    /// When given, the only iSCSI initiator name that may use this account.
    pub initiator_name: Option<String>,
}

impl std::fmt::Debug for ChapAccount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChapAccount")
            .field("initiator_name", &self.initiator_name)
            .finish_non_exhaustive()
    }
}
