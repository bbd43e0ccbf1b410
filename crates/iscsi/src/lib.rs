//! RFC 7143, sans-IO: both ends of an iSCSI connection as state machines.
