//! One reactor per core: completion-based network and disk I/O.
