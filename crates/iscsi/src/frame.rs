//! Cuts a byte stream into PDUs, in place, at either end.

use crate::digest::{self, DIGEST_BYTES, Digest};
use crate::pdu::{BHS_BYTES, padding_bytes};

/// The longest TotalAHSLength in bytes that eight bits of words can say.
const MAX_AHS_BYTES: usize = 255 * 4;

/// What this end accepts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// The longest data segment, in bytes.
    pub data_bytes: u32,
    /// The most additional header segments, in bytes.
    pub ahs_bytes: u32,
}

/// The stream has lost its framing or exceeds a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FrameError {
    HeaderDigest,
    DataTooLong { length: u32, limit: u32 },
    HeaderTooLong { length: u32, limit: u32 },
}

/// One step through the stream.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step<'a> {
    /// All input is used up.
    NeedMore,
    /// A header (with its additional segments and digest) is complete.
    Header,
    /// The next part of the data segment, as it lies in the input.
    Data(&'a [u8]),
    /// The PDU is complete; false when its data digest is wrong.
    End(bool),
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// Collecting the basic header.
    Header,
    /// Collecting additional segments and the header digest into `extra`.
    Extra { wanted: usize },
    /// In the data segment.
    Data { left: usize },
    /// In padding and data digest, collected into `trailer`.
    Trailer { filled: usize },
}

/// The receiving half of a connection's framing. Holds at most one header; data is handed through.
#[derive(Debug)]
pub(crate) struct Framer {
    state: State,
    header: [u8; BHS_BYTES],
    header_filled: usize,
    /// Additional header segments, then the header digest while it is collected.
    extra: Vec<u8>,
    data_length: usize,
    trailer: [u8; 3 + DIGEST_BYTES],
    crc: Digest,
    /// Set once negotiated.
    pub header_digest: bool,
    /// Set once negotiated.
    pub data_digest: bool,
    pub limits: Limits,
}

impl Framer {
    pub fn new(limits: Limits) -> Self {
        Self {
            state: State::Header,
            header: [0; BHS_BYTES],
            header_filled: 0,
            extra: Vec::new(),
            data_length: 0,
            trailer: [0; 3 + DIGEST_BYTES],
            crc: Digest::default(),
            header_digest: false,
            data_digest: false,
            limits,
        }
    }

    /// The header announced by the last `Step::Header`; valid until the PDU's `Step::End`.
    pub fn header(&self) -> &[u8; BHS_BYTES] {
        &self.header
    }

    /// The additional header segments of that PDU.
    pub fn additional(&self) -> &[u8] {
        &self.extra
    }

    /// The length of that PDU's data segment in bytes.
    pub fn data_length(&self) -> usize {
        self.data_length
    }

    /// Goes one step on, taking what it uses off the front of `input`.
    pub fn step<'a>(&mut self, input: &mut &'a [u8]) -> Result<Step<'a>, FrameError> {
        loop {
            match self.state {
                State::Header => {
                    let part = take(input, BHS_BYTES - self.header_filled);
                    self.header[self.header_filled..self.header_filled + part.len()]
                        .copy_from_slice(part);
                    self.header_filled += part.len();
                    if self.header_filled < BHS_BYTES {
                        return Ok(Step::NeedMore);
                    }
                    let ahs_bytes = self.check_lengths()?;
                    self.extra.clear();
                    let digest_bytes = if self.header_digest { DIGEST_BYTES } else { 0 };
                    let wanted = ahs_bytes + digest_bytes;
                    if wanted == 0 {
                        self.state = State::Data {
                            left: self.data_length,
                        };
                        return Ok(Step::Header);
                    }
                    self.state = State::Extra { wanted };
                }
                State::Extra { wanted } => {
                    let part = take(input, wanted - self.extra.len());
                    self.extra.extend_from_slice(part);
                    if self.extra.len() < wanted {
                        return Ok(Step::NeedMore);
                    }
                    if self.header_digest {
                        let ahs_bytes = wanted - DIGEST_BYTES;
                        let (additional, received) = self.extra.split_at(ahs_bytes);
                        if digest::of_header(&self.header, additional) != *received {
                            return Err(FrameError::HeaderDigest);
                        }
                        self.extra.truncate(ahs_bytes);
                    }
                    self.state = State::Data {
                        left: self.data_length,
                    };
                    return Ok(Step::Header);
                }
                State::Data { left: 0 } => {
                    if self.trailer_length() == 0 {
                        self.restart();
                        return Ok(Step::End(true));
                    }
                    self.state = State::Trailer { filled: 0 };
                }
                State::Data { left } => {
                    let part = take(input, left);
                    if part.is_empty() {
                        return Ok(Step::NeedMore);
                    }
                    if self.data_digest {
                        self.crc.update(part);
                    }
                    self.state = State::Data {
                        left: left - part.len(),
                    };
                    return Ok(Step::Data(part));
                }
                State::Trailer { filled } => {
                    let wanted = self.trailer_length();
                    let part = take(input, wanted - filled);
                    self.trailer[filled..filled + part.len()].copy_from_slice(part);
                    let filled = filled + part.len();
                    if filled < wanted {
                        self.state = State::Trailer { filled };
                        return Ok(Step::NeedMore);
                    }
                    let good = !self.data_digest || {
                        let padding = padding_bytes(self.data_length);
                        // The pad bytes are covered as they came (RFC 7143 11.2.3): they should be zero.
                        self.crc.update(&self.trailer[..padding]);
                        self.crc.to_wire() == self.trailer[padding..wanted]
                    };
                    self.restart();
                    return Ok(Step::End(good));
                }
            }
        }
    }

    /// Checks what the header announces before anything is kept for it; returns the bytes of additional segments.
    fn check_lengths(&mut self) -> Result<usize, FrameError> {
        let length = u32::from_be_bytes([0, self.header[5], self.header[6], self.header[7]]);
        if length > self.limits.data_bytes {
            return Err(FrameError::DataTooLong {
                length,
                limit: self.limits.data_bytes,
            });
        }
        let ahs = u32::from(self.header[4]) * 4;
        if ahs > self.limits.ahs_bytes {
            return Err(FrameError::HeaderTooLong {
                length: ahs,
                limit: self.limits.ahs_bytes,
            });
        }
        self.data_length = length as usize;
        Ok((ahs as usize).min(MAX_AHS_BYTES))
    }

    /// Padding and data digest. A PDU without data has neither (RFC 7143 11.2.3).
    fn trailer_length(&self) -> usize {
        if self.data_length == 0 {
            return 0;
        }
        let digest_bytes = if self.data_digest { DIGEST_BYTES } else { 0 };
        padding_bytes(self.data_length) + digest_bytes
    }

    fn restart(&mut self) {
        self.state = State::Header;
        self.header_filled = 0;
        self.crc = Digest::default();
    }
}

fn take<'a>(input: &mut &'a [u8], at_most: usize) -> &'a [u8] {
    let (part, rest) = input.split_at(at_most.min(input.len()));
    *input = rest;
    part
}
