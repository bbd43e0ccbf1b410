//! EXTENDED COPY (LID1) and RECEIVE COPY RESULTS.

/// What RECEIVE COPY RESULTS tells about an EXTENDED COPY that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CopyResult {
    /// LIST IDENTIFIER.
    pub(crate) list_identifier: u8,
}
