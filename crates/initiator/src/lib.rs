//! A blocking iSCSI initiator for tests, the demo and benchmarks.
